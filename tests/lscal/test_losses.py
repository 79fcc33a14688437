import math

import numpy as np
import oracles
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.testing import assert_close

from lscal.losses import smoothed_cross_entropy
from lscal.smoothing import Smoothing

EPSILONS = torch.tensor([0.0, 0.1, 0.37], dtype=torch.float64)


@pytest.fixture
def own_labels(labels: Tensor) -> Tensor:
    """A row of labels for each of three members."""
    return torch.stack([labels, (labels + 2) % 7, labels.flip(0)])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.37, 0.9])
@pytest.mark.parametrize("member", [0, 1, 2])
def test_value_and_gradient_are_those_of_torch(logits: Tensor, labels: Tensor, member: int, epsilon: float, dtype: torch.dtype):
    ours = logits[member].to(dtype).requires_grad_()
    torchs = logits[member].to(dtype).requires_grad_()
    loss = smoothed_cross_entropy(ours, labels, epsilon)
    expected = F.cross_entropy(torchs, labels, label_smoothing=epsilon, reduction="none")
    loss.mean().backward()
    expected.mean().backward()
    assert loss.shape == (101,)
    assert loss.dtype == dtype
    atol = 1e-6 if dtype == torch.float32 else 1e-13
    assert_close(loss, expected, atol=atol, rtol=1e-6)
    assert_close(ours.grad, torchs.grad, atol=atol, rtol=0)


def test_without_smoothing_it_is_cross_entropy(logits: Tensor, labels: Tensor):
    loss = smoothed_cross_entropy(logits[1], labels, 0.0)
    assert_close(loss, F.cross_entropy(logits[1], labels, reduction="none"), atol=1e-13, rtol=0)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.37])
def test_agrees_with_the_soft_target_written_out(logits: Tensor, labels: Tensor, epsilon: float):
    expected = oracles.smoothed_cross_entropy(logits[2].numpy(), labels.numpy(), epsilon)
    np.testing.assert_allclose(smoothed_cross_entropy(logits[2], labels, epsilon).numpy(), expected, atol=1e-13)


def test_a_population_is_its_members(logits: Tensor, own_labels: Tensor):
    together = smoothed_cross_entropy(logits, own_labels, EPSILONS)
    assert together.shape == (3, 101)
    for member in range(3):
        alone = smoothed_cross_entropy(logits[member], own_labels[member], float(EPSILONS[member]))
        assert_close(together[member], alone, atol=1e-14, rtol=0)


def test_members_may_share_their_labels_and_epsilon(logits: Tensor, labels: Tensor):
    together = smoothed_cross_entropy(logits, labels, 0.2)
    for member in range(3):
        assert_close(together[member], smoothed_cross_entropy(logits[member], labels, 0.2), atol=1e-14, rtol=0)


def test_members_do_not_reach_into_each_others_gradient(logits: Tensor, own_labels: Tensor):
    logits.requires_grad_()
    smoothed_cross_entropy(logits, own_labels, EPSILONS)[1].sum().backward()
    assert logits.grad is not None
    assert logits.grad[1].abs().min() > 0
    assert not logits.grad[0].any()
    assert not logits.grad[2].any()


def test_two_leading_dimensions(logits: Tensor, labels: Tensor):
    grid = torch.stack([logits, logits.flip(0) - 0.3])
    epsilons = torch.tensor([[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]], dtype=torch.float64)
    loss = smoothed_cross_entropy(grid, labels, epsilons)
    assert loss.shape == (2, 3, 101)
    assert_close(loss[1, 0], smoothed_cross_entropy(logits[2] - 0.3, labels, 0.3), atol=1e-13, rtol=0)


def test_class_prior_noise_is_its_soft_target(logits: Tensor, own_labels: Tensor):
    noise = Smoothing(0.1, "class_prior").noise(own_labels[0], 7)
    loss = smoothed_cross_entropy(logits, own_labels, EPSILONS, noise)
    for member, epsilon in enumerate(EPSILONS.tolist()):
        target = (1 - epsilon) * F.one_hot(own_labels[member], 7).double() + epsilon * noise
        assert_close(loss[member], F.cross_entropy(logits[member], target, reduction="none"), atol=1e-13, rtol=0)
        expected = oracles.smoothed_cross_entropy(logits[member].numpy(), own_labels[member].numpy(), epsilon, noise.numpy())
        np.testing.assert_allclose(loss[member].numpy(), expected, atol=1e-13)


def test_float64_noise_does_not_widen_float32_logits(logits: Tensor, labels: Tensor):
    noise = Smoothing(0.1, "class_prior").noise(labels, 7)
    loss = smoothed_cross_entropy(logits.float(), labels, EPSILONS, noise)
    assert loss.dtype == torch.float32
    assert_close(loss.double(), smoothed_cross_entropy(logits, labels, EPSILONS, noise), atol=1e-5, rtol=1e-5)


def test_equal_noise_is_the_default(logits: Tensor, labels: Tensor):
    noise = Smoothing(0.1).noise(labels, 7)
    assert_close(smoothed_cross_entropy(logits, labels, EPSILONS, noise), smoothed_cross_entropy(logits, labels, EPSILONS))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(logits: Tensor, labels: Tensor, dtype: torch.dtype):
    half = logits.to(dtype).requires_grad_()
    loss = smoothed_cross_entropy(half, labels, EPSILONS)
    assert loss.dtype == torch.float32
    assert_close(loss.double(), smoothed_cross_entropy(half.detach().double(), labels, EPSILONS), atol=1e-5, rtol=1e-5)
    loss.mean().backward()
    assert half.grad is not None
    assert half.grad.dtype == dtype
    assert half.grad.abs().max() > 0


def test_vmap_over_members_is_the_population(logits: Tensor, own_labels: Tensor):
    mapped = torch.func.vmap(smoothed_cross_entropy)(logits, own_labels, EPSILONS)
    assert_close(mapped, smoothed_cross_entropy(logits, own_labels, EPSILONS), atol=1e-14, rtol=0)


def test_vmap_of_the_gradient_is_each_members_gradient(logits: Tensor, own_labels: Tensor):
    def loss(z: Tensor, y: Tensor, epsilon: Tensor) -> Tensor:
        return smoothed_cross_entropy(z, y, epsilon).mean()

    mapped = torch.func.vmap(torch.func.grad(loss))(logits, own_labels, EPSILONS)
    for member, epsilon in enumerate(EPSILONS.tolist()):
        z = logits[member].clone().requires_grad_()
        F.cross_entropy(z, own_labels[member], label_smoothing=epsilon).backward()
        assert_close(mapped[member], z.grad, atol=1e-14, rtol=0)


def test_linear_in_epsilon(logits: Tensor, labels: Tensor):
    hard, some, more = (smoothed_cross_entropy(logits, labels, epsilon) for epsilon in (0.0, 0.2, 0.7))
    assert (some - hard).abs().max() > 0.1
    assert_close(more, hard + 3.5 * (some - hard), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("classes", "confidence", "gap", "floor"), [(10, 0.91, 4.511, 0.5003), (2, 0.95, 2.944, 0.1985), (100, 0.901, 6.804, 0.7778)]
)
def test_the_minimum_is_where_the_closed_form_says(classes: int, confidence: float, gap: float, floor: float):
    """At ε = 0.1: p* = 1-ε(K-1)/K, the gap ln(1+K(1-ε)/ε), and the entropy of the target as the loss."""
    labels = torch.tensor([1])
    logits = torch.full((1, classes), 0.7, dtype=torch.float64)
    logits[0, 1] += math.log(1 + classes * 0.9 / 0.1)
    gradient = torch.func.grad(lambda z: smoothed_cross_entropy(z, labels, 0.1).sum())(logits)
    loss = smoothed_cross_entropy(logits, labels, 0.1)
    assert float(logits[0, 1] - logits[0, 0]) == pytest.approx(gap, abs=5e-4)
    assert float(logits.softmax(-1)[0, 1]) == pytest.approx(confidence, abs=1e-12)
    assert float(loss) == pytest.approx(floor, abs=5e-5)
    assert_close(gradient, torch.zeros_like(logits), atol=1e-14, rtol=0)
    for step in (-0.01, 0.01):
        moved = logits.clone()
        moved[0, 1] += step
        assert float(smoothed_cross_entropy(moved, labels, 0.1)) > float(loss)


def test_never_below_the_entropy_of_the_target(logits: Tensor, labels: Tensor):
    target = torch.full((7,), 0.1 / 7, dtype=torch.float64)
    target[0] += 0.9
    floor = -(target * target.log()).sum()
    assert (smoothed_cross_entropy(logits, labels, 0.1) >= floor - 1e-14).all()
