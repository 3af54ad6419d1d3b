"""benchmarks/ahead.py, as far as it goes without the compilers of devices that are not here."""

import ast
import os
import subprocess
import sys

SCRIPT = '''
from benchmarks import ahead, hlo
from vididi_jax.config import load_config
from vididi_jax.train.mesh import make_mesh, replicated

for name in ('vicreg', 'byol'):
    config = load_config(f'configs/ucf101_{name}.py:smoke')
    lowered = ahead.lower_step(config, make_mesh(), (0, 2))
    print(*lowered, *(view.shape[:2] for view in lowered['differentiate'][0].out_info))
program, sharding = lowered['differentiate']
for placed in (sharding, replicated(make_mesh())):
    print(ahead.misplaced(program, program.compile(), placed))
print(dict(hlo.collectives("""
  %a = (f32[8,64]{1,0:T(8,128)}, bf16[4]{0}) all-reduce(%x, %y), metadata={op_name="step/mean"}
  %g = (f32[8,64]{1,0}, f32[64,64]{1,0}) all-gather-start(%x), dimensions={0}
  %h = f32[64,64]{1,0} all-gather-done(%g)
  %p = (pred[2]{0}, pred[2]{0}, u32[], u32[]) collective-permute-start(%x)
""")))
program = """
ENTRY %main (x.1: bf16[4,8]) -> f32[8] {
  %x.1 = bf16[4,8]{1,0} parameter(0)
  %y.2 = f32[8]{0} fusion(%x.1), kind=kLoop, metadata={op_name="jit(update)/jvp(Net)/stem/conv"}
  %z.3 = bf16[4,8]{1,0} fusion(%y.2), kind=kLoop, metadata={op_name="jit(update)/transpose(jvp(Net))/stem/conv"}, \
backend_config={"estimated_cycles":"70"}
  ROOT %w.4 = f32[8]{0} fusion(%z.3, %y.2), kind=kLoop, backend_config={"estimated_cycles":"5"}
"""
print(hlo.bytes_by_layer(program), hlo.cycles_by_layer(program), sep='\\n')
'''


def test_every_program_of_a_step_is_lowered_and_collectives_are_counted(root):
    """For eight devices; in a process of its own, because the script has flags of main.py's names."""
    eight = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=8'
    done = subprocess.run([sys.executable, '-c', SCRIPT], cwd=root, capture_output=True, text=True,
                          env={**os.environ, 'XLA_FLAGS': eight})
    assert done.returncode == 0, done.stderr[-3000:]
    vicreg, byol, right, wrong, found, layers, cycles = done.stdout.splitlines()
    assert vicreg == byol == 'augment differentiate update (8, 6) (8, 6)'
    assert right == '[]'
    assert [output.partition(':')[0] for output in ast.literal_eval(wrong)] == ['[0]', '[1]']  # both views
    assert ast.literal_eval(found) == {
        ('all-reduce', 'bf16 and f32'): [(8 * 64 * 4 + 4 * 2, 'f32[8,64] bf16[4]', 'step/mean')],
        ('all-gather', 'f32'): [(64 * 64 * 4, 'f32[64,64]', '')],
        ('collective-permute', 'pred'): [(2, 'pred[2]', '')]}
    assert ast.literal_eval(layers) == {'other': (128, 0), 'stem': (96, 96)}
    assert ast.literal_eval(cycles) == {'other': (5, 0), 'stem': (0, 70)}


def test_a_target_that_nobody_knows_is_refused_with_one_sentence(root):
    command = [sys.executable, 'benchmarks/ahead.py', '--target=v5e:big', '--config=configs/ucf101_vicreg.py']
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ''
    assert done.stderr.startswith("error: --target is 'v5e:big': give a TPU") and done.stderr.count('\n') == 1
