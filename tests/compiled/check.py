"""Run programs on one device and on several, and hold every element against float64."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled.kinds import KINDS, Case
from tests.compiled.programs import Program
from vididi_jax.train import mesh as meshes


def wide(tree):
    """float32 arrays as float64."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if x.dtype == np.float32 else jnp.asarray(x), tree)


def reference(case: Case):
    """What must come out, nothing compiled together, in float64."""
    with jax.disable_jit(), jax.enable_x64(True):
        if case.want is not None:
            return jax.tree.map(np.asarray, case.want(wide(case.state), case.batch))
        return jax.tree.map(np.asarray, case.run(wide(case.state), wide(case.batch), jnp.float64))


def deviations(got, want, relative: bool) -> dict[str, float]:
    """{path: largest difference}, of each array; infinite where something is not a number."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    found = {}
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape, jax.tree_util.keystr(path)
        scale = max(np.abs(b).max(initial=0), 1e-6) if relative else 1.0
        worst = np.abs(a - b).max(initial=0) / scale
        found[jax.tree_util.keystr(path)] = float(worst) if np.isfinite(worst) else np.inf
    return found


def check(program: Program, devices: tuple[int, ...] = (1, 8), whole: bool = False) -> dict[int, float]:
    """{number of devices: largest deviation, as a share of what is allowed}."""
    case = KINDS[program.kind](whole, **program.arguments)
    want, worst = reference(case), {}
    for count in devices:
        if count == 1:
            state, batch = jax.tree.map(jnp.asarray, (case.state, case.batch))
        else:
            mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ('data',))
            state, batch = meshes.replicate(mesh, case.state), meshes.to_devices(mesh, case.batch)
        got = case.run(state, batch, jnp.float32)
        if case.state is None and count > 1:  # each device keeps its videos
            split = meshes.split_over_batch(mesh)
            assert all(leaf.sharding.is_equivalent_to(split, leaf.ndim) for leaf in jax.tree.leaves(got)), program
        found = deviations(got, want, relative=case.state is not None)
        path = max(found, key=found.get)
        worst[count] = found[path] / case.tolerance
        assert worst[count] <= 1, f'{count} devices, {path}: {found[path]:.2e} is above {case.tolerance}\n{program}'
    return worst
