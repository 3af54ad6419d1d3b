"""Retrieval with the encoder of a training run: the test split of its data queries the train split.

Command:  python main.py --config=configs/retrieval.py --workdir=DIR
Variants: :motion, :smoke
Hardware: any
Time:     minutes on a GPU for UCF101
Expected: a table of R@1/5/10/20 for features of V, of dV and of both joined, and DIR/eval/retrieval/results.json
Status:   measured on the motion data set, see README; not run on the full UCF101
"""

from ml_collections import ConfigDict


def get_config(variant: str = '') -> ConfigDict:
    config = ConfigDict()
    config.task = 'retrieval'
    config.allow_missing = False  # run although listed videos are missing or broken

    config.data = ConfigDict()
    config.data.dir = ''  # '' is the data of the training run
    config.data.workers = -1  # decoding processes; -1: one a core, 0: threads

    config.eval = ConfigDict()
    config.eval.name = 'retrieval'  # folder below DIR/eval
    config.eval.untrained = False  # evaluate the run's initial weights instead
    config.eval.query = 'test'
    config.eval.gallery = 'train'  # the same split as query: no video finds itself, nor one of its group
    config.eval.clips = 10  # evenly spaced
    config.eval.frames = 16
    config.eval.stride = 4
    config.eval.ks = (1, 5, 10, 20)

    if variant not in ('', 'motion', 'smoke'):
        raise ValueError(f'there is no variant {variant!r}, only motion and smoke')
    if variant:  # videos of 24 frames
        config.data.workers = 0
        config.eval.clips, config.eval.frames, config.eval.stride = 3, 8, 1
    return config
