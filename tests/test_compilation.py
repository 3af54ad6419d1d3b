"""The cache of compiled programs."""

import jax
from jax.experimental.compilation_cache import compilation_cache

from vididi_jax import compilation


def test_a_cache_that_is_configured_stays_and_else_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation, 'CACHE', str(tmp_path / 'home' / 'compiled'))
    monkeypatch.setattr(compilation.os.path, 'expanduser', lambda path: path.replace('home', 'mine'))
    before = jax.config.jax_compilation_cache_dir
    try:
        for configured, found in ((str(tmp_path / 'own'), 'own'), (None, 'mine/compiled')):
            jax.config.update('jax_compilation_cache_dir', configured)
            compilation.keep_programs()
            assert jax.config.jax_compilation_cache_dir == str(tmp_path / found)
            assert (tmp_path / 'mine').exists() == (configured is None)
    finally:
        jax.config.update('jax_compilation_cache_dir', before)
        compilation_cache.reset_cache()
