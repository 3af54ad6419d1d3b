"""Stop a training run again and again, and compare it with one that nobody touched.

python benchmarks/soak.py --kills=25 [--seed=0] [--out=DIR]

A tiny run of configs/motion_vicreg.py, as main.py runs it, gets SIGTERM, SIGINT or SIGKILL at random moments, half of
them while a checkpoint is written, and is started again, until it ends; then the next one begins. For each kill: what
happened, the exit code, the step to go on from, and the seconds until the last process of the run was gone. At the end
of each run every array of its final state, every row of its metrics and the videos of each of its batches are compared
bit by bit. Exit code 1 if anything differs, or if a process outlives the run by 10 seconds.
"""

import argparse
import json
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from vididi_jax.train.metric_writer import read_metrics, without_times  # noqa: E402

SIGNALS = signal.SIGTERM, signal.SIGINT, signal.SIGKILL
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}
STARTED: list[subprocess.Popen] = []
PATIENCE = 10  # seconds


def run_main() -> None:
    """main.py, with the videos of each batch written to WORKDIR/batches.jsonl."""
    from vididi_jax.train import pretrain

    workdir = next(word.partition('=')[2] for word in sys.argv if word.startswith('--workdir='))
    make_task, seen, launched = pretrain.make_task, [], []

    def make_noted(config, mesh):
        task = make_task(config, mesh)

        def complete(batch):
            seen.append(batch['record'].tolist())
            return task.complete(batch)

        def step(state, *arguments):
            if not launched:
                launched.append(int(state.step))  # later ones are counted: to ask would be to wait for the step before
            launched[0] += 1
            with Path(workdir, 'batches.jsonl').open('a', encoding='utf-8') as file:
                file.write(json.dumps([launched[0], seen[-1]]) + '\n')
            return task.step(state, *arguments)

        return task._replace(complete=complete, step=step)

    pretrain.make_task = make_noted
    runpy.run_path(str(ROOT / 'main.py'), run_name='__main__')


def start(workdir: Path, data: Path) -> subprocess.Popen:
    workdir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, 'run', '--config=configs/motion_vicreg.py:smoke', f'--workdir={workdir}',
               f'--config.data.dir={data}', '--config.data.workers=1', '--config.model.width=2', '--config.epochs=8',
               '--config.log.every_steps=1', '--config.checkpoint.every_steps=2', '--config.health.every_cycles=0']
    with (workdir / 'output.txt').open('a', encoding='utf-8') as output:
        STARTED.append(subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True))
    return STARTED[-1]


def rows(workdir: Path, name: str = 'metrics.jsonl') -> list:
    path = workdir / name
    return [json.loads(line) for line in path.read_text(encoding='utf-8').split('\n')[:-1]] if path.exists() else []


def is_saving(workdir: Path) -> bool:
    return any((workdir / 'checkpoints').glob('*.orbax-checkpoint-tmp*'))


def alive(session: int) -> list[int]:
    """Processes of a session, those aside that only wait to be reaped."""
    found = []
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, its = (entry / 'stat').read_text(encoding='utf-8').rpartition(')')[2].split()[:4]
            except OSError:
                continue
            if int(its) == session and state != 'Z':
                found.append(int(entry.name))
    return found


def outlived(session: int) -> float:
    """Seconds until no process of a session is left; inf after `PATIENCE`."""
    begin = time.monotonic()
    while alive(session):
        if time.monotonic() - begin > PATIENCE:
            return float('inf')
        time.sleep(0.05)
    return time.monotonic() - begin


def disturb(process: subprocess.Popen, workdir: Path, number: signal.Signals, in_save: bool, rng) -> str:
    """Send a signal at a random moment; 'in a save' or 'at a step', '' if the run was gone by then."""
    steps, delay = rng.randint(1, 12), rng.uniform(0, 0.02)
    before = len(rows(workdir, 'batches.jsonl'))
    while process.poll() is None:
        if len(rows(workdir, 'batches.jsonl')) >= before + steps and (not in_save or is_saving(workdir)):
            time.sleep(delay)
            place = 'in a save' if is_saving(workdir) else 'at a step'
            process.send_signal(number)
            return place if process.poll() is None else ''
        time.sleep(0.001)
    return ''


def outcome(workdir: Path) -> dict:
    """All that must be equal: checksums of the final arrays, metrics, and the videos of each batch."""
    last = max(int(path.name) for path in (workdir / 'checkpoints').iterdir() if path.name.isdigit())
    meta = json.loads((workdir / 'checkpoints' / str(last) / 'meta' / 'metadata').read_bytes())
    batches = {}
    for step, videos in rows(workdir, 'batches.jsonl'):
        batches.setdefault(step, []).append(videos)
    return {'step': last, 'arrays': meta['checksums'], 'metrics': without_times(read_metrics(workdir)),
            'batches': {step: tries[0] for step, tries in batches.items()},
            'repeated batches equal': all(each == tries[0] for tries in batches.values() for each in tries)}


def soak(kills: int, seed: int, out: Path) -> int:
    """How many things went wrong."""
    data = out / 'data'
    subprocess.run([sys.executable, '-m', 'data_prep', 'motion', '--train=64', '--test=8', f'--out={data}'], cwd=ROOT,
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    quiet = start(out / 'undisturbed', data)
    wrong = int(quiet.wait() != 0) + (outlived(quiet.pid) > PATIENCE)
    expected = outcome(out / 'undisturbed')
    rng, done, runs, seen = random.Random(seed), 0, 0, Counter()
    print(f'undisturbed: {expected["step"]} steps, {len(expected["arrays"])} arrays', flush=True)
    while done < kills or runs == 0:
        workdir, runs, killed = out / f'run{runs}', runs + 1, 0
        while True:
            process = start(workdir, data)
            number, in_save = SIGNALS[done % 3], done % 2 == 0
            hit = '' if done >= kills else disturb(process, workdir, number, in_save, rng)
            code = process.wait()
            left = outlived(process.pid)
            wrong += left > PATIENCE
            if not hit or code == 0:
                wrong += code != 0
                break
            done, killed = done + 1, killed + 1
            saved = max((int(p.name) for p in (workdir / 'checkpoints').glob('*') if p.name.isdigit()), default=0)
            expected_code = code == CODES[number]
            wrong += not expected_code
            seen[number.name, hit] += 1
            print(f'kill {done}: {number.name} {hit}, exit code {code}'
                  f'{"" if expected_code else " (WRONG)"}, all processes gone after {left:.1f} s, '
                  f'latest checkpoint {saved}', flush=True)
        got = outcome(workdir)
        differ = [name for name in expected if got[name] != expected[name]]
        wrong += len(differ)
        print(f'run {runs} ended after {killed} kills: '
              f'{"DIFFERENT: " + ", ".join(differ) if differ else "equal in every bit"}', flush=True)
    text = ', '.join(f'{count} {name} {place}' for (name, place), count in sorted(seen.items()))
    print(f'{done} kills ({text}) of {runs} runs, seed {seed}: {wrong} things wrong')
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=25, metavar='N')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--out', type=Path, help='an empty folder that stays (default: a temporary one)')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out.resolve() if arguments.out else Path(folder)
        try:
            sys.exit(soak(arguments.kills, arguments.seed, out) > 0)
        finally:
            for process in STARTED:  # which are no children of this terminal
                if process.poll() is None:
                    process.terminate()
                    process.wait()


if __name__ == '__main__':
    if sys.argv[1:2] == ['run']:
        del sys.argv[1]
        run_main()
    else:
        main()
