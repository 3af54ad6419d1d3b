"""The inspect task: what is printed is what would run, and nothing is written."""

import re

import jax
import pytest
from ml_collections import ConfigDict

from tests.train.test_step import ORDERS, small_step
from vididi_jax.train import inspection


def test_everything_is_printed_and_nothing_written(tiny_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    inspection.run(tiny_config, None)
    printed = capsys.readouterr().out
    for text in ('framework.loss', '48 videos used of 48 listed', 'steps: 6 an epoch, 24 in all',
                 'phase 2: orders (1, 0)', 'record: 24 frames of 16x16', 'clips uint8 (8, 2, 10, height, width, 3)',
                 'projector/Dense_2/kernel', 'encoder in all: ',
                 'TFLOP a step (as many as 3 forward passes of 16 clips)', 'memory: at most 0.',
                 f' ms an update on {jax.device_count()} x cpu, '):
        assert text in printed
    assert not list(tmp_path.iterdir())


def test_an_update_that_does_not_fit_is_not_run(tiny_config, monkeypatch, capsys):
    """The memory of an update holds its temporaries: every activation that the backward pass asks for."""
    monkeypatch.setattr(inspection, 'free_memory', lambda: 1e6)
    tiny_config.batch_size = 48
    inspection.run(tiny_config, None)
    printed = capsys.readouterr().out
    assert 'time: not measured' in printed
    needed = float(re.search(r'memory: at most ([\d.]+) GB', printed)[1])
    views = 4 * 2 * 48 * 8 * 16 * 16 * 3 / 1e9 / jax.device_count()
    assert needed > 3 * views


def test_an_update_that_cannot_be_compiled_is_one_line(tiny_config, monkeypatch, capsys):
    """As a compiler for TPUs says that it takes more memory than there is."""
    def lower(*_):
        raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm.\nMore')

    monkeypatch.setattr(inspection, 'lower_update', lower)
    inspection.run(tiny_config, None)
    assert ('memory: no update can be compiled for these devices (RESOURCE_EXHAUSTED: Ran out of memory in memory '
            'space hbm.)') in capsys.readouterr().out


@pytest.mark.parametrize(('schedule', 'length', 'frames'), [
    ('vididi', 'shrink', 8), ('derivative_only', 'shrink', 7), ('derivative_only', 'constant', 8)])
def test_the_longest_views_are_those_that_a_step_can_get(schedule, length, frames):
    config = ConfigDict({'schedule': schedule, 'clip': {'frames': 8, 'length': length}})
    assert inspection.longest_view(config) == frames


@pytest.mark.parametrize(('name', 'gflop'), [('r3d_18', 40.7), ('r2plus1d_18', 40.5), ('mc3_18', 43.3)])
def test_operations_are_the_known_ones(name, gflop):
    """Of a clip of 8 x 112 x 112, two operations a multiply-add."""
    model = ConfigDict({'name': name, 'width': 64})
    assert inspection.forward_flops(model, 8, 112) / 1e9 == pytest.approx(gflop, abs=0.05)


def test_parameters_are_listed_one_by_one():
    table = inspection.parameter_table({'a': {'kernel': jax.numpy.zeros((3, 4))}, 'b': jax.numpy.zeros(())})
    assert table == [('a/kernel', '3x4', 12), ('b', '1', 1)]


def products(jaxpr, shapes):
    """How many matrix products have operands of these shapes."""
    inner = [getattr(value, 'jaxpr', value) for equation in jaxpr.eqns for value in equation.params.values()]
    return sum(equation.primitive.name == 'dot_general' and [v.aval.shape for v in equation.invars] == shapes
               for equation in jaxpr.eqns) + sum(products(one, shapes) for one in inner if hasattr(one, 'eqns'))


def test_byols_target_is_one_forward_pass_more_as_inspect_counts():
    """By the first layer of `Flat`; what remat computes again is counted in tests/models/test_encoders.py."""
    def passes(loss):
        _, update, state, views = small_step(loss)
        return products(update.trace(state, tuple(views), ORDERS).jaxpr.jaxpr, [(16, 24), (24, 8)])

    def said(loss, remat=False):
        return inspection.step_forwards(ConfigDict({'framework': {'loss': loss}, 'model': {'remat': remat}}))

    assert (passes('vicreg'), passes('byol')) == (1, 2)
    assert (said('vicreg'), said('byol'), said('vicreg', True)) == (3, 4, 4)
