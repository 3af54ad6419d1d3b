"""Search a folder of videos by what moves: neighbours, clusters, as a page.

Command:  python main.py --config=configs/browse.py --workdir=OUT --config.checkpoint=W --config.videos=DIR
Variants: :smoke
Hardware: any
Time:     minutes for some hundred videos
Expected: OUT/index.html; with --config.query=FILE the ten nearest to that video, with their scores
Status:   measured by us
"""

from vididi_jax.configs import default


def get_config(variant: str = ''):
    config = default.evaluation('browse', variant, ('smoke',))
    config.checkpoint = ''  # workdir of a training run
    config.videos = ''  # folder of videos, with all that is below it
    config.query = ''  # a video whose neighbours are printed
    config.kind = 'dV'  # features that are compared: of V, dV or d2V, or V and dV joined
    config.clusters = 0  # at most; 0: some sqrt(videos / 2); from 0 to 10,000
    del config.allow_missing, config.data.dir
    for name in ('name', 'untrained', 'protocol', 'train', 'test', 'folds', 'short_video'):
        del config.eval[name]
    if not variant:
        config.eval.clips, config.eval.frames = 5, 8
    return config
