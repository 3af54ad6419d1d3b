"""The page of a folder of videos: any video's neighbours, clusters, and what could not be read."""

import html
import json
from pathlib import Path

import numpy as np

from vididi_jax.browse.neighbours import clusters_of, nearest_others
from vididi_jax.data.source import RecordSource
from vididi_jax.report.animation import FRAMES, animation, evenly, speed
from vididi_jax.report.html import NOTATION, clip_image, paragraph, table, write_page

SCRIPT = (Path(__file__).parent / 'page.js').read_text(encoding='utf-8')
PICTURES = 6_000  # frames in a page, so that it stays some ten megabytes; of more videos each has one
MOST = 20_000  # videos of a page, which browsers still show
STYLE = """
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); gap: .7rem; align-items: start }
.tiles figure { margin: 0; cursor: pointer; font-size: .72rem; line-height: 1.25; overflow-wrap: anywhere }
.tiles .clip { width: 100%; height: 6.5rem }
#asked { max-width: 9rem } #asked .clip { height: 9rem }
#pick { font: inherit; width: 100%; padding: .3rem .5rem }
"""


def tiles(source: RecordSource, chosen: np.ndarray) -> str:
    names = {i: source.rows[i]['id'] for i in chosen}
    return '<div class="tiles">' + ''.join(
        f'<figure data-video="{i}" role="button" tabindex="0" title="{html.escape(name)}">{clip_image(i, name)}'
        f'<figcaption>{html.escape(name)}</figcaption></figure>' for i, name in names.items()) + '</div>'


def write_browser(
    path: Path, source: RecordSource, features: np.ndarray, unread: list[dict], *, about: str, clusters: int,
) -> None:
    """Write the page of the videos of `source`.

    Args:
      path: of the page.
      source: the records, MOST at most.
      features: (N, D), of each.
      unread: rows of the manifest of what could not be read.
      about: how the features were made, one sentence.
      clusters: see `clusters_of`.
    """
    frames = max(1, min(FRAMES, PICTURES // len(source)))
    clips = []
    for number in range(len(source)):
        record = source[number]
        chosen = evenly(record.num_frames, frames) if frames > 1 else [record.num_frames // 2]
        clips.append(animation(record.frames(chosen)))
    near, scores = nearest_others(features)
    names = [row['id'] for row in source.rows]
    videos = json.dumps({'names': names, 'near': near.tolist(), 'scores': scores.round(4).tolist()})
    videos = videos.replace('<', '\\u003c')  # a file name must not end the script
    options = ''.join(f'<option value="{html.escape(name)}">' for name in names)
    parts = [f'<h1>{len(source):,} videos by what moves</h1>', paragraph(f'{about} {NOTATION}')]
    if unread:
        parts += [f'<h2>Not read: {len(unread):,}</h2>',
                  table([(row['id'], row['status'], row['reason']) for row in unread], ('file', 'status', 'reason'))]
    parts += ['<section id="search"><h2>Nearest</h2><label>Video <input id="pick" list="names"></label>'
              f'<datalist id="names">{options}</datalist><output id="told"></output>'
              '<div id="asked" class="tiles"></div>'
              + paragraph('Its nearest others with their cosine similarity, whose order counts, not the value; a click '
                          'on any video asks for its own. '
                          + (speed(frames) if frames > 1 else 'Pictures are the middle frames of videos.'))
              + '<div id="near" class="tiles"></div></section>']
    for number, found in enumerate(clusters_of(features, clusters) if len(source) > 1 else []):
        parts += [f'<h2>Cluster {number + 1}: {len(found):,} videos</h2>', tiles(source, found)]
    parts.append(f'<script type="application/json" id="videos">{videos}</script>')
    write_page(path, f'{len(source):,} videos by what moves', parts, clips, style=STYLE, script=SCRIPT)
