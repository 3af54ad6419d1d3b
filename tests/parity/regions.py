"""RoIAlign: what both sides compute from, and what torchvision computes."""

from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).parents[1] / 'models' / 'roi_align_parity.npz'
FEATURES = (2, 7, 9, 3)  # (B, H, W, C)
# Options of `roi_align`, and a scale: boxes are drawn in input pixels, from beyond one border to beyond the other.
CASES = {
    'aligned': dict(output_size=(7, 7), spatial_scale=1 / 8, sampling_ratio=2, aligned=True),
    'not aligned': dict(output_size=(7, 7), spatial_scale=1 / 8, sampling_ratio=2, aligned=False),
    'one point': dict(output_size=(8, 8), spatial_scale=1 / 16, sampling_ratio=1, aligned=True),
    'oblong': dict(output_size=(2, 5), spatial_scale=0.3, sampling_ratio=3, aligned=True),
    'oblong, not aligned': dict(output_size=(5, 2), spatial_scale=1.0, sampling_ratio=4, aligned=False),
}


def features() -> np.ndarray:
    """float64 `FEATURES`."""
    return np.random.RandomState(0).standard_normal(FEATURES)


def boxes(spatial_scale: float) -> np.ndarray:
    """(B, 8, 4) float64 input pixels: random ones, then empty, far outside, and with points at the rules' borders."""
    random = np.random.RandomState(1)
    height, width = FEATURES[1:3]
    corners = random.uniform(-3, 3 + np.array([width, height]), (FEATURES[0], 4, 2, 2))
    drawn = np.sort(corners, axis=2).reshape(FEATURES[0], 4, 4)  # x1, y1, x2, y2
    special = [(4.0, 3.0, 4.0, 3.0), (-9.0, -9.0, -4.0, -5.0), (-2.0, -2.0, width + 2.0, height + 2.0),
               (width - 1.0, height - 1.0, width + 1.0, height + 1.0)]
    return np.concatenate([drawn, np.broadcast_to(special, (FEATURES[0], 4, 4))], axis=1) / spatial_scale


def cotangent(shape: tuple[int, ...]) -> np.ndarray:
    """The gradient is that of the sum of the output times this."""
    return np.random.RandomState(2).standard_normal(shape)


def expected(case: str) -> dict[str, np.ndarray]:
    """torchvision's 'value' (B, M, oh, ow, C) and 'gradient' with respect to the features (B, H, W, C)."""
    import torch
    import torchvision

    options = CASES[case]
    x = torch.from_numpy(features()).permute(0, 3, 1, 2).contiguous().requires_grad_()
    rois = list(torch.from_numpy(boxes(options['spatial_scale'])))
    out = torchvision.ops.roi_align(x, rois, **options)
    out = out.permute(0, 2, 3, 1).reshape(FEATURES[0], -1, *options['output_size'], FEATURES[3])
    (out * torch.from_numpy(cotangent(tuple(out.shape)))).sum().backward()
    return {'value': out.detach().numpy(), 'gradient': x.grad.permute(0, 2, 3, 1).numpy()}


def ours(case: str) -> dict[str, np.ndarray]:
    """The same by `vididi_jax.models.roi_align`; float64 where that is enabled."""
    import jax
    import jax.numpy as jnp

    from vididi_jax.models.roi_align import roi_align

    options = CASES[case]

    @jax.jit
    def both(x, rois):
        out, pull = jax.vjp(lambda x: roi_align(x, rois, **options), x)
        return {'value': out, 'gradient': pull(jnp.asarray(cotangent(out.shape), out.dtype))[0]}

    return jax.device_get(both(features(), boxes(options['spatial_scale'])))


def load(file: Path = FIXTURE) -> dict[str, dict[str, np.ndarray]]:
    """{case: {'value', 'gradient'}}."""
    with np.load(file) as stored:
        return {case: {part: stored[f'{case}/{part}'] for part in ('value', 'gradient')} for case in CASES}


def write(file: Path = FIXTURE) -> None:
    np.savez_compressed(file, **{f'{case}/{part}': value for case in CASES for part, value in expected(case).items()})
    print(f'{file}: {file.stat().st_size:,} bytes')


def differences() -> dict[str, float]:
    """Largest absolute differences of torchvision's from the stored results, and of ours from torchvision's."""
    found, stored = {}, load()
    for case in CASES:
        theirs, mine = expected(case), ours(case)
        for part, value in theirs.items():
            found[f'fixture {part}, {case}'] = float(np.abs(value - stored[case][part]).max())
            found[f'{part}, {case}'] = float(np.abs(value - mine[part]).max())
    return found
