"""SIGTERM and SIGINT while a run trains: it ends after a step, with all of its processes after the same one."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import jax
from jax.experimental import multihost_utils

from vididi_jax.errors import Stopped

SIGNALS = signal.SIGINT, signal.SIGTERM
_asked = count(1)  # how often JAX was asked for signals: the same in every process


@contextmanager
def after_step() -> Iterator[Callable[[], int | None]]:
    """Within the `with`, signals interrupt nothing: the function it gives says which one has come, or None.

    It is to be asked after every step. Of several processes all get the answer after the same step, whichever got the
    signal, and whenever: while the first step was compiled, for example. A second SIGINT ends the process at once, and
    so does a second SIGTERM where it is alone.
    """
    if threading.current_thread() is not threading.main_thread():  # Python gives signals to no other
        yield lambda: None
        return
    received = []
    joined = jax.process_count() > 1
    mine = (signal.SIGINT,) if joined else SIGNALS  # JAX's own service takes the SIGTERM of joined processes

    def remember(number: int, _frame) -> None:
        received.append(number)
        for each in mine:
            signal.signal(each, signal.SIG_DFL)
        told = f'\n{signal.Signals(number).name}: saving after the steps under way; once more ends at once\n'
        os.write(2, told.encode())
        if joined:
            os.kill(os.getpid(), signal.SIGTERM)

    answer = []

    def asked() -> int | None:
        if not answer and (_reached() if joined else received):
            answer.append((received or [signal.SIGTERM])[0])
        return answer[0] if answer else None

    before = [(number, signal.signal(number, remember)) for number in mine]
    try:
        yield asked
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _reached() -> bool:
    """Whether some process has SIGTERM, told to all at the same ask.

    That is the one after the highest number that any process had asked with, so numbers must never fall nor leave one
    out: they are counted here, over all that is trained and evaluated.
    """
    return multihost_utils.reached_preemption_sync_point(next(_asked))


def check() -> None:
    """Raises `Stopped` in all of several processes if one got SIGTERM; to be called by all, after every batch."""
    if jax.process_count() > 1 and _reached():
        raise Stopped(signal.SIGTERM)
