"""Features of all videos of a split, by a training run's encoder, as a file.

Command:  python main.py --config=configs/features.py --workdir=DIR --config.data.dir=DATA
Variants: :motion, :smoke
Data:     python -m data_prep folder --videos=MY_VIDEOS --out=DATA
Hardware: any
Time:     about that of decoding the videos
Expected: DIR/eval/features/features.npz with V, dV, d2V, ids, labels, groups, and about (counts, split, commit)
Status:   run by us with the :smoke variant only
"""

from vididi_jax.configs import default


def get_config(variant: str = ''):
    config = default.evaluation('features', variant, ('motion', 'smoke'))
    config.eval.split = 'train'
    for name in ('protocol', 'train', 'test', 'folds'):
        del config.eval[name]
    return config
