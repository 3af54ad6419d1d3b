"""AVA: one clip around each keyframe, cut by time, with its boxes (Gu et al., CVPR 2018; v2.1 and v2.2).

A record is a keyframe, its id 'VIDEO,0902', its group the video. Beside the shards stand the annotations and the
excluded keyframes as they were given, the label maps, and the person detector's boxes with an area and a score of at
least --min_score, under the names of `data_prep motion --boxes`. A keyframe outside its video is broken, with its
reason.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from vididi_jax.detection import ava as formats
from vididi_jax.errors import UserError

from .cut import cut_clip
from .decode import Decoded, broken
from .plan import Plan, Video, shown
from .tree import EXTENSIONS, add_allow_missing, check_folder, check_missing, is_file, is_hidden

SPLITS = ('train', 'test')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--videos', required=True, help="folder of files VIDEO.EXTENSION, with AVA's names of videos")
    for split in SPLITS:
        parser.add_argument(f'--{split}', required=True, metavar='CSV', help=f'annotations of the {split} split')
    parser.add_argument('--label_map', required=True, metavar='FILE', help='of the classes, .pbtxt or lines `1: name`')
    parser.add_argument('--evaluated_label_map', metavar='FILE',
                        help="of the classes that count in evaluation, if not all: AVA's 60 of 80")
    for split in SPLITS:
        parser.add_argument(f'--excluded_{split}', metavar='CSV', help=f'excluded timestamps of the {split} split')
    for split in SPLITS:
        parser.add_argument(f'--boxes_{split}', metavar='CSV', help=f'boxes of a person detector, {split} split')
    parser.add_argument('--min_score', type=float, default=0.8, help='of the boxes that are kept (0.8)')
    parser.add_argument('--fps', type=float, default=15.0, help='frames a second of the clips (15)')
    parser.add_argument('--frames', type=int, default=32, help='frames of a clip (32)')
    parser.add_argument('--starts_at', type=float, default=0.0, metavar='SECONDS',
                        help='where in the film the files begin: 0 for whole films (default), 900 for the usual cuts')
    add_allow_missing(parser)


def decode(video: Video, *, root: str, starts_at: float, **clip) -> Decoded:
    """Cut the clip of a keyframe."""
    _, timestamp = formats.parse_keyframe_id(video.id)
    if timestamp < starts_at:
        return broken(f'the keyframe at {timestamp} s is outside its video, which starts at {starts_at:g} s')
    return cut_clip(Path(root) / video.path, timestamp - starts_at, **clip)


def read_label_maps(label_map: str, evaluated: str | None) -> tuple[dict[int, str], dict[str, str]]:
    """The classes, and the label maps as they are stored."""
    names = formats.read_label_map(label_map)
    files = {formats.LABEL_MAP: formats.format_label_map(names)}
    if evaluated:
        counting = formats.read_label_map(evaluated)
        if unknown := sorted(set(counting) - set(names)):
            raise UserError(f'{evaluated} has the class {unknown[0]} ({len(unknown):,} in all) that {label_map} lacks: '
                            'give --label_map all classes, and --evaluated_label_map some of them.')
        files[formats.EVALUATED_LABEL_MAP] = formats.format_label_map(counting)
        print(f'{len(counting):,} of {len(names):,} classes count in evaluation')
    return names, files


def _find_videos(root: Path) -> dict[str, str]:
    """Name -> file name of the videos of a folder; raises `UserError` if two files are of one name."""
    found = {}
    for path in sorted(root.iterdir()):
        if path.suffix.lower() in EXTENSIONS and not is_hidden(path.relative_to(root)) and is_file(path):
            if path.stem in found:
                raise UserError(f'{root} has two files of the video {path.stem}: {found[path.stem]} and {path.name}: '
                                'leave one.')
            found[path.stem] = path.name
    return found


def read_annotations(
    path: str, excluded: str | None, split: str, names: dict[int, str]
) -> tuple[list[formats.Keyframe], dict[str, str]]:
    """The keyframes of a split that are not excluded, and the split's files as they are stored; prints the counts."""
    boxes = formats.read_boxes(path)
    exclusions = formats.read_exclusions(excluded) if excluded else set()
    keyframes = [key for key in boxes.keyframes if key not in exclusions]
    rows = [(*key, *box) for key, box in zip(boxes.of_row(), boxes.box.tolist(), strict=True)]
    outside = int((~np.isin(boxes.action, list(names))).sum())
    print(f'{split}: {len(boxes.keyframes):,} keyframes of {len({video for video, _ in boxes.keyframes}):,} videos '
          f'listed, {len(boxes.keyframes) - len(keyframes):,} of them excluded, '
          f'{len(set(boxes.keyframes) - set(boxes.of_row())):,} without boxes; {len(set(rows)):,} boxes with '
          f'{len(rows):,} actions, {outside:,} of them not in the label map')
    if not keyframes:
        raise UserError(f'{path} lists no keyframe that is not excluded: give the annotations of the {split} split.')
    files = {formats.file_name(formats.ANNOTATIONS, split): formats.read_text(path)}
    if excluded:
        files[formats.file_name(formats.EXCLUDED, split)] = formats.read_text(excluded)
    return keyframes, files


def read_detections(path: str, split: str, keyframes: list[formats.Keyframe], min_score: float) -> dict[str, str]:
    """The file of a person detector's boxes with an area and a score of at least `min_score`; prints the counts."""
    boxes = formats.read_boxes(path, detected=True)
    if np.isnan(boxes.score).any():
        first = formats.keyframe_id(*boxes.of_row()[int(np.isnan(boxes.score).argmax())])
        raise UserError(f'{path} has boxes without a score (the first: {first}): rows must be '
                        'video,timestamp,x1,y1,x2,y2,,score.')
    high, flat = boxes.score >= min_score, boxes.flat()
    kept = boxes.select(high & ~flat)
    with_boxes, listed = set(kept.of_row()), set(keyframes)
    print(f'{split}: {high.sum():,} of {len(boxes.score):,} detected boxes have a score of at least {min_score:g}, '
          f'{(high & flat).sum():,} of them have no area and are left out; {len(with_boxes & listed):,} of '
          f'{len(keyframes):,} keyframes have one, and {sum(key not in listed for key in kept.of_row()):,} boxes are '
          'of keyframes that are not listed')
    return {formats.file_name(formats.DETECTOR, split): formats.format_boxes(kept)}


def plan(arguments: argparse.Namespace) -> tuple[Plan, partial]:
    """Every keyframe that is listed and not excluded.

    Raises:
      UserError: a malformed file, a video in both splits, videos that are missing (unless that is allowed).
    """
    if arguments.fps <= 0 or arguments.frames < 1 or arguments.starts_at < 0:
        raise UserError('ava needs --fps above 0, --frames of at least 1 and --starts_at of at least 0.')
    root = check_folder(arguments.videos, '--videos')
    names, files = read_label_maps(arguments.label_map, arguments.evaluated_label_map)
    listed, side = [], {}
    for split in SPLITS:
        keyframes, mine = read_annotations(
            getattr(arguments, split), getattr(arguments, f'excluded_{split}'), split, names)
        files |= mine
        if detections := getattr(arguments, f'boxes_{split}'):
            files |= read_detections(detections, split, keyframes, arguments.min_score)
        for video, timestamp in keyframes:
            if side.setdefault(video, split) != split:
                raise UserError(f'the video {video} is in both --train and --test: give the official splits.')
            listed.append((video, timestamp, split))
    found = _find_videos(root)
    videos = [Video(formats.keyframe_id(video, timestamp), found.get(video, video), '', video, split)
              for video, timestamp, split in listed]
    missing = sorted(set(side) - set(found))
    print(f'{len(side) - len(missing):,} of {len(side):,} listed videos found below {shown(str(root))}, '
          f'{len(missing):,} missing')
    if len(missing) == len(side):
        raise UserError(f'{root} has none of the {len(side):,} listed videos (the first: {missing[0]}): it must hold '
                        'files of these names, with the ending of a video.')
    check_missing(missing, len(side), root, arguments.allow_missing)
    clip = {'fps': arguments.fps, 'count': arguments.frames, 'short_side': arguments.short_side}
    whole = Plan('ava', str(root.resolve()), ('',), tuple(video for video in videos if video.group in found),
                 tuple(video for video in videos if video.group not in found), arguments.encoding,
                 {**clip, 'starts_at': arguments.starts_at, 'min_score': arguments.min_score}, files)
    return whole, partial(
        decode, root=str(root.resolve()), starts_at=arguments.starts_at, encoding=arguments.encoding, **clip)
