"""Pictures of a run."""

import matplotlib.axes
import numpy as np
import pytest

from vididi_jax import pictures
from vididi_jax.compare.runs import Group
from vididi_jax.compare.statistics import Figure


def test_each_phase_has_its_points(monkeypatch):
    """Also where a metric is missing in some phases, as that of health is before the first measurement."""
    rows = [{'step': step, 'phase': step % 2, 'loss': step / 10} for step in range(4)]
    rows[2]['health/effective_rank'] = 5.0
    drawn = []
    plot = matplotlib.axes.Axes.plot
    monkeypatch.setattr(matplotlib.axes.Axes, 'plot', lambda axis, *arguments, **options: drawn.append(
        (options['label'], *map(list, arguments[:-1]))) or plot(axis, *arguments, **options))
    png = pictures.curves(rows, ('loss', 'absent', 'health/effective_rank'), ('V', 'dV'))
    assert png.startswith(b'\x89PNG')
    assert drawn == [('0: V', [0, 2], [0, pytest.approx(0.2)]), ('1: dV', [1, 3], [0.1, pytest.approx(0.3)]),
                     ('0: V', [2], [5]), ('1: dV', [], [])]


def test_names_of_classes_are_no_formulas_and_fit():
    """Drawn for real: matplotlib would take what is between two dollars for mathematics."""
    names = ['win_$5', 'lose_$10_$', 'some/very/long/path/to/a/folder/of/videos/that/is/a/class']
    assert pictures.confusion_picture(np.eye(3, dtype=int), names, 'title').startswith(b'\x89PNG')
    assert len(pictures.label_of(names[2])) == pictures.LABEL and pictures.label_of('a') == 'a'


@pytest.fixture
def figures(monkeypatch):
    """Pictures stay figures."""
    monkeypatch.setattr(pictures, '_png', lambda figure, **_: figure)


def test_rows_of_a_confusion_are_the_true_classes_from_the_top(figures):
    axis, = pictures.confusion_picture(np.array([[3, 1, 0], [0, 0, 2], [0, 0, 0]]), list('abc'), 'title').axes
    np.testing.assert_allclose(axis.images[0].get_array(), [[0.75, 0.25, 0], [0, 0, 1], [0, 0, 0]])
    assert {text.get_position(): text.get_text() for text in axis.texts} == {(0, 0): '3', (1, 0): '1', (2, 1): '2'}
    assert (axis.get_xlabel(), axis.get_ylabel()) == ('predicted', 'true') and axis.yaxis_inverted()
    for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
        assert [label.get_text() for label in labels] == list('abc')


def test_boxes_stand_on_the_frame_where_they_are_told(figures):
    axis = pictures.keyframe_picture([(np.zeros((40, 80, 3), np.uint8), [((0.25, 0.5, 0.75, 1), 'run')],
                                       [((0, 0, 0.5, 0.25), 'walk 0.90')])]).axes[0]
    truth, judged = axis.patches
    assert truth.get_bbox().extents.tolist() == [20, 20, 60, 40] and truth.get_linestyle() in ('--', 'dashed')
    assert judged.get_bbox().extents.tolist() == [0, 0, 40, 10] and judged.get_linestyle() in ('-', 'solid')
    assert list(axis.images[0].get_extent()) == [0, 80, 40, 0] and axis.yaxis_inverted()
    assert [text.get_text() for text in axis.texts] == ['run', 'walk 0.90']


def test_bars_are_as_high_as_their_recall(figures):
    results = {name: {'V': {'R@1': one, 'R@5': five}} for name, one, five in (('a', 10, 30), ('b', 50, 90))}
    axis, = pictures.recall_bars(results, 12.5).axes
    assert [bar.get_height() for bar in axis.patches] == [10, 30, 50, 90]
    assert list(axis.lines[0].get_ydata()) == [12.5, 12.5]


def test_groups_have_bars_points_and_chance_in_sight(figures):
    group = Group('schedule=base', {'schedule': 'base'}, [])
    axis, = pictures.group_bars([Figure(group, 'tug', 'V', 'preferred', (2.0, 6.0), 4.0, 2.8, 50.0, '', None)]).axes
    assert [bar.get_width() for bar in axis.patches] == [4] and axis.get_xlim()[1] > 50
    assert [list(line.get_xdata()) for line in axis.lines if line.get_marker() == '.'] == [[2, 6]]
