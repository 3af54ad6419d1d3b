"""Action detection: training on boxes through the one training loop, then the detections of the test keyframes.

Reference: Gu et al., AVA, CVPR 2018.
"""

import dataclasses
import hashlib
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from vididi_jax.compilation import jit_with_options
from vididi_jax.config import to_dict
from vididi_jax.data import pipeline
from vididi_jax.data.clips import centre_frames_needed
from vididi_jax.detection import ava
from vididi_jax.detection.evaluator import evaluate_csv
from vididi_jax.detection.frame_map import frame_map
from vididi_jax.detection.keyframes import Keyframes, open_keyframes
from vididi_jax.detection.model import Detector, make_step
from vididi_jax.errors import UserError
from vididi_jax.evaluate.gather import batch_size_for, check_finite, gathered
from vididi_jax.evaluate.protocol import Fold, check_apart, open_complete, whole
from vididi_jax.evaluate.results import check_name, write_results
from vididi_jax.evaluate.views import check_frames
from vididi_jax.fields import check_fields
from vididi_jax.files import write_whole
from vididi_jax.pictures import keyframe_picture
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.pixels.boxes import whole_frames
from vididi_jax.schedule import order_name
from vididi_jax.train import loop
from vididi_jax.train import mesh as meshes
from vididi_jax.train.encoder import Encoder, asked_encoder, check_same_everywhere
from vididi_jax.train.processes import locked_together, on_process_zero, raise_together
from vididi_jax.train.run import changed_fields, workdir_config
from vididi_jax.train.state import TrainState
from vididi_jax.train.supervised import ANEW, run_config, supervised_task

PICTURES = 12  # keyframes shown


class Detection(NamedTuple):
    """A checked evaluation.

    Attributes:
      config: of the evaluation.
      workdir: of the encoder.
      training: config that the encoder was trained with, its augmentation replaced by this task's.
      encoder: trained, or untrained if `config.eval.untrained`, without the last stage's spatial stride.
      data: the split that is learned from, and the one that is asked.
      boxes: to learn from, with labels; those to be judged; and the ground truth of the latter's keyframes.
    """

    config: ml_collections.ConfigDict
    workdir: Path
    training: ml_collections.ConfigDict
    encoder: Encoder
    data: Fold
    boxes: tuple[Keyframes, Keyframes, Keyframes]

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.workdir / 'eval' / self.config.eval.name

    @property
    def run_folder(self) -> Path:
        """Where the detector is trained, or was: `config.eval.run` is another evaluation whose run it is."""
        return self.workdir / 'eval' / (self.config.eval.run or self.config.eval.name) / 'run'

    @property
    def counting(self) -> Path:
        """The label map of the classes that count."""
        source = self.data.test.source
        name = ava.EVALUATED_LABEL_MAP if ava.EVALUATED_LABEL_MAP in source.files else ava.LABEL_MAP
        return source.directory / name

    def file(self, kind: str) -> Path | None:
        """The CSV file of the test split; None if the data set has none of this kind."""
        source = self.data.test.source
        name = ava.file_name(kind, source.split)
        return source.directory / name if name in source.files else None


def open_detection(config, workdir: str) -> Detection:
    """Check the config and the data, and load the encoder; raises `UserError` at the first thing that does not fit."""
    found = _open(config, workdir)
    check_same_everywhere(config, found.data.test.source.fingerprint, found.encoder)
    return found


@raise_together
def _open(config, workdir: str) -> Detection:
    settings, recipe = config.eval, config.detection
    check_fields(config)
    if settings.frames <= max(recipe.orders):
        raise UserError(f'eval.frames is {settings.frames}: there must be more frames than the highest derivative '
                        f'order, {max(recipe.orders)}.')
    training = workdir_config(workdir)
    check_frames(settings.frames, tuple(recipe.orders), training.model.name)
    training = ml_collections.ConfigDict(to_dict(training) | {'augment': to_dict(training.augment) | to_dict(
        config.augment)})
    if settings.run and not (Path(workdir) / 'eval' / settings.run / 'run' / 'config.json').is_file():
        raise UserError(f'eval.run is {settings.run!r}, and {workdir} has no run of a detector of that name: leave it '
                        'empty to train one.')
    spec = Augmentation(**training.augment)
    if spec.shift:
        raise UserError(f'augment.shift is {spec.shift}: shifts wrap around, and a box cannot: set it to 0.')
    sources = [open_complete(config.data.dir, split, config.allow_missing) for split in (settings.train, settings.test)]
    data = Fold(f'{sources[0].name}/{settings.train}-{settings.test}', *map(whole, sources))
    check_name(workdir, config, protocol=data.name)  # of data whose boxes were edited the result is a new one
    check_apart(data)
    needed = centre_frames_needed(settings.frames, settings.stride)
    short = [side.source.rows[i]['id'] for side in (data.train, data.test) for i in side.videos
             if side.source.num_frames[i] < needed]
    if short:
        raise UserError(f'{len(short):,} records (the first: {short[0]}) have fewer than the {needed} frames that a '
                        'clip around the keyframe needs: lower eval.frames or eval.stride, or prepare longer records.')
    train, truth = (open_keyframes(source) for source in sources)
    asked = truth if recipe.boxes == ava.ANNOTATIONS else open_keyframes(sources[1], ava.DETECTOR)
    for keyframes, what in ((train, f'the annotations of {settings.train}'), (asked, f'{recipe.boxes} of '
                                                                               f'{settings.test}')):
        if not keyframes.mask.any():
            raise UserError(f'{what} in {config.data.dir} have no box of any record: prepare the data set again.')
    if not train.labels.any():
        raise UserError(f'no action of the annotations of {settings.train} in {config.data.dir} is of a class of '
                        f'{ava.LABEL_MAP}, so there is nothing to learn: prepare the data set again, with the label '
                        'map of its annotations.')
    encoder = asked_encoder(training, workdir, settings, scratch=True)
    encoder = encoder._replace(module=encoder.module.clone(last_stride=1))
    detection = Detection(config, Path(workdir), training, encoder, data, (train, asked, truth))
    check_judge(detection)
    if settings.run:
        check_trained_alike(detection)
    return detection


def check_judge(detection: Detection) -> None:
    """Raises `UserError` if a file that detections are to be judged by cannot be read, or leaves nothing to judge."""
    truth, excluded = ava.read_boxes(detection.file(ava.ANNOTATIONS)), detection.file(ava.EXCLUDED)
    frame_map(truth, ava.make_boxes(()), ava.read_label_map(detection.counting),
              ava.read_exclusions(excluded) if excluded else ())


def check_trained_alike(detection: Detection) -> None:
    """Raises `UserError` if the detector that `eval.run` names was trained otherwise than this config says."""
    changed = changed_fields(training_config(detection), detection.run_folder)
    if changed:
        raise UserError(f'the detector of {detection.run_folder} was trained with another {changed[0]} '
                        f'({len(changed)} field(s) differ): leave eval.run empty to train one, or give its config.')


def training_config(detection: Detection) -> ml_collections.ConfigDict:
    """The config of the training run: what is asked at the end is no part of it; boxes that are learned from are."""
    config = detection.config
    source = detection.data.train.source
    learned = [Path(source.directory) / name for name in (ava.file_name(ava.ANNOTATIONS, source.split), ava.LABEL_MAP)]
    annotations = hashlib.sha256(b'\0'.join(path.read_bytes() for path in learned)).hexdigest()[:16]
    recipe = {name: value for name, value in to_dict(config.detection).items() if name != 'boxes'}
    return run_config(
        detection, 'detection', detection=recipe, protocol=detection.data.name,
        data={'dir': str(source.place), 'workers': config.data.workers,
              'annotations': annotations},
        clip={'frames': config.eval.frames, 'stride': config.eval.stride})


def train(detection: Detection, model: Detector) -> TrainState:
    """Train in `run_folder`, or go on there."""
    config, data = detection.config, detection.data
    keyframes = detection.boxes[0]

    def complete(batch: dict) -> dict:
        return batch | {name: getattr(keyframes, name)[batch['record']] for name in ('boxes', 'labels', 'mask')}

    return loop.run(training_config(detection), detection.run_folder, partial(
        supervised_task, model=model, source=data.train.source, videos=data.train.videos, recipe=config.detection,
        name=data.name, placement='centre', inputs=('clips', 'size', 'boxes', 'labels', 'mask'), make_step=make_step,
        complete=complete, fingerprint=data.train.source.split_fingerprint))


@jit_with_options(static_argnames=('model', 'spec'))
def _probabilities(model: Detector, variables, batch: dict[str, jax.Array], spec: Augmentation):
    pixels, boxes = whole_frames(batch['clips'][:, 0], batch['size'], batch['boxes'], spec)
    return model(variables, pixels, boxes)


def probabilities(detection: Detection, model: Detector, state: TrainState) -> dict[str, np.ndarray]:
    """{'V', 'dV', 'd2V', and 'joined', their mean, where there are several: (N, M, C)} of the boxes to be judged.

    Raises `UserError` if some are not finite, which in evaluation mode a finite loss allows.
    """
    config, source, keyframes = detection.config, detection.data.test.source, detection.boxes[1]
    spec = dataclasses.replace(Augmentation(**detection.training.augment), size=config.eval.size)
    mesh = meshes.make_mesh()
    size = batch_size_for(mesh, 16)  # large frames
    batches = pipeline.keyframe_batches(
        source, length=config.eval.frames, stride=config.eval.stride, batch_size=size, records=np.arange(len(source)),
        rows=meshes.rows_here(mesh, size))
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    found = list(gathered(
        lambda batch: _probabilities(model, variables, batch, spec), batches, mesh=mesh, count=len(source),
        inputs=('clips', 'size', 'boxes'), workers=config.data.workers, unit='keyframe',
        complete=lambda batch: batch | {'boxes': keyframes.boxes[batch['record']]}))
    kinds = {order_name(order): np.concatenate([values[order] for values in found]) for order in model.orders}
    check_finite(kinds.values(), source.ids, 'probabilities', ANEW)
    return {**kinds, 'joined': np.mean(list(kinds.values()), axis=0)} if len(kinds) > 1 else kinds


def submission(ids: list[str], keyframes: Keyframes, scores: np.ndarray, classes: list[int]) -> ava.Boxes:
    """A row for each box and class, in the order of records, boxes and classes.

    Args:
      ids: of the N records.
      keyframes: their boxes.
      scores: (N, M, C).
      classes: C ids.
    """
    record, box = np.nonzero(keyframes.mask)
    keys = [ava.parse_keyframe_id(ids[i]) for i in record]
    repeat = partial(np.repeat, repeats=len(classes), axis=0)
    return ava.Boxes(
        repeat(np.array([video for video, _ in keys])), repeat(np.array([time for _, time in keys])),
        repeat(keyframes.boxes[record, box]), np.tile(classes, len(record)), scores[record, box].ravel(),
        tuple(dict.fromkeys(keys)))


def run(config, workdir: str) -> dict:
    """Train a detector on the encoder of `workdir`, and judge it by the files it writes to `eval/NAME`.

    For V, or the mean of all heads, `detections.csv`; for a head among several also `detections_HEAD.csv`. Beside them
    `results.json` and `keyframes.png`.
    """
    detection = open_detection(config, workdir)
    names = ava.read_label_map(Path(detection.data.test.source.directory) / ava.LABEL_MAP)
    recipe = config.detection
    model = Detector(
        detection.encoder.module, tuple(recipe.orders), len(names), recipe.dropout, recipe.encoder_rate == 0,
        recipe.roi_size, recipe.sampling_ratio)
    state = train(detection, model)  # its folder is locked meanwhile, once its config is known to be right
    found = probabilities(detection, model, state)
    with locked_together(detection.folder, 'set another --config.eval.name'):
        return judge(detection, found, names, int(state.step))


@on_process_zero
def judge(detection: Detection, found: dict[str, np.ndarray], names: dict[int, str], steps: int) -> dict:
    """Write, judge and show what `probabilities` found, for classes `names`, after `steps` of training."""
    source = detection.data.test.source
    ids = source.ids.tolist()
    judged = {}
    detection.folder.mkdir(parents=True, exist_ok=True)
    for kind, scores in found.items():
        path = detection.folder / ('detections.csv' if kind == list(found)[-1] else f'detections_{kind}.csv')
        ava.write_boxes(path, submission(ids, detection.boxes[1], scores, list(names)))
        judged[kind] = evaluate_csv(
            detection.file(ava.ANNOTATIONS), path, detection.counting, detection.file(ava.EXCLUDED))
    picture = keyframes_shown(detection, list(found.values())[-1], list(names.values()))
    write_whole(detection.folder / 'keyframes.png', picture)
    return finish(detection, judged, steps)


def keyframes_shown(detection: Detection, scores: np.ndarray, names: list[str]) -> bytes:
    """Some test keyframes, evenly chosen, with their boxes."""
    source, (_, asked, truth) = detection.data.test.source, detection.boxes
    panels = []
    for i in np.unique(np.linspace(0, len(source) - 1, PICTURES).astype(int)):
        record = source[int(i)]
        wanted = [(box, ', '.join(name for name, there in zip(names, labels, strict=True) if there))
                  for box, labels in zip(truth.boxes[i][truth.mask[i]], truth.labels[i][truth.mask[i]], strict=True)]
        told = [(box, f'{names[row.argmax()]} {row.max():.2f}')
                for box, row in zip(asked.boxes[i][asked.mask[i]], scores[i][asked.mask[i]], strict=True)]
        panels.append((record.frames([record.num_frames // 2])[0], wanted, told))
    return keyframe_picture(panels)


def finish(detection: Detection, judged: dict[str, dict], steps: int) -> dict:
    """Write `results.json` and print a table; returns {kind: {'frame_mAP'}}, from 0 to 1."""
    config, training, data = detection.config, detection.training, detection.data
    counts = {side: {**getattr(data, side).source.counts, 'videos': len(getattr(data, side).videos), **boxes.counts}
              for side, boxes in zip(('train', 'test'), detection.boxes, strict=False)}
    metrics = {kind: {'frame_mAP': result['frame_mAP']} for kind, result in judged.items()}
    last = list(judged)[-1]
    encoder = 'untrained' if config.eval.untrained else 'trained'
    frozen = config.detection.encoder_rate == 0
    path = write_results(
        detection.workdir, config.eval.name, task='detection', metrics=metrics, config=config, iou=0.5,
        per_class={kind: result['per_class'] for kind, result in judged.items()},
        evaluator_counts={kind: result['counts'] for kind, result in judged.items()}, counts=counts,
        boxes=config.detection.boxes, label_map=detection.counting.name, protocol=data.name, split=config.eval.test,
        data=config.data.dir, fingerprint=data.train.source.fingerprint, encoder=encoder, frozen=frozen,
        clips_x_crops=f'1 x 1 (whole frames in {config.eval.size} pixels)', steps=steps,
        epoch=f'the last one, {config.epochs}', checkpoint_step=detection.encoder.step,
        training_commits=detection.encoder.commits, statistics=training.get('statistics', 'plain'), seed=training.seed,
        evaluation_seed=config.seed, training_config=workdir_config(detection.workdir).to_dict())
    used = '; '.join(f'{side} {count["videos"]:,} of {count["listed"]:,} keyframes with {count["boxes"]:,} boxes'
                     for side, count in counts.items())
    print(f'detection on {data.name}: {encoder} encoder{", frozen" if frozen else ""}, step {detection.encoder.step}, '
          f'seed {training.seed}; {used} ({config.detection.boxes})')
    for kind, row in metrics.items():
        print(f'{kind:9}frame-mAP@0.5 {row["frame_mAP"]:.3f}')
    weakest = sorted(judged[last]['per_class'].items(), key=lambda item: item[1])[:5]
    print(f'lowest AP ({last}): ' + ', '.join(f'{name} {value:.3f}' for name, value in weakest))
    print(f'written to {path}')
    return metrics
