"""Motion with boxes: where the sprites are, what the detector gives, and the files of the data set."""

import itertools
import shutil

import numpy as np
import pytest

from data_prep import motion, motion_boxes
from data_prep.__main__ import build_parser, run
from tests.data_sets import seal
from vididi_jax.data.source import RecordSource
from vididi_jax.detection import ava
from vididi_jax.detection.keyframes import open_keyframes
from vididi_jax.errors import UserError

COMMAND = ('motion', '--boxes', '--train=12', '--test=6', '--workers=1')


def prepare(*arguments):
    run(build_parser().parse_args([str(a) for a in arguments]))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp('boxes') / 'data'
    prepare(*COMMAND, f'--out={out}')
    return out


def iou(first, second):
    common = motion_boxes.intersections(first, second)
    return common / (motion_boxes.areas(first)[:, None] + motion_boxes.areas(second) - common)


def scenes(count):
    return [motion_boxes.draw_scene(0, 'train', number, 24, 64) for number in range(count)]


def test_each_box_fits_its_sprite_in_the_keyframe():
    for scene in scenes(20):
        for sprite, box in zip(scene.sprites, scene.boxes(), strict=True):
            rows, columns = np.nonzero(motion.coverage(sprite.shape, sprite.path, 64)[12] > 0.5)
            seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert abs(seen - 64 * box).max() <= 1.1  # a tip covers less than half of its pixel


def test_sprites_of_the_keyframe_are_inside_and_apart():
    drawn = scenes(200)
    boxes = np.concatenate([scene.boxes() for scene in drawn])
    assert boxes.min() >= 0 and boxes.max() <= 1
    for first, second in (pair for scene in drawn for pair in itertools.combinations(scene.boxes(), 2)):
        sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
        smaller = min(np.prod(first[2:] - first[:2]), np.prod(second[2:] - second[:2]))
        assert np.prod(sides.clip(0)) <= motion_boxes.OVERLAP * smaller + 1e-12
    assert np.bincount([len(scene.sprites) for scene in drawn], minlength=4)[1:].min() > 40
    assert set(sum((scene.motions for scene in drawn), [])) == set(motion.CLASSES)
    assert 14 < 64 * np.mean(boxes[:, 2:] - boxes[:, :2]) < 22  # two to three cells of 8 pixels


def test_a_box_tells_nothing_about_the_class():
    size = {name: [] for name in motion.CLASSES}
    for scene in scenes(1500):
        for name, box in zip(scene.motions, scene.boxes(), strict=True):
            size[name].append(box[2] - box[0])
    everyone = np.concatenate(list(size.values()))
    for values in size.values():
        assert abs(np.mean(values) - everyone.mean()) < 4 * everyone.std() / np.sqrt(len(values))


def test_the_detector_is_as_stated():
    ious, missed, extra = [], 0, 0
    for number, scene in enumerate(scenes(500)):
        truth = scene.boxes()
        boxes, scores = motion_boxes.detect(np.random.default_rng(number), truth)
        best = iou(boxes, truth).max(1, initial=0)
        ious += list(best[best >= 0.3])
        missed += (iou(truth, boxes).max(1, initial=0) < 0.3).mean()
        extra += (best < 0.3).sum()
        assert boxes.shape == (len(scores), 4) and boxes.min(initial=0) >= 0 and boxes.max(initial=0) <= 1
        assert scores.min(initial=1) >= 0.4 and scores.max(initial=0) <= 1
    ious = np.array(ious)
    assert ((ious >= 0.6) & (ious <= 0.9)).mean() > 0.9 and (ious > 0.5).mean() > 0.99
    assert abs(missed / 500 - motion_boxes.MISSED) < 0.04 and abs(extra / 500 - motion_boxes.FALSE) < 0.08


def test_the_data_set_is_ava_s_form(data):
    assert ava.read_label_map(data / 'label_map.pbtxt') == dict(enumerate(motion.CLASSES, 1))
    for split, count in (('train', 12), ('test', 6)):
        source = RecordSource(data, split)
        assert source.name == 'motion_boxes' and len(source) == count
        record = source[3]
        assert record.row['id'] == f'motion_{split}_00003,0902' and record.row['group'] == f'motion_{split}_00003'
        scene = motion_boxes.draw_scene(0, split, 3, 24, 64)
        np.testing.assert_array_equal(
            record.frames(range(24)), motion.paint(scene.background, scene.sprites, scene.tint))
        truth = open_keyframes(source)
        assert truth.labels.shape == (count, 3, 8) and (truth.labels.sum(2) == truth.mask).all()
        np.testing.assert_allclose(truth.boxes[3][truth.mask[3]], scene.boxes(), atol=1e-6)
        assert [motion.CLASSES[i] for i in truth.labels[3][truth.mask[3]].argmax(1)] == scene.motions
        detected = open_keyframes(source, 'boxes')
        assert not detected.labels.any() and not detected.counts['labels_outside_map']
        assert (np.isfinite(detected.score) == detected.mask).all()
        scores = detected.score[detected.mask].tolist()
        assert len(set(scores)) == len(scores) > count  # each video has its own draws


def test_it_depends_on_the_seed_alone(data, tmp_path, capsys):
    prepare(*COMMAND, f'--out={tmp_path / "again"}')
    for path in data.iterdir():
        if path.suffix in ('.csv', '.pbtxt', '.npy') or 'tfrecord' in path.name:
            assert path.read_bytes() == (tmp_path / 'again' / path.name).read_bytes(), path.name
    prepare(*COMMAND, f'--out={data}')
    assert 'complete already' in capsys.readouterr().out
    with pytest.raises(UserError, match='other options'):
        prepare(*COMMAND, '--seed=1', f'--out={data}')


def test_annotations_that_do_not_fit_the_records_are_refused(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / 'data')
    path = copy / 'annotations_test.csv'
    path.write_text(''.join(line for line in path.read_text().splitlines(True) if 'test_00004' not in line))
    seal(copy)
    with pytest.raises(UserError, match=r"does not list the keyframe 'motion_test_00004,0902' \(1 in all\)"):
        open_keyframes(RecordSource(copy, 'test'))
    path.unlink()
    with pytest.raises(UserError, match='annotations_test.csv is missing'):
        open_keyframes(RecordSource(copy, 'test'))


def test_boxes_that_are_no_files_of_the_data_set_are_not_read(data, tiny_motion, tmp_path):
    copy = shutil.copytree(tiny_motion, tmp_path / 'data')
    for name in ('annotations_test.csv', 'boxes_test.csv', 'label_map.pbtxt'):
        shutil.copy(data / name, copy)
    for kind, message in ((ava.ANNOTATIONS, 'annotations_test.csv is no file of the data set, so it is none for'),
                          (ava.DETECTOR, 'boxes_test.csv is no file of the data set: give data_prep --boxes_test')):
        with pytest.raises(UserError, match=message):
            open_keyframes(RecordSource(copy, 'test'), kind)


def test_small_frames_are_refused():
    with pytest.raises(UserError, match='--size of at least 32'):
        prepare('motion', '--boxes', '--size=16', '--out=x')
