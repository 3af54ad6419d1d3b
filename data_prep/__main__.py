"""`python -m data_prep DATASET --help`: prepare a data set once, before training."""

import argparse

from vididi_jax.data.readers import usable_cpus
from vididi_jax.data.records import ENCODING, ENCODINGS, SHORT_SIDE
from vididi_jax.data.storage import is_url
from vididi_jax.errors import Parser, UserError, one_sentence

from . import ava, beam, folder, hmdb51, kinetics, motion, motion_boxes, motion_triples, ucf101, verify
from .summary import summary
from .writer import write_dataset

VIDEO_FILES = {  # name: module, what it is, and a command that can be typed
    'folder': (folder, 'any folder of videos; sub-folders are labels if there are any',
               '--videos=MY_VIDEOS --out=data/mine'),
    'ucf101': (ucf101, 'UCF101 with its official split lists',
               '--videos=UCF-101 --splits=ucfTrainTestlist --split=1 --out=data/ucf101'),
    'hmdb51': (hmdb51, 'HMDB51 with its official split lists',
               '--videos=hmdb51 --splits=testTrainMulti_7030_splits --split=1 --out=data/hmdb51'),
    'kinetics': (kinetics, 'Kinetics by its official lists; files cut already, or whole videos',
                 '--videos=k400 --train=train.csv --val=val.csv --out=data/k400'),
    'ava': (ava, 'AVA: a clip around each annotated keyframe, with its boxes',
            '--videos=ava --train=TRAIN.csv --test=VAL.csv --label_map=FILE --out=data/ava'),
}


def build_parser(prog: str = 'python -m data_prep') -> argparse.ArgumentParser:
    parser = Parser(
        prog=prog,
        description='Decode videos once into TFRecord shards that training reads at random. A command that was stopped '
        'goes on where it was when it is given again.')
    commands = parser.add_subparsers(dest='dataset', required=True, metavar='DATASET')
    for name, (module, text, example) in VIDEO_FILES.items():
        command = commands.add_parser(name, help=text, description=module.__doc__,
                                      usage=f'{prog} {name} {example} [OPTION ...]')
        module.add_arguments(command)
        command.add_argument('--short_side', type=int, default=SHORT_SIDE,
                             help=f'shorter side of the stored frames ({SHORT_SIDE})')
        command.add_argument('--encoding', choices=ENCODINGS, default=ENCODING,
                             help=f'of the stored frames ({ENCODING})')
        _add_output(command)
    command = commands.add_parser('motion', help='synthetic videos that only motion tells apart',
                                  description=motion.__doc__, usage=f'{prog} motion --out=data/motion [OPTION ...]')
    motion.add_arguments(command)
    _add_output(command)
    command = commands.add_parser('verify', help='check every record of a data set', description=verify.__doc__)
    verify.add_arguments(command)
    return parser


def _add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument('--out', required=True, help='data set directory to write')
    command.add_argument('--workers', type=int, help='decoding processes (one a core)')
    command.add_argument('--runner', metavar='NAME', help='have Apache Beam decode on its own workers: DirectRunner, '
                         'FlinkRunner, SparkRunner, DataflowRunner; the files are the same, see docs/cluster.md')
    command.add_argument('--beam_options', default='', metavar="'--NAME=VALUE ...'", help="of Beam and of the runner")


def run(arguments: argparse.Namespace) -> None:
    """Carry out a parsed command line."""
    place = arguments.directory if arguments.dataset == 'verify' else arguments.out
    if not place:
        raise UserError(f'{"the directory" if arguments.dataset == "verify" else "--out"} is empty: name a folder.')
    if is_url(place):
        raise UserError(f'{place} is a URL, and data_prep writes and verifies folders: give one, and copy all of it to '
                        'the URL afterwards; training reads it from there.')
    if arguments.dataset == 'verify':
        verify.verify(arguments.directory)
        return
    workers = usable_cpus() if arguments.workers is None else arguments.workers
    if workers < 1 or getattr(arguments, 'short_side', 8) < 8:
        raise UserError('--workers must be at least 1' + (
            ' and --short_side at least 8.' if hasattr(arguments, 'short_side') else '.'))
    if arguments.runner and arguments.workers:
        raise UserError('--workers is of runs without --runner: how many workers Beam has say --beam_options.')
    if arguments.beam_options and not arguments.runner:
        raise UserError('--beam_options needs --runner.')
    pipeline = beam.pipeline_flags(arguments.runner, arguments.beam_options) if arguments.runner else []
    if arguments.dataset == 'motion':
        module = motion_boxes if arguments.boxes else motion_triples if arguments.triples else motion
    else:
        module = VIDEO_FILES[arguments.dataset][0]
    plan, decode = module.plan(arguments)
    rows = write_dataset(plan, decode, arguments.out, workers, pipeline)
    summary(rows, arguments.out)


def main(words: list[str] | None = None, prog: str = 'python -m data_prep') -> None:
    with one_sentence(stopped=': the same command goes on from here'):
        run(build_parser(prog).parse_args(words))


if __name__ == '__main__':
    from vididi_jax.data_prep.__main__ import main  # functions that workers of a pipeline find where it is installed

    main()
