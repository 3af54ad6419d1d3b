"""RoIAlign against what torchvision computed (tests/parity makes the file), and what a caller relies on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity import regions
from vididi_jax.errors import UserError
from vididi_jax.models.roi_align import roi_align


@pytest.mark.parametrize('case', regions.CASES)
def test_value_and_gradient_are_torchvisions(case):
    with jax.enable_x64(True):
        got = regions.ours(case)
    for part, want in regions.load()[case].items():
        assert got[part].dtype == np.float64
        np.testing.assert_allclose(got[part], want, rtol=0, atol=1e-9)


def test_a_linear_map_is_read_off_at_the_centres_of_the_bins():
    """Of a map that holds its own coordinates, a box inside of it gives those of its bins' centres."""
    rows, columns = np.mgrid[:8, :10] + 0.5
    features = jnp.asarray(np.stack([columns, rows], -1)[None] * 4)  # input pixels, at stride 4
    box = np.array([6.0, 5.0, 30.0, 17.0])
    got = roi_align(features, jnp.asarray(box)[None, None], output_size=(3, 4), spatial_scale=1 / 4, sampling_ratio=2)
    x, y = box[0] + (np.arange(4) + 0.5) * 6, box[1] + (np.arange(3) + 0.5) * 4
    np.testing.assert_allclose(got[0, 0], np.stack(np.meshgrid(x, y), -1), rtol=1e-5)  # float32


def test_low_precision_is_computed_in_float32():
    features = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    got = roi_align(features, jnp.array([[[0.0, 0.0, 4.0, 4.0]]]), output_size=2, sampling_ratio=1)
    assert got.dtype == jnp.float32 and got.shape == (1, 1, 2, 2, 2)
    np.testing.assert_allclose(got, 1)


@pytest.mark.parametrize(('options', 'message'), [
    (dict(output_size=7, sampling_ratio=-1), 'adaptive'), (dict(output_size=7, sampling_ratio=0), 'sampling_ratio'),
    (dict(output_size=(0, 7), sampling_ratio=2), '0 x 7')])
def test_what_has_no_static_shape_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        roi_align(jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 1, 4)), **options)
