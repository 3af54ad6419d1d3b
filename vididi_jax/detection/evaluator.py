"""Frame-mAP of a submission in AVA's format.

`python -m vididi_jax.detection.evaluator --ground_truth=CSV --detections=CSV --label_map=FILE [--exclusions=CSV]`
"""

import argparse
from collections import Counter
from pathlib import Path

from vididi_jax.detection.ava import read_boxes, read_exclusions, read_label_map
from vididi_jax.detection.frame_map import frame_map
from vididi_jax.errors import Parser, one_sentence


def evaluate_csv(
    ground_truth: str | Path, detections: str | Path, label_map: str | Path, exclusions: str | Path | None = None
) -> dict:
    """Frame-mAP at an intersection over union of 0.5, by the rules of AVA's official evaluator (`frame_map`).

    Args:
      ground_truth, detections: CSV files of boxes (`vididi_jax.detection.ava`); detections may reach beyond the frame
        by up to its size, and those without an area are removed.
      label_map: the evaluated classes.
      exclusions: CSV file of excluded keyframes; None for none.

    Returns:
      {'frame_mAP': float in [0, 1], 'per_class': {name: AP} of the classes that have ground truth, 'counts': of
      keyframes, boxes and detections, and of those that do not count, by reason}.

    Raises:
      UserError: a file cannot be read or has a malformed row (named with file and line), a detection has no action or
        no score, or there is no ground truth.
    """
    names = read_label_map(label_map)
    excluded = set() if exclusions is None else read_exclusions(exclusions)
    result = frame_map(read_boxes(ground_truth), read_boxes(detections, detected=True), names, excluded)
    times = Counter(names.values())
    titles = {number: name if times[name] == 1 else f'{name} ({number})' for number, name in names.items()}
    return {'frame_mAP': result.mean, 'counts': result.counts,
            'per_class': {titles[number]: value for number, value in result.per_class.items()}}


@one_sentence()
def main() -> None:
    parser = Parser(prog='python -m vididi_jax.detection.evaluator', description=evaluate_csv.__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('ground_truth', 'detections', 'label_map', 'exclusions'):
        parser.add_argument(f'--{name}', required=name != 'exclusions', metavar='FILE')
    result = evaluate_csv(**vars(parser.parse_args()))
    for name, value in result['per_class'].items():
        print(f'{100 * value:6.2f}  {name}')
    print(', '.join(f'{name.replace("_", " ")} {count:,}' for name, count in result['counts'].items()))
    print(f'frame-mAP@0.5 {100 * result["frame_mAP"]:.2f}')


if __name__ == '__main__':
    main()
