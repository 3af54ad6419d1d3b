"""Self-supervised video representation learning with temporal derivatives, in JAX."""

__version__ = '0.1.0'
