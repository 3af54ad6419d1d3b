"""Fixtures and settings that all tests share."""

import fcntl
import os
import resource
import shutil
import subprocess
import sys
from argparse import Namespace
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

collect_ignore = ['parity']  # needs torch: `make parity`

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get('VIDIDI_DATA') or ROOT.parent / 'shared' / 'data')
if not DATA.is_absolute():
    DATA = ROOT / DATA

# Tests compile much and compute little: compiled programs are kept from run to run, and hardly optimised.
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(Path.home() / '.cache' / 'vididi_jax' / 'compiled'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')


def pytest_configure(config):
    """Asked once, before processes are started that must not find different tests."""
    if 'PIP_REACHES_AN_INDEX' not in os.environ:
        os.environ['PIP_REACHES_AN_INDEX'] = str(int(has_packages()))


def has_packages() -> bool:
    """Whether pip reaches a package index."""
    with TemporaryDirectory() as folder:
        words = ('download', '-q', '--no-deps', '--retries=0', '--timeout=10', '-d', folder, 'setuptools')
        return subprocess.run((sys.executable, '-m', 'pip', *words), capture_output=True).returncode == 0


# Files that take minutes: first, so that no processor has none left while another is still at one.
LONG = ('test_loop.py', 'test_multiprocess.py', 'test_not_finite.py', 'test_compiled.py', 'test_configs.py',
        'test_finetune.py', 'test_report.py', 'test_task.py', 'test_docs.py', 'test_ucf101.py')

# marker -> (is there what its tests need, what they are, why they are left out)
NEEDS = {
    'realdata': (
        lambda: (DATA / 'manifest.csv').is_file(), 'on real videos', f'VIDIDI_DATA ({DATA}) has no manifest.csv'),
    's3': (lambda: find_spec('moto') is not None, 'with an S3 server', 'moto is not installed here (make s3)'),
    'beam': (lambda: find_spec('apache_beam') is not None, 'with Apache Beam', 'it is not installed here (make beam)'),
    'network': (
        lambda: os.environ['PIP_REACHES_AN_INDEX'] == '1', 'with packages from the network', 'pip reaches no index'),
    'pages': (lambda: os.environ.get('RUN_PAGES') == '1', "that carry out the pages' commands", 'make docs does that'),
}


def pytest_collection_modifyitems(config, items):
    """Tests that need what is not there are deselected, and their number is printed; files that take long come first.
    """
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
    config.left_out = {}
    for marker, (is_there, *_) in NEEDS.items():
        lacking = [item for item in items if item.get_closest_marker(marker)]
        if lacking and not is_there():
            config.hook.pytest_deselected(items=lacking)
            items[:] = [item for item in items if not item.get_closest_marker(marker)]
            config.left_out[marker] = len(lacking)


def pytest_terminal_summary(terminalreporter, config):
    for marker, number in getattr(config, 'left_out', {}).items():
        _, what, why = NEEDS[marker]
        terminalreporter.write_line(f'{number} tests {what} deselected: {why}')


@pytest.fixture(scope='session')
def vididi_data() -> Path:
    """The folder of real videos."""
    return DATA


@pytest.fixture(scope='session')
def root() -> Path:
    """The root of the project."""
    return ROOT


@pytest.fixture
def full_disk():
    """`with full_disk(size)`: no file can grow beyond that many bytes."""
    @contextmanager
    def full(size=0):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full


@pytest.fixture(scope='session')
def tiny_motion(tmp_path_factory):
    """48 training and 16 test videos of 24 frames of 16 x 16."""
    from data_prep import motion
    from data_prep.writer import write_dataset

    out = tmp_path_factory.mktemp('motion') / 'data'
    arguments = Namespace(train=48, test=16, frames=24, size=16, seed=0)
    write_dataset(*motion.plan(arguments), out, workers=1)
    return out


@pytest.fixture(scope='session')
def tiny_boxes(tmp_path_factory):
    """24 training and 8 test videos of 24 frames of 32 x 32, with boxes."""
    from data_prep import motion_boxes
    from data_prep.writer import write_dataset

    out = tmp_path_factory.mktemp('motion_boxes') / 'data'
    arguments = Namespace(train=24, test=8, frames=24, size=32, seed=0)
    write_dataset(*motion_boxes.plan(arguments), out, workers=1)
    return out


def tiny(data):
    from configs import motion_vicreg

    config = motion_vicreg.get_config('smoke')
    config.data.dir = str(data)
    config.model.width = 2
    config.framework.projector = (16, 16, 16)
    config.augment.size = 16
    config.clip.length = 'constant'  # one program for all orders
    config.log.every_steps = 1
    config.checkpoint.every_steps = 4
    return config


@pytest.fixture
def tiny_config(tiny_motion):
    """Four epochs of six steps on `tiny_motion`: one cycle of the schedule."""
    return tiny(tiny_motion)


@pytest.fixture(scope='session')
def finished(tmp_path_factory, tiny_motion):
    """A workdir of `tiny_config`, trained to the end without a stop, and its final state.

    Of the processes that share the tests the first that asks trains; the others copy the workdir, and restore.
    """
    from vididi_jax.train import pretrain

    base, config = tmp_path_factory.getbasetemp(), tiny(tiny_motion)
    shared = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / 'finished'
    with Path(f'{shared}.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            pretrain.run(config, f'{shared}.part')
            os.rename(f'{shared}.part', shared)
    workdir = shutil.copytree(shared, tmp_path_factory.mktemp('run') / 'work')
    return workdir, pretrain.run(config, str(workdir))


@pytest.fixture
def small(monkeypatch):
    """One convolution, in place of every other encoder that is evaluated."""
    import jax.numpy as jnp

    from tests.compiled.inputs import Small
    from vididi_jax.train import encoder

    module = Small(2, jnp.dtype(jnp.float32))
    monkeypatch.setattr(encoder, 'build_encoder', lambda model, device: module)
    return module


@pytest.fixture
def small_run(small, tiny_config, tmp_path):
    """A workdir with a checkpoint of `small`."""
    import jax
    import jax.numpy as jnp

    from vididi_jax.train.checkpoint import Checkpoints
    from vididi_jax.train.run import write_config

    write_config(tiny_config, tmp_path / 'work')
    variables = jax.jit(small.init)(jax.random.key(0), jnp.zeros((1, 8, 16, 16, 3)))
    with Checkpoints(tmp_path / 'work') as checkpoints:
        checkpoints.save(24, {part: {'encoder': tree} for part, tree in variables.items()}, {}, 0.0)
    return tmp_path / 'work'


@pytest.fixture
def flat(monkeypatch):
    """An encoder that compiles at once in place of every other; it takes clips of one length."""
    from tests.train.test_step import Flat
    from vididi_jax.train import state

    monkeypatch.setattr(state, 'build_encoder', lambda model, device: Flat())


@pytest.fixture(scope='session')
def extended(root, tmp_path_factory):
    """A copy of the checkout with all that docs/extend.md adds."""
    import numpy as np

    from tests.pages import blocks

    copy = tmp_path_factory.mktemp('extended')
    for name in ('vididi_jax', 'configs', 'data_prep', 'main.py'):
        source = root / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    page = root / 'docs' / 'extend.md'
    for block in blocks(page, 'python'):
        path, _, text = block.text.removeprefix('# ').partition('\n')
        assert not (copy / path).exists() and len(text.splitlines()) < 60, block
        (copy / path).write_text(text)
    for block in blocks(page, 'diff'):
        subprocess.run(['git', 'apply', '-'], input=block.text, text=True, cwd=copy, check=True)
    rng = np.random.default_rng(0)
    for number in range(16):
        path = copy / 'MY_ARRAYS' / 'ab'[number % 2] / f'{number}.npy'
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rng.integers(0, 256, (24, 32, 40, 3), np.uint8))
    return copy
