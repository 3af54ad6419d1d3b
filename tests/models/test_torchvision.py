"""Encoders against what torchvision computed (tests/parity makes the file), and state dicts in and out."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity import reference
from vididi_jax.errors import UserError
from vididi_jax.models import create_encoder, torchvision
from vididi_jax.models.torchvision import from_state_dict, to_state_dict

NAMES = list(reference.CLIPS)


@pytest.fixture(scope='module')
def expected():
    return reference.load()


@cache
def small_state_dict(name, width=3):
    """float32 weights of a narrow encoder, under torchvision's keys."""
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), torchvision._abstract_variables(name, width))
    given = reference.random_state_dict({key: value.shape for key, value in to_state_dict(name, shapes).items()})
    return {key: value.astype(np.float32) for key, value in given.items()}


@pytest.mark.parametrize('name', NAMES)
def test_features_statistics_and_gradients_are_torchvisions(name, expected):
    """In float64 to 1e-9; the features in eval mode to 1e-5 in float32 too."""
    want = expected[name]
    state_dict = reference.random_state_dict(want['shapes'])
    variables, x = from_state_dict(name, state_dict), reference.clips(name)
    cotangent = reference.cotangent(want['train'].shape)
    single = jax.jit(partial(create_encoder(name).apply, train=False))(*jax.tree.map(np.float32, (variables, x)))
    np.testing.assert_allclose(single, want['eval'], rtol=0, atol=1e-5)

    with jax.enable_x64(True):
        encoder = create_encoder(name, dtype=jnp.float64)

        @jax.jit
        def both_modes(variables):
            def loss(params):
                out, new = encoder.apply({**variables, 'params': params}, x, train=True, mutable=['batch_stats'])
                return (out * cotangent).sum(), (out, new['batch_stats'])

            gradients, (out, batch_stats) = jax.grad(loss, has_aux=True)(variables['params'])
            return encoder.apply(variables, x, train=False), out, {'params': gradients, 'batch_stats': batch_stats}

        evaluated, trained, changes = both_modes(variables)
    np.testing.assert_allclose(evaluated, want['eval'], rtol=0, atol=1e-9)
    np.testing.assert_allclose(trained, want['train'], rtol=0, atol=1e-9)
    changes = to_state_dict(name, changes)
    for part, running in (('gradients', False), ('statistics', True)):
        ours = reference.digest({key: value for key, value in changes.items() if ('running_' in key) == running})
        assert reference.difference(ours, want[part]) < 1e-9


@pytest.mark.parametrize('name', NAMES)
def test_keys_and_shapes_are_torchvisions(name, expected):
    """All of torchvision's own but the head's and num_batches_tracked, which are passed over when read."""
    shapes = {key: tuple(shape) for key, shape in expected[name]['shapes'].items()}
    outside = [key for key in shapes if not reference.in_encoder(key)]
    assert any('num_batches_tracked' in key for key in outside) and any('weight' in key for key in outside)
    whole = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    variables = from_state_dict(name, whole)
    back = to_state_dict(name, variables)
    assert {key: value.shape for key, value in back.items()} == {
        key: shape for key, shape in shapes.items() if key not in outside}
    encoder = create_encoder(name)
    made = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 8, 32, 32, 3)))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, made)


@pytest.mark.parametrize('width', [1, 5])
@pytest.mark.parametrize('name', NAMES)
def test_a_round_trip_changes_nothing(name, width):
    state_dict = small_state_dict(name, width)
    again = to_state_dict(name, from_state_dict(name, state_dict))
    assert again.keys() == state_dict.keys()
    for key, value in state_dict.items():
        np.testing.assert_array_equal(again[key], value)
        assert again[key].dtype == value.dtype


@pytest.mark.parametrize('name', NAMES)
def test_wrong_keys_are_listed(name):
    state_dict = dict(small_state_dict(name))
    keys = list(state_dict)
    del state_dict[keys[0]], state_dict[keys[-1]]
    state_dict |= {'backbone.weight': np.zeros(3), 'fc.weight': np.zeros(3), 'classifier.1.bias': np.zeros(3)}
    misshapen = next(key for key in keys[1:] if key.endswith('running_var'))
    state_dict[misshapen] = np.zeros(77)
    with pytest.raises(UserError) as caught:
        from_state_dict(name, state_dict)
    message = str(caught.value)
    assert name in message and 'width 3' in message
    for part in ('2 missing', keys[0], keys[-1], '1 unexpected: backbone.weight;', f'{misshapen} (77,) instead of ('):
        assert part in message
    assert 'fc.weight' not in message and 'classifier' not in message


@pytest.mark.parametrize(('name', 'prefix'), [('r3d_18', 'module.'), ('s3d', 'model.backbone.')])
def test_a_prefix_of_all_keys_is_named(name, prefix):
    """As of PyTorch's DataParallel, or of a module that holds the encoder; also where the file has more than it."""
    state_dict = {prefix + key: value for key, value in small_state_dict(name).items()}
    with pytest.raises(UserError, match=f"^the keys of these weights start with '{prefix}': write them without it"):
        from_state_dict(name, state_dict | {'projector.weight': np.zeros(3)})


def test_weights_of_something_else_are_refused_in_short():
    message = r'missing: .*, \.\.\.; 500 unexpected: layer0, layer1, layer2, \.\.\.\.$'
    with pytest.raises(UserError, match=message) as caught:
        from_state_dict('r3d_18', {f'layer{i}': np.zeros(3) for i in range(500)})
    assert len(str(caught.value)) < 400


def test_weights_of_another_network_are_refused():
    for given, asked in (('r3d_18', 'mc3_18'), ('s3d', 'r3d_18'), ('r2plus1d_18', 's3d')):
        with pytest.raises(UserError, match=f'those of {given}, not those of {asked}: give name={given}'):
            from_state_dict(asked, small_state_dict(given))
    with pytest.raises(UserError, match='missing'):
        from_state_dict('r3d_18', {})
    with pytest.raises(UserError, match='no encoder'):
        from_state_dict('resnet', {})
    variables = from_state_dict('r3d_18', small_state_dict('r3d_18'))
    with pytest.raises(UserError, match='no variable of an encoder s3d'):
        to_state_dict('s3d', variables)
    with pytest.raises(UserError, match='running_mean'):
        to_state_dict('r3d_18', {'params': variables['params']})
