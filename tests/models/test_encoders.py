"""Encoders: sizes, batch normalisation as PyTorch defines it, and what a caller relies on."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vididi_jax.errors import UserError
from vididi_jax.models import create_encoder
from vididi_jax.models.build import compute_dtype
from vididi_jax.models.heads import MLP
from vididi_jax.models.norm import BatchNorm
from vididi_jax.models.s3d import SeparableConv, max_pool

PARAMETERS = {  # torchvision's, without head
    'r3d_18': 33_166_272, 'r2plus1d_18': 31_300_125, 'mc3_18': 11_490_240, 's3d': 7_910_048}


@pytest.mark.parametrize('name', PARAMETERS)
def test_number_of_parameters_is_torchvisions(name):
    encoder = create_encoder(name)
    variables = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 8, 32, 32, 3)))
    assert sum(p.size for p in jax.tree.leaves(variables['params'])) == PARAMETERS[name]
    assert encoder.feature_dim == (1024 if name == 's3d' else 512)


@pytest.mark.parametrize('name', PARAMETERS)
def test_shapes_and_modes(name):
    encoder = create_encoder(name, width=4)
    shape = (2, 7, 40, 52, 3) if name == 's3d' else (2, 7, 24, 32, 3)
    clips = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)

    def run(key):
        variables = encoder.init(key, clips)
        _, updated = encoder.apply(variables, clips, train=True, mutable=['batch_stats'])
        return (encoder.apply(variables, clips, train=False),
                encoder.apply(variables, clips, train=False, method='feature_map'),
                jax.tree.map(lambda a, b: jnp.any(a != b), updated['batch_stats'], variables['batch_stats']))

    # One is run: compiling takes a while, and the values of all are held against torchvision's.
    features, maps, moved = (jax.jit(run) if name == 'r3d_18' else partial(jax.eval_shape, run))(jax.random.key(0))
    assert features.shape == (2, encoder.feature_dim) == (2, 64 if name == 's3d' else 32)
    assert maps.shape == (2, 7 if name == 'mc3_18' else 1, 1 if name == 's3d' else 2, 2, encoder.feature_dim)
    if name == 'r3d_18':
        np.testing.assert_allclose(maps.mean((1, 2, 3)), features, atol=1e-6)
        assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize('name', PARAMETERS)
def test_without_the_last_stride_maps_are_denser_and_variables_the_same(name):
    plain, dense = create_encoder(name, width=2), create_encoder(name, width=2, last_stride=1)
    clips = jnp.zeros((1, 5, 64, 96, 3))
    variables, same = (jax.eval_shape(encoder.init, jax.random.key(0), clips) for encoder in (plain, dense))
    assert variables == same
    maps = [jax.eval_shape(partial(encoder.apply, method='feature_map'), variables, clips)
            for encoder in (plain, dense)]
    for encoder, found in zip((plain, dense), maps, strict=True):
        assert found.shape[2:4] == (64 // encoder.spatial_stride, 96 // encoder.spatial_stride)
    assert plain.spatial_stride == 2 * dense.spatial_stride == (32 if name == 's3d' else 16)
    assert maps[0].shape[1] == maps[1].shape[1]  # time is as it was


def test_formulations_and_remat_give_the_same_features_and_gradients():
    clips = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 16, 16, 3)), jnp.float32)
    results, variables = [], jax.jit(create_encoder('r3d_18', width=4).init)(jax.random.key(0), clips)
    for options in (dict(conv_impl='taps'), dict(conv_impl='xla'), dict(conv_impl='taps', remat=True)):
        encoder = create_encoder('r3d_18', width=4, **options)

        def loss(params, encoder=encoder):
            out, _ = encoder.apply({**variables, 'params': params}, clips, train=True, mutable=['batch_stats'])
            return (out**2).sum()

        results.append(jax.jit(jax.value_and_grad(loss))(variables['params']))
    for value, gradient in results[1:]:
        np.testing.assert_allclose(value, results[0][0], rtol=1e-4)
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(results[0][1]), strict=True):
            # float32 through 18 layers of batch statistics
            np.testing.assert_allclose(a, b, atol=2e-3 * max(float(jnp.abs(b).max()), 1e-3))


def count(jaxpr, name):
    """How often a primitive stands in a jaxpr, and in those inside of it."""
    inner = [getattr(value, 'jaxpr', value) for equation in jaxpr.eqns for value in equation.params.values()]
    return sum(equation.primitive.name == name for equation in jaxpr.eqns) + sum(
        count(found, name) for found in inner if hasattr(found, 'eqns'))


@pytest.mark.parametrize('name', PARAMETERS)
def test_the_backward_pass_computes_convolutions_again_with_remat_alone(name):
    """Those of blocks; three are a forward pass and its gradients, of which the first layer's input needs none."""
    before_blocks = {'r2plus1d_18': 2, 's3d': 5}.get(name, 1)
    for remat in (False, True):
        encoder = create_encoder(name, width=2, remat=remat, conv_impl='xla')
        clips = jnp.zeros((1, 5, 32, 32, 3))
        variables = jax.eval_shape(encoder.init, jax.random.key(0), clips)
        layers = sum(leaf.ndim == 5 for leaf in jax.tree.leaves(variables))

        def loss(params, variables, encoder=encoder, clips=clips):
            return encoder.apply({**variables, 'params': params}, clips, train=True, mutable=['batch_stats'])[0].sum()

        found = count(jax.make_jaxpr(jax.grad(loss))(variables['params'], variables).jaxpr, 'conv_general_dilated')
        assert found == 3 * layers - 1 + remat * (layers - before_blocks)


@pytest.mark.parametrize(('kernel', 'stride', 'padding'), [
    ((1, 3, 3), (1, 2, 2), (0, 1, 1)), ((3, 3, 3), (2, 2, 2), (1, 1, 1)), ((3, 3, 3), (1, 1, 1), (1, 1, 1)),
    ((2, 2, 2), (2, 2, 2), (0, 0, 0))])
def test_max_pool_is_the_windows_maximum_and_its_gradient_goes_there(kernel, stride, padding):
    x = np.random.default_rng(0).normal(size=(2, 5, 8, 7, 3)) - 3  # negative: padding with zeros would win
    with jax.enable_x64(True):
        pool = partial(max_pool, kernel=kernel, stride=stride, padding=padding)
        y = jax.jit(pool)(x)
        gradient = jax.jit(jax.grad(lambda x: (pool(x) ** 2).sum()))(x)
    padded = np.pad(x, [(0, 0), *[(p, p) for p in padding], (0, 0)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(1, 2, 3))
    windows = windows[:, :: stride[0], :: stride[1], :: stride[2]]
    np.testing.assert_array_equal(y, windows.max((-3, -2, -1)))
    expected = np.zeros_like(x)
    for value in np.asarray(y).ravel():
        expected[x == value] += 2 * value
    np.testing.assert_allclose(gradient, expected, atol=1e-12)


def test_what_is_not_a_number_survives_max_pool():
    assert jnp.isnan(max_pool(jnp.full((1, 2, 2, 2, 1), jnp.nan).at[0, 1, 1, 1].set(1), *[(2, 2, 2)] * 2, (0, 0, 0)))


def test_s3d_starts_with_pytorchs_default_weights():
    """Uniform within 1 / sqrt(fan in), as nn.Conv3d draws them; torchvision leaves it at that."""
    layer = SeparableConv(64, 3, 1, jnp.float32, 'auto')
    params = jax.jit(partial(layer.init, train=False))(jax.random.key(0), jnp.zeros((1, 3, 5, 5, 16)))['params']
    for part, fan_in in (('spatial', 9 * 16), ('temporal', 3 * 64)):
        kernel = np.asarray(params[part]['conv']['kernel'])
        assert 0.99 < np.abs(kernel).max() * fan_in**0.5 <= 1
        np.testing.assert_allclose(kernel.var() * fan_in, 1 / 3, rtol=0.05)


@pytest.mark.parametrize('shape', [(1, 4, 32, 32, 3), (1, 8, 16, 32, 3)])
def test_s3d_refuses_clips_of_which_the_pools_leave_nothing(shape):
    encoder = create_encoder('s3d', width=2)
    with pytest.raises(UserError, match='5 frames of 17 x 17'):
        jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros(shape))
    least = jax.eval_shape(lambda x: encoder.init_with_output(jax.random.key(0), x)[0], jnp.zeros((1, 5, 17, 17, 3)))
    assert least.shape == (1, 32)


def test_bfloat16_computes_low_and_keeps_parameters_high():
    encoder = create_encoder('r3d_18', width=4, dtype=jnp.bfloat16)
    clips = jnp.zeros((2, 8, 16, 16, 3))
    variables = jax.eval_shape(encoder.init, jax.random.key(0), clips)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert jax.eval_shape(encoder.apply, variables, clips).dtype == jnp.bfloat16


@pytest.mark.parametrize('name', PARAMETERS)
def test_encoders_serve_programs_that_allow_no_implicit_promotion(name):
    encoder, clips = create_encoder(name, width=2, dtype=jnp.bfloat16), jnp.zeros((2, 5, 32, 32, 3))

    def features_and_gradient(key):
        variables = encoder.init(key, clips)

        def loss(params):
            features, _ = encoder.apply({**variables, 'params': params}, clips, train=True, mutable=['batch_stats'])
            return features.astype(jnp.float32).sum()

        return encoder.apply(variables, clips), jax.grad(loss)(variables['params'])

    with jax.numpy_rank_promotion('raise'), jax.numpy_dtype_promotion('strict'):
        features, _ = jax.eval_shape(features_and_gradient, jax.random.key(0))
    assert features.shape == (2, encoder.feature_dim)


@pytest.mark.parametrize('shape', [(6, 5), (2, 3, 4, 4, 5)])
def test_batch_norm_is_pytorchs(shape):
    """Normalises with the biased variance, stores the unbiased one with momentum 0.1 (of the new)."""
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, size=shape)
    flat = x.reshape(-1, 5)
    with jax.enable_x64(True):
        norm = BatchNorm()
        variables = norm.init(jax.random.key(0), jnp.asarray(x), train=False)
        y, updated = norm.apply(variables, jnp.asarray(x), train=True, mutable=['batch_stats'])
        evaluated = norm.apply({**variables, **updated}, jnp.asarray(x), train=False)
    np.testing.assert_allclose(y, (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5), atol=1e-12)
    mean, var = 0.1 * flat.mean(0), 0.9 + 0.1 * flat.var(0, ddof=1)
    np.testing.assert_allclose(updated['batch_stats']['mean'], mean, atol=1e-12)
    np.testing.assert_allclose(updated['batch_stats']['var'], var, atol=1e-12)
    np.testing.assert_allclose(evaluated, (x - mean) / np.sqrt(var + 1e-5), atol=1e-12)


def test_views_of_one_batch_are_normalised_as_one_after_the_other():
    x = np.random.default_rng(0).normal([[[1.0]], [[3.0]]], [[[2.0]], [[0.1]]], (2, 6, 5)).astype(np.float32)
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), x[0], train=False)
    together, after = norm.apply(variables, x.reshape(12, 5), train=True, views=2, mutable=['batch_stats', 'moments'])
    for number, view in enumerate(x):
        alone, moved = norm.apply(variables, view, train=True, mutable=['batch_stats', 'moments'])
        np.testing.assert_array_equal(together.reshape(x.shape)[number], alone)
        for name, (value,) in moved['moments'].items():
            np.testing.assert_array_equal(after['moments'][name][number], value)
        variables = {**variables, 'batch_stats': moved['batch_stats']}
    jax.tree.map(np.testing.assert_array_equal, after['batch_stats'], variables['batch_stats'])


def test_projector_is_linear_norm_relu_and_a_plain_last_layer():
    x = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    head = MLP((5, 4, 3))
    variables = head.init(jax.random.key(0), x)
    y, _ = head.apply(variables, x, train=True, mutable=['batch_stats'])
    h, params = x.astype(np.float64), variables['params']
    for i in range(2):
        h = h @ params[f'Dense_{i}']['kernel']
        h = np.maximum((h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5), 0)
    np.testing.assert_allclose(y, h @ params['Dense_2']['kernel'] + params['Dense_2']['bias'], atol=1e-4)  # float32


@pytest.mark.parametrize(('name', 'options', 'message'), [
    ('resnet', {}, 'r3d_18'), ('r3d_18', dict(width=0), 'width'), ('r3d_18', dict(conv_impl='fast'), 'taps'),
    ('s3d', dict(last_stride=3), 'last_stride')])
def test_wrong_arguments_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        create_encoder(name, **options)


@pytest.mark.parametrize(('device', 'dtype'), [
    ({'platform': 'cpu'}, 'float32'), ({'platform': 'tpu'}, 'bfloat16'), ({'platform': 'gpu'}, 'bfloat16'),
    ({'platform': 'gpu', 'compute_capability': '7.5'}, 'float32'),  # T4
    ({'platform': 'gpu', 'compute_capability': '8.0'}, 'bfloat16'),  # A100
    ({'platform': 'gpu', 'compute_capability': '12.0'}, 'bfloat16'),
    ({'platform': 'gpu', 'compute_capability': 'gfx90a'}, 'bfloat16'),  # AMD's
])
def test_auto_is_bfloat16_where_devices_compute_in_it(device, dtype):
    device = SimpleNamespace(**device)
    assert compute_dtype(SimpleNamespace(dtype='auto'), device) == dtype
    assert compute_dtype(SimpleNamespace(dtype='float32'), device) == 'float32'
