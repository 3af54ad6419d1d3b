"""Supervised training: it learns, it resumes exactly, it freezes what it should, and it refuses what does not fit."""

import json
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import finetune as finetune_config
from configs import folder_vicreg
from data_prep import folder
from data_prep.writer import write_dataset
from tests.compiled.inputs import Small
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.evaluate import finetune
from vididi_jax.evaluate.protocol import Fold, Side, whole
from vididi_jax.evaluate.recognition import open_evaluation
from vididi_jax.models.classifier import Classifier
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.train.checkpoint import load_encoder_variables
from vididi_jax.train.mesh import make_mesh
from vididi_jax.train.metric_writer import read_metrics, without_times
from vididi_jax.train.optimizer import sgd
from vididi_jax.train.run import workdir_config, write_config
from vididi_jax.train.state import TrainState


def settings(variant='smoke', **changes):
    config = finetune_config.get_config(variant)
    config.batch_size, config.data.workers = 8, 0
    config.eval.clips, config.eval.frames, config.eval.stride = 2, 4, 2
    config.log.every_steps = 1
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture
def workdir(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / 'work')


@pytest.mark.realdata
def test_twenty_real_clips_are_learned_by_heart(vididi_data, tmp_path):
    """One of UCF101 a class, shown without augmentation, and asked for again."""
    first = {path.parent.name: path for path in sorted(vididi_data.glob('ucf101/*/*.avi'), reverse=True)}
    for name in sorted(first)[:20]:
        (tmp_path / 'videos' / name).mkdir(parents=True)
        (tmp_path / 'videos' / name / first[name].name).symlink_to(first[name])
    plan = folder.plan_folder(str(tmp_path / 'videos'), short_side=32, encoding='jpeg')
    write_dataset(*plan, tmp_path / 'data', workers=1)
    training = folder_vicreg.get_config('smoke')
    training.data.dir, training.model.width = str(tmp_path / 'data'), 8
    training.augment.update(dict(area=(1.0, 1.0), aspect=(1.0, 1.0), size=24, flip=0.0, blur=0.0, jitter=0.0, gray=0.0,
                                 centre_fraction=1.0))
    write_config(training, tmp_path / 'work')
    config = settings(**{'epochs': 10, 'batch_size': 20, 'eval.untrained': True, 'eval.protocol': 'grouped',
                         'eval.clips': 10, 'optimizer.base_rate': 0.3, 'optimizer.milestones': (5, 8),
                         'finetune.dropout': 0.0, 'allow_missing': True})
    evaluation = open_evaluation(config, str(tmp_path / 'work'), (0,))
    everything = Side(evaluation.protocol.folds[0].train.source, np.arange(20))
    often = everything._replace(videos=np.tile(everything.videos, 12))  # so that an epoch is more than a step
    outcome = finetune.train_and_test(evaluation, 0, Fold('by heart', often, everything))
    assert outcome.metrics['V']['top-1'] == 100
    np.testing.assert_array_equal(outcome.confusion, np.eye(20, dtype=int))


def test_a_run_that_was_stopped_ends_as_one_that_was_not(small_run, tmp_path, capsys):
    """Two epochs and then two more, against four at once: parameters, statistics, optimiser and metrics, bit by bit."""
    other = shutil.copytree(small_run, tmp_path / 'other' / 'work')
    orders = {'finetune.orders': (0, 1), 'optimizer.milestones': (3,)}
    for epochs in (2, 4):
        stopped = finetune.run(settings(epochs=epochs, **orders), str(small_run))
    assert 'resuming after step 12 of 24' in capsys.readouterr().out
    at_once = finetune.run(settings(epochs=4, **orders), str(other))
    assert stopped == at_once and set(stopped) == {'V', 'dV', 'joined'}
    one, two = (load_encoder_variables(path / 'eval' / 'finetune' / 'fold_0')[1]['checksums']
                for path in (small_run, other))
    assert one == two and any('head1' in name for name in one)
    rows, again = (without_times(read_metrics(path / 'eval' / 'finetune' / 'fold_0')) for path in (small_run, other))
    assert rows == again and len(rows) == 24
    rates = [row['learning_rate'] for row in rows]
    np.testing.assert_allclose(rates, [0.16 * 8 / 128] * 18 + [0.016 * 8 / 128] * 6, rtol=1e-6)


def test_the_linear_probe_by_sgd_leaves_the_encoder_as_it_was(small_run):
    config = settings('linear_smoke', epochs=1)
    assert config.finetune.to_dict() == finetune_config.get_config('linear').finetune.to_dict()
    assert config.optimizer.weight_decay == 0  # heads alone are trained
    metrics = finetune.run(config, str(small_run))
    assert set(metrics) == {'V', 'dV', 'joined'}
    result = json.loads((small_run / 'eval' / 'finetune_linear' / 'results.json').read_text())
    assert result['metrics'] == metrics and result['folds'][0]['steps'] == 6
    assert (result['split'], result['short_video']) == ('test', 'loop')
    before, after = (load_encoder_variables(path)[0] for path in (small_run, small_run / 'eval/finetune_linear/fold_0'))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_a_run_goes_on_under_another_name_of_its_workdir_and_not_with_another_recipe(small_run, monkeypatch):
    """Nor from other weights, nor on other splits."""
    first = finetune.run(settings(epochs=1), str(small_run))
    assert workdir_config(small_run / 'eval' / 'finetune' / 'fold_0').init_checkpoint == '24'  # which was the latest
    monkeypatch.chdir(small_run.parent)
    assert finetune.run(settings(epochs=1), small_run.name) == first
    for changes, message in (
            ({'optimizer.momentum': 0.5}, 'optimizer.momentum'), ({'eval.short_video': 'drop'}, 'clip.short_video'),
            ({'eval.untrained': True}, 'started with encoder='),
            ({'eval.train': 'test', 'eval.test': 'train'},
             'with (data.split|fold|protocol)=.* set another --config.eval.name')):
        with pytest.raises(UserError, match=message):
            finetune.run(settings(epochs=1, **changes), str(small_run))


def test_probabilities_that_are_not_finite_are_refused(small_run, monkeypatch):
    """They would be misses, of a run whose loss was finite to its end: running statistics are not those of a batch."""
    average = finetune.average_over_views

    def spoiled(*arguments, **options):
        found = average(*arguments, **options)
        found[0][[3, 5], 1] = np.nan
        return found

    monkeypatch.setattr(finetune, 'average_over_views', spoiled)
    with pytest.raises(UserError, match=r'probabilities of 2 of 16 videos \(the first: motion_test_00003\) are not '
                                        r'finite: lower .* under another --config.eval.name'):
        finetune.run(settings(epochs=1), str(small_run))
    assert not (small_run / 'eval' / 'finetune' / 'results.json').exists()


@pytest.mark.parametrize('saved', [False, True])
def test_a_diverging_run_is_begun_anew_under_another_name(small_run, monkeypatch, saved):
    """An evaluation has no `init_from`, and no workdir but that of its encoder."""
    class Diverging(finetune.Classifier):
        def logits(self, variables, pixels, train, key=None):
            found, stats = super().logits(variables, pixels, train, key)
            return {order: value * jnp.nan for order, value in found.items()}, stats

    if saved:
        finetune.run(settings(epochs=1), str(small_run))
    monkeypatch.setattr(finetune, 'Classifier', Diverging)
    advice = 'clip_norm, under another --config.eval.name; ' if saved else 'clip_norm; '
    with pytest.raises(UserError, match=rf'at step .* loss: lower config.optimizer.base_rate, .*{advice}') as told:
        finetune.run(settings(epochs=2), str(small_run))
    assert 'init_from' not in str(told.value)


def test_another_seed_trains_on_other_batches(small_run):
    found = []
    for seed in (0, 1, 0):
        evaluation = finetune.prepare(settings(seed=seed), str(small_run))
        run = finetune.fold_run(evaluation, 0, evaluation.protocol.folds[0])
        found.append(run.make_task(run.config, make_mesh()).batches[0]['clips'])
    assert (found[0] != found[1]).any() and (found[0] == found[2]).all()


def tiny_model(**changes):
    encoder = Small(2, jnp.dtype(jnp.float32))
    return Classifier(**dict(encoder=encoder, orders=(0, 1), classes=3, dropout=0.0, frozen=False) | changes)


def one_step(model, encoder_rate=1.0):
    """Parameters and statistics before and after a step, and its metrics."""
    spec = Augmentation(size=8, crop='none', flip=0.0, blur=0.0, jitter=0.0, gray=0.0)
    variables = jax.jit(lambda key: model.init(key, (4, 8, 8)))(jax.random.key(0))
    optimizer = sgd(0.1, momentum=0.9, weight_decay=1e-4, encoder_rate=encoder_rate)
    state = TrainState(jnp.zeros((), jnp.int32), **variables, opt_state=optimizer.init(variables['params']))
    before = jax.device_get(state)
    rng = np.random.default_rng(0)
    batch = {'clips': jnp.asarray(rng.integers(0, 256, (6, 1, 4, 8, 8, 3)), jnp.uint8),
             'size': jnp.full((6, 2), 8, jnp.int32), 'label': jnp.arange(6) % 3}
    step = finetune.make_step(model, optimizer, lambda _: 0.1, spec, make_mesh())
    after, metrics = step(state, batch, jax.random.key(1), model.orders)
    return before, jax.device_get(after), metrics


def test_a_frozen_encoder_stays_as_it_is_and_its_heads_learn():
    before, after, metrics = one_step(tiny_model(frozen=True), encoder_rate=0.0)
    jax.tree.map(np.testing.assert_array_equal, before.params['encoder'], after.params['encoder'])
    jax.tree.map(np.testing.assert_array_equal, before.batch_stats, after.batch_stats)
    for head in ('head0', 'head1'):
        assert (before.params[head]['kernel'] != after.params[head]['kernel']).any()
    assert bool(metrics['finite'])


def test_the_loss_is_the_mean_of_the_heads_cross_entropies():
    model = tiny_model()
    before, _, metrics = one_step(model)
    rng = np.random.default_rng(0)
    spec = Augmentation()
    pixels = (rng.integers(0, 256, (6, 1, 4, 8, 8, 3))[:, 0] / 255 - np.array(spec.mean)) / np.array(spec.std)
    variables = {'params': before.params['encoder'], 'batch_stats': before.batch_stats['encoder']}
    encode = jax.jit(lambda x: model.encoder.apply(variables, x, train=True, mutable=['batch_stats'])[0])
    losses = []
    for order in (0, 1):
        features = encode(np.diff(pixels, n=order, axis=1).astype(np.float32))
        head = before.params[f'head{order}']
        logits = np.asarray(features, np.float64) @ head['kernel'] + head['bias']
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        losses.append(-np.log(p[np.arange(6), np.arange(6) % 3]).mean())
    np.testing.assert_allclose(metrics['loss'], np.mean(losses), rtol=1e-4)  # float32


def test_heads_compute_in_float64_where_the_encoder_does():
    with jax.enable_x64(True):
        model = tiny_model(encoder=Small(2, jnp.dtype(jnp.float64)))
        clips = jax.random.normal(jax.random.key(1), (2, 4, 8, 8, 3), jnp.float64)
        variables = jax.jit(lambda key: model.init(key, (4, 8, 8)))(jax.random.key(0))
        found = jax.device_get(jax.jit(model.logits, static_argnums=2)(variables, clips, False)[0])
        features = np.asarray(jax.jit(model.encoder.apply)(
            {part: variables[part]['encoder'] for part in variables}, clips))
        head = jax.device_get(variables['params']['head0'])
    # 1e-7 is float32's rounding.
    np.testing.assert_allclose(found[0], features @ head['kernel'] + head['bias'], rtol=1e-12)


def test_dropout_draws_from_the_steps_key_and_only_in_training():
    model = tiny_model(dropout=0.5, frozen=True)
    variables = jax.jit(lambda key: model.init(key, (4, 8, 8)))(jax.random.key(0))
    clips = jax.random.normal(jax.random.key(1), (2, 4, 8, 8, 3))
    train = jax.jit(lambda key: model.logits(variables, clips, True, key)[0][0])
    one, two, again = (train(jax.random.key(seed)) for seed in (0, 1, 0))
    assert (one != two).any() and (one == again).all()
    probabilities = jax.jit(model.__call__)(variables, clips)
    plain = jax.jit(tiny_model(dropout=0.0).__call__)(variables, clips)
    for order in (0, 1):
        np.testing.assert_allclose(probabilities[order].sum(1), 1, rtol=1e-5)
        np.testing.assert_array_equal(probabilities[order], plain[order])


class Ones(nn.Module):
    feature_dim: int = 400
    dtype: jnp.dtype = jnp.float32

    def __call__(self, clips, train=False, views=1):
        return jnp.ones((len(clips), 400))


def test_dropout_leaves_zeros_and_scales_the_rest():
    head = {'kernel': jnp.eye(400), 'bias': jnp.zeros(400)}
    variables = {'params': {'encoder': {}, 'head0': head, 'head1': head}, 'batch_stats': {'encoder': {}}}
    model, clips = Classifier(Ones(), (0, 1), 400, 0.25, frozen=True), jnp.zeros((8, 3, 2, 2, 3))
    found, _ = model.logits(variables, clips, True, jax.random.key(0))
    for value in found.values():
        np.testing.assert_allclose(np.unique(value), [0, 4 / 3], rtol=1e-6)
        assert abs((value == 0).mean() - 0.25) < 0.04  # five standard deviations
    assert (found[0] != found[1]).any()
    assert all((value == 1).all() for value in model.logits(variables, clips, False)[0].values())


def test_joined_is_the_mean_of_the_heads_probabilities(tiny_motion):
    train, test = (whole(RecordSource(tiny_motion, split)) for split in ('train', 'test'))
    p = np.random.default_rng(0).dirichlet(np.ones(8), (2, 16))
    found = finetune.judge(Fold('fold', train, test), {0: p[0], 1: p[1]})
    for kind, q in {'V': p[0], 'dV': p[1], 'joined': p.mean(0)}.items():
        assert found.metrics[kind]['top-1'] == pytest.approx(100 * np.mean(q.argmax(1) == test.labels))
    expected = np.zeros((8, 8), int)
    np.add.at(expected, (test.labels, p.mean(0).argmax(1)), 1)
    np.testing.assert_array_equal(found.confusion, expected)


def test_a_class_without_training_videos_cannot_be_chosen(tiny_motion):
    """Not even by heads that are sure of it, nor among the five best."""
    train, test = (whole(RecordSource(tiny_motion, split)) for split in ('train', 'test'))
    train = train._replace(videos=np.flatnonzero(train.labels % 4))  # six of the eight classes
    sure = np.where(np.arange(8) == test.labels[:, None], 0.93, 0.01)
    outcome = finetune.judge(Fold('fold', train, test), {0: sure, 1: sure})
    assert set(outcome.metrics) == {'V', 'dV', 'joined'}
    assert all(row == {'top-1': 75.0, 'top-5': 75.0} for row in outcome.metrics.values())
    assert outcome.confusion.sum() == 16 and not outcome.confusion[:, [0, 4]].any()


@pytest.mark.parametrize(('changes', 'message'), [
    ({'finetune.orders': (0, 0)}, 'each once'), ({'batch_size': 64}, 'motion/train-test has 48 usable')])
def test_wrong_settings_are_refused(workdir, changes, message):
    with pytest.raises(UserError, match=message):
        finetune.run(settings(**changes), str(workdir))
    assert not (workdir / 'eval').exists() or not list((workdir / 'eval').rglob('config.json'))


@pytest.mark.parametrize(('field', 'value', 'message'), [
    ('width', 4, r'\(4,\) here|2\) there and'), ('name', 'r2plus1d_18', 'absent')])
def test_encoders_that_do_not_fit_their_config_are_refused(workdir, field, value, message):
    """Of another width, and of another architecture, with the first parameter that tells."""
    from vididi_jax.train.run import workdir_config

    training = workdir_config(workdir)
    training.model[field] = value
    write_config(training, workdir)
    with pytest.raises(UserError, match=f'does not fit this config .*({message})'):
        finetune.run(settings(), str(workdir))
