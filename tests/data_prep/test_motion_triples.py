"""Triples: query and negative share their background, query and positive their motion, and nothing else is shared."""

import numpy as np
import pytest

from data_prep import motion_triples
from data_prep.__main__ import build_parser, run
from data_prep.motion import CLASSES, coverage, draw_sprite
from data_prep.motion_triples import ROLES, background_of, motion_of, render_video
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError

SIZE, FRAMES = 24, 8


def triple(number):
    return (render_video(0, number, role, FRAMES, SIZE).astype(int) for role in ROLES)


def still(number, role):
    """Pixels that no sprite passes: the middle of one may stand still, too."""
    rng = np.random.default_rng((0, motion_triples.SPRITE, number, ROLES.index(role)))
    sprite = draw_sprite(rng, motion_of(number, role), FRAMES, SIZE)
    return (coverage(sprite.shape, sprite.path, SIZE) == 0).all(0)


def test_query_and_negative_have_one_background_and_the_positive_another():
    for number in range(16):
        query, positive, negative = triple(number)
        both = still(number, 'query') & still(number, 'negative')
        assert (np.ptp(query, axis=0)[both] == 0).all()
        np.testing.assert_array_equal(query[0][both], negative[0][both])
        assert both.mean() > 0.05
        common = still(number, 'query') & still(number, 'positive')
        assert (query[0] != positive[0])[common].any(-1).mean() > 0.9
        assert (query[0] != negative[0]).any()  # the sprites differ


def test_classes_are_as_their_roles_want_and_balanced():
    motions = np.array([[CLASSES.index(motion_of(number, role)) for role in ROLES] for number in range(56)])
    assert (motions[:, 0] == motions[:, 1]).all() and (motions[:, 0] != motions[:, 2]).all()
    for role in range(3):
        np.testing.assert_array_equal(np.bincount(motions[:, role]), 7)
    pairs = set(map(tuple, motions[:, ::2]))
    assert len(pairs) == 56  # every class stands against every other once
    assert background_of(3, 'query') == background_of(3, 'negative') != background_of(3, 'positive')


def test_the_command_writes_them_with_the_background_as_group(tmp_path):
    run(build_parser().parse_args(['motion', '--triples', '--test=2', '--frames=4', '--size=8', '--workers=1',
                                   f'--out={tmp_path}']))
    source = RecordSource(tmp_path, 'test')
    assert [(row['label'], row['group']) for row in source.rows] == [
        (motion_of(number, role), background_of(number, role)) for number in range(2) for role in ROLES]
    np.testing.assert_array_equal(source[5].frames(np.arange(4)), render_video(0, 1, 'negative', 4, 8))


def test_a_train_split_is_refused():
    with pytest.raises(UserError, match='--triples has a test split alone: leave --train away'):
        motion_triples.plan(build_parser().parse_args(['motion', '--triples', '--train=8', '--out=x']))
