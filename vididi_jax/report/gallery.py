"""Test videos and their nearest neighbours, moving, side by side for features of V and of dV."""

import html

import numpy as np

from vididi_jax.evaluate.retrieval import neighbours
from vididi_jax.measures import unit
from vididi_jax.report.animation import Clips, speed
from vididi_jax.report.evidence import Evidence, evenly_by_class
from vididi_jax.report.html import clip_image, paragraph

QUERIES, NEAREST = 32, 5
KINDS = ('V', 'dV')  # of features


def near_row(kind: str, evidence: Evidence, query: int, near: np.ndarray, clips: Clips) -> str:
    """The nearest neighbours of one query by one kind of feature."""
    train, asked = evidence.fold.train, evidence.fold.test.rows[query]['label']
    similar = unit(evidence.train[kind][near]) @ unit(evidence.test[kind][query])
    cells = []
    for place, cosine in zip(near, similar, strict=True):
        row = train.rows[place]
        side = 'right' if row['label'] == asked else 'wrong'
        image = clip_image(clips.of_video(train.source, train.videos[place]), f'{row["id"]}, {side} class')
        cells.append(f'<figure class="{side}" title="{html.escape(row["id"])}">{image}<figcaption>'
                     f'{html.escape(row["label"])}<br>{cosine:.4f}</figcaption></figure>')
    return f'<div class="near"><b>{kind}</b>{"".join(cells)}</div>'


def gallery_section(evidence: Evidence, clips: Clips) -> str:
    """The section `gallery`: queries evenly of all classes, with a filter by class and by wrong ones."""
    fold = evidence.fold
    chosen = evenly_by_class(fold.test.labels, QUERIES)
    order = {kind: neighbours(evidence.test[kind][chosen], evidence.train[kind], NEAREST) for kind in KINDS}
    cards = []
    for number, query in enumerate(chosen):
        row = fold.test.rows[query]
        right = all(fold.train.rows[order[kind][number][0]]['label'] == row['label'] for kind in KINDS)
        image = clip_image(clips.of_video(fold.test.source, fold.test.videos[query]), f'query {row["id"]}')
        lists = ''.join(near_row(kind, evidence, query, order[kind][number], clips) for kind in KINDS)
        cards.append(f'<article class="query" data-class="{html.escape(row["label"])}" '
                     f'data-right="{"yes" if right else ""}"><figure title="{html.escape(row["id"])}">{image}'
                     f'<figcaption><b>{html.escape(row["label"])}</b></figcaption></figure>'
                     f'<div class="lists">{lists}</div></article>')
    names = [fold.test.source.label_names[label] for label in np.unique(fold.test.labels[chosen])]
    options = ''.join(f'<option value="{html.escape(name)}">{html.escape(name)}</option>' for name in names)
    text = (f'{len(chosen)} of the {len(fold.test.videos):,} test videos of {fold.name}, taken in turns from '
            f'{len(names)} of its {len(np.unique(fold.test.labels))} classes, each with its {NEAREST} nearest of '
            f'{len(fold.train.videos):,} training videos by the cosine of their features, of V and of dV: their order '
            f'counts, not the value. A green frame is the right class, a red one is not. {speed()}')
    return ('<section id="gallery"><h2>Nearest neighbours</h2>' + paragraph(text) + '<div class="controls">'
            f'<label>Class <select name="class"><option value="">all</option>{options}</select></label>'
            '<label><input type="checkbox" name="wrong"> only where the nearest is wrong, of V or of dV</label>'
            f'<output name="shown"></output></div><div class="queries">{"".join(cards)}</div></section>')
