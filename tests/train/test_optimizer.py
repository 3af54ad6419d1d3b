"""LARS and the schedule against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from vididi_jax.errors import UserError
from vididi_jax.train.optimizer import build_optimizer, lars, layer_rates, learning_rate, sgd, step_rate


def config(**changes):
    optimizer = dict(name='lars', base_rate=4.8, momentum=0.9, weight_decay=1e-6, trust_coefficient=0.001,
                     warmup_fraction=0.0, final_fraction=0.001, clip_norm=0.0, accumulate=1,
                     predictor_rate=1.0) | changes
    return ConfigDict({'batch_size': 64, 'epochs': 10, 'optimizer': optimizer})


def numpy_lars(params, gradients, rates, wd, mu, trust):
    """Textbook loop, one parameter at a time."""
    params = {name: p.copy() for name, p in params.items()}
    momentum = {name: np.zeros_like(p) for name, p in params.items()}
    for gradient, rate in zip(gradients, rates, strict=True):
        for name, p in params.items():
            d = gradient[name].copy()
            if p.ndim > 1:
                d += wd * p
                if np.linalg.norm(p) > 0 and np.linalg.norm(d) > 0:
                    d *= trust * np.linalg.norm(p) / np.linalg.norm(d)
            momentum[name] = mu * momentum[name] + d
            p -= rate * momentum[name]
    return params


def run(optimizer, params, gradients):
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def random_problem(steps):
    rng = np.random.default_rng(0)
    params = {'kernel': rng.normal(size=(3, 4, 2)), 'bias': rng.normal(size=4), 'zero': np.zeros((2, 2))}
    gradients = [{name: rng.normal(size=p.shape) for name, p in params.items()} for _ in range(steps)]
    return params, gradients


def test_lars_equals_numpy_step_by_step():
    """With a rate that changes every step, which tells a rate inside the momentum from one outside."""
    params, gradients = random_problem(7)
    rates = 0.5 * 0.7 ** np.arange(7)
    for steps in range(1, 8):
        expected = numpy_lars(params, gradients[:steps], rates[:steps], 1e-2, 0.9, 0.1)
        with jax.enable_x64(True):
            optimizer = lars(lambda i: 0.5 * 0.7**i, weight_decay=1e-2, momentum=0.9, trust_coefficient=0.1)
            got = run(optimizer, jax.tree.map(jnp.asarray, params), gradients[:steps])
        for name, p in expected.items():
            np.testing.assert_allclose(got[name], p, rtol=1e-12, atol=1e-14)


def test_rate_is_a_cosine_from_base_times_batch_over_256():
    schedule = learning_rate(config(), total_steps=100)
    steps = np.arange(101)
    peak = 4.8 * 64 / 256
    expected = peak * (0.001 + 0.999 * (1 + np.cos(np.pi * steps / 100)) / 2)
    np.testing.assert_allclose([schedule(step) for step in steps], expected, rtol=1e-5, atol=1e-7)  # float32


def test_warm_up_is_linear_and_then_the_cosine():
    schedule = learning_rate(config(warmup_fraction=0.2), total_steps=100)
    np.testing.assert_allclose([schedule(step) for step in (0, 10, 20)], [0, 0.6, 1.2], rtol=1e-6)
    steps = np.arange(20, 101)
    expected = 1.2 * (0.001 + 0.999 * (1 + np.cos(np.pi * (steps - 20) / 80)) / 2)
    np.testing.assert_allclose([schedule(step) for step in steps], expected, rtol=1e-5, atol=1e-7)  # float32


def test_accumulation_averages_gradients_and_keeps_the_schedule_of_steps():
    params, gradients = random_problem(6)
    settings = config(accumulate=3)
    schedule = learning_rate(settings, 6)
    mean = [jax.tree.map(lambda *g: sum(g) / 3, *gradients[i : i + 3]) for i in (0, 3)]
    with jax.enable_x64(True):
        got = run(build_optimizer(settings, 6), jax.tree.map(jnp.asarray, params), gradients)
        rates = [float(schedule(0)), float(schedule(3))]
    expected = numpy_lars(params, mean, rates, 1e-6, 0.9, 0.001)
    for name, p in expected.items():
        np.testing.assert_allclose(got[name], p, rtol=1e-12)  # float64, and so is what is accumulated


def test_clipping_scales_all_gradients_to_the_bound():
    """LARS of c g / |g|, the norm over all parameters together."""
    params, gradients = random_problem(3)
    norms = [np.sqrt(sum((g**2).sum() for g in gradient.values())) for gradient in gradients]
    clipped = [{name: 0.1 * g / norm for name, g in gradient.items()}
               for gradient, norm in zip(gradients, norms, strict=True)]
    settings = config(clip_norm=0.1, weight_decay=1e-2)
    rates = [float(learning_rate(settings, 10)(step)) for step in range(3)]
    expected = numpy_lars(params, clipped, rates, 1e-2, 0.9, 0.001)
    with jax.enable_x64(True):
        got = run(build_optimizer(settings, 10), jax.tree.map(jnp.asarray, params), gradients)
    for name, p in expected.items():
        np.testing.assert_allclose(got[name], p, rtol=1e-6)  # the rates are float32


def test_clipping_leaves_small_gradients_alone():
    params, gradients = random_problem(3)
    small = [jax.tree.map(lambda g: 1e-3 * g, gradient) for gradient in gradients]
    with jax.enable_x64(True):
        start = jax.tree.map(jnp.asarray, params)
        one, two = (run(build_optimizer(config(clip_norm=norm), 10), start, small) for norm in (0.0, 1.0))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_the_bound_is_that_of_an_update_and_not_of_its_parts():
    """Two gradients far above it, whose mean is below."""
    start, large = {'bias': jnp.arange(3.0)}, {'bias': jnp.array([3.0, 4.0, 5.0])}
    gradients = [large, jax.tree.map(lambda g: 0.1 - g, large)]
    one, two = (run(build_optimizer(config(accumulate=2, clip_norm=norm), 2), start, gradients) for norm in (0, 1))
    np.testing.assert_array_equal(one['bias'], two['bias'])


def test_sgd_bounds_the_norm_of_all_gradients():
    gradient = {'encoder': {}, 'head': {'bias': jnp.array([3.0, 0.0])}, 'other': {'bias': jnp.array([0.0, 4.0])}}
    optimizer = sgd(0.1, momentum=0.9, weight_decay=0.0, clip_norm=0.5)
    got = run(optimizer, jax.tree.map(jnp.zeros_like, gradient), [gradient])
    np.testing.assert_allclose(got['head']['bias'], [-0.03, 0], rtol=1e-6)  # of length 5, in float32
    np.testing.assert_allclose(got['other']['bias'], [0, -0.04], rtol=1e-6)


def test_low_precision_parameters_keep_their_dtype():
    params, gradients = random_problem(2)
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (params, gradients))
    got = run(lars(0.5, weight_decay=1e-2, trust_coefficient=0.1), *half)
    expected = numpy_lars(params, gradients, [0.5, 0.5], 1e-2, 0.9, 0.1)
    for name, p in expected.items():
        assert got[name].dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(got[name], np.float64), p, rtol=0.05, atol=0.03)  # 8 bits of mantissa


def test_adamw_moves_every_parameter_and_decays_kernels():
    """Its first step is the rate times the gradient's sign, and the decay of what is no bias or norm."""
    params, gradients = random_problem(1)
    optimizer = build_optimizer(config(name='adamw', base_rate=0.4, weight_decay=0.5), 10)
    got = run(optimizer, jax.tree.map(jnp.asarray, params), gradients)
    for name, before in params.items():
        decay = 0.5 * before if before.ndim > 1 else 0
        np.testing.assert_allclose(got[name], before - 0.1 * (np.sign(gradients[0][name]) + decay), atol=1e-5)


@pytest.mark.parametrize('name', ['lars', 'adamw'])
def test_the_predictor_has_a_rate_of_its_own(name):
    rng = np.random.default_rng(3)
    start = {part: {'kernel': jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)} for part in ('encoder', 'predictor')}
    gradient = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), start)
    optimizers = (build_optimizer(config(name=name, predictor_rate=factor), 10) for factor in (1.0, 10.0))
    one, ten = (optimizer.update(gradient, optimizer.init(start), start)[0] for optimizer in optimizers)
    np.testing.assert_array_equal(one['encoder']['kernel'], ten['encoder']['kernel'])
    np.testing.assert_allclose(10 * one['predictor']['kernel'], ten['predictor']['kernel'], rtol=1e-6)  # float32


def test_no_gradient_is_lost_at_the_end():
    with pytest.raises(UserError, match='accumulate is 3 and the run has 100 steps: take a number that divides'):
        build_optimizer(config(accumulate=3), 100)


def test_sgd_equals_numpy_step_by_step():
    """Torch's: decay of every parameter, the rate outside the momentum, which the changing rate tells apart."""
    params, gradients = random_problem(6)
    with jax.enable_x64(True):
        optimizer = sgd(lambda i: 0.5 * 0.7**i, momentum=0.9, weight_decay=1e-2)
        got = run(optimizer, {'encoder': {}, 'head': jax.tree.map(jnp.asarray, params)},
                  [{'encoder': {}, 'head': gradient} for gradient in gradients])['head']
    momentum = {name: 0 for name in params}
    for i, gradient in enumerate(gradients):
        for name in params:
            momentum[name] = 0.9 * momentum[name] + gradient[name] + 1e-2 * params[name]
            params[name] = params[name] - 0.5 * 0.7**i * momentum[name]
    for name, p in params.items():
        np.testing.assert_allclose(got[name], p, rtol=1e-12, atol=1e-14)


def test_the_rate_falls_at_its_milestones():
    settings = ConfigDict({'batch_size': 64, 'optimizer': dict(base_rate=0.16, milestones=(2, 4), decay=0.1)})
    rates = [float(step_rate(settings, steps_per_epoch=3)(step)) for step in range(15)]
    np.testing.assert_allclose(rates, [0.08] * 6 + [0.008] * 6 + [0.0008] * 3, rtol=1e-6)  # float32


@pytest.mark.parametrize(('name', 'last'), [('r3d_18', 'stage4_block1'), ('s3d', 'mixed5c')])
def test_layers_count_from_the_stem_to_the_features(name, last):
    from vididi_jax.models import create_encoder

    encoder = create_encoder(name, width=2)
    params = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 8, 32, 32, 3)))['params']
    rates = layer_rates({'encoder': params, 'head': {'bias': 0}}, 0.5, 0.9)
    assert rates['head'] == {'bias': 1.0}
    of = {layer: set(jax.tree.leaves(tree)) for layer, tree in rates['encoder'].items()}
    assert of['stem'] == {0.5 * 0.9 ** len(params)} and of[last] == {0.5 * 0.9}
    assert len(set.union(*of.values())) == len(params)


@pytest.mark.parametrize(('encoder_rate', 'layer_decay'), [(0.0, 1.0), (0.5, 0.5)])
def test_parts_of_the_encoder_move_by_their_own_rates(encoder_rate, layer_decay):
    """After two steps each part has moved by its factor times what it moves alone; 0 leaves it as it is."""
    params, gradients = random_problem(2)
    tree = lambda x: {'encoder': {'stage1_block0': x, 'stem': x}, 'head0': x}  # noqa: E731
    with jax.enable_x64(True):
        plain, own = (jax.device_get(run(sgd(0.1, momentum=0.9, weight_decay=0.0, **options),
                                         jax.tree.map(jnp.asarray, tree(params)), [tree(g) for g in gradients]))
                      for options in ({}, dict(encoder_rate=encoder_rate, layer_decay=layer_decay)))
    factors = {'stem': encoder_rate * layer_decay**2, 'stage1_block0': encoder_rate * layer_decay}
    for name, p in params.items():
        for layer, factor in factors.items():
            moved = plain['encoder'][layer][name] - p
            np.testing.assert_allclose(own['encoder'][layer][name] - p, factor * moved, atol=1e-14)
        np.testing.assert_array_equal(own['head0'][name], plain['head0'][name])
