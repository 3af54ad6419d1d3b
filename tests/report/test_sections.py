"""Sections of the report by themselves: what is drawn, and what is said of it."""

import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.data_sets import edit_rows
from vididi_jax import config as configs
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.evaluate.protocol import Fold, whole
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.report import evidence, looks, page, summary, views
from vididi_jax.report.animation import SIDE, Clips, animation, evenly
from vididi_jax.report.gallery import gallery_section
from vididi_jax.report.html import paragraph, table
from vididi_jax.report.results import class_rows, figure_rows
from vididi_jax.report.scatter import embed
from vididi_jax.report.views import visible


def test_many_classes_are_shown_from_first_to_last():
    labels = np.repeat(np.arange(101), 3)
    for count, classes in ((2, [0, 100]), (32, None), (101, range(101))):
        shown = labels[evidence.evenly_by_class(labels, count)]
        assert len(shown) == len(set(shown)) == count and {shown[0], shown[-1]} == {0, 100}
        assert classes is None or list(shown) == list(classes)
    few = labels[evidence.evenly_by_class(labels[:9], 7)]
    assert np.bincount(few).tolist() == [3, 2, 2]


def test_views_are_the_pixels_and_gray_where_nothing_changes():
    x, spec = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3)), Augmentation()
    x[:, 0] = 9
    normalised = (x / 255 - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_array_equal(visible(normalised, 0, spec), x)
    change = np.diff(normalised, axis=0)
    seen = visible(change, 1, spec)
    assert (seen[:, 0] == 128).all() and {0, 255} & {int(seen.min()), int(seen.max())}
    assert ((seen > 128) <= (change > 0)).all() and ((seen < 128) <= (change < 0)).all()


def test_an_animation_keeps_its_frames_and_shrinks_what_is_large():
    frames = np.random.default_rng(0).integers(0, 256, (5, 100, 200, 3)).astype(np.uint8)
    with Image.open(io.BytesIO(animation(frames))) as image:
        assert image.n_frames == 5 and image.size == (SIDE, SIDE // 2)
    assert evenly(100).tolist()[::23] == [0, 99] and evenly(3).tolist() == [0, 1, 2]


def test_a_map_keeps_what_is_near_together():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    places = embed(np.eye(8)[labels] + 0.01 * rng.normal(size=(60, 8)))
    assert places.min() == 0 and places.max() == 1
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.eye(60)
    assert (labels[distance.argmin(1)] == labels).all()


@pytest.mark.parametrize('features', [np.ones((20, 6)), np.full((20, 6), 1e-8)])
def test_a_collapsed_encoder_has_no_map_and_no_crash(features):
    with pytest.raises(UserError, match='the encoder has collapsed'):
        embed(features)


def test_clips_without_a_saliency_are_told():
    assert looks.mean_share(np.array([0.2, np.nan, 0.4])) == '30.0 (of 2 clips; nothing tells the others apart)'
    assert looks.mean_share(np.array([0.2, 0.4])) == '30.0'
    assert looks.mean_share(np.array([np.nan])).startswith('none')


def test_classes_are_told_with_what_they_are_taken_for():
    counts = np.array([[5, 0, 3, 1, 1], [0, 0, 0, 0, 0], [0, 0, 4, 0, 0], [9, 0, 1, 0, 0], [1, 2, 3, 4, 0]])
    rows = class_rows(counts, list('abcde'))
    assert rows == [('a', 10, '50', 'c 3, d 1, e 1'), ('c', 4, '100', ''), ('d', 10, '0', 'a 9, c 1'),
                    ('e', 10, '0', 'd 4, c 3, b 2')]


def result(encoder, date, value, **changes):
    """Of retrieval, what the page reads of it."""
    return {'task': 'retrieval', 'encoder': encoder, 'date': date, 'chance': 1.0, 'checkpoint_step': 3,
            'protocol': 'a/b', 'counts': {'train': {'videos': 5}, 'test': {'videos': 9}},
            'metrics': {'joined': {'R@1': value}}, **changes}


def test_of_several_results_the_newest_counts():
    found = {'a': result('trained', '2026-01-02', 20.0), 'b': result('trained', '2026-01-03', 30.0),
             'c': result('trained', '2026-01-01', 10.0), 'd': result('untrained', '2026-01-04', 5.0),
             'e': result('untrained', '2026-01-01', 4.0)}
    assert evidence.latest_retrieval(found) is found['b']
    line, = summary.headlines(found)
    assert (line.untrained, line.trained) == (5.0, 30.0)


def test_names_are_text_in_a_table():
    assert table([('<b>&', 1)], ('<i>', 'n')) == (
        '<div class="scroll" tabindex="0"><table><tr><th>&lt;i&gt;</th><th>n</th></tr>'
        '<tr><td>&lt;b&gt;&amp;</td><td>1</td></tr></table></div>')
    assert paragraph('<b>') == '<p>&lt;b&gt;</p>'


def test_deviations_over_folds_are_on_the_page():
    header, rows = figure_rows({'V': {'R@1': 12.34, 'R@5': 50.0}}, {'V': {'R@1': 1.26, 'R@5': 2.0}}, 3)
    assert rows == [('V', '12.3 ± 1.3', '50.0 ± 2.0')] and header == ('features, percent', 'R@1', 'R@5')


def test_cosines_stand_under_the_pictures(tiny_motion):
    test, train = (whole(RecordSource(tiny_motion, split)) for split in ('test', 'train'))
    x, y = (np.random.default_rng(n).normal(size=(n, 5)) for n in (16, 48))
    fold = Fold('', train, test)
    text = gallery_section(evidence.Evidence(None, fold, {'V': x, 'dV': x}, {'V': y, 'dV': y}), Clips())
    cosine = x @ y.T / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))
    shown = np.array(re.findall(r'<br>([-.\d]+)</figcaption>', text), float).reshape(16, 2, 5)
    np.testing.assert_allclose(shown, np.tile(-np.sort(-cosine)[:, None, :5], (1, 2, 1)), atol=6e-5)


def test_a_result_by_groups_is_on_the_page(tiny_motion):
    grouped = {'counts': {'all': {'videos': 9}}, 'metrics': {kind: {'R@1': 1.0} for kind in ('V', 'joined')}}
    found = {'a': result('trained', '1', 1.0, **grouped), 'b': result('untrained', '1', 1.0, **grouped)}
    assert '9 videos of a/b' in summary.headlines(found)[0].about
    assert 'the 9 test videos' in page.recall_section(found)[1]


def test_views_are_of_videos_that_training_uses(tiny_motion, tmp_path, monkeypatch):
    data, shown = shutil.copytree(tiny_motion, tmp_path / 'data'), []
    edit_rows(data, lambda i, row: row | ({'frames': 12} if i in (0, 1, 2) else {}))
    training = configs.load_config('configs/motion_vicreg.py:smoke')
    training.clip.short_video, training.augment.size = 'drop', 16
    load = views.pipeline.load_whole
    monkeypatch.setattr(views.pipeline, 'load_whole', lambda source, records, indices: (
        shown.extend(source.ids[records]), load(source, records, indices))[1])
    assert '3 of the 45 videos used of split' in views.views_section(training, RecordSource(data, 'train'), Clips())
    assert shown == list(RecordSource(data, 'train').ids[[3, 25, 47]])
