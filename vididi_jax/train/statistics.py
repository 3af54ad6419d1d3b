"""BatchNorm's running statistics of pretraining: averages for each derivative order, mixed into one set.

Training normalises each view with its own statistics; running statistics are for evaluation alone. A plain running
average of momentum 0.9 remembers a dozen steps, so it hangs on which orders the schedule's last coins drew. Here each
order has an average of its own, with a longer memory, and the one set that evaluation, health and export read is their
mean in the schedule's shares, whatever came last.
"""

from collections.abc import Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp

MOMENTUM = 0.995


@flax.struct.dataclass
class ByOrder:
    """What was seen of each order.

    Attributes:
      averages: a tree of mean and (unbiased) variance, with a leading axis of the K orders.
      seen: int32 (K,), how many views of each order.
    """

    averages: Any
    seen: jax.Array


def start(batch_stats: Any, orders: int) -> ByOrder:
    """Nothing seen of `orders` orders, for statistics of the shapes of `batch_stats`."""
    return ByOrder(jax.tree.map(lambda leaf: jnp.repeat(leaf[None], orders, 0), batch_stats),
                   jnp.zeros(orders, jnp.int32))


def remember(statistics: ByOrder, order: jax.Array, moments: Any) -> ByOrder:
    """`a_k += (b - a_k) * max(1 / (n_k + 1), 1 - MOMENTUM)` for order k, seen n_k times: plain means at first.

    Args:
      statistics: a, n.
      order: k, an int scalar.
      moments: b, of a view.
    """
    count = statistics.seen[order] + 1

    def move(average: jax.Array, new: jax.Array) -> jax.Array:
        rate = jnp.maximum(1 / count.astype(average.dtype), 1 - MOMENTUM)  # of whole numbers it would be float32
        return average.at[order].add((new - average[order]) * rate)

    return ByOrder(jax.tree.map(move, statistics.averages, moments), statistics.seen.at[order].add(1))


def mixed(statistics: ByOrder, shares: Sequence[float]) -> Any:
    """`sum_k w_k a_k / sum_k w_k`, with `w_k` the share of order k, or 0 if it was not seen yet; one must have been."""
    weights = jnp.where(statistics.seen > 0, jnp.asarray(shares), 0)
    weights /= weights.sum()
    return jax.tree.map(lambda average: jnp.tensordot(weights.astype(average.dtype), average, 1), statistics.averages)
