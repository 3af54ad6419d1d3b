"""Shared by the benchmarks: interleaved timing, the matmul peak of the device, and counting of convolutions."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax.errors import UserError
from vididi_jax.models.resnet3d import Conv3D


class Layer(NamedTuple):
    """A convolution of an encoder on given clips."""

    inputs: tuple[int, ...]  # (B, T, H, W, C)
    kernel: tuple[int, int, int]
    stride: tuple[int, int, int]
    outputs: tuple[int, ...]

    @property
    def flops(self) -> int:
        """2 x multiply-adds of the forward pass, zero padding included."""
        return 2 * math.prod(self.outputs) * math.prod(self.kernel) * self.inputs[-1]


def parse_shape(text: str) -> tuple[int, int, int, int]:
    """'2x8x112x112' -> (clips, frames, height, width)."""
    parts = text.split('x')
    if len(parts) != 4 or not all(part.isdigit() and int(part) for part in parts):
        raise UserError(f'--shape is {text!r}: give clips x frames x height x width, such as 2x8x112x112.')
    return tuple(map(int, parts))


def check_rounds(rounds: int) -> None:
    """Raises `UserError` unless there is a round to time."""
    if rounds < 1:
        raise UserError(f'--rounds is {rounds}: it must be at least 1.')


def convolutions(encoder: nn.Module, shape: tuple[int, int, int, int]) -> list[Layer]:
    """Every convolution of an encoder, in order."""
    layers = []

    def note(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if isinstance(context.module, Conv3D) and context.method_name == '__call__':
            layers.append(Layer(args[0].shape, context.module.kernel, context.module.stride, y.shape))
        return y

    with nn.intercept_methods(note):
        jax.eval_shape(encoder.init, jax.random.key(0), jax.ShapeDtypeStruct((*shape, 3), jnp.float32))
    return layers


def train_flops(layers: list[Layer]) -> int:
    """Forward, and the gradients by input (not of the first layer) and by kernel, each as costly as the forward."""
    return 3 * sum(layer.flops for layer in layers) - layers[0].flops


def interleave(functions: dict[Any, Callable[[], None]], rounds: int, skip: int = 1) -> dict[Any, np.ndarray]:
    """Seconds of each function, called in turns, so that other load on the machine hits all alike.

    Each function returns when its work is done. The first `skip` rounds are thrown away.
    """
    seconds = {name: [] for name in functions}
    for _ in range(rounds + skip):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values[skip:]) for name, values in seconds.items()}


def summary(seconds: np.ndarray) -> str:
    """Median and quartiles in milliseconds."""
    low, median, high = np.percentile(seconds * 1e3, [25, 50, 75])
    return f'{median:9.2f} ms (quartiles {low:.2f} - {high:.2f})'


def matmul_peak(dtype: jnp.dtype) -> float:
    """FLOP/s of a large square matrix product of `dtype`, the best of ten: what this device can do at all.

    Sums are kept in at least float32: XLA has no fast product of bfloat16 on a CPU whose result is bfloat16.
    """
    size = 2048 if jax.default_backend() == 'cpu' else 8192
    x = jnp.ones((size, size), dtype)
    product = jax.jit(partial(jnp.matmul, preferred_element_type=jnp.promote_types(dtype, jnp.float32)))
    times = interleave({'matmul': lambda: jax.block_until_ready(product(x, x))}, 10)['matmul']
    return 2 * size**3 / times.min()
