"""HMDB51's official lists on a made-up tree, and its real files."""

from argparse import Namespace

import pytest

from data_prep import hmdb51
from data_prep.writer import write_dataset
from vididi_jax.errors import UserError


def arguments(videos, splits, split=1, allow_missing=False):
    return Namespace(
        videos=videos, splits=splits, split=split, allow_missing=allow_missing, short_side=32, encoding='jpeg')


@pytest.mark.realdata
def test_all_splits_of_a_complete_tree_have_70_and_30_videos_a_class(vididi_data, tmp_path, capsys):
    """Empty files with the official names, among them names with brackets, '!' and '&'."""
    lists = vididi_data / 'splits' / 'hmdb51'
    for path in lists.glob('*_test_split1.txt'):
        folder = tmp_path / path.name.removesuffix('_test_split1.txt')
        folder.mkdir()
        for line in path.read_text().splitlines():
            (folder / line.rsplit(' ', 2)[0]).touch()
    odd = 0
    for split in (1, 2, 3):
        plan, _ = hmdb51.plan(arguments(tmp_path, lists, split))
        sides = {side: [video for video in plan.videos if video.split == side] for side in ('train', 'test')}
        assert {side: len(videos) for side, videos in sides.items()} == {'train': 3570, 'test': 1530}
        for label in plan.label_names:
            assert [sum(video.label == label for video in videos) for videos in sides.values()] == [70, 30]
        groups = [{video.group for video in videos} for videos in sides.values()]
        assert not groups[0] & groups[1]
        odd += sum(any(c in '!(&' for c in video.path) for video in plan.videos)
    assert odd and len(plan.label_names) == 51 and not plan.missing
    capsys.readouterr()


@pytest.mark.realdata
def test_real_files_decode_with_their_odd_names_and_metadata(vididi_data, tmp_path):
    lists = vididi_data / 'splits' / 'hmdb51'
    with pytest.raises(UserError, match='listed videos are missing'):
        hmdb51.plan(arguments(vididi_data / 'hmdb51', lists))
    plan, decode = hmdb51.plan(arguments(vididi_data / 'hmdb51', lists, allow_missing=True))
    assert plan.videos and len(plan.videos) + len(plan.missing) == 5100
    rows = write_dataset(plan, decode, tmp_path / 'out', workers=1)
    found = [row for row in rows if row['status'] != 'missing']
    assert all(row['status'] == 'ok' and row['frames'] >= 40 for row in found)


@pytest.mark.parametrize('line', ['a_wave_u_cm_np1_fr_med_0.avi 3', 'a_walk_u_cm_np1_fr_med_0.avi 1', 'a.avi 1'])
def test_lists_are_checked_line_by_line(tmp_path, line):
    (tmp_path / 'wave_test_split1.txt').write_text(line + ' \n')
    with pytest.raises(UserError, match='line 1'):
        hmdb51.read_list(tmp_path / 'wave_test_split1.txt', 'wave')


def test_incomplete_lists_are_refused(tmp_path):
    (tmp_path / 'wave_test_split1.txt').write_text('')
    with pytest.raises(UserError, match='has 1 lists'):
        hmdb51.plan(arguments(tmp_path, tmp_path))
