"""The results of a run as sections: figures with everything that says what they are, and what is taken for what."""

import html
from pathlib import Path

import numpy as np

from vididi_jax.report.html import paragraph, picture, table

MATRIX = 20  # classes, at most, whose confusion is a picture
# What counts as right, and what stands in its place, where it is not the class that is taken for the true one.
RIGHT = {'tug': ('that win at least half of their pairs', 'else the nearest of another class at its place')}
CHANCE = {'retrieval': 'R@1 of a random video of those searched', 'linear': 'top-1 of a random class',
          'finetune': 'top-1 of a random class', 'tug': 'a coin'}


def figure(value: float, deviation: float, folds: int) -> str:
    """A mean over folds, with the standard deviation where there are several."""
    return f'{value:.1f}' + (f' ± {deviation:.1f}' if folds > 1 else '')


def figure_rows(metrics: dict, std: dict, folds: int) -> tuple[tuple, list[tuple]]:
    """Header and a row a kind of feature; with standard deviations over the folds where there are several."""
    names = list(next(iter(metrics.values())))
    return ('features, percent', *names), [
        (kind, *(figure(row[name], std[kind][name], folds) for name in names)) for kind, row in metrics.items()]


def seen_text(result: dict) -> str:
    """Whether test videos were seen in pretraining, without labels."""
    seen = result.get('test_videos_seen_in_pretraining')
    if seen is None:
        return 'not known: a run before this one, or its data, are gone'
    return f'{seen:,} test videos were seen in pretraining, without labels' + (' (transductive)' if seen else '')


def class_rows(counts: np.ndarray, classes: list[str]) -> list[tuple]:
    """(class, videos, percent right, the three classes it is most often taken for) of every class with videos."""
    rows = []
    for number, row in enumerate(counts):
        if row.sum():
            others = [(int(row[other]), classes[other]) for other in np.argsort(-row, kind='stable')
                      if other != number and row[other]][:3]
            rows.append((classes[number], int(row.sum()), f'{100 * row[number] / row.sum():.0f}',
                         ', '.join(f'{name} {count}' for count, name in others)))
    return rows


def facts_of(result: dict, counts: str, what: str) -> list[tuple]:
    """What was measured, on what."""
    frozen = ', frozen' if result.get('frozen') else ''
    return [('protocol', result['protocol']),
            ('encoder', f'{result["encoder"]}, step {result["checkpoint_step"]}{frozen}'), (what, counts),
            *([('clips x crops', result['clips_x_crops'])] if 'clips_x_crops' in result else []),
            ('seed', result['seed']), ('commit', result['commit']), ('device', result['device']),
            ('date', result['date'])]


def counts_text(result: dict) -> str:
    """How many of the listed videos an evaluation used."""
    return '; '.join(
        f'{side}: {count["videos"]:,} of {count["listed"]:,} listed videos, {count["looped"]:,} looped' + (
            f', {count["clips_per_video"]:.1f} different clips a video' if 'clips_per_video' in count else '')
        for side, count in result['counts'].items())


def result_section(name: str, result: dict, folder: Path) -> str:
    """One result of recognition."""
    folds = len(result['folds'])
    header, rows = figure_rows(result['metrics'], result['std'], folds)
    without = result['test_videos_without_their_class_in_train']
    facts = [*facts_of(result, counts_text(result), 'videos'),
             ('chance', f'{result["chance"]:.1f} %: {CHANCE[result["task"]]}'), ('test videos', seen_text(result)),
             *([('queries', f'{result["queries"]["asked"]:,} of the {result["queries"]["searched"]:,} videos')]
               if 'queries' in result else []),
             *([('folds', f'{folds}; figures are mean ± standard deviation over them')] if folds > 1 else []),
             *([('classes without training videos', f'{without["classes"]}, with {without["videos"]} test videos, '
                 'which count as wrong')] if without['videos'] else [])]
    matrix, classes = np.array(result['confusion']['counts']), result['confusion']['classes']
    by = f'by {result["task"]} with features of {result["confusion"]["features"]}'
    right, wrong = RIGHT.get(result['task'], ('right', 'most often taken for'))
    many = len(classes) > MATRIX
    image = paragraph(f'What each class is taken for, {by}:') if many else stored_picture(
        folder / 'confusion.png', f'True and predicted classes, {by}; colours are shares of a row.')
    return (f'<h3>{html.escape(name)}</h3>' + table(rows, header) + table(facts) + image
            + f'<details{" open" if many else ""}><summary>Class by class</summary>'
            + table(class_rows(matrix, classes), ('class', 'test videos', f'% {right}', wrong)) + '</details>')


def stored_picture(path: Path, text: str) -> str:
    """A picture that an evaluation has written, or a sentence where it is gone."""
    return picture(path.read_bytes(), text) if path.exists() else paragraph(f'{path} is gone: evaluate again.')


def detection_section(name: str, result: dict, folder: Path) -> str:
    """Frame-mAP and AP per class, and some keyframes."""
    counts = '; '.join(f'{side}: {count["videos"]:,} of {count["listed"]:,} listed keyframes, {count["boxes"]:,} boxes'
                       for side, count in result['counts'].items())
    kinds = list(result['metrics'])
    classes = list(result['per_class'][kinds[-1]])
    rows = [('frame-mAP@0.5', *(f'{100 * result["metrics"][kind]["frame_mAP"]:.1f}' for kind in kinds)),
            *((label, *(f'{100 * result["per_class"][kind][label]:.1f}' for kind in kinds)) for label in classes)]
    keyframes = stored_picture(folder / 'keyframes.png', 'Some test keyframes: ground truth (dashed) and the boxes '
                               'that were judged, each with its top class.')
    return (f'<h3>{html.escape(name)}</h3>' + table(rows, ('percent', *kinds))
            + table([('boxes', result['boxes']), *facts_of(result, counts, 'keyframes')]) + keyframes)


def all_section(name: str, result: dict, folder: Path) -> str:
    """The table of several evaluations in one."""
    del folder
    rows, folds = [], len(result['folds']['retrieval'] if 'retrieval' in result['folds'] else
                          next(iter(result['folds'].values())))
    for part, metrics in result['metrics'].items():
        for kind, row in metrics.items():
            spread = result['std'][part][kind]
            rows.append((part, kind, '; '.join(
                f'{metric} {figure(value, spread[metric], folds)}' for metric, value in row.items())))
    facts = [(fact, result[fact]) for fact in ('protocol', 'encoder', 'checkpoint_step', 'seed', 'commit')
             if fact in result]
    facts += [('videos', counts_text(result))] if 'counts' in result else []
    facts += [(f'chance of {part}', f'{chance:.1f} %: {CHANCE.get(part.removesuffix("_linear"), "")}')
              for part, chance in result.get('chance', {}).items()]
    facts += [('folds', f'{folds}; figures are mean ± standard deviation over them')] if folds > 1 else []
    return f'<h3>{html.escape(name)}</h3>' + table(rows, ('evaluation', 'features', 'percent')) + table(facts)


SECTIONS = (('retrieval', 'Retrieval', result_section), ('tug', 'Motion over background', result_section),
            ('linear', 'Linear probe', result_section), ('finetune', 'Fine-tuning', result_section),
            ('detection', 'Action detection', detection_section), ('eval_all', 'All evaluations', all_section))
# Fields of a result that its section is made of, besides those that every result has.
FACTS = 'protocol', 'encoder', 'counts', 'checkpoint_step', 'seed', 'device'
NEEDED = {**dict.fromkeys(('retrieval', 'tug', 'linear', 'finetune'), (
    *FACTS, 'std', 'folds', 'chance', 'confusion', 'test_videos_without_their_class_in_train')),
    'detection': (*FACTS, 'per_class', 'boxes'), 'eval_all': ('std', 'folds')}


def result_sections(results: dict[str, dict], workdir: Path) -> list[str]:
    """Every result, by what it measures."""
    parts = []
    for task, title, section in SECTIONS:
        found = [section(name, result, workdir / 'eval' / name) for name, result in results.items()
                 if result['task'] == task]
        parts += [f'<h2>{title}</h2>', *found] if found else []
    return parts
