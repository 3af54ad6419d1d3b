"""The real clips of UCF101 under its official split 1: what is missing is refused, or said."""

import json
from argparse import Namespace

import numpy as np
import pytest

from configs import finetune, linear, retrieval, ucf101_vicreg
from data_prep import ucf101
from data_prep.writer import write_dataset
from vididi_jax.errors import UserError
from vididi_jax.tasks import TASKS
from vididi_jax.train.run import write_config

pytestmark = pytest.mark.realdata


@pytest.fixture(scope='module')
def workdir(vididi_data, tmp_path_factory):
    """A run of UCF101 that has not started yet."""
    root = tmp_path_factory.mktemp('ucf101')
    arguments = Namespace(videos=vididi_data / 'ucf101', splits=vididi_data / 'splits' / 'ucf101', split=1,
                          allow_missing=True, short_side=24, encoding='jpeg')
    write_dataset(*ucf101.plan(arguments), root / 'data', workers=1)
    training = ucf101_vicreg.get_config('smoke')
    training.data.dir, training.model.width, training.augment.size = str(root / 'data'), 2, 16
    write_config(training, root / 'work')
    return root / 'work'


@pytest.mark.parametrize('module', [retrieval, linear, finetune])
def test_each_protocol_refuses_what_is_incomplete_and_says_what_it_ran_on(workdir, module, small):
    import importlib

    config = module.get_config('smoke')
    config.eval.untrained, config.eval.clips, config.eval.frames = True, 1, 4
    if module is finetune:
        config.epochs = 1
    run = importlib.import_module(TASKS[config.task][0]).run
    with pytest.raises(UserError, match=r'57 of its 9,537 listed videos \(9,480 missing.*--config.allow_missing=True'):
        run(config, str(workdir))
    config.allow_missing = True
    metrics = run(config, str(workdir))
    assert all(np.isfinite(list(row.values())).all() for row in metrics.values())
    result = json.loads((workdir / 'eval' / config.eval.name / 'results.json').read_text())
    assert result['protocol'] == 'ucf101/split1'
    for side, listed in (('train', 9537), ('test', 3783)):
        counts = result['counts'][side]
        assert (counts['videos'], counts['listed'], counts['missing']) == (57, listed, listed - 57)
    assert result['test_videos_without_their_class_in_train'] == {'videos': 22, 'classes': 7}
    assert np.sum(result['confusion']['counts']) == 57 and len(result['confusion']['classes']) == 101
    assert max(row[name] for row in metrics.values() for name in row) <= 100 * 35 / 57 + 1e-9  # 22 are always misses
