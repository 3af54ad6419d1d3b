"""metrics.jsonl, tensorboard and Weights & Biases: one row a logged step, cut back when a run resumes."""

import json
import os
import uuid
from pathlib import Path

from vididi_jax.config import to_dict
from vididi_jax.errors import UserError
from vididi_jax.files import write_whole

START = '{"step": '  # of a row, also of one that a kill cut short
TIMES = {'data_wait', 'host_ms'}  # what a run that resumes need not repeat


class Jsonl:
    """Rows as lines of `WORKDIR/metrics.jsonl`, which goes on after `first_step`."""

    def __init__(self, workdir: Path, first_step: int, config: dict):
        self.path = workdir / 'metrics.jsonl'
        rows = [row for row in read_metrics(workdir) if row['step'] <= first_step]
        write_whole(self.path, ''.join(json.dumps(row) + '\n' for row in rows))
        self._file = self.path.open('a', encoding='utf-8')

    def write(self, row: dict) -> None:
        self._file.write(json.dumps(row) + '\n')
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Tensorboard:
    """The numbers of rows in `WORKDIR/tensorboard`, under their own names."""

    def __init__(self, workdir: Path, first_step: int, config: dict):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(workdir / 'tensorboard'), purge_step=first_step + 1)

    def write(self, row: dict) -> None:
        for name, value in numbers(row).items():
            self._writer.add_scalar(name, value, row['step'])

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """The numbers of rows in a run of Weights & Biases, one a workdir, with its config.

    Where, and whether online, say its own environment variables: WANDB_MODE=offline, WANDB_PROJECT, WANDB_ENTITY. A run
    that resumes gives steps again that it gave before it was stopped: the same numbers, which are not taken twice. One
    that begins anew, perhaps with another config, is a run of its own.
    """

    def __init__(self, workdir: Path, first_step: int, config: dict):
        import wandb

        name = workdir / 'wandb_run.txt'
        if first_step == 0 or not name.exists():
            name.write_text(uuid.uuid4().hex, encoding='utf-8')
        try:
            self._run = wandb.init(
                project=os.environ.get('WANDB_PROJECT', 'vididi_jax'), id=name.read_text(encoding='utf-8'),
                name=workdir.name, resume='allow', dir=str(workdir), config=config)
        except wandb.Error as error:  # nobody is logged in, most often
            told = ' '.join(str(error).split())[:200]
            raise UserError(f"Weights & Biases does not start ({told}): log in with `wandb login`, set "
                            "WANDB_MODE=offline, or leave 'wandb' out of config.log.to.") from error

    def write(self, row: dict) -> None:
        self._run.log(numbers(row), step=row['step'])

    def close(self) -> None:
        self._run.finish()


LOGS = {'jsonl': Jsonl, 'tensorboard': Tensorboard, 'wandb': Wandb}


def check_logs(to: tuple[str, ...]) -> None:
    """Raises `UserError` without metrics.jsonl, and for one of `LOGS` whose library is not installed."""
    if 'jsonl' not in to:
        raise UserError(f"config.log.to is {tuple(to)}: add 'jsonl', which the report and a run that resumes read.")
    if 'wandb' in to:
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise UserError("config.log.to has 'wandb', which is not installed: pip install wandb, or leave it out."
                            ) from error


def numbers(row: dict) -> dict[str, float]:
    """What can be drawn against the step.

    Example:
      >>> numbers({'step': 1, 'orders': [0, 1], 'loss': 0.5})
      {'loss': 0.5}
    """
    return {name: value for name, value in row.items() if name != 'step' and isinstance(value, int | float)}


class MetricsWriter:
    """Writes each row wherever `config.log.to` says."""

    def __init__(self, workdir: str | Path, first_step: int, config):
        """Rows of steps after `first_step`, written by a run that was stopped, are removed first."""
        self._logs = [LOGS[name](Path(workdir), first_step, to_dict(config)) for name in config.log.to]

    def __enter__(self) -> 'MetricsWriter':
        return self

    def __exit__(self, *_) -> None:
        for log in self._logs:
            log.close()

    def write(self, row: dict) -> None:
        """`row` has `step`."""
        for log in self._logs:
            log.write(row)


def read_metrics(workdir: str | Path) -> list[dict]:
    """The complete rows of a workdir's metrics.jsonl; a last line that a kill cut short is not a row.

    Raises `UserError` for another line that is damaged.
    """
    path = Path(workdir) / 'metrics.jsonl'
    if not path.exists():
        return []
    rows, lines = [], path.read_bytes().split(b'\n')[:-1]  # what follows the last is empty or incomplete
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or {type(row.get('step')), type(row.get('epoch', 0))} != {int}:
                raise ValueError(f'{str(row):.80} is no row of a step')
            rows.append(row)
        except ValueError as error:
            raise UserError(f'{path}, line {number} is damaged ({error}): mend or delete that line.') from error
    return rows


def is_own(path: Path) -> bool:
    """Whether all lines of a metrics.jsonl are rows of a run; damaged ones that begin so are, too."""
    return all(map(_is_row, path.read_text(encoding='utf-8', errors='replace').splitlines()))


def _is_row(line: str) -> bool:
    line = line.strip('\0')  # which a power cut may leave
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return line.startswith(START) or START.startswith(line)
    return isinstance(row, dict) and {'step', 'loss'} <= row.keys()


def without_times(rows: list[dict]) -> list[dict]:
    """What is the same for every run of a config: all but times.

    Example:
      >>> without_times([{'step': 1, 'loss': 0.5, 'data_wait': 0.01, 'host_ms': 2.5}])
      [{'step': 1, 'loss': 0.5}]
    """
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]
