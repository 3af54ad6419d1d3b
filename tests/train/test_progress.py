"""The bar of a run."""

import gc
import weakref
from functools import partial
from io import StringIO
from types import SimpleNamespace

from tqdm import tqdm

from vididi_jax.train import progress


def test_the_bar_says_that_steps_are_compiled_and_about_how_long_once_one_was(tiny_config, tmp_path, monkeypatch):
    shown = StringIO()
    monkeypatch.setattr(progress, 'tqdm', partial(tqdm, file=shown, disable=False))
    task = SimpleNamespace(steps_per_epoch=1, phases=('one', 'two'))
    with progress.Progress(tiny_config, task, tmp_path, {'step': 0, 'epoch_losses': []}) as bar:
        for step, times in enumerate([(60.0, 1.0, 78.2), (0.0, 0.0, 3.0), (0.0, 0.0, 0.1)]):  # a minute for data
            bar.start_epoch(step)
            bar.launched(step + 1, progress.Times(*times))
            bar.ended(step + 1, (0, 0), {'loss': 1.0}, {})
            shown.write(f'epoch {step} ends')
            bar.end_epoch(0)
    first, second, third, _ = shown.getvalue().split('ends')
    assert 'compiling]' in first and 'compiling, about 17 s]' in second and 'compiling' not in third


def test_bars_of_epochs_that_are_over_are_not_kept(tiny_config, tmp_path, monkeypatch):
    bars = []

    def make(*arguments, **options):
        bar = tqdm(*arguments, **options)
        bars.append(weakref.ref(bar))
        return bar

    monkeypatch.setattr(progress, 'tqdm', make)
    task = SimpleNamespace(steps_per_epoch=1, phases=('',))
    with progress.Progress(tiny_config, task, tmp_path, {'step': 0, 'epoch_losses': []}) as bar:
        for step in range(5):
            bar.start_epoch(step)
            bar.ended(step + 1, (0, 0), {'loss': 1.0}, {})
            bar.end_epoch(0)
        gc.collect()
        assert sum(each() is not None for each in bars) == 1


def test_the_mean_loss_of_an_epoch_is_that_of_all_its_steps_and_a_cycle_has_the_last_ones(tiny_config, tmp_path):
    """Of a run that goes on in the middle of an epoch, too."""
    task = SimpleNamespace(steps_per_epoch=2, phases=('one', 'two'))
    meta = {'step': 3, 'epoch_losses': [9.0], 'losses': [5.0]}  # as a checkpoint of step 3 has them
    with progress.Progress(tiny_config, task, tmp_path, meta) as bar:
        for step in range(3, 6):
            if step in (3, 4):
                bar.start_epoch(step)
            bar.launched(step + 1, progress.Times(0.0, 0.0, 1.0))
            bar.ended(step + 1, (0, 0), {'loss': float(step)}, {} if step % 2 else None)
            if step % 2:
                bar.end_epoch(0)
    assert bar.epoch_losses == [4.0, 4.5] and bar.losses == []
