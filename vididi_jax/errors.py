"""The one exception that is shown to users as a single sentence, and how a command shows it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something outside the code is wrong: a file, a config value, a command line.

    The message says what is wrong, where, and what to do about it. Commands tell it in `one_sentence`; as a
    `ValueError` it can also be caught by whoever calls the library.
    """


@contextmanager
def one_sentence() -> Iterator[None]:
    """Around a command, also as a decorator: a `UserError` is printed as one line, and ends it with exit code 1."""
    try:
        yield
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(1)
