"""The motion data set: only motion tells the class."""

from argparse import Namespace

import numpy as np
import pytest

from data_prep import motion


def render(split, numbers, frames=16, size=32, seed=0):
    return np.stack([motion.render_video(seed, split, n, frames, size) for n in numbers]).astype(np.float64)


def test_a_video_depends_on_seed_split_and_number_alone():
    a, b = (motion.render_video(0, 'train', 5, 8, 16) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(motion.render_video(0, 'train', 5, 12, 16).shape, (12, 16, 16, 3))
    others = (motion.render_video(1, 'train', 5, 8, 16), motion.render_video(0, 'test', 5, 8, 16),
              motion.render_video(0, 'train', 13, 8, 16))
    assert all((a != other).any() for other in others)


def test_splits_are_balanced():
    assert [motion.label_of(n) for n in range(8)] == list(motion.CLASSES)
    assert motion.label_of(8) == motion.CLASSES[0]


@pytest.mark.parametrize('sizes', [motion.SAME, motion.VARIED])
@pytest.mark.parametrize('name', motion.CLASSES)
def test_each_class_moves_as_its_name_says(name, sizes):
    rng = np.random.default_rng(0)
    for _ in range(20):
        path = motion.trajectory(rng, name, 24, 32, sizes)
        step = (np.diff(path.centre, axis=0) + 16) % 32 - 16  # rows, columns
        turn = step[:-1, 0] * step[1:, 1] - step[:-1, 1] * step[1:, 0]
        if name in motion.DIRECTIONS:
            wanted = np.array(motion.DIRECTIONS[name])
            assert (step @ wanted > 0.9).all() and np.allclose(step @ wanted[::-1], 0)
        elif name == 'clockwise':  # rows grow downwards: right, then down
            assert (turn < 0).all()
        elif name == 'counterclockwise':
            assert (turn > 0).all()
        elif name == 'oscillating':
            assert np.allclose(step[:, 0], 0) and step[:, 1].min() < 0 < step[:, 1].max()
        else:
            assert np.allclose(step, 0) and np.ptp(path.radius) > 0.2 * path.radius.mean()
        assert name == 'pulsing' or np.ptp(path.radius) == 0


def test_the_background_stands_still():
    video = render('train', [0], frames=8)[0]
    still = np.ptp(video, axis=0).max(-1) == 0
    assert still.mean() > 0.3  # what the sprite never covers
    assert video[0].std() > 20  # and it is strong


def test_one_frame_carries_no_information_on_the_class():
    """A frame's nearest neighbour tells its class no better than chance; nor does the sprite's size."""
    frames = {split: render(split, range(800), frames=4, size=16)[:, 2].reshape(800, -1) for split in ('train', 'test')}
    labels = np.arange(800) % 8
    test, train = frames['test'], frames['train']
    distance = (train**2).sum(1) - 2 * test @ train.T  # squared, but for a term that is the query's own
    right = (labels[distance.argmin(1)] == labels).mean()
    assert abs(right - 1 / 8) < 4 * np.sqrt(1 / 8 * 7 / 8 / 800)  # four standard deviations
    radii = [np.array([motion.trajectory(np.random.default_rng(i), name, 4, 32, motion.SAME).radius[2]
                       for i in range(800)]) for name in motion.CLASSES]
    for radius in radii[:-1]:
        assert abs(radius.mean() - radii[-1].mean()) < 4 * np.sqrt(2 / 800) * radius.std()
        assert abs(radius.std() / radii[-1].std() - 1) < 0.15


def test_videos_are_those_of_their_seed():
    plan, decode = motion.plan(Namespace(train=8, test=8, frames=2, size=8, seed=3))
    got = np.stack([np.frombuffer(f, np.uint8).reshape(8, 8, 3) for f in decode(plan.videos[9]).frames])
    np.testing.assert_array_equal(got, motion.render_video(3, 'test', 1, 2, 8))
