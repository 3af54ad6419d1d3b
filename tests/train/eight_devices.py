"""Run by test_loop.py with eight virtual devices: the same steps on one of them and on all."""

import sys

import jax
import numpy as np
from jax.sharding import Mesh

from configs import motion_vicreg
from tests.train.test_step import ORDERS, small_step
from vididi_jax import schedule
from vididi_jax.data import pipeline
from vididi_jax.train import mesh
from vididi_jax.train.optimizer import build_optimizer, learning_rate
from vididi_jax.train.pretrain import make_plan
from vididi_jax.train.state import build_networks, init_state
from vididi_jax.train.step import make_train_step


def run(devices: int, dtype: str, steps: list[int]):
    """Losses of `steps` (each from the state before) and the final state, on a mesh of the first `devices` devices."""
    config = motion_vicreg.get_config('smoke')
    config.data.dir, config.model.dtype = sys.argv[1], dtype
    config.model.width, config.framework.projector, config.augment.size = 2, (16, 16, 16), 16
    config.batch_size = 16
    config.clip.length = 'constant'  # one program for all orders: compiling takes most of the time
    config.optimizer.name = 'lars'  # AdamW would blow up the rounding of gradients that are zero
    config.optimizer.base_rate = 4.8
    data = Mesh(np.array(jax.devices()[:devices]), ('data',))
    plan = make_plan(config, data)
    networks = build_networks(config, mesh.platform(data))
    settings = (config, plan.total_steps)
    optimizer = build_optimizer(*settings)
    train_step = make_train_step(networks, optimizer, learning_rate(*settings), config, plan.total_steps, data)
    state = mesh.replicate(data, init_state(networks, optimizer, jax.random.key(0), (8, 16, 16)))
    stream = pipeline.training_stream(
        plan.source, plan.videos, length=plan.frames, stride=1, placement='adjacent', batch_size=16, seed=0)
    values = []
    for step in steps:
        key = jax.random.fold_in(jax.random.key(1), step)
        orders = schedule.view_orders(plan.schedule, step // plan.steps_per_epoch, key)
        example = stream[step]
        batch = mesh.to_devices(data, {name: example[name] for name in ('clips', 'size')})
        state, metrics = train_step(state, batch, jax.random.fold_in(jax.random.key(2), step), orders)
        values.append(float(metrics['loss']))
    return values, jax.device_get(state)


def check_steps():
    """A step from one state to 1e-5 in float32; losses over a whole cycle to 1e-9 in float64."""
    (one, state_one), (eight, state_eight) = (run(devices, 'float32', [0]) for devices in (1, 8))
    np.testing.assert_allclose(one, eight, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(state_one.params), jax.tree.leaves(state_eight.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    with jax.enable_x64(True):
        (one, _), (eight, _) = (run(devices, 'float64', list(range(12))) for devices in (1, 8))
    print('float64, largest relative difference of a loss:', np.max(np.abs(np.array(one) / np.array(eight) - 1)))
    np.testing.assert_allclose(one, eight, rtol=1e-9)


def check_scope():
    """The statistics of two videos, which a device has, are not those of sixteen; programs: see tests/compiled."""
    data, found = Mesh(np.array(jax.devices()), ('data',)), {}
    for scope in ('global', 'per_device'):
        _, update, state, views = small_step('vicreg', scope, videos=16)
        placed = mesh.to_devices(data, dict(zip('ab', views, strict=True)))
        found[scope] = update(mesh.replicate(data, state), placed['a'], placed['b'], ORDERS)[1]['loss']
    assert abs(found['global'] / found['per_device'] - 1) > 1e-3
    # As many parts as the mesh has devices, however many there are.
    one = Mesh(np.array(jax.devices()[:1]), ('data',))
    _, update, state, views = small_step('vicreg', 'per_device', videos=16, mesh=one)
    np.testing.assert_allclose(update(state, *views, ORDERS)[1]['loss'], found['global'], rtol=1e-6)


if __name__ == '__main__':
    assert jax.device_count() == 8
    check_scope()
    check_steps()
