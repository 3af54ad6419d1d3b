"""ViDiDi-SimCLR, R3D-18, Kinetics-400: our version of the paper's recipe.

Command:  python main.py --config=configs/k400_simclr.py --workdir=DIR --config.data.dir=DATA
Variants: :paper, :smoke
Data:     python -m data_prep kinetics --videos=K400 --train=train.csv --val=val.csv --out=DATA --allow_missing
Hardware: GPUs or TPU cores whose number divides the batch of 256
Time:     400 epochs of (videos of your copy / 256) steps; not run
Expected: nothing measured; the paper pretrains on all or parts of Kinetics-400
Status:   not run by us (the :smoke variant is, on other videos)

The variant :paper is what the authors' code did where we differ: it draws colour anew for every frame, has no warm-up,
drops videos of fewer than 48 frames, keeps plain running statistics in BatchNorm, and takes statistics and negatives of
each device's part of the batch. Their loss is twice ours, which LARS cancels but for biases and norms.
"""

from vididi_jax.configs import default


def get_config(variant: str = ''):
    config = default.get_config('simclr')
    config.data.dir = 'data/k400'
    config.batch_size = 256
    return default.finish(config, variant)
