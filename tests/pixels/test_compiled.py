"""Augmentation as it runs, compiled and over devices, against the same functions one operation at a time in float64."""

import os
import subprocess
import sys

# An instruction set that every x86-64 machine of today has: how operations are fused and contracted depends on it.
FLAGS = '--xla_force_host_platform_device_count=8 --xla_cpu_max_isa=AVX2'
COMPARE = '''
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from vididi_jax.pixels.augment import Augmentation, augment

y, x = np.mgrid[:48, :64] / 48
angle = np.random.default_rng(0).uniform(-3, 3, (8, 1, 3, 4))
a, b, p, q = np.moveaxis(angle, -1, 0)[..., None, None]
smooth = 127 + 100 * np.sin(a * x + b * y + p + 0.1 * np.arange(2)[:, None, None, None]) * np.cos(q)  # (8, 2, 3, h, w)
clips = np.moveaxis(smooth, 2, -1).astype(np.uint8)
clips[6] = np.random.default_rng(1).integers(0, 256, clips[6].shape)
clips[7] = np.random.default_rng(2).integers(0, 2, clips[7].shape) * 255
sizes = np.tile(np.array([[48, 64]], np.int32), (8, 1))
split = NamedSharding(Mesh(np.array(jax.devices()), ('data',)), P('data'))
for changes in ({}, {'frame_consistent': False}):
    spec = Augmentation(size=32, jitter=1.0, gray=0.0, hue=0.3, **changes)
    with jax.disable_jit(), jax.enable_x64(True):
        expected = augment(jax.random.key(1), jnp.asarray(clips), jnp.asarray(sizes), spec, jnp.float64)
    for placed in ((clips, sizes), jax.device_put((clips, sizes), split)):
        np.testing.assert_allclose(augment(jax.random.key(1), *placed, spec), expected, atol=2e-4)
'''


def test_compiled_colour_jitter_is_that_of_float64_in_every_pixel(root):
    """Smooth, noisy and saturated clips, on one device and on eight; float32 of values up to 4."""
    environment = {**os.environ, 'XLA_FLAGS': FLAGS, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run([sys.executable, '-c', COMPARE], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
