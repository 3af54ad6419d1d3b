"""The report of a training run: curves, pictures and every result found in its workdir, as one page.

Command:  python main.py --config=configs/report.py --workdir=DIR
Variants: :smoke
Hardware: any
Time:     seconds
Expected: DIR/report/index.html
Status:   measured by us
"""

from ml_collections import ConfigDict


def get_config(variant: str = '') -> ConfigDict:
    if variant not in ('', 'smoke'):  # the smallest report is the report
        raise ValueError(f'there is no variant {variant!r}, only smoke')
    return ConfigDict({'task': 'report'})
