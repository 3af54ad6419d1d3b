"""Linear probe: logistic regression on features of a training run's encoder.

Command:  python main.py --config=configs/linear.py --workdir=DIR
Variants: :motion, :grouped, :smoke
Hardware: any
Time:     that of retrieval, whose features it takes from the cache, and seconds to minutes
Expected: top-1 and top-5 for features of V, of dV, of both joined, and DIR/eval/linear/results.json
Status:   run by us on small data sets; not run on the full UCF101

The strength is chosen on a held-out fifth of the training videos, by whole groups, never on test videos.
configs/finetune.py:linear trains the probe by SGD with augmentation instead.
"""

from vididi_jax.configs import default


def get_config(variant: str = ''):
    config = default.evaluation('linear', variant, ('motion', 'grouped', 'smoke'))
    config.linear = {'strengths': (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)}  # of the data against the penalty
    return config
