"""Files that are written whole, and texts that are UTF-8."""

import ast
import locale
import re

import pytest

from vididi_jax.files import write_whole


@pytest.fixture
def c_locale():
    """In which a text that names no encoding is ASCII."""
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, 'C')
    yield
    locale.setlocale(locale.LC_CTYPE, before)


@pytest.mark.parametrize('content', ['走る ±\r\n', b'\x89PNG\r\n'])
def test_what_is_written_is_utf8_or_bytes_as_they_are(tmp_path, c_locale, content):
    write_whole(tmp_path / 'file', content)
    assert (tmp_path / 'file').read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert list(tmp_path.iterdir()) == [tmp_path / 'file']


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path, full_disk):
    write_whole(tmp_path / 'file', 'before')
    with full_disk(20), pytest.raises(OSError) as found:
        write_whole(tmp_path / 'file', 'after' * 100)
    assert found.value.filename == str(tmp_path / 'file')
    assert [path.read_text() for path in tmp_path.iterdir()] == ['before']


def names_encoding(call: ast.Call) -> bool:
    """Whether a call opens no text, or says in which encoding."""
    name = getattr(call.func, 'attr', getattr(call.func, 'id', ''))
    of = getattr(getattr(call.func, 'value', None), 'id', '')
    words = [word.value for word in call.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
    is_binary = of in ('av', 'os') or any(re.fullmatch('[rwax+]*b[+]?', word) for word in words)
    is_text = (name == 'write_text' or name == 'open' and not is_binary
               or name == 'read_text' and not call.args)  # else it is of a package's metadata
    return not is_text or any(keyword.arg == 'encoding' for keyword in call.keywords)


def test_texts_are_read_and_written_alike_in_every_locale(root):
    paths = [root / 'setup.py', *(path for folder in ('vididi_jax', 'data_prep', 'configs', 'benchmarks')
                                  for path in (root / folder).rglob('*.py'))]
    found = [(path.name, node.lineno) for path in paths for node in ast.walk(ast.parse(path.read_bytes()))
             if isinstance(node, ast.Call) and not names_encoding(node)]
    assert len(paths) > 100 and found == []
