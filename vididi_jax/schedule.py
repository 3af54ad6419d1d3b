"""Which derivative order each view gets: schedules as data, and pure functions of (epoch, key).

`python -m vididi_jax.schedule vididi --epochs=8 --steps=4` prints a schedule.

Reference: Chen et al., CPAL 2025, section 3 (balanced alternating learning strategy).
"""

import argparse
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import jax

from vididi_jax.errors import UserError

Orders = tuple[int, int]


@dataclass(frozen=True)
class Schedule:
    """A cycle of phases, one an epoch.

    Attributes:
      phases: the (order of view 1, order of view 2) of each phase.
      coin: whether a fair coin a step raises both orders by one.
      choices: if not empty, the orders of each step are one of these pairs, drawn uniformly, and `phases` only
        counts the epochs of a cycle.
    """

    phases: tuple[Orders, ...]
    coin: bool = False
    choices: tuple[Orders, ...] = ()

    @property
    def max_order(self) -> int:
        """The highest order that can come up."""
        return max(itertools.chain.from_iterable(self.choices or self.phases)) + self.coin

    def possible(self, phase: int) -> tuple[Orders, ...]:
        """The pairs that a step of `phase` can get, equally likely."""
        first, second = self.phases[phase]
        return self.choices or tuple((first + raised, second + raised) for raised in range(1 + self.coin))


ALTERNATING = ((1, 1), (0, 1), (1, 0), (0, 0))
SCHEDULES = {
    'vididi': Schedule(ALTERNATING, coin=True),
    'base': Schedule(((0, 0),)),
    'first_order': Schedule(ALTERNATING),
    'random': Schedule(((0, 0),), choices=tuple(itertools.product(range(3), repeat=2))),
    'derivative_only': Schedule(((1, 1),)),
}


def resolve(spec) -> Schedule:
    """The schedule that a config names or spells out.

    Args:
      spec: a name of `SCHEDULES`, a `Schedule`, a tuple of phases such as `((1, 1), (0, 1))`, or a mapping with
        `phases` and `coin`.

    Raises:
      UserError: anything else.
    """
    if isinstance(spec, Schedule):
        return spec
    if isinstance(spec, str):
        if spec not in SCHEDULES:
            raise UserError(f'there is no schedule {spec!r}: choose one of {", ".join(SCHEDULES)}, '
                            'or give a tuple of phases such as ((1, 1), (0, 1)).')
        return SCHEDULES[spec]
    try:
        fields = dict(spec) if isinstance(spec, Mapping) else {'phases': spec}
        phases = tuple((first, second) for first, second in fields.pop('phases'))
        coin = fields.pop('coin', False)
        if fields or not phases or not isinstance(coin, bool) or any(
                not isinstance(order, int) or order < 0 for order in itertools.chain.from_iterable(phases)):
            raise ValueError
    except (TypeError, ValueError, KeyError):
        raise UserError(f'schedule {spec!r} is not a schedule: give a name ({", ".join(SCHEDULES)}), a tuple of phases '
                        'such as ((1, 1), (0, 1)), or a mapping with phases and coin.') from None
    return Schedule(phases, coin)


def view_orders(schedule: Schedule | str, epoch: int, key: jax.Array) -> Orders:
    """The derivative orders of the two views in one step.

    `(o1, o2) = phases[epoch mod len(phases)] + (b, b)`, with b from a fair coin if the schedule has one. The coin is a
    function of `key` alone: the same on every host and after a resume.

    Args:
      schedule: a `Schedule`, or what `resolve` takes.
      epoch: from 0.
      key: of this step and of no other use, for example `fold_in(schedule_key, step)`. The draw runs where the key
        is: keep it on the host's CPU, so that it does not wait for work queued on an accelerator.

    Returns:
      (order of view 1, order of view 2), python ints.

    Example:
      >>> view_orders('first_order', 5, jax.random.key(0))
      (0, 1)
    """
    schedule = resolve(schedule)
    possible = schedule.possible(epoch % len(schedule.phases))
    if len(possible) == 1:
        return possible[0]
    return possible[int(jax.random.randint(key, (), 0, len(possible)))]


def describe_phase(schedule: Schedule, phase: int) -> str:
    """The pairs of views of a phase, for people: `orders (1, 1) or (2, 2), views dV1 & dV2 or d2V1 & d2V2`."""
    possible = schedule.possible(phase)
    symbols = ('V', 'dV')
    view = lambda order, number: (symbols[order] if order < 2 else f'd{order}V') + str(number)  # noqa: E731
    pairs = [f'{view(first, 1)} & {view(second, 2)}' for first, second in possible]
    return f'orders {" or ".join(map(str, possible))}, views {" or ".join(pairs)}'


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m vididi_jax.schedule', description='Print a schedule, step by step.')
    parser.add_argument('schedule', choices=SCHEDULES)
    parser.add_argument('--epochs', type=int, default=8)
    parser.add_argument('--steps', type=int, default=4, help='steps an epoch')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    schedule, key = SCHEDULES[arguments.schedule], jax.random.key(arguments.seed)
    print(f'{"epoch":>5} {"step":>5} {"phase":>5}  orders')
    for epoch in range(arguments.epochs):
        for step in range(epoch * arguments.steps, (epoch + 1) * arguments.steps):
            orders = view_orders(schedule, epoch, jax.random.fold_in(key, step))
            print(f'{epoch:5} {step:5} {epoch % len(schedule.phases):5}  {orders}')


if __name__ == '__main__':
    main()
