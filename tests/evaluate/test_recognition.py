"""What every result says of its videos: how many clips they really gave, and whether the encoder had seen them."""

import csv
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs import features as features_config
from configs import finetune, linear, motion_vicreg, retrieval
from data_prep.__main__ import build_parser
from data_prep.__main__ import run as prepare
from tests.data_prep.videos import ramp, write_video
from tests.evaluate.test_protocol import config as protocol_config
from tests.evaluate.test_protocol import edit
from vididi_jax import provenance
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.evaluate import features, tug
from vididi_jax.evaluate import finetune as finetune_task
from vididi_jax.evaluate import linear as linear_task
from vididi_jax.evaluate import retrieval as retrieval_task
from vididi_jax.evaluate.protocol import open_protocol
from vididi_jax.evaluate.recognition import Evaluation, Outcome, counts_of, features_of, finish, seen_in_training
from vididi_jax.lock import locked
from vididi_jax.train import encoder as encoders
from vididi_jax.train.checkpoint import Checkpoints
from vididi_jax.train.run import workdir_config, write_config


def evaluation(data, training=None, module=retrieval, **changes):
    """Of a training config, without an encoder."""
    config = module.get_config('smoke')
    config.eval.update(changes)
    return Evaluation(config, Path(), training, data, None, None, open_protocol(config, data))


def test_different_clips_are_a_mean_over_videos(tiny_motion, tmp_path):
    """Three clips of eight frames are three, two, one in videos of 24, 9, 8 frames; those of seven are dropped."""
    frames = {48: 7, 50: 9, 51: 9, 52: 8}
    paths = [edit(tiny_motion, tmp_path / str(n), lambda i, row, n=n: row | (
        {'frames': frames.get(i, 24)} if n == 2 else {}), official_split=n) for n in (1, 2)]
    both = ','.join(paths)
    counts = counts_of(evaluation(both, short_video='drop'))
    assert counts['test']['videos'] == 31 and counts['test']['dropped'] == 1
    assert counts['test']['clips_per_video'] == pytest.approx((28 * 3 + 2 * 2 + 1) / 31)
    assert counts['train']['clips_per_video'] == 3
    assert counts_of(evaluation(paths[1]))['test']['clips_per_video'] == pytest.approx((12 * 3 + 2 * 2 + 1 + 1) / 16)
    assert counts_of(evaluation(paths[1]))['test']['looped'] == 1


def test_fine_tuning_has_the_clips_of_its_test(tiny_motion):
    """It trains on random ones."""
    counts = counts_of(evaluation(str(tiny_motion), module=finetune))
    assert counts['test']['clips_per_video'] == 3 and 'clips_per_video' not in counts['train']


@pytest.fixture
def runs(tiny_motion, tmp_path):
    """Name, split and origin -> the config of a run that did not start yet, in a workdir of that name."""

    def make(name, split='train', origin=''):
        config = motion_vicreg.get_config('smoke')
        config.data.dir, config.data.split = str(tiny_motion), split
        config.init_from = str(tmp_path / origin) if origin else ''
        write_config(config, tmp_path / name)
        return config

    return make


def test_videos_seen_by_a_run_that_this_one_started_from_are_seen(runs, tiny_motion):
    """Test videos are 16, and no training videos."""
    for config, seen, before in (
            (runs('plain'), 0, 0), (runs('tests', 'test'), 16, 0), (runs('one', origin='tests'), 16, 16),
            (runs('two', origin='one'), 16, 16), (runs('from_plain', origin='plain'), 0, 0)):
        for module in (retrieval, finetune):
            asked = evaluation(str(tiny_motion), config, module)
            assert seen_in_training(asked) == seen
            asked = evaluation(str(tiny_motion), config, module, untrained=True)
            assert seen_in_training(asked) == (before if module is retrieval else 0)  # fine-tuned from scratch


def test_what_cannot_be_looked_up_is_unknown_unless_something_was_found(runs, tiny_motion):
    for config, seen in (
            (runs('lost', origin='gone'), None), (runs('child', origin='lost'), None),
            (runs('tests', 'test', 'gone'), 16), (runs('no_such_split', 'val'), None),
            (runs('found', origin='tests'), 16), (runs('grandchild', origin='no_such_split'), None)):
        assert seen_in_training(evaluation(str(tiny_motion), config)) == seen
    lost = evaluation(str(tiny_motion), runs('lost', origin='gone'), untrained=True)
    assert seen_in_training(lost) is None


def test_data_that_are_others_by_now_are_unknown(runs, tiny_motion, tmp_path):
    """As of a folder where another split was prepared since; and so are those of a run that had labels."""
    training = runs('other')
    asked = evaluation(str(tiny_motion), training)._replace(workdir=tmp_path / 'other')
    for step, data, seen in ((1, 'elsewhere', None), (2, RecordSource(tiny_motion, 'train').fingerprint, 0)):
        with Checkpoints(tmp_path / 'other') as checkpoints:
            checkpoints.save(step, {'params': np.zeros(1)}, {'data': data}, 0.0)
        assert seen_in_training(asked) == seen
    training = runs('tuned')
    with training.unlocked():
        training.task = 'finetune'
    assert seen_in_training(evaluation(str(tiny_motion), training)) is None


@pytest.mark.parametrize(('name', 'seen'), [('folder', 16), ('other lists', 0)])
def test_videos_of_a_folder_are_known_by_their_files(runs, tiny_motion, tmp_path, name, seen):
    """Whose ids are paths; two data sets with lists of their own have different videos under one name."""
    data = edit(tiny_motion, tmp_path / 'data', lambda i, row: row | {'id': f'some/{row["id"]}.mp4'})
    asked = evaluation(data, runs('tests', 'test'))
    for fold in asked.protocol.folds:
        fold.test.source.name = name
    assert seen_in_training(asked) == seen


def test_a_circle_of_runs_ends(runs, tiny_motion):
    runs('b', origin='a')
    assert seen_in_training(evaluation(str(tiny_motion), runs('a', origin='b'))) == 0


def test_the_commit_is_that_of_this_code_or_unknown(tmp_path, monkeypatch):
    def git(*words):
        command = 'git', '-C', tmp_path, '-c', 'user.name=a', '-c', 'user.email=a@b.c', *words
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / 'code.py').write_text('1')
    for words in (('init', '-q'), ('add', 'code.py'), ('commit', '-q', '-m', 'first')):
        git(*words)
    monkeypatch.setattr(provenance, '__file__', str(tmp_path / 'vididi_jax' / 'provenance.py'))
    (tmp_path / 'runs').mkdir()
    (tmp_path / 'runs' / 'result').touch()  # what is not in git is not the code
    assert provenance.commit.__wrapped__() == git('rev-parse', 'HEAD')
    (tmp_path / 'code.py').write_text('2')
    assert provenance.commit.__wrapped__() == git('rev-parse', 'HEAD') + '+changes'
    monkeypatch.setattr(provenance, '__file__', str(tmp_path / 'site-packages' / 'vididi_jax' / 'provenance.py'))
    (tmp_path / 'site-packages').mkdir()
    assert provenance.commit.__wrapped__() == 'unknown'


def test_the_commit_of_an_installed_package_is_what_pip_wrote_down(tmp_path, monkeypatch):
    folder = tmp_path / 'vididi_jax-0.1.0.dist-info'
    folder.mkdir()
    (folder / 'METADATA').write_text('Name: vididi_jax\nVersion: 0.1.0\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert provenance.installed_commit(tmp_path) == 'unknown'
    (folder / 'direct_url.json').write_text('{"url": "https://x", "vcs_info": {"vcs": "git", "commit_id": "abc"}}')
    assert provenance.installed_commit(tmp_path) == 'abc' and provenance.installed_commit(tmp_path / 'a') == 'unknown'


def test_features_of_a_side_are_those_of_its_videos(small_run, tiny_motion, tmp_path):
    data = edit(tiny_motion, tmp_path / 'data', lambda i, row: row | ({'frames': 7} if i == 50 else {}))
    got = {}
    for policy in ('loop', 'drop'):
        config = protocol_config(short_video=policy)
        config.data.dir = data
        evaluation = retrieval_task.prepare(config, str(small_run))
        got[policy] = features_of(evaluation, (0,))(evaluation.protocol.folds[0].test)[0]
    np.testing.assert_allclose(got['drop'], np.delete(got['loop'], 2, axis=0), rtol=1e-5)  # other rows of a batch


def test_seeds_of_training_and_of_evaluation(small_run):
    config = retrieval.get_config('smoke')
    config.seed = 5
    retrieval_task.run(config, str(small_run))
    result = json.loads((small_run / 'eval' / 'retrieval' / 'results.json').read_text())
    assert (result['seed'], result['evaluation_seed']) == (0, 5)
    config = features_config.get_config('smoke')
    config.seed = 5
    with np.load(features.run(config, str(small_run))) as file:
        about = json.loads(str(file['about']))
    assert (about['seed'], about['evaluation_seed']) == (0, 5)


def test_scores_of_videos_stand_with_their_group_and_label(small_run, tiny_motion, tmp_path):
    config = retrieval.get_config('smoke')
    config.data.dir = edit(tiny_motion, tmp_path / 'data', lambda i, row: row | {'group': f'scene{i}'})
    retrieval_task.run(config, str(small_run))
    rows = list(csv.DictReader((small_run / 'eval' / 'retrieval' / 'videos.csv').open()))
    source = RecordSource(config.data.dir, 'test')
    assert [(row['id'], row['group'], row['label']) for row in rows] == [
        (row['id'], row['group'], row['label']) for row in source.rows]


def test_a_full_disk_leaves_the_result_that_was_there(tiny_motion, tiny_config, tmp_path, full_disk):
    asked = evaluation(str(tiny_motion), tiny_config)._replace(
        workdir=tmp_path, encoder=SimpleNamespace(step=0, commits=()), views=SimpleNamespace(text='3 x 1'))
    found = [Outcome({'V': {'R@1': 50.0}}, 12.5, np.eye(8, dtype=int), {'V': np.zeros(16)})]
    finish(asked, 'retrieval', found)
    before = {path.name: path.read_bytes() for path in asked.folder.iterdir()}
    with full_disk(), pytest.raises(OSError, match='File too large'):
        finish(asked, 'retrieval', found)
    assert {path.name: path.read_bytes() for path in asked.folder.iterdir()} == before and len(before) == 3


def test_a_result_sums_up_all_folds(small_run, tiny_motion, tmp_path):
    """Of 6, 6 and 4 videos; of its checkpoint, and of a run that began with one that may have seen them."""
    training = workdir_config(small_run)
    with training.unlocked():
        training.init_from = 'gone'
    write_config(training, small_run)
    config = retrieval.get_config('smoke')
    config.eval.protocol, config.eval.train = 'grouped', 'test'
    config.data.dir = edit(tiny_motion, tmp_path / 'data', lambda i, row: row | {'group': f'{row["split"]}{i // 6}'})
    metrics = retrieval_task.run(config, str(small_run))
    result = json.loads((small_run / 'eval' / 'retrieval' / 'results.json').read_text())
    folds, counts = result['folds'], np.array(result['confusion']['counts'])
    sizes, chances = zip(*((fold['test_videos'], fold['chance']) for fold in folds), strict=True)
    assert sorted(sizes) == [4, 6, 6] and len(set(chances)) > 1
    assert result['chance'] == pytest.approx(np.mean(chances))
    assert result['confusion']['features'] == list(metrics)[-1] == 'joined' and counts.sum(1).tolist() == 8 * [2]
    right = [fold['metrics']['joined']['R@1'] for fold in folds]
    assert 100 * np.trace(counts) == pytest.approx(np.dot(right, sizes))
    assert result['checkpoint_step'] == 24 and result['transductive'] is None


def test_videos_that_were_too_short_to_train_on_were_not_seen(tiny_motion, tmp_path):
    data = edit(tiny_motion, tmp_path / 'data', lambda i, row: row | ({'frames': 12} if i in (48, 49, 50) else {}))
    config = motion_vicreg.get_config('smoke')
    config.data.dir, config.data.split, config.clip.short_video = data, 'test', 'drop'
    write_config(config, tmp_path / 'run')
    assert seen_in_training(evaluation(data, config)) == 13
    config.clip.short_video = 'loop'
    assert seen_in_training(evaluation(data, config)) == 16


def test_a_folder_and_a_folder_in_it_have_the_same_videos(small_run, tmp_path):
    for path in ('a/0.mp4', 'a/1.mp4', 'b/0.mp4', 'b/1.mp4'):
        write_video(tmp_path / 'videos' / 'sub' / path, ramp(20 + 2 * (path[0] == 'b') + int(path[2]), 32, 40))
    for name, videos in (('all', 'videos'), ('part', 'videos/sub')):
        prepare(build_parser().parse_args(['folder', f'--videos={tmp_path / videos}', f'--out={tmp_path / name}',
                                           '--workers=1', '--short_side=16']))
    for trained, tested in (('all', 'part'), ('part', 'all')):
        config = workdir_config(small_run)
        with config.unlocked():
            config.data.dir = str(tmp_path / trained)
        assert seen_in_training(evaluation(str(tmp_path / tested), config, protocol='grouped')) == 4


def test_a_result_of_another_task_is_not_overwritten(small_run):
    config = retrieval.get_config('smoke')
    config.eval.name = 'mine'
    for _ in range(2):
        retrieval_task.run(config, str(small_run))
    config = linear.get_config('smoke')
    config.eval.name = 'mine'
    with pytest.raises(UserError, match='is a result of retrieval, which one of linear would overwrite: set another'):
        linear_task.prepare(config, str(small_run))
    (small_run / 'eval' / 'mine' / 'results.json').write_text('{')  # of a disk that was full
    linear_task.prepare(config, str(small_run))


@pytest.mark.parametrize('module', [retrieval_task, linear_task, tug, finetune_task])
def test_two_evaluations_do_not_write_to_one_folder(tmp_path, module):
    message = r'eval/mine is in use by process \d+ on .*: wait for it, stop it, or set another --config.eval.name'
    with locked(tmp_path / 'eval' / 'mine', ''), pytest.raises(UserError, match=message):
        module.evaluate(SimpleNamespace(folder=tmp_path / 'eval' / 'mine'))


@pytest.mark.parametrize(('field', 'value', 'what'), [
    ('eval.untrained', True, 'the trained encoder, which one of the untrained encoder would'),
    ('eval.protocol', 'grouped', 'motion/train-test, which one of motion/grouped .* would'),
    ('data.dir', '', 'the data other, which one of the data [0-9a-f]+ would')])
def test_a_result_of_something_else_is_not_overwritten(small_run, tiny_motion, tmp_path, field, value, what):
    data = edit(tiny_motion, tmp_path / 'data', lambda i, row: row | {'group': f'{row["split"]}{i % 3}'})
    config = retrieval.get_config('smoke')
    config.data.dir = data
    protocol = retrieval_task.prepare(config, str(small_run)).protocol
    path = small_run / 'eval' / 'retrieval' / 'results.json'
    path.parent.mkdir(parents=True)
    there = {'task': 'retrieval', 'encoder': 'trained', 'protocol': protocol.name}
    path.write_text(json.dumps(there | ({'fingerprint': 'other'} if field == 'data.dir' else {})))
    config.update_from_flattened_dict({field: value or data})
    with pytest.raises(UserError, match=f'is a result of {what} overwrite: set another'):
        retrieval_task.prepare(config, str(small_run))
    config.eval.name = 'another'
    retrieval_task.prepare(config, str(small_run))
    (small_run / 'eval' / 'another').touch()
    with pytest.raises(UserError, match='eval/another is no folder'):
        retrieval_task.prepare(config, str(small_run))


def test_an_untrained_encoder_has_no_checkpoint(small_run):
    config = retrieval.get_config('smoke')
    config.eval.untrained, config.eval.checkpoint = True, '24'
    with pytest.raises(UserError, match="eval.checkpoint, which is '24', has no use"):
        retrieval_task.prepare(config, str(small_run))


def test_an_untrained_encoder_is_of_the_checkpoint_that_its_run_began_with(small, tiny_config, monkeypatch):
    """Fine-tuned from scratch it is of none."""
    asked = []
    monkeypatch.setattr(encoders, 'load_fitting_variables', lambda workdir, expected, checkpoint: (
        asked.append((workdir, checkpoint)), ({}, {}))[1])
    tiny_config.init_from, tiny_config.init_checkpoint = 'before', '12'
    for scratch in (True, False):
        encoders.asked_encoder(tiny_config, '', SimpleNamespace(untrained=True), scratch)
        assert asked == ([] if scratch else [('before', '12')])


def test_a_config_that_was_changed_by_hand_is_not_believed(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / 'work')
    training = workdir_config(workdir)
    with training.unlocked():
        training.schedule, training.epochs = 'base', training.epochs + 4  # of which the second is a run that goes on
    write_config(training, workdir)
    with pytest.raises(UserError, match="says schedule='base', and its checkpoint was trained with 'vididi'"):
        encoders.trained_encoder(training, str(workdir))
    with training.unlocked():
        training.schedule = 'vididi'
    write_config(training, workdir)
    assert encoders.trained_encoder(training, str(workdir)).step == 24


def test_processes_agree_on_config_data_and_weights(small_run, monkeypatch):
    asked = []
    monkeypatch.setattr(encoders, 'check_alike', lambda values, free: asked.append(values))
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    config = retrieval.get_config('smoke')
    found = encoders.trained_encoder(workdir_config(small_run), str(small_run))
    encoders.check_same_everywhere(config, 'these', found)
    assert asked[0]['eval.clips'] == config.eval.clips and asked[0]['data'] == 'these'
    other = found._replace(variables=jax.tree.map(lambda x: x + 1, found.variables))
    encoders.check_same_everywhere(config, 'these', other)
    assert asked[0].keys() == asked[1].keys() and asked[0]['encoder'] != asked[1]['encoder']
