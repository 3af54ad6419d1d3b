"""What the devices tell each other in a step of pretraining: as little, and as exactly, as can be."""

import ast
import os
import subprocess
import sys

import pytest

SCRIPT = '''
import jax
import numpy as np
from jax.sharding import PartitionSpec
from benchmarks.ahead import lower_step
from benchmarks.hlo import collectives
from vididi_jax.config import load_config
from vididi_jax.models.norm import moments
from vididi_jax.train.mesh import make_mesh

noise = np.random.default_rng(0).normal(size=(2, 16, 64, 3))
split = jax.shard_map(moments, mesh=make_mesh(), in_specs=PartitionSpec(None, 'data'), out_specs=PartitionSpec())
for x in (1000 + noise, 0.1 * noise + np.linspace(1000, 3000, 16)[:, None, None]):
    x = x.astype(np.float32)
    print([float(np.abs(got / want - 1).max()) for got, want in zip(
        jax.jit(split)(x), (x.mean((1, 2), dtype=float), x.var((1, 2), dtype=float)))])

config = load_config('configs/ucf101_vicreg.py')
config.batch_size, config.augment.size, config.model.width, config.model.dtype = 16, 16, 4, 'bfloat16'
config.model.conv_impl, config.framework.projector = 'xla', (16, 16, 24)
update = lower_step(config, make_mesh(), (0, 0))['update'][0]
(state, *_), _ = update.in_avals
found = collectives(update.compile(compiler_options={'xla_backend_optimization_level': '0'}).as_text())
means = [leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(state.batch_stats) if 'mean' in str(path[-1])]
print({kind: (len(every), sum(size for size, *_ in every)) for kind, every in found.items()})
print(len(means), sum(means), sum(leaf.size for leaf in jax.tree.leaves(state.params)))
'''


@pytest.fixture(scope='module')
def printed(root):
    """Lines."""
    eight = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=8'
    done = subprocess.run([sys.executable, '-c', SCRIPT], cwd=root, capture_output=True, text=True,
                          env={**os.environ, 'XLA_FLAGS': eight, 'JAX_PLATFORMS': 'cpu'})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_the_moments_of_all_devices_lose_no_digits(printed):
    """Where the mean is 1,000 times the deviation, and where it differs from device to device."""
    for line in printed[:2]:
        assert max(ast.literal_eval(line)) < 1e-5  # float32


def test_gradients_are_summed_once_in_float32_and_a_norm_exchanges_once_each_way(printed):
    """R3D-18 in bfloat16, two views, on eight devices; in numbers of four bytes."""
    devices, views, videos, width = 8, 2, 16, 24
    found, numbers = printed[2:]
    norms, channels, parameters = map(int, numbers.split())
    assert norms == 20 + 2  # of the encoder and of the projector
    (kind, (number, size)), = ast.literal_eval(found).items()
    assert kind == ('all-reduce', 'f32')
    assert number <= 2 * norms + 2  # and the embeddings, and the gradients
    moments = 2 * views * channels  # mean and variance; those of each device forward, their gradients backward
    twins = (2 + 4 + 8) * 4  # biases of the norm of a shortcut have the gradient of the norm that it is added to
    assert size / 4 == parameters - twins + views * videos * width + devices * moments + moments
