"""The claim: with derivatives an encoder learns motion, without them it learns backgrounds. `make claim`.

Trains every framework with the schedules `base` and `vididi`, seed by seed, with one budget for all schedules of a
framework, on the motion data set, one process a core. Unless there is one seed only, also VICReg with other schedules
of the paper, and one framework on Weizmann's videos where they are, with the first seed. Evaluates each run (retrieval,
motion over background, linear probe), compares the schedules, and writes tables and a plot. What was done before is not
done again: a second start goes on. --first_seed and --data_seed ask of seeds and videos by which nothing was chosen.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from datetime import UTC, datetime
from pathlib import Path
from queue import Queue
from threading import Event, Lock
from typing import NamedTuple

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.commands import parse  # noqa: E402
from vididi_jax import pictures  # noqa: E402
from vididi_jax.compare import tables  # noqa: E402
from vididi_jax.compare.runs import Group, group_runs, read_run  # noqa: E402
from vididi_jax.compare.statistics import Figure, compare  # noqa: E402
from vididi_jax.config import load_config, to_dict  # noqa: E402
from vididi_jax.data.readers import usable_cpus  # noqa: E402
from vididi_jax.errors import UserError, one_sentence  # noqa: E402
from vididi_jax.evaluate.results import read_result  # noqa: E402
from vididi_jax.report.page import FRAMEWORKS  # noqa: E402
from vididi_jax.schedule import resolve  # noqa: E402
from vididi_jax.train.metric_writer import read_metrics  # noqa: E402
from vididi_jax.train.run import changed_fields, has_begun  # noqa: E402

CONFIGS = ('vicreg', 'simclr', 'byol')  # motion_NAME.py in configs
ABLATION = ('first_order', 'derivative_only', 'random')
EVALUATIONS = ('retrieval', 'tug', 'linear')
SALIENCY = ('health/saliency_on_motion', 'health/moving_pixels')
AGAINST = 'schedule=base'
WEIZMANN_EPOCHS = 80  # of the 300 of its config; in 40 the schedules hardly differ

RUNNING: set[subprocess.Popen] = set()  # which end with this process
STARTING = Lock()  # held while one is started, and while all are ended
ENDED = Event()  # from then on none is started


class Job(NamedTuple):
    """A run with its evaluations.

    Attributes:
      group: what it shares with those of other seeds, such as 'byol base'.
      workdir: its folder.
      train: command line of the training.
      evaluate: {folder below WORKDIR/eval: command line}.
    """

    group: str
    workdir: Path
    train: list[str]
    evaluate: dict[str, list[str]]


def motion_job(out: Path, framework: str, schedule: str, seed: int) -> Job:
    workdir = out / 'runs' / f'{framework}_{schedule}_{seed}'
    place = [f'--workdir={workdir}']
    config = load_config(f'{ROOT}/configs/motion_{framework}.py')
    cycle = len(resolve('vididi').phases)
    train = [f'--config=configs/motion_{framework}.py', *place, f'--config.data.dir={out / "motion"}',
             f'--config.schedule={schedule}', f'--config.seed={seed}',
             f'--config.health.every_cycles={config.epochs // cycle}']  # the last is told
    evaluate = {name: [f'--config=configs/{name}.py:motion', *place] for name in EVALUATIONS}
    evaluate['tug'].append(f'--config.data.dir={out / "triples"}')
    if (framework, schedule) == ('vicreg', 'vididi'):  # all start from the same weights
        for name in ('retrieval', 'tug'):
            evaluate[f'{name}_untrained'] = [
                *evaluate[name], '--config.eval.untrained=True', f'--config.eval.name={name}_untrained']
    return Job(f'{framework} {schedule}', workdir, train, evaluate)


def weizmann_job(out: Path, schedule: str, seed: int) -> Job:
    workdir = out / 'weizmann' / f'{schedule}_{seed}'
    place = [f'--workdir={workdir}']
    train = ['--config=configs/weizmann_vicreg.py', *place, f'--config.data.dir={out / "weizmann_data"}',
             f'--config.schedule={schedule}', f'--config.seed={seed}', f'--config.epochs={WEIZMANN_EPOCHS}']
    evaluate = {'retrieval': ['--config=configs/retrieval.py:grouped', *place, '--config.data.workers=0',
                              '--config.eval.frames=8', '--config.eval.stride=2']}
    return Job(f'weizmann {schedule}', workdir, train, evaluate)


def call(log: Path, cores: set[int], *words: str) -> None:
    """Run a command of this project on some cores; what it prints is added to a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    with log.open('a', encoding='utf-8') as file:
        with STARTING:
            if ENDED.is_set():
                raise UserError(f'{" ".join(words)} was not started, as another command failed.')
            process = subprocess.Popen(
                (sys.executable, *words), cwd=ROOT, stdout=file, stderr=file, preexec_fn=pin,
                process_group=0,  # Ctrl-C is this process's: what it ends by SIGTERM saves what it has
                env={**os.environ, 'JAX_PLATFORMS': 'cpu'})  # a core each, and no GPU for all
            RUNNING.add(process)
        with process:  # which is waited for, whatever is raised here
            process.wait()
        RUNNING.remove(process)
    if process.returncode:
        last = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()[-1:]
        raise UserError(
            f'{" ".join(words)} ended with {process.returncode} ({"".join(last):.300}): {log} has all of it.')


def check_asked(jobs: list[Job]) -> None:
    """Raises `UserError` if what is there of a job was made with other configs than its commands have now."""
    for job in jobs:
        found = {job.workdir: changed_fields(parse(job.train)[0], job.workdir)} if has_begun(job.workdir) else {}
        for name, words in job.evaluate.items():
            path = job.workdir / 'eval' / name / 'results.json'
            if path.exists():
                found[path] = read_result(path)['config'] != to_dict(parse(words)[0])
        for path in (path for path, differs in found.items() if differs):
            raise UserError(f'{path} was made with another config than today\'s: give another --out.')


def run_job(job: Job, log: Path, cores: Queue) -> None:
    core = cores.get()
    try:
        undone = [words for name, words in job.evaluate.items()
                  if not (job.workdir / 'eval' / name / 'results.json').exists()]
        if undone:  # in one process: to start one takes a while, and a training that has ended none
            call(log, core, 'benchmarks/commands.py', json.dumps([job.train, *undone]))
    finally:
        cores.put(core)


def run_all(jobs: list[Job], out: Path, processes: int) -> None:
    """All jobs, so many at a time, each on a core of its own where the system can say which."""
    ENDED.clear()
    known = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
    cores = Queue()
    for number in range(processes):
        cores.put({known[number % len(known)]} if known else set())
    with ThreadPoolExecutor(processes) as pool, tqdm(total=len(jobs), unit='run', dynamic_ncols=True) as bar:
        waiting = [pool.submit(run_job, job, out / 'logs' / f'{job.workdir.parent.name}_{job.workdir.name}.txt', cores)
                   for job in jobs]
        try:
            for future in waiting:
                future.result()
                bar.update()
        except BaseException:
            with STARTING:
                ENDED.set()
                for process in tuple(RUNNING):  # each saves what it has
                    process.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def named(group: Group) -> Group:
    """A group of runs whose loss is called by the name of its framework."""
    values = {field.removesuffix('.loss'): FRAMEWORKS.get(value, value) for field, value in group.values.items()}
    return group._replace(values=values, name=', '.join(f'{field}={value}' for field, value in values.items()))


def compared(jobs: list[Job], evaluations: tuple[str, ...]) -> list[Figure]:
    groups = [named(group) for group in group_runs([read_run(job.workdir) for job in jobs])]
    return compare(groups, list(evaluations), against=AGAINST, samples=10_000, seed=0)


def last_health(job: Job) -> dict[str, float]:
    rows = [row for row in read_metrics(job.workdir) if SALIENCY[1] in row]
    return {name: rows[-1].get(name, float('nan')) for name in SALIENCY}  # of a collapse there is no saliency


def untrained_rows(jobs: list[Job]) -> list[tuple]:
    """Mean over the seeds of the untrained encoder, as (evaluation, {kind of feature: percent})."""
    found = [read_run(job.workdir).results for job in jobs if 'tug_untrained' in job.evaluate]
    rows = []
    for name in ('retrieval', 'tug'):
        metrics = [result[f'{name}_untrained']['metrics'] for result in found]
        rows.append((name, {kind: sum(next(iter(m[kind].values())) for m in metrics) / len(metrics)
                            for kind in metrics[0]}))
    return rows


def saliency_table(jobs: list[Job]) -> str:
    """Markdown: share of the saliency on moving pixels, and share of those pixels, seed by seed."""
    found: dict[str, list[dict]] = {}
    for job in jobs:
        found.setdefault(job.group, []).append(last_health(job))
    lines = ['| framework, schedule | saliency on moving pixels | moving pixels |', '| --- | --- | --- |']
    for group, rows in found.items():
        cells = (' '.join(f'{100 * row[name]:.1f}' for row in rows) for name in SALIENCY)
        lines.append(f'| {" | ".join((group, *cells))} |')
    return '\n'.join(lines)


def plain_titles(text: str) -> str:
    """Titles of tables as bold lines, so that they are no sections of the file that they go into."""
    return re.sub(r'^### (.*)$', r'**\1**', text, flags=re.MULTILINE).strip()


def commits_of(jobs: list[Job]) -> list[str]:
    """Of all results, short, with '+changes' where the tree differed from it."""
    return shortened({result['commit'] for job in jobs for result in read_run(job.workdir).results.values()})


def training_commits(jobs: list[Job]) -> list[str]:
    """Of what trained the encoders, as far as their checkpoints say."""
    return shortened({commit for job in jobs for result in read_run(job.workdir).results.values()
                      for commit in result.get('training_commits', ())})


def shortened(found: set[str]) -> list[str]:
    return sorted(commit[:8] + commit[40:] for commit in found)  # of 40 digits, or 'unknown'


def as_json(figures: list[Figure]) -> list[dict]:
    return [{**figure.group.values, 'evaluation': figure.evaluation, 'features': figure.features,
             'metric': figure.metric, 'values': figure.values, 'mean': figure.mean, 'std': figure.std,
             'chance': figure.chance, 'against': figure.against, 'test': figure.test and figure.test._asdict()}
            for figure in figures]


def processor() -> str:
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r'model name\s*: (.*)', text)
    vector = next((flag for key, flag in (('avx512f', 'AVX-512'), ('avx2', 'AVX2')) if key in text), 'no AVX2')
    return f'{name[1] if name else platform.machine()} ({vector})'


def replace_section(path: Path, name: str, text: str) -> None:
    """Put `text` between the comments `<!-- NAME -->` and `<!-- /NAME -->` of a Markdown file."""
    marks = f'<!-- {name} -->', f'<!-- /{name} -->'
    old = path.read_text(encoding='utf-8')
    if not all(mark in old for mark in marks):
        raise UserError(f'{path} has no place for the section {name}: put {marks[0]} and {marks[1]} where it goes.')
    before, rest = old.split(marks[0], 1)
    path.write_text(f'{before}{marks[0]}\n{text}\n{marks[1]}{rest.split(marks[1], 1)[1]}', encoding='utf-8')


def minutes_in_all(out: Path, minutes: float) -> float:
    """These minutes and those of the starts before, which are kept beside the runs."""
    path = out / 'minutes.txt'
    minutes += float(path.read_text(encoding='utf-8')) if path.exists() else 0
    path.write_text(f'{minutes:.2f}\n', encoding='utf-8')
    return minutes


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('runs/claim'), help='data, runs, logs and tables (runs/claim)')
    parser.add_argument('--seeds', type=int, default=3, help='number of seeds of each group of runs (3); 1 for a quick '
                        'look, at the frameworks alone')
    parser.add_argument('--first_seed', type=int, default=0, help='the first of them (0)')
    parser.add_argument('--data_seed', type=int, default=0, help='of the motion data set and its triples (0)')
    parser.add_argument('--processes', type=int, default=usable_cpus(), help='runs at a time (one a core)')
    parser.add_argument('--weizmann', type=Path, help="folder of Weizmann's videos (VIDIDI_DATA/weizmann)")
    parser.add_argument('--write', action='store_true', help='put the section into RESULTS.md and README.md, '
                        'and the plot into docs/')
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if min(arguments.seeds, arguments.processes) < 1:
        raise UserError('--seeds and --processes must be at least 1.')
    if min(arguments.first_seed, arguments.data_seed) < 0:
        raise UserError('--first_seed and --data_seed must be at least 0.')
    out, start, quick = arguments.out.resolve(), time.monotonic(), arguments.seeds == 1
    if quick and (arguments.weizmann or arguments.write):
        raise UserError('--seeds=1 is a quick look, of no Weizmann and for no file: leave out --weizmann and --write.')
    if arguments.weizmann and not arguments.weizmann.is_dir():
        raise UserError(f'--weizmann is {arguments.weizmann}, and that is no folder.')
    weizmann = arguments.weizmann or Path(os.environ.get('VIDIDI_DATA', ROOT / '../shared/data')) / 'weizmann'
    weizmann = weizmann.resolve()  # data_prep is called from elsewhere
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    drawn = f'--seed={arguments.data_seed}'
    data = {'motion': ('motion', drawn), 'triples': ('motion', '--triples', drawn)}
    if not quick and weizmann.is_dir():
        data['weizmann_data'] = 'folder', f'--videos={weizmann}', '--group=^([a-z]+)_', '--short_side=64'
    elif not quick:
        print(f'no Weizmann: {weizmann} is no folder')
    for name, words in data.items():
        call(out / 'logs' / f'{name}.txt', set(), '-m', 'data_prep', *words, f'--out={out / name}')
    main_jobs = [motion_job(out, framework, schedule, seed) for seed in seeds
                 for framework in CONFIGS for schedule in ('base', 'vididi')]
    ablation = [] if quick else [motion_job(out, 'vicreg', schedule, seeds[0]) for schedule in ABLATION]
    real = [weizmann_job(out, schedule, seeds[0]) for schedule in ('base', 'vididi') if 'weizmann_data' in data]
    with chdir(ROOT):  # where the configs are that commands name
        check_asked([*main_jobs, *ablation, *real])
    try:  # the long ones first, so that none is left with them at the end
        run_all([*main_jobs[:1], *ablation, *main_jobs[1:], *real], out, arguments.processes)
    finally:
        minutes = minutes_in_all(out, (time.monotonic() - start) / 60)
    vicreg = [job for job in main_jobs[:2 * len(CONFIGS)] if job.workdir.name.startswith('vicreg')]  # of the first seed
    write(out, compared(main_jobs, EVALUATIONS), compared([*vicreg, *ablation], EVALUATIONS) if ablation else [],
          compared(real, ('retrieval',)) if real else [], main_jobs, [*ablation, *real], minutes, arguments)


def write(out, figures, ablation, real, main_jobs, others, minutes: float, arguments) -> None:
    """claim.json, claim.png and claim.md in `out`, and where `--write` says."""
    flags = {name: getattr(arguments, name) for name in ('seeds', 'first_seed', 'data_seed')}
    first, last = arguments.first_seed, arguments.first_seed + arguments.seeds - 1
    command = ' '.join(['python benchmarks/claim.py', *(f'--{name}={n}' for name, n in flags.items() if n)])
    about = {'command': command, 'processor': processor(),
             'processes': arguments.processes, 'minutes': round(minutes), 'commits': commits_of([*main_jobs, *others]),
             'training_commits': training_commits([*main_jobs, *others]),
             'date': datetime.now(UTC).date().isoformat(), **flags}
    (out / 'claim.json').write_text(json.dumps({
        **about, 'frameworks': as_json(figures), 'ablation': as_json(ablation), 'weizmann': as_json(real),
        'untrained': dict(untrained_rows(main_jobs)),
        'saliency': {job.workdir.name: last_health(job) for job in (*main_jobs, *others) if 'tug' in job.evaluate},
    }, indent=2) + '\n', encoding='utf-8')
    shown = tables.first_metrics(figures)
    (out / 'claim.png').write_bytes(pictures.group_bars([
        *(figure for figure in shown['retrieval'] if figure.features != 'd2V'),
        *(figure for figure in shown['tug'] if figure.features == 'V')]))
    untrained = '; '.join(f'{name}: ' + ', '.join(f'{kind} {value:.1f}' for kind, value in row.items())
                          for name, row in untrained_rows(main_jobs))
    evaluated, trained = (', '.join(about[name]) for name in ('commits', 'training_commits'))
    by = f'commit {evaluated}' if trained in ('', evaluated) else f'trained by {trained}, evaluated by {evaluated}'
    head = (f'`{about["command"]}`: {about["processor"]}, {about["processes"]} runs at a time, one core each, '
            f'{about["minutes"]} minutes, {by}, {about["date"]}. Seeds {first} to {last}, videos of seed '
            f'{arguments.data_seed}; the same budget for all schedules of a framework.')
    start = f'Untrained, mean over the seeds: {untrained}.'
    parts = [head, tables.markdown(figures, AGAINST), start,
             'Share of the saliency on moving pixels of training clips, percent, at the end, seed by seed:\n\n'
             + saliency_table(main_jobs)]
    first_two = tables.markdown([figure for figure in figures if figure.evaluation != 'linear'], AGAINST)
    short = '\n\n'.join([head, first_two.strip(), start])
    if ablation:
        parts += [f'Other schedules, VICReg, seed {first}:', tables.markdown(ablation, AGAINST)]
    if real:
        parts += [f'Weizmann, each person in turn against all others, VICReg, {WEIZMANN_EPOCHS} epochs, seed {first}:',
                  tables.markdown(real, AGAINST)]
    text = plain_titles('\n\n'.join(part.strip() for part in parts))
    (out / 'claim.md').write_text(text + '\n', encoding='utf-8')
    print(text)
    if arguments.write:
        replace_section(ROOT / 'benchmarks' / 'RESULTS.md', 'claim', text)
        replace_section(ROOT / 'README.md', 'claim', plain_titles(short))
        (ROOT / 'docs' / 'claim.png').write_bytes((out / 'claim.png').read_bytes())
    print(f'written to {out}: claim.json, claim.md, claim.png')


if __name__ == '__main__':
    with one_sentence():
        main()
