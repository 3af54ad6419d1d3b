"""UCF101 by its official lists: a made-up tree, and the real files."""

import csv
import os
from argparse import Namespace

import pytest

from data_prep import ucf101
from tests.data_prep.test_writer import manifest, prepare
from tests.data_prep.videos import ramp, write_video
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError

LISTS = {
    'classInd.txt': '1 Apply\r\n2 Bowl\r\n',
    'trainlist01.txt': 'Apply/v_Apply_g01_c01.avi 1\r\nBowl/v_Bowl_g02_c01.avi 2\r\nBowl/v_Bowl_g02_c02.avi 2\r\n',
    'testlist01.txt': 'Apply/v_Apply_g03_c01.avi\r\n',
}


@pytest.fixture
def tiny_ucf101(tmp_path):
    """Two classes in UCF101's form, one listed video missing."""
    for name, text in LISTS.items():
        (tmp_path / 'lists').mkdir(exist_ok=True)
        (tmp_path / 'lists' / name).write_bytes(text.encode())
    for name in ('Apply/v_Apply_g01_c01', 'Bowl/v_Bowl_g02_c01', 'Apply/v_Apply_g03_c01'):
        write_video(tmp_path / 'videos' / f'{name}.avi', ramp())
    return tmp_path


def ucf(tiny, *more):
    return ('ucf101', f'--videos={tiny / "videos"}', f'--splits={tiny / "lists"}', '--split=1', f'--out={tiny / "out"}',
            '--workers=1', '--short_side=32', *more)


def test_ucf101_counts_missing_videos_and_refuses(tiny_ucf101, capsys):
    with pytest.raises(UserError, match=r'1 of 4 videos are missing .*v_Bowl_g02_c02.avi.*--allow_missing'):
        prepare(*ucf(tiny_ucf101))
    assert not (tiny_ucf101 / 'out').exists()
    assert 'train: 2 of 3 listed videos found, 1 missing' in capsys.readouterr().out
    prepare(*ucf(tiny_ucf101, '--allow_missing'))
    rows = manifest(tiny_ucf101 / 'out')
    assert [(row['id'], row['label'], row['group'], row['split'], row['status']) for row in rows] == [
        ('v_Apply_g01_c01', 'Apply', 'Apply_g01', 'train', 'ok'), ('v_Bowl_g02_c01', 'Bowl', 'Bowl_g02', 'train', 'ok'),
        ('v_Apply_g03_c01', 'Apply', 'Apply_g03', 'test', 'ok'),
        ('v_Bowl_g02_c02', 'Bowl', 'Bowl_g02', 'train', 'missing')]
    assert RecordSource(tiny_ucf101 / 'out', 'train').counts == {'listed': 3, 'ok': 2, 'missing': 1, 'broken': 0}


@pytest.mark.parametrize(('file', 'text', 'message'), [
    ('classInd.txt', '0 Apply\n1 Bowl\n', 'line 1'),
    ('trainlist01.txt', 'Apply/v_Apply_g01_c01.avi 2\n', 'line 1'),
    ('trainlist01.txt', 'Apply/v_Apply_g01_c01.avi 1\nApply/movie.avi 1\n', 'line 2'),
    ('trainlist01.txt', 'Apply/../../v_Apply_g01_c01.avi 1\n', "line 1: 'Apply/.*' is no path below --videos"),
    ('testlist01.txt', 'Juggle/v_Juggle_g01_c01.avi\n', 'line 1'),
    ('testlist01.txt', 'Apply/v_Apply_g03_c01_copy.avi\n', 'line 1'),
    ('testlist01.txt', 2 * 'Apply/v_Apply_g03_c01.avi\n', 'lists v_Apply_g03_c01 2 times'),
    ('testlist01.txt', 'Apply/v_Apply_g01_c02.avi\n', "source 'Apply_g01' in split 'test' and in 'train'"),
])
def test_ucf101_lists_are_checked_line_by_line(tiny_ucf101, file, text, message):
    (tiny_ucf101 / 'lists' / file).write_text(text)
    with pytest.raises(UserError, match=message):
        prepare(*ucf(tiny_ucf101))


def test_a_missing_list_is_named(tiny_ucf101):
    (tiny_ucf101 / 'lists' / 'testlist01.txt').unlink()
    with pytest.raises(UserError, match='testlist01.txt'):
        prepare(*ucf(tiny_ucf101))


@pytest.mark.parametrize(('place', 'message'), [
    ('Apply/v_Apply_g01_c01.mp4', r'it has Apply/v_Apply_g01_c01.mp4, .* v_Apply_g01_c01.avi: give the original .avi'),
    ('UCF-101/Apply/v_Apply_g01_c01.avi', 'give --videos=.*/other/UCF-101, which has them'),
    ('v_Apply_g01_c01.avi', 'should have Apply/v_Apply_g01_c01.avi: put each video into the folder of its class'),
    ('Apply/other.avi', 'must hold one sub-folder a class, as Apply/v_Apply_g01_c01.avi'),
])
def test_a_folder_without_any_listed_video_is_told_what_to_give(tiny_ucf101, place, message):
    (tiny_ucf101 / 'other' / place).parent.mkdir(parents=True)
    (tiny_ucf101 / 'other' / place).touch()
    with pytest.raises(UserError, match=message):
        prepare(*ucf(tiny_ucf101, f'--videos={tiny_ucf101 / "other"}'))


def test_the_folder_above_the_lists_is_told_which_to_give(tiny_ucf101):
    with pytest.raises(UserError, match=r'holds no classInd.txt: give --splits=.*/lists, which does'):
        prepare(*ucf(tiny_ucf101, f'--splits={tiny_ucf101}'))


@pytest.mark.realdata
def test_real_ucf101_frame_counts_are_the_published_ones(vididi_data):
    """57 train and 57 test clips of split 1; a few of them decoded, against the counts of others' full copy."""
    arguments = Namespace(videos=vididi_data / 'ucf101', splits=vididi_data / 'splits' / 'ucf101', split=1,
                          allow_missing=True, short_side=32, encoding='jpeg')
    plan, decode = ucf101.plan(arguments)
    assert [sum(video.split == split for video in plan.videos) for split in ('train', 'test')] == [57, 57]
    assert len(plan.missing) == 9_537 + 3_783 - 114
    counts = {}
    for split in ('train', 'test'):
        with open(vididi_data / 'splits' / 'frame_manifests' / 'ucf101' / f'{split}_split01.csv') as file:
            for line in csv.reader(file):
                counts[os.path.basename(line[0])] = line[1]
    for video in plan.videos[::12]:
        assert str(len(decode(video).frames)) == counts[video.id]
