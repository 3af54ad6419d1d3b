"""A run as one page: WORKDIR/report/index.html, with its pictures inside."""

import html
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from vididi_jax import pictures
from vididi_jax.config import flatten, to_dict
from vididi_jax.data import clips, pipeline
from vididi_jax.data.source import RecordSource
from vididi_jax.derivatives import derivative_stack
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.pixels.crops import centre_crop
from vididi_jax.report.html import picture, table, write_page
from vididi_jax.report.summary import summary
from vididi_jax.train.metric_writer import read_metrics
from vididi_jax.train.processes import by_first
from vididi_jax.train.run import workdir_config

CURVES = ('loss', 'invariance', 'variance', 'covariance', 'view1_to_view2', 'view2_to_view1', 'gradient_norm',
          'learning_rate', 'health/effective_rank', 'health/order_agreement', 'health/knn_accuracy')


def example_stack(config) -> tuple[np.ndarray, ...]:
    """The first video's middle clip and its derivatives, as the encoder sees them in evaluation."""
    source = RecordSource(config.data.dir, config.data.split)
    augment = Augmentation(**config.augment)
    indices = clips.even_clips(source.rows[0]['frames'], clips=1, length=config.clip.frames, stride=config.clip.stride)
    example = pipeline.load_clips(source, 0, indices, pipeline.canvas(source))
    clip = centre_crop(jnp.asarray(example['clips']), jnp.asarray(example['size'])[None], augment)[0]
    return tuple(np.asarray(d) for d in derivative_stack(clip, min(2, config.clip.frames - 1)))


def read_results(workdir: Path) -> dict[str, dict]:
    """Every results.json below WORKDIR/eval, by the name of its folder."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(workdir.glob('eval/*/results.json'))}


def result_section(name: str, result: dict, folder: Path) -> str:
    """One result with everything that says what it is, and its picture."""
    counts = [f'{side}: {count["videos"]:,} of {count["listed"]:,} listed videos, {count["looped"]:,} looped' + (
        f', {count["clips_per_video"]:.1f} different clips a video' if 'clips_per_video' in count else '')
              for side, count in result['counts'].items()]
    facts = [('protocol', result['protocol']), ('encoder', f'{result["encoder"]}, step {result["checkpoint_step"]}'),
             ('clips x crops', result['clips_x_crops']),
             ('videos', '; '.join(counts)), ('seed', result['seed']), ('chance', f'{result["chance"]:.1f} %'),
             ('commit', result['commit']), ('device', result['device']), ('date', result['date'])]
    ks = list(next(iter(result['metrics'].values())))
    rows = [(kind, *(f'{metrics[k]:.1f}' for k in ks)) for kind, metrics in result['metrics'].items()]
    matrix = picture((folder / 'confusion.png').read_bytes(),
                     f'True and predicted classes, by {result["task"]} with features of '
                     f'{result["confusion"]["features"]}; colours are shares of a row.')
    return f'<h3>{html.escape(name)}</h3>' + table(rows, ('features', *ks)) + table(facts) + matrix


def detection_section(name: str, result: dict, folder: Path) -> str:
    """Frame-mAP and AP per class, with everything that says what they are, and some keyframes."""
    counts = [f'{side}: {count["videos"]:,} of {count["listed"]:,} listed keyframes, {count["boxes"]:,} boxes'
              for side, count in result['counts'].items()]
    frozen = ', frozen' if result['frozen'] else ''
    facts = [('protocol', result['protocol']), ('boxes', result['boxes']),
             ('encoder', f'{result["encoder"]}, step {result["checkpoint_step"]}{frozen}'),
             ('keyframes', '; '.join(counts)), ('seed', result['seed']), ('commit', result['commit']),
             ('device', result['device']), ('date', result['date'])]
    kinds = list(result['metrics'])
    classes = list(result['per_class'][kinds[-1]])
    rows = [('frame-mAP@0.5', *(f'{100 * result["metrics"][kind]["frame_mAP"]:.1f}' for kind in kinds)),
            *((label, *(f'{100 * result["per_class"][kind][label]:.1f}' for kind in kinds)) for label in classes)]
    keyframes = picture((folder / 'keyframes.png').read_bytes(), 'Some test keyframes: ground truth (dashed) and the '
                        'boxes that were judged, each with its top class.')
    return f'<h3>{html.escape(name)}</h3>' + table(rows, ('percent', *kinds)) + table(facts) + keyframes


@by_first
def run(config, workdir: str) -> None:
    """Write the page, and print the line that sums up a run that was evaluated before and after training."""
    training = workdir_config(workdir)
    rows, results = read_metrics(workdir), read_results(Path(workdir))
    retrieval = {name: result for name, result in results.items() if result['task'] == 'retrieval'}
    parts = [f'<h1>{html.escape(Path(workdir).name)}</h1>', '<h2>What the encoder sees</h2>']
    augment = Augmentation(**training.augment)
    parts.append(picture(pictures.clip_and_derivatives(example_stack(training), augment.mean, augment.std),
                         'A clip and its first and second temporal derivatives: what stands still is gray.'))
    if rows:
        text = (f'{len(rows)} rows of metrics.jsonl, up to step {rows[-1]["step"]}; losses of different phases do not '
                'compare.')
        parts += ['<h2>Training</h2>', picture(pictures.curves(rows, CURVES), text)]
    if retrieval:
        kinds = {result['encoder'] for result in retrieval.values()}
        encoders = {result['encoder'] if len(kinds) == len(retrieval) else name: result['metrics']
                    for name, result in retrieval.items()}
        chance = next(iter(retrieval.values()))['chance']
        text = ('Share of test videos with a video of their class among the k nearest; the dotted line is chance at '
                'k = 1.')
        parts += ['<h2>Retrieval</h2>', picture(pictures.recall_bars(encoders, chance), text)]
    for task, title, section in (
            ('retrieval', '', result_section), ('linear', '<h2>Linear probe</h2>', result_section),
            ('finetune', '<h2>Fine-tuning</h2>', result_section),
            ('tug', '<h2>Motion over background</h2>', result_section),
            ('detection', '<h2>Action detection</h2>', detection_section)):
        found = [section(name, result, Path(workdir) / 'eval' / name) for name, result in results.items()
                 if result['task'] == task]
        parts += [title, *found] if found else []
    parts += ['<h2>Config</h2>', table(sorted(flatten(to_dict(training)).items()), ('field', 'value'))]
    path = Path(workdir) / 'report' / 'index.html'
    write_page(path, Path(workdir).name, parts)
    print(f'report written to {path}')
    for line in summary(results):
        print(line)
