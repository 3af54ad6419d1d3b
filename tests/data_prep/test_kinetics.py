"""Kinetics' official lists on made-up trees, parts that are drawn from them, and real files."""

import csv

import numpy as np
import pytest

from data_prep import kinetics
from data_prep.__main__ import build_parser, run
from data_prep.decode import decode_video
from tests.data_prep.videos import levels, pixels, write_video
from vididi_jax.errors import UserError

HEAD = ('label', 'youtube_id', 'time_start', 'time_end', 'split', 'is_cc')


def write_list(path, *rows, split='train', head=HEAD):
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerows([head, *((*row, split, 0)[:len(head)] for row in rows)])
    return path


def arguments(videos, *flags):
    return build_parser().parse_args(
        ['kinetics', f'--videos={videos}', '--out=unused', '--short_side=32', *map(str, flags)])


def made_up(classes=5, videos=20):
    """Rows of a list."""
    return [(f'class {c}', f'{c:02d}_-video{v:02d}', 10 * v, 10 * v + 10)
            for c in range(classes) for v in range(videos)]


def ids(part):
    return {video.id for video in part}


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_a_replacement_is_read_instead_of_what_it_replaces(tmp_path, capsys):
    rows = made_up(1, 3)
    names = ('train/00_-video00_000000_000010.mp4', 'Replacement_for_corrupted_k400/00_-video00.mp4',
             'train/00_-video01_000010_000020.mp4', 'replacement/x/00_-video01_000010_000020.mp4',
             'train/00_-video02_000020_000030.mp4')
    for name in names:
        touch(tmp_path / 'videos' / name)
    path = write_list(tmp_path / 'train.csv', *rows)
    plan, _ = kinetics.plan(arguments(tmp_path / 'videos', f'--train={path}'))
    assert [video.path for video in plan.videos] == [names[1], names[3], names[4]]
    assert '2 of them are in folders replacement...' in capsys.readouterr().out


def test_files_are_found_under_all_their_names(tmp_path, capsys):
    rows = made_up(2, 3)
    names = ('class 0/00_-video00_000000_000010.mp4', 'train/00_-video01_10_20.mkv', '00_-video02.webm',
             'deep/er/class_1/01_-video00_000000_000010.mp4', 'other/01_-video00_000000_000010.mp4',
             'val/01_-video01.mp4', 'train/01_-video01.mp4', 'unlisted_000001_000011.mp4')
    for name in names:
        touch(tmp_path / 'videos' / name)
    path = write_list(tmp_path / 'train.csv', *rows)
    with pytest.raises(UserError, match=r'1 of 6 videos are missing .*01_-video02_000020_000030'):
        kinetics.plan(arguments(tmp_path / 'videos', f'--train={path}'))
    plan, _ = kinetics.plan(arguments(tmp_path / 'videos', f'--train={path}', '--allow_missing'))
    assert {video.id: video.path for video in plan.videos} == dict(zip(
        ('00_-video00_000000_000010', '00_-video01_000010_000020', '00_-video02_000020_000030',
         '01_-video00_000000_000010', '01_-video01_000010_000020'), (*names[:4], names[6]), strict=True))
    assert [video.id for video in plan.missing] == ['01_-video02_000020_000030']
    assert plan.label_names == ('class 0', 'class 1') and {video.group for video in plan.videos[:1]} == {'00_-video00'}
    assert 'train: 5 of 6 listed videos found, 1 missing\n3 other video files' in capsys.readouterr().out


def test_of_two_files_the_one_in_the_folder_of_its_class_is_read_whatever_its_case(tmp_path):
    path = write_list(tmp_path / 'train.csv', ('Riding a Bike', 'abc', 0, 10), ('Riding a Bike', 'xyz', 0, 10),
                      ('run', 'r', 0, 10))
    (tmp_path / 'classes.txt').write_text('Riding a Bike\n')
    for folder in ('other', 'riding_a_bike'):
        touch(tmp_path / 'videos' / folder / 'abc.mp4')
    flags = f'--train={path}', f'--classes={tmp_path / "classes.txt"}'
    with pytest.raises(UserError, match='1 of 2 videos are missing'):  # of those that are asked for
        kinetics.plan(arguments(tmp_path / 'videos', *flags))
    plan, _ = kinetics.plan(arguments(tmp_path / 'videos', *flags, '--allow_missing'))
    assert [video.path for video in plan.videos] == ['riding_a_bike/abc.mp4']


def test_a_file_that_may_be_two_is_refused(tmp_path):
    path = write_list(tmp_path / 'train.csv', *made_up(1, 1))
    for folder in 'ab':
        touch(tmp_path / 'videos' / folder / '00_-video00.mp4')
    with pytest.raises(UserError, match='may be a/00_-video00.mp4 or b/00_-video00.mp4'):
        kinetics.plan(arguments(tmp_path / 'videos', f'--train={path}'))


def test_what_is_drawn_depends_on_the_lists_and_the_seed_alone(tmp_path):
    listed = kinetics.read_list(write_list(tmp_path / 'train.csv', *made_up()), 'train')
    listed += kinetics.read_list(write_list(tmp_path / 'val.csv', ('class 3', 'v', 0, 10), ('class 4', 'w', 0, 10),
                                            split='validate'), 'val')

    def draw(*flags):
        return kinetics.draw(listed, arguments('', *flags))

    assert draw() == listed
    with pytest.raises(UserError, match='seed'):
        draw('--seed=-1')
    halves = {seed: draw('--fraction=0.5', f'--seed={seed}') for seed in (0, 1)}
    assert halves[0] == draw('--fraction=0.5') != halves[1]
    assert ids(draw('--fraction=0.1')) < ids(halves[0]) < ids(listed)
    assert ids(kinetics.draw(listed[::-1], arguments('', '--fraction=0.5'))) == ids(halves[0])
    for half in halves.values():
        labels = [video.label for video in half if video.split == 'train']
        assert [labels.count(f'class {c}') for c in range(5)] == [10] * 5
    for share, each in ((0.01, 1), (0.13, 3)):  # of 20 videos: never none, and rounded
        labels = [video.label for video in draw(f'--fraction={share}') if video.split == 'train']
        assert [labels.count(f'class {c}') for c in range(5)] == [each] * 5
    three = draw('--number_of_classes=3', '--train_videos=17')
    assert len({video.label for video in three if video.split == 'train'}) == 3
    assert sum(video.split == 'train' for video in three) == 17
    part = [video.label for video in draw('--fraction=0.8', '--train_videos=40') if video.split == 'train']
    assert len(part) == 40 and all(4 <= part.count(f'class {c}') <= 12 for c in range(5))
    (tmp_path / 'classes.txt').write_text('class 3\nclass 1\n')
    named = draw(f'--classes={tmp_path / "classes.txt"}')
    assert {video.label for video in named} == {'class 1', 'class 3'} and len(named) == 41
    (tmp_path / 'other.txt').write_text('class 1\nclass 3\n')  # the order of a file is none
    drawn = [draw(f'--classes={tmp_path / name}', '--number_of_classes=1', f'--seed={seed}')
             for seed in range(6) for name in ('classes.txt', 'other.txt')]
    assert drawn[::2] == drawn[1::2] and len({part[0].label for part in drawn}) == 2
    (tmp_path / 'twice.txt').write_text('class 3\nclass 3\n')
    for flags, match in ((('--number_of_classes=6',), 'from 1 to 5'), (('--fraction=0',), 'above 0'),
                         (('--paper_subset',), 'number_of_classes must be from 1 to 5'),
                         (('--train_videos=101',), 'from 1 to 100'),
                         ((f'--classes={tmp_path / "twice.txt"}', '--number_of_classes=2'), 'from 1 to 1[.]'),
                         ((f'--classes={tmp_path / "none.txt"}',), 'none.txt cannot be read .*: --classes must name')):
        with pytest.raises(UserError, match=match):
            draw(*flags)


def test_the_papers_subset_is_200_classes_and_40000_videos(tmp_path):
    listed = [kinetics.Video(f'{c}_{v}_0_10', '', f'class {c}', f'{c}_{v}', 'train')
              for c in range(400) for v in range(210)]
    part = kinetics.draw(listed, arguments('', '--paper_subset'))
    assert len(part) == 40_000 and len({video.label for video in part}) == 200
    part = kinetics.draw(listed, arguments('', '--paper_subset', '--train_videos=1000'))  # what is said besides counts
    assert len(part) == 1000 and 150 < len({video.label for video in part}) <= 200


@pytest.mark.parametrize(('row', 'match'), [
    (('', 'a', 0, 10), 'line 3: there is no label'), (('x', 'a', 10, 10), 'no whole seconds in ascending'),
    (('x\ny', 'a', 0, 10), 'line 4: the label .* control character'), (('.', 'a', 0, 10), 'without a label'),
    (('x', 'a', -1, 10), 'no whole seconds'), (('x', 'a', 1.5, 10), 'no whole seconds'),
    (('x', 'a', 0, 5000 * '9'), 'line 3: a time of 5,000 characters is no whole .* of at most 9 digits'),
    (('class 0', '00_-video00', 0, 10), 'listed twice')])
def test_a_row_that_is_none_is_named(tmp_path, row, match):
    with pytest.raises(UserError, match=match):
        kinetics.read_list(write_list(tmp_path / 'train.csv', *made_up(1, 1), row), 'train')


def test_lists_that_do_not_fit_are_refused(tmp_path):
    train = write_list(tmp_path / 'train.csv', *made_up(1, 2))
    text = train.read_text()
    train.write_text(text + '\n\n"class 0,x,0,10,train,0\n' + text)
    with pytest.raises(UserError, match='the row that begins in line 4: unexpected end of data'):
        kinetics.read_list(train, 'train')
    train.write_text(text + '\n\nclass 0,x,10,0,train,0\n')
    with pytest.raises(UserError, match='line 6: 10 to 0 are no whole seconds'):
        kinetics.read_list(train, 'train')
    train.write_text(text)
    with pytest.raises(UserError, match="of split 'train' is in the list of --val"):
        kinetics.read_list(train, 'val')
    with pytest.raises(UserError, match='there is no time_start'):
        kinetics.read_list(write_list(tmp_path / 'short.csv', ('x', 'a'), head=HEAD[:2]), 'train')
    with pytest.raises(UserError, match='give at least one list'):
        kinetics.plan(arguments(tmp_path))
    val = write_list(tmp_path / 'val.csv', ('class 0', '00_-video00', 50, 60), split='val')
    with pytest.raises(UserError, match='of train and of val have clips of the video 00_-video00'):
        kinetics.plan(arguments(tmp_path, f'--train={train}', f'--val={val}'))


def test_clips_are_cut_out_of_whole_videos(tmp_path, capsys):
    write_video(tmp_path / 'videos' / 'class 0' / 'abc_-defghi.mp4', levels(60), rate=20, g='7')
    path = write_list(tmp_path / 'train.csv', ('class 0', 'abc_-defghi', 1, 3), ('class 0', 'abc_-defghi', 2, 12),
                      ('class 0', 'abc_-defghi', 5, 15))
    flags = f'--train={path}', '--whole', '--encoding=raw', f'--out={tmp_path / "out"}', '--workers=1'
    run(arguments(tmp_path / 'videos', *flags))
    out = capsys.readouterr().out
    assert 'train: 2 videos (60 frames) of 3 listed; 0 missing, 1 broken; 1 shorter than listed\n' in out
    assert 'ok: abc_-defghi_000002_000012: 1.0 s of the listed 10 s' in out and '\n0 other video files' in out
    plan, decode = kinetics.plan(arguments(tmp_path / 'videos', *flags))
    found = pixels(decode(plan.videos[0])).mean((1, 2, 3))
    np.testing.assert_allclose(found, 4 * np.arange(20, 60), atol=2)  # levels of gray, after a lossy codec


def test_whole_videos_are_not_taken_for_clips(tmp_path):
    write_video(tmp_path / 'videos' / 'abc.mp4', levels(60), rate=20)
    rows = ('class 0', 'abc', 1, 2), ('class 1', 'abc', 2, 3)
    plan, decode = kinetics.plan(arguments(tmp_path / 'videos', f'--train={write_list(tmp_path / "one.csv", rows[0])}'))
    assert decode(plan.videos[0]).reason == 'it has 3.0 s, and 1 s are listed: whole videos want --whole'
    with pytest.raises(UserError, match='abc.mp4 would be abc_000001_000002 and abc_000002_000003: whole videos'):
        kinetics.plan(arguments(tmp_path / 'videos', f'--train={write_list(tmp_path / "two.csv", *rows)}'))


def test_what_is_odd_about_a_clip_is_told_beside_its_length(tmp_path, monkeypatch):
    write_video(tmp_path / 'videos' / 'abc.mp4', levels(60), rate=20)
    path = write_list(tmp_path / 'train.csv', ('class 0', 'abc', 0, 10))
    plan, decode = kinetics.plan(arguments(tmp_path / 'videos', f'--train={path}'))
    monkeypatch.setattr(kinetics, 'decode_video', lambda *_: decode_video(*_)._replace(reason='it is odd'))
    assert decode(plan.videos[0]).reason == 'it is odd; 3.0 s of the listed 10 s'


@pytest.mark.realdata
def test_the_official_lists_and_real_files(vididi_data, tmp_path):
    lists = vididi_data / 'splits' / 'kinetics'
    val = kinetics.read_list(lists / 'kinetics-400_val.csv', 'val')
    assert len(val) == 19_906 and len({video.label for video in val}) == 400
    assert val[0].id == '0wR5jVB-WPk_000417_000427'
    assert len(kinetics.read_list(lists / 'tiny_k400_train.csv', 'train')) == 400
    path = write_list(tmp_path / 'train.csv', ('using segway', 'R6llTwEh07w', 5, 15),
                      ('using segway', 'SOX5yA1l24A', 0, 20))
    plan, decode = kinetics.plan(arguments(vididi_data / 'kinetics', f'--train={path}'))
    first, second = map(decode, plan.videos)
    assert len(first.frames) == 303 and not first.reason
    assert len(second.frames) == 332 and second.reason == '11.1 s of the listed 20 s'


def test_a_list_of_classes_may_begin_with_a_mark(tmp_path):
    (tmp_path / 'classes.txt').write_text('class 1\n', encoding='utf-8-sig')
    rows = made_up(2, 2)
    for row in rows:
        touch(tmp_path / 'videos' / f'{row[1]}.mp4')
    path = write_list(tmp_path / 'train.csv', *rows)
    plan, _ = kinetics.plan(arguments(
        tmp_path / 'videos', f'--train={path}', f'--classes={tmp_path / "classes.txt"}'))
    assert plan.label_names == ('class 1',) and len(plan.videos) == 2


def test_classes_are_drawn_by_the_seed():
    videos = [kinetics.Video(f'{c}_{v}_0_10', '', f'class {c}', f'{c}_{v}', 'train') for c in range(8) for v in (0, 1)]

    def classes(seed):
        drawn = kinetics.draw(videos, arguments('x', '--number_of_classes=3', f'--seed={seed}'))
        return frozenset(video.label for video in drawn)

    assert classes(0) == classes(0) and {len(classes(seed)) for seed in range(4)} == {3}
    assert len({classes(seed) for seed in range(4)}) > 1
