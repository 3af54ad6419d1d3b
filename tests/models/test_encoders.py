"""Encoders: sizes, batch normalisation as PyTorch defines it, and what a caller relies on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vididi_jax.errors import UserError
from vididi_jax.models import create_encoder
from vididi_jax.models.heads import MLP
from vididi_jax.models.norm import BatchNorm

PARAMETERS = {'r3d_18': 33_166_272, 'r2plus1d_18': 31_300_125, 'mc3_18': 11_490_240}  # torchvision's, without head


@pytest.mark.parametrize('name', PARAMETERS)
def test_number_of_parameters_is_torchvisions(name):
    encoder = create_encoder(name)
    variables = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 8, 32, 32, 3)))
    assert sum(p.size for p in jax.tree.leaves(variables['params'])) == PARAMETERS[name]
    assert encoder.feature_dim == 512


@pytest.mark.parametrize('name', PARAMETERS)
def test_shapes_and_modes(name):
    encoder = create_encoder(name, width=4)
    clips = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 24, 32, 3)), jnp.float32)
    variables = jax.jit(encoder.init)(jax.random.key(0), clips)
    apply = jax.jit(encoder.apply, static_argnames=('train', 'method', 'mutable'))
    features = apply(variables, clips, train=False)
    assert features.shape == (2, encoder.feature_dim) == (2, 32)
    maps = apply(variables, clips, train=False, method='feature_map')
    assert maps.shape == (2, 7 if name == 'mc3_18' else 1, 2, 2, 32)
    np.testing.assert_allclose(maps.mean((1, 2, 3)), features, atol=1e-6)
    _, updated = apply(variables, clips, train=True, mutable=('batch_stats',))
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), updated['batch_stats'], variables['batch_stats'])
    assert all(jax.tree.leaves(moved))


def test_formulations_and_remat_give_the_same_features_and_gradients():
    clips = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 16, 16, 3)), jnp.float32)
    results = []
    for options in (dict(conv_impl='taps'), dict(conv_impl='xla'), dict(conv_impl='taps', remat=True)):
        encoder = create_encoder('r3d_18', width=4, **options)
        variables = jax.jit(encoder.init)(jax.random.key(0), clips)

        def loss(params, encoder=encoder, variables=variables):
            out, _ = encoder.apply({**variables, 'params': params}, clips, train=True, mutable=['batch_stats'])
            return (out**2).sum()

        results.append(jax.jit(jax.value_and_grad(loss))(variables['params']))
    for value, gradient in results[1:]:
        np.testing.assert_allclose(value, results[0][0], rtol=1e-4)
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(results[0][1]), strict=True):
            # float32 through 18 layers of batch statistics
            np.testing.assert_allclose(a, b, atol=2e-3 * max(float(jnp.abs(b).max()), 1e-3))


def test_bfloat16_computes_low_and_keeps_parameters_high():
    encoder = create_encoder('r3d_18', width=4, dtype=jnp.bfloat16)
    clips = jnp.zeros((2, 8, 16, 16, 3))
    variables = jax.jit(encoder.init)(jax.random.key(0), clips)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert jax.eval_shape(encoder.apply, variables, clips).dtype == jnp.bfloat16


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
    ('resnet', {}, 'r3d_18'), ('r3d_18', dict(width=0), 'width'), ('r3d_18', dict(conv_impl='fast'), 'taps')])
def test_wrong_arguments_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        create_encoder(name, **options)
