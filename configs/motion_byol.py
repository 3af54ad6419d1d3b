"""ViDiDi-BYOL, a narrow R3D-18, the motion data set, whose classes only motion tells apart.

Command:  python main.py --config=configs/motion_byol.py --workdir=DIR
Variants: :smoke
Data:     python -m data_prep motion --out=data/motion
Hardware: 2 CPU cores
Time:     24 epochs of 32 steps, not timed
Expected: not known yet: after 16 epochs of seed 0 nearest neighbours among 128 training videos were right in 18 %
Status:   run by us for 16 epochs; its rate is not tuned
"""

from configs import default, motion_vicreg


def get_config(variant: str = ''):
    config = motion_vicreg.adapt(default.get_config('byol'), projector=(256, 64), predictor=(256, 64))
    config.optimizer.base_rate = 4.8
    return default.finish(config, variant, ('smoke',))
