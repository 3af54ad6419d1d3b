"""Time of every convolution of an encoder, forward and forward + backward, in each formulation, and its error.

python benchmarks/conv3d.py [--encoder=r3d_18] [--shape=2x8x112x112] [--dtype=float32] [--width=64] [--rounds=5]

The error is that of the output, relative and root mean square, against 'taps' in float32 on the same values.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Layer, check_rounds, convolutions, interleave, matmul_peak, parse_shape
from vididi_jax.compilation import compiler_options
from vididi_jax.errors import UserError, one_sentence
from vididi_jax.models import create_encoder
from vididi_jax.models.conv3d import IMPLEMENTATIONS, conv3d

IMPLS = [impl for impl in IMPLEMENTATIONS if impl not in ('auto', 'by_layer')]
jit = partial(jax.jit, compiler_options=compiler_options(jax.default_backend()))  # as training has it


def arrays(layer: Layer, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Input, kernel and cotangent."""
    rng = np.random.default_rng(0)
    shapes = layer.inputs, (*layer.kernel, layer.inputs[-1], layer.outputs[-1]), layer.outputs
    return tuple(jnp.asarray(rng.standard_normal(shape, np.float32), dtype) for shape in shapes)


def forward(layer: Layer, impl: str) -> Callable:
    """`(x, w) -> y` of a layer."""
    return partial(conv3d, stride=layer.stride, padding=tuple(k // 2 for k in layer.kernel), impl=impl)


def programs(layer: Layer, dtype: jnp.dtype, first: bool) -> dict:
    """{(formulation, direction): a function that runs it}; the first layer needs no gradient by its input."""
    x, w, cotangent = arrays(layer, dtype)
    found = {}
    for impl in IMPLS:
        convolve = forward(layer, impl)

        def both(x, w, cotangent, convolve=convolve):
            y, back = jax.vjp(partial(convolve, x), w) if first else jax.vjp(convolve, x, w)
            return y, back(cotangent)

        runs = {'forward': (jit(convolve), (x, w)), 'both': (jit(both), (x, w, cotangent))}
        for direction, (run, arguments) in runs.items():
            found[impl, direction] = lambda run=run, arguments=arguments: jax.block_until_ready(run(*arguments))
    return found


def errors(layer: Layer, dtype: jnp.dtype) -> dict[str, float]:
    """{formulation: relative error of the output}."""
    x, w, _ = arrays(layer, dtype)
    with jax.default_matmul_precision('float32'):
        expected = jit(forward(layer, 'taps'))(x.astype(jnp.float32), w.astype(jnp.float32))
    differences = {impl: jit(forward(layer, impl))(x, w).astype(jnp.float32) - expected for impl in IMPLS}
    return {impl: float(jnp.linalg.norm(d.ravel()) / jnp.linalg.norm(expected.ravel()))
            for impl, d in differences.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--encoder', default='r3d_18')
    parser.add_argument('--shape', default='2x8x112x112', help='clips x frames x height x width')
    parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
    parser.add_argument('--width', type=int, default=64)
    parser.add_argument('--rounds', type=int, default=5)
    arguments = parser.parse_args()
    check_rounds(arguments.rounds)
    if jax.default_backend() != 'cpu':
        raise UserError(f'formulations for CPUs are compared, and the device is a {jax.default_backend()}: set '
                        'JAX_PLATFORMS=cpu.')
    dtype = jnp.dtype(arguments.dtype)
    layers = convolutions(create_encoder(arguments.encoder, width=arguments.width), parse_shape(arguments.shape))
    print(f'{arguments.encoder} of width {arguments.width}, {arguments.shape}, {dtype}, '
          f'{jax.devices()[0].device_kind}, jax {jax.__version__}; matmul peak {matmul_peak(dtype) / 1e9:.0f} GFLOP/s')
    columns = [(impl, direction) for impl in IMPLS for direction in ('forward', 'both')]
    print(f'{"times":>5} {"input":>20} {"kernel":>7} {"stride":>7} {"out":>5} {"GFLOP":>8}',
          *(f'{f"{impl} {direction} ms":>18}' for impl, direction in columns))
    total, largest = dict.fromkeys(columns, 0.0), dict.fromkeys(IMPLS, 0.0)
    for layer in dict.fromkeys(layers):
        count = layers.count(layer)
        seconds = interleave(programs(layer, dtype, layer is layers[0]), arguments.rounds)
        largest = {impl: max(largest[impl], error) for impl, error in errors(layer, dtype).items()}
        medians = {column: np.median(seconds[column]) for column in columns}
        total = {column: total[column] + count * medians[column] for column in columns}
        print(f'{count:5} {"x".join(map(str, layer.inputs)):>20} {"x".join(map(str, layer.kernel)):>7} '
              f'{"x".join(map(str, layer.stride)):>7} {layer.outputs[-1]:5} {layer.flops / 1e9:8.2f}',
              *(f'{medians[column] * 1e3:18.2f}' for column in columns), flush=True)
    print(f'{len(layers):5} {"all":>20} {"":>7} {"":>7} {"":>5} {sum(layer.flops for layer in layers) / 1e9:8.2f}',
          *(f'{total[column] * 1e3:18.2f}' for column in columns))
    print('largest error of a layer:', ', '.join(f'{impl} {error:.1e}' for impl, error in largest.items()))


if __name__ == '__main__':
    with one_sentence():
        main()
