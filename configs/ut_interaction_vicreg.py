"""ViDiDi-VICReg on the 60 videos of UT-Interaction set 1 (6 interactions of two persons, 10 sequences).

Command:  python main.py --config=configs/ut_interaction_vicreg.py --workdir=DIR
Variants: :smoke
Data:     python -m data_prep folder --videos=set1 --group='^[0-9]+_([0-9]+)_' --short_side=64 --out=data/ut
Hardware: 2 CPU cores
Time:     not timed yet
Expected: not measured yet
Status:   not run
"""

from configs import default, weizmann_vicreg


def get_config(variant: str = ''):
    config = weizmann_vicreg.adapt(default.get_config())
    config.data.dir = 'data/ut'
    config.epochs = 450  # of 2 steps: as many steps as on Weizmann
    config.health.videos = 60
    return default.finish(config, variant)
