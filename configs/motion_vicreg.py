"""ViDiDi-VICReg, a narrow R3D-18, the motion data set, whose classes only motion tells apart: `make demo`.

Command:  python main.py --config=configs/motion_vicreg.py --workdir=DIR                              (variant: :smoke)
Data:     python -m data_prep motion --out=data/motion
Hardware: 2 CPU cores
Time:     TBD
Expected: TBD
Status:   measured by us
"""

from configs import default


def get_config(variant: str = ''):
    config = default.get_config()
    config.data.dir = 'data/motion'
    config.data.workers = 0  # raw frames of 32x32: nothing to decode
    config.epochs = 40
    config.batch_size = 32
    config.clip.stride = 1

    config.model.width = 8
    config.framework.projector = (256, 256, 256)

    # A flip would turn one class into another, and a crop would move what must stay: wrapped shifts and colour instead.
    config.augment.update(dict(size=32, crop='none', flip=0.0, blur=0.0, jitter=0.0, gray=0.0,
                               shift=8, gain=(0.7, 1.3), tint=(0.8, 1.2), centre_fraction=1.0))

    config.optimizer.name = 'adamw'
    config.optimizer.base_rate = 3e-3 * 256 / 32
    config.optimizer.weight_decay = 1e-6
    config.optimizer.warmup_epochs = 4
    return default.finish(config, variant)
