import math
import subprocess
import sys

import numpy as np
import oracles
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.testing import assert_close

from lscal.losses import (
    SmoothedCrossEntropy,
    confidence_penalised_cross_entropy,
    margin_smoothed_cross_entropy,
    smoothed_cross_entropy,
)
from lscal.smoothing import Smoothing, check_labels, epsilon_all_classes, similarity

EPSILONS = torch.tensor([0.0, 0.1, 0.37], dtype=torch.float64)
PER_CLASS = torch.tensor([0.3, 0.0, 0.05, 0.61, 0.2, 0.12, 0.44], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.1, 0.7, 1.3, 0.2], dtype=torch.float64)
PRIOR = torch.tensor([0.05, 0.3, 0.11, 0.2, 0.04, 0.07, 0.23], dtype=torch.float64)
LOSSES = [
    pytest.param(lambda z, y, **extras: smoothed_cross_entropy(z, y, 0.23, **extras), id="smoothed"),
    pytest.param(lambda z, y, **extras: margin_smoothed_cross_entropy(z, y, 0.4, 0.9, **extras), id="margin"),
    pytest.param(
        lambda z, y, **extras: confidence_penalised_cross_entropy(z, y, 0.31, **extras),
        id="confidence penalty",
    ),
]
every_loss = pytest.mark.parametrize("loss", LOSSES)


def written_out(logits, labels, epsilon, u=None, wrong_classes=False):
    """The loss of each example of one model, its target written out class by class, and the gradient of their
    sum.

    `epsilon` is a number or one per class, `u` is (K,), (K, K) with a row for each label, or a list of one
    per example.
    """
    losses, gradients = [], []
    for i, (row, label) in enumerate(zip(logits.tolist(), labels.tolist(), strict=True)):
        allowed = [value != -math.inf for value in row]
        top = max(row)
        total = sum(math.exp(value - top) for value in row)
        mass = epsilon if isinstance(epsilon, float) else float(epsilon[label])
        mine = (
            [1 / len(row)] * len(row)
            if u is None
            else u[i]
            if isinstance(u, list)
            else u
            if u.ndim == 1
            else u[label]
        )
        mine = [float(mine[k]) * (allowed[k] and not (wrong_classes and k == label)) for k in range(len(row))]
        target = [mass * value / sum(mine) if sum(mine) else 0.0 for value in mine]
        target[label] += 1 - mass if sum(mine) else 1
        losses.append(
            -sum(target[k] * (row[k] - top - math.log(total)) for k in range(len(row)) if target[k])
        )
        gradients.append([math.exp(row[k] - top) / total - target[k] for k in range(len(row))])
    return torch.tensor(losses, dtype=torch.float64), torch.tensor(gradients, dtype=torch.float64)


def assert_is_written_out(logits, labels, mass, u=None, wrong_classes=False, **arguments):
    """Value and gradient of `smoothed_cross_entropy(logits, labels, **arguments)` are those written out."""
    expected, gradient = written_out(logits, labels, mass, u, wrong_classes)
    logits = logits.clone().requires_grad_()
    loss = smoothed_cross_entropy(logits, labels, **arguments)
    loss.sum().backward()
    assert_close(loss, expected, atol=1e-12, rtol=1e-12)
    assert_close(logits.grad, gradient, atol=1e-12, rtol=0)


@pytest.fixture
def masked_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """The logits of one model, with 0 to 5 of 7 classes masked, differently in each row, the label's
    never.
    """
    generator = torch.Generator().manual_seed(3)
    masked = torch.rand(101, 7, generator=generator) < torch.linspace(0, 0.9, 101).unsqueeze(-1)
    masked[torch.arange(101), labels] = False
    masked[-1] = torch.arange(7) != labels[-1]
    return logits[1].masked_fill(masked, -torch.inf)


@pytest.fixture
def own_labels(labels: Tensor) -> Tensor:
    """A row of labels for each of three members."""
    return torch.stack([labels, (labels + 2) % 7, labels.flip(0)])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.37, 0.9])
@pytest.mark.parametrize("member", [0, 1, 2])
def test_value_and_gradient_are_those_of_torch(
    logits: Tensor, labels: Tensor, member: int, epsilon: float, dtype: torch.dtype
):
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
    np.testing.assert_allclose(
        smoothed_cross_entropy(logits[2], labels, epsilon).numpy(), expected, atol=1e-13
    )


def test_a_population_is_its_members(logits: Tensor, own_labels: Tensor):
    together = smoothed_cross_entropy(logits, own_labels, EPSILONS)
    assert together.shape == (3, 101)
    for member in range(3):
        alone = smoothed_cross_entropy(logits[member], own_labels[member], float(EPSILONS[member]))
        assert_close(together[member], alone, atol=1e-14, rtol=0)


def test_members_may_share_their_labels_and_epsilon(logits: Tensor, labels: Tensor):
    together = smoothed_cross_entropy(logits, labels, 0.2)
    for member in range(3):
        assert_close(
            together[member], smoothed_cross_entropy(logits[member], labels, 0.2), atol=1e-14, rtol=0
        )


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
        assert_close(
            loss[member], F.cross_entropy(logits[member], target, reduction="none"), atol=1e-13, rtol=0
        )
        expected = oracles.smoothed_cross_entropy(
            logits[member].numpy(), own_labels[member].numpy(), epsilon, noise.numpy()
        )
        np.testing.assert_allclose(loss[member].numpy(), expected, atol=1e-13)


def test_float64_noise_does_not_widen_float32_logits(logits: Tensor, labels: Tensor):
    noise = Smoothing(0.1, "class_prior").noise(labels, 7)
    loss = smoothed_cross_entropy(logits.float(), labels, EPSILONS, noise)
    assert loss.dtype == torch.float32
    assert_close(loss.double(), smoothed_cross_entropy(logits, labels, EPSILONS, noise), atol=1e-5, rtol=1e-5)


def test_equal_noise_is_the_default(logits: Tensor, labels: Tensor):
    noise = Smoothing(0.1).noise(labels, 7)
    assert_close(
        smoothed_cross_entropy(logits, labels, EPSILONS, noise),
        smoothed_cross_entropy(logits, labels, EPSILONS),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(logits: Tensor, labels: Tensor, dtype: torch.dtype):
    half = logits.to(dtype).requires_grad_()
    loss = smoothed_cross_entropy(half, labels, EPSILONS)
    assert loss.dtype == torch.float32
    assert_close(
        loss.double(), smoothed_cross_entropy(half.detach().double(), labels, EPSILONS), atol=1e-5, rtol=1e-5
    )
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
    ("classes", "confidence", "gap", "floor"),
    [(10, 0.91, 4.511, 0.5003), (2, 0.95, 2.944, 0.1985), (100, 0.901, 6.804, 0.7778)],
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


@pytest.mark.parametrize("shape", ["uniform", "one", "row for each label", "one per example"])
@pytest.mark.parametrize("wrong_classes", [False, True])
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("masked", [None, False, True])
def test_every_target_is_the_one_written_out(
    logits, masked_logits, labels, shape, wrong_classes, per_class, masked
):
    """`masked` None has no masked classes, False has none and says so."""
    rows = similarity(torch.outer(PRIOR, torch.linspace(-4, 9, 7, dtype=torch.float64)), 0.6)
    teacher = (0.3 * logits[2].flip(0)).softmax(-1)
    u = {"uniform": None, "one": PRIOR, "row for each label": rows, "one per example": list(teacher)}[shape]
    mass = {"epsilon_per_class": PER_CLASS} if per_class else {"epsilon": 0.31}
    noise = {"uniform": {}, "one per example": {"noise_per_example": teacher}}.get(shape, {"noise": u})
    convention = "wrong_classes" if wrong_classes else "all_classes"
    assert_is_written_out(
        masked_logits if masked else logits[1],
        labels,
        PER_CLASS if per_class else 0.31,
        u,
        wrong_classes,
        **mass,
        **noise,
        convention=convention,
        masked=masked is not False,
    )


@pytest.mark.parametrize(("classes", "examples"), [(2, 5), (7, 1), (5, 5)])
def test_few_classes_and_one_example(classes: int, examples: int):
    generator = torch.Generator().manual_seed(classes)
    logits = 2 * torch.randn(examples, classes, generator=generator, dtype=torch.float64) - 3
    labels = torch.randint(classes, (examples,), generator=generator)
    rows = torch.rand(classes, classes, generator=generator, dtype=torch.float64) + 0.1
    rows /= rows.sum(-1, keepdim=True)
    assert_is_written_out(logits, labels, 0.2, epsilon=0.2)
    assert_is_written_out(logits, labels, 0.2, rows, epsilon=0.2, noise=rows)
    teacher = rows[torch.arange(examples) % classes]
    assert_is_written_out(logits, labels, 0.2, list(teacher), epsilon=0.2, noise_per_example=teacher)


def test_a_noise_row_belongs_to_the_label_even_where_there_are_as_many_examples_as_classes(logits: Tensor):
    labels = torch.tensor([6, 0, 0, 3, 2, 5, 1])
    rows = similarity(logits[2, :7], 1.0)
    by_label = smoothed_cross_entropy(logits[1, :7], labels, 0.3, rows)
    by_example = smoothed_cross_entropy(logits[1, :7], labels, 0.3, noise_per_example=rows)
    assert_close(by_label, written_out(logits[1, :7], labels, 0.3, rows)[0], atol=1e-13, rtol=0)
    assert_close(by_example, written_out(logits[1, :7], labels, 0.3, list(rows))[0], atol=1e-13, rtol=0)
    assert (by_label - by_example).abs().max() > 0.1


def test_members_may_have_teachers_of_their_own(logits: Tensor, own_labels: Tensor):
    teachers = (0.4 * logits.roll(1, 0)).softmax(-1)
    together = smoothed_cross_entropy(logits, own_labels, EPSILONS, noise_per_example=teachers)
    for member, epsilon in enumerate(EPSILONS.tolist()):
        expected = written_out(logits[member], own_labels[member], epsilon, list(teachers[member]))[0]
        assert_close(together[member], expected, atol=1e-13, rtol=0)


def test_a_hard_teacher_moves_the_mass_to_its_class(logits: Tensor, labels: Tensor):
    other = (labels + 3) % 7
    loss = smoothed_cross_entropy(logits[0], labels, 0.25, noise_per_example=F.one_hot(other, 7).double())
    expected = 0.75 * F.cross_entropy(logits[0], labels, reduction="none") + 0.25 * F.cross_entropy(
        logits[0], other, reduction="none"
    )
    assert_close(loss, expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("classes", [2, 7, 100])
def test_the_conventions_are_each_other_at_the_converted_epsilon(classes: int):
    logits = torch.linspace(-2, 5, 3 * classes, dtype=torch.float64).reshape(3, classes).sin() * 4
    labels = torch.tensor([1, 0, classes - 1])
    wrong = smoothed_cross_entropy(logits, labels, 0.09, convention="wrong_classes")
    assert_close(
        wrong, smoothed_cross_entropy(logits, labels, epsilon_all_classes(0.09, classes)), atol=1e-13, rtol=0
    )
    assert_close(
        wrong,
        F.cross_entropy(logits, labels, label_smoothing=0.09 * classes / (classes - 1), reduction="none"),
    )


# Traps of other implementations, by the trap


def test_trap_class_weights_inside_the_class_sum(logits: Tensor, labels: Tensor):
    """pytorch #104776: torch weighs each class of the soft target, not the example."""
    loss = smoothed_cross_entropy(logits[1], labels, 0.3, class_weights=WEIGHTS)
    assert_close(loss, WEIGHTS[labels] * smoothed_cross_entropy(logits[1], labels, 0.3), atol=1e-13, rtol=0)
    inside = F.cross_entropy(logits[1], labels, weight=WEIGHTS, label_smoothing=0.3, reduction="none")
    assert (loss - inside).abs().max() > 0.1


@every_loss
def test_trap_weighted_mean_divides_by_the_weights_of_the_labels(loss, logits: Tensor, own_labels: Tensor):
    """pytorch #61309: not by N."""
    each = loss(logits, own_labels)
    mean = loss(logits, own_labels, class_weights=WEIGHTS, reduction="mean")
    for member in range(3):
        weights = [float(WEIGHTS[label]) for label in own_labels[member].tolist()]
        expected = sum(
            weight * value for weight, value in zip(weights, each[member].tolist(), strict=True)
        ) / sum(weights)
        assert float(mean[member]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("ignore_index", [-100, 3, 255])
def test_without_smoothing_weights_and_ignore_index_are_those_of_torch(
    logits: Tensor, labels: Tensor, weights, ignore_index: int
):
    labels = torch.where(torch.arange(101) % 4 == 1, ignore_index, labels)
    extras = {"ignore_index": ignore_index, "reduction": "mean"}
    ours, torchs = logits[0].clone().requires_grad_(), logits[0].clone().requires_grad_()
    loss = smoothed_cross_entropy(ours, labels, 0.0, class_weights=weights, **extras)
    expected = F.cross_entropy(torchs, labels, weight=weights, **extras)
    loss.backward()
    expected.backward()
    assert_close(loss, expected, atol=1e-13, rtol=0)
    assert_close(ours.grad, torchs.grad, atol=1e-14, rtol=0)


@pytest.mark.parametrize("ignore_index", [-100, 3])
def test_trap_ignore_index_with_smoothing(logits: Tensor, labels: Tensor, ignore_index: int):
    """pytorch #73205, #91383. Today's torch is right without weights."""
    labels = torch.where(torch.arange(101) % 4 == 1, ignore_index, labels)
    kept = labels != ignore_index
    loss = smoothed_cross_entropy(logits[2], labels, 0.2, ignore_index=ignore_index)
    assert_close(loss[kept], smoothed_cross_entropy(logits[2][kept], labels[kept], 0.2), atol=0, rtol=0)
    assert not loss[~kept].any()
    assert 20 < kept.sum() < 85
    mean = smoothed_cross_entropy(logits[2], labels, 0.2, ignore_index=ignore_index, reduction="mean")
    assert_close(
        mean,
        F.cross_entropy(logits[2], labels, label_smoothing=0.2, ignore_index=ignore_index),
        atol=1e-13,
        rtol=0,
    )


@every_loss
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_trap_all_ignored_is_nan(loss, logits: Tensor, weights, reduction: str):
    """torch's mean is 0/0. Beside a member with examples, one without gives 0 and leaves the other as it
    is.
    """
    logits.requires_grad_()
    labels = torch.full((3, 101), -100)
    labels[1, ::3] = 4
    values = loss(logits, labels, class_weights=weights, ignore_index=-100, reduction=reduction)
    values.sum().backward()
    for member in (0, 2):
        assert not values[member].any()
        assert not logits.grad[member].any()
    rest = loss(logits[1, ::3], labels[1, ::3], class_weights=weights, reduction=reduction)
    assert_close(values[1] if reduction == "mean" else values[1, ::3], rest, atol=1e-14, rtol=0)
    assert logits.grad[1, ::3].abs().amax(-1).min() > 0
    assert not logits.grad[1, 1::3].any()


@every_loss
def test_an_ignored_example_may_hold_anything(loss, logits: Tensor, labels: Tensor):
    """Padding, whose every class may be masked, or which was never computed."""
    labels[:3] = -100
    wild = logits[1].clone()
    wild[0], wild[1, 2], wild[2] = -torch.inf, torch.nan, torch.inf
    wild.requires_grad_()
    mean = loss(wild, labels, ignore_index=-100, reduction="mean")
    mean.backward()
    assert_close(mean, loss(logits[1, 3:], labels[3:], reduction="mean"), atol=1e-14, rtol=0)
    assert not wild.grad[:3].any()
    assert wild.grad.isfinite().all()


@every_loss
def test_trap_minus_inf_logits_are_inf_or_nan(loss, masked_logits: Tensor, labels: Tensor):
    masked_logits.requires_grad_()
    values = loss(masked_logits, labels)
    values.sum().backward()
    assert values.isfinite().all()
    assert masked_logits.grad.isfinite().all()
    assert not masked_logits.grad[masked_logits.isneginf()].any()
    for value, row, label in zip(values.tolist(), masked_logits.detach(), labels, strict=True):
        allowed = ~row.isneginf()
        alone = loss(row[allowed].unsqueeze(0), allowed[:label].sum().unsqueeze(0))
        assert value == pytest.approx(float(alone), abs=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, torch.tensor(0.0)])
def test_masked_classes_without_smoothing_are_those_of_torch(masked_logits: Tensor, labels: Tensor, epsilon):
    expected = F.cross_entropy(masked_logits, labels, reduction="none")
    assert_close(smoothed_cross_entropy(masked_logits, labels, epsilon), expected, atol=1e-13, rtol=0)


@every_loss
def test_a_masked_label_costs_inf(loss):
    logits = torch.tensor([[0.3, -torch.inf, 1.2], [0.3, 0.1, 1.2]], dtype=torch.float64, requires_grad=True)
    values = loss(logits, torch.tensor([1, 1]))
    values.sum().backward()
    assert values[0] == torch.inf
    assert values[1].isfinite()
    assert logits.grad.isfinite().all()


def test_where_all_of_the_noise_is_masked_the_label_keeps_its_mass():
    logits = torch.tensor([[0.3, -torch.inf, 1.2, 0.4]], dtype=torch.float64, requires_grad=True)
    loss = smoothed_cross_entropy(
        logits, torch.tensor([2]), 0.4, torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    )
    loss.sum().backward()
    hard = logits.detach().clone().requires_grad_()
    expected = F.cross_entropy(hard, torch.tensor([2]), reduction="none")
    expected.sum().backward()
    assert_close(loss, expected, atol=1e-14, rtol=0)
    assert_close(logits.grad, hard.grad, atol=1e-14, rtol=0)


def test_trap_negative_epsilon_silently_means_hard_labels(logits: Tensor, labels: Tensor):
    """pytorch #134767. Here it is an error, or, asked for by name, what it says."""
    with pytest.raises(ValueError, match=r"^epsilon is -0.4; allowed is 0 <= epsilon < 1$"):
        smoothed_cross_entropy(logits[1], labels, -0.4)
    assert_is_written_out(logits[1], labels, -0.4, epsilon=-0.4, negative_epsilon=True)
    hard, soft = (smoothed_cross_entropy(logits[1], labels, epsilon) for epsilon in (0.0, 0.4))
    assert_close(
        smoothed_cross_entropy(logits[1], labels, -0.4, negative_epsilon=True),
        2 * hard - soft,
        atol=1e-12,
        rtol=0,
    )


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_trap_half_precision_sums_overflow_at_large_vocabularies(loss, dtype: torch.dtype):
    """Σ_k log p_k is about -6e5 here, float16 ends at 65504."""
    generator = torch.Generator().manual_seed(8)
    logits = (3 * torch.randn(5, 50257, generator=generator) + 1).to(dtype).requires_grad_()
    labels = torch.randint(50257, (5,), generator=generator)
    value = loss(logits, labels, reduction="mean")
    (1000 * value).backward()
    exact = logits.detach().double().requires_grad_()
    expected = loss(exact, labels, reduction="mean")
    (1000 * expected).backward()
    assert value.dtype == torch.float32
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert logits.grad.dtype == dtype
    assert_close(logits.grad.double(), exact.grad, atol=1e-6, rtol=0.01)


@every_loss
def test_autocast_does_not_lower_the_precision(loss, logits: Tensor, labels: Tensor):
    logits = logits.float()
    for extras in [{}, {"class_weights": WEIGHTS, "reduction": "mean"}]:
        with torch.autocast("cpu", torch.bfloat16):
            inside = loss(logits, labels, **extras)
        assert_close(inside, loss(logits, labels, **extras), atol=0, rtol=0)


def test_autocast_does_not_lower_the_precision_of_noise(logits: Tensor, labels: Tensor):
    logits = logits.float()
    rows = similarity(logits[2, :7].double(), 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = [
            smoothed_cross_entropy(logits, labels, 0.4, noise, masked=masked)
            for noise in (PRIOR, rows)
            for masked in (True, False)
        ]
    outside = [
        smoothed_cross_entropy(logits, labels, 0.4, noise, masked=masked)
        for noise in (PRIOR, rows)
        for masked in (True, False)
    ]
    assert_close(inside, outside, atol=0, rtol=0)


def test_trap_a_tensor_of_epsilon_fails_under_vmap(logits: Tensor, own_labels: Tensor):
    """`F.cross_entropy` calls `.item()` on it. Here all that differs between members may be mapped over."""
    weights, per_class = (
        torch.stack([WEIGHTS, WEIGHTS.flip(0), PRIOR]),
        torch.stack([PER_CLASS, PER_CLASS / 2, PRIOR]),
    )
    noise = torch.stack([PRIOR, PRIOR.flip(0), PRIOR.roll(2)])
    rows = torch.stack([similarity(logits[i, :7], 1.0) for i in range(3)])
    own_labels[:, 5:9] = -100
    logits[:, 11, :] = torch.where(torch.arange(7) == own_labels[:, 11:12], 0.4, -torch.inf)

    def smoothed(z: Tensor, y: Tensor, epsilon: Tensor, u: Tensor, w: Tensor) -> Tensor:
        return smoothed_cross_entropy(z, y, epsilon, u, class_weights=w, ignore_index=-100, reduction="mean")

    def by_class(z: Tensor, y: Tensor, epsilon: Tensor, u: Tensor, w: Tensor) -> Tensor:
        return smoothed_cross_entropy(
            z,
            y,
            noise=u,
            epsilon_per_class=epsilon,
            class_weights=w,
            ignore_index=-100,
            reduction="mean",
            convention="wrong_classes",
        )

    for loss, arguments in (
        (smoothed, (EPSILONS, noise, weights)),
        (smoothed, (EPSILONS, rows, weights)),
        (by_class, (per_class, rows, weights)),
    ):
        mapped = torch.func.vmap(torch.func.grad_and_value(loss))(logits, own_labels, *arguments)
        for member in range(3):
            alone = torch.func.grad_and_value(loss)(
                logits[member], own_labels[member], *(argument[member] for argument in arguments)
            )
            assert_close([value[member] for value in mapped], list(alone), atol=1e-14, rtol=0)
            assert alone[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
@every_loss
def test_labels_of_any_integer_type(loss, logits: Tensor, labels: Tensor, dtype: torch.dtype):
    expected = loss(logits, labels, class_weights=WEIGHTS)
    assert_close(loss(logits, labels.to(dtype), class_weights=WEIGHTS), expected, atol=0, rtol=0)


def test_a_byte_is_not_ignored_because_it_wraps_round():
    """In uint8, torch finds 156 equal to -100."""
    logits = torch.linspace(-1, 2, 200, dtype=torch.float64).unsqueeze(0)
    label = torch.tensor([156], dtype=torch.uint8)
    assert float(smoothed_cross_entropy(logits, label, 0.1, ignore_index=-100)) > 4
    check_labels(label, 157)
    with pytest.raises(ValueError, match="the label at 0 is 156; allowed is 0 to 155"):
        check_labels(label, 156, ignore_index=-100)


@every_loss
def test_tokens_are_examples(loss, logits: Tensor, labels: Tensor):
    """Sequences of a batch, padded to their longest; the mean over all of the tokens flattens them."""
    tokens, targets = (
        logits[:, :60].reshape(3, 4, 15, 7),
        torch.stack([labels[:60], labels[41:], labels[20:80]]).reshape(3, 4, 15),
    )
    targets[0, 2, 9:] = targets[2, 1, 3:] = -100
    each = loss(tokens, targets, ignore_index=-100)
    assert each.shape == (3, 4, 15)
    flat = loss(tokens.flatten(0, -2), targets.flatten(), ignore_index=-100)
    assert_close(each.flatten(), flat, atol=0, rtol=0)
    mean = loss(tokens.flatten(0, -2), targets.flatten(), ignore_index=-100, reduction="mean")
    assert float(mean) == pytest.approx(float(flat.sum()) / (180 - 6 - 12), abs=1e-13)
    per_sequence = loss(tokens, targets, ignore_index=-100, reduction="mean")
    assert_close(
        per_sequence[0, 2], loss(tokens[0, 2, :9], targets[0, 2, :9], reduction="mean"), atol=1e-13, rtol=0
    )


@every_loss
@pytest.mark.usefixtures("unchecked")
def test_reductions(loss, logits: Tensor, own_labels: Tensor):
    each = loss(logits, own_labels)
    assert_close(loss(logits, own_labels, reduction="mean"), each.mean(-1), atol=1e-14, rtol=0)
    with pytest.raises(ValueError, match="there is no reduction 'sum'; wanted 'none' or 'mean'"):
        loss(logits, own_labels, reduction="sum")


@every_loss
def test_gradients_are_those_of_differences(loss, masked_logits: Tensor, labels: Tensor):
    rows = [0, 50, 97]
    logits, labels = masked_logits[rows], labels[rows]
    allowed = ~logits.isneginf()

    def of_allowed(values: Tensor) -> Tensor:
        return loss(logits.masked_scatter(allowed, values), labels, class_weights=WEIGHTS)

    values = logits[allowed].requires_grad_()
    assert torch.autograd.gradcheck(of_allowed, values)
    assert torch.autograd.gradgradcheck(of_allowed, values)


@every_loss
def test_saturated_logits(loss):
    """A difference of 2000 is beyond what float64 can exponentiate; offsets of 1e4 leave float32 its
    accuracy.
    """
    far = torch.tensor([[2000.0, -3.0, 0.5], [-2000.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    values = loss(far, torch.tensor([0, 0]))
    values.sum().backward()
    assert values.isfinite().all()
    assert far.grad.isfinite().all()
    near = torch.tensor([[0.5, -1.25, 2.0], [0.0, 1.5, -0.75]])
    assert_close(loss(near + 8192, torch.tensor([2, 0])), loss(near, torch.tensor([2, 0])), atol=1e-6, rtol=0)


@pytest.mark.parametrize("penalty", [0.1, torch.tensor([0.0, 0.3, 2.0], dtype=torch.float64)])
@pytest.mark.parametrize("margin", [0.0, 1.3, 10.0])
def test_margin_smoothing_is_that_of_its_authors(logits: Tensor, own_labels: Tensor, margin: float, penalty):
    """Liu et al. 2022, the loss of calibrate/losses/logit_margin_l1.py, row by row."""
    loss = margin_smoothed_cross_entropy(logits, own_labels, penalty, margin)
    strengths = penalty.tolist() if isinstance(penalty, Tensor) else [penalty] * 3
    for member, strength in enumerate(strengths):
        hinge = [[max(0.0, max(row) - value - margin) for value in row] for row in logits[member].tolist()]
        hard = oracles.smoothed_cross_entropy(logits[member].numpy(), own_labels[member].numpy(), 0.0)
        np.testing.assert_allclose(loss[member].numpy(), hard + strength * np.mean(hinge, axis=1), atol=1e-12)


def test_margin_smoothing_lets_a_logit_go_once_it_is_within_the_margin():
    logits = torch.tensor([[4.0, 3.9, -2.0, 0.5]], dtype=torch.float64)

    def pull(margin: float) -> list[float]:
        """What the penalty alone adds to the gradient."""
        with_penalty = torch.func.grad(
            lambda z: margin_smoothed_cross_entropy(z, torch.tensor([0]), 0.8, margin).sum()
        )(logits)
        without = torch.func.grad(
            lambda z: margin_smoothed_cross_entropy(z, torch.tensor([0]), 0.0, margin).sum()
        )(logits)
        return (with_penalty - without)[0].tolist()

    assert pull(3.0) == pytest.approx([0.4, 0, -0.2, -0.2], abs=1e-14)
    assert pull(5.0) == pytest.approx([0.2, 0, -0.2, 0], abs=1e-14)
    assert pull(6.5) == pytest.approx([0, 0, 0, 0], abs=1e-14)


@pytest.mark.parametrize("penalty", [0.1, torch.tensor([0.0, 0.3, 2.0], dtype=torch.float64)])
def test_the_confidence_penalty_is_the_entropy_of_the_prediction(logits: Tensor, own_labels: Tensor, penalty):
    loss = confidence_penalised_cross_entropy(logits, own_labels, penalty)
    strengths = penalty.tolist() if isinstance(penalty, Tensor) else [penalty] * 3
    for member, strength in enumerate(strengths):
        entropy = [
            -sum(p * math.log(p) for p in row) for row in oracles.softmax(logits[member].numpy()).tolist()
        ]
        hard = oracles.smoothed_cross_entropy(logits[member].numpy(), own_labels[member].numpy(), 0.0)
        np.testing.assert_allclose(loss[member].numpy(), hard - strength * np.array(entropy), atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 1.0}, r"^epsilon is 1.0; allowed is 0 <= epsilon < 1$"),
        ({"epsilon": math.nan}, r"^epsilon is nan;"),
        (
            {"epsilon": -math.inf, "negative_epsilon": True},
            r"^epsilon is -inf; allowed is -inf < epsilon < 1$",
        ),
        ({}, "wanted either epsilon or epsilon_per_class"),
        ({"epsilon": 0.1, "epsilon_per_class": PER_CLASS}, "wanted either epsilon or epsilon_per_class"),
        (
            {"epsilon": 0.1, "noise": PRIOR, "noise_per_example": torch.ones(101, 7)},
            "both noise and noise_per_example came",
        ),
        ({"epsilon": 0.1, "noise": PRIOR[:1]}, r"noise has shape \(1,\); wanted \(7,\), or \(7, 7\)"),
        ({"epsilon": 0.1, "noise": torch.ones(101, 7)}, r"noise has shape \(101, 7\)"),
        ({"epsilon": 0.1, "noise_per_example": torch.ones(7, 7)}, r"noise_per_example has shape \(7, 7\)"),
        (
            {"epsilon": 0.1, "class_weights": WEIGHTS[:6]},
            r"values per class have shape \(6,\); wanted \(7,\)",
        ),
        ({"epsilon_per_class": torch.ones(9)}, r"values per class have shape \(9,\); wanted \(7,\)"),
        ({"epsilon": torch.ones(2, 3)}, r"has shape \(2, 3\) for logits \(3, 101, 7\)"),
        (
            {"epsilon": 0.1, "convention": "wrong"},
            "there is no convention 'wrong'; wanted 'all_classes' or 'wrong_classes'",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_told(logits: Tensor, labels: Tensor, arguments, message: str):
    with pytest.raises(ValueError, match=message):
        smoothed_cross_entropy(logits, labels, **arguments)


@every_loss
@pytest.mark.usefixtures("unchecked")
def test_labels_that_do_not_fit_are_told(loss, logits: Tensor, labels: Tensor):
    for wrong in (labels[:1], labels.unsqueeze(-1), labels.expand(2, -1), labels.expand(1, 3, -1)):
        with pytest.raises(ValueError, match=r"wanted \(..., N, K\), and \(..., N\) or \(N,\)"):
            loss(logits, wrong)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_penalties_out_of_range_are_told(logits: Tensor, labels: Tensor, value: float):
    for loss, name in (
        (margin_smoothed_cross_entropy, "penalty"),
        (margin_smoothed_cross_entropy, "margin"),
        (confidence_penalised_cross_entropy, "penalty"),
    ):
        with pytest.raises(ValueError, match=f"^{name} is {value}; allowed is 0 <= {name} < inf$"):
            loss(logits, labels, **{name: value})


COMPILED = """
import torch
from lscal.losses import confidence_penalised_cross_entropy, margin_smoothed_cross_entropy
from lscal.losses import smoothed_cross_entropy

def losses(z, y, epsilon, rows, weights):
    extras = {"class_weights": weights, "ignore_index": -1}
    return (
        smoothed_cross_entropy(z, y.clamp(min=0), epsilon),
        smoothed_cross_entropy(z, y, 0.3, rows, convention="wrong_classes", reduction="mean", **extras),
        torch.func.vmap(
            lambda z, epsilon: smoothed_cross_entropy(z, y, epsilon, rows[0], ignore_index=-1))(z, epsilon),
        margin_smoothed_cross_entropy(z, y, epsilon, 0.5, **extras),
        confidence_penalised_cross_entropy(z, y, epsilon, **extras),
    )

torch.manual_seed(0)
rows, weights = torch.rand(5, 5), torch.rand(5)
z, y, epsilon = torch.randn(3, 4, 5), torch.tensor([2, 0, -1, 4]), torch.tensor([0.0, 0.2, 0.4])
z[:, 1, 3] = -torch.inf
plain, quick = (z.clone().requires_grad_() for _ in range(2))
expected = losses(plain, y, epsilon, rows, weights)
found = torch.compile(losses, fullgraph=True, backend="BACKEND")(quick, y, epsilon, rows, weights)
torch.testing.assert_close(found, expected)
for values in (found, expected):
    sum(value.sum() for value in values).backward()
torch.testing.assert_close(quick.grad, plain.grad)
assert plain.grad.isfinite().all()
"""


def test_compiled_whole_it_is_the_same():
    """In a process of its own, since shapes are checked in this one. By hand: the same with the backend
    "inductor".
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILED.replace("BACKEND", "eager")], check=True)


def test_a_dropped_epsilon_is_cross_entropy_from_its_share_on():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    loss = SmoothedCrossEntropy(0.3, drop=0.3)
    for step in range(10):
        loss.advance(step / 10)
        smoothing = 0.3 if step < 3 else 0.0
        expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        torch.testing.assert_close(loss(logits, labels), expected)
    constant = SmoothedCrossEntropy(0.2)
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.2)
    torch.testing.assert_close(constant(logits, labels), expected)
    constant.advance(1.0)
    torch.testing.assert_close(constant(logits, labels), expected)


def test_a_callback_counts_the_steps_also_of_a_resumed_training():
    loss = SmoothedCrossEntropy(0.3, drop=0.5)
    after_step = loss.follow(4)
    seen = []
    for _ in range(5):
        seen.append(loss.strength)
        after_step("a trainer", step=1)
    assert seen == [0.3, 0.3, 0.0, 0.0, 0.0]
    loss.follow(4, done=2)
    assert loss.strength == 0.0


def test_a_drop_that_never_comes_is_refused():
    with pytest.raises(RuntimeError, match=r"loss.advance\(step / steps\) before each step"):
        SmoothedCrossEntropy(0.3, drop=0.3)(torch.zeros(1, 2), torch.tensor([0]))
    for wrong in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="allowed is 0 < drop <= 1"):
            SmoothedCrossEntropy(0.3, drop=wrong)
    with pytest.raises(ValueError, match="allowed is 0 to 1"):
        SmoothedCrossEntropy(0.3, drop=0.3).advance(1.5)
    with pytest.raises(ValueError, match="5 of 4 steps are done"):
        SmoothedCrossEntropy(0.3, drop=0.3).follow(4, done=5)
    with pytest.raises(ValueError, match="epsilon"):
        SmoothedCrossEntropy(1.0)
