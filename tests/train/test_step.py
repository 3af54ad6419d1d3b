"""The training step: its loss, BYOL's target, statistics of both views, clip lengths, what is not finite."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from configs import motion_byol, motion_vicreg
from tests.compiled import plain
from vididi_jax import losses
from vididi_jax.errors import UserError
from vididi_jax.losses import ema_tau
from vididi_jax.models.heads import MLP
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.train.mesh import first_device, make_mesh, platform
from vididi_jax.train.optimizer import build_optimizer, learning_rate
from vididi_jax.train.state import Networks, TrainState, build_networks, init_state, with_encoder
from vididi_jax.train.step import (
    check_framework,
    differentiate_views,
    frames_to_read,
    make_train_step,
    make_update,
    view_frames,
)
from vididi_jax.train.update import keep_if_finite

STEPS = 4
ORDERS = np.array([0, 1], np.int32)


def run_byol(accumulate=1):
    """A config, its states before and after each of three steps, and their metrics."""
    config = motion_byol.get_config('smoke')
    config.optimizer.accumulate = accumulate
    config.model.width, config.augment.size, config.clip.length = 2, 8, 'constant'
    networks = build_networks(config, jax.devices()[0])._replace(encoder=Flat())
    optimizer = build_optimizer(config, STEPS)
    state = init_state(networks, optimizer, jax.random.key(0), (8, 8, 8))
    step = make_train_step(networks, optimizer, learning_rate(config, STEPS), config, STEPS, make_mesh())
    rng = np.random.default_rng(0)
    batch = {'clips': jnp.asarray(rng.integers(0, 256, (8, 2, 10, 8, 8, 3)), jnp.uint8),
             'size': jnp.full((8, 2), 8, jnp.int32)}
    states, metrics = [jax.device_get(state)], []
    for i, orders in enumerate([(0, 1), (2, 2), (0, 0)]):
        state, found = step(state, batch, jax.random.key(i), orders)
        states.append(jax.device_get(state))
        metrics.append(jax.device_get(found))
    return config, states, metrics


@pytest.fixture(scope='module')
def byol():
    return run_byol()


def test_byols_target_is_the_moving_average_of_the_online_network(byol):
    config, states, _ = byol
    expected = states[0].target['params']
    assert sorted(expected) == ['encoder', 'projector']
    for i, state in enumerate(states[1:]):
        tau = ema_tau(i, STEPS, config.framework.ema_base)
        expected = jax.tree.map(lambda t, o, tau=tau: tau * t + (1 - tau) * o, expected,
                                {name: state.params[name] for name in expected})
        for got, wanted in zip(jax.tree.leaves(state.target['params']), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)  # float32


def test_every_part_of_byol_learns_and_its_statistics_move(byol):
    _, states, metrics = byol
    first, last = ((state.params, state.batch_stats, state.target['batch_stats']) for state in (states[0], states[-1]))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), first, last)
    still = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(moved) if not leaf]
    assert not still
    assert {'view1_to_view2', 'view2_to_view1'} <= set(metrics[0])
    for found in metrics:
        np.testing.assert_allclose(found['loss'], found['view1_to_view2'] + found['view2_to_view1'], rtol=1e-6)


def test_the_target_starts_as_a_copy_and_goes_its_own_way(byol):
    _, states, _ = byol
    online = {name: states[0].params[name] for name in states[0].target['params']}
    jax.tree.map(np.testing.assert_array_equal, states[0].target['params'], online)
    kernel = states[-1].target['params']['projector']['Dense_0']['kernel']
    assert (kernel != states[-1].params['projector']['Dense_0']['kernel']).any()


def test_the_target_stands_still_while_gradients_are_accumulated():
    config, states, metrics = run_byol(accumulate=2)
    moved = [any((a != b).any() for a, b in zip(jax.tree.leaves(before.target['params']),
                                               jax.tree.leaves(after.target['params']), strict=True))
             for before, after in zip(states, states[1:], strict=False)]
    assert moved == [False, True, False]
    rate = learning_rate(config, STEPS)  # that is logged which an update has, whose gradients are of two steps
    np.testing.assert_allclose([found['learning_rate'] for found in metrics], [rate(0), rate(0), rate(2)], rtol=1e-6)


def test_frames_of_views_and_of_what_is_read():
    assert [view_frames(8, orders, 'shrink') for orders in ((0, 0), (0, 1), (2, 2))] == [8, 7, 6]
    assert [view_frames(8, orders, 'constant') for orders in ((0, 0), (0, 1), (2, 2))] == [8, 8, 8]
    assert frames_to_read(8, 2, 'shrink') == 8 and frames_to_read(8, 2, 'constant') == 10


@pytest.mark.parametrize('length', ['shrink', 'constant'])
def test_views_have_the_frames_that_are_promised(length):
    clips = np.random.default_rng(0).normal(size=(2, 2, frames_to_read(8, 2, length), 2, 2, 3)).astype(np.float32)
    for orders in ((0, 0), (0, 1), (2, 1), (2, 2)):
        frames = 8 if length == 'constant' else 8 - max(orders)
        views = differentiate_views(*clips, orders=orders, frames=view_frames(8, orders, length))
        for clip, order, view in zip(clips, orders, views, strict=True):
            assert view.shape == (2, frames, 2, 2, 3)
            np.testing.assert_array_equal(view, np.diff(clip, n=order, axis=1)[:, :frames])


class Flat(nn.Module):
    """An encoder that compiles at once."""

    feature_dim: int = 6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, clips, *, train=False, views=1):
        return MLP((8, self.feature_dim))(clips.reshape(len(clips), -1), train=train, views=views)


def test_a_step_learns_from_the_derivatives_of_its_orders():
    """Of frames that are augmented by its key first, in plain numpy; and it counts the orders."""
    config = motion_vicreg.get_config('smoke')
    config.augment.size, config.clip.length = 8, 'constant'
    networks, optimizer = Networks(Flat(), MLP((8, 5)), None), build_optimizer(config, STEPS)
    step, update = (make(networks, optimizer, learning_rate(config, STEPS), config, STEPS, make_mesh())
                    for make in (make_train_step, make_update))
    fresh = init_state(networks, optimizer, jax.random.key(0), (8, 8, 8), orders=3)
    clips = np.random.default_rng(0).integers(0, 256, (8, 2, 10, 8, 8, 3)).astype(np.uint8)
    sizes, key, spec = np.full((8, 2), 8, np.int32), jax.random.key(1), Augmentation(**config.augment)
    frames = [plain.augment(jax.random.fold_in(key, view), clips[:, view], sizes, spec) for view in (0, 1)]
    for orders in ((0, 1), (2, 1), (0, 0)):
        state, found = step(jax.tree.map(jnp.copy, fresh), {'clips': clips, 'size': sizes}, key, orders)
        views = tuple(np.diff(x, n=order, axis=1)[:, :8].astype(np.float32)
                      for x, order in zip(frames, orders, strict=True))
        _, wanted = update(jax.tree.map(jnp.copy, fresh), views, np.array(orders, np.int32))
        np.testing.assert_allclose(found['loss'], wanted['loss'], rtol=1e-4)  # float32, of pixels too
        np.testing.assert_array_equal(state.by_order.seen, np.bincount(orders, minlength=3))


def test_an_encoder_that_a_run_starts_from_gets_the_runs_precision():
    """Else a float32 one would be trained in a float64 run, and its checkpoints would not be what is restored."""
    _, _, state, _ = small_step('byol')
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), (state.params, state.target))
    encoder = {'params': jax.tree.map(lambda leaf: leaf + 1, state.params['encoder'])}
    state = state.replace(params=low[0], target=low[1])
    found = with_encoder(state, encoder)
    assert {leaf.dtype for leaf in jax.tree.leaves((found.params, found.target))} == {jnp.dtype(jnp.float16)}
    for params in (found.params, found.target['params']):  # of BYOL's target, too
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.float16(b)), params['encoder'], encoder['params'])


@pytest.mark.parametrize(('changes', 'message'), [
    ({'scope': 'per_device'}, "'per_device', and BYOL's loss has no statistics"), ({'predictor': ()}, 'must end with'),
    ({'predictor': (16, 8)}, 'must end with the size of the projector'),
    ({'loss_options': {'temperature': 0.1}}, 'which byol does not take: it takes none')])
def test_what_does_not_fit_byol_is_refused(changes, message):
    framework = motion_byol.get_config('smoke').framework
    check_framework(framework)
    with framework.ignore_type():
        framework.update(changes)
    with pytest.raises(UserError, match=message):
        check_framework(framework)


@pytest.mark.parametrize(('field', 'name'), [('opt_state', 'optimizer_state'), ('target', 'target')])
def test_what_no_output_shows_yet_must_be_finite_too(field, name):
    """As a second moment of Adam's that overflows: its updates are zero from there on, and finite."""
    old = TrainState(*(jnp.zeros(()) for _ in range(5)))
    new = jax.tree.map(lambda leaf: leaf + 1, old).replace(**{field: jnp.array(jnp.inf)})
    metrics = {'loss': jnp.ones(()), 'finite_gradients': jnp.array(True)}
    state, found = jax.jit(keep_if_finite)(new, metrics, old, np.True_)
    assert not found['finite'] and [part for part in found if part.startswith('finite_') and not found[part]] == [
        f'finite_{name}']
    jax.tree.map(np.testing.assert_array_equal, state, old)


def small_step(loss, scope='global', base_rate=4.8, videos=8, mesh=None, orders=0, **options):
    """Networks, `update`, a fresh state and two views, for `Flat` and a loss."""
    config = motion_vicreg.get_config('smoke')
    config.framework.update({'loss': loss, 'scope': scope})
    config.framework.loss_options, config.optimizer.base_rate = options, base_rate
    config.optimizer.warmup_fraction = 0.0
    networks = Networks(Flat(), MLP((8, 5)), MLP((8, 5)) if loss == 'byol' else None)
    optimizer = build_optimizer(config, STEPS)
    state = init_state(networks, optimizer, jax.random.key(0), (2, 2, 2), orders)
    views = np.random.default_rng(0).normal(size=(2, videos, 2, 2, 2, 3)).astype(np.float32)
    update = make_update(networks, optimizer, learning_rate(config, STEPS), config, STEPS, mesh or make_mesh())
    return networks, update, state, views


@pytest.mark.parametrize(('loss', 'scope', 'function', 'options'), [
    ('info_nce', 'global', losses.info_nce_loss, {'temperature': 0.2}),
    ('nt_xent', 'global', losses.nt_xent_loss, {'temperature': 0.2}),
    ('vicreg', 'per_device', losses.vicreg_loss, {'variance': 2.0})])
def test_a_step_minimises_the_loss_that_it_names(loss, scope, function, options):
    """Of embeddings in training mode, each view normalised by its own statistics; and it falls."""
    networks, update, state, views = small_step(loss, scope, base_rate=0.5, **options)
    variables = {name: {'params': state.params[name], 'batch_stats': state.batch_stats[name]} for name in state.params}
    z = []
    for view in views:
        features, _ = networks.encoder.apply(variables['encoder'], view, train=True, mutable=['batch_stats'])
        z.append(networks.projector.apply(variables['projector'], features, train=True, mutable=['batch_stats'])[0])
    found = []
    for _ in range(3):
        state, metrics = update(state, tuple(views), ORDERS)
        found.append(float(metrics['loss']))
    np.testing.assert_allclose(found[0], function(*z, **options)[0], rtol=1e-5)  # float32
    assert found[2] < found[0]


def test_byol_predicts_the_targets_embedding_of_the_other_view():
    """Each prediction is held against the other view's target; of a fresh state that is the online embedding."""
    networks, update, state, views = small_step('byol', base_rate=0.5)
    variables = {name: {'params': state.params[name], 'batch_stats': state.batch_stats[name]} for name in state.params}

    def forward(name, module, x):
        return module.apply(variables[name], x, train=True, mutable=['batch_stats'])[0]

    targets = [forward('projector', networks.projector, forward('encoder', networks.encoder, view)) for view in views]
    predictions = [forward('predictor', networks.predictor, z) for z in targets]
    one, two = (float(losses.byol_loss(predictions[i], targets[1 - i])[0]) for i in (0, 1))
    assert abs(one - float(losses.byol_loss(predictions[0], targets[0])[0])) > 0.01  # or this says nothing
    _, metrics = update(state, tuple(views), ORDERS)
    found = [float(metrics[name]) for name in ('view1_to_view2', 'view2_to_view1', 'loss')]
    np.testing.assert_allclose(found, [one, two, one + two], rtol=1e-5)  # float32


class Chip:
    """A device that this machine does not have."""

    platform, device_kind, process_index = 'tpu', 'TPU v5 lite', 0

    def __init__(self, number: int):
        self.id = number


def test_programs_are_for_the_devices_of_the_mesh_and_not_for_this_machine():
    """Eight chips, seen from a CPU: bfloat16, 3-D convolutions, losses of all or of two videos. Not compiled."""
    mesh = Mesh(np.array(list(map(Chip, range(8)))), ('data',))

    encoder = build_networks(motion_vicreg.get_config('smoke'), first_device(mesh)).encoder
    clips = jax.ShapeDtypeStruct((16, 8, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(encoder.init, jax.random.key(0), clips)
    traced = jax.jit(partial(encoder.apply, train=False)).trace(variables, clips)
    program = traced.lower(lowering_platforms=(platform(mesh),)).as_text()
    convolutions = re.findall(r'stablehlo.convolution.* -> tensor<(.*)>', program)
    assert len(convolutions) == 20 and all(re.fullmatch(r'16(x\d+){4}xbf16', result) for result in convolutions)
    for scope, seen in (('global', 16), ('per_device', 2)):
        _, update, state, views = small_step('vicreg', scope, videos=16, mesh=mesh)
        program = str(update.trace(state, tuple(views), ORDERS).jaxpr)
        assert [f'f32[2,{videos},5]' in program for videos in (2, 16)] == [True, seen == 16]  # view, video, channel


@pytest.mark.parametrize(('spoil', 'parts'), [
    (lambda state, views: (state, views.at[0, 0].set(jnp.nan)), 'loss'),
    (lambda state, views: (state.replace(batch_stats=jax.tree.map(lambda x: x.at[0].set(jnp.inf), state.batch_stats)),
                           views), 'statistics'),
    (lambda state, views: (state.replace(opt_state=jax.tree.map(
        lambda x: jnp.full_like(x, 3e38) if x.ndim else x, state.opt_state)), views), 'parameters'),  # the momentum
], ids=['loss', 'statistics', 'parameters'])
def test_whatever_is_not_finite_is_named_and_keeps_the_state(spoil, parts):
    """A finite loss with finite gradients included: running statistics, and parameters that the update spoils."""
    _, update, state, intact = small_step('vicreg', base_rate=1e6)
    state, views = spoil(state, jnp.asarray(intact))
    start = jax.device_get(state)
    state, metrics = update(state, tuple(views), ORDERS)
    assert not metrics['finite']
    assert {name for name, value in metrics.items() if name.startswith('finite_') and not value} == {
        f'finite_{name}' for name in parts.split()}
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), start)
    # Launched before that was known:
    state, metrics = update(state, tuple(intact), ORDERS, previous_finite=metrics['finite'])
    assert not metrics['finite'] and np.isfinite(metrics['loss'])
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), start)
