"""HMDB51's official lists on a made-up tree, and its real files."""

from argparse import Namespace

import numpy as np
import pytest

from configs import retrieval
from data_prep import hmdb51
from data_prep.writer import write_dataset
from vididi_jax.data import pipeline
from vididi_jax.errors import UserError
from vididi_jax.evaluate.protocol import open_protocol


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
    with pytest.raises(UserError, match='videos are missing'):
        hmdb51.plan(arguments(vididi_data / 'hmdb51', lists))
    plan, decode = hmdb51.plan(arguments(vididi_data / 'hmdb51', lists, allow_missing=True))
    assert len(plan.videos) + len(plan.missing) == 5100
    rows = write_dataset(plan, decode, tmp_path / 'out', workers=1)
    assert {row['id']: (row['split'], row['status'], row['frames']) for row in rows if row['status'] != 'missing'} == {
        'Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6': ('train', 'ok', 83),  # its metadata are not UTF-8
        'RATRACE_wave_f_nm_np1_fr_goo_37': ('train', 'ok', 72),
        'KOREAN_TEA_CEREMONY_-_Simple_Demo_pour_u_nm_np1_fr_med_0': ('test', 'ok', 430),
        'TrumanShow_wave_f_nm_np1_fr_med_26': ('test', 'ok', 48)}

    config = retrieval.get_config()
    config.eval.protocol, config.allow_missing = 'hmdb51/split1', True
    (fold,) = open_protocol(config, str(tmp_path / 'out')).folds
    counts = fold.test.counts(config.eval)
    assert counts == {'listed': 1530, 'ok': 2, 'missing': 1528, 'broken': 0, 'videos': 2, 'looped': 1, 'dropped': 0,
                      'clips_per_video': 5.5}  # ten of one and one of the other
    batch = pipeline.evaluation_batches(
        fold.test.source, clips_per_video=10, length=16, stride=4, batch_size=2, records=np.arange(2))[0]
    clips = dict(zip((row['id'][:6] for row in fold.test.rows), batch['clips'], strict=True))
    np.testing.assert_array_equal(clips['Truman'][0, 12:], clips['Truman'][0, :4])  # 48 frames, from the start again
    assert (clips['KOREAN'][0] != clips['KOREAN'][9]).any() and batch['clips'].shape[:3] == (2, 10, 16)


@pytest.mark.parametrize('line', ['a_wave_u_cm_np1_fr_med_0.avi 3', 'a_walk_u_cm_np1_fr_med_0.avi 1', 'a.avi 1',
                                  '../../a_wave_u_cm_np1_fr_med_0.avi 1'])
def test_lists_are_checked_line_by_line(tmp_path, line):
    (tmp_path / 'wave_test_split1.txt').write_text(line + ' \n')
    with pytest.raises(UserError, match='line 1'):
        hmdb51.read_list(tmp_path / 'wave_test_split1.txt', 'wave')


def test_a_video_that_is_listed_twice_is_refused(tmp_path):
    (tmp_path / 'wave_test_split1.txt').write_text(2 * 'a_wave_u_cm_np1_fr_med_0.avi 1 \n')
    with pytest.raises(UserError, match='lists a_wave_u_cm_np1_fr_med_0 2 times'):
        hmdb51.read_list(tmp_path / 'wave_test_split1.txt', 'wave')


def test_incomplete_lists_are_refused(tmp_path):
    (tmp_path / 'wave_test_split1.txt').write_text('')
    (tmp_path / '._wave_test_split1.txt').write_bytes(b'\0\5\26\7')  # of a Mac
    with pytest.raises(UserError, match='has 1 lists'):
        hmdb51.plan(arguments(tmp_path, tmp_path))


def test_the_folder_above_the_lists_is_told_which_to_give(tmp_path):
    (tmp_path / 'lists').mkdir()
    (tmp_path / 'lists' / 'wave_test_split1.txt').write_text('')
    with pytest.raises(UserError, match=r'holds no \*_test_split1.txt: give --splits=.*/lists, which does'):
        hmdb51.plan(arguments(tmp_path, tmp_path))
