"""The one exception that is shown to users as a single sentence."""


class UserError(ValueError):
    """Something outside the code is wrong: a file, a config value, a command line.

    The message says what is wrong, where, and what to do about it. `main.py` and `data_prep` print it as one
    line and exit with code 1; as a `ValueError` it can also be caught by whoever calls the library.
    """
