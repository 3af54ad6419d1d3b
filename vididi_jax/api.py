"""For scripts and notebooks: what the commands do, as functions of configs, folders and video files.

`import vididi_jax` has them all: `get_config`, `pretrain`, `evaluate`, `load_encoder`, `read_clips`, `encode_video`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from vididi_jax.config import load_config, shipped
from vididi_jax.data.clips import even_clips
from vididi_jax.data.records import ENCODING, SHORT_SIDE, decode_frame
from vididi_jax.errors import UserError, check_home
from vididi_jax.tasks import EVALUATIONS, TRAINING, run_task
from vididi_jax.train.encoder import stored_side
from vididi_jax.weights import load_encoder


def get_config(name: str | Path) -> ml_collections.ConfigDict:
    """A config to change and to run: NAME or NAME:VARIANT of one that comes with the project, or of a file.

    Returns:
      The config, unlocked: a field that nothing reads is refused by the task that it is given to.

    Raises:
      UserError: neither of them, or a variant that it does not have.

    Example:
      >>> config = get_config('motion_vicreg:smoke')
      >>> config.schedule = 'first_order'
      >>> config.model.name, config.schedule
      ('r3d_18', 'first_order')
    """
    return load_config(shipped(str(name)))


def pretrain(
    config: ml_collections.ConfigDict, workdir: str | Path, *, report: bool = True, mirror: str | None = None,
) -> Callable:
    """Train an encoder without labels, or go on training it, in `workdir`; what `vididi train` does.

    In a script, call it below `if __name__ == '__main__':`: its reading processes import the script again.

    Args:
      config: of a pretraining, see `get_config`; `config.data.dir` says on what.
      workdir: folder of the run.
      report: whether to write `WORKDIR/report`.
      mirror: URL at which the folder is kept as well, such as 'gs://BUCKET/runs/NAME': once a minute and at the end. A
        folder that does not exist here, or is empty, is copied from there first.

    Returns:
      The encoder, see `load_encoder`.

    Raises:
      UserError: whatever does not fit, before the first step; and values that are not finite.
      Stopped: a signal came; the state is saved, and the same call goes on from there.
    """
    _run(config, workdir, TRAINING, report, mirror)
    return load_encoder(workdir)


def evaluate(
    config: ml_collections.ConfigDict, workdir: str | Path, *, report: bool = True, mirror: str | None = None,
) -> Any:
    """Evaluate the encoder of `workdir`; what `vididi evaluate` does. In a script as `pretrain`.

    Args:
      config: of an evaluation, see `get_config`, such as 'retrieval', 'linear:grouped' or 'features'.
      workdir: of the training run.
      report: whether to write `WORKDIR/report` anew.
      mirror: as of `pretrain`.

    Returns:
      A dict of the metrics of each kind of features, in percent (frame-mAP from 0 to 1); of 'features' the path of the
      file, of 'eval_all' such a dict for each part.

    Raises:
      UserError: whatever does not fit, before anything is computed; and features that are not finite.
    """
    return _run(config, workdir, EVALUATIONS, report, mirror)


def _run(
    config: ml_collections.ConfigDict, workdir: str | Path, tasks: tuple[str, ...], report: bool, mirror: str | None,
) -> Any:
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f'config is {config!r:.80}: give a config, which get_config has for a name or a file.')
    if not workdir:
        raise UserError(f'workdir is {workdir!r}: give the folder of the run.')
    if config.get('task') not in tasks:
        raise UserError(f'config.task is {config.get("task")!r}: this function takes configs of {", ".join(tasks)}.')
    return run_task(config, str(workdir), report=report, mirror=mirror)


def read_clips(
    path: str | Path, *, clips: int = 1, frames: int = 8, stride: int = 1, short_side: int = SHORT_SIDE,
) -> np.ndarray:
    """Evenly spaced clips of a video file, with the pixels that `data_prep folder` would store.

    Args:
      path: of a file that FFmpeg reads.
      clips: how many; one is from the middle, several from the first frame to the last.
      frames: of a clip.
      stride: step between them; `clip.stride` of a training is 3 by default. Clips longer than the video loop.
      short_side: the shorter side in pixels.

    Returns:
      uint8 (clips, frames, height, width, 3), RGB, upright.

    Raises:
      UserError: no such file, one that is no whole video, or numbers below 1 (`short_side`: 8).

    Example:
      velocity = time_derivative(jnp.asarray(read_clips('my.mp4')) / 255.0)
    """
    from vididi_jax.data_prep.decode import decode_video

    if min(clips, frames, stride) < 1 or short_side < 8:
        raise UserError(f'clips, frames and stride ({clips}, {frames}, {stride}) must be at least 1, and short_side '
                        f'({short_side}) at least 8.')
    check_home('path', path)
    if not Path(path).is_file():
        raise UserError(f'there is no file {path}.')
    video = decode_video(path, short_side, ENCODING)
    if not video.frames:
        raise UserError(f'{path} cannot be read as a video: {video.reason}.')
    chosen = even_clips(len(video.frames), clips=clips, length=frames, stride=stride)
    found = np.empty((clips, frames, video.height, video.width, 3), np.uint8)
    for out, number in zip(found.reshape(-1, *found.shape[2:]), chosen.ravel(), strict=True):
        decode_frame(video.frames[number], ENCODING, out)
    return found


def encode_video(
    path: str | Path, encode: Callable, *, clips: int = 10, frames: int | None = None, stride: int | None = None,
    order: int = 0, short_side: int | None = None,
) -> np.ndarray:
    """Features of a video file: the mean over evenly spaced clips, centre-cropped.

    Args:
      path: see `read_clips`.
      encode: what `load_encoder` or `pretrain` gives.
      clips: how many.
      frames, stride: of a clip; None for those that the encoder was trained on, which a file of weights does not say.
      order: the temporal derivative to encode.
      short_side: see `read_clips`; None for 128, or more where the encoder wants larger crops. Features are those of
        `evaluate` if it is that of the prepared data, and `clips`, `frames` and `stride` are those of `config.eval`.

    Returns:
      float32 (D,).

    Raises:
      UserError: as `read_clips` and `encode`; also no `frames` or `stride` where the encoder does not know them.

    Example:
      encode = load_encoder('runs/mine')
      features = encode_video('my.mp4', encode)
    """
    if not hasattr(encode, 'frames'):
        raise UserError(f'encode is {encode!r:.80}: give what load_encoder or pretrain gives.')
    wanted = {'frames': encode.frames if frames is None else frames,
              'stride': encode.stride if stride is None else stride}
    unknown = [name for name, value in wanted.items() if value is None]
    if unknown:
        raise UserError(f'this encoder is from a file of weights, which does not say on which clips it was trained: '
                        f'give {" and ".join(unknown)}.')
    if short_side is None:
        short_side = stored_side(encode.encoder.augment)
    return encode(read_clips(path, clips=clips, short_side=short_side, **wanted), order=order).mean(0)
