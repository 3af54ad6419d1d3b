"""A run as one page: WORKDIR/report/index.html, with its pictures inside."""

import html
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax

from vididi_jax import pictures
from vididi_jax import schedule as schedules
from vididi_jax.config import flatten, to_dict
from vididi_jax.errors import UserError
from vididi_jax.evaluate.results import check_whole, read_result
from vididi_jax.fields import check_fields
from vididi_jax.report.animation import Clips
from vididi_jax.report.evidence import latest_retrieval, take_up
from vididi_jax.report.gallery import gallery_section
from vididi_jax.report.html import NOTATION, paragraph, picture, table, write_page
from vididi_jax.report.looks import looks_section, other_run
from vididi_jax.report.results import NEEDED, result_sections
from vididi_jax.report.scatter import map_section
from vididi_jax.report.summary import (
    Headline,
    alike,
    headlines,
    newest_first,
    pretraining_config,
    schedule_of,
    start_of,
    tested,
)
from vididi_jax.report.views import views_section
from vididi_jax.train.encoder import Encoder
from vididi_jax.train.metric_writer import read_metrics
from vididi_jax.train.pretrain import trained_source
from vididi_jax.train.processes import check_alone, is_first, on_process_zero

logger = logging.getLogger(__name__)

T = TypeVar('T')

CURVES = ('loss', 'invariance', 'variance', 'covariance', 'view1_to_view2', 'view2_to_view1', 'gradient_norm',
          'learning_rate', 'health/effective_rank', 'health/order_agreement', 'health/knn_accuracy',
          'health/saliency_on_motion', 'health/moving_pixels')  # the share of an even saliency
WHOLE = 'config', 'commit', 'date', 'metrics'  # what every result has; an empty one is named last
FRAMEWORKS = {'vicreg': 'VICReg', 'info_nce': 'SimCLR', 'nt_xent': 'SimCLR', 'byol': 'BYOL'}


def read_results(workdir: Path) -> dict[str, dict]:
    """Every results.json below WORKDIR/eval, by the name of its folder; `UserError` for one that is not whole."""
    results = {}
    for path in sorted(workdir.glob('eval/*/results.json')):
        results[path.parent.name] = result = read_result(path)
        check_whole(path, result, *WHOLE, *NEEDED.get(result['task'], ()))
    return results


def attempt(make: Callable[[], T]) -> T | str:
    """What `make` returns, or, if it raises a `UserError`, a paragraph that says so."""
    try:
        return make()
    except UserError as error:
        logger.warning('a part of the report is left out: %s', error)
        return paragraph(f'Left out: {error}')


def top(training, found: list[Headline], rows: list[dict], results: dict[str, dict]) -> list[str]:
    """What this run is, and its figures."""
    framework = FRAMEWORKS.get(training.framework.loss, training.framework.loss)
    place = Path(training.data.dir)
    names = (result['protocol'].split('/')[0] for result in results.values()
             if training.data.dir in (result.get('data') or '').split(','))
    own = f'{place.parent.name}/{place.name}' if place.name.startswith('split') else place.name  # of `--split=all`
    data = next((name for name in names if name != 'folder'), own)
    title = f'{framework}, schedule {schedule_of(training)}, pretrained on {data}'
    date = max((result['date'] for result in results.values()), default='')
    about = [f'{training.model.name} of width {training.model.width}', f'seed {training.seed}',
             *([f'{rows[-1]["step"]:,} steps logged'] if rows else []), *([f'evaluated {date[:10]}'] if date else [])]
    start = html.escape(start_of(training))
    cards = ''.join(f'<div>{html.escape(line.name)}<strong>{line.trained:.1f} %</strong>{start} {line.untrained:.1f}, '
                    f'chance {line.chance:.1f}; trained {line.step:,} steps'
                    f'<br><span class="faint">{html.escape(line.about)}</span></div>' for line in found)
    return [f'<h1>{html.escape(title)}</h1>', paragraph('; '.join(about)), paragraph(NOTATION),
            f'<div class="headline">{cards}</div>' if cards else '']


def recall_section(results: dict[str, dict], start: str = 'untrained') -> list[str]:
    """Of all retrievals that were asked as the newest one was; `start` is what an untrained encoder is called."""
    newest = newest_first(results, 'retrieval')
    retrieval = {name: result for name, result in results.items() if newest and alike(result, newest[0])
                 and result['metrics']['V'].keys() == newest[0]['metrics']['V'].keys()}
    if not retrieval:
        return []
    kinds = {result['encoder'] for result in retrieval.values()}
    told = {'untrained': start}
    encoders = {told.get(result['encoder'], result['encoder']) if len(kinds) == len(retrieval) else name:
                result['metrics'] for name, result in sorted(
                    retrieval.items(), key=lambda item: (item[1]['encoder'] != 'trained', item[0]))}
    first = newest[0]
    folds = len(first.get('folds', ()))
    mean = f', mean of {folds} folds, which count alike' if folds > 1 else ''
    return ['<h2>Recall</h2>', picture(
        pictures.recall_bars(encoders, first['chance']), f'Share of the {tested(first):,} test '
        f'videos of {first["protocol"]} with a video of their class among the k nearest, by features{mean}; the dotted '
        'line is chance, which is drawn for k = 1 alone.')]


def data_sections(
    workdir: Path, training, results: dict[str, dict], directory: str, beside: dict[str, Encoder], clips: Clips,
) -> list[str]:
    """What is made of videos: neighbours, map, saliency; views. A sentence stands for what cannot be made."""
    result = latest_retrieval(results)
    moved = directory and (result is None or result.get('data') == training.data.dir)
    parts = []
    if result:
        evidence = attempt(lambda: take_up(workdir, result, directory))
        parts += [evidence] if isinstance(evidence, str) else [
            attempt(make) for make in (lambda: gallery_section(evidence, clips), lambda: map_section(evidence, clips),
                                       lambda: looks_section(evidence, beside))]
    else:
        parts.append(paragraph('Neighbours, a map of the features and where the encoder looks are here once it was '
                               'evaluated by retrieval.'))
    views = attempt(lambda: views_section(
        training, trained_source(training, workdir, directory if moved else ''), clips))
    return [*parts, views]


def write(workdir: str, directory: str = '', beside: str = '') -> tuple[Path, list[Headline]]:
    """Write the page of a workdir.

    Args:
      workdir: of a training run.
      directory: where its data lie now; '' is where they were.
      beside: another workdir, whose encoder's saliency is shown too.

    Returns:
      The path, and the figures before and after training that there are.
    """
    folder, clips = Path(workdir), Clips()
    training, rows, results = pretraining_config(workdir), read_metrics(workdir), read_results(folder)
    others = other_run(beside) if beside else {}
    found = headlines(results)
    parts = [*top(training, found, rows, results),
             *data_sections(folder, training, results, directory, others, clips),
             *recall_section(results, start_of(training)), *result_sections(results, folder)]
    if rows:
        schedule = schedules.resolve(training.schedule)
        phases = [schedules.describe_phase(schedule, number) for number in range(len(schedule.phases))]
        parts += ['<h2>Training</h2>', picture(pictures.curves(rows, CURVES, phases), f'{len(rows)} rows of '
                  f'metrics.jsonl, up to step {rows[-1]["step"]}; losses of different phases do not compare.')]
    parts += ['<h2>Config</h2>', table(sorted(flatten(to_dict(training)).items()), ('field', 'value'))]
    path = folder / 'report' / 'index.html'
    write_page(path, f'{folder.name}: {training.framework.loss}, {schedule_of(training)}', parts, clips.pictures)
    return path, found


def renew(workdir: str) -> None:
    """Write the page after training or an evaluation, whose results stand whatever becomes of it."""
    if jax.process_count() > 1:  # features that are not in the cache would need all of them
        if is_first():
            print('no report is written by several processes: main.py --config=configs/report.py does, in one.')
        return
    try:
        print(f'report written to {write(workdir)[0]}')
    except Exception as error:  # whatever a picture can raise
        logger.warning('the report could not be written (%s: %s); the results are.', type(error).__name__, error)


@on_process_zero
def run(config, workdir: str) -> None:
    """Write the page, and print the lines that sum up a run that was evaluated before and after training."""
    check_fields(config)
    check_alone('a report')
    path, found = write(workdir, config.data.dir, config.beside)
    print(f'report written to {path}')
    for line in found:
        print(line)
