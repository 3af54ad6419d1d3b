"""Browsing a folder: neighbours against plain numpy, and the command on a folder with a file that is no video."""

import html
import json
import os
import re

import numpy as np
import pytest

from data_prep import browse, folder
from data_prep.writer import write_dataset
from tests.data_prep.videos import ramp, write_video
from vididi_jax import config as configs
from vididi_jax.browse.neighbours import clusters_of, nearest_others
from vididi_jax.errors import UserError


def test_nearest_others_are_those_of_a_plain_sort():
    x = np.random.default_rng(0).normal(size=(15, 4))
    order, scores = nearest_others(x)
    cosine = x @ x.T / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(x, axis=1))
    for i in range(15):
        expected = [j for j in np.argsort(-cosine[i]) if j != i][:10]
        assert order[i].tolist() == expected
        np.testing.assert_allclose(scores[i], cosine[i][expected], atol=1e-12)
    assert nearest_others(x[:3])[0].shape == (3, 2)


def test_clusters_are_the_groups_that_there_are_and_hold_each_video_once():
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], (9, 6, 3))
    x = np.eye(5)[groups] + 0.01 * rng.normal(size=(18, 5))
    found = clusters_of(x, 3)
    assert [sorted(cluster.tolist()) for cluster in found] == [list(range(9)), list(range(9, 15)), [15, 16, 17]]
    assert sorted(np.concatenate(clusters_of(x)).tolist()) == list(range(18)) and len(clusters_of(x)) == 3
    assert [len(cluster) for cluster in clusters_of(np.ones((4, 2)), 3)] == [4]  # all equal


def test_the_first_of_a_cluster_is_its_most_central_and_lengths_do_not_count():
    angles = np.concatenate([np.linspace(-0.2, 0.3, 9), np.pi + np.array([0.4, 0.1, -0.3, -0.1, 0.0])])
    x = np.stack([np.cos(angles), np.sin(angles)], 1)
    for features in (x, x * np.geomspace(1, 1000, 14)[:, None]):
        first, second = clusters_of(features, 2)
        assert [cluster[0] for cluster in (first, second)] == [4, 13] and second[-1] == 9


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / 'videos'
    for number in range(5):
        write_video(folder / f'a<{number}>.avi', ramp(10 + number, 32, 24 + 2 * number))
    (folder / 'broken.mp4').write_bytes(b'no video')
    return folder


def test_files_that_have_changed_are_read_again(tmp_path):
    def places():
        return browse.prepare_folder(str(tmp_path / 'videos'), tmp_path / 'out', 16, lambda count: None)

    write_video(tmp_path / 'videos' / 'a.avi', ramp(6))
    (first, rows), (again, _) = places(), places()
    write_video(tmp_path / 'videos' / 'a.avi', ramp(9))
    other, changed = places()
    assert first == again != other and [rows[0]['frames'], changed[0]['frames']] == [6, 9]


def test_checksums_of_videos_make_no_data_set_of_their_folder(tmp_path):
    write_video(tmp_path / 'videos' / 'a.avi', ramp(6))
    (tmp_path / 'videos' / 'SHA256SUMS').write_text(f'{64 * "0"}  a.avi\n')
    _, (row,) = browse.prepare_folder(str(tmp_path / 'videos'), tmp_path / 'out', 16, lambda count: None)
    assert (row['id'], row['frames']) == ('a.avi', 6)


def test_a_folder_is_embedded_searched_and_kept(root, finished, videos, tmp_path, capsys):
    def run(**changes):
        config = configs.load_config(f'{root}/configs/browse.py:smoke')
        config.checkpoint, config.videos = str(finished[0]), str(videos)
        config.update(changes)
        browse.run(config, str(tmp_path / 'out'))
        return capsys.readouterr().out

    printed = run(query=str(videos / 'a<3>.avi'))
    assert '5 videos embedded, 1 not read' in printed
    lines = re.findall(r'^ +(\d+) +([\d.-]+)  (.*)$', printed, re.MULTILINE)
    assert [line[0] for line in lines] == list('12345') and lines[0][1:] == ('1.000', 'a<3>.avi')
    assert {line[2] for line in lines} == {f'a<{number}>.avi' for number in range(5)}
    text = (tmp_path / 'out' / 'index.html').read_text()
    assert 'broken.mp4' in text and '<td>broken</td>' in text and 'a<3>' not in text.split('<script')[0]
    data = json.loads(re.search(r'id="videos">(.*?)</script>', text)[1])
    assert data['names'] == [f'a<{number}>.avi' for number in range(5)]
    assert all(sorted([*near, i]) == list(range(5)) for i, near in enumerate(data['near']))
    found = re.findall(r'data-video="\d+" role="button" tabindex="0" title="(.*?)"', text)
    tiles = [html.unescape(name) for name in found]
    assert sorted(tiles) == data['names']
    assert 'complete already' in run(kind='V')
    prepared, = (tmp_path / 'out').glob('data_*')
    printed = run(videos=str(prepared))
    assert '5 videos embedded, 1 not read' in printed and 'complete' not in printed
    write_video(videos / 'a<0>.avi', ramp(12, 32, 24))  # another one of that name
    write_video(videos / os.fsdecode(b'caf\xe9.avi'), ramp(12, 32, 24))
    assert '6 videos embedded' in run() and 'caf\\\\xe9.avi' in (tmp_path / 'out' / 'index.html').read_text()
    videos.rename(tmp_path / os.fsdecode(b'd\xe9'))
    assert '6 videos embedded' in run(videos=str(tmp_path / os.fsdecode(b'd\xe9')))
    assert 'd\\xe9: features' in (tmp_path / 'out' / 'index.html').read_text()


def browsed(root, finished, videos):
    config = configs.load_config(f'{root}/configs/browse.py:smoke')
    config.checkpoint, config.videos = str(finished[0]), str(videos)
    return config


@pytest.fixture
def stored(monkeypatch):
    """How the videos are stored of which features are asked for, which are all equal: encoding, and shorter sides."""
    found = []

    def features(encoder, source, **options):
        found.append((source.encoding, *source.sizes.min(1)))
        return {order: np.ones((len(source), 4)) for order in options['orders']}

    monkeypatch.setattr(browse, 'video_features', features)
    return found


def test_of_more_videos_than_a_page_holds_only_the_nearest_to_one_are_told(
        root, finished, stored, videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(browse, 'MOST', 4)
    config, out = browsed(root, finished, videos), tmp_path / 'out'
    with pytest.raises(UserError, match='has 6 videos, and a page holds at most 4: browse a part'):
        browse.run(config, str(out))
    assert not out.exists()  # nothing was decoded
    config.query = str(videos / 'a<3>.avi')
    browse.run(config, str(out))
    assert '5 videos embedded, 1 not read; more than the 4 of a page' in (printed := capsys.readouterr().out)
    assert len(re.findall(r'^ +\d   1\.000  a<\d>\.avi$', printed, re.MULTILINE)) == 5
    assert not (out / 'index.html').exists()
    gallery, = out.glob('data_*')
    config.videos, config.query = str(gallery), ''
    with pytest.raises(UserError, match='has 5 videos, and a page holds at most 4'):
        browse.run(config, str(out))


def test_a_query_is_stored_as_the_videos_are(root, finished, stored, videos, tmp_path, monkeypatch):
    """Whatever they were prepared with; a folder as large as the encoder wants it."""
    monkeypatch.setattr(browse, 'stored_side', lambda augment: 40)
    write_dataset(*folder.plan_folder(str(videos), short_side=24, encoding='raw'), tmp_path / 'gallery', 1)
    config = browsed(root, finished, tmp_path / 'gallery')
    config.query = str(videos / 'a<3>.avi')
    browse.run(config, str(tmp_path / 'out'))
    assert stored == [('raw', *5 * [24]), ('raw', 24)]
    config.videos = str(videos)
    browse.run(config, str(tmp_path / 'out'))
    assert stored[2:] == [('jpeg', *5 * [40]), ('jpeg', 40)]


def test_what_cannot_be_browsed_is_one_sentence(root, finished, videos, tmp_path):
    config = configs.load_config(f'{root}/configs/browse.py:smoke')
    for changes, told in (({}, 'give --config.checkpoint'), ({'checkpoint': str(finished[0])}, 'give --config.check'),
                          ({'checkpoint': str(tmp_path), 'videos': str(videos)}, 'no config.json'),
                          ({'checkpoint': str(finished[0]), 'query': 'none.avi'}, 'no such file'),
                          ({'query': str(videos / 'broken.mp4')}, 'config.query is .*broken.mp4, which cannot be read'),
                          ({'videos': str(videos / 'broken.mp4'), 'query': ''}, 'and that is no folder: give the one')):
        config.update(changes)
        with pytest.raises(UserError, match=told):
            browse.run(config, str(tmp_path / 'out'))


@pytest.mark.parametrize(('kind', 'order'), [('V', 0), ('dV', 1), ('d2V', 2), ('joined', 3)])
def test_videos_are_near_by_the_features_that_are_asked_for(
        root, small_run, tiny_motion, tmp_path, monkeypatch, kind, order):
    own = {number: np.random.default_rng(number).normal(size=(48, 6)) for number in range(3)}
    own[3] = np.hstack([own[number] / np.linalg.norm(own[number], axis=1, keepdims=True) for number in (0, 1)])
    monkeypatch.setattr(browse, 'video_features', lambda *_, **__: own)
    config = configs.load_config(f'{root}/configs/browse.py:smoke')
    config.checkpoint, config.videos, config.kind, config.clusters = str(small_run), str(tiny_motion), kind, 3
    browse.run(config, str(tmp_path))
    text = (tmp_path / 'index.html').read_text()
    near = json.loads(re.search(r'id="videos">(.*?)</script>', text)[1])['near']
    x = own[order] / np.linalg.norm(own[order], axis=1, keepdims=True)
    assert near == np.argsort(-x @ x.T, axis=1)[:, 1:11].tolist()
    assert text.count('<h2>Cluster ') == 3 and f'features of {kind if order < 3 else "V and dV joined"} by' in text
    assert '3 x 1 (centre) views of 8 frames at stride 1; ' in text and 'dV its velocity (differences of' in text


def test_videos_of_other_splits_are_told(root, small_run, tiny_motion, tmp_path, monkeypatch):
    own = dict.fromkeys(range(3), np.random.default_rng(0).normal(size=(48, 6)))
    monkeypatch.setattr(browse, 'video_features', lambda *_, **__: own)
    config = configs.load_config(f'{root}/configs/browse.py:smoke')
    config.checkpoint, config.videos = str(small_run), str(tiny_motion)
    browse.run(config, str(tmp_path))
    text = (tmp_path / 'index.html').read_text()
    assert '0 of 48 files could not be read' in text and 'The 16 videos of other splits than train are not here' in text
