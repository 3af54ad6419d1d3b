"""What is shown to users as a single sentence, and how a command shows it."""

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something outside the code is wrong: a file, a config value, a command line.

    The message says what is wrong, where, and what to do about it. Commands tell it in `one_sentence`; as a
    `ValueError` it can also be caught by whoever calls the library.
    """


class Stopped(KeyboardInterrupt):
    """A signal ended the work. As a `KeyboardInterrupt` it passes by whoever catches `Exception`.

    Attributes:
      number: of the signal.
      after: what there is to be said after its name.
    """

    def __init__(self, number: int, after: str = ''):
        self.number, self.after = signal.Signals(number), after
        super().__init__(f'stopped by {self.number.name}{after}')


class Parser(argparse.ArgumentParser):
    """A parser, and parsers of its commands, for whom a wrong flag is a `UserError`."""

    def error(self, message: str):
        raise UserError(f'{message} ({self.prog} --help says more).')

    def parse_args(self, *arguments, **options) -> argparse.Namespace:
        found = super().parse_args(*arguments, **options)
        for name, value in vars(found).items():
            check_home(f'--{name}', value)
        return found


def check_home(name: str, value) -> None:
    """Raises `UserError` for a path that begins with `~`, which a shell leaves alone in `--flag=~/folder`."""
    if str(value).startswith('~'):
        raise UserError(f'{name} is {str(value)!r}, and only shells expand ~, which they do not after "=": write '
                        '"$HOME" or the whole path.')


@contextmanager
def one_sentence(stopped: str = '') -> Iterator[None]:
    """Around a command, also as a decorator: what ends it from outside is one line on stderr, and an exit code.

    1 for a `UserError` and for a file that the system refuses; 128 + its number for SIGINT (130) and SIGTERM (143).

    Args:
      stopped: what is said after 'stopped by SIGNAL', where `Stopped` has nothing of its own.
    """
    in_main = threading.current_thread() is threading.main_thread()  # Python gives signals to no other
    before = signal.signal(signal.SIGTERM, raise_stopped) if in_main else None
    try:
        yield
    except UserError as error:
        _leave(f'error: {error}', 1)
    except KeyboardInterrupt as error:
        stop = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        _leave(str(stop) if stop.after else f'{stop}{stopped}', 128 + stop.number)
    except OSError as error:
        if error.strerror is None:  # not the system's
            raise
        where = f'{error.filename}: ' if error.filename else ''
        _leave(f'error: {where}{error.strerror}.', 1)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def raise_stopped(number: int, _frame) -> None:
    """Handler of a signal that ends whatever is being done."""
    raise Stopped(number)


def _leave(message: str, code: int) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)
