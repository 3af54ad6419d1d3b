"""What the tables and the caption of a comparison say, of figures that are made up."""

import csv
import io

import pytest

from vididi_jax.compare import tables, task
from vididi_jax.compare.runs import Group, Run
from vididi_jax.compare.statistics import Bootstrap, Figure

RESULT = {'protocol': 'motion/test', 'counts': {'test': {'videos': 40, 'listed': 40}}, 'clips_x_crops': '1 x 1',
          'encoder': 'trained', 'commit': 'abc', 'metrics': {'V': {'R@1': 50.0}}}


def group(name, seeds=(0,), config=None, **changes):
    return Group(name, {'schedule': name}, [
        Run(f'runs/{name}', {'seed': seed, **(config or {})}, {'retrieval': RESULT | changes}) for seed in seeds])


def figure(of, against=None, p=0.01, groups=40):
    count = len(of.runs)
    test = Bootstrap(1.0, 0.5, 1.5, p, 40, groups) if against else None
    return Figure(of, 'retrieval', 'V', 'R@1', (50.0,) * count, 50.0, 0.0 if count > 1 else None, 12.5,
                  against.name if against else '', test)


def caption(*figures):
    return tables.caption(list(figures), '')


@pytest.mark.parametrize(('p', 'star'), [(0.0499, ' *'), (0.05, '')])
def test_a_star_stands_for_less_than_a_twentieth(p, star):
    assert tables.text_cell(figure(group('b'), group('a'), p)) == f'50.0{star}'


@pytest.mark.parametrize(('groups', 'told'), [(1, False), (2, True), (29, True), (30, False)])
def test_few_groups_are_told_where_stars_come_too_easily(groups, told):
    first = group('a')
    assert ('With as few as' in caption(figure(first), figure(group('b'), first, groups=groups))) == told


@pytest.mark.parametrize('seeds', [((0,), (0, 1)), ((0, 1), (0,)), ((0, 1), (1, 0))])
def test_a_single_run_on_either_side_is_told_and_seeds_stand_in_their_order(seeds):
    first, second = (group(name, mine) for name, mine in zip('ab', seeds, strict=True))
    text = caption(figure(first), figure(second, first))
    assert ('A star of a single run' in text) == ((0,) in seeds)
    assert ('(seeds 0, 1).' in text) == ((0,) not in seeds)


def test_of_many_groups_and_fields_some_are_named_and_the_others_counted():
    groups = [group(name, (seed,), {f'field{number}': name for number in range(4 + seed)})
              for seed, name in enumerate('abcdef')]
    text = caption(*map(figure, groups))
    assert '(a: 0; b: 1; c: 2; d: 3; e: 4; and of 1 more groups)' in text
    assert '(a: 0; b: 1; c: 2; d: 3; e: 4),' in caption(*map(figure, groups[:5]))
    fields = [f'field{number} f for a' if number < 4 else f'field{number} f for null' for number in range(9)]
    text = caption(figure(groups[0]), figure(groups[5], groups[0]))
    assert f'f differs from a also in {", ".join(fields[:5])} and 4 more fields.' in text
    text = caption(figure(groups[0]), figure(groups[1], groups[0]))
    assert 'b differs from a also in ' in text and 'field4 b for null. ' in text


@pytest.mark.parametrize(('folds', 'side', 'told'), [
    (1, 'test', '9 of 40 test videos'), (3, 'all', '9 of 120 test videos'), (3, 'test', '9 test videos')])
def test_of_several_lists_it_is_not_known_how_many_videos_there_are(folds, side, told):
    found = group('a', test_videos_seen_in_pretraining=9, folds=[{'test_videos': 40}] * folds,
                  counts={side: {'videos': 40, 'listed': 40}})
    assert f' {told} of retrieval were seen' in caption(figure(found))


def test_a_result_that_does_not_know_and_one_from_before_that_was_asked_are_alike():
    first, second = group('a'), group('b', test_videos_seen_in_pretraining=None)
    for groups in ((first, second), (second, first)):
        assert 'Whether test videos of retrieval were seen in pretraining is not known.' in caption(
            *map(figure, groups))


@pytest.mark.parametrize(('trained', 'told'), [
    (['abc'], 'Trained and evaluated by commit abc.'), (['def'], 'Trained by commit def, evaluated by commit abc.'),
    ([], ' Evaluated by commit abc.')])
def test_the_commits_of_training_are_told_where_they_are_others(trained, told):
    assert caption(figure(group('a', training_commits=trained))).endswith(told)


def test_every_row_has_a_cell_for_each_column():
    first = group('a', (0, 1))
    figures = [figure(first), figure(group('b'), first)]
    header, *rows = csv.reader(io.StringIO(tables.as_csv(figures)))
    rows = [dict(zip(header, row, strict=True)) for row in rows]
    assert [(row['std'], row['p'], row['groups'], row['protocol'], row['commits']) for row in rows] == [
        ('0.0', '', '', 'motion/test', 'abc'), ('', '0.01', '40', 'motion/test', 'abc')]
    assert task.difference_rows(figures) == [
        ('retrieval', 'V', 'b', 'a', '+1.0', '+0.5 to +1.5', '0.01', '40', '40')]
