"""Whether an accelerator computes what it should, beside references: parts of accelerator.py.

Each part returns {what: relative error, or value}.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax import losses
from vididi_jax.config import load_config
from vididi_jax.models import ENCODERS, create_encoder
from vididi_jax.train import mesh as meshes
from vididi_jax.train.optimizer import rate_and_optimizer
from vididi_jax.train.state import build_networks, make_init
from vididi_jax.train.step import make_train_step

CONFIG = str(Path(__file__).parents[1] / 'configs' / 'ucf101_vicreg.py')


def relative(ours, expected) -> float:
    """`|ours - expected| / |expected|` of all entries of two trees, in float64."""
    ours, expected = (np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])
                      for tree in (ours, expected))
    return float(np.linalg.norm(ours - expected) / np.linalg.norm(expected))


def parity(tiny: bool) -> dict:
    """Features of encoders, (4, D) of clips of 8 x 64 x 64, beside torchvision's in float64; `tiny`: of one encoder."""
    import torch
    import torchvision

    from vididi_jax.models.torchvision import from_state_dict

    found = {}
    for name in ENCODERS[:1] if tiny else ENCODERS:
        torch.manual_seed(0)
        model = getattr(torchvision.models.video, name)().double()
        if name == 's3d':
            model.avgpool, model.classifier = torch.nn.AdaptiveAvgPool3d(1), torch.nn.Identity()
        else:
            model.fc = torch.nn.Identity()
        variables = jax.tree.map(np.float32, from_state_dict(
            name, {key: value.numpy().copy() for key, value in model.state_dict().items()}))
        x = np.random.default_rng(0).standard_normal((4, 8, 64, 64, 3))
        pixels = torch.from_numpy(x).permute(0, 4, 1, 2, 3)
        with torch.no_grad():
            evaluated, trained = model.eval()(pixels).numpy(), model.train()(pixels).numpy()
        for dtype in ('float32', 'bfloat16'):
            encoder = create_encoder(name, dtype=jnp.dtype(dtype))
            with jax.default_matmul_precision('float32' if dtype == 'float32' else 'default'):
                run = jax.jit(lambda variables, x, encoder=encoder: (
                    encoder.apply(variables, x, train=False),
                    encoder.apply(variables, x, train=True, mutable=['batch_stats'])[0]))
                ours = run(variables, x.astype(np.float32))
            for mode, mine, theirs in zip(('evaluation', 'training'), ours, (evaluated, trained), strict=True):
                found[f'{name}, {dtype}, {mode}, relative error'] = relative(mine, theirs)
    return found


def check_losses(tiny: bool) -> dict:
    """Float32 on the device against float64 on the CPU, of the same function, which the tests compare with numpy."""
    rng = np.random.default_rng(0)
    z1 = rng.standard_normal((64, 512))
    z2 = z1 + 0.5 * rng.standard_normal(z1.shape)
    found = {}
    for name in ('vicreg_loss', 'info_nce_loss', 'nt_xent_loss', 'byol_loss'):
        loss = getattr(losses, name)
        both = jax.jit(jax.value_and_grad(lambda a, b, loss=loss: loss(a, b)[0], argnums=(0, 1)))
        ours = jax.device_get(both(z1.astype(np.float32), z2.astype(np.float32)))
        with jax.enable_x64(True), jax.default_device(jax.devices('cpu')[0]):
            expected = jax.device_get(both(jnp.asarray(z1), jnp.asarray(z2)))
        found[f'{name}, relative error'] = relative(ours[0], expected[0])
        found[f'{name}, gradient, relative error'] = relative(ours[1], expected[1])
    return found


def cycle(tiny: bool) -> dict:
    """Eight steps of the smoke variant in float32; the parent also runs this on the CPU."""
    config = load_config(f'{CONFIG}:smoke')
    config.model.dtype = 'float32'
    mesh = meshes.make_mesh()
    networks = build_networks(config, meshes.first_device(mesh))
    rate, optimizer = rate_and_optimizer(config, 8)
    with jax.default_matmul_precision('float32'):
        state = make_init(config, networks, optimizer)(jax.random.key(0))
        train_step = make_train_step(networks, optimizer, rate, config, 8, mesh)
        rng, found = np.random.default_rng(0), {}
        for i in range(8):
            batch = {'clips': rng.integers(0, 256, (config.batch_size, 2, 8, 48, 64, 3), np.uint8),
                     'size': np.tile(np.array([48, 64], np.int32), (config.batch_size, 1))}
            state, metrics = train_step(state, batch, jax.random.key(i), ((0, 0), (0, 1), (1, 1), (2, 1))[i % 4])
            found[f'loss of step {i + 1}'] = float(metrics['loss'])
    return found
