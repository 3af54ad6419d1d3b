"""AVA: clips cut by time, and the data set of keyframes."""

import json

import numpy as np
import pytest

from data_prep import ava as prep
from data_prep.__main__ import build_parser, run
from data_prep.cut import cut_clip
from tests.data_prep.videos import write_video
from vididi_jax.data.source import RecordSource
from vididi_jax.detection import ava
from vididi_jax.detection.keyframes import open_keyframes
from vididi_jax.errors import UserError

BITS = 9
BOX = '0.1,0.2,0.5,0.9'


def numbered(count):
    """Frames that show their own number in black and white blocks: uint8 (count, 32, 16 * BITS, 3)."""
    bits = np.arange(count)[:, None] >> np.arange(BITS) & 1
    return np.broadcast_to((255 * bits).repeat(16, axis=1)[:, None, :, None].astype(np.uint8),
                           (count, 32, 16 * BITS, 3)).copy()


def read_numbers(pixels):
    """The inverse of `numbered`, (T,)."""
    blocks = pixels[:, 8:24, :, 1].reshape(len(pixels), 16, BITS, 16)[..., 4:12].mean((1, 3))
    return (blocks > 128) @ (1 << np.arange(BITS))


def numbers(clip):
    return read_numbers(np.stack([np.frombuffer(f, np.uint8).reshape(32, 16 * BITS, 3) for f in clip.frames]))


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """Two films of 12 seconds, with 25 and with 30 frames a second, and one that is no film."""
    root = tmp_path_factory.mktemp('films')
    write_video(root / 'slow.mp4', numbered(300), codec='libx264', rate=25)
    write_video(root / 'fast.mkv', numbered(360), codec='mpeg4', rate=30)
    write_video(root / 'other.avi', numbered(100), codec='mpeg4', rate=10)
    (root / 'broken.mp4').write_bytes(b'not a video' * 50)
    return root


@pytest.mark.parametrize(('name', 'rate'), [('slow.mp4', 25), ('fast.mkv', 30), ('other.avi', 10)])
@pytest.mark.parametrize('second', [1, 4, 8.5])
def test_each_frame_is_the_one_shown_at_its_time(videos, name, rate, second):
    clip = cut_clip(videos / name, second, 12.5, 16, 32, 'raw')
    times = second + (np.arange(16) - 8) / 12.5
    expected = np.floor(times * rate + 0.02)  # a time stamp in milliseconds may be half of one early
    np.testing.assert_array_equal(numbers(clip), expected)
    assert (clip.height, clip.width, clip.fps, clip.reason) == (32, 16 * BITS, 12.5, '')


@pytest.mark.parametrize('name', ['slow.mp4', 'fast.mkv'])
def test_beyond_the_ends_the_last_frame_is_repeated_and_counted(videos, name):
    last = {'slow.mp4': 299, 'fast.mkv': 359}[name]
    clip = cut_clip(videos / name, 0, 5, 10, 32, 'raw')
    assert numbers(clip)[:6].tolist() == [0] * 6 and numbers(clip)[6] > 0
    assert clip.reason == '5 of 10 frames lie before its start and repeat the first frame'
    clip = cut_clip(videos / name, 11.5, 5, 10, 32, 'raw')
    assert numbers(clip)[-2:].tolist() == [last] * 2 and clip.reason.startswith('2 of 10 frames lie after its end')


@pytest.mark.parametrize('second', [12, 12.5, 900, -1])
@pytest.mark.parametrize('name', ['slow.mp4', 'fast.mkv'])
def test_a_moment_outside_the_video_is_broken(videos, name, second):
    clip = cut_clip(videos / name, second, 5, 4, 32, 'raw')
    assert not clip.frames and f'the keyframe at {second:.2f} s is outside its video' in clip.reason


def test_a_file_that_is_no_video_is_broken(videos):
    assert 'decoding failed around 1.00 s' in cut_clip(videos / 'broken.mp4', 1, 5, 4, 32, 'raw').reason


def prepare(*arguments):
    run(build_parser().parse_args([str(a) for a in arguments]))


@pytest.fixture
def command(videos, tmp_path):
    """write(name=text) -> the command line; every file but the annotations is optional."""
    def write(**files):
        texts = {'train': f'slow,0903,{BOX},2,0\nslow,0903,{BOX},5,0\nslow,0905\nslow,0906,{BOX},2,0\n',
                 'test': f'fast,0904,{BOX},2,0\nfast,0904,0,0,1,1,5,1\nfast,0915,{BOX},7,0\n',
                 'label_map': '2: sit\n5: stand\n', **files}
        for name, text in texts.items():
            (tmp_path / name).write_text(text)
        return ['ava', f'--videos={videos}', f'--out={tmp_path / "out"}', '--workers=1', '--short_side=32',
                '--starts_at=900', '--frames=8', '--fps=10', *(f'--{name}={tmp_path / name}' for name in texts)]

    return write


def test_the_data_set_has_a_clip_for_each_keyframe(command, tmp_path, capsys):
    prepare(*command(excluded_train='slow,0906\n', boxes_train=f'slow,0903,{BOX},,0.9\nslow,0903,0,0,1,1.1,,0.7\n'
                                                               f'slow,0906,{BOX},,0.95\nslow,0905,0.1,0,0.1,1,,0.9\n',
                     evaluated_label_map='5: stand\n'))
    printed = capsys.readouterr().out
    assert 'train: 3 keyframes of 1 videos listed, 1 of them excluded, 1 without boxes; 2 boxes with 3 act' in printed
    assert 'test: 2 keyframes of 1 videos listed, 0 of them excluded, 0 without boxes; 3 boxes with 3 act' in printed
    assert '1 of them not in the label map' in printed and '2 of 2 listed videos found' in printed
    assert '3 of 4 detected boxes have a score of at least 0.8, 1 of them have no area and are left out' in printed
    assert '1 of 2 keyframes have one, and 1 boxes' in printed and '1 of 2 classes count in evaluation' in printed
    out = tmp_path / 'out'
    train, test = (RecordSource(out, split) for split in ('train', 'test'))
    assert [row['id'] for row in train.rows] == ['slow,0903', 'slow,0905']
    assert train.rows[0]['group'] == 'slow' and train.rows[0]['fps'] == 10
    pixels = train[0].frames(range(8)).astype(float)
    np.testing.assert_array_equal(read_numbers(pixels), np.floor((3 + (np.arange(8) - 4) / 10) * 25 + 0.02))
    assert [row['id'] for row in test.rows] == ['fast,0904'] and test.counts['broken'] == 1
    broken = [json.loads(line) for line in (out / 'manifest.jsonl').read_text().splitlines()][-1]
    assert broken['id'] == 'fast,0915' and 'the keyframe at 15.00 s is outside its video' in broken['reason']
    assert 'broken: fast,0915' in printed
    truth = open_keyframes(train)
    assert truth.labels[:, 0].tolist() == [[True, True], [False, False]] and truth.mask.tolist() == [[True], [False]]
    detected = open_keyframes(train, 'boxes')
    assert detected.mask.tolist() == [[True], [False]] and detected.score[0, 0] == np.float32(0.9)
    assert ava.read_label_map(out / 'label_map_evaluated.pbtxt') == {5: 'stand'}
    assert ava.read_exclusions(out / 'excluded_train.csv') == {('slow', 906)}
    assert open_keyframes(test).counts['keyframes_without_record'] == 1


def test_keyframes_before_the_cut_are_broken(command, tmp_path):
    prepare(*command(train=f'slow,0899,{BOX},2,0\nslow,0902,{BOX},2,0\n'))
    first = json.loads((tmp_path / 'out' / 'manifest.jsonl').read_text().splitlines()[0])
    assert first['status'] == 'broken' and first['reason'].endswith('which starts at 900 s')


def test_a_keyframe_at_the_cut_and_a_score_that_is_just_enough_count(command, tmp_path):
    prepare(*command(train=f'slow,0900,{BOX},2,0\n', boxes_train=f'slow,0900,{BOX},,0.8\n'))
    train = RecordSource(tmp_path / 'out', 'train')
    assert [row['id'] for row in train.rows] == ['slow,0900'] and read_numbers(train[0].frames([4])).tolist() == [0]
    assert open_keyframes(train, 'boxes').mask.all()


def test_videos_are_found_by_their_names_of_which_there_is_one_each(command, videos, tmp_path):
    (tmp_path / 'films').mkdir()
    for name, old in (('slow.MP4', 'slow.mp4'), ('fast.mkv', 'fast.mkv')):
        (tmp_path / 'films' / name).symlink_to(videos / old)
    arguments = build_parser().parse_args([*command(), f'--videos={tmp_path / "films"}'])
    assert {video.path for video in prep.plan(arguments)[0].videos} == {'slow.MP4', 'fast.mkv'}
    (tmp_path / 'films' / 'slow.avi').symlink_to(videos / 'slow.mp4')
    with pytest.raises(UserError, match='two files of the video slow: slow.MP4 and slow.avi'):
        prep.plan(arguments)


@pytest.mark.parametrize('flag', ['--fps=0', '--frames=0', '--starts_at=-1'])
def test_clips_of_nothing_are_refused(command, flag):
    with pytest.raises(UserError, match='ava needs --fps above 0'):
        prepare(*command(), flag)


def test_another_label_map_is_another_data_set(command):
    prepare(*command())
    with pytest.raises(UserError, match='other options'):
        prepare(*command(label_map='2: sit\n'))


@pytest.mark.parametrize(('files', 'message'), [
    ({'train': f'slow,0903,{BOX},2,0\nslow,0904,0.1,0.2,0.5\n'}, "train, line 2: 'slow,0904,0.1,0.2,0.5': it has 5"),
    ({'test': f'slow,0903,{BOX},2,0\n'}, 'the video slow is in both'),
    ({'test': f'gone,0903,{BOX},2,0\n'}, '1 of 2 videos are missing .* .the first: gone'),
    ({'boxes_test': f'fast,0904,{BOX},,\n'}, 'boxes without a score .the first: fast,0904'),
    ({'boxes_test': f'fast,0904,{BOX},,0.9\nfast,0915,{BOX},,\n'}, 'boxes without a score .the first: fast,0915'),
    ({'excluded_test': 'fast,0904\nfast,0915'}, 'no keyframe that is not excluded'),
    ({'train': f'slow,0903,{BOX},,0\n'}, 'train, line 1: .*the action is empty'),
    ({'evaluated_label_map': '5: stand\n6: run\n'}, 'has the class 6 .1 in all. that .* lacks'),
])
def test_wrong_input_is_refused_before_anything_is_decoded(command, tmp_path, files, message):
    with pytest.raises(UserError, match=message):
        prepare(*command(**files))
    assert not (tmp_path / 'out').exists()


def test_missing_videos_can_be_allowed(command, tmp_path):
    prepare(*command(test=f'gone,0903,{BOX},2,0\nfast,0904,{BOX},2,0\n'), '--allow_missing')
    assert RecordSource(tmp_path / 'out', 'test').counts == {'listed': 2, 'ok': 1, 'missing': 1, 'broken': 0}


@pytest.mark.realdata
def test_a_real_film_is_cut(vididi_data):
    """340 x 256, 57 frames, 6 a second."""
    path = vididi_data / 'ava' / 'demo_spatiotemporal_det.mp4'
    clip = cut_clip(path, 5, 6, 9, 64, 'jpeg')
    assert len(clip.frames) == 9 and len(set(clip.frames)) == 9 and (clip.height, clip.width) == (64, 85)
    assert 'outside its video, which has 9.5' in cut_clip(path, 10, 6, 9, 64, 'jpeg').reason
