"""Every field of a pretraining config with its default: the authors' recipe where the paper or its code gives one; and
what all evaluations of a workdir have in common.

The other files derive from this one and say what they change.
"""

from dataclasses import asdict

from ml_collections import ConfigDict, FieldReference

from vididi_jax.pixels.augment import Augmentation

FRAMEWORKS = {  # sizes of the heads' layers, the loss and its options; only BYOL has a predictor
    'vicreg': {'projector': (2048, 2048, 2048), 'predictor': (), 'loss': 'vicreg',
               'loss_options': {'invariance': 1.0, 'variance': 1.0, 'covariance': 0.04}},
    'simclr': {'projector': (4096, 4096, 512), 'predictor': (), 'loss': 'info_nce',  # or nt_xent: 2N - 2 negatives
               'loss_options': {'temperature': 0.1}},
    'byol': {'projector': (4096, 256), 'predictor': (4096, 256), 'loss': 'byol', 'loss_options': {}},
}


def get_config(framework: str = 'vicreg') -> ConfigDict:
    config = ConfigDict()
    config.task = 'pretrain'
    config.seed = 0  # from 0 to 4,294,967,295
    config.epochs = 400  # 100 cycles of the four phases; from 1 to 1,000,000
    config.batch_size = 64  # videos a step, over all devices; from 2 to 65,536
    # Or base, first_order, random, derivative_only, see vididi_jax/schedule.py; or phases of your own ((1, 1), (0, 2)),
    # with a coin {'phases': ((1, 1), (0, 2)), 'coin': True}: assigned in a file, or in quotes on the command line.
    config.schedule = FieldReference('vididi', field_type=object)  # of any type
    # BatchNorm's running statistics: an average for each derivative order, mixed in the schedule's shares; or 'plain',
    # one average that remembers a dozen steps, and with it what the schedule's last coins drew.
    config.statistics = 'by_order'
    config.init_from = ''  # another workdir, to start from its encoder
    config.init_checkpoint = 'latest'  # which one of that: or best (lowest loss of a cycle), or a step
    config.allow_missing = False  # evaluation only: run on an incomplete test set

    config.data = ConfigDict()
    config.data.dir = ''  # what data_prep wrote
    config.data.split = 'train'
    config.data.workers = -1  # decoding processes; -1: as many as cores and memory allow, 0: threads; from -1 to 1,024

    config.clip = ConfigDict()
    config.clip.frames = 8  # from 1 to 1,000
    config.clip.stride = 3  # from 1 to 1,000
    config.clip.placement = 'adjacent'  # or independent
    config.clip.length = 'shrink'  # views of 8, 7 or 6 frames; 'constant' reads more and always gives 8
    config.clip.short_video = 'loop'  # or drop, error

    config.augment = ConfigDict(asdict(Augmentation()))  # described there; the defaults are the authors' values

    config.model = ConfigDict()
    config.model.name = 'r3d_18'
    config.model.width = 64  # from 1 to 1,024
    config.model.dtype = 'auto'  # bfloat16 where devices have it, else float32; or float32, bfloat16, float64
    config.model.conv_impl = 'auto'
    config.model.remat = False  # recompute all activations of a block in the backward pass, to save memory

    config.framework = ConfigDict(FRAMEWORKS[framework])
    config.framework.scope = 'global'  # statistics and negatives of the global batch, or 'per_device'
    config.framework.ema_base = 0.99  # BYOL's target: rate at the start, 1 at the end; from 0 to 1

    config.optimizer = ConfigDict()
    config.optimizer.name = 'lars'
    config.optimizer.base_rate = 4.8  # at 256 videos a step; from 1e-09 to 1,000,000
    config.optimizer.momentum = 0.9  # from 0 to below 1
    config.optimizer.weight_decay = 1e-6  # from 0 to 1
    config.optimizer.trust_coefficient = 0.001  # from 1e-09 to 10
    config.optimizer.predictor_rate = 1.0  # factor on the rate of BYOL's predictor; from 1e-09 to 1,000
    config.optimizer.warmup_fraction = 0.025  # of all steps: 10 of 400 epochs; from 0 to below 1
    config.optimizer.final_fraction = 0.001  # of the peak rate, at the end; from 0 to 1
    config.optimizer.clip_norm = 0.0  # 0: no clipping; from 0 to 1,000,000
    # Rate, statistics and negatives are those of batch_size, whatever is accumulated.
    config.optimizer.accumulate = 1  # steps whose gradients are averaged into one update; from 1 to 1,000,000

    config.checkpoint = ConfigDict()
    config.checkpoint.keep = 4  # latest ones; the best stays too; from 1 to 1,000,000
    config.checkpoint.every_steps = 0  # besides the end of each phase; 0: never; from 0 to 1,000,000,000
    config.log = ConfigDict()
    config.log.to = ('jsonl', 'tensorboard')  # and 'wandb'; metrics.jsonl is always written
    config.log.every_steps = 10  # besides the end of each phase; 0: never; from 0 to 1,000,000,000
    config.health = ConfigDict()  # what a collapse shows in, see vididi_jax/train/health.py
    config.health.every_cycles = 5  # ends of phases, in the first cycle and every fifth; 0: never; from 0 to 1,000,000
    config.health.videos = 256  # at most, in whole batches; from 2 to 1,000,000
    return config


def finish(config: ConfigDict, variant: str, variants: tuple[str, ...] = ('paper', 'smoke')) -> ConfigDict:
    """`config`, or one of its `variants`.

    'paper': as the authors' code did it, where we chose something else: colour is drawn anew for every frame, no
    warm-up, videos shorter than a pair of clips are dropped, plain running statistics, statistics and negatives of each
    device's part of the batch.
    'smoke': one cycle of a tiny encoder, to see in seconds that everything fits.

    Raises:
      ValueError: an unknown variant.
    """
    if variant not in ('', *variants):
        raise ValueError(f'there is no variant {variant!r}, only {", ".join(variants)}')
    if variant == 'paper':
        config.augment.frame_consistent = False
        config.optimizer.warmup_fraction = 0.0
        config.clip.short_video = 'drop'
        config.statistics = 'plain'
        if config.framework.loss != 'byol':  # whose loss has no statistics over the batch
            config.framework.scope = 'per_device'
    elif variant == 'smoke':
        config.epochs = 4
        config.batch_size = 8
        config.model.width = 4
        config.framework.projector = (32,) * len(config.framework.projector)
        config.framework.predictor = (32,) * len(config.framework.predictor)
        config.augment.size = min(config.augment.size, 32)
        config.data.workers = 0
        config.health.every_cycles = 1
        config.health.videos = 16
    return config


def evaluation(task: str, variant: str, variants: tuple[str, ...]) -> ConfigDict:
    """What all evaluations of a workdir have in common, as one of `variants` of `task` wants it.

    'motion': for videos of 24 frames. 'smoke': the same, to see in seconds that everything fits. 'grouped': each group
    of the videos (a person, a scene) in turn against all others. 'KIND_motion' is 'motion' of a kind of the task.

    Raises:
      ValueError: an unknown variant.
    """
    if variant not in ('', *variants):
        raise ValueError(f'there is no variant {variant!r}, only {", ".join(variants)}')
    config = ConfigDict()
    config.task = task
    config.seed = 0  # of random crops, and of what is trained; from 0 to 4,294,967,295
    config.allow_missing = False  # run although listed videos are missing or broken, or classes have none in train

    config.data = ConfigDict()
    config.data.dir = ''  # '' is the data of the training run; 'A,B,C' are several official splits of one data set
    config.data.workers = -1  # decoding processes; -1: as many as cores and memory allow, 0: threads; from -1 to 1,024

    config.eval = ConfigDict()
    config.eval.name = task  # folder below DIR/eval
    config.eval.untrained = False  # evaluate the run's initial weights instead
    config.eval.checkpoint = 'latest'  # or best (lowest loss of a cycle), or a step
    config.eval.protocol = 'grouped' if variant == 'grouped' else 'split'  # or which one it must be: 'ucf101/split1'
    config.eval.train = 'train'  # split that is learned from; all the videos of 'grouped'
    config.eval.test = 'test'  # split that is asked; 'grouped' has no use for it
    config.eval.folds = 0  # of 'grouped': 0: each group in turn, or number of parts of whole groups; from 0 to 10,000
    config.eval.clips = 10  # evenly spaced; from 1 to 1,000
    config.eval.frames = 16  # from 1 to 1,000
    config.eval.stride = 4  # from 1 to 1,000
    config.eval.short_video = 'loop'  # of videos shorter than a clip: or drop, error
    config.eval.crops = 'centre'  # or three (start, middle and end of the longer side), random
    if variant.endswith(('motion', 'smoke')):
        config.data.workers = 0
        config.eval.clips, config.eval.frames, config.eval.stride = 3, 8, 1
    return config


def supervised(config: ConfigDict, task: str, **changes) -> ConfigDict:
    """`config` with what fine-tuning and detection have in common; `changes` are for the fields of group `task`."""
    config.epochs = 120  # from 1 to 1,000,000
    config.batch_size = 128  # videos a step, over all devices; from 2 to 65,536
    config[task] = {'orders': (0,),  # derivative orders with a head each: one or more of 0, 1, 2
                    'dropout': 0.5,  # from 0 to below 1
                    'encoder_rate': 1.0,  # factor on the encoder's rate, from 0 (it stays as it is) to 1,000
                    'layer_decay': 1.0,  # factor on the rate from each of its blocks to the one below, from 1e-09 to 10
                    **changes}

    config.optimizer = ConfigDict()
    config.optimizer.base_rate = 0.16  # at 128 videos a step; from 1e-09 to 1,000,000
    # Epochs, ascending, at whose start the rate is multiplied by `decay`; (): never.
    config.optimizer.milestones = (60, 80)  # from 1 to 1,000,000
    config.optimizer.decay = 0.1  # from 1e-09 to 1
    config.optimizer.momentum = 0.9  # from 0 to below 1
    config.optimizer.weight_decay = 1e-4  # from 0 to 1
    config.optimizer.clip_norm = 0.0  # 0: no clipping; from 0 to 1,000,000

    config.checkpoint = ConfigDict()
    config.checkpoint.keep = 1  # latest ones; the best stays too; from 1 to 1,000,000
    config.checkpoint.every_steps = 0  # besides the end of each epoch; 0: never; from 0 to 1,000,000,000
    config.log = ConfigDict()
    config.log.to = ('jsonl', 'tensorboard')
    config.log.every_steps = 10  # besides the end of each epoch; 0: never; from 0 to 1,000,000,000
    return config
