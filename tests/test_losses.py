"""Losses against plain numpy in float64: values to 1e-10, gradients to 1e-6 of central differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vididi_jax import losses


def numpy_vicreg(z1, z2):
    n, d = z1.shape
    total = ((z1 - z2) ** 2).mean()
    for z in (z1, z2):
        total += np.maximum(0, 1 - np.sqrt(z.var(0, ddof=1) + 1e-4)).mean() / 2
        c = np.cov(z, rowvar=False).reshape(d, d)
        total += 0.04 * sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d
    return total


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def numpy_info_nce(z1, z2, t=0.1):
    n = len(z1)
    s = np.array([[cosine(a, b) / t for b in z2] for a in z1])
    one = -np.mean([s[i, i] - np.log(np.exp(s[i]).sum()) for i in range(n)])
    two = -np.mean([s[i, i] - np.log(np.exp(s[:, i]).sum()) for i in range(n)])
    return (one + two) / 2


def numpy_nt_xent(z1, z2, t=0.1):
    z, n = np.concatenate([z1, z2]), len(z1)
    total = 0
    for i in range(2 * n):
        others = [np.exp(cosine(z[i], z[j]) / t) for j in range(2 * n) if j != i]
        total -= cosine(z[i], z[(i + n) % (2 * n)]) / t - np.log(sum(others))
    return total / (2 * n)


def numpy_byol(p, t):
    return np.mean([2 - 2 * cosine(a, b) for a, b in zip(p, t, strict=True)])


PAIRS = {'vicreg': (losses.vicreg_loss, numpy_vicreg), 'info_nce': (losses.info_nce_loss, numpy_info_nce),
         'nt_xent': (losses.nt_xent_loss, numpy_nt_xent), 'byol': (losses.byol_loss, numpy_byol)}


def embeddings(case):
    rng = np.random.default_rng(0)
    z1, z2 = rng.normal(size=(2, 6, 5))
    return {'random': (z1, z2), 'identical views': (z1, z1), 'two examples': (z1[:2], z2[:2]),
            'two identical examples': (z1[[0, 0]], z2[[1, 1]]),
            'zero variance': (np.ones((6, 5)) * 0.3, np.ones((6, 5)) * -0.2),
            'a constant dimension': (z1 * [1, 1, 0, 1, 1], z2 * [1, 1, 0, 1, 1])}[case]


CASES = ('random', 'identical views', 'two examples', 'two identical examples', 'zero variance', 'a constant dimension')


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('name', PAIRS)
def test_value_and_gradient_equal_numpys(name, case):
    loss, reference = PAIRS[name]
    z1, z2 = embeddings(case)
    with jax.enable_x64(True):
        both = jax.value_and_grad(lambda a, b: loss(a, b)[0], argnums=(0, 1))
        value, gradients = both(jnp.asarray(z1), jnp.asarray(z2))
    assert abs(float(value) - reference(z1, z2)) <= 1e-10
    h = 1e-5
    for which, gradient in enumerate(map(np.asarray, gradients)):
        if name == 'byol' and which == 1:
            assert not gradient.any()  # the target is a constant
            continue
        for index in np.ndindex(*z1.shape):
            up, down = [z1.copy(), z2.copy()], [z1.copy(), z2.copy()]
            up[which][index] += h
            down[which][index] -= h
            assert abs(gradient[index] - (reference(*up) - reference(*down)) / (2 * h)) <= 1e-6, (which, index)


@pytest.mark.parametrize('name', PAIRS)
def test_zero_embeddings_have_finite_gradients(name):
    loss, _ = PAIRS[name]
    gradient = jax.grad(lambda a: loss(a, jnp.zeros((4, 3)))[0])(jnp.zeros((4, 3)))
    assert np.isfinite(np.asarray(gradient)).all()


@pytest.mark.parametrize('name', ['info_nce', 'nt_xent', 'byol'])
def test_the_length_of_embeddings_does_not_matter(name):
    """Not even of those that are a thousand times shorter than one: cosines."""
    z1, z2 = (jnp.asarray(z, jnp.float32) for z in embeddings('random'))
    loss, reference = PAIRS[name]
    value, _ = jax.jit(loss)(1e-3 * z1, 10 * z2)
    np.testing.assert_allclose(value, reference(*embeddings('random')), rtol=1e-5)  # float32


def test_each_way_of_info_nce_is_named():
    """Views of which the second are all alike: the first find their partner by chance, the second all find the first.
    """
    z1 = jnp.eye(4)
    terms = jax.jit(losses.info_nce_loss)(z1, jnp.zeros((4, 4)).at[:, 0].set(1))[1]
    assert float(terms['view1_to_view2']) == pytest.approx(np.log(4), rel=1e-6)  # float32
    assert float(terms['view2_to_view1']) == pytest.approx(7.5 + np.log(1 + 3 * np.exp(-10)), rel=1e-6)


@pytest.mark.parametrize('name', PAIRS)
@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_low_precision_is_promoted(name, dtype):
    """The loss of bf16 embeddings is that of the same numbers in float32: nothing is rounded on the way."""
    loss, _ = PAIRS[name]
    z1, z2 = (jnp.asarray(z, dtype) for z in embeddings('random'))
    value, terms = loss(z1, z2)
    assert value.dtype == jnp.float32
    assert all(term.dtype == jnp.float32 for term in terms.values())
    assert value == loss(z1.astype(jnp.float32), z2.astype(jnp.float32))[0]


def test_vicreg_weights_multiply_its_terms():
    z1, z2 = (jnp.asarray(z, jnp.float32) for z in embeddings('random'))
    loss, terms = losses.vicreg_loss(z1, z2, invariance=3.0, variance=5.0, covariance=7.0)
    expected = 3 * terms['invariance'] + 5 * terms['variance'] + 7 * terms['covariance']
    np.testing.assert_allclose(loss, expected, rtol=1e-6)  # float32


@pytest.mark.parametrize('name', PAIRS)
def test_wrong_shapes_are_refused(name):
    loss, _ = PAIRS[name]
    with pytest.raises(ValueError, match='one shape'):
        loss(jnp.zeros((4, 3)), jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match='one shape'):
        loss(jnp.zeros((2, 4, 3)), jnp.zeros((2, 4, 3)))
    if name != 'byol':
        with pytest.raises(ValueError, match='at least 2'):
            loss(jnp.zeros((1, 3)), jnp.zeros((1, 3)))


def test_no_gradient_flows_into_byols_target():
    p, t = (jnp.asarray(z, jnp.float32) for z in embeddings('random'))
    assert not np.asarray(jax.grad(lambda t: losses.byol_loss(p, t)[0])(t)).any()
    value, terms = losses.byol_loss(p, 3 * p)
    np.testing.assert_allclose([value, terms['cosine']], [0, 1], atol=1e-6)  # float32


def test_tau_rises_to_one_by_cosine():
    steps = np.arange(0, 101)
    got = np.array([losses.ema_tau(step, 100, 0.99) for step in steps])
    np.testing.assert_allclose(got, 1 - 0.01 * (np.cos(np.pi * steps / 100) + 1) / 2, atol=1e-7)  # float32
    assert got[-1] == 1
    assert abs(got[0] - 0.99) < 1e-7


def test_temperature_under_jit():
    z1, z2 = (jnp.asarray(z, jnp.float32) for z in embeddings('random'))
    cold = jax.jit(partial(losses.info_nce_loss, temperature=1.0))(z1, z2)[0]
    assert abs(float(cold) - numpy_info_nce(*embeddings('random'), t=1.0)) < 1e-5  # float32


@pytest.mark.parametrize('name', ['vicreg_loss', 'byol_loss', 'info_nce_loss', 'nt_xent_loss'])
@pytest.mark.parametrize('dtype', ['bfloat16', 'float32'])
def test_losses_serve_programs_that_allow_no_implicit_promotion(name, dtype):
    z1, z2 = jax.random.normal(jax.random.key(0), (2, 6, 4)).astype(dtype)
    loss = jax.value_and_grad(lambda z: getattr(losses, name)(z, z2)[0])
    with jax.numpy_rank_promotion('raise'), jax.numpy_dtype_promotion('strict'):
        found = loss(z1)
    jax.tree.map(np.testing.assert_array_equal, found, loss(z1))
