"""Every picture, as PNG bytes: of a run, of its clips and of its results."""

import io
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.figure import Figure  # without pyplot: no window system, no global state
from matplotlib.patches import Rectangle


def _png(figure: Figure, **options) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110, **options)
    return buffer.getvalue()


LABEL = 40  # letters of a name, at most


def label_of(name: str) -> str:
    """A name as matplotlib shows it: `$` is no formula, and what is too long has a middle that is left out."""
    half = LABEL // 2
    short = name if len(name) <= LABEL else f'{name[:half - 1]}…{name[-half:]}'
    return short.replace('$', r'\$')


def curves(rows: list[dict], names: tuple[str, ...], phases_are: Sequence[str]) -> bytes:
    """One panel a metric against the step, points coloured by phase; those of health, which are few, are joined.

    Phases are bands behind the points.

    Args:
      rows: of metrics.jsonl.
      names: metrics to show; those that no row has are left out.
      phases_are: what each phase is, for the legend.
    """
    names = [name for name in names if any(name in row for row in rows)]
    columns = min(3, len(names))
    rows_of_panels = -(-len(names) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.6 * rows_of_panels))
    axes = figure.subplots(rows_of_panels, columns, squeeze=False)
    phases = sorted({row['phase'] for row in rows})
    bands = [(phase, list(group)[-1]['step']) for phase, group in groupby(rows, key=lambda row: row['phase'])]
    starts = [0, *(end for _, end in bands)]
    for axis, name in zip(axes.flat, names, strict=False):
        for (phase, end), start in zip(bands, starts, strict=False):
            axis.axvspan(start, end, color=f'C{phases.index(phase)}', alpha=0.1, linewidth=0)
        for phase in phases:
            points = [(row['step'], row[name]) for row in rows if row['phase'] == phase and name in row]
            style = '.-' if name.startswith('health/') else '.'
            axis.plot(*np.reshape(points, (-1, 2)).T, style, markersize=3 if len(rows) > 100 else 6, linewidth=0.7,
                      label=f'{phase}: {phases_are[phase]}')
        axis.set(title=name.replace('_', ' '), xlabel='step')
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(names):]:
        axis.axis('off')
    axes.flat[0].legend(fontsize=6)
    figure.tight_layout()
    return _png(figure, bbox_inches='tight')


def clip_and_derivatives(stack: tuple[np.ndarray, ...], mean, std) -> bytes:
    """A row of frames for each order of a `derivative_stack` of one normalised clip (T, H, W, 3).

    Order 0 is shown as it was before normalisation; derivatives as gray plus their value, scaled to the largest of
    their order, so what does not move is gray.
    """
    frames = len(stack[0])
    figure = Figure(figsize=(1.15 * frames, 1.15 * len(stack)))
    axes = figure.subplots(len(stack), frames, squeeze=False)
    titles = ('V', 'dV/dt', 'd²V/dt²')
    for order, (row, clip) in enumerate(zip(axes, stack, strict=True)):
        clip = np.asarray(clip, np.float64)
        pixels = 0.5 + 0.5 * clip / max(np.abs(clip).max(), 1e-9) if order else clip * np.array(std) + np.array(mean)
        for axis, frame in zip(row, pixels, strict=True):
            axis.imshow(np.clip(frame, 0, 1), interpolation='nearest')
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(titles[order] if order < len(titles) else f'order {order}')
    figure.subplots_adjust(wspace=0.04, hspace=0.06)
    return _png(figure, bbox_inches='tight')


def saliency(clips: np.ndarray, maps: dict[str, np.ndarray]) -> bytes:
    """A row of frames for each clip, and one under it for each saliency of it.

    Args:
      clips: (N, T, H, W, 3) in [0, 1].
      maps: {name: (N, T, H, W)}, at least 0; bright is each row's largest.
    """
    kinds = {'clip': clips, **maps}
    count, frames, height, width = clips.shape[:4]
    figure = Figure(figsize=(1.05 * frames + 0.9, 1.05 * count * len(kinds)))
    axes = iter(figure.subplots(count * len(kinds), 1, squeeze=False).flat)
    for clip in range(count):
        for (name, values), axis in zip(kinds.items(), axes, strict=False):
            options = {} if name == 'clip' else {'cmap': 'inferno', 'vmin': 0,
                                                 'vmax': max(float(values[clip].max()), 1e-12)}
            axis.imshow(np.concatenate(values[clip], axis=1), interpolation='nearest', **options)
            for frame in range(1, frames):
                axis.axvline(frame * width - 0.5, color='white', linewidth=3)
            axis.set(xticks=[], yticks=[], ylim=(height - 0.5, -0.5))
            axis.set_ylabel(label_of(name).replace(', ', '\n').replace(' (', '\n('), fontsize=7)
    figure.subplots_adjust(hspace=0.06)
    return _png(figure, bbox_inches='tight')


def recall_bars(results: dict[str, dict], chance: float) -> bytes:
    """R@k of each result, one panel a kind of feature, with a dotted line at k = 1 for chance.

    Args:
      results: {name of the encoder: {kind of feature: {'R@1': percent, ...}}}.
      chance: R@1 of a random pick, percent.
    """
    kinds = list(next(iter(results.values())))
    figure = Figure(figsize=(3.6 * len(kinds), 2.8))
    axes = figure.subplots(1, len(kinds), squeeze=False, sharey=True)
    width = 0.8 / len(results)
    for axis, kind in zip(axes[0], kinds, strict=True):
        for i, (name, metrics) in enumerate(results.items()):
            values = list(metrics[kind].values())
            bars = axis.bar(np.arange(len(values)) + i * width, values, width, label=label_of(name))
            axis.bar_label(bars, fmt='%.0f', fontsize=7 if len(results) < 4 else 4)
        axis.plot((-0.5 * width, 0.8 - 0.5 * width), (chance, chance), color='black', linestyle=':', linewidth=1.5)
        axis.set_xticks(np.arange(len(metrics[kind])) + 0.4 - width / 2, metrics[kind])
        axis.set_title(f'features of {kind}')
    axes[0][0].set(ylabel='% of queries', ylim=(0, 125), yticks=range(0, 101, 20))
    if len(results) > 1:
        axes[0][0].legend(fontsize=7, loc='upper left', ncols=2)
    return _png(figure, bbox_inches='tight')


def group_bars(figures: list) -> bytes:
    """One panel a metric and kind of feature, a bar a group: mean of its runs, their deviation, each run as a point.

    Percent. Bars are blue where a group is compared with another one, gray otherwise; a dotted line is chance.

    Args:
      figures: `compare.statistics.Figure`.
    """
    panels = list(dict.fromkeys((figure.metric, figure.features) for figure in figures))
    one_metric = len({metric for metric, _ in panels}) == 1
    groups = list(dict.fromkeys(figure.group.name for figure in figures))
    labels = {figure.group.name: label_of(', '.join(figure.group.values.values()) or figure.group.name)
              + ('' if len(figure.values) > 1 else ', 1 run') for figure in figures}
    figure = Figure(figsize=(2.2 + 2.4 * len(panels), 0.9 + 0.32 * len(groups)), layout='constrained')
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    for axis, (metric, kind) in zip(axes[0], panels, strict=True):
        shown = [found for found in figures if (found.metric, found.features) == (metric, kind)]
        for found in shown:
            place = groups.index(found.group.name)
            axis.barh(place, found.mean, xerr=found.std, color='C0' if found.test else 'gray', alpha=0.5,
                      capsize=2)
            axis.plot(found.values, [place] * len(found.values), '.', color='black', markersize=3)
            axis.text(0.99, place, f'{found.mean:.1f}', va='center', ha='right', fontsize=8,
                      transform=axis.get_yaxis_transform())
            if found.chance is not None:
                axis.axvline(found.chance, color='black', linestyle=':', linewidth=1)
        axis.set_title(kind if one_metric else f'{metric}, {kind}', fontsize=9)
        axis.set_xlabel('percent', fontsize=8)
        alike = (found for found in figures if found.metric == metric)  # so that bars of several panels compare
        axis.set_xlim(0, 1.3 * max(1e-9, *(max(*found.values, found.chance or 0) for found in alike)))
        axis.grid(axis='x', alpha=0.3)
    axes[0][0].set_yticks(range(len(groups)), [labels[name] for name in groups], fontsize=8)
    axes[0][0].invert_yaxis()
    return _png(figure)


def confusion_picture(matrix: np.ndarray, classes: list[str], title: str) -> bytes:
    """Rows are true classes, columns predicted ones, colours each row's shares; counts stand in small matrices.

    Args:
      matrix: (C, C) counts.
      classes: C names.
      title: above the picture.
    """
    count = len(classes)
    side = min(2.5 + 0.35 * count, 24)
    figure = Figure(figsize=(side, side), layout='constrained')
    axis = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    classes = [label_of(name) for name in classes]
    axis.set(title=title, xlabel='predicted', ylabel='true')
    axis.set_xticks(range(count), classes, rotation=90, fontsize=7)
    axis.set_yticks(range(count), classes, fontsize=7)
    if count <= 30:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            axis.text(column, row, matrix[row, column], ha='center', va='center', fontsize=7,
                      color='white' if shares[row, column] > 0.5 else 'black')
    return _png(figure)


def keyframe_picture(panels: list[tuple]) -> bytes:
    """Keyframes in a grid: dashed boxes are the ground truth, solid ones what was judged, with its top class.

    Args:
      panels: of each keyframe (frame (H, W, 3) uint8, ground truth, judged), where the last two are lists of
        (x1, y1, x2, y2 as shares of the frame, text).
    """
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3 * columns, 3 * rows), layout='constrained')
    figure.suptitle('dashed: ground truth; solid: judged, with its top class')
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis('off')
    for axis, (frame, *kinds) in zip(axes, panels, strict=False):
        height, width = frame.shape[:2]
        axis.imshow(frame, extent=(0, width, height, 0))
        styles = (dict(edgecolor='white', linestyle='--'), dict(edgecolor='orange', linestyle='-'))
        for boxes, style, above in zip(kinds, styles, (False, True), strict=True):
            for (x1, y1, x2, y2), text in boxes:
                corner, size = (x1 * width, y1 * height), ((x2 - x1) * width, (y2 - y1) * height)
                axis.add_patch(Rectangle(corner, *size, fill=False, linewidth=1.5, **style))
                axis.text(corner[0], y1 * height if above else y2 * height, label_of(text), fontsize=6, color='black',
                          va='bottom' if above else 'top', clip_on=True,
                          bbox=dict(facecolor=style['edgecolor'], alpha=0.7, pad=0.5, linewidth=0))
    return _png(figure)
