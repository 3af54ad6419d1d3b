"""metrics.jsonl and tensorboard: one row a logged step, cut back when a run resumes."""

import json
import os
from pathlib import Path

TIMES = {'data_wait', 'host_ms'}  # what a run that resumes need not repeat


class MetricsWriter:
    """Appends rows to `WORKDIR/metrics.jsonl` and their numbers to `WORKDIR/tensorboard`."""

    def __init__(self, workdir: str | Path, first_step: int):
        """Rows of steps after `first_step`, written by a run that was stopped, are removed first."""
        from tensorboardX import SummaryWriter

        self.path = Path(workdir) / 'metrics.jsonl'
        rows = [row for row in read_metrics(workdir) if row['step'] <= first_step]
        temporary = self.path.with_suffix('.tmp')
        temporary.write_text(''.join(json.dumps(row) + '\n' for row in rows))
        os.replace(temporary, self.path)
        self._file = self.path.open('a')
        self._tensorboard = SummaryWriter(str(Path(workdir) / 'tensorboard'), purge_step=first_step + 1)

    def __enter__(self) -> 'MetricsWriter':
        return self

    def __exit__(self, *_) -> None:
        self._file.close()
        self._tensorboard.close()

    def write(self, row: dict) -> None:
        """`row` has `step`; every other number goes to tensorboard under its own name."""
        self._file.write(json.dumps(row) + '\n')
        self._file.flush()
        for name, value in row.items():
            if name != 'step' and isinstance(value, (int, float)):
                self._tensorboard.add_scalar(name, value, row['step'])


def read_metrics(workdir: str | Path) -> list[dict]:
    """The complete rows of a workdir's metrics.jsonl; a last line that a kill cut short is not a row."""
    path = Path(workdir) / 'metrics.jsonl'
    if not path.exists():
        return []
    lines = path.read_text().split('\n')
    return [json.loads(line) for line in lines[:-1]]  # what follows the last newline is empty or incomplete


def without_times(rows: list[dict]) -> list[dict]:
    """What is the same for every run of a config: all but times.

    Example:
      >>> without_times([{'step': 1, 'loss': 0.5, 'data_wait': 0.01, 'host_ms': 2.5}])
      [{'step': 1, 'loss': 0.5}]
    """
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]
