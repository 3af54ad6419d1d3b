"""Every field of a pretraining config with its default: the authors' recipe where the paper or its code gives one.

The other files derive from this one and say what they change.
"""

from dataclasses import asdict

from ml_collections import ConfigDict

from vididi_jax.augment import Augmentation


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.task = 'pretrain'
    config.seed = 0
    config.epochs = 400  # 100 cycles of the four phases
    config.batch_size = 64  # videos a step, over all devices
    config.schedule = 'vididi'  # or base, first_order, random, derivative_only; see vididi_jax/schedule.py
    config.init_from = ''  # another workdir, to start from its encoder
    config.allow_missing = False  # evaluation only: run on an incomplete test set

    config.data = ConfigDict()
    config.data.dir = ''  # what data_prep wrote
    config.data.split = 'train'
    config.data.workers = -1  # decoding processes; -1: one a core, 0: threads

    config.clip = ConfigDict()
    config.clip.frames = 8
    config.clip.stride = 3
    config.clip.placement = 'adjacent'  # or independent
    config.clip.length = 'shrink'  # views of 8, 7 or 6 frames; 'constant' reads more and always gives 8
    config.clip.short_video = 'loop'  # or drop, error

    config.augment = ConfigDict(asdict(Augmentation()))  # described there; the defaults are the authors' values

    config.model = ConfigDict()
    config.model.name = 'r3d_18'
    config.model.width = 64
    config.model.dtype = 'auto'  # of activations: bfloat16, but float32 on a CPU; or float32, bfloat16, float64
    config.model.conv_impl = 'auto'
    config.model.remat = False  # recompute activations in the backward pass, to save memory

    config.framework = ConfigDict()
    config.framework.name = 'vicreg'
    config.framework.scope = 'global'  # statistics over the global batch, or 'per_device'
    config.framework.projector = (2048, 2048, 2048)
    config.framework.loss = ConfigDict({
        'name': 'vicreg', 'options': {'invariance': 1.0, 'variance': 1.0, 'covariance': 0.04}})

    config.optimizer = ConfigDict()
    config.optimizer.name = 'lars'
    config.optimizer.base_rate = 4.8  # at 256 videos a step
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-6
    config.optimizer.trust_coefficient = 0.001
    config.optimizer.warmup_epochs = 0
    config.optimizer.final_fraction = 0.001
    config.optimizer.clip_norm = 0.0  # 0: no clipping
    config.optimizer.accumulate = 1  # steps whose gradients are averaged into one update

    config.checkpoint = ConfigDict()
    config.checkpoint.keep = 4  # latest ones; the best stays too
    config.checkpoint.every_steps = 0  # besides the end of each phase
    config.log = ConfigDict()
    config.log.every_steps = 10
    return config


def finish(config: ConfigDict, variant: str) -> ConfigDict:
    """`config`, or its variant 'smoke': one cycle of a tiny encoder, to see in seconds that everything fits.

    Raises:
      ValueError: an unknown variant.
    """
    if variant == 'smoke':
        config.epochs = 4
        config.batch_size = 8
        config.optimizer.warmup_epochs = 0
        config.model.width = 4
        config.framework.projector = (32, 32, 32)
        config.augment.size = 32
        config.data.workers = 0
    elif variant:
        raise ValueError(f'there is no variant {variant!r}, only smoke')
    return config
