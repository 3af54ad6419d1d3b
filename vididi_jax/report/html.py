"""Pieces of a page that needs nothing beside itself: opened from disk, light or dark, narrow or printed."""

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path

from vididi_jax.files import write_whole

STYLE, SCRIPT = ((Path(__file__).parent / name).read_text(encoding='utf-8') for name in ('page.css', 'page.js'))

NOTATION = ('V is a clip as it is, dV its velocity (differences of neighbouring frames), d2V its acceleration '
            '(differences of those); "joined" are the features of V and of dV side by side.')


def data_url(data: bytes, kind: str) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'


def picture(png: bytes, text: str) -> str:
    """A figure with its caption."""
    text, image = html.escape(text), data_url(png, 'png')
    return f'<figure class="picture"><img alt="{text}" src="{image}"><figcaption>{text}</figcaption></figure>'


def table(rows: list[tuple], header: tuple = ()) -> str:
    """A table of text, which scrolls by itself where it is wider than the page."""

    def line(tag: str, cells: tuple) -> str:
        return '<tr>' + ''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells) + '</tr>'

    return ('<div class="scroll" tabindex="0"><table>' + (line('th', header) if header else '')
            + ''.join(line('td', row) for row in rows) + '</table></div>')


def paragraph(text: str) -> str:
    return f'<p>{html.escape(text)}</p>'


def clip_image(number: int, text: str) -> str:
    """An animation of `clips` of `write_page`, by its number."""
    return f'<img class="clip" data-clip="{number}" alt="{html.escape(text)}">'


def write_page(
    path: Path, title: str, parts: list[str], clips: Sequence[bytes] = (), style: str = '', script: str = '',
) -> None:
    """Write a page.

    Args:
      path: of the file.
      title: of the page.
      parts: HTML.
      clips: animations (WebP) that `clip_image` refers to; each is in the page once.
      style, script: CSS and JavaScript of this kind of page; the script finds the clips in CLIPS.
    """
    animations = json.dumps([data_url(clip, 'webp') for clip in clips])
    code = (f'<script type="application/json" id="clips">{animations}</script>\n<script>{SCRIPT}{script}</script>\n'
            if clips else '')
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(
        path, '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">\n'
        f'<title>{html.escape(title)}</title>\n<style>{STYLE}{style}</style></head><body>\n'
        + '\n'.join(parts) + f'\n{code}</body></html>\n')
