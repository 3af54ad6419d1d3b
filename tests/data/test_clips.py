"""Frame indices of clips."""

import numpy as np
import pytest

from vididi_jax.data.clips import (
    centre_clip,
    centre_frames_needed,
    different_clips,
    even_clips,
    frames_needed,
    sample_clip,
    sample_clip_pair,
    usable_videos,
)
from vididi_jax.errors import UserError


def pairs(num_frames, count=2000, **options):
    rng = np.random.default_rng(0)
    return np.stack([sample_clip_pair(rng, num_frames, length=8, stride=3, **options) for _ in range(count)])


def test_adjacent_clips_follow_each_other_from_a_uniform_start():
    got = pairs(60)
    assert (np.diff(got.reshape(-1, 16), axis=1) == 3).all()  # the second starts where the first ends
    starts, counts = np.unique(got[:, 0, 0], return_counts=True)
    assert starts.tolist() == list(range(60 - 48 + 1))
    assert counts.min() > 100  # expected 154, standard deviation 12


def test_independent_clips():
    got = pairs(40, placement='independent')
    assert (np.diff(got, axis=2) == 3).all()
    assert got.min() == 0 and got.max() == 37  # the last start is 40 - 24 = 16
    assert abs(np.corrcoef(got[:, 0, 0], got[:, 1, 0])[0, 1]) < 0.1


@pytest.mark.parametrize('placement', ['adjacent', 'independent'])
def test_short_videos_loop(placement):
    got = pairs(20, placement=placement)
    assert got.min() == 0 and got.max() == 19
    assert (np.diff(got, axis=2) % 20 == 3).all()


def test_even_clips_span_the_video():
    got = even_clips(100, clips=10, length=16, stride=4)
    assert got.shape == (10, 16)
    assert got[0, 0] == 0 and got[-1, -1] == 99
    assert (np.diff(got, axis=1) == 4).all()
    assert got[:, 0].tolist() == [0, 4, 9, 13, 17, 22, 26, 30, 35, 39]  # the nearest to 39 / 9, 2 x 39 / 9, ...
    assert even_clips(100, clips=1, length=16, stride=4)[0, 0] == 19
    looped = even_clips(10, clips=3, length=16, stride=4)
    assert looped.max() <= 9 and (looped[:, 0] == 0).all()


@pytest.mark.parametrize(('num_frames', 'clips', 'different'), [
    (100, 10, 10), (61, 10, 1), (62, 10, 2), (65, 10, 5), (70, 10, 10), (10, 10, 1), (100, 1, 1)])
def test_a_short_video_has_few_different_clips(num_frames, clips, different):
    """A clip of 16 frames at stride 4 spans 61; each frame more is one more to start at."""
    assert different_clips(num_frames, clips=clips, length=16, stride=4) == different
    distinct = {tuple(clip) for clip in even_clips(num_frames, clips=clips, length=16, stride=4)}
    assert different == len(distinct)


def test_policies_for_short_videos():
    frames = np.array([100, 47, 48, 10])
    assert usable_videos(frames, 48, 'loop').tolist() == [0, 1, 2, 3]
    assert usable_videos(frames, 48, 'drop').tolist() == [0, 2]
    with pytest.raises(UserError, match='2 of 4 videos'):
        usable_videos(frames, 48, 'error')
    with pytest.raises(UserError, match='all 4 videos'):
        usable_videos(frames, 1000, 'drop')
    with pytest.raises(UserError, match='loop, drop, error'):
        usable_videos(frames, 48, 'skip')
    with pytest.raises(UserError, match='adjacent, independent'):
        frames_needed(8, 3, 'random')


@pytest.mark.parametrize(('num_frames', 'length', 'stride'), [(24, 8, 1), (24, 8, 3), (25, 5, 4), (90, 16, 4)])
def test_the_centre_clip_has_the_middle_frame_in_its_middle(num_frames, length, stride):
    got = centre_clip(num_frames, length=length, stride=stride)
    assert got.shape == (1, length) and got[0, length // 2] == num_frames // 2
    assert (np.diff(got[0]) == stride).all() and got.min() >= 0 and got.max() < num_frames
    needed = centre_frames_needed(length, stride)
    runs_on = [(np.diff(centre_clip(n, length=length, stride=stride)) == stride).all() for n in range(1, 2 * needed)]
    assert runs_on.index(True) + 1 == needed and all(runs_on[needed - 1 :])
    looped = centre_clip(10, length=16, stride=4)
    assert looped.min() >= 0 and looped.max() < 10 and looped[0, 8] == 5


def test_single_clips_start_uniformly_where_they_fit_and_loop_where_they_do_not():
    rng = np.random.default_rng(0)
    got = np.stack([sample_clip(rng, 30, length=8, stride=3) for _ in range(2000)])
    assert got.shape == (2000, 1, 8) and (np.diff(got, axis=2) == 3).all()
    starts, counts = np.unique(got[:, 0, 0], return_counts=True)
    assert starts.tolist() == list(range(30 - 22 + 1))  # 22 frames from the first to the last
    assert counts.min() > 160  # expected 222, standard deviation 14
    looped = np.stack([sample_clip(rng, 20, length=8, stride=3) for _ in range(50)])
    assert looped.min() >= 0 and looped.max() <= 19 and (np.diff(looped, axis=2) % 20 == 3).all()
