"""Configs: headers, variants, numbers, and a run of every smoke variant and evaluation."""

import importlib
import json
import os
import re
import shlex
import shutil
import sys
from functools import reduce

import jax
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from data_prep.__main__ import build_parser, run
from tests.data_prep.videos import ramp, write_video
from tests.data_sets import edit_rows
from vididi_jax import config as configs
from vididi_jax.data.manifest import ROW
from vididi_jax.errors import UserError
from vididi_jax.schedule import SCHEDULES, Schedule, resolve
from vididi_jax.tasks import TASKS, check_workdir, choose_task, in_float64, run_task
from vididi_jax.train import pretrain
from vididi_jax.train.loop import is_probed
from vididi_jax.train.metric_writer import read_metrics
from vididi_jax.train.run import check_same_run, workdir_config, write_config

FIELDS = ('Command', 'Hardware', 'Time', 'Expected', 'Status')


def files(root):
    return sorted(path for path in (root / 'configs').glob('*.py') if path.stem not in ('__init__', 'default'))


def header(path):
    """{field: text} of a config's docstring."""
    text = importlib.import_module(f'configs.{path.stem}').__doc__
    return {name: value.strip() for name, value in re.findall(r'^(\w+): +(.*(?:\n {10}.*)*)', text, re.MULTILINE)}


def task(name):
    return importlib.import_module(TASKS[name][0]).run


def test_every_header_says_how_where_how_long_and_what_comes_out(root):
    for path in files(root):
        fields = header(path)
        assert set(FIELDS) <= set(fields), path
        words = shlex.split(fields['Command'].split('  ')[0])
        assert words[:3] == ['python', 'main.py', f'--config=configs/{path.name}'], path
        assert re.search(r'measured|published|not run|run by us', fields['Status']), path
        if 'Data' in fields:
            build_parser().parse_args(shlex.split(fields['Data'])[3:])
        assert len(path.read_text().splitlines()) <= 60


def test_health_is_measured_in_every_phase_several_times(root):
    """By every config and schedule, each phase as often as the others; at most a quarter of long runs' epochs."""
    for path in files(root):
        config = configs.load_config(str(path))
        if config.task != 'pretrain':
            continue
        for schedule in SCHEDULES.values():
            phases = len(schedule.phases)
            probed = [epoch for epoch in range(config.epochs) if is_probed(epoch, phases, config.health.every_cycles)]
            times = np.bincount([epoch % phases for epoch in probed], minlength=phases)
            assert times.min() == times.max() >= 3
            assert len(probed) <= max(config.epochs / 4, 12)


def test_commands_name_fields_that_exist(root):
    for path in files(root):
        config = configs.load_config(str(path))
        for field in re.findall(r'--config\.([\w.]+)=', header(path)['Command']):
            assert field in configs.field_names(config)


def variants(path):
    return re.findall(r':(\w+)', header(path)['Variants'])


def test_every_variant_of_a_header_loads_and_no_other(root):
    every = {name for path in files(root) for name in variants(path)} | {'smokey'}
    assert {'paper', 'smoke', 'motion', 'grouped', 'frozen', 'linear'} < every
    for path in files(root):
        for name in variants(path):
            assert configs.load_config(f'{path}:{name}').task == configs.load_config(str(path)).task
        for name in every - set(variants(path)):
            with pytest.raises(ValueError, match=f'no variant {name!r}, only {variants(path)[0]}'):
                configs.load_config(f'{path}:{name}')


# The method in numbers, by the sections of its description: clips and augmentation (3), schedule (4), encoder (5),
# losses and their optimiser (6), protocols (8).
PRETRAINING = {
    'clip.frames': 8, 'clip.stride': 3, 'clip.placement': 'adjacent', 'clip.short_video': 'loop', 'augment.size': 112,
    'augment.crop': 'random_resized', 'augment.area': (0.08, 1), 'augment.aspect': (3 / 4, 4 / 3), 'augment.flip': 0.5,
    'augment.blur': 0.5, 'augment.blur_kernel': 3, 'augment.blur_sigma': (0.1, 2), 'augment.jitter': 0.8,
    'augment.brightness': 0.2, 'augment.contrast': 0.2, 'augment.saturation': 0.2, 'augment.hue': 0.05,
    'augment.gray': 0.2, 'augment.gray_mode': 'channel', 'augment.mean': (0.485, 0.456, 0.406),  # of ImageNet
    'augment.std': (0.229, 0.224, 0.225), 'augment.frame_consistent': True,
    'augment.shift': 0, 'augment.gain': (1, 1), 'augment.tint': (1, 1),  # none
    'schedule': 'vididi', 'epochs': 400, 'model.name': 'r3d_18', 'model.width': 64,
    'framework.scope': 'global', 'batch_size': 64, 'optimizer.name': 'lars', 'optimizer.momentum': 0.9,
    'optimizer.weight_decay': 1e-6, 'optimizer.trust_coefficient': 0.001, 'optimizer.warmup_fraction': 10 / 400,
    'optimizer.final_fraction': 0.001, 'optimizer.clip_norm': 0, 'optimizer.accumulate': 1}
CLIPS = {'eval.clips': 10, 'eval.frames': 16, 'eval.stride': 4, 'eval.crops': 'centre'}
RECIPES = {
    'ucf101_vicreg': PRETRAINING | {
        'framework.loss': 'vicreg', 'framework.projector': (2048, 2048, 2048), 'framework.predictor': (),
        'framework.loss_options.invariance': 1, 'framework.loss_options.variance': 1,
        'framework.loss_options.covariance': 0.04, 'optimizer.base_rate': 4.8},
    'ucf101_simclr': PRETRAINING | {
        'framework.loss': 'info_nce', 'framework.projector': (4096, 4096, 512), 'framework.predictor': (),
        'framework.loss_options.temperature': 0.1, 'optimizer.base_rate': 4.8},
    'ucf101_byol': PRETRAINING | {
        'framework.loss': 'byol', 'framework.projector': (4096, 256), 'framework.predictor': (4096, 256),
        'framework.ema_base': 0.99, 'optimizer.base_rate': 1.2, 'optimizer.predictor_rate': 1},
    'retrieval': CLIPS,
    'finetune': CLIPS | {
        'finetune.orders': (0,), 'finetune.dropout': 0.5, 'optimizer.base_rate': 0.16, 'batch_size': 128,
        'optimizer.momentum': 0.9, 'optimizer.weight_decay': 1e-4, 'optimizer.milestones': (60, 80),
        'optimizer.decay': 0.1, 'epochs': 120}}


@pytest.mark.parametrize('name', RECIPES)
def test_recipes_have_the_numbers_of_the_method(root, name):
    config = configs.load_config(f'{root}/configs/{name}.py')
    assert {field: reduce(getattr, field.split('.'), config) for field in RECIPES[name]} == RECIPES[name]


def test_paper_is_what_the_authors_code_did(root):
    for path in files(root):
        if 'paper' in variants(path):
            config = configs.load_config(f'{path}:paper')
            assert not config.augment.frame_consistent and config.optimizer.warmup_fraction == 0
            assert config.clip.short_video == 'drop' and config.statistics == 'plain'
            assert config.framework.scope == ('global' if config.framework.loss == 'byol' else 'per_device')


@pytest.mark.parametrize(('value', 'expected'), [
    ('((1, 1), (0, 2))', Schedule(((1, 1), (0, 2)))), ("'base'", SCHEDULES['base']),
    ("{'phases': ((0, 1),), 'coin': True}", Schedule(((0, 1),), coin=True)),
    ("{'phases': ((0, 0),), 'choices': ((0, 1), (2, 0))}", Schedule(((0, 0),), choices=((0, 1), (2, 0))))])
def test_a_config_may_spell_its_schedule_out(root, tmp_path, monkeypatch, value, expected):
    """In a file and on the command line; and it survives config.json, so that the run can be resumed."""
    file = tmp_path / 'mine.py'
    file.write_text('from configs import motion_vicreg\ndef get_config():\n    config = motion_vicreg.get_config()\n'
                    f'    config.schedule = {value}\n    return config\n')
    command = ['main.py', f'--config={root}/configs/motion_vicreg.py', f'--config.schedule={value}']
    monkeypatch.setattr(sys, 'argv', command)  # where the flag looks for its fields
    values = flags.FlagValues()
    config_flags.DEFINE_config_file('config', lock_config=True, flag_values=values)
    values(command)
    (tmp_path / 'checkpoints' / '1').mkdir(parents=True)  # of a run that has begun
    for config in (configs.load_config(str(file)), values.config):
        assert resolve(config.schedule) == expected
        write_config(config, tmp_path)
        check_same_run(config, tmp_path)
        assert resolve(workdir_config(tmp_path).schedule) == expected


def test_a_task_wants_a_config_of_its_own(root):
    for path in files(root):
        own = configs.load_config(str(path)).task
        for name in TASKS:
            config = configs.load_config(str(path))
            config.task = name
            if name == own or {own, name} in ({'pretrain', 'inspect'}, {'tug', 'features'}):  # same fields
                choose_task(config, TASKS)
            else:
                with pytest.raises(UserError, match=f"config.task is '{name}', and this config is for another task"):
                    choose_task(config, TASKS)


def test_a_config_has_what_its_task_reads_and_nothing_else(root):
    for path in files(root):
        for variant in ('', *variants(path)):
            choose_task(configs.load_config(f'{path}:{variant}'), TASKS)
    config = configs.load_config(f'{root}/configs/retrieval.py')
    config.schedule = 'base'
    with pytest.raises(UserError, match="config.schedule is nothing that the task 'retrieval' reads"):
        choose_task(config, TASKS)
    config = configs.load_config(f'{root}/configs/motion_vicreg.py')
    del config.optimizer.momentum
    with pytest.raises(UserError, match="it has no 'optimizer.momentum'.*derive from configs/default.py"):
        choose_task(config, TASKS)


def test_configs_survive_json(root):
    for path in files(root):
        config = configs.load_config(str(path))
        again = configs.from_dict(json.loads(json.dumps(configs.to_dict(config))))
        assert again.to_dict() == config.to_dict()
        with pytest.raises((AttributeError, KeyError)):
            again.no_such_field = 1


@pytest.fixture(scope='module')
def small_folder(tmp_path_factory):
    """A prepared folder of eight videos of two sizes, two classes, and two more that are too short for a clip."""
    root = tmp_path_factory.mktemp('videos')
    for i in range(8):
        size = (48, 64) if i % 2 else (64, 48)
        write_video(root / 'videos' / ('a', 'b')[i // 4] / f'{i}.mp4', ramp(12 if i in (1, 5) else 50, *size, seed=i))
    run(build_parser().parse_args(['folder', f'--videos={root / "videos"}', f'--out={root / "data"}', '--workers=1',
                                   '--short_side=40']))
    return root / 'data'


def test_smoke_trains_on_videos_of_several_sizes(root, small_folder, tmp_path, capsys):
    config = configs.load_config(f'{root}/configs/ucf101_vicreg.py:smoke')
    config.data.dir = str(small_folder)
    task(config.task)(config, str(tmp_path))
    printed = capsys.readouterr().out
    assert '8 videos used of 8 listed' in printed and '2 shorter than 48 frames: loop' in printed
    for number, orders in enumerate(['(1, 1) or (2, 2)', '(0, 1) or (1, 2)', '(1, 0) or (2, 1)', '(0, 0) or (1, 1)']):
        assert f'epoch {number + 1}/4 phase {number}: orders {orders}' in printed
    assert [row['step'] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert sorted(int(path.name) for path in (tmp_path / 'checkpoints').iterdir()) == [1, 2, 3, 4]


SMOKE = ('ucf101_simclr', 'ucf101_byol', 'k400_byol', 'weizmann_vicreg', 'ut_interaction_vicreg', 'motion_simclr',
         'motion_byol')
# Smoke variants that are those of another config, but for the data.
SAME = {'folder_vicreg': 'ucf101_vicreg', 'k400_vicreg': 'ucf101_vicreg', 'k400_simclr': 'ucf101_simclr'}


@pytest.mark.parametrize('name', SMOKE)
def test_other_smoke_variants_train(root, small_folder, tiny_motion, tmp_path, flat, name):
    """Two steps, with one program for all orders, and an encoder that compiles at once in place of the same R3D-18."""
    config = configs.load_config(f'{root}/configs/{name}.py:smoke')
    config.clip.length, config.health.every_cycles = 'constant', 0
    if name.startswith('motion'):
        config.data.dir, config.augment.size, config.batch_size, config.epochs = str(tiny_motion), 16, 24, 1
    else:
        config.data.dir, config.epochs = str(small_folder), 2
    final = task(config.task)(config, str(tmp_path))
    assert int(final.step) == 2
    assert all(np.isfinite(row['loss']) for row in read_metrics(tmp_path))


def test_smoke_covers_every_pretraining(root):
    names = {path.stem for path in files(root) if configs.load_config(str(path)).task == 'pretrain'}
    assert names == {'ucf101_vicreg', 'motion_vicreg', *SMOKE, *SAME}
    for name, other in SAME.items():
        one, two = (configs.load_config(f'{root}/configs/{n}.py:smoke') for n in (name, other))
        one.data.dir = two.data.dir
        assert configs.to_dict(one) == configs.to_dict(two), name


def test_all_evaluations_of_a_run_are_one_table_and_one_result(root, finished, tmp_path, capsys):
    workdir = shutil.copytree(finished[0], tmp_path / 'work')
    metrics = task('eval_all')(configs.load_config(f'{root}/configs/eval_all.py:smoke'), str(workdir))
    assert set(metrics) == {'retrieval', 'linear', 'finetune', 'finetune_linear'}
    result = json.loads((workdir / 'eval' / 'all' / 'results.json').read_text())
    assert result['metrics'] == metrics and result['protocol'] == 'motion/train-test'
    for part in metrics:
        own = json.loads((workdir / 'eval' / f'all_{part}' / 'results.json').read_text())
        assert own['metrics'] == metrics[part] and own['task'] == part.removesuffix('_linear')
        assert (workdir / 'eval' / f'all_{part}' / 'confusion.png').read_bytes().startswith(b'\x89PNG')
        assert own['chance'] == result['chance'][part] == 12.5
    printed = capsys.readouterr().out
    assert printed.rindex('all on motion/train-test, trained encoder, step 24') < printed.rindex('top-1')
    assert printed.splitlines()[-2] == 'chance ' + ', '.join(f'12.5 ({part})' for part in metrics)
    task('report')(configs.load_config(f'{root}/configs/report.py'), str(workdir))
    page = (workdir / 'report' / 'index.html').read_text()
    assert 'Linear probe' in page and 'Fine-tuning' in page and 'all_retrieval' in page
    table = page[page.index('All evaluations'):page.index('<h2>Training</h2>')]
    assert '<td>chance of finetune_linear</td><td>12.5 %: top-1 of a random class</td>' in table
    assert '16 of 16 listed videos' in table and result['commit'] in table


def test_groups_are_left_out_in_turn(root, finished, tiny_motion, tmp_path, capsys):
    """Of a prepared folder with groups and the split 'train' only; the pretraining saw every video."""
    workdir = shutil.copytree(finished[0], tmp_path / 'work')
    data = shutil.copytree(tiny_motion, tmp_path / 'data')
    edit_rows(data, lambda i, row: row | {'group': f'person{i // 16}'} if row['split'] == 'train' else None)
    config = configs.load_config(f'{root}/configs/eval_all.py:grouped')
    config.data.dir = str(data)
    config.eval.frames, config.eval.stride, config.eval.clips, config.data.workers = 4, 1, 1, 0
    metrics = task('eval_all')(config, str(workdir))
    assert set(metrics) == {'retrieval', 'linear'}
    result = json.loads((workdir / 'eval' / 'all' / 'results.json').read_text())
    assert result['protocol'] == 'motion/grouped (leave one of 3 groups out)'
    assert result['transductive'] and result['test_videos_seen_in_pretraining'] == 48
    for part, kind, name in (('retrieval', 'joined', 'R@1'), ('linear', 'dV', 'top-1')):
        values = [fold['metrics'][kind][name] for fold in result['folds'][part]]
        assert len(values) == 3 and metrics[part][kind][name] == pytest.approx(np.mean(values))
        assert result['std'][part][kind][name] == pytest.approx(np.std(values, ddof=1))
    assert 'mean ± standard deviation over 3 folds' in capsys.readouterr().out


def test_retrieval_of_an_incomplete_set_is_refused(root, tiny_motion, tiny_config, tmp_path):
    data = shutil.copytree(tiny_motion, tmp_path / 'data')
    with (data / 'manifest.jsonl').open('a') as file:
        file.write(json.dumps(dict.fromkeys(ROW) | {'label': 'left', 'split': 'test', 'status': 'missing'}) + '\n')
    edit_rows(data, lambda i, row: row)
    tiny_config.data.dir = str(data)
    write_config(tiny_config, tmp_path / 'work')
    config = configs.load_config(f'{root}/configs/retrieval.py:smoke')
    config.eval.untrained = True
    with pytest.raises(UserError, match=r"'test' .* 16 of its 17 listed videos \(1 missing.*allow_missing"):
        task(config.task)(config, str(tmp_path / 'work'))
    config.allow_missing = True
    metrics = task(config.task)(config, str(tmp_path / 'work'))
    assert all(np.isfinite(list(row.values())).all() for row in metrics.values())
    result = json.loads((tmp_path / 'work' / 'eval' / 'retrieval' / 'results.json').read_text())
    assert result['counts']['test']['missing'] == 1 and result['encoder'] == 'untrained'


def test_of_several_evaluations_some_may_be_asked_for():
    config = configs.load_config('configs/eval_all.py')
    del config.parts.retrieval
    choose_task(config, TASKS)


def test_a_workdir_is_a_folder_that_can_be_written_to(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setattr(os, 'access', lambda path, mode: path.name != 'full')
    (tmp_path / 'full').mkdir()
    for workdir, message in (
            ('gs://bucket/run', 'a run writes to a file system: give a folder, and copy it to the URL'),
            (str(tmp_path / 'file' / 'run'), 'file is a file: give another'),
            (str(tmp_path / 'full' / 'run'), 'full is not writable: give another'), ('', 'pretrain needs one')):
        with pytest.raises(UserError, match=message):
            check_workdir(workdir, 'pretrain')
    check_workdir(str(tmp_path / 'new' / 'run'), 'pretrain')
    check_workdir(None, 'inspect')


def test_a_task_computes_in_the_precision_of_its_config_and_leaves_what_was(root, tmp_path, monkeypatch):
    seen, config = [], configs.load_config(f'{root}/configs/motion_vicreg.py:smoke')
    monkeypatch.setattr(pretrain, 'run', lambda *_: seen.append(jax.config.jax_enable_x64))
    for config.model.dtype in ('float64', 'float32'):
        run_task(config, str(tmp_path), report=False)
    assert seen == [True, False] and not jax.config.jax_enable_x64


def test_a_file_that_is_there_comes_before_a_config_of_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configs.shipped('retrieval:smoke') == configs.own_config('retrieval:smoke') != 'retrieval:smoke'
    (tmp_path / 'retrieval').write_text('')
    assert configs.shipped('retrieval:smoke') == 'retrieval:smoke'


def test_a_data_set_is_no_workdir(tiny_motion):
    with pytest.raises(UserError, match='and that is a data set: give another folder'):
        check_workdir(str(tiny_motion), 'pretrain')


def test_a_folder_is_browsed_in_the_precision_of_its_encoder(finished, tmp_path):
    run = workdir_config(finished[0])
    with run.unlocked():
        run.model.dtype = 'float64'
    write_config(run, tmp_path)
    config = configs.load_config('configs/browse.py')
    config.checkpoint = str(tmp_path)
    assert in_float64(config, str(finished[0]))
    config.checkpoint = str(finished[0])
    assert not in_float64(config, str(tmp_path))
