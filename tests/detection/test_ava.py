"""AVA's file formats: what is read, what is refused, and the padded arrays of boxes."""

import numpy as np
import pytest

from vididi_jax.detection import ava
from vididi_jax.detection.keyframes import arrange_keyframes
from vididi_jax.errors import UserError

ROW = 'v,0902,0.1,0.2,0.3,0.4,1,0.5'


def written(tmp_path, text):
    path = tmp_path / 'file.csv'
    path.write_text(text)
    return path


@pytest.mark.realdata
def test_the_official_samples_are_read(vididi_data):
    root = vididi_data / 'ava'
    sample = root / 'mmaction2_tests' / 'ava_dataset'
    boxes = ava.read_boxes(sample / 'ava_sample.csv')
    assert boxes.keyframes == (('0f39OWEqJ24', 902), ('0f39OWEqJ24', 903), ('_-Z6wFjXtGQ', 902))
    assert boxes.action.tolist() == [12, 17, 79, 12, 17, 12, 74, 80] and not boxes.score.any()
    np.testing.assert_array_equal(boxes.box[-1], [0.063, 0.049, 0.524, 0.996])
    assert ava.read_exclusions(sample / 'ava_excluded_timestamps_sample.csv') == {
        ('0f39OWEqJ24', 903), ('_-Z6wFjXtGQ', 902)}
    official = ava.read_label_map(root / 'ava_action_list_v2.1_for_activitynet_2018.pbtxt')
    assert official == ava.read_label_map(root / 'label_map_80.txt') and len(official) == 60
    assert official[1] == 'bend/bow (at the waist)' and list(official) == sorted(official)
    assert list(ava.read_label_map(sample / 'action_list.txt')) == [12, 17, 79, 80]


def test_a_full_disk_leaves_the_boxes_that_were_there(tmp_path, full_disk):
    path = written(tmp_path, ROW)
    with full_disk(), pytest.raises(OSError, match='File too large'):
        ava.write_boxes(path, ava.read_boxes(path))
    assert path.read_text() == ROW and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('text', [
    'item {\n  name: "say \\"a\\""\n  id: 2\n}\nitem {\n  name: "b: c"\n  id: 1\n}\n',
    'label {\n  name: "b: c"\n  label_id: 1\n  label_type: PERSON_MOVEMENT\n}\nlabel { name: \'say "a"\' label_id: 2 }',
    '2: say "a"\n\n1: b: c\n',
])
def test_every_form_of_label_map(tmp_path, text):
    names = ava.read_label_map(written(tmp_path, text))
    assert list(names.items()) == [(1, 'b: c'), (2, 'say "a"')]  # in this order, whatever that of the file
    names[3] = 'back\\slash\\'
    assert ava.read_label_map(written(tmp_path, ava.format_label_map(names))) == names


@pytest.mark.parametrize(('text', 'message'), [
    ('item {\n  name: "a"\n  id: x\n}\n', "line 4: the class 'a' has no name, or no number"),
    ('item {\n  name: "a"\n}\n', 'line 3: .* no number'),
    ('item {\n  name: "a"\n  id: 1\n', 'line 3: the last class is not closed'),
    ('item { name: "a" id: 1 }\nitem { name: "b" id: 1 }', 'line 2: the class 1 is listed a second time'),
    ('item { name: "a" id: 1 }\n\n?', "line 3: '\\?' is not expected"),
    ('name: "a"', 'line 1: .* not expected'),
    ('1: a\n2 b\n', "line 2: '2 b' has no colon"),
    ('1: a\n0: b\n', 'line 2: .* no number from 1 on'),
    ('1: a\n99999999999999999999: b\n', 'line 2: .* at most 9 digits'),
    ('', 'has no classes'),
])
def test_a_wrong_label_map_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        ava.read_label_map(written(tmp_path, text))


@pytest.mark.parametrize(('row', 'message'), [
    ('v,0902,0.1,0.2,0.3,0.4', 'it has 6 columns'),
    ('v,0902,0.1,0.2,0.3,0.4,1,0.5,7', 'it has 9 columns'),
    ('v,902.5', 'not a whole number of seconds'),
    ('v,99999999999999999999,0.1,0.2,0.3,0.4,1,0.5', 'not a whole number of seconds of at most 9 digits'),
    (',0902', 'the video has no name'),
    ('v,0902,0.1,a,0.3,0.4,1,0.5', "y1 'a' is not a number"),
    ('v,0902,0.1,0.2,nan,0.4,1,0.5', 'not finite'),
    ('v,0902,0.3,0.2,0.3,0.4,1,0.5', 'x1 must be less than x2'),
    ('v,0902,0.1,0.4,0.3,0.2,1,0.5', 'y1 less than y2'),
    ('v,0902,0.1,0.2,0.3,1.01,1,0.5', 'from 0 to 1'),
    ('v,0902,0.1,0.2,0.3,0.4,-1,0.5', "the action '-1' is not a number of a class"),
    ('v,0902,0.1,0.2,0.3,0.4,99999999999999999999,0.5', 'not a number of a class of at most 9 digits'),
    ('v,0902,0.1,0.2,0.3,0.4,,0.5', 'the action is empty'),
    ('v,0902,0.1,0.2,0.3,0.4,1,high', "the score 'high' is not a number"),
])
def test_a_malformed_row_is_named_with_file_and_line(tmp_path, row, message):
    path = written(tmp_path, f'{ROW}\n\n{row}\n')
    with pytest.raises(UserError, match=message) as error:
        ava.read_boxes(path)
    assert f'{path}, line 3: {row!r}' in str(error.value)


def test_boxes_beyond_the_frame_are_for_detectors(tmp_path):
    path = written(tmp_path, 'v,0902,-0.1,0.2,0.3,1.4,,0.5\n')
    with pytest.raises(UserError, match='from 0 to 1'):
        ava.read_boxes(path)
    boxes = ava.read_boxes(path, detected=True)
    assert boxes.action.tolist() == [ava.NO_ACTION] and boxes.box.min() == -0.1  # not clipped
    path = written(tmp_path, 'v,0902,1.1,1.2,1.3,1.3,,0.5\nv,0902,0.4,0.2,0.4,0.3,,0.5\n')
    assert ava.read_boxes(path, detected=True).flat().tolist() == [False, True]
    assert ava.read_boxes(written(tmp_path, 'v,0902,-1,-1,2,2,,0.5\n'), detected=True).box.tolist() == [[-1, -1, 2, 2]]
    for row, message in (('v,0902,12,20,40,60,,0.5', 'are these pixels'), ('v,0902,0.5,0.1,0.4,0.2,,0.5', 'x1 must'),
                         ('v,0902,0,0,1,2.01,,0.5', 'are these pixels'), ('v,0902,-1.01,0,1,1,,0.5', 'than its size')):
        with pytest.raises(UserError, match=f'line 2.*{message}'):
            ava.read_boxes(written(tmp_path, f'v,0902,0.1,0.2,0.3,0.4,,0.5\n{row}\n'), detected=True)


@pytest.mark.parametrize('row', ['v', 'v,0902,1', 'v,x'])
def test_malformed_exclusions(tmp_path, row):
    with pytest.raises(UserError, match='line 2'):
        ava.read_exclusions(written(tmp_path, f'v,0902\n{row}\n'))


def test_a_file_that_cannot_be_read(tmp_path):
    for read in (ava.read_boxes, ava.read_exclusions, ava.read_label_map):
        with pytest.raises(UserError, match='nowhere.csv cannot be read'):
            read(tmp_path / 'nowhere.csv')


def test_what_is_written_is_read_back(tmp_path):
    rng = np.random.default_rng(0)
    box = np.sort(rng.uniform(0, 1, (50, 2, 2)).astype(np.float32), axis=1).reshape(50, 4)
    score = rng.uniform(0, 1, 50).astype(np.float32)
    score[30:] = rng.uniform(1e-4, 1.2e-4, 20)  # where eight digits are too few
    score[::7] = np.nan
    rows = [(f'a,{i % 3}', 902 + i % 5, box[i], i % 4 or ava.NO_ACTION, score[i]) for i in range(50)]
    boxes = ava.make_boxes(rows, [('empty', 7)])
    ava.write_boxes(tmp_path / 'out.csv', boxes)
    again = ava.read_boxes(tmp_path / 'out.csv', detected=True)
    for name in ('video', 'timestamp', 'action'):
        np.testing.assert_array_equal(getattr(again, name), getattr(boxes, name))
    np.testing.assert_array_equal(again.score.astype(np.float32), score)
    np.testing.assert_array_equal(again.box.astype(np.float32), box)
    assert set(again.keyframes) == set(boxes.keyframes) and 'empty,0007\n' in (tmp_path / 'out.csv').read_text()


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    path = tmp_path / 'file.csv'
    path.write_text(ROW, encoding='utf-8-sig')
    assert ava.read_boxes(path).keyframes == (('v', 902),)


def test_keyframe_ids_and_their_inverse():
    assert ava.parse_keyframe_id(ava.keyframe_id('a,b', 12345)) == ('a,b', 12345)


def test_rows_of_one_box_are_merged_and_nothing_is_cut(tmp_path):
    path = written(tmp_path, 'v,0902,0.1,0.2,0.3,0.4,7,0\nv,0902,0.5,0.2,0.9,0.4,3,1\nv,0902,0.1,0.2,0.3,0.4,3,0\n'
                             'v,0903\nw,0902,0,0,1,1,3,0\nv,0904,0,0,1,1,80,0\n')
    arrays = arrange_keyframes(['v,0904', 'v,0903', 'v,0902'], ava.read_boxes(path), [7, 3])
    np.testing.assert_array_equal(arrays.mask, [[True, False], [False, False], [True, True]])
    np.testing.assert_array_equal(arrays.boxes[2], np.array([[.1, .2, .3, .4], [.5, .2, .9, .4]], np.float32))
    np.testing.assert_array_equal(arrays.labels[2], [[True, True], [True, False]])  # columns: classes 3, 7
    assert not arrays.labels[0].any() and arrays.boxes.dtype == np.float32
    assert arrays.counts == {'keyframes': 3, 'keyframes_without_boxes': 1, 'keyframes_without_record': 1, 'boxes': 3,
                             'labels': 3, 'labels_outside_map': 1}


def test_boxes_without_an_action_are_of_no_other_class(tmp_path):
    path = written(tmp_path, 'v,0902,0.1,0.2,0.3,0.4,,0.5\n')
    arrays = arrange_keyframes(['v,0902'], ava.read_boxes(path, detected=True), [7])
    assert arrays.counts['boxes'] == 1 and arrays.counts['labels_outside_map'] == 0
    assert arrays.score.tolist() == [[0.5]] and not arrays.labels.any()
