"""Schedules: balance, determinism, and what a config may say."""

import itertools
import subprocess
import sys
from collections import Counter

import jax
import pytest
from ml_collections import ConfigDict

from vididi_jax.errors import UserError
from vididi_jax.schedule import SCHEDULES, Schedule, main, resolve, run_orders, schedule_key, view_orders
from vididi_jax.train.state import AUGMENT, INIT


def test_named_schedules():
    assert SCHEDULES['vididi'].phases == ((1, 1), (0, 1), (1, 0), (0, 0))
    assert SCHEDULES['vididi'].coin
    assert not SCHEDULES['first_order'].coin
    assert SCHEDULES['first_order'].phases == SCHEDULES['vididi'].phases
    assert {name: schedule.max_order for name, schedule in SCHEDULES.items()} == {
        'vididi': 2, 'base': 0, 'first_order': 1, 'random': 2, 'derivative_only': 1}


def test_vididi_is_balanced_over_whole_cycles():
    """Each phase's two pairs are equally likely, so (1, 1), which two phases have, comes up twice as often."""
    epochs, steps = 8, 1000
    seen = Counter(itertools.chain.from_iterable(run_orders('vididi', 1, epochs, steps)))
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
    seen = Counter(run_orders('random', 0, 1, 9000)[0])
    assert len(seen) == 9
    assert all(850 < count < 1150 for count in seen.values())  # expected 1000, five standard deviations of 30


@pytest.mark.parametrize('name', ['base', 'first_order', 'derivative_only'])
def test_without_a_coin_each_cycle_is_its_phases(name):
    phases = SCHEDULES[name].phases
    assert run_orders(name, 0, 2 * len(phases), 3) == [[phase] * 3 for phase in phases] * 2


def test_user_defined_schedules():
    assert resolve(((1, 1), (0, 2))) == Schedule(((1, 1), (0, 2)))
    assert resolve({'phases': [[0, 1]], 'coin': True}) == Schedule(((0, 1),), coin=True)
    assert view_orders(((1, 1), (0, 2)), 3, jax.random.key(0)) == (0, 2)


@pytest.mark.parametrize('spec', [
    'vidid', (), ((1,),), ((1, -1),), ((1, 0.5),), ((True, 0),), {'coin': True}, {'phases': ()}, 3, None])
def test_what_is_no_schedule_is_refused(spec):
    with pytest.raises(UserError, match='vididi, base, first_order, random, derivative_only'):
        resolve(spec)


@pytest.mark.parametrize('fields', [{'coins': True}, {'coin': 1}])
def test_wrong_fields_of_a_schedule_are_refused(fields):
    with pytest.raises(UserError, match='coin'):
        resolve({'phases': ((0, 0),)} | fields)


def test_a_config_may_spell_a_schedule_out():
    assert resolve(ConfigDict({'phases': ((0, 1), (1, 0)), 'coin': True})) == Schedule(((0, 1), (1, 0)), coin=True)


@pytest.mark.parametrize('name', SCHEDULES)
def test_a_whole_run_is_drawn_as_its_steps_are(name):
    epochs, steps, key = 5, 3, schedule_key(7)
    assert run_orders(name, 7, epochs, steps) == [
        [view_orders(name, epoch, jax.random.fold_in(key, epoch * steps + step)) for step in range(steps)]
        for epoch in range(epochs)]


def test_draws_do_not_depend_on_the_precision():
    expected = run_orders('random', 1, 2, 20)
    with jax.enable_x64(True):
        assert run_orders('random', 1, 2, 20) == expected


def test_draws_do_not_depend_on_the_generator_that_jax_is_told_to_use():
    """Of 'rbg' a batch of keys, as the table has them, would draw otherwise than one after the other."""
    drawn = run_orders('random', 3, 2, 16)
    with jax.default_prng_impl('rbg'):
        assert run_orders('random', 3, 2, 16) == drawn
        assert view_orders('random', 1, jax.random.fold_in(schedule_key(3), 20)) == drawn[1][4]


def test_the_schedules_key_is_its_own():
    """Other keys of a run come from the same seed and step: the coin must not repeat their bits."""
    seed = jax.random.key(0)
    keys = schedule_key(0), seed, *(jax.random.fold_in(seed, tag) for tag in (INIT, AUGMENT))
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 4
    assert run_orders('vididi', 0, 4, 50) != run_orders('vididi', 1, 4, 50)
    assert {device.platform for device in schedule_key(0).devices()} == {'cpu'}


def test_a_seed_draws_what_it_has_always_drawn():
    """A run goes on with a later version: `fold_in(fold_in(key(seed), 2), step)` of threefry decides."""
    keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(5, impl='threefry2x32'), 2), step)
            for step in range(20, 40)]
    coins = [int(jax.random.randint(key, (), 0, 2, 'int32')) for key in keys]
    assert [(coin, 1 + coin) for coin in coins] == run_orders('vididi', 5, 2, 20)[1]


def test_the_table_is_what_a_run_draws():
    command = [sys.executable, '-m', 'vididi_jax.schedule', 'vididi', '--epochs=5', '--steps=2', '--seed=3']
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[0].split() == ['epoch', 'step', 'phase', 'orders']
    rows = [line.split(maxsplit=3) for line in lines[1:]]
    orders = list(itertools.chain.from_iterable(run_orders('vididi', 3, 5, 2)))
    assert rows == [[str(n // 2), str(n), str(n // 2 % 4), str(orders[n])] for n in range(10)]


@pytest.mark.parametrize(('option', 'message'), [
    ('--seed=-1', 'seed is -1'), (f'--seed={2**32}', 'seed'), ('--epochs=0', '0 epochs'), ('--steps=-2', '-2 steps')])
def test_a_table_of_nothing_is_refused(option, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['schedule', 'vididi', option])
    with pytest.raises(SystemExit) as stopped:
        main()
    printed = capsys.readouterr()
    assert stopped.value.code == 1 and not printed.out
    assert printed.err.startswith('error: ') and message in printed.err and printed.err.count('\n') == 1
