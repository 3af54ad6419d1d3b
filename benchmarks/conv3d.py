"""Time of every convolution of an encoder, forward and forward + backward, in each formulation.

python benchmarks/conv3d.py [--encoder=r3d_18] [--shape=2x8x112x112] [--dtype=float32] [--width=64] [--rounds=5]
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Layer, convolutions, interleave, matmul_peak, parse_shape
from vididi_jax.errors import UserError
from vididi_jax.models import create_encoder
from vididi_jax.models.conv3d import IMPLEMENTATIONS, conv3d


def programs(layer: Layer, dtype: jnp.dtype, first: bool) -> dict:
    """{(formulation, direction): a function that runs it}; the first layer needs no gradient by its input."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal(layer.inputs, np.float32), dtype)
    w = jnp.asarray(rng.standard_normal((*layer.kernel, layer.inputs[-1], layer.outputs[-1]), np.float32), dtype)
    cotangent = jnp.asarray(rng.standard_normal(layer.outputs, np.float32), dtype)
    padding = tuple(k // 2 for k in layer.kernel)
    found = {}
    for impl in IMPLEMENTATIONS:
        if impl == 'auto':
            continue

        def forward(x, w, impl=impl):
            return conv3d(x, w, layer.stride, padding, impl)

        def both(x, w, cotangent, forward=forward):
            y, back = jax.vjp(lambda w: forward(x, w), w) if first else jax.vjp(forward, x, w)
            return y, back(cotangent)

        runs = {'forward': (jax.jit(forward), (x, w)), 'both': (jax.jit(both), (x, w, cotangent))}
        for direction, (run, arguments) in runs.items():
            found[impl, direction] = lambda run=run, arguments=arguments: jax.block_until_ready(run(*arguments))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--encoder', default='r3d_18')
    parser.add_argument('--shape', default='2x8x112x112', help='clips x frames x height x width')
    parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
    parser.add_argument('--width', type=int, default=64)
    parser.add_argument('--rounds', type=int, default=5)
    arguments = parser.parse_args()
    dtype = jnp.dtype(arguments.dtype)
    layers = convolutions(create_encoder(arguments.encoder, width=arguments.width), parse_shape(arguments.shape))
    print(f'{arguments.encoder} of width {arguments.width}, {arguments.shape}, {dtype}, '
          f'{jax.devices()[0].device_kind}, jax {jax.__version__}; matmul peak {matmul_peak(dtype) / 1e9:.0f} GFLOP/s')
    impls = [impl for impl in IMPLEMENTATIONS if impl != 'auto']
    columns = [(impl, direction) for impl in impls for direction in ('forward', 'both')]
    print(f'{"times":>5} {"input":>20} {"kernel":>7} {"stride":>7} {"out":>5} {"GFLOP":>8}',
          *(f'{f"{impl} {direction} ms":>18}' for impl, direction in columns))
    total = dict.fromkeys(columns, 0.0)
    for layer in dict.fromkeys(layers):
        count = layers.count(layer)
        seconds = interleave(programs(layer, dtype, layer is layers[0]), arguments.rounds)
        medians = {column: np.median(seconds[column]) for column in columns}
        total = {column: total[column] + count * medians[column] for column in columns}
        print(f'{count:5} {"x".join(map(str, layer.inputs)):>20} {"x".join(map(str, layer.kernel)):>7} '
              f'{"x".join(map(str, layer.stride)):>7} {layer.outputs[-1]:5} {layer.flops / 1e9:8.2f}',
              *(f'{medians[column] * 1e3:18.2f}' for column in columns), flush=True)
    print(f'{len(layers):5} {"all":>20} {"":>7} {"":>7} {"":>5} {sum(layer.flops for layer in layers) / 1e9:8.2f}',
          *(f'{total[column] * 1e3:18.2f}' for column in columns))


if __name__ == '__main__':
    try:
        main()
    except UserError as error:
        sys.exit(f'error: {error}')
