"""Which derivative order each view gets: schedules as data, and pure functions of (epoch, key).

`python -m vididi_jax.schedule vididi --epochs=8 --steps=4` prints what a training run draws.

Reference: Chen et al., CPAL 2025, section 3 (balanced alternating learning strategy).
"""

import itertools
import reprlib
from dataclasses import dataclass

import jax
import numpy as np

from vididi_jax.errors import Parser, UserError, one_sentence
from vididi_jax.keys import root_key

Orders = tuple[int, int]

TAG = 2  # splits the key of the schedule off a run's seed; the augmentation and the weights have others


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

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each order, from 0 to `max_order`, among the views of a cycle; 1/4, 1/2, 1/4 of 'vididi'."""
        views = [order for epoch in range(len(self.phases)) for pair in self.possible(epoch) for order in pair]
        return tuple(views.count(order) / len(views) for order in range(self.max_order + 1))

    def possible(self, epoch: int) -> tuple[Orders, ...]:
        """The pairs of orders that a step of `epoch` can get, equally likely."""
        raised = range(1 + self.coin)
        pairs = self.choices or (self.phases[epoch % len(self.phases)],)
        return tuple((first + b, second + b) for first, second in pairs for b in raised)


ALTERNATING = ((1, 1), (0, 1), (1, 0), (0, 0))
#: Schedules by their names in configs; 'vididi' is the paper's, 'base' none.
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
        `phases` and, if wanted, `coin` and `choices`.

    Returns:
      The schedule.

    Raises:
      UserError: anything else.

    Example:
      >>> resolve('vididi').phases
      ((1, 1), (0, 1), (1, 0), (0, 0))
      >>> resolve({'phases': [[0, 2]], 'coin': True}).max_order
      3
    """
    if isinstance(spec, Schedule):
        return spec
    if isinstance(spec, str) and spec in SCHEDULES:
        return SCHEDULES[spec]
    known = ', '.join(SCHEDULES)
    try:
        fields = dict(spec) if hasattr(spec, 'keys') else {'phases': spec}
        phases = tuple((first, second) for first, second in fields.pop('phases'))
        coin = fields.pop('coin', False)
        choices = tuple((first, second) for first, second in fields.pop('choices', ()))
    except (TypeError, ValueError, KeyError):
        raise UserError(f'schedule {reprlib.repr(spec)} is unknown: give one of {known}, a tuple of phases such as '
                        '((1, 1), (0, 1)), or a mapping with phases and coin.') from None
    if fields:
        raise UserError(f'a schedule has phases, coin and choices, not {", ".join(map(str, fields))}: drop it from '
                        f'{spec!r}.')
    orders = list(itertools.chain.from_iterable(phases + choices))
    if not phases or not all(type(order) is int and order >= 0 for order in orders):
        raise UserError(f'the phases of schedule {spec!r} must be pairs of derivative orders, whole numbers from 0 up, '
                        f'and at least one pair; or give one of {known}.')
    if not isinstance(coin, bool):
        raise UserError(f'the coin of schedule {spec!r} must be True or False.')
    return Schedule(phases, coin, choices)


def schedule_key(seed: int) -> jax.Array:
    """The key that all draws of a run's schedule come from: step s uses `fold_in(schedule_key(seed), s)`.

    It lives on the host's CPU, and so do the draws from it: they never wait for work queued on an accelerator, nor
    depend on which one it is.

    Raises:
      UserError: a seed outside 0 to 2^32 - 1; keys hold no more, so others would repeat the draws of one inside.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f'the seed is {seed}: it must be a whole number from 0 to {2**32 - 1}.')
    try:
        host = jax.local_devices(backend='cpu')[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        host = jax.local_devices()[0]
    return jax.device_put(jax.random.fold_in(root_key(seed), TAG), host)


def view_orders(schedule: Schedule | str, epoch: int, key: jax.Array) -> Orders:
    """The derivative orders of the two views in one step.

    `(o1, o2) = phases[epoch mod len(phases)] + (b, b)`, with b from a fair coin if the schedule has one. The coin is a
    function of `key` alone: the same on every device and host, and after a resume.

    Args:
      schedule: a `Schedule`, or what `resolve` takes.
      epoch: from 0.
      key: of this step and of no other use: `fold_in(schedule_key(seed), step)`.

    Returns:
      (order of view 1, order of view 2), python ints.

    Raises:
      UserError: as `resolve`.

    Example:
      >>> view_orders('first_order', 5, jax.random.key(0))
      (0, 1)
    """
    possible = resolve(schedule).possible(epoch)
    return possible[int(_draw(key, len(possible)))] if len(possible) > 1 else possible[0]


def run_orders(schedule: Schedule | str, seed: int, epochs: int, steps_per_epoch: int) -> list[list[Orders]]:
    """The orders of every step of a run, as `view_orders` with `schedule_key(seed)` gives them, drawn at once.

    Returns:
      One list an epoch, one pair a step.

    Raises:
      UserError: no epoch, no step, or as `resolve` and `schedule_key`.

    Example:
      >>> run_orders('base', seed=0, epochs=2, steps_per_epoch=3)
      [[(0, 0), (0, 0), (0, 0)], [(0, 0), (0, 0), (0, 0)]]
    """
    schedule = resolve(schedule)
    if min(epochs, steps_per_epoch) < 1:
        raise UserError(f'there are {epochs} epochs of {steps_per_epoch} steps: both must be at least 1.')
    count = len(schedule.possible(0))  # the same in all phases
    keys = jax.vmap(jax.random.fold_in, (None, 0))(schedule_key(seed), np.arange(epochs * steps_per_epoch))
    drawn = np.asarray(jax.vmap(lambda key: _draw(key, count))(keys)).reshape(epochs, steps_per_epoch)
    return [[schedule.possible(epoch)[choice] for choice in drawn[epoch]] for epoch in range(epochs)]


def _draw(key: jax.Array, count: int) -> jax.Array:
    """A whole number from 0 to `count - 1`; the dtype is fixed because it decides which bits are used."""
    return jax.random.randint(key, (), 0, count, np.int32)


def order_name(order: int) -> str:
    """'V', 'dV', 'd2V' and so on."""
    return f'd{order}V' if order > 1 else ('V', 'dV')[order]


def describe_phase(schedule: Schedule, phase: int) -> str:
    """The pairs of views of a phase, for people.

    Example:
      >>> describe_phase(SCHEDULES['vididi'], 1)
      'orders (0, 1) or (1, 2), views V1 & dV2 or dV1 & d2V2'
    """
    possible = schedule.possible(phase)
    pairs = (f'{order_name(first)}1 & {order_name(second)}2' for first, second in possible)
    return f'orders {" or ".join(map(str, possible))}, views {" or ".join(pairs)}'


@one_sentence()
def main(words: list[str] | None = None, prog: str = 'python -m vididi_jax.schedule') -> None:
    parser = Parser(
        prog=prog,
        description='Print the derivative orders of the two views, step by step, as a training run draws them.',
    )
    parser.add_argument('schedule', choices=SCHEDULES)
    parser.add_argument('--epochs', type=int, default=8)
    parser.add_argument('--steps', type=int, default=4, help='steps an epoch (default 4)')
    parser.add_argument('--seed', type=int, default=0, help='of the run, config.seed (default 0)')
    arguments = parser.parse_args(words)
    jax.config.update('jax_platforms', 'cpu')  # no reason to take hold of an accelerator
    schedule = SCHEDULES[arguments.schedule]
    run = run_orders(schedule, arguments.seed, arguments.epochs, arguments.steps)
    print(f'{"epoch":>5} {"step":>5} {"phase":>5}  orders')
    for epoch, steps in enumerate(run):
        for step, orders in enumerate(steps, epoch * arguments.steps):
            print(f'{epoch:5} {step:5} {epoch % len(schedule.phases):5}  {orders}')


if __name__ == '__main__':
    main()
