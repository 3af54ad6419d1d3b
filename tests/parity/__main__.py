"""`make parity`: recompute the expected results with torchvision, and compare everything. Needs torch and torchvision.

`python -m tests.parity --write` writes the files that the tests of vididi_jax/models compare with.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import jax
import numpy as np
import onnxruntime
import torch
import torchvision

from tests.parity import reference, regions, transforms
from vididi_jax.models import create_encoder
from vididi_jax.models.torchvision import from_state_dict, to_state_dict
from vididi_jax.weights import read_weights, write_weights

EXACT = 1e-9  # float64, whatever is compared
SINGLE = 1e-5  # float32, features in eval mode
PIXELS = 2e-6  # absolute; torchvision computes hues in float32


def build(name: str) -> torch.nn.Module:
    """torchvision's network, float64, whose head is the global average alone."""
    model = getattr(torchvision.models.video, name)().double()
    if name == 's3d':
        model.avgpool = torch.nn.AdaptiveAvgPool3d(1)
        model.classifier = torch.nn.Identity()
    else:
        model.fc = torch.nn.Identity()
    return model


def pixels(name: str) -> torch.Tensor:
    """The clips in PyTorch's order of axes."""
    return torch.from_numpy(reference.clips(name)).permute(0, 4, 1, 2, 3).contiguous()


def expected(name: str) -> dict:
    """What torchvision computes: see `reference.load`."""
    shapes = {key: tuple(value.shape) for key, value in getattr(torchvision.models.video, name)().state_dict().items()}
    model = build(name)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in reference.random_state_dict(shapes).items()})
    with torch.no_grad():
        evaluated = model.eval()(pixels(name)).numpy()
    features = model.train()(pixels(name))
    (features * torch.from_numpy(reference.cotangent(features.shape))).sum().backward()
    return {
        'shapes': shapes, 'eval': evaluated, 'train': features.detach().numpy(),
        'gradients': reference.digest({key: p.grad.numpy() for key, p in model.named_parameters()}),
        'statistics': reference.digest({key: b.numpy() for key, b in model.named_buffers() if 'running' in key}),
    }


def write(file: Path, results: dict[str, dict]) -> None:
    arrays = {f'{name}/{part}': json.dumps(value) if part == 'shapes' else value
              for name, result in results.items() for part, value in result.items()}
    np.savez_compressed(file, **arrays)
    print(f'{file}: {file.stat().st_size:,} bytes')


def fixture_differences(name: str, result: dict, stored: dict) -> dict[str, float]:
    """Between what is stored and what this torchvision computes."""
    same = {key: list(shape) for key, shape in result['shapes'].items()} == stored['shapes']
    found = {'fixture keys': 0.0 if same else np.inf}
    for part in ('eval', 'train'):
        found[f'fixture {part}'] = float(np.abs(result[part] - stored[part]).max() / np.abs(stored[part]).max())
    for part in ('gradients', 'statistics'):
        found[f'fixture {part}'] = reference.difference(result[part], stored[part])
    return found


def full_differences(name: str) -> dict[str, float]:
    """Every entry of every gradient and statistic, of networks that torch initialised; and weights through a file."""
    torch.manual_seed(0)
    model = build(name)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if 'running' in key:
                value.uniform_(*((-0.1, 0.1) if 'mean' in key else (0.5, 1.5)))
    state_dict = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    variables = from_state_dict(name, state_dict)
    encoder, x = create_encoder(name, dtype=np.float64), reference.clips(name)
    apply = jax.jit(partial(encoder.apply, train=False))
    found = {}

    def compare(what, ours, theirs):
        found[what] = float(np.abs(ours - theirs).max() / np.abs(theirs).max())

    with torch.no_grad():
        evaluated = model.eval()(pixels(name)).numpy()
    compare('eval', apply(variables, x), evaluated)
    single = jax.tree.map(np.float32, (variables, x))
    compare('eval float32', jax.jit(partial(create_encoder(name).apply, train=False))(*single), evaluated)

    features = model.train()(pixels(name))
    cotangent = reference.cotangent(features.shape)
    (features * torch.from_numpy(cotangent)).sum().backward()

    @jax.jit
    def train(params):
        def loss(params):
            out, new = encoder.apply({**variables, 'params': params}, x, train=True, mutable=['batch_stats'])
            return (out * cotangent).sum(), (out, new['batch_stats'])

        return jax.grad(loss, has_aux=True)(params)

    gradients, (out, batch_stats) = train(variables['params'])
    compare('train', out, features.detach().numpy())
    ours = to_state_dict(name, {'params': gradients, 'batch_stats': batch_stats})
    theirs = {key: p.grad.numpy() for key, p in model.named_parameters()}
    theirs |= {key: b.numpy() for key, b in model.named_buffers() if 'running' in key}
    assert ours.keys() == theirs.keys()
    for what, running in (('gradients', False), ('statistics', True)):
        found[what] = max(float(np.linalg.norm(ours[k] - theirs[k]) / np.linalg.norm(theirs[k]))
                          for k in ours if ('running' in k) == running)

    with tempfile.TemporaryDirectory() as folder:
        for ending in ('.pth', '.npz', '.safetensors'):
            file = Path(folder, 'weights').with_suffix(ending)
            write_weights(file, to_state_dict(name, variables))
            again = build(name)
            loaded = torch.load(file) if ending == '.pth' else jax.tree.map(torch.from_numpy, read_weights(file))
            again.load_state_dict(loaded, strict=True)
            with torch.no_grad():
                compare(f'export {ending}', again.eval()(pixels(name)).numpy(), evaluated)
        torch.save(model.state_dict(), file := Path(folder, 'whole.pth'))
        assert from_state_dict(name, read_weights(file)).keys() == variables.keys()
    return found


def documented_difference(name: str) -> dict[str, float]:
    """Between a narrow encoder here and what docs/pytorch.md makes of an exported file, in PyTorch and in ONNX."""
    page = Path(__file__).parents[2] / 'docs' / 'pytorch.md'
    scope: dict = {}
    module, onnx = (block.split('```')[0] for block in page.read_text().split('```python')[1:])
    exec(module, scope)
    x = np.random.RandomState(0).standard_normal((3, 9, 48, 48, 3)).astype(np.float32)
    encoder = create_encoder(name, width=8)
    empty = jax.tree.map(lambda leaf: np.empty(leaf.shape), jax.eval_shape(encoder.init, jax.random.key(0), x))
    shapes = {key: value.shape for key, value in to_state_dict(name, empty).items()}
    state_dict = {key: value.astype(np.float32) for key, value in reference.random_state_dict(shapes).items()}
    expected = jax.jit(partial(encoder.apply, train=False))(from_state_dict(name, state_dict), x)
    about = {'name': name, 'frames': x.shape[1], 'size': x.shape[2]}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_weights('mine.safetensors', state_dict, about)
        exec(onnx, scope)
        session = onnxruntime.InferenceSession('mine.onnx', providers=['CPUExecutionProvider'])
    assert scope['about'] == about
    inputs = torch.from_numpy(x).permute(0, 4, 1, 2, 3).contiguous()
    with torch.no_grad():
        found = {'PyTorch': scope['model'](inputs).numpy(), 'ONNX': session.run(None, {'clips': inputs.numpy()})[0]}
    return {f'docs/pytorch.md, {what}, float32': float(np.abs(value - expected).max() / np.abs(expected).max())
            for what, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m tests.parity', description=__doc__)
    parser.add_argument('--write', action='store_true', help='write the files that the tests compare with')
    arguments = parser.parse_args()
    jax.config.update('jax_enable_x64', True)
    results = {name: expected(name) for name in reference.CLIPS}
    if arguments.write:
        write(reference.FIXTURE, results)
        regions.write()
    stored, wrong = reference.load(), 0
    versions = (f'{module.__name__} {module.__version__}' for module in (torch, torchvision, jax))
    print(f'relative differences, {", ".join(versions)}')
    for name in reference.CLIPS:
        for what, value in {**fixture_differences(name, results[name], stored[name]), **full_differences(name),
                            **documented_difference(name)}.items():
            good = value <= (SINGLE if what.endswith('float32') else EXACT)
            wrong += not good
            print(f'{name:12} {what:20} {value:.1e} {"" if good else "TOO LARGE"}', flush=True)
    others = {'pixels': (transforms.differences(), PIXELS), 'presets': (transforms.presets(), 0),
              'RoIAlign': (regions.differences(), EXACT)}
    for part, (found, limit) in others.items():
        for what, value in found.items():
            good = value <= limit
            wrong += not good
            print(f'{part:12} {what:40} {value:.1e} {"" if good else "TOO LARGE"}', flush=True)
    if wrong:
        sys.exit(f'{wrong} differences are too large.')
    print('torchvision and vididi_jax agree.')


if __name__ == '__main__':
    main()
