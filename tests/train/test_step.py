"""The training step: BYOL's target, statistics of both views, constant clip lengths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import motion_byol
from vididi_jax.losses import ema_tau
from vididi_jax.train.optimizer import build_optimizer, learning_rate
from vididi_jax.train.state import build_networks, init_state
from vididi_jax.train.step import frames_to_read, make_train_step, view_frames

STEPS = 4


def run_byol(accumulate=1):
    """A config, its states before and after each of three steps, and their metrics."""
    config = motion_byol.get_config('smoke')
    config.optimizer.accumulate = accumulate
    config.model.width, config.augment.size, config.clip.length = 2, 8, 'constant'
    networks, optimizer = build_networks(config), build_optimizer(config, STEPS)
    state = init_state(networks, optimizer, jax.random.key(0), (8, 8, 8))
    step = make_train_step(networks, optimizer, learning_rate(config, STEPS), config, STEPS)
    rng = np.random.default_rng(0)
    batch = {'clips': jnp.asarray(rng.integers(0, 256, (8, 2, 10, 8, 8, 3)), jnp.uint8),
             'size': jnp.full((8, 2), 8, jnp.int32)}
    states, metrics = [jax.device_get(state)], []
    for i, orders in enumerate([(0, 1), (2, 2), (0, 0)]):
        state, found = step(state, batch, jax.random.key(i), orders)
        states.append(jax.device_get(state))
        metrics.append(jax.device_get(found))
    return config, states, metrics


@pytest.fixture(scope='module')
def byol():
    return run_byol()


def test_byols_target_is_the_moving_average_of_the_online_network(byol):
    config, states, _ = byol
    expected = states[0].target['params']
    assert sorted(expected) == ['encoder', 'projector']
    for i, state in enumerate(states[1:]):
        tau = ema_tau(i, STEPS, config.framework.ema_base)
        expected = jax.tree.map(lambda t, o, tau=tau: tau * t + (1 - tau) * o, expected,
                                {name: state.params[name] for name in expected})
        for got, wanted in zip(jax.tree.leaves(state.target['params']), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)  # float32


def test_every_part_of_byol_learns_and_its_statistics_move(byol):
    _, states, metrics = byol
    first, last = ((state.params, state.batch_stats, state.target['batch_stats']) for state in (states[0], states[-1]))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), first, last)
    still = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(moved) if not leaf]
    assert not still
    assert {'view1_to_view2', 'view2_to_view1'} <= set(metrics[0])
    for found in metrics:
        np.testing.assert_allclose(found['loss'], found['view1_to_view2'] + found['view2_to_view1'], rtol=1e-6)
        assert 0 <= found['loss'] <= 8


def test_the_target_starts_as_a_copy_and_goes_its_own_way(byol):
    _, states, _ = byol
    online = {name: states[0].params[name] for name in states[0].target['params']}
    jax.tree.map(np.testing.assert_array_equal, states[0].target['params'], online)
    kernel = states[-1].target['params']['projector']['Dense_0']['kernel']
    assert (kernel != states[-1].params['projector']['Dense_0']['kernel']).any()


def test_the_target_stands_still_while_gradients_are_accumulated():
    _, states, _ = run_byol(accumulate=2)
    moved = [any((a != b).any() for a, b in zip(jax.tree.leaves(before.target['params']),
                                               jax.tree.leaves(after.target['params']), strict=True))
             for before, after in zip(states, states[1:], strict=False)]
    assert moved == [False, True, False]


def test_frames_of_views_and_of_what_is_read():
    assert [view_frames(8, orders, 'shrink') for orders in ((0, 0), (0, 1), (2, 2))] == [8, 7, 6]
    assert [view_frames(8, orders, 'constant') for orders in ((0, 0), (0, 1), (2, 2))] == [8, 8, 8]
    assert frames_to_read(8, 2, 'shrink') == 8 and frames_to_read(8, 2, 'constant') == 10
