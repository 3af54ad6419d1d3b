"""A config that trains in seconds."""

import pytest

from configs import motion_vicreg


@pytest.fixture
def tiny_config(tiny_motion):
    """Four epochs of six steps on `tiny_motion`: one cycle of the schedule."""
    config = motion_vicreg.get_config('smoke')
    config.data.dir = str(tiny_motion)
    config.model.width = 2
    config.framework.projector = (16, 16, 16)
    config.augment.size = 16
    config.log.every_steps = 1
    config.checkpoint.every_steps = 4
    return config
