"""A motion data set small enough to train on in seconds."""

import argparse

import pytest

from configs import motion_vicreg
from data_prep import motion
from data_prep.writer import write_dataset


@pytest.fixture(scope='session')
def tiny_motion(tmp_path_factory):
    """48 training and 16 test videos of 24 frames of 16 x 16."""
    out = tmp_path_factory.mktemp('motion') / 'data'
    arguments = argparse.Namespace(train=48, test=16, frames=24, size=16, seed=0)
    write_dataset(*motion.plan(arguments), out, workers=1)
    return out


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
