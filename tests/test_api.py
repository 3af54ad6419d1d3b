"""What scripts and notebooks call: configs by name, training, evaluation, video files."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import vididi_jax
from data_prep.__main__ import build_parser, run
from tests.data_prep.videos import ramp, write_video
from vididi_jax import api
from vididi_jax.errors import UserError
from vididi_jax.evaluate.features import video_features
from vididi_jax.evaluate.views import Views
from vididi_jax.train.encoder import trained_encoder
from vididi_jax.train.run import workdir_config

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning')


@pytest.fixture(scope='module')
def folder(vididi_data, tmp_path_factory):
    """Two real videos of different shapes, and a data set of them."""
    root = tmp_path_factory.mktemp('folder')
    (root / 'videos').mkdir()
    for name in ('kth', 'ut_interaction'):
        video = next(path for path in sorted((vididi_data / name).rglob('*')) if path.suffix in ('.avi', '.mp4'))
        (root / 'videos' / video.name).symlink_to(video)
    run(build_parser().parse_args(['folder', f'--videos={root / "videos"}', f'--out={root / "data"}', '--workers=1']))
    return root


@pytest.mark.realdata
def test_a_video_file_has_the_features_of_its_record(folder, finished):
    """The same decoder, frames and crops as `data_prep folder` and `features`; float32 sums over clips differ."""
    from vididi_jax.data.source import RecordSource

    source, encode = RecordSource(folder / 'data', 'train'), vididi_jax.load_encoder(finished[0])
    training = workdir_config(finished[0])
    expected = video_features(
        trained_encoder(training, str(finished[0]), 'latest'), source, orders=(0, 1), workers=0,
        cache=folder / 'cache',
        views=Views(clips=3, frames=training.clip.frames, stride=training.clip.stride, crops='centre', seed=0))
    for number, row in enumerate(source.rows):
        path = folder / 'videos' / row['path']
        clips = vididi_jax.read_clips(path, clips=2, frames=4, stride=5)
        assert clips.shape == (2, 4, source.sizes[number, 0], source.sizes[number, 1], 3)
        np.testing.assert_array_equal(clips[0], source[number].frames([0, 5, 10, 15]))
        for order in (0, 1):
            np.testing.assert_allclose(vididi_jax.encode_video(path, encode, clips=3, order=order),
                                       expected[order][number], rtol=1e-4, atol=1e-5)


class Encode:
    """What `load_encoder` gives, as far as `encode_video` asks."""

    frames, stride = 8, 1

    def __init__(self, size, share):
        self.encoder = SimpleNamespace(augment=SimpleNamespace(size=size, centre_fraction=share))

    def __call__(self, clips, order):
        return clips


def test_frames_are_as_large_as_an_encoder_wants_its_crops(monkeypatch):
    asked = []
    monkeypatch.setattr(api, 'read_clips', lambda path, **options: asked.append(options['short_side']) or np.ones(1))
    for encode in (Encode(112, 0.875), Encode(224, 0.875), Encode(150, 0.875), Encode(16, 1.0)):
        api.encode_video('a.mp4', encode)
    api.encode_video('a.mp4', encode, short_side=64)
    assert asked == [128, 256, 172, 128, 64]


def test_training_and_evaluation_are_functions(finished, tiny_config, tmp_path):
    """Of a run that is complete: nothing is trained again, and the encoder comes back."""
    workdir = shutil.copytree(finished[0], tmp_path / 'work')
    encode = vididi_jax.pretrain(tiny_config, workdir, report=False)
    assert repr(encode) == (f'encode(clips, order=0): (N, T, H, W, 3) -> (N, 16) by r3d_18 of {workdir}, step 24, '
                            '16 x 16 pixels, trained on clips of 8 frames at stride 1')
    assert encode.__doc__.startswith('`encode(clips, order=0)`')
    config = vididi_jax.get_config('retrieval:motion')
    config.data.dir, config.data.workers = tiny_config.data.dir, 0
    metrics = vididi_jax.evaluate(config, workdir, report=False)
    assert set(metrics) == {'V', 'dV', 'd2V', 'joined'} and 0 <= metrics['V']['R@1'] <= 100


def test_a_config_file_may_be_a_path(root):
    assert vididi_jax.get_config(root / 'configs' / 'retrieval.py').task == 'retrieval'


def test_what_does_not_fit_is_a_sentence(finished, tiny_config, tmp_path):
    encode = vididi_jax.load_encoder(finished[0])
    (tmp_path / 'text.mp4').write_text('no video')
    for call, message in (
            (lambda: vididi_jax.get_config('nothing'), "'nothing' is no file and no config that comes with"),
            (lambda: vididi_jax.evaluate(tiny_config, finished[0]), "config.task is 'pretrain': this function takes"),
            (lambda: vididi_jax.pretrain(vididi_jax.get_config('retrieval'), tmp_path), "config.task is 'retrieval'"),
            (lambda: vididi_jax.pretrain('folder_vicreg', tmp_path), "config is 'folder_vicreg': give a config"),
            (lambda: vididi_jax.pretrain(tiny_config, None), 'workdir is None: give the folder'),
            (lambda: vididi_jax.load_encoder(''), 'source is empty'),
            (lambda: vididi_jax.load_encoder('~/run'), 'only shells expand ~'),
            (lambda: vididi_jax.read_clips('~/a.mp4'), 'only shells expand ~'),
            (lambda: vididi_jax.read_clips('none.mp4'), 'there is no file none.mp4'),
            (lambda: vididi_jax.read_clips(tmp_path / 'text.mp4'), 'text.mp4 cannot be read as a video'),
            (lambda: vididi_jax.read_clips('none.mp4', frames=0), 'must be at least 1'),
            (lambda: vididi_jax.read_clips('none.mp4', stride=0), 'must be at least 1'),
            (lambda: vididi_jax.read_clips('none.mp4', short_side=7), r'short_side \(7\) at least 8'),
            (lambda: vididi_jax.encode_video('my.mp4', str(finished[0])), 'give what load_encoder or pretrain gives'),
            (lambda: vididi_jax.encode_video('my.mp4', encode, frames=0), 'must be at least 1'),
            (lambda: encode('my.mp4'), r'my.mp4 is a name: vididi_jax.encode_video\(path, encode\) takes')):
        with pytest.raises(UserError, match=message):
            call()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vididi_jax.nothing  # noqa: B018


def test_clips_of_a_file_are_as_small_and_as_long_as_asked(tmp_path):
    write_video(tmp_path / 'a.mp4', ramp(20))
    assert api.read_clips(tmp_path / 'a.mp4', short_side=24).shape == (1, 8, 24, 32, 3)

    def encode(clips, order):
        seen.append((clips.shape, order))
        return np.ones((len(clips), 2))

    encode.frames, encode.stride, seen = 8, 1, []
    encode.encoder = SimpleNamespace(augment=SimpleNamespace(size=16, centre_fraction=1.0))
    api.encode_video(tmp_path / 'a.mp4', encode, clips=3, frames=5, stride=2, order=1, short_side=24)
    assert seen == [((3, 5, 24, 32, 3), 1)]


def test_stride_and_frames_that_are_asked_for_count_more(monkeypatch):
    asked = []
    monkeypatch.setattr(api, 'read_clips', lambda path, **options: asked.append(options) or np.ones(1))
    encode = lambda clips, order: clips  # noqa: E731
    encode.frames, encode.stride = 8, 1
    api.encode_video('a.mp4', encode, clips=3, frames=5, stride=2, short_side=24)
    encode.stride = None  # of a file of weights
    with pytest.raises(UserError, match='does not say on which clips it was trained: give stride'):
        api.encode_video('a.mp4', encode, frames=5)
    assert asked == [dict(clips=3, frames=5, stride=2, short_side=24)]
