"""ViDiDi-BYOL, a narrow R3D-18, the motion data set, whose classes only motion tells apart.

Command:  python main.py --config=configs/motion_byol.py --workdir=DIR
Variants: :smoke
Data:     python -m data_prep motion --out=data/motion
Hardware: 2 CPU cores
Time:     24 epochs of 32 steps; 5 to 7 minutes on one of the cores, another run on the other
Expected: test-to-train retrieval R@1 of V 28.3, of dV 34.8, joined 30.3 % (seed 0; chance 12.5), effective rank 11.8;
          --config.schedule=base: 12.7, 16.2, 13.1
Status:   measured by us

In so short a run the target must follow the online network soon, and the predictor must keep up with both: of what was
tried on seed 0, best R@1 of V, dV and joined, and the effective rank it ended with:

  base_rate  predictor_rate  ema_base   R@1   rank
        4.8              10      0.99  29.5   13.7
        4.8              20      0.99  30.3   10.9
        4.8              10      0.97  34.8   11.8
        4.8              20      0.97  36.1   11.3
        4.8              20      0.95  35.0   10.4
        3.2              30      0.96  34.2   19.1
        7.2              20      0.96  30.7    6.6
        9.6              10      0.99  25.6    3.6
        9.6               5      0.97  27.1    1.5
       19.2               1      0.96  25.8    2.3
"""

from configs import default, motion_vicreg


def get_config(variant: str = ''):
    config = motion_vicreg.adapt(default.get_config('byol'), projector=(256, 64), predictor=(256, 64))
    config.framework.ema_base = 0.97
    config.optimizer.base_rate = 4.8
    config.optimizer.predictor_rate = 10.0
    return default.finish(config, variant, ('smoke',))
