"""What lies in a folder: links, hidden files, and folders that cannot be read."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from data_prep.__main__ import build_parser, run
from data_prep.tree import read_tree
from tests.data_prep.videos import levels, write_video
from vididi_jax.errors import UserError

NOBODY = 65534


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp('video') / 'a.mp4', levels(5))


@pytest.fixture
def place(video):
    """place(path, ...) -> a folder that others may enter, with a copy of the video at each path."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)

    def place(*paths):
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(video, root / path)
        return root

    yield place
    shutil.rmtree(root)


def prepare(videos, out):
    run(build_parser().parse_args(
        ['folder', f'--videos={videos}', f'--out={out}', '--workers=1', '--short_side=16', '--allow_missing']))
    rows = [json.loads(line) for line in (out / 'manifest.jsonl').read_text().splitlines()]
    return {row['id']: (row['label'], row['status']) for row in rows}


def test_links_to_folders_are_labels_and_circles_end(place, tmp_path, capsys):
    root = place('set/walk/w.mp4', 'elsewhere/run/r.mp4') / 'set'
    (root / 'run').symlink_to(root.parent / 'elsewhere' / 'run')
    (root / 'again').symlink_to('walk')
    (root / 'walk' / 'up').symlink_to('..')
    (root.parent / 'elsewhere' / 'run' / 'back').symlink_to(root)
    assert prepare(root, tmp_path / 'out') == {'run/r.mp4': ('run', 'ok'), 'walk/w.mp4': ('walk', 'ok')}
    assert '3 links lead to folders that are read under another name (the first: again)' in capsys.readouterr().out


@pytest.mark.parametrize('backwards', [False, True])
def test_of_two_names_of_a_folder_the_first_counts_whatever_a_disk_lists_first(place, monkeypatch, backwards):
    root = place('set/a/w.mp4', 'set/b/w.mp4', 'elsewhere/q.mp4') / 'set'
    for name in 'ab':
        (root / name / 'run').symlink_to(root.parent / 'elsewhere')

    class Listed(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def __next__(self):
            return self.pop(0) if self else next(iter(()))

        close = __iter__ = lambda self: self

    scan = os.scandir
    monkeypatch.setattr(os, 'scandir', lambda path: Listed(
        sorted(scan(path), key=lambda entry: entry.name, reverse=backwards)))
    assert list(map(str, read_tree(root).videos)) == ['a/run/q.mp4', 'a/w.mp4', 'b/w.mp4']


def test_links_that_lead_nowhere_are_missing(place, tmp_path, capsys):
    root = place('a/here.mp4')
    (root / 'a' / 'gone.mp4').symlink_to('../.git/annex/none.mp4')
    (root / 'b').mkdir()
    (root / 'b' / 'self.mp4').symlink_to('self.mp4')
    (root / 'c').symlink_to('/nowhere/at/all')
    assert prepare(root, tmp_path / 'out') == {
        'a/here.mp4': ('a', 'ok'), 'a/gone.mp4': ('a', 'missing'), 'b/self.mp4': ('b', 'missing')}
    printed = capsys.readouterr().out
    assert '2 links to videos lead nowhere, which are missing (the first: a/gone.mp4)' in printed
    assert '1 other links lead nowhere (the first: c)' in printed and '2 missing' in printed


def test_hidden_files_are_no_videos_and_are_counted(place, tmp_path, capsys):
    root = place('walk/w.mp4', '.git/annex/w.mp4', '.trash.mp4')
    for path in ('walk/._w.mp4', '__MACOSX/walk/._w.mp4'):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b'\0\5\26\7\0\2\0\0Mac OS X        ')
    assert prepare(root, tmp_path / 'out') == {'walk/w.mp4': ('walk', 'ok')}
    assert '1 video files below' in (printed := capsys.readouterr().out) and '4 other files are not read' in printed


def test_the_folder_that_archives_of_a_mac_have_besides_is_hidden_as_a_whole(place):
    assert list(map(str, read_tree(place('walk/w.mp4', '__MACOSX/walk/w.mp4')).videos)) == ['walk/w.mp4']


@pytest.mark.parametrize(('path', 'mode', 'named'), [('b', 0o000, 'b'), ('b', 0o444, 'b/b.mp4'), ('.', 0o300, '')])
def test_a_folder_that_cannot_be_read_is_one_sentence(place, tmp_path, path, mode, named):
    root = place('a/a.mp4', 'b/b.mp4')
    (root / path).chmod(mode)
    if (user := os.geteuid()) == 0:
        os.chown(root / path, NOBODY, -1)
        os.seteuid(NOBODY)
    try:
        with pytest.raises(UserError, match=f'{root / named} cannot be read .Permission denied.: change'):
            prepare(root, tmp_path / 'out')
    finally:
        os.seteuid(user)
        (root / path).chmod(0o755)


def test_where_no_video_is_left_the_sentence_says_what_is_there(place, tmp_path):
    root = place('.a.mp4')
    (root / 'gone.mp4').symlink_to('none')
    with pytest.raises(UserError, match='1 links to videos lead nowhere, and of its 1 other files none'):
        prepare(root, tmp_path / 'out')


def test_endings_count_in_either_case(tmp_path):
    for name in ('a.MP4', 'b.Mov', 'c.TXT'):
        (tmp_path / name).touch()
    tree = read_tree(tmp_path)
    assert tree.videos == [Path('a.MP4'), Path('b.Mov')] and tree.others == 1
