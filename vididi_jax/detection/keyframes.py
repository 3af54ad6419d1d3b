"""The boxes and actions of a detection data set's records, as arrays of fixed shape."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from vididi_jax.detection import ava
from vididi_jax.errors import UserError


class Keyframes(NamedTuple):
    """Boxes of N records, padded to the largest number M of boxes of one record (at least 1).

    Attributes:
      boxes: (N, M, 4) float32: x1, y1, x2, y2 as shares of the frame's width and height; 0 where there is no box.
      labels: (N, M, C) bool, the actions of a box, in the label map's ascending order of ids.
      mask: (N, M) bool, where there is a box.
      score: (N, M) float32, a detector's score; NaN where the file has none or there is no box.
      counts: what there is, and what of the file has no place here: 'keyframes', 'keyframes_without_boxes',
        'keyframes_without_record', 'boxes', 'labels', 'labels_outside_map'.
    """

    boxes: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    score: np.ndarray
    counts: dict[str, int]


def arrange_keyframes(ids: Iterable[str], boxes: ava.Boxes, classes: Iterable[int]) -> Keyframes:
    """Padded arrays of the boxes of records.

    Rows of one keyframe with the same coordinates are one box with several actions (and the first row's score). Actions
    that are not in `classes` are counted; their box stays, as one that shows none of the classes.

    Args:
      ids: of the records (`ava.keyframe_id`), in the order of the result.
      boxes: rows of any keyframes; those of others than `ids` are left out, and their keyframes counted.
      classes: ids of the label map.
    """
    ids, column = list(ids), {number: i for i, number in enumerate(sorted(classes))}
    people = {name: {} for name in ids}  # record -> coordinates -> (score, columns of the actions)
    outside = 0
    for key, box, action, score in zip(boxes.of_row(), boxes.box, boxes.action.tolist(), boxes.score, strict=True):
        if (found := people.get(ava.keyframe_id(*key))) is None:
            continue
        _, actions = found.setdefault(tuple(box.tolist()), (score, set()))
        if action in column:
            actions.add(column[action])
        elif action != ava.NO_ACTION:
            outside += 1
    shape = len(ids), max([1, *map(len, people.values())])
    corners, labels = np.zeros((*shape, 4), np.float32), np.zeros((*shape, len(column)), bool)
    mask, scores = np.zeros(shape, bool), np.full(shape, np.nan, np.float32)
    for i, name in enumerate(ids):
        for j, (box, (score, actions)) in enumerate(people[name].items()):
            corners[i, j], mask[i, j], scores[i, j] = box, True, score
            labels[i, j, list(actions)] = True
    return Keyframes(corners, labels, mask, scores, {
        'keyframes': len(ids), 'keyframes_without_boxes': int((~mask.any(1)).sum()),
        'keyframes_without_record': sum(ava.keyframe_id(*key) not in people for key in boxes.keyframes),
        'boxes': int(mask.sum()), 'labels': int(labels.sum()), 'labels_outside_map': outside})


def open_keyframes(source, kind: str = ava.ANNOTATIONS) -> Keyframes:
    """The boxes of a split of a detection data set directory, one row of the arrays a record.

    Args:
      source: the split's `RecordSource`.
      kind: 'annotations' (ground truth, with labels) or 'boxes' (of the person detector, without).

    Raises:
      UserError: there is no such file, it is malformed, or the annotations do not list the keyframe of a record.
    """
    path = source.directory / ava.file_name(kind, source.split)
    if kind == ava.DETECTOR and path.name not in source.files:
        raise UserError(f'{path} is no file of the data set: give data_prep --boxes_{source.split}, or ask for the '
                        'ground truth with --config.detection.boxes=annotations.')
    for name in (path.name, ava.LABEL_MAP):
        if name not in source.files:
            raise UserError(f'{source.directory / name} is no file of the data set, so it is none for detection: '
                            'prepare one with `python -m data_prep ava` or `motion --boxes`.')
    boxes = ava.read_boxes(path, detected=kind == ava.DETECTOR)
    ids = source.ids.tolist()
    listed = {ava.keyframe_id(*key) for key in boxes.keyframes}
    unlisted = [name for name in ids if name not in listed]
    if kind == ava.ANNOTATIONS and unlisted:
        raise UserError(f'{path} does not list the keyframe {unlisted[0]!r} ({len(unlisted):,} in all) of the data '
                        'set: prepare the data set again.')
    return arrange_keyframes(ids, boxes, ava.read_label_map(source.directory / ava.LABEL_MAP))
