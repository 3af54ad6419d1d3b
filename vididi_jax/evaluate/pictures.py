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
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110)
    return buffer.getvalue()
