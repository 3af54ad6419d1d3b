"""The one place that knows AVA's file formats (https://research.google.com/ava/download.html).

Boxes are CSV rows without a header, coordinates as shares of the frame's width and height from its top left corner:
  video,timestamp,x1,y1,x2,y2,action,person   ground truth, a row for each action of a box; timestamp in seconds
  video,timestamp,x1,y1,x2,y2,action,score    detections, as they are submitted
  video,timestamp,x1,y1,x2,y2,,score          boxes of a person detector
  video,timestamp                             a keyframe without boxes
Excluded keyframes are rows `video,timestamp`. Label maps are protocol buffers in text, or lines `1: name`.

A data set directory for detection has, beside its shards, `annotations_SPLIT.csv`, `label_map.pbtxt` and, if there are
any, `boxes_SPLIT.csv` (of a person detector), `excluded_SPLIT.csv` and `label_map_evaluated.pbtxt` (the classes that
count, of those that are learned); a record's id is its `keyframe_id`.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vididi_jax.errors import UserError
from vididi_jax.files import write_whole

LABEL_MAP, EVALUATED_LABEL_MAP = 'label_map.pbtxt', 'label_map_evaluated.pbtxt'
ANNOTATIONS, DETECTOR, EXCLUDED = 'annotations', 'boxes', 'excluded'  # files KIND_SPLIT.csv
JUDGED = ANNOTATIONS, DETECTOR  # whose boxes a detector can be judged on
NO_ACTION = -1  # where the column is empty
DIGITS = 9  # of a timestamp or the number of a class, at most
NAME = r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\''
TOKEN = re.compile(rf'\s*(?:#.*|(?P<open>\w+)\s*:?\s*\{{|(?P<close>\}})|(?P<key>\w+)\s*:\s*(?P<value>{NAME}|[\w.+-]+))')

Keyframe = tuple[str, int]


class Boxes(NamedTuple):
    """The rows of a box file as columns of one length N, in file order.

    Attributes:
      video: (N,) str.
      timestamp: (N,) int64, seconds from the start of the film.
      box: (N, 4) float64: x1, y1, x2, y2 as shares of the frame's width and height.
      action: (N,) int64; NO_ACTION where the file has none.
      score: (N,) float64, the 8th column: a score, or a person's number in ground truth; NaN where the file has none.
      keyframes: every (video, timestamp) of the file once, in order, also those without boxes.
    """

    video: np.ndarray
    timestamp: np.ndarray
    box: np.ndarray
    action: np.ndarray
    score: np.ndarray
    keyframes: tuple[Keyframe, ...]

    def of_row(self) -> list[Keyframe]:
        """The keyframe of each row."""
        return list(zip(self.video.tolist(), self.timestamp.tolist(), strict=True))

    def flat(self) -> np.ndarray:
        """(N,) bool, which boxes have no area."""
        return (self.box[:, 2:] <= self.box[:, :2]).any(1)

    def select(self, rows: np.ndarray) -> 'Boxes':
        """Some rows, by mask or index; the list of keyframes stays."""
        return Boxes(*(column[rows] for column in self[:5]), self.keyframes)


def file_name(kind: str, split: str) -> str:
    """The name of a CSV file beside the shards: kind ANNOTATIONS, DETECTOR or EXCLUDED.

    >>> file_name(ANNOTATIONS, 'train')
    'annotations_train.csv'
    """
    return f'{kind}_{split}.csv'


def keyframe_id(video: str, timestamp: int) -> str:
    """The id of a keyframe, and of its record.

    >>> keyframe_id('0f39OWEqJ24', 902)
    '0f39OWEqJ24,0902'
    """
    return f'{video},{timestamp:04d}'


def parse_keyframe_id(name: str) -> Keyframe:
    """The inverse of `keyframe_id`.

    >>> parse_keyframe_id('0f39OWEqJ24,0902')
    ('0f39OWEqJ24', 902)
    """
    video, _, timestamp = name.rpartition(',')
    return video, int(timestamp)


def make_boxes(rows: Iterable[tuple], keyframes: Iterable[Keyframe] = ()) -> Boxes:
    """Columns of rows (video, timestamp, (x1, y1, x2, y2), action, score); `keyframes` lists more than the rows do."""
    rows = list(rows)
    video, timestamp, box, action, score = zip(*rows, strict=True) if rows else ((),) * 5
    listed = dict.fromkeys((*keyframes, *zip(video, timestamp, strict=True)))
    return Boxes(np.array(video, str), np.array(timestamp, np.int64), np.array(box, np.float64).reshape(-1, 4),
                 np.array(action, np.int64), np.array(score, np.float64), tuple(listed))


def read_text(path: str | Path) -> str:
    """The text of a file; raises `UserError` if it cannot be read."""
    try:
        return Path(path).read_text(encoding='utf-8-sig')
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read ({error}): give a text file in AVA\'s format.') from error


def _rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, columns) of the lines that are not empty."""
    reader = csv.reader(io.StringIO(read_text(path), newline=''))
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f'{path}, line {reader.line_num}: {error}: repair the file.') from error


def _fail(path: str | Path, line: int, row: list[str], problem: object, form: str) -> UserError:
    return UserError(f'{path}, line {line}: {",".join(row)!r}: {problem}; rows are {form}: repair the file.')


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= DIGITS


def _keyframe(row: list[str]) -> Keyframe:
    if not row[0]:
        raise ValueError('the video has no name')
    if not _is_count(row[1]):
        raise ValueError(f'the timestamp {row[1]!r} is not a whole number of seconds of at most {DIGITS} digits')
    return row[0], int(row[1])


def _number(text: str, name: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f'{name} {text!r} is not a number') from None
    if not math.isfinite(number):
        raise ValueError(f'{name} {text!r} is not finite')
    return number


def _box(row: list[str], detected: bool) -> tuple:
    """(box, action, score) of a row; raises `ValueError` with what is wrong."""
    box = x1, y1, x2, y2 = tuple(map(_number, row[2:6], ('x1', 'y1', 'x2', 'y2')))
    if x1 > x2 or y1 > y2 or (not detected and (x1 == x2 or y1 == y2)):
        raise ValueError('x1 must be less than x2 and y1 less than y2')
    if not detected and (min(box) < 0 or max(box) > 1):
        raise ValueError('coordinates must be from 0 to 1')
    if min(box) < -1 or max(box) > 2:
        raise ValueError('the box reaches beyond the frame by more than its size (are these pixels?)')
    if not row[6] and not detected:
        raise ValueError('the action is empty')
    if row[6] and not _is_count(row[6]):
        raise ValueError(f'the action {row[6]!r} is not a number of a class of at most {DIGITS} digits')
    score = _number(row[7], 'the score') if len(row) == 8 and row[7] else np.nan
    return box, int(row[6] or NO_ACTION), score


def read_boxes(path: str | Path, *, detected: bool = False) -> Boxes:
    """Read ground truth, detections, or boxes of a person detector.

    Args:
      path: CSV file with 8, 7 (no score) or 2 (a keyframe without boxes) columns.
      detected: whether these are a detector's: boxes may reach beyond the frame by up to its size, may have no area
        and no action (all kept as they are); ground truth may not.

    Raises:
      UserError: the file cannot be read, or a row is malformed: a wrong number of columns, not a number, a box whose
        corners are in the wrong order, or what `detected` forbids. The message names file, line and row.
    """
    rows, listed = [], {}
    for line, row in _rows(path):
        try:
            if len(row) not in (2, 7, 8):
                raise ValueError(f'it has {len(row)} columns')
            keyframe = _keyframe(row)
            listed[keyframe] = None
            if len(row) > 2:
                rows.append((*keyframe, *_box(row, detected)))
        except ValueError as error:
            raise _fail(path, line, row, error, 'video,timestamp,x1,y1,x2,y2,action,score') from error
    return make_boxes(rows, listed)


def read_exclusions(path: str | Path) -> set[Keyframe]:
    """Read the excluded keyframes; raises `UserError` for a malformed row, with file, line and row."""
    found = set()
    for line, row in _rows(path):
        try:
            if len(row) != 2:
                raise ValueError(f'it has {len(row)} columns')
            found.add(_keyframe(row))
        except ValueError as error:
            raise _fail(path, line, row, error, 'video,timestamp') from error
    return found


def format_boxes(boxes: Boxes) -> str:
    """The text of a box file; nine digits, so that float32 comes back exactly. Keyframes without boxes come last."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator='\n')
    columns = (column.tolist() for column in boxes[2:5])
    for (video, timestamp), box, action, score in zip(boxes.of_row(), *columns, strict=True):
        scores = [] if math.isnan(score) else [f'{score:.9g}']
        writer.writerow([video, f'{timestamp:04d}', *(f'{x:.9g}' for x in box), '' if action < 0 else action, *scores])
    with_boxes = set(boxes.of_row())
    writer.writerows((video, f'{time:04d}') for video, time in boxes.keyframes if (video, time) not in with_boxes)
    return file.getvalue()


def write_boxes(path: str | Path, boxes: Boxes) -> None:
    """Write a box file: the official form of a submission, if every row has an action and a score."""
    write_whole(Path(path), format_boxes(boxes))


def format_label_map(names: dict[int, str]) -> str:
    """The text of a label map, as the official evaluator reads it."""
    escaped = {number: name.replace('\\', '\\\\').replace('"', '\\"') for number, name in names.items()}
    return ''.join(f'item {{\n  name: "{name}"\n  id: {number}\n}}\n' for number, name in escaped.items())


def read_label_map(path: str | Path) -> dict[int, str]:
    """Read a label map: id -> name, in ascending order of ids.

    Forms: `item { name: "..." id: 1 }`, the full lists' `label { name: "..." label_id: 1 label_type: ... }`, and lines
    `1: name`.

    Raises:
      UserError: the file cannot be read or is none of these, has no classes, or an id comes twice; names the line.
    """
    text = read_text(path)
    entries = _list_entries if re.match(r'\s*\d', text) else _block_entries
    names = {}
    try:
        for line, number, name in entries(text):
            if number is None or not _is_count(number) or not int(number) or not name:
                raise ValueError(line, f'the class {name!r} has no name, or no number from 1 on of at most {DIGITS} '
                                       f'digits ({number!r})')
            if int(number) in names:
                raise ValueError(line, f'the class {number} is listed a second time')
            names[int(number)] = name
    except ValueError as error:
        line, problem = error.args
        raise UserError(f'{path}, line {line}: {problem}; a label map has `item {{ name: "..." id: 1 }}` or lines '
                        '`1: name`: repair the file.') from error
    if not names:
        raise UserError(f'{path} has no classes: give a label map such as AVA\'s.')
    return dict(sorted(names.items()))


def _list_entries(text: str) -> Iterator[tuple[int, str, str]]:
    for line, entry in enumerate(text.splitlines(), 1):
        number, colon, name = entry.partition(':')
        if entry.strip() and not colon:
            raise ValueError(line, f'{entry!r} has no colon')
        if entry.strip():
            yield line, number.strip(), name.strip()


def _block_entries(text: str) -> Iterator[tuple[int, str | None, str | None]]:
    position, block, end = 0, None, len(text.rstrip())
    while position < end:
        token = TOKEN.match(text, position)
        start = token.end() if token else position + len(text[position:]) - len(text[position:].lstrip())
        line = text.count('\n', 0, start) + 1
        if not token or (token['open'] and (block is not None or token['open'] not in ('item', 'label'))) or (
                block is None and (token['close'] or token['key'])):
            raise ValueError(line, f'{text.splitlines()[line - 1].strip()!r} is not expected here')
        if token['open']:
            block = {}
        elif token['close']:
            yield line, block.get('id', block.get('label_id')), block.get('name')
            block = None
        elif token['key']:
            value = token['value']
            block[token['key']] = re.sub(r'\\(.)', r'\1', value[1:-1]) if value[0] in '"\'' else value
        position = token.end()
    if block is not None:
        raise ValueError(text.count('\n', 0, end) + 1, 'the last class is not closed by }')
