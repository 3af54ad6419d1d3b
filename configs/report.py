"""The report of a training run: curves, pictures and every result found in its workdir, as one page.

Command:  python main.py --config=configs/report.py --workdir=DIR                                     (variant: :smoke)
Hardware: any
Time:     seconds
Expected: DIR/report/index.html
Status:   measured by us
"""

from ml_collections import ConfigDict


def get_config(variant: str = '') -> ConfigDict:
    del variant  # the smallest report is the report
    return ConfigDict({'task': 'report'})
