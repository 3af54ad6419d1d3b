"""What augmentation leaves of a clip's stillness: derivatives of zero, but for what is drawn anew for each frame."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from vididi_jax.derivatives import time_derivative
from vididi_jax.pixels import augment as A


def random_clips(seed=0, shape=(3, 4, 20, 27, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def full_sizes(clips):
    return np.tile(np.array(clips.shape[2:4], np.int32), (len(clips), 1))


@pytest.mark.parametrize(('shape', 'size'), [((6, 1, 40, 53, 3), 33), ((3, 1, 31, 29, 3), 17)])
def test_static_clips_have_no_derivative(shape, size):
    """Exactly none on the concrete clip, also where sizes leave remainders to vectorised and blocked loops."""
    clips = np.repeat(random_clips(6, shape), 7, axis=1)
    spec = A.Augmentation(size=size)
    normalised = A.augment(jax.random.key(1), clips, full_sizes(clips), spec)
    assert normalised.shape == (len(clips), 7, size, size, 3)
    for order in (1, 2):
        assert not np.asarray(time_derivative(normalised, order)).any()


def test_static_clips_have_no_derivative_in_one_program():
    """To 1e-6: a compiler may contract multiply-adds across the subtraction."""
    clips = np.repeat(random_clips(6, (8, 1, 40, 53, 3)), 7, axis=1)
    fused = jax.jit(lambda key: time_derivative(A.augment(key, clips, full_sizes(clips), A.Augmentation(size=32))))
    assert np.abs(fused(jax.random.key(1))).max() <= 1e-6


AS_IN_A_RUN = """
import jax, numpy as np
from vididi_jax.pixels.augment import Augmentation, augment
from vididi_jax.derivatives import time_derivative

clips = np.repeat(np.random.default_rng(6).integers(0, 256, (3, 1, 31, 45, 3), np.uint8), 7, axis=1)
sizes = np.tile(np.array([31, 45], np.int32), (3, 1))
spec = Augmentation(size=23, blur=1, jitter=1)
still = augment(jax.random.key(1), clips, sizes, spec)
print(*(float(np.abs(time_derivative(still, order)).max()) for order in (1, 2)))
print(float(jax.jit(lambda key: abs(time_derivative(augment(key, clips, sizes, spec))).max())(jax.random.key(1))))
"""


def test_static_clips_have_no_derivative_as_a_run_compiles_them(root):
    """The tests turn XLA's optimisation off, which may round otherwise: a process of its own has XLA's defaults."""
    environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
    command = [sys.executable, '-c', AS_IN_A_RUN]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second, fused = map(float, done.stdout.split())
    assert first == second == 0
    assert fused <= 1e-6


def test_what_stands_still_in_a_moving_clip_stays_still():
    """Jitter is one map for all frames: its contrast is around the mean of the clip, not of each frame."""
    clips = np.repeat(random_clips(6, (8, 1, 24, 24, 3)), 5, axis=1)
    clips[:, :, 4:12, 4:12] = random_clips(7, (8, 5, 8, 8, 3))
    spec = A.Augmentation(size=24, crop='none', flip=0, blur=0, jitter=1)
    moved = np.array(time_derivative(A.augment(jax.random.key(1), clips, full_sizes(clips), spec)))
    assert np.abs(moved[:, :, 4:12, 4:12]).max() > 0.1
    moved[:, :, 4:12, 4:12] = 0
    assert not moved.any()


@pytest.mark.parametrize('operation', [dict(jitter=1.0), dict(gray=1.0)])
def test_per_frame_colour_breaks_that(operation):
    clips = np.repeat(random_clips(6, (4, 1, 40, 53, 3)), 5, axis=1)
    spec = A.Augmentation(size=32, frame_consistent=False, **dict(jitter=0, gray=0) | operation)
    normalised = A.augment(jax.random.key(1), clips, full_sizes(clips), spec)
    assert np.abs(time_derivative(normalised)).max() > 0.01


PER_FRAME = {'crop': dict(crop='random_resized'), 'flip': dict(flip=0.5), 'blur': dict(blur=0.5),
             'jitter': dict(jitter=1.0), 'gray': dict(gray=0.5)}


@pytest.mark.parametrize('varying', PER_FRAME)
def test_each_operation_may_be_drawn_anew_for_each_frame(varying):
    """Frames of a static clip differ if the one operation that varies is on, and are equal with all others on."""
    clips = np.repeat(random_clips(6, (4, 1, 20, 20, 3)), 6, axis=1)
    off = dict(size=20, crop='none', flip=0, blur=0, jitter=0, gray=0)

    def change(fields):
        spec = A.Augmentation(**off | fields, frame_consistent=False, per_frame=(varying,))
        return np.abs(time_derivative(A.augment(jax.random.key(1), clips, full_sizes(clips), spec))).max()

    assert change(PER_FRAME[varying]) > 0.01
    others = {field: value for name, fields in PER_FRAME.items() if name != varying for field, value in fields.items()}
    assert change(others) == 0


def test_flips_of_each_frame_go_with_the_crop_of_the_clip():
    """Each frame is that of the clip whose crop is drawn once, as it is or flipped."""
    clips = random_clips(9, (3, 8, 20, 27, 3))
    spec = dict(size=12, blur=0, jitter=0, gray=0)
    plain = np.asarray(A.augment(jax.random.key(2), clips, full_sizes(clips), A.Augmentation(**spec, flip=0)))
    varied = np.asarray(A.augment(jax.random.key(2), clips, full_sizes(clips), A.Augmentation(
        **spec, frame_consistent=False, per_frame=('flip',))))
    same, turned = (np.isclose(varied, x, atol=1e-5).all((2, 3, 4)) for x in (plain, plain[:, :, :, ::-1]))
    assert (same | turned).all() and same.any() and turned.any()
