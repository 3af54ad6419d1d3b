"""What the compilers for accelerators say of a step, beside what they said before; exits with 1 where it became worse.

python benchmarks/ahead_all.py [--only=TEXT] [--store]

Compiles the update, and of R3D-18 the augmentation, of configs/ucf101_vicreg.py for each target of `CASES` (see
benchmarks/ahead.py, which each of them is a process of) and prints memory, bytes moved, collectives and bytes exchanged
of a device, and in brackets what benchmarks/ahead.json has. One of them may grow by 2 % at most. A full R3D-18 takes
half an hour of a core for a TPU; all others take one to five minutes. `make ahead` has the compilers.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from vididi_jax.errors import UserError, one_sentence

STORED = Path(__file__).with_suffix('').with_name('ahead.json')
CONFIG = Path(__file__).parents[1] / 'configs/ucf101_vicreg.py'
TOLERANCE = 1.02
RESNET, OTHERS = 'r3d_18', ('r2plus1d_18', 'mc3_18', 's3d')
CASES = [  # target, encoder, width, videos, programs
    ('h100:1', RESNET, 64, 64, 'augment,update'), ('h100:8', RESNET, 64, 64, 'augment,update'),
    ('h100:1', RESNET, 64, 256, 'update'), ('h100:8', RESNET, 64, 256, 'update'),
    *(('h100:1', name, 64, 64, 'update') for name in OTHERS),
    *(('v5e:1x1', name, 16, 64, 'update') for name in (RESNET, *OTHERS)),
    ('v5e:2x4', RESNET, 16, 64, 'update'),
    ('v5e:1x1', RESNET, 64, 64, 'augment'), ('v5e:1x1', RESNET, 64, 64, 'update'),
    ('v5e:2x4', RESNET, 64, 64, 'augment,update'),
]


def compile_case(target: str, encoder: str, width: int, videos: int, programs: str) -> dict[str, dict]:
    """{program: figures}."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / 'figures.json'
        done = subprocess.run([
            sys.executable, Path(__file__).with_name('ahead.py'), f'--target={target}', f'--programs={programs}',
            f'--config={CONFIG}', f'--config.model.name={encoder}', f'--config.model.width={width}',
            f'--config.batch_size={videos}', f'--record={record}'], stdout=subprocess.DEVNULL)
        if done.returncode:  # it has said why
            raise UserError(f'{encoder} of width {width} was not compiled for {target}, see above.')
        return json.loads(record.read_bytes())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', default='', help='text that the name of a case must have, such as "h100:8 r3d_18"')
    parser.add_argument('--store', action='store_true', help='write what is found into benchmarks/ahead.json')
    arguments = parser.parse_args()
    stored = json.loads(STORED.read_bytes()) if STORED.exists() else {}
    cases = {f'{target} {encoder} width {width}, {videos} videos: {programs}': case
             for case in CASES for target, encoder, width, videos, programs in [case]}
    chosen = [case for case in cases if arguments.only in case]
    if not chosen:
        raise UserError(f'--only={arguments.only} is in the name of no case: {"; ".join(cases)}.')
    worse, new = [], 0
    for case in chosen:
        for program, figures in compile_case(*cases[case]).items():
            name = f'{case.rpartition(":")[0]}: {program}'
            before = stored.get(name, {})
            lines = (f'  {what} {value:,} ({before.get(what, "new")})' for what, value in figures.items())
            print(name, *lines, sep='\n', flush=True)
            worse += [f'{name}: {what} {before[what]:,} -> {value:,}' for what, value in figures.items()
                      if value > TOLERANCE * before.get(what, value)]
            new += name not in stored
            stored[name] = figures
        if arguments.store:
            STORED.write_text(json.dumps(stored, indent=1) + '\n', encoding='utf-8')
    print(*(worse or ['nothing is worse than what is stored']), f'{new} programs had nothing stored', sep='\n')
    return 1 if worse and not arguments.store else 0


if __name__ == '__main__':
    with one_sentence():
        sys.exit(main())
