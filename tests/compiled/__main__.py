"""Programs as they are compiled against float64, one operation at a time; exits with 1 if anything differs.

python -m tests.compiled                              every program of every config, on 1 and on 8 devices
python -m tests.compiled --whole                      the same with the configs' own encoders
python -m tests.compiled --share                      the part of it that the test suite runs
python -m tests.compiled --kinds= --augmentations=200 every pixel of drawn augmentations, on 1 and on 8 devices

XLA_FLAGS are the caller's: --xla_backend_optimization_level=0, --xla_cpu_max_isa=AVX2.
"""

import argparse
import os

parser = argparse.ArgumentParser(prog='python -m tests.compiled', description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--kinds', help='of programs, with commas between; all if not given')
parser.add_argument('--share', action='store_true', help='what the test suite has time for')
parser.add_argument('--whole', action='store_true', help='encoders of the configs instead of one convolution')
parser.add_argument('--augmentations', type=int, help='number to draw beside two given ones')
parser.add_argument('--devices', type=int, default=8)
arguments = parser.parse_args()
os.environ['XLA_FLAGS'] = (f'{os.environ.get("XLA_FLAGS", "")} '
                           f'--xla_force_host_platform_device_count={arguments.devices}')

import jax  # noqa: E402

from tests.compiled import draws, programs  # noqa: E402
from tests.compiled.check import check  # noqa: E402
from tests.compiled.kinds import KINDS  # noqa: E402


def check_programs(kinds: list[str]) -> bool:
    """Whether all programs of these kinds give what they must."""
    every, worst, failed = programs.every_program(), {}, 0
    chosen = programs.share(every) if arguments.share else [(one, (1, arguments.devices)) for one in sorted(every)]
    chosen = [(one, devices) for one, devices in chosen if one.kind in kinds]
    for number, (one, devices) in enumerate(chosen, 1):
        try:
            for count, value in check(one, devices, arguments.whole).items():
                worst[one.kind, count] = max(worst.get((one.kind, count), 0), value)
        except AssertionError as error:
            failed += 1
            print(error, flush=True)
        if number % 20 == 0:
            jax.clear_caches()
    for (kind, count), value in sorted(worst.items()):
        print(f'{kind}, {count} device{"s" * (count > 1)}: at most {value:.1e} of the tolerance')
    if chosen:
        print(f'{len(chosen) - failed} of {len(chosen)} programs are those of float64')
    return not failed


sound = check_programs(list(KINDS) if arguments.kinds is None else arguments.kinds.split(','))
if arguments.augmentations is not None:
    sound &= draws.measure(arguments.augmentations, arguments.devices)
print(f'jax {jax.__version__}, XLA_FLAGS={os.environ["XLA_FLAGS"].strip()}')
raise SystemExit(0 if sound else 1)
