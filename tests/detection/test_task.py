"""Action detection: the head on boxes, the run through the one loop, and the files it is judged by."""

import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ava_detection, finetune, motion_detection
from configs import report as report_config
from data_prep.__main__ import build_parser
from tests.compiled.inputs import Small
from tests.data_sets import seal
from vididi_jax.data.clips import centre_frames_needed
from vididi_jax.data.source import RecordSource
from vididi_jax.detection import ava, task
from vididi_jax.detection.evaluator import evaluate_csv
from vididi_jax.detection.keyframes import arrange_keyframes, open_keyframes
from vididi_jax.detection.model import Detector, box_loss, make_step
from vididi_jax.errors import UserError
from vididi_jax.models.roi_align import roi_align
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.report import page
from vididi_jax.tasks import TASKS
from vididi_jax.train.checkpoint import load_encoder_variables
from vididi_jax.train.mesh import make_mesh
from vididi_jax.train.metric_writer import read_metrics, without_times
from vididi_jax.train.optimizer import sgd
from vididi_jax.train.state import TrainState


@pytest.fixture
def workdir(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / 'work')


@pytest.fixture
def settings(tiny_boxes):
    def make(variant='smoke', **changes):
        config = motion_detection.get_config(variant)
        config.data.dir, config.augment.size, config.eval.size, config.eval.frames = str(tiny_boxes), 32, 32, 4
        config.batch_size, config.log.every_steps = 8, 1
        config.update_from_flattened_dict(changes)
        return config

    return make


def test_the_loss_is_a_mean_over_the_boxes_that_are_there_and_their_classes():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 4, 5)), rng.uniform(size=(3, 4, 5)) < 0.4
    mask = rng.uniform(size=(3, 4)) < 0.5
    p = 1 / (1 + np.exp(-logits[mask]))
    expected = -np.where(labels[mask], np.log(p), np.log(1 - p)).mean()
    np.testing.assert_allclose(box_loss(jnp.asarray(logits, jnp.float32), labels, mask), expected, rtol=1e-5)
    assert box_loss(jnp.asarray(logits), labels, mask & False) == 0


def tiny_model(**changes):
    options = dict(encoder=Small(2, jnp.dtype(jnp.float32), last_stride=1), orders=(0,), classes=3, dropout=0.0,
                   frozen=False, roi_size=3, sampling_ratio=2)
    return Detector(**options | changes)


def batch_of_boxes(padding=0.0):
    """Six clips with three boxes each, of which two are not there; those hold `padding`."""
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(size=(6, 3, 2, 2)), axis=2).reshape(6, 3, 4)
    mask, labels = np.arange(3) < 1 + (np.arange(6) % 2)[:, None], rng.uniform(size=(6, 3, 3)) < 0.5
    corners[~mask], labels[~mask] = padding, padding > 0
    return {'clips': jnp.asarray(rng.integers(0, 256, (6, 1, 4, 16, 16, 3)), jnp.uint8),
            'size': jnp.full((6, 2), 16, jnp.int32), 'boxes': jnp.asarray(corners, jnp.float32),
            'labels': jnp.asarray(labels), 'mask': jnp.asarray(mask)}


def one_step(model, batch, encoder_rate=1.0):
    """The state before and after a step, and its metrics."""
    variables = jax.jit(lambda key: model.init(key, (4, 16, 16)))(jax.random.key(0))
    optimizer = sgd(0.1, momentum=0.9, weight_decay=1e-4, encoder_rate=encoder_rate)
    state = TrainState(jnp.zeros((), jnp.int32), **variables, opt_state=optimizer.init(variables['params']))
    before = jax.device_get(state)
    spec = Augmentation(size=16, crop='none', flip=0.5, blur=0.0, jitter=0.0, gray=0.0)
    step = make_step(model, optimizer, lambda _: 0.1, spec, make_mesh())
    after, metrics = step(state, batch, jax.random.key(1), model.orders)
    return before, jax.device_get(after), jax.device_get(metrics)


def test_boxes_that_are_not_there_change_nothing():
    """The step, that is loss, gradients and statistics, is the same whatever stands in their place; of two heads."""
    model = tiny_model(orders=(0, 1))
    (_, one, metrics), (_, two, again) = (one_step(model, batch_of_boxes(padding)) for padding in (0.0, 0.7))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert metrics == again and metrics['boxes'] == 9 and metrics['finite']
    assert metrics['loss'] == pytest.approx((metrics['loss_V'] + metrics['loss_dV']) / 2)
    assert abs(metrics['loss_V'] - metrics['loss_dV']) > 1e-3  # or the mean says nothing


def test_a_frozen_encoder_stays_as_it_is_and_its_head_learns():
    before, after, _ = one_step(tiny_model(frozen=True), batch_of_boxes(), encoder_rate=0.0)
    jax.tree.map(np.testing.assert_array_equal, before.params['encoder'], after.params['encoder'])
    jax.tree.map(np.testing.assert_array_equal, before.batch_stats, after.batch_stats)
    assert (before.params['head0']['kernel'] != after.params['head0']['kernel']).any()


def test_probabilities_are_of_the_largest_features_in_each_box():
    model, batch = tiny_model(orders=(1,), dropout=0.5), batch_of_boxes()  # dropout is for training
    variables = jax.jit(lambda key: model.init(key, (4, 16, 16)))(jax.random.key(0))
    pixels = jax.random.normal(jax.random.key(2), (6, 4, 16, 16, 3))

    @jax.jit
    def both(pixels):
        encoder = {name: variables[name]['encoder'] for name in ('params', 'batch_stats')}
        maps = model.encoder.apply(encoder, pixels[:, 1:] - pixels[:, :-1], method='feature_map')
        cut = roi_align(maps.mean(1), 16 * batch['boxes'], output_size=3, spatial_scale=1 / 2, sampling_ratio=2)
        return model(variables, pixels, batch['boxes'])[1], cut

    got, cut = jax.device_get(both(pixels))
    head = variables['params']['head1']
    logits = cut.reshape(6, 3, 9, -1).max(2) @ np.asarray(head['kernel']) + np.asarray(head['bias'])
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-logits)), rtol=1e-4)  # float32


def test_smoke_is_judged_by_the_files_it_writes(workdir, settings, tiny_boxes, tmp_path, capsys):
    assert TASKS['detection'][0] == task.__name__
    data, label_map = shutil.copytree(tiny_boxes, tmp_path / 'data'), tiny_boxes / 'label_map.pbtxt'
    counting = data / 'label_map_evaluated.pbtxt'
    names = {number: name for number, name in ava.read_label_map(label_map).items() if number in (3, 8)}
    counting.write_text(ava.format_label_map(names))
    seal(data)
    config = settings(**{'data.dir': str(data)})
    metrics = task.run(config, str(workdir))
    folder = workdir / 'eval' / 'detection'
    result = json.loads((folder / 'results.json').read_text())
    assert result['metrics'] == metrics and set(metrics) == {'V', 'dV', 'joined'} and result['task'] == 'detection'
    truth = tiny_boxes / 'annotations_test.csv'
    for kind, name in (('V', 'detections_V'), ('dV', 'detections_dV'), ('joined', 'detections')):
        again = evaluate_csv(truth, folder / f'{name}.csv', counting)
        assert again['frame_mAP'] == metrics[kind]['frame_mAP'] and again['per_class'] == result['per_class'][kind]
        assert set(again['per_class']) <= set(names.values())  # two classes count,
    boxes, submitted = ava.read_boxes(truth), ava.read_boxes(folder / 'detections.csv')
    assert len(submitted.score) == 8 * len(boxes.box)  # and the head has all
    assert submitted.keyframes == boxes.keyframes and (submitted.score > 0).all() and (submitted.score < 1).all()
    np.testing.assert_allclose(submitted.box[::8], boxes.box, atol=1e-6)  # float32
    heads = [ava.read_boxes(folder / f'detections_{kind}.csv').score for kind in ('V', 'dV')]
    np.testing.assert_allclose(submitted.score, np.mean(heads, axis=0), rtol=1e-6)  # float32, nine digits
    assert result['counts']['test'] | {'listed': 8, 'videos': 8, 'keyframes': 8, 'boxes': len(boxes.box)} == (
        result['counts']['test'])
    assert result['boxes'] == 'annotations' and result['checkpoint_step'] == 24 and result['encoder'] == 'trained'
    assert result['evaluator_counts']['joined']['detections_outside_label_map'] == 6 * len(boxes.box)
    assert result['label_map'] == counting.name
    assert (folder / 'keyframes.png').read_bytes().startswith(b'\x89PNG')
    assert 'detection on 24 videos of motion_boxes/train-test: 2 epochs x 3 steps of 8' in capsys.readouterr().out

    rows = read_metrics(folder / 'run')
    config.detection.boxes, config.eval.run, config.eval.name = 'boxes', 'detection', 'detector'
    task.run(config, str(workdir))
    other = json.loads((workdir / 'eval' / 'detector' / 'results.json').read_text())
    asked = open_keyframes(RecordSource(tiny_boxes, 'test'), 'boxes')
    assert other['boxes'] == 'boxes' and other['counts']['test']['boxes'] == asked.mask.sum()
    submitted = ava.read_boxes(workdir / 'eval' / 'detector' / 'detections.csv', detected=True)
    assert len(submitted.score) == 8 * asked.mask.sum()
    assert read_metrics(folder / 'run') == rows and not (workdir / 'eval' / 'detector' / 'run').exists()
    (data / 'excluded_test.csv').write_text('{},{:04d}\n'.format(*boxes.keyframes[0]))  # what is judged may change
    seal(data)
    task.run(config, str(workdir))
    later = json.loads((workdir / 'eval' / 'detector' / 'results.json').read_text())
    assert later['evaluator_counts']['joined']['keyframes_excluded'] == 1
    config.epochs = 3
    with pytest.raises(UserError, match='was trained with another epochs .*leave eval.run empty'):
        task.run(config, str(workdir))

    page.run(report_config.get_config(), str(workdir))
    text = (workdir / 'report' / 'index.html').read_text()
    assert 'Action detection' in text and f'{100 * metrics["joined"]["frame_mAP"]:.1f}' in text


def test_a_run_that_was_stopped_ends_as_one_that_was_not(small_run, settings, tmp_path, capsys):
    """One epoch and then one more, against two at once: parameters, statistics, optimiser and metrics, bit by bit."""
    other = shutil.copytree(small_run, tmp_path / 'other' / 'work')
    for epochs in (1, 2):
        stopped = task.run(settings(epochs=epochs), str(small_run))
    assert 'resuming after step 3 of 6' in capsys.readouterr().out
    assert stopped == task.run(settings(), str(other))
    runs = [path / 'eval' / 'detection' / 'run' for path in (small_run, other)]
    one, two = (load_encoder_variables(run)[1]['checksums'] for run in runs)
    assert one == two and any('head1' in name for name in one)
    rows, again = (without_times(read_metrics(run)) for run in runs)
    assert rows == again and len(rows) == 6


def test_probabilities_that_are_not_finite_are_refused(small_run, settings, monkeypatch):
    """Without a score in its row a detection would be taken for a wrong file."""
    compute = task._probabilities
    monkeypatch.setattr(task, '_probabilities', lambda *given: jax.tree.map(
        lambda value: value.at[0].set(jnp.inf), compute(*given)))
    with pytest.raises(UserError, match=r'probabilities of 1 of 8 videos .* are not finite: lower .*config.eval.name'):
        task.run(settings(epochs=1), str(small_run))
    assert not list((small_run / 'eval' / 'detection').glob('*.csv'))


def test_a_frozen_detector_judges_frames_of_evaluations_own_size(small_run, settings):
    config = settings('frozen', **{
        'epochs': 1, 'optimizer.milestones': (), 'optimizer.base_rate': 1e-3,  # scores near 0.5
        'eval.size': 48, 'detection.orders': (0,)})
    metrics = task.run(config, str(small_run))
    result = json.loads((small_run / 'eval' / 'detection_frozen' / 'results.json').read_text())
    assert result['label_map'] == 'label_map.pbtxt'
    assert result['metrics'] == metrics and result['frozen'] and 'in 48 pixels' in result['clips_x_crops']
    before, after = (load_encoder_variables(path)[0] for path in (small_run, small_run / 'eval/detection_frozen/run'))
    jax.tree.map(np.testing.assert_array_equal, before, after)

    config.eval.size, config.eval.run, config.eval.name = 32, 'detection_frozen', 'smaller'
    task.run(config, str(small_run))
    one, two = (ava.read_boxes(small_run / 'eval' / name / 'detections.csv')
                for name in ('detection_frozen', 'smaller'))
    np.testing.assert_array_equal(one.box, two.box)  # shares of the frame
    assert np.abs(one.score - two.score).max() > 1e-4


def test_pictures_have_the_truth_of_the_file_and_the_top_class(tiny_boxes, monkeypatch):
    monkeypatch.setattr(task, 'keyframe_picture', lambda panels: panels)
    source = RecordSource(tiny_boxes, 'test')
    asked, truth = open_keyframes(source, 'boxes'), open_keyframes(source)
    scores = np.random.default_rng(0).random((*asked.mask.shape, 8))
    names = list(ava.read_label_map(tiny_boxes / 'label_map.pbtxt').values())
    panels = task.keyframes_shown(SimpleNamespace(
        data=SimpleNamespace(test=SimpleNamespace(source=source)), boxes=(None, asked, truth)), scores, names)
    rows = ava.read_boxes(tiny_boxes / 'annotations_test.csv')
    assert len(panels) == 8
    for i, (frame, wanted, told) in enumerate(panels):
        np.testing.assert_array_equal(frame, source[i].frames([12])[0])
        video, time = ava.parse_keyframe_id(source.ids[i])
        mine = (np.array(rows.video) == video) & (np.array(rows.timestamp) == time)
        assert sorted(text for _, text in wanted) == sorted(names[a - 1] for a in rows.action[mine])
        assert [text.rpartition(' ')[0] for _, text in told] == [
            names[row.argmax()] for row in scores[i][asked.mask[i]]]


def test_what_detections_are_judged_by_is_read_before_training(workdir, settings, tiny_boxes, tmp_path):
    data = shutil.copytree(tiny_boxes, tmp_path / 'data')
    (data / 'label_map_evaluated.pbtxt').write_text(ava.format_label_map({99: 'fly'}))
    seal(data)
    with pytest.raises(UserError, match='no box of any class of the label map'):
        task.run(settings(**{'data.dir': str(data)}), str(workdir))
    (data / 'label_map_evaluated.pbtxt').unlink()
    (data / 'excluded_test.csv').write_text('a,b,c\n')
    seal(data)
    with pytest.raises(UserError, match='excluded_test.csv, line 1'):
        task.run(settings(**{'data.dir': str(data)}), str(workdir))
    assert not list(workdir.glob('eval/*/run'))


def test_a_run_is_of_the_label_map_that_it_learned_by(workdir, settings, tiny_boxes, tmp_path):
    """Of which the annotations' numbers say nothing."""
    data = shutil.copytree(tiny_boxes, tmp_path / 'data')

    def annotations():
        detection = task.open_detection(settings(**{'data.dir': str(data)}), str(workdir))
        return task.training_config(detection).data.annotations

    before = annotations()
    names = ava.read_label_map(data / 'label_map.pbtxt')
    (data / 'label_map.pbtxt').write_text(ava.format_label_map(names | {1: names[2], 2: names[1]}))
    seal(data)
    assert annotations() != before


def test_avas_smoke_fits_the_tiny_data(workdir, tiny_boxes):
    config = ava_detection.get_config('smoke')
    config.data.dir = str(tiny_boxes)
    detection = task.open_detection(config, str(workdir))
    assert detection.encoder.module.spatial_stride == 8  # without its last one
    assert detection.training.augment.size == 32 and config.batch_size <= len(detection.data.train.videos)
    config.eval.frames, config.eval.stride = 24, 1
    task.open_detection(config, str(workdir))  # records of 24 frames are just long enough


@pytest.mark.parametrize(('changes', 'message'), [
    ({'detection.boxes': 'guessed'}, 'annotations'), ({'eval.frames': 1}, 'eval.frames is 1'),
    ({'eval.frames': 16, 'eval.stride': 2}, r'32 records .* fewer than the 32 frames'),
    ({'augment.shift': 4}, 'augment.shift is 4'), ({'augment.size': 48}, "augment.crop is 'none'"),
    ({'eval.test': 'validation'}, 'validation'),
    ({'eval.test': 'train'}, 'is in train and in test, .*: set --config.eval.test'),
    ({'batch_size': 32}, '24 usable'), ({'eval.run': 'frozen'}, 'has no run of a detector')])
def test_wrong_settings_are_refused(workdir, settings, changes, message):
    with pytest.raises(UserError, match=message):
        task.run(settings(**changes), str(workdir))
    assert not list(workdir.glob('eval/*/run'))


def test_a_data_set_without_boxes_is_refused(workdir, settings, tiny_motion):
    with pytest.raises(UserError, match=r'annotations_train.csv'):
        task.run(settings(**{'data.dir': str(tiny_motion)}), str(workdir))


def test_labels_of_other_classes_are_refused(workdir, settings, tiny_boxes, tmp_path):
    data = shutil.copytree(tiny_boxes, tmp_path / 'data')
    (data / 'label_map.pbtxt').write_text(ava.format_label_map({11: 'sit', 12: 'stand'}))
    seal(data)
    with pytest.raises(UserError, match=r'no action of the annotations of train .* is of a class of label_map.pbtxt'):
        task.run(settings(**{'data.dir': str(data)}), str(workdir))


def test_boxes_of_a_detector_that_are_not_there_are_named(workdir, settings, tiny_boxes, tmp_path):
    data = shutil.copytree(tiny_boxes, tmp_path / 'data')
    (data / 'boxes_test.csv').unlink()
    plan = json.loads((data / 'plan.json').read_text())
    del plan['files']['boxes_test.csv']
    (data / 'plan.json').write_text(json.dumps(plan))
    seal(data)
    with pytest.raises(UserError, match=r'boxes_test.csv is no file of the data set: .*boxes=annotations'):
        task.run(settings(**{'data.dir': str(data), 'detection.boxes': 'boxes'}), str(workdir))


def test_the_clips_of_ava_are_as_long_as_data_prep_writes_them():
    config = ava_detection.get_config()
    required = ('videos', 'train', 'test', 'label_map', 'out')
    given = build_parser().parse_args(['ava', *(f'--{name}=x' for name in required)])
    assert centre_frames_needed(config.eval.frames, config.eval.stride) == given.frames


def test_variants_keep_their_runs_apart():
    assert motion_detection.get_config('frozen').eval.name != motion_detection.get_config().eval.name
    assert finetune.get_config('linear').eval.name != finetune.get_config().eval.name


def test_each_score_is_of_its_class():
    rows = [('v', 902, (0, 0, .5, 1), 3, 0), ('v', 902, (0, 0, 1, 1), 7, 0), ('w', 903, (0, 0, 1, .5), 3, 0)]
    ids = ['w,0903', 'v,0902']
    there = arrange_keyframes(ids, ava.make_boxes(rows), [3, 7])
    got = task.submission(ids, there, np.arange(8.).reshape(2, 2, 2), [3, 7])
    assert list(zip(got.of_row(), got.box[:, 2:].tolist(), got.action.tolist(), got.score.tolist(), strict=True)) == [
        (('w', 903), [1, .5], 3, 0), (('w', 903), [1, .5], 7, 1), (('v', 902), [.5, 1], 3, 4),
        (('v', 902), [.5, 1], 7, 5), (('v', 902), [1, 1], 3, 6), (('v', 902), [1, 1], 7, 7)]


def test_a_detector_learns_from_the_boxes_of_its_clips(small_run, tiny_boxes, monkeypatch):
    config = motion_detection.get_config('smoke')
    config.data.dir, config.augment.size, config.eval.size, config.eval.frames = str(tiny_boxes), 32, 32, 4
    config.batch_size = 8
    made = []

    def run(config, folder, make_task):
        made.append(make_task(config, make_mesh()))
        raise UserError('ready.')

    monkeypatch.setattr(task.loop, 'run', run)
    with pytest.raises(UserError, match='ready'):
        task.run(config, str(small_run))
    batch, truth = made[0].batches[0], ava.read_boxes(tiny_boxes / 'annotations_train.csv')
    whole, ids = made[0].complete(batch), RecordSource(tiny_boxes, 'train').ids
    for record, boxes, labels, mask in zip(*(whole[n] for n in ('record', 'boxes', 'labels', 'mask')), strict=True):
        mine = np.array([ava.keyframe_id(*key) == ids[record] for key in truth.of_row()])
        np.testing.assert_allclose(boxes[mask], truth.box[mine], atol=1e-6)
        assert (labels[mask].argmax(1) + 1).tolist() == truth.action[mine].tolist()
