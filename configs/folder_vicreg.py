"""ViDiDi-VICReg, R3D-18, any folder of videos: labels are not needed or used.

Command:  python main.py --config=configs/folder_vicreg.py --workdir=DIR --config.data.dir=DATA
Variants: :paper, :smoke
Data:     python -m data_prep folder --videos=MY_VIDEOS --out=DATA
Hardware: one GPU; for a CPU add --config.model.width=8
Time:     epochs x videos / batch_size steps; not measured on a GPU
Expected: an encoder for `load_encoder`, and a falling loss within each phase
Status:   run by us with the :smoke variant only

Few videos want many epochs: aim at 10,000 steps or more. Batches below 32 videos make VICReg's covariance noisy. The
variant :paper is that of ucf101_vicreg.py: it drops videos of fewer than 48 frames.
"""

from vididi_jax.configs import default


def get_config(variant: str = ''):
    config = default.get_config()
    config.data.dir = 'data/mine'
    config.batch_size = 32
    return default.finish(config, variant)
