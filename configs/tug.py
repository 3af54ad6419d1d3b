"""Motion over background: is a video nearer to its own motion, or background?

Command:  python main.py --config=configs/tug.py --workdir=DIR --config.data.dir=DATA
Variants: :motion, :smoke
Data:     python -m data_prep motion --triples --out=DATA
Hardware: any
Time:     seconds for the motion triples
Expected: percent of the pairs (a video of the query's class in another group, a video of another class in the query's
          group) of which the first is nearer, for features of V, of dV, of d2V, of V and dV joined; chance is 50
Status:   measured by us on the motion triples

Any labels with groups do, such as those of data_prep folder --group; --config.eval.split=train where that is the split.
"""

from vididi_jax.configs import default


def get_config(variant: str = ''):
    config = default.evaluation('tug', variant, ('motion', 'smoke'))
    config.eval.split = 'test'  # all of its videos are searched
    for name in ('protocol', 'train', 'test', 'folds'):
        del config.eval[name]
    return config
