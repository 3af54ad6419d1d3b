"""Compiled programs on disk, so that a second process has them at once."""

import os

import jax
from jax.experimental.compilation_cache import compilation_cache

CACHE = '~/.cache/vididi_jax/compiled'


def keep_programs() -> None:
    """Keep every compiled program in `CACHE` from process to process.

    A cache that is configured already (JAX_COMPILATION_CACHE_DIR or `jax.config`) stays as it is, and a folder that
    cannot be made means none. JAX_ENABLE_COMPILATION_CACHE=0 turns all caches off.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    folder = os.path.expanduser(CACHE)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
    compilation_cache.reset_cache()  # a process that has compiled something knows of no cache
