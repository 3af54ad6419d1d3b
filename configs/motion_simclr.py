"""ViDiDi-SimCLR, a narrow R3D-18, the motion data set, whose classes only motion tells apart.

Command:  python main.py --config=configs/motion_simclr.py --workdir=DIR
Variants: :smoke
Data:     python -m data_prep motion --out=data/motion
Hardware: 2 CPU cores
Time:     24 epochs of 32 steps; 10 minutes where another run occupied one of the cores
Expected: test-to-train retrieval R@1 of V 27.7, of dV 41.2, joined 38.1 % (seed 0; chance 12.5)
Status:   measured by us
"""

from configs import default, motion_vicreg


def get_config(variant: str = ''):
    config = motion_vicreg.adapt(default.get_config('simclr'), projector=(256, 256, 128))
    return default.finish(config, variant, ('smoke',))
