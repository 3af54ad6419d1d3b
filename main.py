"""Train, evaluate and report: `python main.py --config=configs/NAME.py --workdir=DIR [--config.FIELD=VALUE ...]`.

The config's `task` says what runs. `python -m data_prep --help` prepares the data; README.md has the whole way.
"""

import sys

from absl import flags

from vididi_jax import main

flags.adopt_module_key_flags(main)  # so that --help shows them

if __name__ == '__main__':
    main.run(sys.argv)
