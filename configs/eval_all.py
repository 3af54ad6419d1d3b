"""All evaluations of a training run, as one table and one results.json.

Command:  python main.py --config=configs/eval_all.py --workdir=DIR
Variants: :grouped, :motion, :smoke
Hardware: as configs/finetune.py; any for :grouped, which has no fine-tuning
Time:     that of its parts, almost all of it fine-tuning
Expected: a table with mean and standard deviation over splits or folds, and DIR/eval/all/results.json
Status:   run by us on small data sets; not run on the full UCF101

The three official splits of UCF101: --config.data.dir=data/ucf101_1,data/ucf101_2,data/ucf101_3. The variant :grouped
is for videos with groups and no test list (see `data_prep folder --group`): each person or scene is left out in turn.
"""

from configs import default, finetune, linear, retrieval

PARTS = {'retrieval': retrieval, 'linear': linear, 'finetune': finetune}


def get_config(variant: str = ''):
    config = default.evaluation('eval_all', variant, ('grouped', 'motion', 'smoke'))
    config.eval.name = 'all'
    # What an evaluation has beside the common fields; the common ones are given once, above.
    config.parts = {name: {field: value for field, value in module.get_config(variant).items() if field not in config}
                    for name, module in PARTS.items() if variant != 'grouped' or name != 'finetune'}
    return config
