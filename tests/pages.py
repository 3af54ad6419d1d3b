"""The pages that users read: their blocks of code, their commands and their links."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md')),
         *sorted((ROOT / 'notebooks').glob('*.md'))]
FENCE = re.compile(r'^```(\S+)[^\n]*\n(.*?)^```$', re.MULTILINE | re.DOTALL)
SEPARATORS = set('&;|\n')


class Block(NamedTuple):
    """A fenced block of code.

    Attributes:
      page: its file.
      line: number of its first line.
      language: what stands behind the fence.
      text: without the fences.
    """

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f'{self.page.relative_to(ROOT)}, line {self.line}'


def blocks(page: Path, language: str) -> list[Block]:
    """Those of a language, in order."""
    text = page.read_text()
    return [Block(page, text[: found.start()].count('\n') + 2, *found.groups()) for found in FENCE.finditer(text)
            if found[1] == language]


def commands(text: str) -> list[list[str]]:
    """The commands for a shell, as words, those in a `--command=` too.

    Without comments, redirections, environment variables, and what only leads to a program.
    """
    text = text.replace('\\\n', ' ').replace('<this repository>', 'REPOSITORY')
    text = re.sub(r'(^|\s)#.*$', '', text, flags=re.MULTILINE)
    lexer = shlex.shlex(text, posix=True, punctuation_chars='&;|>\n')
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = ' \t', True, ''
    found, words = [], []
    for word in (*lexer, '\n'):
        if not set(word) <= SEPARATORS:
            words.append(word)
            continue
        words = words[: words.index('>')] if '>' in words else words
        while words and (words[0] == 'srun' or re.fullmatch(r'[A-Z_]+=.*', words[0])):
            words = words[1:]
        if words:
            found.append([re.sub(r'^\.venv[\w-]*/bin/', '', words[0]), *words[1:]])
            found += [inner for word in words if word.startswith('--command=') for inner in commands(word[10:])]
        words = []
    return found


def without_code(text: str) -> str:
    return FENCE.sub('', text)


def links(page: Path) -> list[str]:
    """Targets of the links and pictures of a page."""
    return re.findall(r'\]\(([^)\s]+)\)', without_code(page.read_text()))


def anchors(page: Path) -> set[str]:
    """What may stand behind '#' in a link to a page."""
    titles = re.findall(r'^#+ (.*)$', without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}
