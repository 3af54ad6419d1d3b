"""Encoders in and out of files: `load_encoder`, and the command `python -m vididi_jax.weights export|import`.

Files hold state dicts under torchvision's names, see `vididi_jax.models.torchvision`.
"""

import argparse
import importlib
import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax import schedule as schedules
from vididi_jax.compilation import jit_with_options, keep_programs
from vididi_jax.data import records
from vididi_jax.derivatives import time_derivative
from vididi_jax.errors import Parser, UserError, check_home, one_sentence
from vididi_jax.fields import RULES, short, whole
from vididi_jax.models import create_encoder
from vididi_jax.models.torchvision import MEAN, SIZES, STD, from_state_dict, to_state_dict, width_of
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.pixels.crops import centre_crop
from vididi_jax.train.checkpoint import Checkpoints, load_encoder_variables
from vididi_jax.train.encoder import Encoder, trained_encoder
from vididi_jax.train.processes import check_devices
from vididi_jax.train.run import workdir_config

ABOUT = 'vididi_jax'  # under this key a file says, as JSON, how its encoder was trained, see `export_weights`
FORMATS = {'.npz': 'numpy', '.safetensors': 'safetensors.numpy', '.pth': 'torch', '.pt': 'torch'}

# What is read of that, and what it may be.
SAID = {'step': whole(0, 2**63)} | {name.partition('.')[2]: RULES[name] for name in (
    'model.name', 'augment.size', 'augment.centre_fraction', 'augment.mean', 'augment.std', 'clip.frames',
    'clip.stride')}

WIDTH = 64  # of torchvision's models
DEFAULT = 'r3d_18'  # encoder of a file, if nothing else is said

Channels = tuple[float, float, float]


def load_encoder(
    source: str | Path, *, name: str | None = None, size: int | None = None, mean: Channels | None = None,
    std: Channels | None = None, batch_size: int = 32, checkpoint: str | int = 'latest',
) -> Callable[..., np.ndarray]:
    """The encoder of a training run, or of a file of torchvision's weights.

    It sets JAX's cache of compiled programs for the whole process, see `vididi_jax.compilation.keep_programs`: a second
    process answers sooner.

    Args:
      source: a workdir, or a .pth, .safetensors or .npz file.
      name: of a file's encoder. A workdir knows its own, and also what follows, and so do files that `export_weights`
        wrote, but for .pth. None is what those say, and r3d_18 of any other.
      size: height and width of the clips that a file's encoder gets; None as above, and of any other file what
        torchvision's own weights were trained on, 112 pixels, 224 for s3d.
      mean, std: of the channels of RGB in [0, 1], by which a file's encoder wants its pixels normalised; None as above,
        and of any other file those of torchvision's own video weights, which are not ImageNet's.
      batch_size: most clips that are encoded at a time.
      checkpoint: of a workdir, the one to take: 'latest', 'best' (of the lowest loss of a cycle), or a step.

    Returns:
      `encode(clips, order=0)`, see `help(encode)`: (N, T, H, W, 3) -> float32 features (N, D). A run of float64
      computes in float32 here, unless `jax_enable_x64` is set.

    Raises:
      UserError: no device, no such workdir, checkpoint or file, weights that do not fit, or options of a file with a
        workdir, or of a workdir with a file.

    Example:
      encode = load_encoder('runs/mine')
      features = np.concatenate([encode(clips), encode(clips, order=1)], axis=1)

    Reference: torchvision.models.video, R3D_18_Weights.KINETICS400_V1.transforms() and its like.
    """
    check_devices()
    keep_programs()
    if not str(source):
        raise UserError('source is empty: give a workdir or a file of weights.')
    check_home('source', source)
    source = Path(source)
    options = {'name': name, 'size': size, 'mean': mean, 'std': std}
    given = {option: value for option, value in options.items() if value is not None}
    if source.is_dir():
        if given:
            raise UserError(f'{source} is a workdir, which knows the {" and ".join(given)} of its encoder: leave '
                            f'{"it" if len(given) == 1 else "them"} out, they are for files of weights.')
        training = workdir_config(source)
        encoder = trained_encoder(training, str(source), checkpoint)
        return _Encode(encoder, batch_size, f'{training.model.name} of {source}, step {encoder.step}',
                       training.clip.frames, training.clip.stride)
    if source.is_file():
        if checkpoint != 'latest':
            raise UserError(f'{source} is a file of weights, which holds one encoder: leave checkpoint out, it is for '
                            'workdirs.')
        about = read_about(source) | given
        encoder = _from_file(source, about)
        return _Encode(encoder, batch_size, f'{about.get("name", DEFAULT)} of {source}', about.get('frames'),
                       about.get('stride'))
    raise UserError(f'{source} is neither a workdir nor a file of weights: give one of them.')


def _from_file(file: Path, about: dict) -> Encoder:
    """The encoder of a file, of which `about` is known."""
    name, state_dict = about.get('name', DEFAULT), read_weights(file)
    variables = from_state_dict(name, state_dict)
    module = create_encoder(name, width=width_of(name, state_dict))
    known = {'size': SIZES[name], 'mean': MEAN, 'std': STD}
    pixels = known | {field: about[field] for field in (*known, 'centre_fraction') if field in about}
    pixels |= {field: tuple(pixels[field]) for field in ('mean', 'std')}
    return Encoder(module, variables, Augmentation(**pixels), step=about.get('step', 0))


class _Encode:
    """`encode(clips, order=0)`: features of clips, float32 (N, D), by the encoder that `load_encoder` was given.

    Args:
      clips: (N, T, H, W, 3), N and T of any size: uint8 RGB, which is centre-cropped, resized and normalised as in
        evaluation, or floating point, which must be normalised already.
      order: the temporal derivative to encode; T must be larger.

    Raises:
      UserError: clips or orders of another kind.

    Attributes:
      frames, stride: of the clips that it was trained on; None where a file does not say.
    """

    def __init__(
        self, encoder: Encoder, batch_size: int, about: str, frames: int | None = None, stride: int | None = None,
    ):
        if batch_size < 1:
            raise UserError(f'batch_size is {batch_size}: it must be at least 1.')
        self.encoder, self.batch_size, self.frames, self.stride = encoder, batch_size, frames, stride
        self._about = about
        self.variables = jax.device_put(encoder.variables)
        self._apply = jit_with_options(static_argnames='order')(self._features)

    def __repr__(self) -> str:
        size = self.encoder.augment.size
        trained = f', trained on clips of {self.frames} frames at stride {self.stride}' if self.frames else ''
        return (f'encode(clips, order=0): (N, T, H, W, 3) -> (N, {self.encoder.module.feature_dim}) by {self._about}, '
                f'{size} x {size} pixels{trained}')

    def _features(self, variables, clips: jax.Array, order: int) -> jax.Array:
        if clips.dtype == jnp.uint8:
            sizes = jnp.broadcast_to(jnp.array(clips.shape[2:4]), (clips.shape[0], 2))
            clips = centre_crop(clips, sizes, self.encoder.augment, jnp.float32)
        views = time_derivative(clips, order)
        return self.encoder.module.apply(variables, views, train=False).astype(jnp.float32)

    def __call__(self, clips: np.ndarray, order: int = 0) -> np.ndarray:
        if isinstance(clips, str | Path):
            raise UserError(f'{clips} is a name: vididi_jax.encode_video(path, encode) takes a video file.')
        clips = np.asarray(clips)
        known = clips.dtype == np.uint8 or jnp.issubdtype(clips.dtype, jnp.floating)
        if clips.ndim != 5 or clips.shape[-1] != 3 or not known:
            raise UserError(f'clips are {clips.dtype} of shape {clips.shape}: give uint8 or normalised float clips of '
                            'shape (N, T, H, W, 3).')
        whole = isinstance(order, int | np.integer) and not isinstance(order, bool)
        if not whole or not 0 <= order < clips.shape[1]:
            raise UserError(f'clips of {clips.shape[1]} frames have no derivative of order {order!r}: give an integer '
                            'from 0 to one less than the number of frames.')
        features = [np.zeros((0, self.encoder.module.feature_dim), np.float32)]
        for start in range(0, len(clips), self.batch_size):
            part = clips[start : start + self.batch_size]
            # A power of two: few programs for clips of any number, and at most twice the work.
            count = min(self.batch_size, 1 << (len(part) - 1).bit_length())
            fill = np.zeros((count - len(part), *clips.shape[1:]), clips.dtype)
            found = self._apply(self.variables, np.concatenate([part, fill]), order=int(order))
            features.append(np.asarray(found)[: len(part)])
        return np.concatenate(features)


def _library(path: Path):
    """The module that reads and writes files of this name."""
    if path.suffix not in FORMATS:
        raise UserError(f'{path} is of no known format: its name must end in one of {", ".join(FORMATS)}.')
    library = FORMATS[path.suffix]
    try:
        return importlib.import_module(library)
    except ImportError as error:
        package = library.partition('.')[0]
        raise UserError(f'{path.suffix} files need {package}, which is not installed: pip install {package}, '
                        'or use a .npz file.') from error


def _first_sentence(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].split('. ')[0].rstrip('.')


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """The state dict of a file, .npz, .safetensors, or, where torch is installed, .pth and .pt.

    float16 and bfloat16 become float32, because parameters have at least that.

    Raises:
      UserError: no such file, an unknown format, a library that is not installed, or a file that holds no state dict.
    """
    path = Path(path)
    if path.suffix in FORMATS and not path.is_file():
        raise UserError(f'there is no file {path}.')
    library = _library(path)
    try:
        if library is np:
            with np.load(path) as file:
                state_dict = {key: file[key] for key in file.files if key != ABOUT}
        elif library.__name__ == 'torch':
            loaded = library.load(path, map_location='cpu', weights_only=True)
            odd = [str(key) for key, value in loaded.items() if not isinstance(value, library.Tensor)]
            if odd:
                raise ValueError(f'no tensor under {", ".join(odd)}')
            state_dict = {key: (value.float() if value.is_floating_point() and value.itemsize < 4 else value).numpy()
                          for key, value in loaded.items()}
        else:
            state_dict = library.load_file(path)
    except Exception as error:  # whatever a file that is no state dict makes its reader raise
        raise UserError(f'{path} cannot be read as a state dict ({_first_sentence(error)}).') from error
    half = ('float16', 'bfloat16')
    return {key: value.astype(np.float32 if value.dtype.name in half else value.dtype.newbyteorder('='))
            if value.dtype.name in half or not value.dtype.isnative else value for key, value in state_dict.items()}


def read_about(path: str | Path) -> dict:
    """What a file says of its encoder, see `export_weights`; {} if that is nothing. Raises as `read_weights`."""
    path = Path(path)
    library = _library(path)
    try:
        if library is np:
            with np.load(path) as file:
                text = str(file[ABOUT]) if ABOUT in file.files else '{}'
        elif path.suffix == '.safetensors':
            with importlib.import_module('safetensors').safe_open(path, framework='numpy') as file:
                text = (file.metadata() or {}).get(ABOUT, '{}')
        else:
            text = '{}'
        about = json.loads(text)
        if not isinstance(about, dict):
            raise ValueError(f'{ABOUT} is no JSON object')
    except Exception as error:  # whatever another file makes its reader raise
        raise UserError(f'{path} cannot be read as a state dict ({_first_sentence(error)}).') from error
    for field, keeps in SAID.items():
        if field in about and (must_be := keeps(about[field])):
            raise UserError(f'{path} says that {field} of its encoder is {short(about[field])}, and it must be '
                            f'{must_be}: export it anew.')
    return about


def write_weights(path: str | Path, state_dict: Mapping[str, np.ndarray], about: dict | None = None) -> None:
    """Write a state dict in the format that the name ends in, see `read_weights`; the file appears when it is whole.

    `about` goes into .npz and .safetensors, see `read_about`; a .pth has arrays alone, as `load_state_dict` takes them.

    Raises:
      UserError: an unknown format, a library that is not installed, or a folder that cannot be written to.
    """
    path = Path(path)
    library = _library(path)
    part = path.with_name(f'{path.stem}.{uuid4().hex[:8]}.part{path.suffix}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if library is np:
            np.savez(part, **state_dict, **({ABOUT: json.dumps(about)} if about else {}))
        elif library.__name__ == 'torch':
            library.save({key: library.from_numpy(np.array(value)) for key, value in state_dict.items()}, part)
        else:
            library.save_file(dict(state_dict), part, {ABOUT: json.dumps(about)} if about else None)
        part.replace(path)
    except Exception as error:  # whatever a library makes of a disk
        raise UserError(f'{path} cannot be written ({_first_sentence(error)}).') from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def export_weights(workdir: str, out: str, checkpoint: str | int = 'latest') -> None:
    """Write the encoder of a checkpoint of a workdir to a file that torchvision's model loads.

    Beside the arrays stands what `load_encoder` must know: `name` and `width`; `size`, `centre_fraction`, `mean` and
    `std` of the pixels; `frames` and `stride` of the clips; the derivative `orders` that it was pretrained on; `step`.
    """
    config = workdir_config(workdir)
    model, pixels, clip = config.model, config.augment, config.clip
    variables, meta = load_encoder_variables(workdir, checkpoint)
    about = {
        'name': model.name, 'width': model.width, 'size': pixels.size, 'centre_fraction': pixels.centre_fraction,
        'mean': list(pixels.mean), 'std': list(pixels.std), 'frames': clip.frames, 'stride': clip.stride,
        'step': meta['step']}
    if 'schedule' in config:  # a run of fine-tuning or detection has none
        shares = schedules.resolve(config.schedule).shares
        about['orders'] = [order for order, share in enumerate(shares) if share]
    write_weights(out, to_state_dict(model.name, variables), about)
    narrow = '' if model.width == WIDTH else (
        f'; torchvision\'s own models are of width {WIDTH}: docs/pytorch.md has one that takes .safetensors files')
    print(f'{model.name} of width {model.width} after step {meta["step"]} written to {out}{narrow}')
    if Path(out).suffix in ('.pth', '.pt'):
        known = ', '.join(f'{field}={about[field]!r}' for field in ('name', 'size', 'mean', 'std'))
        print(f'it has no place for how pixels are prepared: load_encoder({str(out)!r}, {known})')


def with_ending(out: str, form: str | None) -> str:
    """The name of a file of a format, whose ending is added if it has none of those in `FORMATS`.

    Raises `UserError` where they contradict each other, and for ONNX, which PyTorch writes.

    >>> with_ending('mine', 'npz'), with_ending('mine.pth', 'pth'), with_ending('mine.v2.pth', None)
    ('mine.npz', 'mine.pth', 'mine.v2.pth')
    """
    suffix = Path(out).suffix
    if 'onnx' in (form, suffix[1:]):
        raise UserError('ONNX is written by PyTorch, from a .safetensors file: export one, and see "The encoder in '
                        'PyTorch" of the documentation for the lines (docs/pytorch.md).')
    if form and suffix in FORMATS and FORMATS[suffix] != FORMATS[f'.{form}']:
        raise UserError(f'--out={out} ends in {suffix}, and --format is {form}: leave --format out, or give --out the '
                        f'ending .{form}.')
    return f'{out}.{form}' if form and suffix not in FORMATS else out


def import_weights(weights: str, name: str, out: str) -> None:
    """Write torchvision's weights as a checkpoint of an encoder alone, which `config.init_from` takes.

    Raises:
      UserError: a file that cannot be read or is of no such encoder, a folder that has checkpoints or cannot be
        written.
    """
    state_dict = read_weights(weights)
    variables = from_state_dict(name, state_dict)
    if (Path(out) / records.PLAN).exists():
        raise UserError(f'{out} is a data set: give --out another folder.')
    try:
        with Checkpoints(out) as checkpoints:
            if checkpoints.steps():
                raise UserError(f'{out} has checkpoints already: give --out another folder.')
            checkpoints.save(0, {part: {'encoder': tree} for part, tree in variables.items()}, {}, math.inf)
    except OSError as error:
        raise UserError(f'{out} cannot be written ({error.strerror}).') from error
    print(f'written to {out}: train from it with --config.init_from={out} --config.model.name={name} '
          f'--config.model.width={width_of(name, state_dict)}, and for torchvision\'s own weights '
          f'"--config.augment.mean={MEAN}" "--config.augment.std={STD}"')


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=prog,
        description='Exchange encoder weights with torchvision.models.video. Files end in .npz or '
        '.safetensors, or in .pth or .pt, which need torch, and hold arrays under torchvision\'s keys; '
        f'the first two also say how the encoder was trained, under {ABOUT!r}.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='export|import')
    command = commands.add_parser(
        'export', help='the encoder of a workdir into a file',
        description='Write the encoder of a workdir. A .pth file of width 64 in PyTorch: model = torchvision.models.'
        'video.r3d_18(); model.fc = torch.nn.Identity() (classifier for s3d); model.load_state_dict(torch.load(FILE)). '
        'docs/pytorch.md has a module of any width, for .safetensors files.')
    command.add_argument('--workdir', required=True, metavar='DIR', help='the workdir of a training run')
    command.add_argument('--out', required=True, metavar='FILE', help='file to write; its ending says the format')
    command.add_argument('--format', choices=('safetensors', 'pth', 'npz', 'onnx'), help='where the ending does not; '
                         'for onnx see docs/pytorch.md')
    command.add_argument('--checkpoint', default='latest', metavar='WHICH',
                         help='latest, best (of the lowest loss of a cycle), or a step')
    command = commands.add_parser(
        'import', help='a file into a checkpoint that training starts from',
        description='Check weights and write them as a checkpoint of an encoder, for --config.init_from. They want '
        'the pixel normalisation they were trained with in config.augment.mean and config.augment.std: '
        f'{MEAN} and {STD} for torchvision\'s own.')
    command.add_argument('--weights', required=True, metavar='FILE', help='a state dict; its head may be there or not')
    command.add_argument('--name', required=True, metavar='NAME', help='r3d_18, r2plus1d_18, mc3_18 or s3d')
    command.add_argument('--out', required=True, metavar='DIR', help='a new folder')
    return parser


@one_sentence()
def main(words: list[str] | None = None, prog: str = 'python -m vididi_jax.weights') -> None:
    arguments = build_parser(prog).parse_args(words)
    if arguments.command == 'export':
        export_weights(arguments.workdir, with_ending(arguments.out, arguments.format), arguments.checkpoint)
    else:
        import_weights(arguments.weights, arguments.name, arguments.out)


if __name__ == '__main__':
    main()
