"""ViDiDi-SimCLR, a narrow R3D-18, the motion data set, whose classes only motion tells apart.

Command:  python main.py --config=configs/motion_simclr.py --workdir=DIR
Variants: :smoke
Data:     python -m data_prep motion --out=data/motion
Hardware: 2 CPU cores
Time:     24 epochs of 32 steps; 5 minutes on one of the cores, another run on the other
Expected: test-to-train retrieval R@1 of V 34.6, of dV 36.9, joined 36.5 % (seed 0; chance 12.5), effective rank 8.9;
          another machine gave 27.7, 41.2, 38.1. --config.schedule=base: 15.4, 16.0, 14.8
Status:   measured by us
"""

from configs import default, motion_vicreg


def get_config(variant: str = ''):
    config = motion_vicreg.adapt(default.get_config('simclr'), projector=(256, 256, 128))
    return default.finish(config, variant, ('smoke',))
