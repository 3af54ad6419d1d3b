"""The command `vididi`: what main.py and `python -m data_prep` do, wherever this package is installed."""

import ast
import sys
import textwrap
from collections.abc import Callable

from vididi_jax.config import CONFIGS, load_config, own_config, shipped
from vididi_jax.errors import UserError, one_sentence
from vididi_jax.provenance import versions
from vididi_jax.tasks import EVALUATIONS, TRAINING

TRAIN = ('folder_vicreg', 'ucf101_vicreg', 'ucf101_byol', 'ucf101_simclr', 'k400_vicreg', 'k400_byol', 'k400_simclr',
         'motion_vicreg', 'motion_byol', 'motion_simclr', 'weizmann_vicreg', 'ut_interaction_vicreg')
EVALUATE = ('retrieval', 'linear', 'finetune', 'tug', 'eval_all', 'ava_detection', 'motion_detection', 'features')
ALONE = ('report', 'browse', 'compare')  # each has one config, of its name
EXAMPLES = {
    'train': ('vididi train motion_vicreg --workdir=runs/mine --config.data.dir=data/motion',
              'vididi train folder_vicreg:smoke --workdir=runs/try --config.data.dir=data/mine'),
    'evaluate': ('vididi evaluate retrieval --workdir=runs/mine',
                 'vididi evaluate linear:grouped --workdir=runs/mine --config.data.dir=data/mine'),
    'report': ('vididi report --workdir=runs/mine',),
    'browse': ('vididi browse --workdir=runs/page --config.checkpoint=runs/mine --config.videos=my_videos',),
    'compare': ('vididi compare --workdir=runs/table --config.runs=runs/a,runs/b',),
}
HELP = """usage: vididi COMMAND ...

  prep DATASET --out=DIR          decode videos once, into a data set of clips
  train CONFIG --workdir=DIR      train an encoder without labels, or go on training it
  evaluate CONFIG --workdir=DIR   retrieval, linear probe, fine-tuning, detection, features
  report --workdir=DIR            the page of a run
  browse --workdir=DIR            a folder of videos by what moves in them, as a page
  compare --workdir=DIR           a table over runs
  export --workdir=DIR --out=FILE weights for PyTorch, or as numpy arrays
  import --weights=FILE ...       weights of torchvision, to start from
  schedule NAME                   the derivative orders that a run draws

vididi COMMAND --help says more, vididi --version which versions run. CONFIG is
the name of a shipped config, NAME or NAME:VARIANT, or a file of your own. A first
run, of minutes:

  vididi prep motion --out=data/motion
  vididi train motion_vicreg:smoke --workdir=runs/first --config.data.dir=data/motion
  vididi evaluate retrieval:motion --workdir=runs/first
"""


def summary(name: str) -> str:
    """The first line of a shipped config's docstring."""
    return ast.get_docstring(ast.parse((CONFIGS / f'{name}.py').read_text(encoding='utf-8'))).splitlines()[0]


def usage(command: str) -> str:
    """The help of a command that main.py would run."""
    names = {'train': TRAIN, 'evaluate': EVALUATE}.get(command, ())
    place = ' CONFIG[:VARIANT]' if names else ''
    lines = [f'usage: vididi {command}{place} --workdir=DIR [--config.FIELD=VALUE ...]', '']
    if names:
        lines += [f'  {name:<22}{textwrap.shorten(summary(name), 75, placeholder=" ...")}' for name in names]
    else:
        lines.append(summary(command))
    about = 'What CONFIG is for, its variants' if names else f'What {command} is for'
    lines += ['', 'for example', *(f'  {example}' for example in EXAMPLES[command]), '',
              f'{about} and fields: its file in {CONFIGS}.',
              *(['In a bucket as well: --mirror=URL.'] if command in ('train', 'evaluate', 'report') else []),
              'Several processes: --multihost, or --coordinator, --num_processes and --process_id.']
    return '\n'.join(lines)


def flag_words(command: str, words: list[str]) -> list[str]:
    """The command line of main.py for a command with a config; raises `UserError` if it names none."""
    if command in ALONE:
        return [f'--config={own_config(command)}', *words]
    if not words or words[0].startswith('-'):
        known = ', '.join(TRAIN if command == 'train' else EVALUATE)
        raise UserError(f'vididi {command} needs a config first: one of {known}, or a file of your own.')
    config, tasks = shipped(words[0]), TRAINING if command == 'train' else EVALUATIONS
    if (task := load_config(config).get('task')) not in tasks:
        raise UserError(f'{words[0]} is a config of the task {task!r}, which vididi {command} does not do: '
                        'vididi --help has the command that does.')
    return [f'--config={config}', *words[1:]]


def program(command: str) -> Callable[[list[str]], None]:
    """What carries out a command's words; imported only now, as help should not wait for JAX."""
    if command == 'prep':
        from vididi_jax.data_prep.__main__ import main

        return lambda words: main(words, 'vididi prep')
    if command in ('export', 'import'):
        from vididi_jax.weights import main

        return lambda words: main([command, *words], 'vididi')
    if command == 'schedule':
        from vididi_jax.schedule import main

        return lambda words: main(words, 'vididi schedule')
    from vididi_jax.main import run

    return lambda words: run([f'vididi {command}', *flag_words(command, words)])


@one_sentence()
def main() -> None:
    command, *words = sys.argv[1:] or ['--help']
    if command in ('--help', '-h', 'help'):
        print(HELP, end='')
    elif command == '--version':
        print(*(f'{name} {version}' for name, version in versions().items()), sep='\n')
    elif command in EXAMPLES and {'--help', '-h'} & {*words}:
        print(usage(command))
    elif command in (*EXAMPLES, 'prep', 'export', 'import', 'schedule'):
        program(command)(words)
    else:
        raise UserError(f'vididi has no command {command!r}: vididi --help has them all.')


if __name__ == '__main__':
    main()
