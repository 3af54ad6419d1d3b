"""Frame-mAP of action detection, by the rules of AVA's official evaluator.

A detection of a class is right if, of the keyframe's ground-truth boxes of that class, the one with the highest
intersection over union reaches 0.5 and no detection with a higher score has it. AP is the area under the curve of
precision over recall, precision made non-increasing; frame-mAP is its mean over the classes that have ground truth.

Reference: Gu et al., AVA, CVPR 2018; https://github.com/activitynet/ActivityNet, Evaluation/get_ava_performance.py.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from vididi_jax.detection.ava import NO_ACTION, Boxes, Keyframe, keyframe_id
from vididi_jax.errors import UserError

MOST = 50  # detections of a keyframe
THRESHOLD = 0.5


class FrameMap(NamedTuple):
    """The result of an evaluation.

    Attributes:
      mean: over the classes that have ground truth.
      per_class: class id -> AP, of those classes.
      counts: 'keyframes', 'keyframes_without_boxes' (of them), 'keyframes_excluded'; 'boxes' (ground-truth rows that
        count), 'boxes_excluded', 'boxes_outside_label_map'; 'detections' (that count) and those that do not:
        'detections_excluded' (of excluded keyframes), 'detections_unlisted' (of keyframes that the ground truth does
        not list), 'detections_outside_label_map', 'detections_over_50' of a keyframe, 'detections_without_area';
        'classes', 'classes_without_boxes'.
    """

    mean: float
    per_class: dict[int, float]
    counts: dict[str, int]


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes x1, y1, x2, y2, pair by pair: (..., 4), (..., 4) -> (...)."""
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    common = np.prod(np.maximum(sides, 0), axis=-1)
    area = [np.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (first, second)]
    return common / (area[0] + area[1] - common)


def average_precision(right: np.ndarray, positives: int) -> float:
    """AP = 1/P sum over right detections i of max_{j >= i} precision_j.

    Args:
      right: (D,) bool, whether each detection is right, in descending order of scores.
      positives: P, the number of ground-truth boxes.

    >>> average_precision(np.array([True, False, True]), 2)
    0.8333333333333333
    """
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[right].sum() / positives)


def _right(
    frames: np.ndarray, boxes: np.ndarray, truth_frames: np.ndarray, truth: np.ndarray
) -> np.ndarray:
    """Which detections of a class are right.

    Args:
      frames, boxes: (D,) keyframe numbers and (D, 4), in descending order of scores.
      truth_frames, truth: (P,) in ascending order, and (P, 4).

    Returns:
      (D,) bool.
    """
    start, stop = (np.searchsorted(truth_frames, frames, side) for side in ('left', 'right'))
    count = stop - start
    detection = np.repeat(np.arange(len(frames)), count)  # every pair of one keyframe
    pair = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count) + start[detection]
    value = iou(boxes[detection], truth[pair])
    order = np.lexsort((pair, -value, detection))  # of each detection: the highest first, then the first in the file
    detection, first = np.unique(detection[order], return_index=True)
    best, value = pair[order][first], value[order][first]
    reached = value >= THRESHOLD
    _, claim = np.unique(best[reached], return_index=True)  # the first, that is the highest score, has it
    right = np.zeros(len(frames), bool)
    right[detection[reached][claim]] = True
    return right


def _frames(boxes: Boxes, number: dict[Keyframe, int]) -> np.ndarray:
    """(N,) number of each row's keyframe, -1 if it has none."""
    return np.array([number.get(key, -1) for key in boxes.of_row()], np.int64)


def _under_cap(frames: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(N,) bool: the MOST rows of each keyframe with the highest scores; of equal ones the first."""
    order = np.lexsort((-scores, frames))  # stable
    ordered = frames[order]
    kept = np.empty(len(frames), bool)
    kept[order] = np.arange(len(frames)) - np.searchsorted(ordered, ordered) < MOST
    return kept


def frame_map(
    truth: Boxes, detections: Boxes, classes: Iterable[int], exclusions: Iterable[Keyframe] = ()
) -> FrameMap:
    """Frame-mAP at an intersection over union of 0.5.

    Excluded keyframes are removed. Detections of keyframes that `truth` does not list are ignored; those of a listed
    keyframe without boxes are wrong. Detections of classes outside `classes` are dropped, then all but the 50 highest
    scores of a keyframe, then those whose box has no area. Equal scores stand in the order of keyframes (video,
    timestamp), then of rows.

    Args:
      truth: ground truth; a row an action of a box.
      detections: each with an action and a score.
      classes: ids of the label map.
      exclusions: excluded keyframes.

    Raises:
      UserError: a detection without action or score, or no ground truth of any class.
    """
    for wrong, what in ((detections.action == NO_ACTION, 'action'), (np.isnan(detections.score), 'score')):
        if wrong.any():
            first = keyframe_id(*detections.of_row()[int(wrong.argmax())])
            raise UserError(f'{wrong.sum():,} detections have no {what} (the first: {first}): give a file with rows '
                            'video,timestamp,x1,y1,x2,y2,action,score.')
    classes, exclusions = sorted(set(classes)), set(exclusions)
    listed = [key for key in truth.keyframes if key not in exclusions]
    number = {key: i for i, key in enumerate(sorted(listed))}
    truth_frames, frames = _frames(truth, number), _frames(detections, number)
    truth_known, known = (np.isin(boxes.action, classes) for boxes in (truth, detections))
    excluded = np.array([key in exclusions for key in detections.of_row()], bool)
    counted = (frames >= 0) & known
    under_cap = counted.copy()
    under_cap[counted] = _under_cap(frames[counted], detections.score[counted])
    kept = under_cap & ~detections.flat()
    truth_kept = (truth_frames >= 0) & truth_known
    per_class = {}
    for label in classes:
        mine = np.flatnonzero(truth_kept & (truth.action == label))
        if not len(mine):
            continue
        mine = mine[np.argsort(truth_frames[mine], kind='stable')]
        found = np.flatnonzero(kept & (detections.action == label))
        found = found[np.lexsort((found, frames[found], -detections.score[found]))]
        right = _right(frames[found], detections.box[found], truth_frames[mine], truth.box[mine])
        per_class[label] = average_precision(right, len(mine))
    if not per_class:
        raise UserError('the ground truth has no box of any class of the label map in a keyframe that is not excluded: '
                        'there is nothing to evaluate.')
    counts = {
        'keyframes': len(listed), 'keyframes_without_boxes': len(listed) - len(np.unique(truth_frames[truth_kept])),
        'keyframes_excluded': len(truth.keyframes) - len(listed),
        'boxes': truth_kept.sum(), 'boxes_excluded': (truth_frames < 0).sum(),
        'boxes_outside_label_map': ((truth_frames >= 0) & ~truth_known).sum(),
        'detections': kept.sum(), 'detections_excluded': excluded.sum(),
        'detections_unlisted': ((frames < 0) & ~excluded).sum(),
        'detections_outside_label_map': ((frames >= 0) & ~known).sum(),
        f'detections_over_{MOST}': (counted & ~under_cap).sum(), 'detections_without_area': (under_cap & ~kept).sum(),
        'classes': len(per_class), 'classes_without_boxes': len(classes) - len(per_class)}
    return FrameMap(float(np.mean(list(per_class.values()))), per_class,
                    {name: int(count) for name, count in counts.items()})
