"""How a command ends."""

import signal

import pytest

from vididi_jax.errors import Stopped, UserError, one_sentence


@pytest.mark.parametrize(('error', 'code', 'said'), [
    (UserError('a is b.'), 1, 'error: a is b.'),
    (FileNotFoundError(2, 'No such file or directory', 'a'), 1, 'error: a: No such file or directory.'),
    (OSError(28, 'No space left on device'), 1, 'error: No space left on device.'),
    (KeyboardInterrupt(), 130, 'stopped by SIGINT; it goes on'),
    (Stopped(signal.SIGTERM, ' after step 3'), 143, 'stopped by SIGTERM after step 3')])
def test_what_comes_from_outside_is_one_line_and_a_code(error, code, said, capsys):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end, one_sentence('; it goes on'):
        raise error
    assert end.value.code == code and capsys.readouterr().err == said + '\n'
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_error_of_the_code_keeps_its_traceback():
    for error in (OSError('of a library'), ValueError('of the code')):
        with pytest.raises(type(error), match=str(error)), one_sentence():
            raise error
