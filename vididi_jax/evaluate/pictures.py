"""Pictures of results, as PNG bytes."""

import io

import numpy as np


def confusion_picture(matrix: np.ndarray, classes: list[str], title: str) -> bytes:
    """Rows are true classes, columns predicted ones, colours each row's shares; counts stand in small matrices.

    Args:
      matrix: (C, C) counts.
      classes: C names.
      title: above the picture.
    """
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    count = len(classes)
    side = min(2.5 + 0.35 * count, 24)
    figure = Figure(figsize=(side, side), layout='constrained')
    axis = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap='Blues', vmin=0, vmax=1)
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
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

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
                axis.text(corner[0], y1 * height if above else y2 * height, text, fontsize=6, color='black',
                          va='bottom' if above else 'top', clip_on=True,
                          bbox=dict(facecolor=style['edgecolor'], alpha=0.7, pad=0.5, linewidth=0))
    return _png(figure)


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110)
    return buffer.getvalue()
