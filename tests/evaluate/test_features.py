"""Views of videos, and the cache of features."""

import json
import logging
import shutil
from argparse import Namespace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import features as features_config
from data_prep import motion
from data_prep.writer import write_dataset
from tests.compiled.inputs import Small
from tests.data_sets import edit_rows
from tests.evaluate.test_protocol import edit
from vididi_jax.api import evaluate, get_config
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.evaluate import features
from vididi_jax.evaluate.features import FeatureFunction
from vididi_jax.evaluate.views import average_over_views
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.pixels.crops import evaluation_crops
from vididi_jax.train.encoder import Encoder, trained_encoder
from vididi_jax.train.run import workdir_config, write_config

VIEWS = features.Views(clips=2, frames=4, stride=2, crops='centre', seed=0)


@pytest.fixture(scope='module')
def encoder():
    """One convolution."""
    module = Small(2, jnp.dtype(jnp.float32))
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 4, 16, 16, 3)))
    return Encoder(module, variables, Augmentation(size=16), step=1)


@pytest.fixture
def extractions(monkeypatch):
    """How often views are really computed."""
    calls = []
    compute = features.average_over_views
    monkeypatch.setattr(features, 'average_over_views',
                        lambda *args, **options: calls.append(args[0].orders) or compute(*args, **options))
    return calls


def extract_features(encoder, data, cache, orders=(0, 1), split='test', views=VIEWS):
    return features.video_features(encoder, RecordSource(data, split), orders=orders, views=views, workers=0,
                                   cache=cache)


def test_features_are_the_mean_over_clips_and_crops(encoder, tiny_motion, tmp_path):
    """Of the first video, clip by clip and crop by crop."""
    views = VIEWS._replace(crops='three')
    got = extract_features(encoder, tiny_motion, tmp_path, views=views)
    frames = RecordSource(tiny_motion, 'test')[0].frames(range(24))
    clips = np.stack([frames[0:8:2], frames[17:25:2]])  # the first, and the last that fits
    crops = evaluation_crops(None, clips, jnp.full((2, 2), 16), encoder.augment, 'three')
    expected = jax.jit(lambda x: encoder.module.apply(encoder.variables, x))(crops.reshape(-1, *crops.shape[2:]))
    np.testing.assert_allclose(got[0][0], np.asarray(expected).mean(0), rtol=1e-4, atol=1e-5)  # float32


def test_a_second_call_reads_what_the_first_one_computed(encoder, tiny_motion, tmp_path, extractions):
    first = extract_features(encoder, tiny_motion, tmp_path)
    again = extract_features(encoder, tiny_motion, tmp_path, orders=(0, 1, 2))
    assert extractions == [(0, 1), (2,)]  # only what was missing
    for order in (0, 1):
        np.testing.assert_array_equal(first[order], again[order])


def test_other_weights_data_or_views_are_computed_anew(encoder, tiny_motion, tmp_path, extractions):
    extract_features(encoder, tiny_motion, tmp_path / 'cache', (0,))
    moved = encoder._replace(variables=jax.tree.map(lambda x: x + 1, encoder.variables))
    other = shutil.copytree(tiny_motion, tmp_path / 'data')
    edit_rows(other, lambda i, row: row | {'group': 'one'})
    variants = [dict(encoder=moved), dict(data=other), dict(split='train'), dict(views=VIEWS._replace(stride=1)),
                dict(views=VIEWS._replace(crops='three')), dict(views=VIEWS._replace(crops='random')),
                dict(views=VIEWS._replace(crops='random', seed=1)),
                dict(encoder=encoder._replace(augment=Augmentation(size=16, centre_fraction=0.5))),
                dict(encoder=encoder._replace(module=Small(2, jnp.dtype(jnp.bfloat16))))]
    for changes in variants:
        extract_features(**dict(encoder=encoder, data=tiny_motion, cache=tmp_path / 'cache', orders=(0,)) | changes)
    assert len(extractions) == 1 + len(variants)
    extract_features(encoder, tiny_motion, tmp_path / 'cache', (0,), views=VIEWS._replace(seed=1))  # centre: no seed
    assert len(extractions) == 1 + len(variants)


def test_features_that_are_not_finite_are_refused_and_not_kept(encoder, tiny_motion, tmp_path):
    broken = encoder._replace(variables=jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), encoder.variables))
    with pytest.raises(UserError, match=r'features of \d+ of \d+ videos \(the first: .*\) are not finite'):
        extract_features(broken, tiny_motion, tmp_path)
    assert not list(tmp_path.rglob('*.npz'))


def test_other_code_devices_or_jax_compute_anew(encoder, tiny_motion, tmp_path, extractions, monkeypatch):
    extract_features(encoder, tiny_motion, tmp_path, (0,))
    for module, name, value in ((features, 'CODE', 'other'), (features, 'device', lambda: 'other'),
                                (jax, '__version__', 'other')):
        monkeypatch.setattr(module, name, value)
        extract_features(encoder, tiny_motion, tmp_path, (0,))
    assert len(extractions) == 4


def test_the_hash_of_the_code_changes_with_what_decides_features_alone(tmp_path, root):
    package = shutil.copytree(root / 'vididi_jax', tmp_path / 'vididi_jax')
    known = [features.code_hash(package)]
    assert known == [features.CODE]
    for name in ('train/loop.py', 'report/page.py', 'evaluate/retrieval.py'):
        (package / name).write_text('changed')
        assert features.code_hash(package) == known[0]
    for name in ('pixels/crops.py', 'models/resnet3d.py', 'derivatives.py', 'evaluate/features.py', 'evaluate/views.py',
                 'data/clips.py', 'data/pipeline.py', 'data/records.py'):
        (package / name).write_text((package / name).read_text() + '\n')
        known.append(features.code_hash(package))
    (package / 'models' / 'resnet3d.py').rename(package / 'models' / 'resnet.py')
    known.append(features.code_hash(package))
    assert len(set(known)) == len(known)


def test_a_damaged_file_is_noticed_and_computed_again(encoder, tiny_motion, tmp_path, extractions, caplog):
    first = extract_features(encoder, tiny_motion, tmp_path, (0,))
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        again = extract_features(encoder, tiny_motion, tmp_path, (0,))
    assert 'damaged' in caplog.text and len(extractions) == 2
    np.testing.assert_array_equal(first[0], again[0])
    np.savez(path, features=first[0][1:])
    np.testing.assert_array_equal(first[0], extract_features(encoder, tiny_motion, tmp_path, (0,))[0])


def crop_corners(sizes, crops, keys=None, fraction=0.5, size=8):
    """Top left corners that crops of a picture of coordinates start at; the scale is 1, so pixels are kept."""
    height, width = sizes
    side = round(fraction * min(sizes))
    assert side == size
    picture = np.stack(np.broadcast_arrays(np.arange(height)[:, None], np.arange(width), 0), axis=-1).astype(np.uint8)
    spec = Augmentation(size=size, centre_fraction=fraction, mean=(0, 0, 0), std=(1, 1, 1))
    out = evaluation_crops(keys, picture[None, None], jnp.array([sizes]), spec, crops)
    return [tuple(np.round(255 * np.asarray(crop[0, 0, 0, :2])).astype(int)) for crop in out[0]]


def test_three_crops_go_along_the_longer_side():
    assert crop_corners((16, 30), 'centre') == [(4, 11)]
    assert crop_corners((16, 30), 'three') == [(4, 0), (4, 11), (4, 22)]
    assert crop_corners((30, 16), 'three') == [(0, 4), (11, 4), (22, 4)]


def test_random_crops_reach_every_place():
    keys = jax.random.split(jax.random.key(0), 400)
    found = [corner for key in keys for corner in crop_corners((16, 17), 'random', key[None])]
    rows, columns = (np.bincount(values) for values in zip(*found, strict=True))
    assert len(rows) == 9 and len(columns) == 10 and min(*rows, *columns) > 10


def test_views_that_cannot_be_are_refused():
    config = features_config.get_config()
    config.eval.frames = 2
    with pytest.raises(UserError, match='no derivative of order 2'):
        features.read_views(config, (0, 2))
    config.eval.frames = 6
    features.read_views(config, (0, 1), 's3d')
    features.read_views(config, (0, 2), 'r3d_18')
    said = '^s3d takes clips of at least 5 frames, and derivatives of order 2 of clips of 6 have 4: raise config.eval.f'
    with pytest.raises(UserError, match=said):
        features.read_views(config, (0, 2), 's3d')


def test_clips_too_short_for_the_encoder_are_refused_before_anything_is_made(tiny_motion, tiny_boxes, tiny_config,
                                                                             tmp_path):
    tiny_config.model.name = 's3d'
    write_config(tiny_config, tmp_path)
    for name, data in (('retrieval', tiny_motion), ('finetune', tiny_motion), ('features', tiny_motion),
                       ('motion_detection', tiny_boxes)):
        config = get_config(f'{name}:smoke')
        config.data.dir, config.eval.untrained, config.eval.frames = str(data), True, 4
        with pytest.raises(UserError, match='s3d takes clips of at least 5 frames.* raise config.eval.frames'):
            evaluate(config, tmp_path, report=False)
    assert [path.name for path in tmp_path.iterdir()] == ['config.json']


def test_the_features_task_uses_what_there_is_and_says_so(finished, tmp_path, capsys):
    """One video of 'test' is broken, and one shorter than a clip."""
    plan, decode = motion.plan(Namespace(train=8, test=16, frames=24, size=16, seed=0))

    def decode_some(video):
        frames = {'motion_test_00002': 7, 'motion_test_00005': 0}.get(video.id)
        decoded = decode(video)
        return decoded._replace(frames=decoded.frames[:frames])

    write_dataset(plan, decode_some, tmp_path / 'data', workers=1)
    config = features_config.get_config('smoke')
    config.eval.split, config.eval.short_video, config.data.dir = 'test', 'drop', str(tmp_path / 'data')
    with np.load(features.run(config, str(shutil.copytree(finished[0], tmp_path / 'work')))) as file:
        counts = json.loads(str(file['about']))['counts']
        assert counts == counts | {'listed': 16, 'ok': 15, 'broken': 1, 'videos': 14, 'looped': 0, 'dropped': 1}
        assert list(file['ids']) == [f'motion_test_{i:05d}' for i in range(16) if i not in (2, 5)]
        assert len(file['V']) == len(file['dV']) == 14 and np.isfinite(file['V']).all()
    assert ("14 of 16 listed videos of split 'test' (0 missing, 1 broken, 0 looped, 1 dropped as too short), "
            '3 x 1 (centre) views, 3.0 different clips a video') in capsys.readouterr().out


def test_the_features_task_writes_ids_labels_and_counts(finished, tiny_motion, tmp_path, capsys):
    workdir = shutil.copytree(finished[0], tmp_path / 'work')
    encoder = trained_encoder(workdir_config(workdir), str(workdir))
    config = features_config.get_config('smoke')
    config.eval.split = 'test'
    with np.load(features.run(config, str(workdir))) as file:
        about = json.loads(str(file['about']))
        assert about['counts'] == {
            'listed': 16, 'ok': 16, 'missing': 0, 'broken': 0, 'videos': 16, 'looped': 0, 'dropped': 0,
            'clips_per_video': 3}
        assert about['seed'] == about['evaluation_seed'] == 0 and about['config']['eval']['split'] == 'test'
        assert {'commit', 'device', 'date'} <= set(about) and 'jax' in about['versions']
        assert about['checkpoint_step'] == 24 and about['encoder'] == encoder.fingerprint()
        rows = RecordSource(tiny_motion, 'test').rows
        assert list(file['ids']) == [row['id'] for row in rows]
        assert list(file['labels']) == [row['label'] for row in rows]
        expected = extract_features(encoder, tiny_motion, tmp_path / 'cache', (0, 1, 2),
                                    views=features.read_views(config, (0,)))
        for order, name in enumerate(('V', 'dV', 'd2V')):
            np.testing.assert_array_equal(file[name], expected[order])


def test_features_of_something_else_are_not_overwritten(small_run, tiny_motion, tmp_path):
    other = edit(tiny_motion, tmp_path / 'data', lambda i, row: row | {'group': f'{i}'})

    def config(**changes):
        found = features_config.get_config('smoke')
        found.eval.split = 'test'
        found.update_from_flattened_dict(changes)
        return found

    path = features.run(config(), str(small_run))
    before = path.read_bytes()
    for changes, what in (({'eval.split': 'train'}, 'split'), ({'eval.untrained': True}, 'encoder'),
                          ({'data.dir': other}, 'data set')):
        with pytest.raises(UserError, match=f'features of another {what}, which these would overwrite: set another'):
            features.run(config(**changes), str(small_run))
        assert path.read_bytes() == before
    path.write_bytes(before[:100])  # of a disk that was full
    features.run(config(), str(small_run))


def test_a_full_disk_is_named_and_keeps_no_part_of_a_file(small_run, tmp_path, monkeypatch):
    def full(file, **_arrays):
        file.write(b'a part')
        raise OSError(28, 'No space left on device')

    shutil.copytree(small_run, tmp_path / 'run', ignore=shutil.ignore_patterns('eval'))
    monkeypatch.setattr(np, 'savez', full)
    with pytest.raises(OSError) as found:
        features.run(features_config.get_config('smoke'), str(tmp_path / 'run'))
    assert Path(found.value.filename).parent == tmp_path / 'run' / 'eval' / 'cache'
    assert [path.name for path in (tmp_path / 'run' / 'eval').rglob('*')] == ['cache']


def test_features_are_those_of_their_ids(small_run, tiny_motion, tmp_path):
    config = features_config.get_config('smoke')
    config.data.dir = edit(tiny_motion, tmp_path / 'data', lambda i, row: row | ({'frames': 7} if i == 50 else {}))
    config.eval.split, found = 'test', {}
    for config.eval.short_video in ('loop', 'drop'):
        with np.load(features.run(config, str(small_run))) as file:
            found[config.eval.short_video] = dict(zip(file['ids'], file['dV'], strict=True))
    assert set(found['loop']) - set(found['drop']) == {'motion_test_00002'}
    for name, row in found['drop'].items():
        np.testing.assert_allclose(row, found['loop'][name], rtol=1e-5)  # in another row of the batch


def test_views_are_of_the_videos_that_are_asked_for(small_run, tiny_motion):
    encoder = trained_encoder(workdir_config(small_run), str(small_run))
    source = RecordSource(tiny_motion, 'test')

    def found(videos):
        views = features.Views(1, 4, 1, 'centre', 0)
        return average_over_views(
            FeatureFunction(encoder.module, (0,)), encoder.variables, source, np.array(videos), augment=encoder.augment,
            views=views, workers=0)[0]

    np.testing.assert_allclose(found([5, 2, 9]), found(range(16))[[5, 2, 9]], rtol=1e-5)  # other rows of a batch


def first_frame(variables, pixels):
    return {0: pixels[:, 0].reshape(len(pixels), -1)}


def test_random_crops_are_of_the_record_and_of_each_clip(tiny_motion, tmp_path):
    """Of videos whose clips are all the same eight frames: only their crops differ."""
    data = edit(tiny_motion, tmp_path / 'data', lambda i, row: row | {'frames': 8})
    source = RecordSource(data, 'test')

    def found(videos, clips):
        return average_over_views(
            first_frame, {}, source, np.array(videos), augment=Augmentation(size=8, centre_fraction=0.5),
            views=features.Views(clips, 8, 1, 'random', 0), workers=0)[0]

    once, twice = found(range(16), 1), found(range(16), 2)
    np.testing.assert_allclose(found([5, 2, 9], 1), once[[5, 2, 9]], atol=1e-5)  # in other rows of a batch
    assert (np.abs(once - twice).max(1) > 0.01).sum() > 12  # two of 81 crops are one in 81 times
