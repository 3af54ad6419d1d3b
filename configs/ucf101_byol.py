"""ViDiDi-BYOL, R3D-18, UCF101 split 1: our version of the paper's recipe.

Command:  python main.py --config=configs/ucf101_byol.py --workdir=DIR --config.data.dir=DATA
Variants: :paper, :smoke
Data:     python -m data_prep ucf101 --videos=UCF-101 --splits=ucfTrainTestlist --split=1 --out=DATA
Hardware: one or more GPUs or TPU cores whose number divides the batch of 64; on a CPU only with a narrow encoder
Time:     59,600 steps; not run by us at full length
Expected: published: fine-tuning on UCF101 gives 83.3 % top-1 (plain BYOL 72.6 %; Chen et al., CPAL 2025, figure 1)
Status:   published; run by us with the :smoke variant only

The variant :paper is what the authors' code did where we differ: it draws colour anew for every frame, has no warm-up,
drops videos of fewer than 48 frames, and keeps plain running statistics in BatchNorm. Their loss is the same.
"""

from vididi_jax.configs import default


def get_config(variant: str = ''):
    config = default.get_config('byol')
    config.data.dir = 'data/ucf101'
    config.optimizer.base_rate = 1.2
    return default.finish(config, variant)
