"""Which frames make a clip: index arithmetic on numbers of frames, no pixels."""

import numpy as np

from vididi_jax.errors import UserError

SHORT_VIDEO_POLICIES = ('loop', 'drop', 'error')
PLACEMENTS = ('adjacent', 'independent')


def frames_needed(length: int, stride: int, placement: str) -> int:
    """Frames that a video must have so that no clip of a pair has to loop.

    Adjacent clips cover `2 * length * stride` frames, independent ones `length * stride` each: a frame stands for
    the `stride` frames that it was picked from, as in the reference implementation. Raises `UserError` for an unknown
    placement.
    """
    if placement not in PLACEMENTS:
        raise UserError(f'clip.placement is {placement!r}: choose one of {", ".join(PLACEMENTS)}.')
    return (2 if placement == 'adjacent' else 1) * length * stride


def frames_spanned(length: int, stride: int) -> int:
    """Frames of the video from the first to the last of one clip, the fewest that it does not loop in."""
    return (length - 1) * stride + 1


def check_stride(num_frames: np.ndarray, stride: int, field: str) -> None:
    """Raises `UserError` if no video is longer than the step between two frames of a clip; `field` is its name."""
    if len(num_frames) and stride >= (longest := np.max(num_frames)):
        if longest == 1:
            raise UserError('every video has one frame, in which nothing moves: give longer videos.')
        raise UserError(f'{field} is {stride} and the longest video has {longest} frames: a clip would go round the '
                        f'whole video from each of its frames to the next: lower config.{field}.')


def usable_videos(num_frames: np.ndarray, needed: int, policy: str) -> np.ndarray:
    """Indices of the videos to use under a policy for videos of fewer than `needed` frames.

    Args:
      num_frames: (N,) decoded frames of each video.
      needed: see `frames_needed` and `frames_spanned`.
      policy: 'loop' keeps every video (clips run on from its start), 'drop' leaves short ones out, 'error' refuses.

    Returns:
      (M,) int64 indices, ascending.

    Raises:
      UserError: unknown policy, a short video under 'error', or nothing left under 'drop'.
    """
    num_frames = np.asarray(num_frames)
    short = num_frames < needed
    if policy not in SHORT_VIDEO_POLICIES:
        raise UserError(f'short_video is {policy!r}: choose one of {", ".join(SHORT_VIDEO_POLICIES)}.')
    if policy == 'error' and short.any():
        raise UserError(
            f'{short.sum()} of {len(short)} videos have fewer than the {needed} frames that clips need '
            f'(the shortest has {num_frames.min()}): shorten the clips, or set short_video to loop or drop.'
        )
    if not len(num_frames):
        raise UserError('there is no video to use: all that are listed are missing or broken.')
    kept = np.flatnonzero(~short) if policy == 'drop' else np.arange(len(num_frames))
    if not len(kept):
        raise UserError(f'all {len(short)} videos have fewer than {needed} frames and short_video is drop: '
                        'shorten the clips, or set short_video to loop.')
    return kept


def sample_clip_pair(
    rng: np.random.Generator, num_frames: int, *, length: int, stride: int, placement: str = 'adjacent'
) -> np.ndarray:
    """Frame indices of two random clips of one video.

    'adjacent': the second clip starts where the first ends, the start is uniform over all starts that fit.
    'independent': two independent uniform starts. A video that is too short is read as a loop from a uniform start.

    Args:
      rng: numpy generator.
      num_frames: decoded frames of the video.
      length: frames of a clip.
      stride: step between them, in frames of the file.
      placement: 'adjacent' or 'independent'.

    Returns:
      (2, length) int64, each in [0, num_frames).

    Reference: Chen et al., CPAL 2025, section 4 (experimental setup).
    """
    room = num_frames - frames_needed(length, stride, placement)
    starts = rng.integers(0, room + 1 if room >= 0 else num_frames, size=2)
    if placement == 'adjacent':
        starts[1] = starts[0] + length * stride
    return (starts[:, None] + stride * np.arange(length)) % num_frames


def sample_clip(rng: np.random.Generator, num_frames: int, *, length: int, stride: int) -> np.ndarray:
    """Frame indices of one random clip: uniform over all starts that fit; a video that is too short loops.

    Args:
      rng: numpy generator.
      num_frames: decoded frames of the video.
      length, stride: as in `even_clips`.

    Returns:
      (1, length) int64, each in [0, num_frames).
    """
    room = num_frames - frames_spanned(length, stride)
    start = rng.integers(0, room + 1 if room >= 0 else num_frames)
    return (start + stride * np.arange(length))[None] % num_frames


def even_clips(num_frames: int, *, clips: int, length: int, stride: int) -> np.ndarray:
    """Frame indices of evenly spaced clips, from the first frame to the last that a clip can start at.

    Args:
      num_frames: decoded frames of the video; a clip that does not fit loops.
      clips: number of clips; one clip is taken from the middle.
      length: frames of a clip.
      stride: step between them.

    Returns:
      (clips, length) int64, each in [0, num_frames).
    """
    room = max(num_frames - frames_spanned(length, stride), 0)
    starts = np.round(np.linspace(0, room, clips)) if clips > 1 else np.array([room // 2])
    return (starts.astype(np.int64)[:, None] + stride * np.arange(length)) % num_frames


def different_clips(num_frames: int, *, clips: int, length: int, stride: int) -> int:
    """How many of the `clips` of `even_clips` differ: a short video has few places to start at, one that loops has one.

    Example:
      >>> different_clips(17, clips=10, length=16, stride=1)
      2
    """
    return len(np.unique(even_clips(num_frames, clips=clips, length=length, stride=stride)[:, 0]))


def centre_clip(num_frames: int, *, length: int, stride: int) -> np.ndarray:
    """Frame indices of one clip around the middle frame, the keyframe of a detection data set.

    Frame `length // 2` of the clip is frame `num_frames // 2` of the video; a clip that does not fit loops.

    Args:
      num_frames: decoded frames of the video.
      length, stride: as in `even_clips`.

    Returns:
      (1, length) int64, each in [0, num_frames).
    """
    return (num_frames // 2 + stride * (np.arange(length) - length // 2))[None] % num_frames


def centre_frames_needed(length: int, stride: int) -> int:
    """Frames that a video must have so that `centre_clip` does not loop."""
    return 2 * stride * (length // 2) + length % 2
