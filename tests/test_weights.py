"""`load_encoder`: the same features as evaluation, for any number of clips; files of weights, export and import."""

import json
import logging
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.test_torchvision import small_state_dict
from vididi_jax import load_encoder, weights
from vididi_jax.config import load_config, to_dict
from vididi_jax.derivatives import time_derivative
from vididi_jax.errors import UserError
from vididi_jax.models import create_encoder
from vididi_jax.models.torchvision import from_state_dict, to_state_dict
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.pixels.crops import centre_crop
from vididi_jax.train.checkpoint import Checkpoints, load_encoder_variables
from vididi_jax.train.encoder import trained_encoder
from vididi_jax.train.run import workdir_config, write_config
from vididi_jax.weights import read_weights, write_weights


@pytest.fixture(scope='module')
def clips():
    return np.random.default_rng(0).integers(0, 256, (7, 8, 16, 16, 3), dtype=np.uint8)


def write_encoder(path, name):
    """A file of a narrow encoder's weights, all ones."""
    encoder = create_encoder(name, width=2)
    abstract = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 5, 32, 32, 3)))
    write_weights(path, to_state_dict(name, jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), abstract)))
    return path


@contextmanager
def pixels_seen():
    """The shapes of what encoders get, which then compute nothing: zeros are their features."""
    shapes = []

    def note(call, args, kwargs, context):
        if context.method_name != '__call__' or not hasattr(context.module, 'feature_dim'):
            return call(*args, **kwargs)
        shapes.append(args[0].shape)
        return jnp.zeros((len(args[0]), context.module.feature_dim))

    with nn.intercept_methods(note):
        yield shapes


def test_a_workdirs_features_are_those_of_evaluation(finished, clips):
    """Of whole batches and of one that is filled up; uint8 and normalised clips alike."""
    config = workdir_config(finished[0])
    encoder = trained_encoder(config, str(finished[0]))
    pixels = centre_crop(jnp.asarray(clips), jnp.full((7, 2), 16), Augmentation(**config.augment), jnp.float32)
    encode = load_encoder(finished[0], batch_size=4)
    features = []
    for order in (0, 1, 2):
        view = time_derivative(pixels, order)
        expected = jax.jit(lambda x, e=encoder: e.module.apply(e.variables, x, train=False))(view)
        features.append(encode(clips, order=order))
        np.testing.assert_allclose(features[-1], expected, rtol=1e-4, atol=1e-5)  # float32
        np.testing.assert_allclose(encode(np.asarray(pixels), order=np.int64(order)), expected, rtol=1e-4, atol=1e-5)
    assert encode(clips[:0]).shape == (0, 16)
    assert (features[0] != features[1]).any() and (features[1] != features[2]).any()


def test_a_run_is_loaded_without_a_program_and_without_the_run_it_started_from(finished, tmp_path, caplog):
    """Shapes are compared, not arrays: nothing is compiled before the first clip."""
    workdir = shutil.copytree(finished[0], tmp_path / 'work')
    config = json.loads((workdir / 'config.json').read_text())
    (workdir / 'config.json').write_text(json.dumps(config | {'init_from': str(tmp_path / 'gone')}))
    clips = np.zeros((1, 4, 20, 20, 3), np.uint8)  # of a shape that no other test has
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        encode = load_encoder(workdir)
        assert 'Finished XLA compilation' not in caplog.text
        features = encode(clips)
        assert 'Finished XLA compilation' in caplog.text
    np.testing.assert_array_equal(features, load_encoder(finished[0])(clips))


KEPT = """
import sys, jax
jax.jit(lambda x: x + 1)(1.0)
from vididi_jax import load_encoder
load_encoder(sys.argv[1])
jax.jit(lambda x: x + 2)(1.0)
"""


@pytest.mark.parametrize(('configured', 'folder'), [(False, 'home/.cache/vididi_jax/compiled'), (True, 'mine')])
def test_programs_are_kept_where_the_user_wants_them(configured, folder, tmp_path, root):
    """By default in the home, also if the process compiled something before."""
    (tmp_path / 'home').mkdir()
    file = write_encoder(tmp_path / 'weights.npz', 'r3d_18')
    environment = {name: value for name, value in os.environ.items() if name != 'JAX_COMPILATION_CACHE_DIR'}
    mine = {'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'mine')} if configured else {}
    done = subprocess.run([sys.executable, '-c', KEPT, str(file)], cwd=root, capture_output=True, text=True,
                          env={**environment, 'HOME': str(tmp_path / 'home'), **mine})
    assert done.returncode == 0, done.stderr
    kept = {path.parent for path in tmp_path.rglob('*-cache')}
    assert kept == {tmp_path / folder}


def test_few_clips_cost_little(tmp_path, clips):
    """A batch is filled up to a power of two, not to `batch_size`, so that few programs do for clips of any number."""
    for number, batch_size, batches in ((1, 32, [1]), (3, 32, [4]), (7, 5, [5, 2]), (7, 7, [7])):
        encode = load_encoder(write_encoder(tmp_path / 'weights.npz', 'r3d_18'), batch_size=batch_size)
        with pixels_seen() as shapes:
            assert encode(clips[:number]).shape == (number, 16)
        assert [shape[0] for shape in shapes] == batches


def test_a_files_weights_are_the_encoders(tmp_path):
    encoder = create_encoder('r3d_18', width=2)
    normalised = np.random.default_rng(1).normal(size=(2, 4, 16, 16, 3)).astype(np.float32)
    variables = jax.jit(encoder.init)(jax.random.key(0), normalised)
    write_weights(tmp_path / 'weights.npz', to_state_dict('r3d_18', variables))
    expected = jax.jit(lambda x: encoder.apply(variables, x, train=False))(normalised)
    np.testing.assert_allclose(load_encoder(tmp_path / 'weights.npz')(normalised), expected, rtol=1e-4, atol=1e-5)


VIDEO = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)  # of torchvision's KINETICS400_V1 weights


@pytest.mark.parametrize(('options', 'side', 'mean', 'std'), [
    (dict(size=14), 16, *VIDEO), (dict(), 128, *VIDEO),
    (dict(size=28, mean=[0.5] * 3, std=(0.1, 0.2, 0.3)), 32, (0.5, 0.5, 0.5), (0.1, 0.2, 0.3))])
def test_a_file_wants_its_pixels_normalised_as_torchvision_does_unless_told_otherwise(
        options, side, mean, std, tmp_path):
    """uint8 gives what the centre, 7/8 of the side and so not resampled, gives when normalised by hand."""
    clips = np.random.default_rng(0).integers(0, 256, (1, 2, side, side, 3), dtype=np.uint8)
    edge = side // 16
    by_hand = (clips[:, :, edge:-edge, edge:-edge] / 255 - np.array(mean)) / np.array(std)
    encoder = create_encoder('r3d_18', width=2)
    variables = jax.jit(encoder.init)(jax.random.key(0), jnp.zeros((1, 2, 16, 16, 3)))
    write_weights(tmp_path / 'weights.npz', to_state_dict('r3d_18', variables))
    encode = load_encoder(tmp_path / 'weights.npz', **options)
    np.testing.assert_allclose(encode(clips), encode(by_hand.astype(np.float32)), rtol=1e-3, atol=1e-5)  # float32


@pytest.mark.parametrize(('name', 'size'), [('mc3_18', 112), ('s3d', 224)])
def test_a_file_wants_clips_of_torchvisions_size(name, size, tmp_path):
    encode = load_encoder(write_encoder(tmp_path / 'weights.npz', name), name=name)
    with pixels_seen() as shapes:
        encode(np.zeros((1, 5, 30, 40, 3), np.uint8))
    assert shapes == [(1, 5, size, size, 3)]


def test_weights_of_another_encoder_hint_at_its_name(tmp_path):
    with pytest.raises(UserError, match='those of s3d, not those of r3d_18: give name=s3d'):
        load_encoder(write_encoder(tmp_path / 'weights.npz', 's3d'))


def test_a_workdir_knows_what_a_file_must_be_told(finished):
    assert ', step 16, ' in repr(load_encoder(finished[0], checkpoint=16))
    for options, message in ((dict(name='r3d_18'), 'name .* leave it out'),
                             (dict(size=16, std=(1, 1, 1)), 'size and std .* leave them out')):
        with pytest.raises(UserError, match=message):
            load_encoder(finished[0], **options)


def test_what_cannot_be_encoded_is_refused(finished, clips):
    encode = load_encoder(finished[0])
    for wrong, message in ((clips.astype(np.int32), 'int32'), (clips[0], 'shape'), (clips[..., :1], 'shape')):
        with pytest.raises(UserError, match=message):
            encode(wrong)
    for order in (8, -1, 1.0, '1', True, None):
        with pytest.raises(UserError, match=f'8 frames have no derivative of order {order!r}'):
            encode(clips, order=order)
    with pytest.raises(UserError, match='neither'):
        load_encoder('nowhere')
    with pytest.raises(UserError, match='is a file of weights, which holds one encoder: leave checkpoint out'):
        load_encoder(__file__, checkpoint='best')
    with pytest.raises(UserError, match='batch_size'):
        load_encoder(finished[0], batch_size=0)


@pytest.mark.parametrize('ending', ['npz', 'safetensors'])
def test_a_file_that_cannot_be_written_is_one_sentence(ending):
    """Each library has errors of its own."""
    with pytest.raises(UserError, match=f'/proc/a.{ending} cannot be written'):
        write_weights(f'/proc/a.{ending}', small_state_dict('r3d_18'))


def test_torchvision_has_no_encoder_of_another_name():
    with pytest.raises(UserError, match="no encoder 'c3d': choose one of r3d_18"):
        from_state_dict('c3d', small_state_dict('r3d_18'))


def test_files_keep_weights(tmp_path):
    state_dict = small_state_dict('r3d_18')
    write_weights(tmp_path / 'new' / 'weights.npz', state_dict)
    assert [p.name for p in (tmp_path / 'new').iterdir()] == ['weights.npz']
    again = read_weights(tmp_path / 'new' / 'weights.npz')
    assert again.keys() == state_dict.keys()
    jax.tree.map(np.testing.assert_array_equal, again, state_dict)
    np.savez(tmp_path / 'half.npz', **{key: value.astype(np.float16) for key, value in state_dict.items()})
    write_weights(tmp_path / 'half.safetensors', {key: value.astype(jnp.bfloat16) for key, value in state_dict.items()})
    for name in ('half.npz', 'half.safetensors'):
        assert {value.dtype for value in read_weights(tmp_path / name).values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize('dtype', ['<U1', np.int32, np.complex64])
def test_weights_that_are_no_floats_are_one_sentence(dtype, tmp_path):
    key = 'stem.0.weight'
    state_dict = {**small_state_dict('r3d_18'), 'stem.1.num_batches_tracked': np.int64(3)}
    np.savez(tmp_path / 'w.npz', **state_dict)
    weights.import_weights(tmp_path / 'w.npz', 'r3d_18', tmp_path / 'good')
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'plan.json').touch()
    with pytest.raises(UserError, match='data is a data set: give --out another folder'):
        weights.import_weights(tmp_path / 'w.npz', 'r3d_18', tmp_path / 'data')
    np.savez(tmp_path / 'w.npz', **state_dict | {key: state_dict[key].astype(dtype)})
    for use in (load_encoder, lambda file: weights.import_weights(file, 'r3d_18', tmp_path / 'out')):
        with pytest.raises(UserError, match=f'not those of r3d_18 .* 1 of no floating-point dtype: {key}'):
            use(tmp_path / 'w.npz')
    assert not (tmp_path / 'out').exists()


def test_weights_of_another_machines_order_of_bytes_are_read(tmp_path):
    state_dict = small_state_dict('r3d_18')
    np.savez(tmp_path / 'w.npz', **{key: value.astype('>f4') for key, value in state_dict.items()})
    jax.tree.map(np.testing.assert_array_equal, read_weights(tmp_path / 'w.npz'), state_dict)
    load_encoder(tmp_path / 'w.npz')


@pytest.mark.parametrize('about', [
    {'name': ['r3d_18']}, {'size': '112'}, {'mean': 3}, {'std': [0, 0, 0]}, {'centre_fraction': 0}, {'frames': 'x'},
    {'stride': -1}, {'step': 'x'}])
def test_a_file_that_says_of_its_encoder_what_cannot_be_is_one_sentence(about, tmp_path):
    write_weights(tmp_path / 'w.npz', {'a': np.ones(2)}, about)
    (field, _), = about.items()
    with pytest.raises(UserError, match=f'w.npz says that {field} of its encoder is .*, and it must be .*: export it'):
        load_encoder(tmp_path / 'w.npz')


def test_writing_weights_takes_and_leaves_no_other_name(tmp_path, monkeypatch):
    """A file that looks like an unfinished one is somebody's; Ctrl-C leaves none."""
    (tmp_path / 'mine.part.npz').write_text('mine')
    write_weights(tmp_path / 'mine.npz', {'a': np.ones(2)})
    save = np.savez

    def stop(*arguments, **arrays):
        save(*arguments, **arrays)
        raise KeyboardInterrupt

    monkeypatch.setattr(np, 'savez', stop)
    with pytest.raises(KeyboardInterrupt):
        write_weights(tmp_path / 'other.npz', {'a': np.ones(2)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ['mine.npz', 'mine.part.npz']
    assert (tmp_path / 'mine.part.npz').read_text() == 'mine'


def command(monkeypatch, capsys, *arguments):
    """Exit code and what the command printed to either stream."""
    monkeypatch.setattr(sys, 'argv', ['weights', *map(str, arguments)])
    try:
        weights.main()
        code = 0
    except SystemExit as stopped:
        code = stopped.code
    return code, capsys.readouterr()


def test_imported_weights_are_what_init_from_takes(tmp_path, monkeypatch, capsys):
    state_dict = small_state_dict('s3d')
    write_weights(tmp_path / 'w.npz', {**state_dict, 'classifier.1.bias': np.zeros(400, np.float32)})
    words = ('import', f'--weights={tmp_path / "w.npz"}', '--name=s3d', f'--out={tmp_path / "start"}')
    code, printed = command(monkeypatch, capsys, *words)
    assert code == 0 and f'--config.init_from={tmp_path / "start"}' in printed.out and 'width=3' in printed.out
    variables, meta = load_encoder_variables(tmp_path / 'start')
    assert meta['step'] == 0
    jax.tree.map(np.testing.assert_array_equal, to_state_dict('s3d', variables), state_dict)
    code, printed = command(monkeypatch, capsys, *words)
    assert code == 1 and 'already' in printed.err


def test_export_writes_the_encoder_of_a_workdir(tmp_path, monkeypatch, capsys):
    state_dict = small_state_dict('mc3_18')
    variables = from_state_dict('mc3_18', state_dict)
    config = load_config('configs/motion_vicreg.py')
    config.model.update(name='mc3_18', width=3)
    known = {name: to_dict(config)[name] for name in ('model', 'augment', 'clip')}  # as of a run of fine-tuning
    (tmp_path / 'config.json').write_text(json.dumps(known))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, {part: {'encoder': tree, 'projector': {'w': np.ones(2)}} for part, tree in
                             variables.items()}, {}, 0.0)
    words = 'export', f'--workdir={tmp_path}', f'--out={tmp_path / "out"}'
    code, printed = command(monkeypatch, capsys, *words, '--format=npz')
    assert code == 0 and 'mc3_18 of width 3 after step 7' in printed.out and 'docs/pytorch.md' in printed.out
    assert f'written to {tmp_path / "out.npz"}' in printed.out
    exported = read_weights(tmp_path / 'out.npz')
    assert exported.keys() == state_dict.keys()
    jax.tree.map(np.testing.assert_array_equal, exported, state_dict)


@pytest.mark.parametrize('ending', ['.npz', '.safetensors'])
def test_a_file_that_was_exported_is_encoded_as_its_workdir(finished, clips, ending, tmp_path):
    file = tmp_path / f'weights{ending}'
    weights.export_weights(finished[0], file)
    encode = load_encoder(file)
    np.testing.assert_array_equal(encode(clips, order=1), load_encoder(finished[0])(clips, order=1))
    config = workdir_config(finished[0])
    assert weights.read_about(file) == {
        'name': 'r3d_18', 'width': 2, 'size': 16, 'centre_fraction': 1.0, 'mean': list(config.augment.mean),
        'std': list(config.augment.std), 'frames': 8, 'stride': 1, 'orders': [0, 1, 2], 'step': 24}
    assert (encode.frames, encode.stride) == (8, 1) and str(file) in repr(encode)
    assert load_encoder(file, size=32).encoder.augment.size == 32  # what is said counts more
    write_weights(file, read_weights(file), ['not', 'ours'])
    with pytest.raises(UserError, match='cannot be read as a state dict .*no JSON object'):
        load_encoder(file)


@pytest.mark.parametrize(('arguments', 'message'), [
    ((), '--help'), (('export', '--out=x.npz'), '--workdir'), (('translate',), 'translate'),
    (('export', '--workdir=nowhere', '--out=x.npz'), 'nowhere'),
    (('export', '--workdir=nowhere', '--out=x.pth', '--format=npz'), '--out=x.pth ends in .pth, and --format is npz'),
    (('export', '--workdir=nowhere', '--out=x', '--format=onnx'), 'docs/pytorch.md'),
    (('import', '--weights=no.npz', '--name=r3d_18', '--out=x'), 'no file no.npz'),
    (('import', '--weights=README.md', '--name=r3d_18', '--out=x'), '.safetensors'),
    (('import', '--weights=empty.npz', '--name=r3d_18', '--out=x'), 'empty.npz cannot be read'),
    (('import', '--weights=good.npz', '--name=resnet', '--out=x'), 's3d'),
    (('import', '--weights=good.npz', '--name=r3d_18', '--out=good.npz'), 'good.npz'),
])
def test_a_wrong_command_is_one_sentence_and_exit_code_1(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty.npz').write_bytes(b'')
    write_weights('good.npz', small_state_dict('r3d_18'))
    code, printed = command(monkeypatch, capsys, *arguments)
    assert code == 1 and not printed.out
    assert printed.err.startswith('error: ') and printed.err.count('\n') == 1 and message in printed.err
    assert not (tmp_path / 'x').exists()


@pytest.mark.parametrize('ending', ['.pth', '.pt', '.safetensors'])
def test_a_library_that_is_absent_is_named(ending, tmp_path, monkeypatch):
    package = 'safetensors' if ending == '.safetensors' else 'torch'
    for module in (package, f'{package}.numpy'):
        monkeypatch.setitem(sys.modules, module, None)  # makes importing it fail
    (tmp_path / f'w{ending}').write_bytes(b'')
    for action in (read_weights, partial(write_weights, state_dict={})):
        with pytest.raises(UserError, match=f'pip install {package}'):
            action(tmp_path / f'w{ending}')


def test_the_command_has_help(root):
    done = subprocess.run([sys.executable, '-m', 'vididi_jax.weights', 'export', '--help'], cwd=root,
                          capture_output=True, text=True)
    assert done.returncode == 0 and '--workdir' in done.stdout and 'load_state_dict' in done.stdout


def test_the_checkpoint_that_is_asked_for_is_exported(tmp_path, tiny_config):
    tiny_config.schedule = 'derivative_only'
    write_config(tiny_config, tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        for step in (4, 8):
            arrays = {key: np.full_like(value, step) for key, value in small_state_dict('r3d_18').items()}
            variables = from_state_dict('r3d_18', arrays)
            checkpoints.save(step, {part: {'encoder': tree} for part, tree in variables.items()}, {}, 0.0)
    weights.main(['export', f'--workdir={tmp_path}', f'--out={tmp_path / "out.npz"}', '--checkpoint=4'])
    about = weights.read_about(tmp_path / 'out.npz')
    assert about['step'] == 4 and about['orders'] == [1]
    assert (weights.read_weights(tmp_path / 'out.npz')['stem.0.weight'] == 4).all()
