"""A folder whose splits, labels and groups are those of its folders or of a list."""

import io
import os
import sys

import pytest

from data_prep import folder
from data_prep.__main__ import build_parser
from data_prep.summary import summary
from data_prep.tree import check_missing
from vididi_jax.errors import UserError

FILES = 'train/run/a.mp4', 'train/run/b.mp4', 'val/run/c.mp4', 'val/jump high/d.mkv', 'val/e.avi'


@pytest.fixture
def plan(tmp_path):
    """Plans `data_prep folder` on FILES, which are empty, with further flags."""
    for name in FILES:
        path = tmp_path / 'videos' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def make(*flags):
        words = ['folder', f'--videos={tmp_path / "videos"}', '--out=unused', '--allow_missing', *flags]
        return folder.plan(build_parser().parse_args(words))[0]

    return make


def test_the_first_folder_is_the_split_and_the_rest_the_label(plan):
    assert {video.path: (video.split, video.label) for video in plan('--split_by_dir').videos} == {
        FILES[0]: ('train', 'run'), FILES[1]: ('train', 'run'), FILES[2]: ('val', 'run'),
        FILES[3]: ('val', 'jump high'), FILES[4]: ('val', '')}
    assert {video.split for video in plan().videos} == {'train'}
    assert plan().label_names == ('train/run', 'val', 'val/jump high', 'val/run')


def test_a_video_outside_of_a_split_is_refused(plan, tmp_path):
    (tmp_path / 'videos' / 'f.mp4').touch()
    with pytest.raises(UserError, match='f.mp4 lies in no folder of a split'):
        plan('--split_by_dir')
    (tmp_path / 'videos' / 'f.mp4').unlink()
    (tmp_path / 'videos' / 'a-b').mkdir()
    (tmp_path / 'videos' / 'a-b' / 'f.mp4').touch()
    with pytest.raises(UserError, match="a-b/f.mp4: 'a-b' is no name of a split"):
        plan('--split_by_dir')


def test_two_files_of_one_name_in_text_are_refused(plan, tmp_path):
    for name in (b'caf\xe9.mp4', b'caf\\xe9.mp4'):
        (tmp_path / 'videos' / os.fsdecode(name)).touch()
    with pytest.raises(UserError, match=r"b'caf\\\\xe9.mp4' and b'caf\\xe9.mp4', .* be called caf\\xe9.mp4: rename"):
        plan()


def test_a_list_says_label_group_and_split(plan, tmp_path, capsys):
    path = tmp_path / 'list.csv'
    path.write_text(f'path,label,group,split\n{FILES[3]},"jump, high",ann,test\n{FILES[0]},run,bob,\n'
                    'none.mp4,run,,val\n')
    found = plan(f'--list={path}')
    assert [(video.path, video.label, video.group, video.split) for video in found.videos] == [
        (FILES[3], 'jump, high', 'ann', 'test'), (FILES[0], 'run', 'bob', 'train')]
    assert [(video.path, video.split) for video in found.missing] == [('none.mp4', 'val')]
    assert found.label_names == ('jump, high', 'run')
    assert '3 listed, 1 of them missing; 3 video files are not listed' in capsys.readouterr().out
    path.write_text(f'path, split\n{FILES[1]}, test\n')
    assert plan(f'--list={path}').videos[0].split == 'test'
    path.write_text(f'path\n{FILES[1]}\n')
    (video,) = plan(f'--list={path}').videos
    assert (video.label, video.group, video.split) == ('', '', 'train')


def test_what_is_missing_is_refused_unless_allowed(plan, tmp_path):
    plan()
    videos = tmp_path / 'videos'
    words = ['folder', f'--videos={videos}', '--out=unused']
    (tmp_path / 'list.csv').write_text(f'path\n{FILES[1]}\nnone.mp4\n')
    with pytest.raises(UserError, match='1 of 2 videos are missing below .*none.mp4.*add --allow_missing'):
        folder.plan(build_parser().parse_args([*words, f'--list={tmp_path / "list.csv"}']))
    assert len(folder.plan(build_parser().parse_args(words))[0].videos) == len(FILES)
    (videos / 'gone.mp4').symlink_to('nowhere.mp4')
    with pytest.raises(UserError, match=f'1 of {len(FILES) + 1} videos are missing below .*gone.mp4'):
        folder.plan(build_parser().parse_args(words))


def test_a_class_whose_videos_are_all_missing_keeps_its_number(plan, tmp_path):
    (tmp_path / 'list.csv').write_text(f'path,label\n{FILES[0]},run\nnone.mp4,jump\n')
    assert plan(f'--list={tmp_path / "list.csv"}').label_names == ('jump', 'run')


def test_a_folder_whose_name_is_no_label_is_refused(plan, tmp_path):
    plan()
    (tmp_path / 'videos' / 'val' / 'run').rename(tmp_path / 'videos' / 'val' / 'run ')
    with pytest.raises(UserError, match="the folder 'val/run ' starts or ends with a space"):
        plan()


def test_what_a_list_names_is_there_whatever_its_ending_and_by_whatever_link(plan, tmp_path):
    plan()
    (tmp_path / 'videos' / 'odd.qt').touch()
    (tmp_path / 'videos' / 'zelda').symlink_to('train')
    names = 'odd.qt', 'zelda/run/a.mp4', './val/e.avi', 'none.mp4'
    (tmp_path / 'list.csv').write_text('path,label\n' + ''.join(f'{name},.\n' for name in names))
    found = plan(f'--list={tmp_path / "list.csv"}')
    assert [video.path for video in found.videos] == ['odd.qt', 'zelda/run/a.mp4', 'val/e.avi']
    assert [video.path for video in found.missing] == ['none.mp4'] and found.label_names == ('',)


@pytest.mark.parametrize(('text', 'match'), [
    ('', 'must have a line a video'), ('file\na.mp4\n', 'must have a line a video'),
    (f'path\n{FILES[0]}\n{FILES[0]}\n', 'line 3: .* is listed twice'), ('path,label\n,x\n', 'line 2: there is no path'),
    (f'path,label\n{FILES[0]},x\n{FILES[1]},\n', 'line 3: it has no label, and others have one'),
    (f'path,split\n{FILES[0]},a/b\n', "line 2: 'a/b' is no name of a split"),
    (f'path,label\n{FILES[0]},"a\nb"\n', 'line 3: the label .* holds a line end'),  # where the row ends
    (f'path,label\n{FILES[0]},"a\n{FILES[1]},b\n{FILES[2]},c\n', 'the row that begins in line 2: unexpected end'),
    (f'path,label\n{FILES[0]},a\n\n{FILES[1]},"b\n{FILES[2]},"c"\n', "begins in line 3: ',' expected after '\"'"),
    (f'path,label\n\n{FILES[0]},"a, b"\n\n,x\n', 'line 5: there is no path'),
    (f'path,label,split,label\n{FILES[0]},a,test,b\n', "has 2 columns 'label'"),
    ('path\na\0.mp4\n', r"line 2: 'a\\x00.mp4' is no path below --videos"),
    (f'path,Label\n{FILES[0]},x\n', "a column 'Label', which nothing reads"),
    (f'path,label,split\n{FILES[0]},clean, jerk,test\n', 'line 2: it has more columns than the first line'),
    ('path\n../x.mp4\n', 'line 2: .* is no path below --videos'),
    ('path\n/etc/x.mp4\n', "line 2: '/etc/x.mp4' is no path below --videos"),
    (f'path\n{FILES[0]}\n./{FILES[0]}\n', 'line 3: .* is listed twice'),
    ('path\nx.mp4\n', 'none of the 1 videos')])
def test_a_list_that_does_not_fit_is_refused(plan, tmp_path, text, match):
    (tmp_path / 'list.csv').write_text(text)
    with pytest.raises(UserError, match=match):
        plan(f'--list={tmp_path / "list.csv"}')


def test_a_folder_whose_name_is_no_text_is_named_at_the_end(monkeypatch):
    """Where the terminal is strict; in other locales Python prints it as it is."""
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(io.BytesIO(), 'utf-8', 'strict'))
    summary([], os.fsdecode(b'caf\xe9'))
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue() == b'written to caf\\xe9\n'


def test_a_name_cannot_pass_for_a_line(capsys):
    row = {'split': 'train', 'status': 'broken', 'frames': None, 'id': 'a\nok: b\x1b[2K.mp4', 'reason': 'why'}
    summary([row], 'out')
    assert capsys.readouterr().out.splitlines()[1:] == ['broken: a\\nok: b\\x1b[2K.mp4: why', 'written to out']
    with pytest.raises(UserError, match=r'the first: a\\nok: b\\x1b\[2K'):
        check_missing([row['id']], 1, 'videos', allowed=False)


def test_a_list_and_folders_cannot_both_say_it(plan, tmp_path):
    with pytest.raises(UserError, match='leave out --group and --split_by_dir'):
        plan('--list=x.csv', '--split_by_dir')


def test_a_group_is_what_the_first_brackets_that_match_hold(plan):
    assert [video.group for video in plan('--group=^([a-c])[.]|^(.)').videos] == ['a', 'b', 'e', 'd', 'c']
    assert {video.group for video in plan('--group=[.](m|a)').videos} == {'m', 'a'}  # anywhere in the name
    with pytest.raises(UserError, match='does not match .*: every video needs one'):
        plan('--group=^(a)?.')
