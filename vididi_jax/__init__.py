"""Self-supervised video representation learning with temporal derivatives, in JAX."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vididi_jax.api import encode_video, evaluate, get_config, load_encoder, pretrain, read_clips

__version__ = '0.1.0'
__all__ = ('encode_video', 'evaluate', 'get_config', 'load_encoder', 'pretrain', 'read_clips')


def __getattr__(name: str):
    if name == 'evaluate':  # the package, which can be called
        return importlib.import_module('vididi_jax.evaluate')
    if name in __all__:  # on demand, so that `import vididi_jax.derivatives` stays light
        return getattr(importlib.import_module('vididi_jax.api'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
