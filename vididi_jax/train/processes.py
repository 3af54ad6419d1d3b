"""Several processes as one program: how they are joined, and what one of them does for all."""

import os
import pickle
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from vididi_jax.errors import UserError, raise_stopped
from vididi_jax.lock import locked
from vididi_jax.train import mesh as meshes

# How an error starts that comes from below Python, but for those that a process makes itself.
STATUS = re.compile('(?!RESOURCE_EXHAUSTED|INVALID_ARGUMENT|UNIMPLEMENTED)[A-Z_]+: ')
PATIENCE = 300  # seconds that JAX gives all processes to start
PIECE = 2**30  # bytes of a message: features of a large set are more than an int32 counts


def join(detect: bool, coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Join the other processes of a program, if there are any; before anything else asks for the devices.

    Args:
      detect: ask the cluster (a TPU pod slice, SLURM, Open MPI, Kubernetes) for the other three.
      coordinator: 'HOST:PORT' of process 0.
      num_processes, process_id: how many there are, and which one this is, from 0.

    Raises:
      UserError: some of the three without the others, no cluster to ask, or a coordinator that does not answer.
    """
    given = {'coordinator': coordinator, 'num_processes': num_processes, 'process_id': process_id}
    absent = [f'--{name}' for name, value in given.items() if value is None]
    if len(absent) == len(given):
        if detect:
            _join_cluster()
        return
    if absent:
        raise UserError(f'{" and ".join(absent)} {"is" if len(absent) == 1 else "are"} missing: plain machines are '
                        'joined by --coordinator=HOST:PORT, --num_processes=N and --process_id=I together.')
    host, _, port = coordinator.rpartition(':')
    if not host or not port.isdigit() or int(port) > 65535:
        raise UserError(f'--coordinator is {coordinator!r}: give HOST:PORT of process 0.')
    if not 0 <= process_id < num_processes:
        raise UserError(f'--process_id is {process_id} and --num_processes {num_processes}: processes are numbered '
                        'from 0 to one less than their number.')
    if process_id == 0:
        _check_free(int(port))
    else:
        _wait_for(host, int(port))
    _connect(coordinator_address=coordinator, num_processes=num_processes, process_id=process_id,
             cluster_detection_method='deactivate')


def _join_cluster() -> None:
    try:
        _connect(local_device_ids=local_devices(os.environ))
    except ValueError as error:
        raise UserError('--multihost finds no TPU pod, SLURM job, Open MPI or Kubernetes around this process: on plain '
                        'machines give --coordinator=HOST:PORT, --num_processes=N and --process_id=I, and for one '
                        'process leave --multihost out.') from error


def _connect(**arguments) -> None:
    jax.distributed.initialize(**arguments)
    # The first collective of some devices connects them, and waits half a minute for it: now, before compiling drives
    # processes apart. Messages are for each device and its like in other processes, and steps are for all devices.
    multihost_utils.sync_global_devices('joined')
    mesh = meshes.make_mesh()
    ones = meshes.to_devices(mesh, {'ones': np.ones(jax.local_device_count(), np.float32)})['ones']
    jax.block_until_ready(jax.jit(jnp.sum)(ones))
    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, raise_stopped)  # which JAX has taken, for processes that tell each other


def _check_free(port: int) -> None:
    """Raises `UserError` if nobody can listen on a port of this machine, where JAX crashes."""
    try:
        socket.create_server(('', port)).close()
    except OSError as error:
        raise UserError(f'process 0 cannot listen on port {port} of this machine ({error.strerror}): give '
                        '--coordinator another one, in all processes.') from error


def _wait_for(host: str, port: int) -> None:
    """Return when something listens there; raises `UserError` after `PATIENCE` seconds, where JAX aborts."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host.strip('[]'), port), timeout=10).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(f'process 0 does not answer at {host}:{port} ({error.strerror or error}): start all '
                                f'processes within {PATIENCE} seconds, with the address of process 0 as '
                                '--coordinator.') from error
            time.sleep(1)


def local_devices(environment: Mapping[str, str]) -> list[int] | None:
    """The GPUs of a task of a SLURM job: [] for all that it sees, None for the one that has the task's local number.

    JAX gives each task the GPU of its number on the node. That is right where all tasks of a node see all of its GPUs,
    and wrong where there is one task a node, or where SLURM has given each task GPUs of its own.
    """
    tasks = environment.get('SLURM_STEP_TASKS_PER_NODE', environment.get('SLURM_TASKS_PER_NODE', ''))
    counts = {int(part.partition('(')[0]) for part in tasks.split(',') if part}  # such as '2(x3),1'
    visible = [name for name in environment.get('CUDA_VISIBLE_DEVICES', '').split(',') if name]
    alone = counts == {1} or bool({'SLURM_GPUS_PER_TASK', 'SLURM_STEP_GPUS_PER_TASK'} & environment.keys())
    bound = bool(visible and counts) and len(visible) < max(counts)
    return [] if alone or bound else None


@contextmanager
def exit_if_peer_lost() -> Iterator[None]:
    """Around what several processes do together: where one of them is gone, a sentence, and out with exit code 1.

    At once: JAX's own exit waits for those that are gone, and where process 0 is, it aborts within a second.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # collectives raise one or the other
        if jax.process_count() == 1 or not STATUS.match(str(error)):
            raise
        print(f'error: process {jax.process_index()} of {jax.process_count()} lost another one '
              f'({str(error).splitlines()[0][:200]}): see what that one says, and start all of them again; training '
              'goes on from its last checkpoint.', file=sys.stderr, flush=True)
        os._exit(1)


def check_devices() -> None:
    """Raises `UserError` where JAX finds no device of the kind that it was told to use."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get('JAX_PLATFORMS') or jax.config.jax_platforms
        told = ' '.join(str(error).split())[:200]
        raise UserError(f'JAX finds no device of JAX_PLATFORMS={asked}{f" ({told})" if told else ""}: unset it, or '
                        'install what that device needs (docs/install.md).') from error


def check_alone(what: str) -> None:
    """Raises `UserError` if there are other processes, whom `what` does not ask."""
    if jax.process_count() > 1:
        raise UserError(f'{what} is made by one process: give the same command once, without --multihost or '
                        '--coordinator.')


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return jax.process_index() == 0


def one_bar() -> dict[str, bool]:
    """Options of tqdm for a bar in the first process alone, which TQDM_DISABLE=1 turns off, as others."""
    return {} if is_first() else {'disable': True}


def on_process_zero(function: Callable) -> Callable:
    """`function`, run in the first process alone; what it returns or raises comes back in every process.

    The others wait. All must call it, in the same order; inside of it nothing may need all of them. Arguments are those
    of each process, and only the first one's are used; what is returned must pickle.
    """

    @wraps(function)
    def run(*args, **kwargs):
        if jax.process_count() == 1:
            return function(*args, **kwargs)
        outcome = _attempt(function, *args, **kwargs) if is_first() else None
        value, error = _broadcast(outcome)
        if error is not None:
            raise error
        return value

    return run


def raise_together(function: Callable) -> Callable:
    """`function`, run in every process; if it raises in one, all raise `UserError`, so that none waits for it."""

    @wraps(function)
    def run(*args, **kwargs):
        if jax.process_count() == 1:
            return function(*args, **kwargs)
        value, error = _attempt(function, *args, **kwargs)
        failed = multihost_utils.process_allgather(np.array(error is not None))
        if error is not None:
            raise error
        if failed.any():
            raise UserError(f'process {int(np.argmax(failed))} of {jax.process_count()} stopped with an error, which '
                            'its own output says, and so do all others.')
        return value

    return run


@contextmanager
def locked_together(folder: str | Path, advice: str) -> Iterator[None]:
    """`lock.locked`, by the first of several processes; where it cannot lock the folder, all raise `UserError`."""
    with ExitStack() as held:
        raise_together(lambda: is_first() and held.enter_context(locked(folder, advice)))()
        yield


def check_alike(values: Mapping[str, Any], free: tuple[str, ...]) -> None:
    """Raises `UserError` in every process if `values` are not the same in all, but for those named in `free`.

    Each would go on with its own, and what they exchange would be a mixture of them.
    """
    if jax.process_count() == 1:
        return
    decisive = {name: repr(value) for name, value in values.items()
                if not any(f'{name}.'.startswith(f'{other}.') for other in free)}
    first = on_process_zero(dict)(decisive)
    here = sorted(name for name in first.keys() | decisive.keys() if first.get(name) != decisive.get(name))
    differing = multihost_utils.process_allgather(np.array(len(here)))
    if here:
        raise UserError(f'process {jax.process_index()} has {here[0]}={decisive.get(here[0])} and process 0 '
                        f'{first.get(here[0])}: give all processes the same command and the same data.')
    if differing.any():
        raise UserError(f'process {int(np.argmax(differing > 0))} has another config or other data than process 0, as '
                        'its own output says: give all processes the same command and the same data.')


def _attempt(function: Callable, *args, **kwargs) -> tuple:
    """(what it returns, None), or (None, what it raises)."""
    try:
        return function(*args, **kwargs), None
    except Exception as error:
        return None, error


def _broadcast(outcome: tuple | None) -> tuple:
    """What the first process gives, in all of them."""
    data = np.frombuffer(pickle.dumps(outcome), np.uint8)
    pieces, rest = multihost_utils.broadcast_one_to_all(np.array(divmod(len(data), PIECE), np.int32))
    size = int(pieces) * PIECE + int(rest)
    padded = np.zeros(size, np.uint8) if outcome is None else data
    received = [np.asarray(multihost_utils.broadcast_one_to_all(padded[start : start + PIECE])).tobytes()
                for start in range(0, size, PIECE)]
    return pickle.loads(b''.join(received)) if outcome is None else outcome
