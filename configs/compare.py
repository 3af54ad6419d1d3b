"""A table over runs: what their configs differ in, over seeds, with tests.

Command:  python main.py --config=configs/compare.py --workdir=OUT --config.runs=A,B,'MORE/*'
Variants: :smoke
Hardware: any
Time:     seconds
Expected: tables, and OUT/compare.csv, compare.md, compare.tex and index.html
Status:   measured by us
"""

from ml_collections import ConfigDict


def get_config(variant: str = '') -> ConfigDict:
    if variant not in ('', 'smoke'):
        raise ValueError(f'there is no variant {variant!r}, only smoke')
    config = ConfigDict()
    config.task = 'compare'
    config.runs = ''  # workdirs of training runs that were evaluated, as 'A,B', each perhaps a pattern
    config.evaluations = ''  # folders below WORKDIR/eval, as 'A,B'; '' is what all runs have
    config.against = ''  # FIELD=VALUE of the groups to compare with, such as schedule=base; '' is the first group
    config.samples = 1_000 if variant else 10_000  # of the bootstrap; from 100 to 1,000,000
    config.seed = 0  # of the bootstrap; from 0 to 4,294,967,295
    return config
