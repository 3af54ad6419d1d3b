"""Retrieval: test videos look for their class among the train videos.

Command:  python main.py --config=configs/retrieval.py --workdir=DIR
Variants: :motion, :grouped, :smoke
Hardware: any
Time:     minutes on a GPU for UCF101
Expected: R@1/5/10/20/50 for features of V, of dV, of d2V, of V and dV joined, and DIR/eval/retrieval/results.json
Status:   measured on the motion data set, see README; not run on the full UCF101
"""

from vididi_jax.configs import default


def get_config(variant: str = ''):
    config = default.evaluation('retrieval', variant, ('motion', 'grouped', 'smoke'))
    config.retrieval = {'ks': (1, 5, 10, 20, 50)}
    return config
