"""The encoder of a run, frozen: as a checkpoint has it, or as it was before the first step."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from vididi_jax.compilation import run_init
from vididi_jax.config import flatten, to_dict
from vididi_jax.data.records import SHORT_SIDE
from vididi_jax.errors import UserError
from vididi_jax.keys import root_key
from vididi_jax.models.build import build_encoder
from vididi_jax.models.conv3d import ON_CPUS
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.train import mesh as meshes
from vididi_jax.train.checkpoint import checksums, load_encoder_variables
from vididi_jax.train.processes import check_alike
from vididi_jax.train.run import EACH_ITS_OWN, check_trained_with
from vididi_jax.train.state import INIT


class Encoder(NamedTuple):
    """A frozen encoder and how it wants its pixels.

    Attributes:
      module: the linen module.
      variables: {'params', 'batch_stats'}.
      augment: of the training run; evaluation uses its crop size, centre fraction, mean and standard deviation.
      step: training steps behind the variables; 0 if untrained.
      commits: of the code that trained it, as the checkpoint has them.
    """

    module: nn.Module
    variables: Any
    augment: Augmentation
    step: int
    commits: tuple[str, ...] = ()

    def fingerprint(self, *about) -> str:
        """Hash of the weights, of how pixels are normalised, and of what else `about` them decides something."""
        pixels = {name: value for name, value in asdict(self.augment).items()
                  if name in ('size', 'centre_fraction', 'mean', 'std')}
        about = [*map(str, about), checksums(self.variables), pixels]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def check_same_everywhere(config, data: str, encoder: Encoder) -> None:
    """Raises `UserError` in all processes if one has another config, other data or weights than the first.

    What each of them computes would go into one result.

    Args:
      config: of an evaluation.
      data: fingerprint of what is evaluated.
      encoder: what evaluates.
    """
    if jax.process_count() > 1:
        check_alike({**flatten(to_dict(config)), 'data': data, 'encoder': encoder.fingerprint()},
                    free=EACH_ITS_OWN)


def stored_side(augment: Augmentation) -> int:
    """The shorter side at which frames should be stored: that of data_prep, or more where centre crops are larger."""
    return max(SHORT_SIDE, math.ceil(augment.size / augment.centre_fraction))


def asked_encoder(config, workdir: str, settings, scratch: bool = False) -> Encoder:
    """The encoder of `workdir`, trained with `config`, that `untrained` and `checkpoint` of `settings` ask.

    `scratch`: an untrained one has new weights, whatever the run started from, which need not be there any more.
    """
    if not settings.untrained:
        return trained_encoder(config, workdir, settings.checkpoint)
    return untrained_encoder(ml_collections.ConfigDict({**config, 'init_from': ''}) if scratch else config)


def trained_encoder(config, workdir: str, checkpoint: str | int = 'latest') -> Encoder:
    """The encoder of a checkpoint of `workdir`, whose training config is `config`; see `load_encoder_variables`.

    Nothing is initialised, only shapes are compared: `config.init_from` need not be there any more.
    """
    module, augment, init = _fresh(config)
    variables, meta = load_fitting_variables(workdir, jax.eval_shape(init)['params'], checkpoint)
    if 'config' in meta:
        check_trained_with(workdir, json.loads(meta['config']))
    return Encoder(module, variables, augment, meta['step'], tuple(meta.get('commits', ())))


def untrained_encoder(config) -> Encoder:
    """The encoder that a run of `config` starts from, before its first step: the baseline of every evaluation."""
    module, augment, init = _fresh(config)
    if config.init_from:
        variables, _ = load_fitting_variables(
            config.init_from, jax.eval_shape(init)['params'], config.init_checkpoint)
    else:
        variables = run_init(init)
    return Encoder(module, variables, augment, 0)


def _fresh(config) -> tuple[nn.Module, Augmentation, Callable[[], Any]]:
    """Module, augmentation, and `() -> variables` of a new encoder, drawn as in `init_state`."""
    module = build_encoder(*runnable(config.model))
    augment = Augmentation(**config.augment)
    clip_shape = (1, config.clip.frames, augment.size, augment.size, 3)

    def init():
        key = jax.random.fold_in(root_key(config.seed), INIT)
        return module.init(jax.random.split(key, 3)[0], jnp.zeros(clip_shape, module.dtype))

    return module, augment, init


def runnable(model) -> tuple[ml_collections.ConfigDict, jax.Device]:
    """(`model`, a device of those here); a formulation of convolutions that is for CPUs alone is 'auto' on others.

    It was a CPU that the run was on, and the formulations are equal but for rounding.
    """
    device = meshes.first_device(meshes.make_mesh())
    if model.conv_impl in ON_CPUS and device.platform != 'cpu':
        model = ml_collections.ConfigDict({**model, 'conv_impl': 'auto'})
    return model, device


def load_fitting_variables(workdir: str, expected, checkpoint: str | int) -> tuple[Any, dict]:
    """`load_encoder_variables(workdir, checkpoint)`, of the shapes of the parameters `expected`.

    Raises:
      UserError: what that raises, and weights that do not fit; names the first parameter.
    """
    variables, meta = load_encoder_variables(workdir, checkpoint)
    shapes = [{jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape
               for path, leaf in jax.tree_util.tree_leaves_with_path(tree)} for tree in (expected, variables['params'])]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        here, there = (s.get(name, 'absent') for s in shapes)
        if here != there:
            raise UserError(f'the encoder of {workdir} does not fit this config ({name} is {there} there and {here} '
                            'here): set config.model to what it was trained with.')
    return variables, meta
