"""Smooth calibration error: residuals smoothed over confidence by a reflected Gaussian (Błasiok and Nakkiran
2023).

The grid has 1001 points; the reference implementation refines it for bandwidths below 0.01, which moves the
value by less than 1e-3.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lscal.binning import BinnedStatistics

MESH = 1000
COARSE = 200
HALVINGS = 10
SMALLEST = 1e-3
DENSITY_FLOOR = 1e-4

Grid = Float[Tensor, "*member point"]


def bandwidth(residuals: Grid, count: Grid) -> Float[Tensor, "*member"]:
    """The σ at which the error smoothed by σ is σ: ten halvings of [0, 1], from above, as in the reference
    implementation.
    """
    shape = residuals.shape[:-1]
    residuals, count = residuals.reshape(-1, MESH + 1), count.reshape(-1, MESH + 1)
    low, high = torch.zeros_like(residuals[:, 0]), torch.ones_like(residuals[:, 0])
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        up = (middle < SMALLEST) | (middle < error(residuals, count, middle))
        low, high = torch.where(up, middle, low), torch.where(up, high, middle)
    return high.reshape(shape)


def error(residuals: Grid, count: Grid, sigma: Float[Tensor, "*member"]) -> Float[Tensor, "*member"]:
    """∫|r smoothed by σ| / ∫(density smoothed by σ), over [0, 1]. Range [0, 1], lower is better.

    Read linearly at max(200, 10/σ) points, as the reference implementation does.
    """
    points = (10 / sigma).round().clamp(min=200).unsqueeze(-1)
    step = torch.arange(int(points.max()), dtype=torch.float64, device=sigma.device)
    place = (step / (points - 1)).clamp(max=1) * MESH
    left = place.long().clamp(max=MESH - 1)
    share = place - left

    def read(values: Tensor) -> Tensor:
        between = values.gather(-1, left) * (1 - share) + values.gather(-1, left + 1) * share
        return torch.where(step < points, between, 0)

    density = read(smoothed(count, sigma)).sum(-1) + DENSITY_FLOOR * points.squeeze(-1)
    return read(smoothed(residuals, sigma)).abs().sum(-1) / density


def smoothed(values: Grid, sigma: Float[Tensor, "*member"]) -> Grid:
    """Values on the grid smoothed by a Gaussian that 0 and 1 reflect, cut at ±1/2."""
    mirrored = torch.cat([values, values[..., 1:-1].flip(-1)], -1)
    lag = torch.arange(2 * MESH, dtype=torch.float64, device=values.device)
    lag = torch.minimum(lag, 2 * MESH - lag) / MESH
    taps = torch.where(lag <= 0.5, gaussian(lag, sigma.unsqueeze(-1)), 0.0)
    convolved: Tensor = torch.fft.irfft(torch.fft.rfft(mirrored) * torch.fft.rfft(taps), 2 * MESH)
    return convolved[..., : MESH + 1]


def kernel(
    centres: Float[Tensor, "*member group"], sigma: Float[Tensor, "*member"]
) -> Float[Tensor, "*member group point"]:
    """What a point mass at each centre, smoothed as in `smoothed`, adds to each of 201 points."""
    grid = torch.arange(COARSE + 1, dtype=torch.float64, device=centres.device) / COARSE
    kernels = []
    for at, width in zip(centres.reshape(-1, centres.shape[-1], 1), sigma.flatten(), strict=True):
        images = torch.stack([(at - grid).abs(), at + grid, 2 - at - grid])
        kernels.append(torch.where(images <= 0.5, gaussian(images, width), 0.0).sum(0))
    return torch.stack(kernels).reshape(*centres.shape, -1)


def error_of_groups(
    groups: BinnedStatistics, kernel: Float[Tensor, "*member group point"]
) -> Float[Tensor, "replicate *member"]:
    """`error`, of groups whose centres the kernel was made for."""
    residuals, count = groups.confidence - groups.correct, groups.count
    residuals, count = (torch.einsum("r...g,...gp->r...p", part, kernel) for part in (residuals, count))
    return residuals.abs().sum(-1) / (count + DENSITY_FLOOR).sum(-1)


def gaussian(lag: Tensor, sigma: Tensor) -> Tensor:
    """The density of a normal distribution with standard deviation σ."""
    return torch.exp(-0.5 * (lag / sigma).square()) / (math.sqrt(2 * math.pi) * sigma)
