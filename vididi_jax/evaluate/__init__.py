"""Evaluations of an encoder. Called as a function, `vididi_jax.evaluate(config, workdir)`, it is `api.evaluate`."""

import sys
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    def __call__(self, config, workdir, *, report: bool = True) -> Any:
        from vididi_jax import api

        return api.evaluate(config, workdir, report=report)


sys.modules[__name__].__class__ = _Package  # the one name that is a function for users and a folder here
