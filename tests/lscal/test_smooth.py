import numpy as np
import oracles
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lscal import smooth
from lscal.metrics import ece, smooth_ece
from lscal.predictions import Predictions
from lscal.summary import Whole


def two_classes(confidence: Tensor, right: Tensor) -> Predictions:
    """Predictions with just these confidences, of at least 1/2."""
    p = torch.stack([confidence, 1 - confidence], -1)
    return Predictions.from_probabilities(p, (~right).long())


def drawn(kind: str, examples: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(examples)
    uniform = torch.rand(examples, generator=generator, dtype=torch.float64)
    confidence = {
        "uniform": 0.5 + 0.5 * uniform,
        "nearly sure": 1 - 1e-3 * uniform,
        "saturated": torch.ones_like(uniform),
        "narrow": 0.73 + 0.01 * uniform,
        "tied": 0.5 + (5 * uniform).floor() / 10,
        "half": torch.full_like(uniform, 0.5),
        "mostly sure": torch.where(uniform < 0.8, 1.0, 0.5 + 0.5 * uniform),
    }[kind]
    return confidence, torch.rand(examples, generator=generator, dtype=torch.float64)


KINDS = ["uniform", "nearly sure", "saturated", "narrow", "tied", "half", "mostly sure"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("examples", [1, 37, 5000])
def test_agrees_with_the_reference(kind: str, examples: int):
    """relplot refines its grid at small bandwidths: 1e-3 was asked for."""
    confidence, chance = drawn(kind, examples)
    for right in (chance < confidence, chance < confidence.square() - 0.1, chance < 2, chance > 2):
        value = float(smooth_ece(two_classes(confidence, right)))
        assert value == pytest.approx(oracles.smooth_ece(confidence.numpy(), right.numpy()), abs=1e-3)


def test_members_by_themselves(logits: Tensor, labels: Tensor):
    values = smooth_ece(Predictions.from_logits(torch.stack([logits, logits.roll(1, 1)]), labels))
    assert values.shape == (2, 3)
    for member in range(3):
        assert float(values[0, member]) == pytest.approx(
            float(smooth_ece(Predictions.from_logits(logits[member], labels))), abs=1e-14
        )


def test_without_bins_nothing_jumps():
    """A confidence that crosses the edge of a bin moves the ECE by a leap; smooth ECE hardly notices."""
    right = torch.tensor([True, False, True, True])
    below, above = (
        two_classes(torch.tensor([0.6 + step, 0.62, 0.9, 0.7], dtype=torch.float64), right)
        for step in (-1e-9, 1e-9)
    )
    assert abs(float(ece(below) - ece(above))) > 0.05
    assert abs(float(smooth_ece(below) - smooth_ece(above))) < 1e-6


@pytest.mark.parametrize("sigma", [0.002, 0.01, 0.1, 0.5, 1.0])
def test_smoothing_is_the_sum_over_images(sigma: float):
    """Directly: each point mass, reflected at 0 and at 1, spreads as a Gaussian cut at one half."""
    values = torch.zeros(smooth.MESH + 1, dtype=torch.float64)
    places = {0: 1.5, 3: -2.0, 500: 0.7, 731: 1.1, 998: -0.4, 1000: 2.2}
    expected = np.zeros(smooth.MESH + 1)
    grid = np.arange(smooth.MESH + 1)
    for place, mass in places.items():
        values[place] = mass
        for image in {place, -place, 2 * smooth.MESH - place}:
            lag = abs(grid - image) / smooth.MESH
            expected += mass * np.where(
                lag <= 0.5, np.exp(-0.5 * (lag / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma), 0
            )
    found = smooth.smoothed(values, torch.tensor(sigma, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-11 * abs(expected).max())


def test_the_bandwidth_is_the_error_there(logits: Tensor, labels: Tensor):
    """σ is a fixed point, to the last halving."""
    whole = Whole(Predictions.from_logits(logits, labels))
    sigma = whole.bandwidth
    assert_close(smooth.error(*whole.mesh, sigma), sigma, atol=2**-9, rtol=0)
    assert (sigma * 1024 == (sigma * 1024).round()).all()
    assert (smooth.error(*whole.mesh, sigma) <= sigma).all()


def test_the_mesh_keeps_what_is_summed(logits: Tensor, labels: Tensor):
    predictions = Predictions.from_logits(logits, labels)
    residuals, count = Whole(predictions).mesh
    assert count.shape == (3, 1001)
    assert_close(count.sum(-1), torch.full((3,), 101.0, dtype=torch.float64))
    gap = (predictions.confidence - predictions.correct.double()).sum(-1)
    assert_close(residuals.sum(-1), gap, atol=1e-11, rtol=0)
    points = torch.arange(1001, dtype=torch.float64) / 1000
    assert_close(count @ points, predictions.confidence.sum(-1), atol=1e-10, rtol=0)
