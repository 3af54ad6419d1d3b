"""Pictures of a run."""

import matplotlib.axes
import pytest

from vididi_jax import pictures


def test_each_phase_has_its_points(monkeypatch):
    """Also where a metric is missing in some phases, as that of health is before the first measurement."""
    rows = [{'step': step, 'phase': step % 2, 'loss': step / 10} for step in range(4)]
    rows[2]['health/effective_rank'] = 5.0
    drawn = []
    plot = matplotlib.axes.Axes.plot
    monkeypatch.setattr(matplotlib.axes.Axes, 'plot', lambda axis, *arguments, **options: drawn.append(
        (options['label'], *map(list, arguments[:-1]))) or plot(axis, *arguments, **options))
    png = pictures.curves(rows, ('loss', 'absent', 'health/effective_rank'))
    assert png.startswith(b'\x89PNG')
    assert drawn == [('phase 0', [0, 2], [0, pytest.approx(0.2)]), ('phase 1', [1, 3], [0.1, pytest.approx(0.3)]),
                     ('phase 0', [2], [5]), ('phase 1', [], [])]
