"""Frame-mAP against the official protocol written plainly, and each of its rules by hand."""

import csv
import itertools
import subprocess
import sys

import numpy as np
import pytest

from vididi_jax.detection.evaluator import evaluate_csv
from vididi_jax.errors import UserError

CLASSES = (1, 3, 4, 7)  # of the label map; 9 is outside, 7 never has ground truth


def reference(truth_rows, detection_rows, classes, exclusions):
    """Loops over keyframes, classes, detections; `truth_rows` may have rows of two columns."""
    listed, truth, detected = set(), {}, {}
    for video, time, *rest in truth_rows:
        listed.add((video, time))
        if rest and rest[4] in classes:
            truth.setdefault((video, time), []).append((rest[:4], rest[4]))
    for video, time, *rest in detection_rows:
        if rest[4] in classes:
            detected.setdefault((video, time), []).append((rest[:4], rest[4], rest[5]))
    results = {label: [] for label in classes}
    positives = dict.fromkeys(classes, 0)
    for key in sorted(listed - set(exclusions)):
        for _, label in truth.get(key, []):
            positives[label] += 1
        kept = sorted(detected.get(key, []), key=lambda row: -row[2])[:50]  # stable
        kept = [row for row in kept if row[0][0] < row[0][2] and row[0][1] < row[0][3]]
        for label in classes:
            boxes = [box for box, action in truth.get(key, []) if action == label]
            used = set()
            for box, action, score in kept:
                if action != label:
                    continue
                overlaps = [overlap(box, other) for other in boxes]
                best = max(range(len(boxes)), key=overlaps.__getitem__, default=None)
                right = best is not None and overlaps[best] >= 0.5 and best not in used
                if right:
                    used.add(best)
                results[label].append((score, right))
    values = {}
    for label in classes:
        if positives[label]:
            ranked = sorted(results[label], key=lambda pair: -pair[0])
            hits = list(itertools.accumulate(int(right) for _, right in ranked))
            precision = [0.0, *(hit / (i + 1) for i, hit in enumerate(hits)), 0.0]
            recall = [0.0, *(hit / positives[label] for hit in hits), 1.0]
            for i in reversed(range(len(precision) - 1)):
                precision[i] = max(precision[i], precision[i + 1])
            values[label] = sum((recall[i + 1] - recall[i]) * precision[i + 1] for i in range(len(recall) - 1))
    return sum(values.values()) / len(values), values


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def random_files(seed):
    """Rows of ground truth and detections: duplicates, ties, crowded keyframes, classes and keyframes of one side.

    Of the detections some have no area, and some lie outside the frame.
    """
    rng = np.random.default_rng(seed)
    truth, detections = [], []
    for video, time in itertools.product(('b', 'a', 'a-c'), range(902, 912)):
        people = np.sort(rng.uniform(0, 1, (rng.integers(0, 4), 2, 2)), axis=1).reshape(-1, 4).round(3)
        people = people[(people[:, 2:] > people[:, :2]).all(1)]
        if time != 910:  # not listed; its detections are ignored
            truth.append((video, time))
            for i, box in enumerate(people):
                actions = rng.permutation((1, 3, 4, 9))[: rng.integers(1, 4)]
                truth += [(video, time, *box, label, i) for label in actions]
            truth += [truth[-1]] if len(truth[-1]) > 2 and rng.uniform() < 0.2 else []
        for _ in range(90 if time == 905 else rng.integers(0, 25)):
            box = rng.uniform(0, 0.5, 4) + (0, 0, 0.5, 0.5)
            if len(people) and rng.uniform() < 0.7:
                box = people[rng.integers(len(people))]
                box = box + 0.12 * rng.normal(size=4) * np.tile(box[2:] - box[:2], 2)  # may leave the frame
            elif rng.uniform() < 0.3:
                box = box * (1, 1, 0, 1) + (0, 0, box[0], 0) if rng.uniform() < 0.5 else box * 0.2 + 1.1
            score = round(rng.uniform(), 1)  # many ties
            detections.append((video, time, *box, int(rng.choice((1, 3, 4, 7, 9))), score))
        detections += detections[-3:]
    order = rng.permutation(len(detections))
    return truth, [detections[i] for i in order if detections[i][2] <= detections[i][4] and
                   detections[i][3] <= detections[i][5]]


@pytest.fixture
def files(tmp_path):
    """write(truth, detections, exclusions) -> the arguments of `evaluate_csv`."""
    def write(truth, detections, exclusions=()):
        names = {'ground_truth': truth, 'detections': detections, 'exclusions': exclusions}
        for name, rows in names.items():
            with (tmp_path / f'{name}.csv').open('w', newline='') as file:
                csv.writer(file).writerows((row[0], f'{row[1]:04d}', *map(repr_number, row[2:])) for row in rows)
        (tmp_path / 'map.txt').write_text(''.join(f'{i}: class {i}\n' for i in CLASSES))
        return {name: tmp_path / f'{name}.csv' for name in names} | {'label_map': tmp_path / 'map.txt'}

    return write


def repr_number(x):
    return repr(x.item() if isinstance(x, np.generic) else x)


@pytest.mark.parametrize('seed', range(12))
def test_it_equals_the_official_protocol_written_plainly(files, seed):
    truth, detections = random_files(seed)
    exclusions = [('a', 903), ('b', 907), ('nowhere', 1)] if seed % 2 else []
    mean, values = reference(truth, detections, CLASSES, exclusions)
    result = evaluate_csv(**files(truth, detections, exclusions))
    assert abs(result['frame_mAP'] - mean) < 1e-9
    assert {f'class {label}': value for label, value in values.items()} == pytest.approx(result['per_class'], abs=1e-9)
    assert list(values) == [1, 3, 4] and 0.05 < mean < 0.95
    counts = result['counts']
    assert sum(counts[name] for name in counts if name.startswith('detections')) == len(detections)
    assert sum(counts[name] for name in counts if name.startswith('boxes')) == sum(len(row) > 2 for row in truth)
    assert all(counts[name] for name in (
        'detections_over_50', 'detections_without_area', 'detections_unlisted', 'detections_outside_label_map',
        'keyframes_without_boxes', 'boxes_outside_label_map', 'classes_without_boxes'))
    assert counts['keyframes_excluded'] == (2 if exclusions else 0)


BOX, FAR = (0.1, 0.1, 0.3, 0.3), (0.6, 0.6, 0.9, 0.9)
TRUTH = [('v', 902, *BOX, 1, 0), ('v', 903, *BOX, 1, 0)]


@pytest.mark.parametrize(('detections', 'value'), [
    ([], 0),
    ([('v', 902, *BOX, 1, .9), ('v', 903, *BOX, 1, .8)], 1),
    ([('v', 902, *BOX, 1, .9)], 1 / 2),
    ([('v', 902, *FAR, 1, .9), ('v', 902, *BOX, 1, .8), ('v', 903, *BOX, 1, .7)], 2 / 3),  # the envelope
    ([('v', 902, *BOX, 1, .9), ('v', 902, *BOX, 1, .8), ('v', 903, *BOX, 1, .7)], 1 / 2 + 1 / 2 * 2 / 3),  # twice
    ([('v', 902, *BOX, 3, .9), ('v', 902, *BOX, 1, .8), ('v', 903, *BOX, 1, .7)], 1),  # a class without ground truth
    ([('v', 902, .1, .1, .3, .2, 1, .9), ('v', 903, *BOX, 1, .8)], 1),  # half of the box is enough
    ([('v', 902, .1, .1, .3, .199, 1, .9), ('v', 903, *BOX, 1, .8)], 1 / 4),
    ([('v', 904, *BOX, 1, .9), ('v', 902, *BOX, 1, .8), ('v', 903, *BOX, 1, .7)], 1),  # not listed
    ([('w', 902, *BOX, 1, .9), ('v', 902, *BOX, 1, .8), ('v', 903, *BOX, 1, .7)], 2 / 3),  # listed, without boxes
    ([('v', 903, *FAR, 1, .5), ('v', 902, *BOX, 1, .5)], 1 / 2),  # a tie: 902 comes first
    ([('v', 902, *FAR, 1, .5), ('v', 902, *BOX, 1, .5)], 1 / 4),  # a tie: the row comes first
    ([('v', 902, *FAR, 3, .9)] * 50 + [('v', 902, *BOX, 1, .8)], 0),  # the cap is over all classes of the map
    ([('v', 902, *FAR, 9, .9)] * 50 + [('v', 902, *BOX, 1, .8)], 1 / 2),  # after others are dropped
    ([('v', 902, .1, .1, .1, .3, 1, .9), ('v', 902, *BOX, 1, .8), ('v', 903, *BOX, 1, .7)], 1),  # no area: removed,
    ([('v', 902, .1, .1, .3, .1, 1, .9)] * 50 + [('v', 902, *BOX, 1, .8)], 0),  # but after the cap
    ([('v', 902, 1.1, 1.1, 1.2, 1.2, 1, .9), ('v', 902, *BOX, 1, .8), ('v', 903, *BOX, 1, .7)], 2 / 3),  # outside
])
def test_each_rule_by_hand(files, detections, value):
    result = evaluate_csv(**files([*TRUTH, ('w', 902)], detections))
    assert result['frame_mAP'] == pytest.approx(value, abs=1e-12)
    assert list(result['per_class']) == ['class 1']


def test_half_is_enough_and_of_equal_boxes_the_first_is_claimed(files):
    """In coordinates that are exact: one detection covers two boxes, half of it each, and takes the first."""
    left, right = (0, 0, .5, 1), (.5, 0, 1, 1)
    truth = [('v', 902, *left, 1, 0), ('v', 902, *right, 1, 0)]
    detections = [('v', 902, 0, 0, 1, 1, 1, .9), ('v', 902, *right, 1, .8)]
    assert evaluate_csv(**files(truth, detections))['frame_mAP'] == 1


def test_a_keyframe_whose_boxes_are_of_other_classes_counts_as_one_without(files):
    counts = evaluate_csv(**files([*TRUTH, ('w', 902, *BOX, 9, 0), ('x', 902)], []))['counts']
    assert (counts['keyframes'], counts['keyframes_without_boxes'], counts['boxes_outside_label_map']) == (4, 2, 1)


def test_excluded_keyframes_are_removed_on_both_sides(files):
    detections = [('v', 902, *FAR, 1, .9), ('v', 903, *BOX, 1, .8)]
    arguments = files(TRUTH, detections, [('v', 902)])
    result = evaluate_csv(**arguments)
    assert result['frame_mAP'] == 1 and result['counts']['detections_excluded'] == 1
    assert evaluate_csv(**arguments | {'exclusions': None})['frame_mAP'] == pytest.approx(1 / 4)


@pytest.mark.parametrize(('truth', 'detections', 'message'), [
    (TRUTH, [('v', 902, *BOX, 1)], '1 detections have no score .the first: v,0902'),
    ([('v', 902)], [('v', 902, *BOX, 1, .5)], 'nothing to evaluate'),
    (TRUTH, [('v', 902, *BOX, 1, .5), ('v', 902, *BOX, 1, 'x')], 'detections.csv, line 2'),
    (TRUTH, [('v', 902, *BOX, 1, .5), ('v', 902, .3, .1, .1, .3, 1, .5)], 'detections.csv, line 2.*x1 must be less'),
    (TRUTH, [('v', 902, *BOX, 1, .5), ('v', 902, 31, 10, 99, 80, 1, .5)], 'detections.csv, line 2.*pixels'),
])
def test_what_cannot_be_evaluated_is_refused(files, truth, detections, message):
    with pytest.raises(UserError, match=message):
        evaluate_csv(**files(truth, detections))


def test_boxes_of_a_person_detector_are_refused(files):
    arguments = files(TRUTH, [])
    arguments['detections'].write_text('v,0902,0.1,0.1,0.3,0.3,,0.9\n')
    with pytest.raises(UserError, match='1 detections have no action'):
        evaluate_csv(**arguments)


@pytest.mark.parametrize('module', ['vididi_jax.detection.evaluator', 'vididi_jax.evaluate.detection'])
def test_the_command_is_light_and_prints_the_result(files, root, module):
    arguments = files(TRUTH, [('v', 902, *BOX, 1, .9)])
    command = [sys.executable, '-X', 'importtime', '-m', module,
               *(f'--{name}={path}' for name, path in arguments.items())]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == 'frame-mAP@0.5 50.00' and 'keyframes 2' in done.stdout
    modules = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines()}
    assert not modules & {'jax', 'flax', 'tensorflow', 'pandas'}
    done = subprocess.run([sys.executable, *command[3:], '--detections=nowhere.csv'], cwd=root, capture_output=True,
                          text=True)
    assert done.returncode == 1 and done.stderr.startswith('error: nowhere.csv cannot be read')


def test_classes_of_one_name_are_told_apart(tmp_path):
    (tmp_path / 'truth').write_text('v,0902,0,0,.5,.5,1,0\nv,0902,0,0,.5,.5,2,0\n')
    (tmp_path / 'found').write_text('v,0902,0,0,.5,.5,1,.9\nv,0902,.6,.6,.9,.9,2,.9\n')
    (tmp_path / 'map').write_text('1: run\n2: run\n')
    got = evaluate_csv(tmp_path / 'truth', tmp_path / 'found', tmp_path / 'map')
    assert got['per_class'] == {'run (1)': 1.0, 'run (2)': 0.0}
