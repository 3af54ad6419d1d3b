"""Self-supervised video representation learning with temporal derivatives, in JAX."""

__version__ = '0.1.0'


def __getattr__(name: str):
    if name == 'load_encoder':  # on demand, so that `import vididi_jax.derivatives` stays light
        from vididi_jax.weights import load_encoder

        return load_encoder
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
