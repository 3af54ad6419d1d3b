"""Folds: what is on which side, and every way in which sides can be wrong."""

import json
import shutil

import numpy as np
import pytest

from configs import retrieval
from tests.data_sets import edit_rows, seal
from vididi_jax.errors import UserError
from vididi_jax.evaluate.protocol import deal, open_protocol


def config(variant='smoke', **changes):
    settings = retrieval.get_config(variant)
    settings.eval.update(changes)
    return settings


def edit(data, out, change, **plan):
    """A copy of a data set whose manifest's rows went through `change`."""
    shutil.copytree(data, out)
    if plan:
        old = json.loads((out / 'plan.json').read_text())
        (out / 'plan.json').write_text(json.dumps({**old, 'options': {**old['options'], **plan}}))
    edit_rows(out, change)
    return str(out)


@pytest.fixture(scope='module')
def grouped(tiny_motion, tmp_path_factory):
    """Six groups of eight training videos, one of each class."""
    return edit(tiny_motion, tmp_path_factory.mktemp('grouped') / 'data',
                lambda i, row: row | {'group': f'person{i // 8}' if row['split'] == 'train' else ''})


def test_a_split_is_its_two_lists(tiny_motion):
    protocol = open_protocol(config(), str(tiny_motion))
    (fold,) = protocol.folds
    assert protocol.name == fold.name == 'motion/train-test'
    assert (len(fold.train.videos), len(fold.test.videos)) == (48, 16)
    assert {row['split'] for row in fold.train.rows} == {'train'}
    assert list(fold.test.labels) == [fold.test.source[i].label for i in range(16)]


def test_official_splits_have_their_numbers_and_are_folds(tiny_motion, tmp_path):
    paths = [edit(tiny_motion, tmp_path / str(n), lambda i, row: row, official_split=n) for n in (1, 2)]
    assert open_protocol(config(), paths[1]).name == 'motion/split2'
    protocol = open_protocol(config(), ','.join(paths))
    assert [fold.name for fold in protocol.folds] == ['motion/split1', 'motion/split2']
    with pytest.raises(UserError, match='motion/split1: give each split once'):
        open_protocol(config(), f'{paths[0]},{paths[0]}')
    with pytest.raises(UserError, match='which has no name before or after a comma'):
        open_protocol(config(), f'{paths[0]},')
    one = edit(tiny_motion, tmp_path / 'one, of that name', lambda i, row: row)
    assert open_protocol(config(), one).name == 'motion/train-test'


def test_splits_of_other_data_sets_are_no_folds(tiny_motion, tmp_path):
    mine = edit(tiny_motion, tmp_path / 'mine', lambda i, row: row, official_split=1)
    other = shutil.copytree(tiny_motion, tmp_path / 'other')
    labels = other / 'label.labels.txt'
    labels.write_text(labels.read_text().replace('left', 'west'))
    edit_rows(other, lambda i, row: row | {'label': row['label'].replace('left', 'west')})
    with pytest.raises(UserError, match='/other is of motion with 8 classes .*: data.dir takes several splits of one'):
        open_protocol(config(), f'{mine},{other}')


def test_an_official_split_can_be_asked_for_by_name(tiny_motion, tmp_path):
    paths = [edit(tiny_motion, tmp_path / str(n), lambda i, row: row, official_split=n) for n in (1, 2)]
    settings = config(protocol='motion/split2')
    assert open_protocol(settings, paths[1]).name == 'motion/split2'
    others = (paths[0], 'motion/split1'), (','.join(paths), r'motion/split1\+'), (str(tiny_motion), 'motion/train-test')
    for directory, name in others:
        with pytest.raises(UserError, match=f"eval.protocol is 'motion/split2' and .* is {name}"):
            open_protocol(settings, directory)


def test_where_a_split_is_lacking_there_is_a_protocol_of_one(tiny_motion):
    with pytest.raises(UserError, match="no split 'val': .* eval.protocol=grouped evaluates on one split alone[.]$"):
        open_protocol(config(test='val'), str(tiny_motion))


def test_short_videos_loop_are_dropped_or_are_an_error_and_are_counted(tiny_motion, tmp_path):
    """Of seven frames, one less than a clip has: two training videos and one test video."""
    data = edit(tiny_motion, tmp_path / 'short', lambda i, row: row | ({'frames': 7} if i in (1, 9, 50) else {}))
    everything = {'listed': 48, 'ok': 48, 'missing': 0, 'broken': 0}
    for policy, used, looped, dropped, mean in (('loop', 48, 2, 0, (46 * 3 + 2) / 48), ('drop', 46, 0, 2, 3)):
        settings = config(short_video=policy)
        (fold,) = open_protocol(settings, data).folds
        counts = fold.train.counts(settings.eval)
        assert counts == everything | {'videos': used, 'looped': looped, 'dropped': dropped, 'clips_per_video': mean}
        assert len(fold.train.rows) == used and (1 in fold.train.videos) == (policy == 'loop')
        assert len(fold.test.videos) == 16 - (policy == 'drop')
    with pytest.raises(UserError, match=r"'train' of .*eval.short_video: 2 of 48 videos have fewer than the 8 frames"):
        open_protocol(config(short_video='error'), data)
    with pytest.raises(UserError, match='loop, drop, error'):
        open_protocol(config(short_video='cut'), data)


def test_groups_are_left_out_without_their_short_videos(grouped, tmp_path):
    data = edit(grouped, tmp_path / 'short', lambda i, row: row | ({'frames': 7} if i == 3 else {}))
    first = open_protocol(config('grouped', frames=8, stride=1, short_video='drop'), data).folds[0]
    assert first.test.videos.tolist() == [0, 1, 2, 4, 5, 6, 7] and first.train.videos.tolist() == list(range(8, 48))


def test_each_group_is_left_out_once(grouped):
    protocol = open_protocol(config('grouped'), grouped)
    assert protocol.name == 'motion/grouped (leave one of 6 groups out)'
    assert [fold.name for fold in protocol.folds] == [f'person{i}' for i in range(6)]
    for i, fold in enumerate(protocol.folds):
        assert set(fold.test.groups) == {f'person{i}'} and len(fold.train.videos) == 40
    assert sorted(np.concatenate([fold.test.videos for fold in protocol.folds])) == list(range(48))


def test_folds_hold_whole_groups(grouped):
    protocol = open_protocol(config('grouped', folds=4), grouped)
    assert [len(set(fold.test.groups)) for fold in protocol.folds] == [2, 2, 1, 1]
    assert all(not set(fold.test.groups) & set(fold.train.groups) for fold in protocol.folds)


def test_parts_are_balanced_over_classes_where_groups_are_of_one_class():
    labels = np.repeat(np.arange(5), 10)
    part = deal(labels, np.array([f'{label}_{i % 5}' for i, label in enumerate(labels)]), 5)
    for label in range(5):
        assert sorted(part[labels == label]) == sorted(list(range(5)) * 2)
    of_two_classes = deal(np.array([0, 2, 1]), np.array(['b', 'b', 'a']), 2)  # the first of them counts
    assert of_two_classes.tolist() == [0, 0, 1]


def test_wrong_protocols_are_refused(grouped, tiny_motion, tmp_path):
    cases = [(config(folds=7), grouped, "eval.folds is 7, and eval.protocol 'split' has no use for it"),
             (config('grouped', folds=7), grouped, '6 groups'),
             (config('grouped', folds=1), grouped, 'eval.folds is 1'), (config(test='val'), grouped, 'no split'),
             (config('grouped'), f'{grouped},{tiny_motion}', 'grouped takes one')]
    for settings, directory, message in cases:
        with pytest.raises(UserError, match=message):
            open_protocol(settings, directory)


def test_a_video_or_a_group_on_both_sides_is_refused(tiny_motion, tmp_path):
    twice = edit(tiny_motion, tmp_path / 'video',
                 lambda i, row: row | ({'id': 'motion_train_00003'} if i == 50 else {}))
    with pytest.raises(UserError, match=r"the video 'motion_train_00003' \(1 of them"):
        open_protocol(config(), twice)
    scene = edit(tiny_motion, tmp_path / 'group', lambda i, row: row | {'group': f'scene{i % 40}'})
    with pytest.raises(UserError, match=r"the group 'scene10' \(16 of them"):
        open_protocol(config(), scene)


def test_a_class_without_training_videos_is_refused_unless_allowed(tiny_motion, tmp_path):
    lacking = edit(tiny_motion, tmp_path / 'lacking', lambda i, row: row | (
        {'label': 'right'} if row['label'] == 'left' and row['split'] == 'train' else {}))
    with pytest.raises(UserError, match=r'2 test videos of 1 classes \(the first: left\).*allow_missing'):
        open_protocol(config(), lacking)
    settings = config()
    settings.allow_missing = True
    (fold,) = open_protocol(settings, lacking).folds
    assert fold.absent().sum() == 2


def test_a_split_without_a_single_video_is_refused_even_if_missing_ones_are_allowed(tiny_motion, tmp_path):
    data = edit(tiny_motion, tmp_path / 'data', lambda i, row: row | (
        {'status': 'broken', 'frames': None} if row['split'] == 'test' else {}))
    info = tmp_path / 'data' / 'dataset_info.json'
    described = json.loads(info.read_text())
    next(split for split in described['splits'] if split['name'] == 'test')['shardLengths'] = ['0']
    info.write_text(json.dumps(described))
    (tmp_path / 'data' / 'motion-test.tfrecord-00000-of-00001').write_bytes(b'')
    seal(data)
    settings = config()
    settings.allow_missing = True
    with pytest.raises(UserError, match=r"'test' .* none of its 16 listed videos \(0 missing, 16 broken\)"):
        open_protocol(settings, data)


def test_labels_that_are_all_the_same_are_refused(tiny_motion, tmp_path):
    one = edit(tiny_motion, tmp_path / 'one', lambda i, row: row | {'label': 'left'})
    (tmp_path / 'one' / 'label.labels.txt').write_text('left\n')
    seal(one)
    with pytest.raises(UserError, match='evaluation needs labels'):
        open_protocol(config(), one)


def test_an_official_split_the_other_way_round_is_none(tiny_motion, tmp_path):
    data = edit(tiny_motion, tmp_path / 'data', lambda i, row: row, official_split=1)
    assert open_protocol(config(train='test', test='train'), data).name == 'motion/test-train'


def test_videos_without_a_label_are_no_class(tiny_motion, tmp_path):
    data = shutil.copytree(tiny_motion, tmp_path / 'data')
    labels = data / 'label.labels.txt'
    labels.write_text(labels.read_text().replace('left\n', '.\n'))
    edit_rows(data, lambda i, row: row | {'label': row['label'].replace('left', '')})
    with pytest.raises(UserError, match='8 videos have no label: put them into folders of their classes'):
        open_protocol(config(), str(data))
