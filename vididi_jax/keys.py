"""The key that all random numbers of a run come from."""

import jax

IMPLEMENTATION = 'threefry2x32'


def root_key(seed: int) -> jax.Array:
    """The key of a seed, of threefry, whatever `JAX_DEFAULT_PRNG_IMPL` says.

    Under `jax.vmap` JAX's other generators draw for a whole batch from its first key: what a clip gets would hang on
    the clips beside it. And a run that goes on elsewhere must draw what it would have drawn here, which it does under
    the same `jax_threefry_partitionable`.

    Args:
      seed: from 0 to 2^32 - 1.

    Returns:
      A typed key, (), as `jax.random` takes it.
    """
    return jax.random.key(seed, impl=IMPLEMENTATION)
