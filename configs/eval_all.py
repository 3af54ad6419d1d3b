"""All evaluations of a training run, as one table and one results.json.

Command:  python main.py --config=configs/eval_all.py --workdir=DIR
Variants: :grouped, :motion, :smoke
Hardware: as configs/finetune.py; any for :grouped
Time:     that of its parts, almost all of it fine-tuning
Expected: a table with mean and standard deviation over splits or folds, and DIR/eval/all/results.json
Status:   run by us on small data sets; not run on the full UCF101

Retrieval, the linear probe, fine-tuning, and the linear probe by SGD. A field of a part is --config.parts.PART.FIELD,
such as --config.parts.finetune.batch_size. The three official splits of UCF101:
--config.data.dir=data/ucf101_all/split1,data/ucf101_all/split2,data/ucf101_all/split3.
The variant :grouped is for videos with groups and no test list (see `data_prep folder --group`): each person or scene
is left out in turn. It is retrieval and the linear probe: training by SGD for each of the folds would take too long.
"""

from vididi_jax.configs import default, finetune, linear, retrieval


def parts(variant: str) -> dict:
    """Each part's own config."""
    found = {'retrieval': retrieval.get_config(variant), 'linear': linear.get_config(variant)}
    if variant == 'grouped':
        return found
    return {**found, 'finetune': finetune.get_config(variant),
            'finetune_linear': finetune.get_config('_'.join(filter(None, ('linear', variant))))}


def get_config(variant: str = ''):
    config = default.evaluation('eval_all', variant, ('grouped', 'motion', 'smoke'))
    config.eval.name = 'all'
    # What an evaluation has beside the common fields; the common ones are given once, above.
    config.parts = {name: {field: value for field, value in part.items() if field not in config}
                    for name, part in parts(variant).items()}
    return config
