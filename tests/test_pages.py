"""The commands of the pages, carried out one after the other as a user would, on made-up videos: `make docs`.

Trainings and evaluations take the `:smoke` variant of their config, data sets of synthetic videos a few videos. What
needs a cluster, a bucket or the network is left out, and so is what `make` starts; test_docs.py parses those.
"""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data_prep.videos import ramp, write_video
from tests.pages import ROOT, blocks, commands
from vididi_jax.models import create_encoder

pytestmark = pytest.mark.pages

PAGES = ('data.md', 'training.md', 'encoders.md', 'tour.md', 'evaluation.md', 'detection.md', 'performance.md',
         'results.md', 'install.md', 'README.md', 'index.md')  # each may use what the ones before have made
TRAIN = 'python main.py --config=configs/{}.py:smoke --workdir=runs/{} --config.data.dir=data/{}'
BEFORE = {  # what a page takes for granted
    'evaluation.md': [
        TRAIN.format('k400_vicreg', 'k400', 'k400'),
        *(f'{TRAIN.format("ucf101_vicreg", name, "ucf101")} --config.schedule={schedule} --config.seed={seed}'
          for name, schedule, seed in (('a0', 'first_order', 0), ('a1', 'first_order', 1), ('b', 'base', 0))),
        *(f'python main.py --config=configs/retrieval.py --workdir=runs/{name}' for name in ('a0', 'a1', 'b'))],
    'detection.md': [
        'python -m data_prep motion --out=data/motion', TRAIN.format('motion_vicreg', 'demo/seed0', 'motion')],
}
FEW = {'--triples': ['--test=8'], '--boxes': ['--train=24', '--test=8']}


def write_lists(folder: Path) -> None:
    """UCF101, HMDB51, Kinetics and AVA with few small videos, and their lists; folders of videos, and one video."""
    def video(path, number, frames=24):
        write_video(folder / path, ramp(frames, 48, 64, seed=number))

    classes = [(number, name) for number, name in enumerate(('Bowling', 'Diving'), 1)]
    lists = folder / 'ucfTrainTestlist'
    lists.mkdir()
    (lists / 'classInd.txt').write_text(''.join(f'{number} {name}\n' for number, name in classes))
    for split in (1, 2, 3):
        for side in ('train', 'test'):
            paths = [(f'{name}/v_{name}_g{group:02d}_c{clip:02d}.avi', number) for number, name in classes
                     for group in (1, 2, 3) for clip in (1, 2, 3) if (group == split) == (side == 'test')]
            lines = (path if side == 'test' else f'{path} {number}' for path, number in paths)
            (lists / f'{side}list0{split}.txt').write_text('\n'.join(lines))
            for number, (path, _) in enumerate(paths):
                video(f'UCF-101/{path}', number)

    (folder / 'testTrainMulti_7030_splits').mkdir()
    for number in range(51):
        names = [f'film{number}_{side}_class{number}_u_cm_np1_fr_med_0.avi' for side in ('train', 'test')]
        lines = ''.join(f'{name} {place} \n' for place, name in enumerate(names, 1))
        (folder / 'testTrainMulti_7030_splits' / f'class{number}_test_split1.txt').write_text(lines)
        for name in names:
            video(f'hmdb51/class{number}/{name}', number)

    for split, count in (('train', 16), ('val', 4)):
        with (folder / f'{split}.csv').open('w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(('label', 'youtube_id', 'time_start', 'time_end', 'split', 'is_cc'))
            for number in range(count + 1):  # the last one is missing
                writer.writerow((f'class {number % 2}', f'{split[0]}-{number:09d}', 0, 10, split, 0))
                if number < count:
                    video(f'k400/{split}/{split[0]}-{number:09d}_000000_000010.mp4', number)

    box = '0.1,0.2,0.5,0.9'
    for name, side in (('one', 'train'), ('two', 'val')):
        video(f'ava/{name}.mp4', 0, frames=120)
        rows = (f'{name},{second:04d},{box},{action},0\n' for second in range(2, 10) for action in (1, 2))
        (folder / f'ava_{side}_v2.2.csv').write_text(''.join(rows))
    for path in ('all_80.pbtxt', 'evaluated_60.pbtxt'):
        (folder / path).write_text(''.join(f'item {{\n  name: "action {n}"\n  id: {n}\n}}\n' for n in (1, 2)))
    (folder / 'excluded_val.csv').write_text('two,0009\n')
    (folder / 'persons.csv').write_text(''.join(f'two,{second:04d},{box},,0.95\n' for second in range(2, 10)))

    for number in range(40):
        video(f'MY_VIDEOS/{"ab"[number % 2]}/{number}.mp4', number)
    for number in range(2):
        video(f'NEW_VIDEOS/{number}.mp4', number)
    video('my.mp4', 0)


def in_seconds(words: list[str]) -> list[str]:
    """The command, such that it takes seconds."""
    if words[:2] == ['vididi', 'train'] or words[:2] == ['vididi', 'evaluate']:
        if ':' not in words[2]:
            words = [*words[:2], f'{words[2]}:smoke', *words[3:]]
    elif words[:2] == ['python', 'main.py']:
        words = [re.sub(r'^(--config=configs/\w+\.py)$', r'\1:smoke', word) for word in words
                 if not word.startswith('--config.epochs=')]
    elif words[:3] == ['python', '-m', 'data_prep'] and words[3] == 'motion':
        words = [*words, *next((few for flag, few in FEW.items() if flag in words), ['--train=48', '--test=16'])]
    if words[0] == 'vididi':
        return [sys.executable, '-c', 'from vididi_jax.command import main; main()', *words[1:]]
    return [sys.executable, *words[1:]]


@pytest.fixture(scope='module')
def stage(tmp_path_factory):
    """A folder with the checkout's code and the data that the pages name."""
    folder = tmp_path_factory.mktemp('stage')
    for name in ('main.py', 'configs', 'data_prep', 'vididi_jax', 'constraints', 'requirements.txt'):
        (folder / name).symlink_to(ROOT / name)
    write_lists(folder)
    write_weights(folder / 'r3d_18.safetensors')
    return folder


def write_weights(path: Path) -> None:
    """Random weights under torchvision's names, in the one format that needs no PyTorch."""
    import jax
    import numpy as np

    from vididi_jax.models.torchvision import to_state_dict
    from vididi_jax.weights import write_weights as write

    variables = jax.jit(create_encoder('r3d_18').init)(jax.random.key(0), np.zeros((1, 8, 16, 16, 3), np.float32))
    write(path, to_state_dict('r3d_18', jax.device_get(variables)))


def call(stage: Path, words: list[str], where: str) -> None:
    done = subprocess.run(words, cwd=stage, capture_output=True, text=True)
    assert done.returncode == 0, f'{where}: {" ".join(words[1:])}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}'


@pytest.mark.parametrize('name', PAGES)
def test_commands_of_a_page(name, stage):
    page = ROOT / name if name == 'README.md' else ROOT / 'docs' / name
    for words in commands('\n'.join(BEFORE.get(name, ()))):
        call(stage, in_seconds(words), f'before {name}')
    for block in (*blocks(page, 'bash'), *blocks(page, 'python')):
        if block.language == 'python':
            call(stage, [sys.executable, '-c', block.text.replace("vicreg')", "vicreg:smoke')")], str(block))
            continue
        for words in commands(block.text):
            if words[0] in ('python', 'vididi'):
                words = [word.replace('.pth', '.safetensors') for word in in_seconds(words)]  # .pth needs PyTorch
                call(stage, words, str(block))


def test_the_run_of_the_additions(extended):
    """docs/extend.md, all at once, through to the page of the run."""
    prepare, train = (words for block in blocks(ROOT / 'docs' / 'extend.md', 'bash') for words in commands(block.text))
    for words in (prepare, [*train[:2], f'{train[2]}:smoke', *train[3:]]):
        call(extended, [sys.executable, *words[1:]], 'docs/extend.md')
    page = (extended / 'runs' / 'arrays' / 'report' / 'index.html').read_text()
    assert 'id="orders"' in page and 'barlow_twins' in page
