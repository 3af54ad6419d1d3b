"""A training run's report: curves, neighbours, a map, saliency, every result.

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
    return ConfigDict({'task': 'report',
                       'data': {'dir': ''},  # where the data lie now; '' is where they were
                       'beside': ''})  # another workdir, such as one of schedule base, whose saliency is shown too
