"""Time of a training step of an encoder (forward, backward, SGD), and of PyTorch's in the same run, in turns.

python benchmarks/train_step.py [--against=torch] [--encoder=r3d_18] [--shape=2x8x112x112] [--dtype=float32]

The demo's encoder is --width=8 --shape=32x8x32x32. PyTorch runs in channels_last_3d, bfloat16 by autocast, with
torch.compile on a GPU; it needs torch and torchvision (`make parity` has a virtual environment with both).
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # PyTorch needs memory of the same GPU

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import check_rounds, convolutions, interleave, matmul_peak, parse_shape, summary, train_flops
from vididi_jax.compilation import compiler_options
from vididi_jax.errors import UserError, one_sentence
from vididi_jax.models import create_encoder

RATE = 1e-3


def ours(arguments, clips: np.ndarray):
    """(a function that runs one step, lines to print about it)."""
    encoder = create_encoder(arguments.encoder, width=arguments.width, dtype=jnp.dtype(arguments.dtype),
                             conv_impl=arguments.conv_impl, remat=arguments.remat)
    x = jnp.asarray(clips)
    variables = jax.jit(encoder.init)(jax.random.key(0), x)

    def step(variables, x):
        def loss(params):
            out, new = encoder.apply({**variables, 'params': params}, x, train=True, mutable=['batch_stats'])
            return jnp.square(out.astype(jnp.float32)).mean(), new['batch_stats']

        gradients, batch_stats = jax.grad(loss, has_aux=True)(variables['params'])
        params = jax.tree.map(lambda p, g: p - RATE * g, variables['params'], gradients)
        return {'params': params, 'batch_stats': batch_stats}

    start = time.perf_counter()
    options = compiler_options(jax.default_backend())
    compiled = jax.jit(step, donate_argnums=0, compiler_options=options).lower(variables, x).compile()
    lines = [f'compiled in {time.perf_counter() - start:.1f} s']
    memory = compiled.memory_analysis()
    if memory is not None:
        needed = memory.temp_size_in_bytes + memory.argument_size_in_bytes
        lines.append(f'memory of the program {needed / 2**20:,.0f} MiB, of it temporary '
                     f'{memory.temp_size_in_bytes / 2**20:,.0f} MiB')
    held = [variables]

    def run():
        held[0] = jax.block_until_ready(compiled(held[0], x))

    return run, lines


def check_torch() -> None:
    """Raises `UserError` unless PyTorch can be timed."""
    try:
        import torch  # noqa: F401
        import torchvision  # noqa: F401
    except ImportError as error:
        raise UserError('--against=torch needs torch and torchvision: pip install torch torchvision.') from error


def torch_model(name: str, width: int):
    """torchvision's network without its head, scaled to `width`."""
    from torch import nn
    from torchvision.models import video
    from torchvision.models.video import resnet

    if width == 64:
        model = getattr(video, name)()
    elif name == 's3d':
        raise UserError("torchvision's s3d has one width: leave --width=64.")
    else:
        simple, flat, factorised = resnet.Conv3DSimple, resnet.Conv3DNoTemporal, resnet.Conv2Plus1D
        makers = {'r3d_18': [simple] * 4, 'mc3_18': [simple] + [flat] * 3, 'r2plus1d_18': [factorised] * 4}[name]

        def part(inputs, outputs, kernel, stride):
            padding = tuple(k // 2 for k in kernel)
            return [nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False), nn.BatchNorm3d(outputs),
                    nn.ReLU(inplace=True)]

        def stem():
            middle = max(45 * width // 64, 1)
            if name == 'r2plus1d_18':
                return nn.Sequential(*part(3, middle, (1, 7, 7), (1, 2, 2)), *part(middle, width, (3, 1, 1), 1))
            return nn.Sequential(*part(3, width, (3, 7, 7), (1, 2, 2)))

        class Narrow(resnet.VideoResNet):
            def _make_layer(self, block, conv_builder, planes, blocks, stride=1):
                if planes == 64:
                    self.inplanes = width
                return super()._make_layer(block, conv_builder, planes * width // 64, blocks, stride)

        model = Narrow(resnet.BasicBlock, makers, [2, 2, 2, 2], stem)
    if name == 's3d':
        model.avgpool, model.classifier = nn.AdaptiveAvgPool3d(1), nn.Identity()
    else:
        model.fc = nn.Identity()
    return model


def theirs(arguments, clips: np.ndarray):
    """As `ours`, in PyTorch."""
    import torch

    gpu = torch.cuda.is_available()
    device = 'cuda' if gpu else 'cpu'
    torch.backends.cudnn.benchmark = True  # shapes stay: the fastest algorithm of each layer, as XLA chooses them
    layout = dict(memory_format=torch.channels_last_3d)
    model = torch_model(arguments.encoder, arguments.width).train().to(device, **layout)
    x = torch.from_numpy(clips).permute(0, 4, 1, 2, 3).to(device, **layout)
    call = torch.compile(model) if gpu else model
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    low = arguments.dtype == 'bfloat16'

    def run():
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=low):
            loss = call(x).float().square().mean()
        loss.backward()
        optimizer.step()
        if gpu:
            torch.cuda.synchronize()

    start = time.perf_counter()
    run()
    lines = [f'first step {time.perf_counter() - start:.1f} s',
             f'torch {torch.__version__}, {torch.get_num_threads()} threads, cudnn.benchmark on']
    if gpu:
        lines.append(f'peak memory {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB')
    return run, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--against', choices=('torch',), help='time PyTorch as well')
    parser.add_argument('--encoder', default='r3d_18')
    parser.add_argument('--shape', default='2x8x112x112', help='clips x frames x height x width')
    parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'), help='of the activations')
    parser.add_argument('--width', type=int, default=64)
    parser.add_argument('--conv_impl', default='auto')
    parser.add_argument('--remat', action='store_true', help='recompute activations in the backward pass')
    parser.add_argument('--rounds', type=int, default=10)
    arguments = parser.parse_args()
    shape = parse_shape(arguments.shape)
    check_rounds(arguments.rounds)
    if arguments.against:
        check_torch()
    clips = np.random.default_rng(0).standard_normal((*shape, 3), np.float32)
    work = train_flops(convolutions(create_encoder(arguments.encoder, width=arguments.width), shape))
    peak = matmul_peak(jnp.dtype(arguments.dtype))
    print(f'{arguments.encoder} of width {arguments.width}, {arguments.shape}, {arguments.dtype}, '
          f'{jax.devices()[0].device_kind}, jax {jax.__version__}: {work / 1e9:.1f} GFLOP a step; '
          f'matmul peak {peak / 1e9:.0f} GFLOP/s', flush=True)
    runs = {}
    for name, make in {'vididi_jax': ours, **({'torch': theirs} if arguments.against else {})}.items():
        runs[name], lines = make(arguments, clips)
        print(f'{name:10} {"; ".join(lines)}', flush=True)
    seconds = interleave(runs, arguments.rounds)
    for name, values in seconds.items():
        speed = work / np.median(values)
        print(f'{name:10} {summary(values)}, {speed / 1e9:.0f} GFLOP/s, {speed / peak:.0%} of the matmul peak')
    if arguments.against:
        ratio = np.median(seconds['vididi_jax'] / seconds['torch'])
        print(f'vididi_jax takes {ratio:.2f} times as long as torch (median of {arguments.rounds} pairs)')
    statistics = jax.devices()[0].memory_stats()
    if statistics:
        print(f'peak memory of JAX on the device {statistics["peak_bytes_in_use"] / 2**20:,.0f} MiB')


if __name__ == '__main__':
    with one_sentence():
        main()
