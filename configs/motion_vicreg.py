"""ViDiDi-VICReg, narrow R3D-18, synthetic videos that motion tells apart.

Command:  python main.py --config=configs/motion_vicreg.py --workdir=DIR
Variants: :smoke
Data:     python -m data_prep motion --out=data/motion
Hardware: 2 CPU cores
Time:     40 epochs of 32 steps; 5 to 8 minutes on one core with AVX-512, another run on the other
Expected: test-to-train retrieval R@1, V and dV joined: 80.3, 78.7, 69.7 % (seeds 0, 1, 2, one core; untrained 21.9,
          23.2, 22.5; chance 12.5); motion over background (configs/tug.py), features of V: 79.1, 80.1, 75.7 (untrained
          14.9, 15.9, 9.6; chance 50). --config.schedule=base: 11.5, 12.7, 10.9 and 9.8, 5.7, 5.5.
          `make demo` takes 32 of the epochs: docs/results.md
Status:   measured by us
"""

from vididi_jax.configs import default


def adapt(config, projector: tuple[int, ...], predictor: tuple[int, ...] = ()):
    """Small frames, small heads, and only the augmentation that keeps the classes apart."""
    config.data.dir = 'data/motion'
    config.data.workers = 0  # raw frames of 24x24: nothing to decode
    config.epochs = 32
    config.batch_size = 32
    config.clip.stride = 1
    config.model.width = 8
    config.framework.projector = projector
    config.framework.predictor = predictor
    # A flip would turn one class into another, and a crop would change speeds: wrapped shifts and colour instead.
    config.augment.update(dict(size=24, crop='none', flip=0.0, blur=0.0, jitter=0.0, gray=0.0,
                               shift=6, gain=(0.5, 1.5), tint=(0.6, 1.4), centre_fraction=1.0))
    config.optimizer.base_rate = 19.2
    config.optimizer.warmup_fraction = 0.1
    config.health.every_cycles = 4
    config.health.videos = 128
    return config


def get_config(variant: str = ''):
    # Embeddings of 256 entries cannot spread over 32 videos a step; that pull can keep V and dV apart.
    config = adapt(default.get_config(), projector=(256, 256, 64))
    # At 1, with 32 videos a step, invariance outweighs variance.
    config.framework.loss_options.invariance = 0.5
    # After 32 epochs V finds motion, and yet looks at backgrounds as much as at what moves.
    config.epochs, config.health.every_cycles = 40, 5
    return default.finish(config, variant, ('smoke',))
