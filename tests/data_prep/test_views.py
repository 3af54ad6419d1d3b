"""Official splits that share a store, against data sets that were prepared one by one."""

import shutil
from functools import partial

import numpy as np
import pytest

from configs import retrieval
from data_prep.__main__ import build_parser, run
from tests.data_prep.videos import ramp, write_video
from vididi_jax.data.source import RecordSource, open_splits
from vididi_jax.errors import UserError
from vididi_jax.evaluate.protocol import check_apart, open_protocol

CLASSES = 'Bowling', 'Diving'


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """Two classes of three groups of a video, and lists: the groups are the test videos in turn. One file is broken."""
    root = tmp_path_factory.mktemp('official')
    (root / 'lists').mkdir()
    (root / 'lists' / 'classInd.txt').write_text(''.join(f'{i} {name}\n' for i, name in enumerate(CLASSES, 1)))
    files = {(name, group): f'{name}/v_{name}_g0{group}_c01.avi' for name in CLASSES for group in (1, 2, 3)}
    for seed, path in enumerate(files.values()):
        write_video(root / 'videos' / path, ramp(10 + seed, seed=seed))
    (root / 'videos' / files['Diving', 3]).write_bytes(b'no video' * 50)
    for split in (1, 2, 3):
        for side in ('train', 'test'):
            lines = [f'{path} {CLASSES.index(name) + 1}\n' for (name, group), path in files.items()
                     if (group == split) == (side == 'test')]
            (root / 'lists' / f'{side}list0{split}.txt').write_text(''.join(lines))
    return root


def prepare(tree, out, split):
    run(build_parser().parse_args([
        'ucf101', f'--videos={tree / "videos"}', f'--splits={tree / "lists"}', f'--split={split}', f'--out={out}',
        '--workers=1', '--short_side=32']))


@pytest.fixture(scope='module')
def shared(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp('shared') / 'data'
    prepare(tree, out, 'all')
    return out


def test_a_view_is_the_data_set_that_is_prepared_alone(tree, shared, tmp_path):
    for number in (1, 2, 3):
        prepare(tree, tmp_path / str(number), number)
        for one, view in zip(open_splits(tmp_path / str(number)), open_splits(shared / f'split{number}'), strict=True):
            assert (one.split, one.counts, one.official_split, one.name, one.label_names) == (
                view.split, view.counts, view.official_split, view.name, view.label_names)
            assert sorted(one.rows, key=str) == sorted(view.rows, key=str)
            for row, record in ((row, view[i]) for i, row in enumerate(view.rows)):
                other = one[list(one.ids).index(row['id'])]
                assert record.label == other.label
                everything = range(record.num_frames)
                np.testing.assert_array_equal(record.frames(everything), other.frames(everything))
    for source in open_splits(shared / 'split3'):  # records stand as in the store, to be read from its start to its end
        assert (np.diff(source.index['first']) > 0).all()
    names = {path.name for path in (shared / 'split1').iterdir()}
    assert names == {'SHA256SUMS', 'counts.json', 'label.labels.txt', 'manifest.jsonl', 'plan.json',
                     'ucf101-test.index.npy', 'ucf101-train.index.npy'}
    assert RecordSource(shared / 'store', 'videos').counts == {'listed': 6, 'ok': 5, 'missing': 0, 'broken': 1}


def test_evaluation_takes_views_as_folds(shared):
    config = retrieval.get_config()
    config.allow_missing, config.eval.frames, config.eval.stride = True, 4, 1
    protocol = open_protocol(config, ','.join(str(shared / f'split{number}') for number in (1, 2, 3)))
    assert protocol.name == 'ucf101/split1+ucf101/split2+ucf101/split3'
    for fold in protocol.folds:
        check_apart(fold)


def test_what_is_there_is_not_decoded_again(tree, shared, tmp_path, capsys, monkeypatch):
    out = shutil.copytree(shared, tmp_path / 'data')
    shutil.rmtree(out / 'split2')
    (out / 'split3' / 'SHA256SUMS').unlink()
    (out / 'split3' / 'incomplete').mkdir()  # as a run leaves it that was stopped just there
    shutil.copy(out / 'split3' / 'plan.json', out / 'split3' / 'incomplete')
    monkeypatch.setattr('data_prep.folder.decode_video', None)
    prepare(tree, out, 'all')
    assert 'complete already' in capsys.readouterr().out
    for path in (path for path in shared.rglob('*') if path.is_file()):
        assert (out / path.relative_to(shared)).read_bytes() == path.read_bytes(), path


def test_a_view_wants_the_store_that_it_was_made_of(tree, shared, tmp_path, capsys):
    out = shutil.copytree(shared, tmp_path / 'data')
    opened = partial(RecordSource, out / 'split1', 'train')
    with pytest.raises(UserError, match='holds the data sets split1, split2, split3, store: name one of them'):
        RecordSource(out, 'train')
    with pytest.raises(UserError, match='is not empty and was not written by this command'):
        prepare(tree, out, 1)
    with pytest.raises(UserError, match='is not empty and was not written by this command'):
        prepare(tree, out / 'split1', 'all')
    run(build_parser().parse_args(['verify', str(out / 'split1')]))
    assert 'videos: 5 records of 6' in (said := capsys.readouterr().out) and 'train: 3 records of 4' in said
    shard = next((out / 'store').glob('*.tfrecord-*'))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    opened()  # frames have checksums of their own
    with pytest.raises(UserError, match='checksum'):
        run(build_parser().parse_args(['verify', str(out / 'split1')]))
    shutil.rmtree(out / 'store')
    with pytest.raises(UserError, match='store.*does not exist'):
        opened()
    prepare(tree, tmp_path / 'alone', 1)
    run(build_parser().parse_args([
        'ucf101', f'--videos={tree / "videos"}', f'--splits={tree / "lists"}', '--split=all', '--short_side=24',
        '--workers=1', f'--out={tmp_path / "other"}']))
    shutil.copytree(tmp_path / 'other' / 'store', out / 'store')
    with pytest.raises(UserError, match='is not the data set that .* was made of'):
        opened()
