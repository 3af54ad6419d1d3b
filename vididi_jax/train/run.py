"""A workdir's config.json: which config a run has, and what of it may differ when the run goes on."""

import json
from pathlib import Path

import ml_collections

from vididi_jax.config import flatten, from_dict, to_dict
from vididi_jax.errors import UserError

MAY_RISE = ('epochs',)  # fields that may be greater than they were; every other one must be the same


def write_config(config: ml_collections.ConfigDict, workdir: str | Path) -> None:
    """Write `WORKDIR/config.json`."""
    path = Path(workdir)
    path.mkdir(parents=True, exist_ok=True)
    (path / 'config.json').write_text(json.dumps(to_dict(config), indent=2) + '\n')


def workdir_config(workdir: str | Path) -> ml_collections.ConfigDict:
    """The config that a workdir was trained with."""
    path = Path(workdir) / 'config.json'
    if not path.is_file():
        raise UserError(f'{workdir} is not the workdir of a training run (it has no config.json): '
                        'give the --workdir that training wrote to.')
    return from_dict(json.loads(path.read_text()))


def check_same_run(config: ml_collections.ConfigDict, workdir: str | Path) -> None:
    """Raises `UserError` if `workdir` was started with another config; fields of `MAY_RISE` may have been raised."""
    path = Path(workdir) / 'config.json'
    if not path.exists():
        return
    before, now = flatten(json.loads(path.read_text())), flatten(to_dict(config))
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    refused = [name for name in changed if name not in MAY_RISE or now[name] < before[name]]
    if refused:
        name = min(refused, key=MAY_RISE.count)  # first one that may not change at all
        raise UserError(
            f'{workdir} was started with {name}={before.get(name)!r} and this command says {now.get(name)!r} '
            f'({len(changed)} field(s) differ): use another --workdir, or the same config; only '
            f'{", ".join(MAY_RISE)} may be raised.'
        )
