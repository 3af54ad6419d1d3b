"""The command `vididi`, and the package without the checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import venv

import numpy as np
import pytest

from data_prep.__main__ import VIDEO_FILES, build_parser
from vididi_jax import command
from vididi_jax.config import load_config, own_config
from vididi_jax.errors import UserError
from vididi_jax.flags import config_file

RUN = 'from vididi_jax.command import main; main()'
STRAY = 'import importlib.util as u; print([n for n in ("configs", "data_prep", "tests") if u.find_spec(n)])'


def test_every_config_has_a_command(root):
    tasks = {**dict.fromkeys(command.TRAIN, {'pretrain'}), **{name: {name} for name in command.ALONE},
             **dict.fromkeys(command.EVALUATE, {'retrieval', 'tug', 'linear', 'finetune', 'detection', 'eval_all',
                                                'features'})}
    assert set(tasks) == {path.stem for path in (root / 'configs').glob('*.py')} - {'__init__', 'default'}
    assert all(load_config(own_config(name)).task in expected for name, expected in tasks.items())


def test_help_fits_a_screen_and_its_examples_can_be_run(monkeypatch, capsys, root):
    for words in ([], *([name, '--help'] for name in command.EXAMPLES)):
        monkeypatch.setattr(sys, 'argv', ['vididi', *words])
        command.main()
        lines = capsys.readouterr().out.replace(str(root), '').splitlines()
        assert 5 < len(lines) <= 24 and max(map(len, lines)) <= 106
        for _, name, *rest in (line.split() for line in lines if line.startswith('  vididi ')):
            if name in ('train', 'evaluate'):
                assert re.fullmatch(r'[a-z0-9_]+(:[a-z]+)?', rest[0]) and load_config(own_config(rest[0]))


def test_the_usage_of_each_data_set_is_a_command():
    for name, (_, _, example) in VIDEO_FILES.items():
        assert build_parser().parse_args([name, *example.split()]).dataset == name


@pytest.mark.parametrize(('words', 'message'), [
    (['fly'], "vididi has no command 'fly': vididi --help has them all."),
    (['train'], 'vididi train needs a config first: one of folder_vicreg, '),
    (['train', 'ucf102_vicreg', '--workdir=x'], "'ucf102_vicreg' is no file and no config that comes with the project"),
    (['train', 'retrieval', '--workdir=x'], "retrieval is a config of the task 'retrieval', which vididi train"),
    (['evaluate', '--workdir=x'], 'vididi evaluate needs a config first: one of retrieval, '),
    (['prep', 'motion', '--out=~/data'], "--out is '~/data', and only shells expand ~"),
    (['prep', 'motion', '--out='], '--out is empty: name a folder'),
    (['prep', 'folder', '--videos=', '--out=x'], '--videos is empty: give the folder'),
    (['prep', 'motion', '--out=x', '--workers=0'], '--workers must be at least 1.'),
    (['prep', 'verify', 'setup.py'], 'setup.py is no folder: give the directory of a data set'),
    (['train', 'motion_vicreg', '--workdir=x', '--workdir=y'], '--workdir is given 2 times: give it once'),
    (['train', 'motion_vicreg', '--mirror=gs://x', '--mirror=gs://y'], '--mirror is given 2 times: give it once'),
    (['train', 'motion_vicreg', '--workdir=x', '--config.epochs=1', '--config.epochs=2'], '--config.epochs is given 2'),
    (['train', 'motion_vicreg', '--workdir=x', '--config.epochs=many'],
     "config.epochs is 'many': it must be a whole number from 1 to 1,000,000."),
])
def test_wrong_commands_are_one_sentence(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['vididi', *words])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 1 and capsys.readouterr().err.startswith(f'error: {message}')


def test_there_is_one_config():
    assert config_file(['main.py', '--config=a.py']) == config_file(['main.py', '--config', 'a.py']) == 'a.py'
    with pytest.raises(UserError, match="--config is given 2 times .'a.py', 'b.py'.: give one"):
        config_file(['main.py', '--config=a.py', '--config', 'b.py'])


def test_the_module_is_the_command(root):
    def run(*words):
        return subprocess.run([sys.executable, '-m', *words], cwd=root, capture_output=True, text=True)

    assert re.match(r'python 3\.\d+\.\d+\n', run('vididi_jax', '--version').stdout)
    for module in ('vididi_jax', 'vididi_jax.command'):
        assert "no command 'fly'" in run(module, 'fly').stderr
    assert 'there is no --config' in run('vididi_jax.main').stderr
    for words, message in ((('runs/mine',), "'runs/mine' is no flag: give --workdir=DIR"),
                           (('--workdir=~/a',), "--workdir is '~/a', and only shells expand ~"),
                           (('--workdir=a', '--config.data.dir=~/b'), 'which does not begin with ~')):
        done = run('vididi_jax', 'report', *words)
        assert done.returncode == 1 and message in done.stderr and done.stderr.count('\n') == 1


def test_a_config_without_a_task_is_one_sentence(tmp_path, monkeypatch, capsys):
    path = tmp_path / 'mine.py'
    path.write_text('import ml_collections\ndef get_config():\n    return ml_collections.ConfigDict({"seed": 0})\n')
    monkeypatch.setattr(sys, 'argv', ['vididi', 'train', str(path), '--workdir=x'])
    with pytest.raises(SystemExit):
        command.main()
    assert f'{path} is a config of the task None' in capsys.readouterr().err


def test_the_package_works_without_the_checkout(tmp_path, root, finished):
    """What a wheel holds: data, a config by its name, weights; and no package but vididi_jax."""
    build = ('build', f'--build-base={tmp_path}', f'--build-lib={tmp_path}/lib')
    subprocess.run([sys.executable, 'setup.py', '-q', *build], cwd=root, check=True, capture_output=True)
    assert [path.name for path in (tmp_path / 'lib').iterdir()] == ['vididi_jax']

    def run(program, *words):
        done = subprocess.run([sys.executable, '-c', program, *words], cwd=tmp_path, capture_output=True, text=True,
                              env={**os.environ, 'PYTHONPATH': str(tmp_path / 'lib')})
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run(STRAY) == '[]\n'
    assert 'written to motion' in run(RUN, 'prep', 'motion', '--train=24', '--test=8', '--size=16', '--out=motion')
    told = run(RUN, 'train', 'motion_vicreg:smoke', '--config.task=inspect', '--config.data.dir=motion',
               '--config.augment.size=16', '--config.model.width=2')
    assert 'TFLOP a step' in told
    run(RUN, 'export', f'--workdir={finished[0]}', '--out=weights.npz')
    assert np.load(tmp_path / 'weights.npz')['stem.0.weight'].ndim == 5
    assert len(run(RUN, 'schedule', 'vididi', '--epochs=1', '--steps=2').splitlines()) == 3


@pytest.mark.network
def test_a_wheel_brings_the_command_and_says_whose_it_is(tmp_path, root):
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
    subprocess.run([*pip, 'wheel', '-q', '--no-deps', '-w', str(tmp_path), str(root)], check=True, capture_output=True)
    wheel, = tmp_path.glob('vididi_jax-*.whl')
    venv.create(tmp_path / 'env', with_pip=False)
    python = tmp_path / 'env' / 'bin' / 'python'
    subprocess.run([*pip, f'--python={python}', 'install', '-q', '--no-deps', str(wheel)], check=True)
    packages, = (tmp_path / 'env' / 'lib').glob('python*/site-packages')
    (packages / 'rest.pth').write_text(sysconfig.get_path('purelib') + '\n')  # what it requires is there already

    def run(*words):
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert run(python.parent / 'vididi', '--help') == command.HELP
    told = run(python, '-c', 'import importlib.metadata as m; print(m.metadata("vididi_jax").json)')
    assert "'author': 'The vididi_jax developers'" in told and "'license': 'Apache-2.0'" in told
