"""Schedules: balance, determinism, and what a config may say."""

from collections import Counter

import jax
import pytest

from vididi_jax.errors import UserError
from vididi_jax.schedule import SCHEDULES, Schedule, main, resolve, view_orders


def test_named_schedules():
    assert SCHEDULES['vididi'].phases == ((1, 1), (0, 1), (1, 0), (0, 0))
    assert SCHEDULES['vididi'].coin
    assert not SCHEDULES['first_order'].coin
    assert SCHEDULES['first_order'].phases == SCHEDULES['vididi'].phases
    assert {name: schedule.max_order for name, schedule in SCHEDULES.items()} == {
        'vididi': 2, 'base': 0, 'first_order': 1, 'random': 2, 'derivative_only': 1}


def test_vididi_is_balanced_over_whole_cycles():
    """Each phase's two pairs are equally likely, so (1, 1), which two phases have, comes up twice as often."""
    epochs, steps = 8, 250
    seen = Counter(view_orders('vididi', epoch, jax.random.fold_in(jax.random.key(1), epoch * steps + step))
                   for epoch in range(epochs) for step in range(steps))
    assert set(seen) == {(1, 1), (2, 2), (0, 1), (1, 2), (1, 0), (2, 1), (0, 0)}
    total = epochs * steps
    for orders, count in seen.items():
        share = 2 / 8 if orders == (1, 1) else 1 / 8
        assert abs(count - share * total) < 5 * (share * (1 - share) * total) ** 0.5  # five standard deviations


def test_the_coin_raises_both_orders():
    schedule = SCHEDULES['vididi']
    for phase, (first, second) in enumerate(schedule.phases):
        assert set(schedule.possible(phase)) == {(first, second), (first + 1, second + 1)}


def test_orders_depend_on_epoch_and_key_alone():
    keys = [jax.random.fold_in(jax.random.key(3), step) for step in range(40)]
    once = [view_orders('vididi', 2, key) for key in keys]
    assert once == [view_orders('vididi', 6, key) for key in keys]  # a cycle later
    assert len(set(once)) == 2
    assert all(isinstance(order, int) for orders in once for order in orders)


def test_random_draws_all_nine_pairs():
    seen = Counter(view_orders('random', 0, jax.random.fold_in(jax.random.key(0), step)) for step in range(900))
    assert len(seen) == 9
    assert min(seen.values()) > 50  # expected 100, standard deviation 9.4


def test_user_defined_schedules():
    assert resolve(((1, 1), (0, 2))) == Schedule(((1, 1), (0, 2)))
    assert resolve({'phases': [[0, 1]], 'coin': True}) == Schedule(((0, 1),), coin=True)
    assert view_orders(((1, 1), (0, 2)), 3, jax.random.key(0)) == (0, 2)


@pytest.mark.parametrize('spec', ['vidid', (), ((1,),), ((1, -1),), ((1, 0.5),), {'coin': True}, {'phases': ((0, 0),), 'x': 1}, 3])
def test_what_is_no_schedule_is_refused(spec):
    with pytest.raises(UserError, match='vididi'):
        resolve(spec)


def test_table(capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', ['schedule', 'first_order', '--epochs=4', '--steps=2'])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ['epoch', 'step', 'phase', 'orders']
    assert [line.split(maxsplit=3)[3] for line in lines[1:]] == [
        '(1, 1)', '(1, 1)', '(0, 1)', '(0, 1)', '(1, 0)', '(1, 0)', '(0, 0)', '(0, 0)']
