"""Several command lines of main.py one after the other in one process, which imports everything once.

python benchmarks/commands.py '[["--config=configs/retrieval.py", "--workdir=DIR"], ["--config=configs/tug.py", ...]]'
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import ml_collections  # noqa: E402
from absl import flags  # noqa: E402

from vididi_jax.errors import one_sentence  # noqa: E402
from vididi_jax.flags import define_config_flag, parse_flags  # noqa: E402
from vididi_jax.tasks import run_task  # noqa: E402


def parse(words: list[str]) -> tuple[ml_collections.ConfigDict, str]:
    """Config and workdir of one: `--config`, its fields and `--workdir`."""
    argv, values = ['main.py', *words], flags.FlagValues()
    config = define_config_flag(values, argv)
    workdir = flags.DEFINE_string('workdir', None, 'Folder of the run.', flag_values=values)
    parse_flags(argv, values)
    return config.value, workdir.value


def run(words: list[str]) -> None:
    """Carry out one; no report is written."""
    run_task(*parse(words), report=False)


if __name__ == '__main__':
    with one_sentence():
        for words in json.loads(sys.argv[1]):
            run(words)
