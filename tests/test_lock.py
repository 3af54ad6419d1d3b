"""The lock of a folder that is written to."""

import resource

import pytest

from vididi_jax.errors import UserError
from vididi_jax.lock import locked


def test_a_disk_without_room_for_the_lock_is_one_sentence(tmp_path):
    """Not the error of closing the lock, which comes after it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(UserError, match='cannot write to .*: choose another --out'), locked(
                tmp_path, 'choose another --out'):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
