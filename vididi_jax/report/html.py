"""Pieces of a page that needs nothing beside itself: opened from disk, light or dark, narrow or printed."""

import base64
import html
from pathlib import Path

STYLE = """
:root{color-scheme:light dark;--back:#fff;--text:#1d2127;--faint:#667;--line:#d8dbe0;--card:#f5f6f8;--accent:#1a5fb4;
--right:#1a7f37;--wrong:#c01c28}
@media(prefers-color-scheme:dark){:root{--back:#15181c;--text:#e4e6ea;--faint:#9aa3ad;--line:#343a42;--card:#1f2429;
--accent:#7db4f5;--right:#57c875;--wrong:#ff7b83}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem;color:var(--text);
background:var(--back)}
h1{line-height:1.2;margin:.2rem 0}h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}
.scroll{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse}
th,td{padding:.2rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td{font-variant-numeric:tabular-nums}td:not(:first-child){overflow-wrap:anywhere}
figure{margin:1rem 0}figcaption,.faint{color:var(--faint);font-size:.9em}
img{max-width:100%;height:auto}figure img{background:#fff;border-radius:4px}
code{background:var(--card);padding:0 .25rem;border-radius:3px;overflow-wrap:anywhere}
.headline{display:flex;flex-wrap:wrap;gap:1rem;margin:1rem 0}
.headline div{background:var(--card);border-radius:8px;padding:.7rem 1.1rem}
.headline strong{display:block;font-size:2rem;line-height:1.2;font-variant-numeric:tabular-nums}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
@media print{body{max-width:none;margin:0}h2{break-after:avoid}figure,tr,.card{break-inside:avoid}.screen{display:none}}
"""


def picture(png: bytes, text: str) -> str:
    """A figure with its caption."""
    data = base64.b64encode(png).decode()
    text = html.escape(text)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def table(rows: list[tuple], header: tuple = ()) -> str:
    """A table of text, which scrolls by itself where it is wider than the page."""
    line = lambda tag, cells: '<tr>' + ''.join(f'<{tag}>{html.escape(str(c))}</{tag}>' for c in cells) + '</tr>'  # noqa: E731
    return ('<div class="scroll"><table>' + (line('th', header) if header else '')
            + ''.join(line('td', row) for row in rows) + '</table></div>')


def paragraph(text: str) -> str:
    return f'<p>{html.escape(text)}</p>'


def write_page(path: Path, title: str, parts: list[str], style: str = '', script: str = '') -> None:
    """Write a page, whose `parts` are HTML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f'<title>{html.escape(title)}</title><style>{STYLE}{style}</style></head><body>\n'
        + '\n'.join(parts) + (f'\n<script>{script}</script>' if script else '') + '\n</body></html>\n')
