"""Evaluations of an encoder. Called as a function, `vididi_jax.evaluate(config, workdir)`, it is `api.evaluate`."""

import sys
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    def __call__(self, config, workdir, *, report: bool = True) -> Any:
        from vididi_jax import api

        return api.evaluate(config, workdir, report=report)


# `vididi_jax.evaluate` is two fixed names: a function for users, and the package of `evaluate.detection.evaluate_csv`.
# A function of that name in `vididi_jax` would not stay: Python puts the package there when a module of it is imported.
# So it is the package that is called, as the language reference has it ("Customizing module attribute access").
sys.modules[__name__].__class__ = _Package
