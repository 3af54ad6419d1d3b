"""What the devices tell each other in a step of pretraining: as little, and as exactly, as can be."""

import ast
import os
import subprocess
import sys

SCRIPT = '''
import jax
from benchmarks.ahead import collectives, lower_step
from vididi_jax.config import load_config
from vididi_jax.train.mesh import make_mesh

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


def test_gradients_are_summed_once_in_float32_and_a_norm_exchanges_once_each_way(root):
    """R3D-18 in bfloat16, two views, on eight devices; in numbers of four bytes."""
    devices, views, videos, width = 8, 2, 16, 24
    eight = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}'
    done = subprocess.run([sys.executable, '-c', SCRIPT], cwd=root, capture_output=True, text=True,
                          env={**os.environ, 'XLA_FLAGS': eight, 'JAX_PLATFORMS': 'cpu'})
    assert done.returncode == 0, done.stderr[-3000:]
    found, numbers = done.stdout.splitlines()
    norms, channels, parameters = map(int, numbers.split())
    assert norms == 20 + 2  # of the encoder and of the projector
    (kind, (number, size)), = ast.literal_eval(found).items()
    assert kind == ('all-reduce', 'f32')
    assert number <= 2 * norms + 2  # and the embeddings, and the gradients
    moments = 2 * views * channels  # mean and variance; those of each device forward, their gradients backward
    twins = (2 + 4 + 8) * 4  # biases of the norm of a shortcut have the gradient of the norm that it is added to
    assert size / 4 == parameters - twins + views * videos * width + devices * moments + moments
