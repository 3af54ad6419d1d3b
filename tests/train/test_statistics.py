"""BatchNorm's running statistics in pretraining: an average for each order, in the schedule's shares."""

import jax
import numpy as np
import pytest

from tests.train.test_step import small_step
from vididi_jax.schedule import resolve
from vididi_jax.train import statistics

DRAWS = [(1, 1), (2, 2), (0, 1), (1, 2), (1, 0), (0, 0)]  # orders of the views of six steps


def run(loss, orders, draws):
    """The state before and after one step for each pair of `draws`, whose views are `scale` times the same; rate 0."""
    networks, update, state, views = small_step(loss, base_rate=0.0, orders=orders)
    start = jax.device_get(state)
    for pair in draws:
        scaled = (views * np.array(scales(pair)).reshape(2, 1, 1, 1, 1, 1)).astype(np.float32)
        state, metrics = update(state, tuple(scaled), np.array(pair, np.int32))
        assert metrics['finite']
    return networks, views, start, jax.device_get(state)


def scales(pair):
    """Derivatives are smaller than frames."""
    return [0.5 ** order for order in pair]


def test_shares_of_the_orders_in_a_schedule():
    assert resolve('vididi').shares == (0.25, 0.5, 0.25) and resolve('base').shares == (1.0,)
    assert resolve(((0, 2),)).shares == (0.5, 0.0, 0.5)


@pytest.mark.parametrize('loss', ['vicreg', 'byol'])
def test_each_order_has_an_average_and_the_schedules_shares_mix_them(loss):
    """Against the mean and the unbiased variance of every view of that order, computed one by one."""
    networks, views, start, state = run(loss, 3, DRAWS)
    seen = {order: [] for order in range(3)}
    for pair in DRAWS:
        for view, order, scale in zip(views, pair, scales(pair), strict=True):
            hidden = (view * scale).reshape(len(view), -1) @ start.params['encoder']['MLP_0']['Dense_0']['kernel']
            seen[order].append((hidden.mean(0), hidden.var(0, ddof=1)))
    mean, var = sum(share * np.mean(seen[order], 0) for order, share in enumerate((0.25, 0.5, 0.25)))
    found = state.batch_stats['encoder']['MLP_0']['BatchNorm_0']
    np.testing.assert_allclose(found['mean'], mean, rtol=1e-4, atol=1e-5)  # float32
    np.testing.assert_allclose(found['var'], var, rtol=1e-4, atol=1e-5)
    assert list(state.by_order.seen) == [4, 5, 3]
    assert set(state.by_order.averages) == {'encoder', 'projector'}


def test_what_the_last_coins_drew_does_not_matter():
    """The same steps in another order; plain averages differ."""
    for orders, equal in ((3, True), (0, False)):
        one, other = (run('vicreg', orders, draws)[3].batch_stats for draws in (DRAWS, DRAWS[::-1]))
        same = [np.allclose(a, b, atol=1e-5) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)]
        assert all(same) if equal else not all(same)


def test_what_was_not_seen_yet_has_no_share():
    networks, views, start, state = run('vicreg', 3, [(1, 1)])
    averages, found = (tree['projector']['BatchNorm_0']['var'] for tree in (state.by_order.averages, state.batch_stats))
    np.testing.assert_allclose(found, averages[1], rtol=1e-6)  # float32


def test_old_views_are_forgotten():
    """After hundreds of views of an order the first one, of another scale, weighs little."""
    remember, state = jax.jit(statistics.remember), statistics.start({'mean': np.zeros(1, np.float32)}, 1)
    for value in [1000.0] + [1.0] * 1500:
        state = remember(state, 0, {'mean': np.array([value], np.float32)})
    assert 1 < state.averages['mean'][0, 0] < 1.1
