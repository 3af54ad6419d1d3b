"""`load_encoder`: the same features as evaluation, for any number of clips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vididi_jax import load_encoder
from vididi_jax.augment import Augmentation
from vididi_jax.config import workdir_config
from vididi_jax.crops import centre_crop
from vididi_jax.derivatives import time_derivative
from vididi_jax.errors import UserError
from vididi_jax.evaluate.features import trained_encoder
from vididi_jax.models import create_encoder
from vididi_jax.models.torchvision import to_state_dict, write_weights


@pytest.fixture(scope='module')
def clips():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 16, 16, 3), dtype=np.uint8)


def test_a_workdirs_features_are_those_of_evaluation(finished, clips):
    """Of whole batches and of one that is filled up; uint8 and normalised clips alike."""
    config = workdir_config(finished[0])
    encoder = trained_encoder(config, str(finished[0]))
    pixels = centre_crop(jnp.asarray(clips), jnp.full((5, 2), 16), Augmentation(**config.augment), jnp.float32)
    encode = load_encoder(finished[0], batch_size=3)
    for order in (0, 1):
        view = time_derivative(pixels, order)
        expected = jax.jit(lambda x, e=encoder: e.module.apply(e.variables, x, train=False))(view)
        np.testing.assert_allclose(encode(clips, order=order), expected, rtol=1e-4, atol=1e-5)  # float32
        np.testing.assert_allclose(encode(np.asarray(pixels), order=order), expected, rtol=1e-4, atol=1e-5)
    assert encode(clips[:0]).shape == (0, 16)
    assert (encode(clips) != encode(clips, order=1)).any()


def test_a_files_weights_are_the_encoders(tmp_path, clips):
    encoder = create_encoder('r3d_18', width=2)
    normalised = np.random.default_rng(1).normal(size=(2, 4, 16, 16, 3)).astype(np.float32)
    variables = jax.jit(encoder.init)(jax.random.key(0), normalised)
    write_weights(tmp_path / 'weights.npz', to_state_dict('r3d_18', variables))
    expected = jax.jit(lambda x: encoder.apply(variables, x, train=False))(normalised)
    np.testing.assert_allclose(load_encoder(tmp_path / 'weights.npz')(normalised), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match='not those of a mc3_18'):
        load_encoder(tmp_path / 'weights.npz', name='mc3_18')


def test_what_cannot_be_encoded_is_refused(finished, clips):
    encode = load_encoder(finished[0])
    for wrong, message in ((clips.astype(np.int32), 'int32'), (clips[0], 'shape'), (clips[..., :1], 'shape')):
        with pytest.raises(UserError, match=message):
            encode(wrong)
    with pytest.raises(UserError, match='no derivative of order 8'):
        encode(clips, order=8)
    with pytest.raises(UserError, match='neither'):
        load_encoder('nowhere')
    with pytest.raises(UserError, match='batch_size'):
        load_encoder(finished[0], batch_size=0)
