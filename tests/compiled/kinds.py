"""The kinds of programs: what a run calls, on which inputs, and what must come out, in float64.

Pixels are held against the plain numpy of `tests.compiled.plain`, networks and updates against the same functions one
operation at a time in float64: nothing is compiled together there, and nothing is split.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import plain
from tests.compiled.inputs import clips_of, encoder_of, filled, mesh_of, pixels_of
from tests.compiled.programs import SIDE
from vididi_jax.compilation import compiler_options
from vididi_jax.config import from_dict
from vididi_jax.detection import model as detector
from vididi_jax.detection import task as detection
from vididi_jax.evaluate import finetune, views
from vididi_jax.evaluate.features import FeatureFunction
from vididi_jax.models.classifier import Classifier
from vididi_jax.models.conv3d import conv3d
from vididi_jax.models.heads import MLP
from vididi_jax.pixels import augment as pixels
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.pixels.boxes import augment_with_boxes
from vididi_jax.train import health, step
from vididi_jax.train.optimizer import build_optimizer, learning_rate, sgd, step_rate
from vididi_jax.train.state import Networks, TrainState, init_state
from vididi_jax.train.step import pair_loss
from vididi_jax.train.update import compile_update

BATCH, CLASSES, BOXES, STEPS, EIGHT = 16, 3, 3, 4, 8
# Pixels: float32 of values up to 4, of which a resize is exact to 1e-5 and colours multiply that a few times.
PIXELS = 1e-4
# Networks, as a share of the largest entry of each array: forward, sums of some thousand entries in float32. An update
# divides by the norms of gradients, and an activation within rounding of ReLU's corner may pass its gradient or not.
FORWARD, UPDATE = 2e-5, 1e-3


def outcome(update, state, *arguments) -> dict:
    """What an update gives, and by how much it moves each parameter: too little to be seen beside the parameter."""
    before = jax.tree.map(jnp.copy, state.params)  # the state is donated
    state, metrics = update(state, *arguments)
    return {'state': state, 'metrics': metrics, 'moves': jax.tree.map(jnp.subtract, state.params, before)}


class Case(NamedTuple):
    """What a program is run on, and what of.

    Attributes:
      run: `(state, batch, dtype) -> tree`; as a run calls it.
      state: numpy tree that is replicated.
      batch: numpy arrays that are split along their first axis.
      want: `(state, batch) -> tree` in float64, or None: `run` itself, one operation at a time.
      tolerance: of each entry, absolute for pixels and a share of the array's largest entry for networks.
    """

    run: Callable
    state: Any
    batch: dict[str, np.ndarray]
    want: Callable | None = None
    tolerance: float = PIXELS


KEY = 3


def augment_views(whole, augment, frames):
    spec = Augmentation(**augment)

    def run(_, batch, dtype):
        return step.augment_views(jax.random.key(KEY), batch['clips'], batch['size'], spec=spec, dtype=dtype)

    def want(_, batch):
        keys = [jax.random.fold_in(jax.random.key(KEY), view) for view in (0, 1)]
        return tuple(plain.augment(key, batch['clips'][:, view], batch['size'], spec) for view, key in enumerate(keys))

    return Case(run, None, pixels_of(spec, 2, frames), want)


def augment_clips(whole, augment, frames):
    spec = Augmentation(**augment)
    return Case(
        lambda _, batch, dtype: pixels.augment(jax.random.key(KEY), batch['clips'], batch['size'], spec, dtype),
        None, pixels_of(spec, frames),
        lambda _, batch: plain.augment(jax.random.key(KEY), batch['clips'], batch['size'], spec))


def with_boxes(whole, augment, frames):
    spec = Augmentation(**augment)
    rng = np.random.default_rng(2)
    batch = pixels_of(spec, frames)
    corners = np.sort(rng.uniform(0, 1, (8, BOXES, 2, 2)), 2).reshape(8, BOXES, 4)
    # Boxes whose centre is on the border of what is seen, as boxes of few digits often have it.
    for i, (size, clip) in enumerate(zip(batch['size'], batch['clips'], strict=True)):
        (top, left, height, width), _ = window(i, size, len(clip), spec)
        corners[i, 0] = (left / size[1] - 0.1, (top + height / 2) / size[0] - 0.07,
                         left / size[1] + 0.1, (top + height / 2) / size[0] + 0.07)
    batch |= {'boxes': corners.astype(np.float32), 'mask': rng.uniform(size=(8, BOXES)) < 0.8}

    def run(_, batch, dtype):
        return augment_with_boxes(jax.random.key(KEY), *(batch[name] for name in ('clips', 'size', 'boxes', 'mask')),
                                  spec)

    def want(_, batch):
        moved, there = [], []
        for i, (size, boxes) in enumerate(zip(batch['size'], batch['boxes'], strict=True)):
            (top, left, height, width), flip = window(i, size, frames, spec)
            twice = (boxes[:, :2] + boxes[:, 2:]) * size[::-1].astype(np.float32)
            first, extent = 2 * np.array([left, top]), 2 * np.array([width, height])
            there.append(((twice >= first) & (twice <= first + extent)).all(1))
            corners = boxes.astype(float) * np.tile(size[::-1], 2)
            x1, y1, x2, y2 = ((corners - [left, top] * 2) / ([width, height] * 2)).T
            moved.append(np.clip(np.stack([1 - x2, y1, 1 - x1, y2] if flip else [x1, y1, x2, y2], -1), 0, 1))
        return (plain.augment(jax.random.key(KEY), batch['clips'], batch['size'], spec), np.stack(moved),
                batch['mask'] & np.stack(there))

    return Case(run, None, batch, want)


def window(i, size, frames, spec):
    """Box and flip of clip i."""
    key, crop_key, _ = jax.random.split(jax.random.fold_in(jax.random.key(KEY), i), 3)
    box = (0, 0, *size) if spec.crop == 'none' else plain.random_box(crop_key, *map(int, size), spec)
    return tuple(map(int, box)), plain.numbers(key, 9)[0] < np.float32(spec.flip)


def differentiate(whole, orders, read, frames):
    first, second = np.random.default_rng(0).normal(size=(2, 8, read, 5, 5, 3)).astype(np.float32)
    return Case(
        lambda _, batch, dtype: step.differentiate_views(batch['first'], batch['second'], orders=tuple(orders),
                                                         frames=frames),
        None, {'first': first, 'second': second},
        lambda _, batch: tuple(np.diff(batch[name].astype(float), n=order, axis=1)[:, :frames]
                               for name, order in zip(('first', 'second'), orders, strict=True)), 2e-6)


def pair_loss_of_eight(framework):
    """What one device shall find where the losses of eight devices are meant."""
    loss = pair_loss(framework)

    def mean_of_parts(z):
        found = [loss(part) for part in jnp.moveaxis(z.reshape(2, EIGHT, -1, z.shape[-1]), 1, 0)]
        return jax.tree.map(lambda *values: sum(values) / EIGHT, *found)

    return mean_of_parts if framework.scope == 'per_device' else loss


def update(whole, model, framework, optimizer, statistics, frames):
    config = from_dict({'model': model, 'framework': framework, 'optimizer': optimizer, 'batch_size': BATCH,
                        'schedule': 'vididi'})
    orders = 3 if statistics == 'by_order' else 0
    rates = build_optimizer(config, STEPS), learning_rate(config, STEPS)

    def networks(dtype):
        head = lambda widths: MLP(tuple(widths), dtype=dtype)  # noqa: E731
        byol = framework['loss'] == 'byol'
        return Networks(encoder_of(model, dtype, whole), head(framework['projector']),
                        head(framework['predictor']) if byol else None)

    def run(state, batch, dtype):
        mesh = mesh_of(batch)
        with mock.patch.object(step, 'pair_loss', pair_loss if mesh.size > 1 else pair_loss_of_eight):
            update = step.make_update(networks(dtype), *rates, config, STEPS, mesh)
            return outcome(update, state, (batch['first'], batch['second']), np.array([1, 2], np.int32))

    shapes = jax.eval_shape(lambda key: init_state(
        networks(jnp.float32), rates[0], key, (frames, SIDE, SIDE), orders), jax.random.key(0))
    first, second = np.random.default_rng(0).normal(size=(2, BATCH, frames, SIDE, SIDE, 3)).astype(np.float32)
    return Case(run, filled(shapes), {'first': first, 'second': second}, tolerance=UPDATE)


def centres(batch, spec):
    """Plain centre crops of both clips of each video, (2 B, T, size, size, 3)."""
    clips = batch['clips'].reshape(-1, *batch['clips'].shape[2:])
    return plain.evaluation_crops(None, clips, np.repeat(batch['size'], 2, 0), spec, 'centre')[:, 0]


def embed(whole, augment, model, projector, max_order):
    spec = Augmentation(**augment)

    def networks(dtype):
        return Networks(encoder_of(model, dtype, whole), MLP(tuple(projector), dtype=dtype), None)

    def run(variables, batch, dtype):
        found = partial(health._embed, networks=networks(dtype), spec=spec, max_order=max_order)
        return jax.jit(found, compiler_options=compiler_options(jax.default_backend()))(variables, batch)

    def init(key):
        made = networks(jnp.float32)
        features = jnp.zeros((2, made.encoder.feature_dim))
        return {'encoder': made.encoder.init(key, jnp.zeros((2, 4, SIDE, SIDE, 3))),
                'projector': made.projector.init(key, features)}

    batch = {'clips': clips_of(8, 2, 4, 24, 31), 'label': np.arange(8, dtype=np.int32),
             'size': np.random.default_rng(1).integers(16, 25, (8, 2)).astype(np.int32)}

    def want(variables, batch):
        seen, made = centres(batch, spec), networks(jnp.float64)
        stack = [np.diff(seen, n=order, axis=1)[:, :4 - max_order] for order in range(max_order + 1)]
        features = made.encoder.apply(variables['encoder'], jnp.asarray(np.concatenate(stack)), train=False)
        z = made.projector.apply(variables['projector'], features, train=False)
        return *(x.reshape(len(stack), 8, 2, -1) for x in (features, z)), batch['label']

    return Case(run, filled(jax.eval_shape(init, jax.random.key(0))), batch, want, FORWARD)


def look(whole, augment, model):
    """Shares of saliency, gradient x input of what tells clips apart, on pixels that change by a tenth of their range.

    They are not resampled, as shorter sides have 20 pixels: changes are whole grays, none of which is near a tenth.
    """
    spec = Augmentation(**{**augment, 'size': 20, 'centre_fraction': 1.0})

    def run(variables, batch, dtype):
        found = partial(health._look, networks=Networks(encoder_of(model, dtype, whole), None, None), spec=spec)
        return jax.jit(found, compiler_options=compiler_options(jax.default_backend()))(variables, batch)

    def init(key):
        return encoder_of(model, jnp.float32, whole).init(key, jnp.zeros((2, 4, SIDE, SIDE, 3)))

    longer = np.random.default_rng(1).integers(20, 25, 8)
    sizes = np.where(np.arange(8)[:, None] % 2, [[20, side] for side in longer], [[side, 20] for side in longer])
    batch = {'clips': clips_of(8, 2, 4, 24, 31), 'size': sizes.astype(np.int32)}

    def want(variables, batch):
        x = centres(batch, spec)
        features, back = jax.vjp(partial(encoder_of(model, jnp.float64, whole).apply, variables), jnp.asarray(x))
        seen = np.abs((x * back(features - features.mean(0))[0]).sum(-1))
        changes = (np.abs(np.diff(x * np.array(spec.std), axis=1)) > 0.1).any(-1)
        where = np.zeros(seen.shape, bool)
        where[:, 1:] |= changes
        where[:, :-1] |= changes
        return (seen * where).sum((1, 2, 3)) / seen.sum((1, 2, 3)), where.mean((1, 2, 3))

    return Case(run, filled(jax.eval_shape(init, jax.random.key(0))), batch, want, FORWARD)


def over_views(function, variables, views_, augment):
    """A function of clips through `views._outputs`, against plain crops."""
    spec = Augmentation(**augment)
    looks = views.Views(views_['clips'], views_['frames'], 1, views_['crops'], 5)
    batch = {'clips': clips_of(8, looks.clips, looks.frames, 24, 31), 'record': np.arange(10, 18, dtype=np.int32),
             'size': np.random.default_rng(1).integers(16, 25, (8, 2)).astype(np.int32)}

    def run(variables, batch, dtype):
        return views._outputs(function(dtype), variables, batch, augment=spec, views=looks, dtype=dtype)

    def want(variables, batch):
        seed = jax.random.key(looks.seed)
        keys = [jax.random.fold_in(jax.random.fold_in(seed, record), clip)
                for record in batch['record'] for clip in range(looks.clips)]
        clips = batch['clips'].reshape(-1, *batch['clips'].shape[2:])
        seen = plain.evaluation_crops(keys, clips, np.repeat(batch['size'], looks.clips, 0), spec, looks.crops)
        found = function(jnp.float64)(variables, jnp.asarray(seen.reshape(-1, *seen.shape[2:])))
        return {order: value.reshape(8, -1, value.shape[-1]) for order, value in found.items()}

    return Case(run, variables, batch, want, FORWARD)


def features(whole, views, orders, model, augment):
    build = partial(encoder_of, model, whole=whole)
    shapes = jax.eval_shape(build(jnp.float32).init, jax.random.key(0), jnp.zeros((1, 4, SIDE, SIDE, 3)))
    return over_views(lambda dtype: FeatureFunction(build(dtype), tuple(orders)), filled(shapes), views, augment)


def classifier(whole, model, recipe, dtype, kind=Classifier, **options):
    encoder = encoder_of(model, dtype, whole, **({} if kind is Classifier else {'last_stride': 1}))
    return kind(encoder, tuple(recipe['orders']), CLASSES, recipe.get('dropout', 0.0),
                recipe.get('encoder_rate', 1.0) == 0, **options)


def variables_of(model):
    return filled(jax.eval_shape(partial(model.init, clip_shape=(4, SIDE, SIDE)), jax.random.key(0)))


def classify(whole, views, orders, model, augment):
    build = partial(classifier, whole, model, {'orders': orders})
    return over_views(build, variables_of(build(jnp.float32)), views, augment)


def supervised_update(module, build, batch, names, recipe, optimizer):
    """The update of a supervised step; its augmentation is a program of its own."""
    config = from_dict({'optimizer': optimizer, 'batch_size': 8})
    rate = step_rate(config, 2)
    transform = sgd(rate, **{name: optimizer[name] for name in ('momentum', 'weight_decay', 'clip_norm')},
                    **{name: recipe[name] for name in ('encoder_rate', 'layer_decay')})
    variables = variables_of(build(jnp.float32))
    opt_state = filled(jax.eval_shape(transform.init, variables['params']))
    state = TrainState(np.ones((), np.int32), **variables, opt_state=opt_state)

    def run(state, batch, dtype):
        update = update_of(module, build(dtype), transform, rate, mesh=mesh_of(batch))
        return outcome(update, state, tuple(batch[name] for name in names), jax.random.key(KEY))

    return Case(run, state, batch, tolerance=UPDATE)


def update_of(module, *arguments, mesh):
    """The update that `module.make_step` builds, without the augmentation before it."""
    built = []
    with mock.patch.object(module, 'compile_update', lambda *given: built.append(compile_update(*given))):
        module.make_step(*arguments, None, mesh)
    return built[0]


def finetune_update(whole, model, recipe, optimizer, frames):
    rng = np.random.default_rng(0)
    batch = {'pixels': rng.normal(size=(8, frames, SIDE, SIDE, 3)).astype(np.float32),
             'label': rng.integers(0, CLASSES, 8).astype(np.int32)}
    return supervised_update(finetune, partial(classifier, whole, model, recipe), batch, ('pixels', 'label'), recipe,
                             optimizer)


def regions(recipe):
    return {name: recipe[name] for name in ('roi_size', 'sampling_ratio')}


def boxes_of(rng):
    return np.sort(rng.uniform(0, 1, (8, BOXES, 2, 2)), 2).reshape(8, BOXES, 4).astype(np.float32)


def detection_update(whole, model, recipe, optimizer, frames):
    rng = np.random.default_rng(0)
    batch = {'pixels': rng.normal(size=(8, frames, SIDE, SIDE, 3)).astype(np.float32), 'boxes': boxes_of(rng),
             'labels': rng.uniform(size=(8, BOXES, CLASSES)) < 0.4, 'mask': rng.uniform(size=(8, BOXES)) < 0.7}
    build = partial(classifier, whole, model, recipe, kind=detector.Detector, **regions(recipe))
    return supervised_update(detector, build, batch, ('pixels', 'boxes', 'labels', 'mask'), recipe, optimizer)


def detect(whole, model, orders, roi_size, sampling_ratio, augment, frames):
    spec = Augmentation(**augment)
    build = partial(classifier, whole, model, {'orders': orders}, kind=detector.Detector, roi_size=roi_size,
                    sampling_ratio=sampling_ratio)
    sizes = np.random.default_rng(1).integers(12, 25, (8, 2)).astype(np.int32)
    batch = {'clips': clips_of(8, 1, frames, 24, 31), 'size': sizes, 'boxes': boxes_of(np.random.default_rng(2))}

    def want(variables, batch):
        seen = plain.whole_frames(batch['clips'][:, 0], batch['size'], batch['boxes'], spec)
        return build(jnp.float64)(variables, *map(jnp.asarray, seen))

    return Case(lambda variables, batch, dtype: detection._probabilities(build(dtype), variables, batch, spec),
                variables_of(build(jnp.float32)), batch, want, FORWARD)


def convolve(whole, conv_impl):
    """A layer of so many channels and pixels as the small encoder has none: on CPUs by Winograd's filtering."""
    del whole
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(1, 3, 3, 32, 32)).astype(np.float32)
    batch = {name: rng.normal(size=(8, 2, 16, 16, 32)).astype(np.float32) for name in ('clips', 'cotangent')}

    def gradients(kernel, batch, impl):
        out, back = jax.vjp(lambda kernel, x: conv3d(x, kernel, (1, 1, 1), (0, 1, 1), impl), kernel, batch['clips'])
        return out, *back(batch['cotangent'])

    compiled = jax.jit(gradients, static_argnames='impl')
    return Case(lambda kernel, batch, dtype: compiled(kernel, batch, conv_impl), kernel, batch,
                lambda kernel, batch: gradients(kernel, wide(batch), 'xla'), FORWARD)


def wide(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(value, jnp.float64) for name, value in batch.items()}


KINDS = {
    'augment_views': augment_views, 'augment': augment_clips, 'augment_with_boxes': with_boxes,
    'differentiate_views': differentiate, 'update': update, 'embed': embed, 'look': look, 'features': features,
    'classify': classify, 'finetune_update': finetune_update, 'detection_update': detection_update, 'detect': detect,
    'convolve': convolve}
