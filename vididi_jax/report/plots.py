"""Figures of a run, as PNG bytes."""

import io

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402


def _png(figure: plt.Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110, bbox_inches='tight')
    plt.close(figure)
    return buffer.getvalue()


def curves(rows: list[dict], names: tuple[str, ...]) -> bytes:
    """One panel a metric against the step, points coloured by phase.

    Args:
      rows: of metrics.jsonl.
      names: metrics to show; those that no row has are left out.
    """
    names = [name for name in names if any(name in row for row in rows)]
    columns = min(3, len(names))
    figure, axes = plt.subplots(-(-len(names) // columns), columns, squeeze=False,
                                figsize=(4.2 * columns, 2.6 * -(-len(names) // columns)))
    phases = sorted({row['phase'] for row in rows})
    for axis, name in zip(axes.flat, names, strict=False):
        for phase in phases:
            points = [(row['step'], row[name]) for row in rows if row['phase'] == phase and name in row]
            axis.plot(*np.array(points).T, '.', markersize=3, label=f'phase {phase}')
        axis.set(title=name.replace('_', ' '), xlabel='step')
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(names):]:
        axis.axis('off')
    axes.flat[0].legend(fontsize=7, markerscale=3)
    figure.tight_layout()
    return _png(figure)


def clip_and_derivatives(stack: tuple[np.ndarray, ...], mean, std) -> bytes:
    """A row of frames for each order of a `derivative_stack` of one normalised clip (T, H, W, 3).

    Order 0 is shown as it was before normalisation; derivatives as gray plus their value, scaled to the largest of
    their order, so what does not move is gray.
    """
    frames = len(stack[0])
    figure, axes = plt.subplots(len(stack), frames, squeeze=False, figsize=(1.15 * frames, 1.15 * len(stack)))
    titles = ('V', 'dV/dt', 'd²V/dt²')
    for order, (row, clip) in enumerate(zip(axes, stack, strict=True)):
        clip = np.asarray(clip, np.float64)
        pixels = 0.5 + 0.5 * clip / max(np.abs(clip).max(), 1e-9) if order else clip * np.array(std) + np.array(mean)
        for axis, frame in zip(row, pixels, strict=True):
            axis.imshow(np.clip(frame, 0, 1), interpolation='nearest')
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(titles[order] if order < len(titles) else f'order {order}')
    figure.subplots_adjust(wspace=0.04, hspace=0.06)
    return _png(figure)


def recall_bars(results: dict[str, dict], chance: float) -> bytes:
    """R@k of each result, one panel a kind of feature, with chance at k = 1 as a line.

    Args:
      results: {name of the encoder: {kind of feature: {'R@1': percent, ...}}}.
      chance: R@1 of a random pick, percent.
    """
    kinds = list(next(iter(results.values())))
    figure, axes = plt.subplots(1, len(kinds), squeeze=False, figsize=(3.6 * len(kinds), 2.8), sharey=True)
    width = 0.8 / len(results)
    for axis, kind in zip(axes[0], kinds, strict=True):
        for i, (name, metrics) in enumerate(results.items()):
            values = list(metrics[kind].values())
            bars = axis.bar(np.arange(len(values)) + i * width, values, width, label=name)
            axis.bar_label(bars, fmt='%.0f', fontsize=7)
        axis.axhline(chance, color='gray', linestyle=':', linewidth=1)
        axis.set_xticks(np.arange(len(metrics[kind])) + 0.4 - width / 2, metrics[kind])
        axis.set_title(f'features of {kind}')
    axes[0][0].set(ylabel='% of queries', ylim=(0, 108))
    axes[0][0].legend(fontsize=7)
    return _png(figure)
