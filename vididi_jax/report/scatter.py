"""A map of the test videos: t-SNE of their features, coloured by class; a point shows its video."""

import html

import numpy as np

from vididi_jax.errors import UserError
from vididi_jax.measures import unit
from vididi_jax.report.animation import Clips
from vididi_jax.report.evidence import Evidence, evenly_by_class
from vididi_jax.report.html import clip_image, paragraph

KIND = 'V'  # of features
POINTS, LEAST = 320, 8
WIDTH, HEIGHT, MARGIN = 900, 560, 20
ALIKE = 1e-6  # how much features of length 1 that are the same differ by rounding


def embed(features: np.ndarray) -> np.ndarray:
    """Places in a plane (N, 2), each axis from 0 to 1, by scikit-learn's t-SNE of cosine distances; N at least LEAST.

    Raises:
      UserError: all features are the same.

    Reference: van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008.
    """
    from sklearn.manifold import TSNE  # takes seconds to import

    features = unit(features)
    if np.ptp(features, axis=0).max() < ALIKE:  # of which t-SNE makes NaN, and then crashes
        raise UserError('there is no map, as all videos have the same features: the encoder has collapsed.')
    found = TSNE(perplexity=min(30, (len(features) - 1) / 3), init='pca', random_state=0).fit_transform(features)
    low, high = found.min(0), found.max(0)
    return (found - low) / np.maximum(high - low, 1e-9)


def colour(number: int, count: int) -> str:
    """Hues evenly around the circle, and two degrees of lightness where classes are many."""
    return f'hsl({360 * number / max(count, 1):.0f} 65% {45 + 15 * (number % 2)}%)'


def map_section(evidence: Evidence, clips: Clips) -> str:
    """The section `map`, or, of fewer than LEAST videos, a sentence."""
    test = evidence.fold.test
    chosen = evenly_by_class(test.labels, POINTS)
    if len(chosen) < LEAST:
        return paragraph(f'A map of the features takes {LEAST} test videos, and there are {len(chosen)} of '
                         f'{evidence.fold.name}.')
    places = embed(evidence.test[KIND][chosen]) * (WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN) + MARGIN
    present = np.unique(test.labels[chosen])
    colours = {label: colour(number, len(present)) for number, label in enumerate(present)}
    points, names = [], test.source.label_names
    for (x, y), query in zip(places, chosen, strict=True):
        row, label = test.rows[query], test.labels[query]
        points.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{colours[label]}" tabindex="-1" '
                      f'data-clip="{clips.of_video(test.source, test.videos[query])}" data-class="{label}" role="img" '
                      f'aria-label="{html.escape(row["label"])}, {html.escape(row["id"])}"/>')
    legend = ''.join(f'<button type="button" aria-pressed="false" data-class="{label}"><i style="background:'
                     f'{colours[label]}"></i>{html.escape(names[label])}</button>' for label in present)
    text = (f'{len(chosen)} of the {len(test.videos):,} test videos of {evidence.fold.name}, by t-SNE of their '
            f'features of {KIND}: near points are videos that the encoder takes for alike; distances between far ones '
            f'mean nothing. Colours are classes, {len(present)} of {len(np.unique(test.labels))}, which this '
            'pretraining was not told: press one to see it alone, and go from point to point with the arrow keys.')
    return ('<section id="map"><h2>Map of the features</h2>' + paragraph(text) + f'<div class="legend">{legend}</div>'
            f'<div class="map"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="map of test videos">'
            f'{"".join(points)}</svg><div class="tip" hidden>{clip_image(0, "")}<br><span></span></div></div>'
            '</section>')
