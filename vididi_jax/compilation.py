"""How programs are compiled: with which options, and kept on disk, so that a second process has them at once."""

import os
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.compilation_cache import compilation_cache

CACHE = '~/.cache/vididi_jax/compiled'
OPTIONS = {
    # On a CPU, convolutions without XLA's new library for them (YNN): they are slower than the ones before.
    'cpu': {'xla_cpu_experimental_ynn_fusion_type': ''},
    # On a GPU XLA lays out 3-D convolutions channels first, and cuDNN turns every operand around and back.
    'gpu': {'xla_gpu_force_conv_nhwc': True},
}
ONCE = {'cpu': {'xla_backend_optimization_level': 1}}  # the same bits, compiled in a quarter of the time


@cache
def compiler_options(platform: str, *, once: bool = False) -> dict[str, str | bool | int]:
    """For `jax.jit` of what has an encoder in it, measured with benchmarks/train_step.py and benchmarks/accelerator.py.

    Options are left out where the compiler has none of that name.

    Args:
      platform: of the devices, see `train.mesh.platform`.
      once: for what runs once, such as drawing the initial weights.

    Returns:
      {option: value}; {} where there is nothing to say.
    """
    options = (ONCE if once else OPTIONS).get(platform, {})
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def jit_with_options(**arguments) -> Callable[[Callable], Callable]:
    """Decorator: `jax.jit` with the `compiler_options` of the default devices, which are asked at the first call.

    What it makes is not for use inside another `jax.jit`.

    Args:
      **arguments: of `jax.jit`, such as `static_argnames`.

    Returns:
      function -> the same, compiled.
    """

    def decorate(function: Callable) -> Callable:
        @cache
        def compiled() -> Callable:
            return jax.jit(function, compiler_options=compiler_options(jax.default_backend()), **arguments)

        @wraps(function)
        def call(*args, **kwargs):
            return compiled()(*args, **kwargs)

        return call

    return decorate


def run_init(init: Callable, *args) -> Any:
    """`init(*args)` as one program, which is compiled for a single run.

    Args:
      init: draws initial weights.
      *args: trees of arrays; of tracers, where `jax.eval_shape` asks for no more than shapes: nothing is compiled then.

    Returns:
      What `init` returns.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args)):
        return init(*args)
    return jax.jit(init, compiler_options=compiler_options(jax.default_backend(), once=True))(*args)


def keep_programs() -> None:
    """Keep every compiled program in `CACHE` from process to process.

    A cache that is configured already (JAX_COMPILATION_CACHE_DIR or `jax.config`) stays as it is, and a folder that
    cannot be made means none. JAX_ENABLE_COMPILATION_CACHE=0 turns all caches off.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    folder = os.path.expanduser(CACHE)
    if folder == CACHE:  # nobody has a home here
        return
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
    compilation_cache.reset_cache()  # a process that has compiled something knows of no cache
