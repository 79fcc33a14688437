import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.testing import assert_close

from lscal.epsilon import BASE, PER_ERROR, PER_MISFIT, estimate_epsilon
from sweeps.training.member import Member
from sweeps.training.population import FusedPopulation, learning_rate_at
from sweeps.training.smoothing_kinds import SmoothingNoise

INF = math.inf


def overlapping(
    seed: int, examples: int = 400, classes: int = 6, features: int = 5, noise: float = 0.8
) -> tuple[Tensor, Tensor]:
    """Points around the centres of classes that overlap, the first class twice as often as the others."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.randint(classes + 1, (examples,), generator=generator) - 1).clamp(min=0)
    centres = torch.randn(classes, features, generator=generator, dtype=torch.float64)
    return (
        centres[labels] + noise * torch.randn(examples, features, generator=generator, dtype=torch.float64),
        labels,
    )


def at_rest(inputs: Tensor, labels: Tensor, epsilon: float, classes: int) -> Tensor:
    """Logits of the linear model at which the smoothed loss is least."""
    x, target = inputs.numpy(), np.full((len(labels), classes), epsilon / classes)
    target[np.arange(len(labels)), labels.numpy()] += 1 - epsilon

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ weights.reshape(x.shape[1], classes)
        z = z - z.max(1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
        return -(target * log_p).sum() / len(x), (x.T @ (np.exp(log_p) - target) / len(x)).ravel()

    found = minimize(
        loss,
        np.zeros(x.shape[1] * classes),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 0, "gtol": 1e-9, "maxiter": 5000},
    )
    return torch.from_numpy(x @ found.x.reshape(x.shape[1], classes))


def by_confidence(logits: Tensor) -> float:
    """ε as the median confidence tells it."""
    classes = logits.shape[-1]
    return float(1 - logits.softmax(-1).amax(-1).median()) * classes / (classes - 1)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("epsilon", [0.02, 0.1, 0.45])
def test_ideal_logits_tell_their_epsilon(epsilon: float, classes: int):
    """Every example at the confidence that the loss wants, with logits of the label ln(1 + K(1-ε)/ε) above
    the others.
    """
    labels = torch.arange(40) % classes
    logits = 1.3 + math.log(1 + classes * (1 - epsilon) / epsilon) * nn.functional.one_hot(
        labels, classes
    ).to(torch.float64)
    found = estimate_epsilon(logits, labels)
    assert float(found.value) == pytest.approx(epsilon, abs=1e-12)
    assert float(found.misfit) < 1e-12
    assert float(found.high - found.value) == pytest.approx(BASE, abs=1e-9)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("classes", [2, 6])
def test_a_model_at_rest_tells_its_epsilon_however_often_it_errs(classes: int, epsilon: float):
    inputs, labels = overlapping(seed=1, classes=classes, noise=1.6 if classes == 2 else 0.8)
    logits = at_rest(inputs, labels, epsilon, classes)
    assert 0.5 < float((logits.argmax(-1) == labels).double().mean()) < 0.95
    assert float(estimate_epsilon(logits, labels).value) == pytest.approx(epsilon, abs=1e-5)
    assert abs(by_confidence(logits) - epsilon) > 0.05


def test_what_trained_networks_tell():
    """Perceptrons trained for 25 epochs on classes that overlap: as often wrong as real ones, and not quite
    at rest.
    """
    epsilons = (0.0, 0.1, 0.3)
    inputs, labels = overlapping(seed=2, examples=900, features=6, noise=0.9)
    inputs = inputs.float()
    members = [Member(epsilon, 0, learning_rate=5e-3, weight_decay=1e-2) for epsilon in epsilons]
    noises = {"uniform": SmoothingNoise(torch.full((6,), 1 / 6, dtype=torch.float64))}
    population = FusedPopulation(
        members,
        lambda: nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 6)),
        noises,
        torch.device("cpu"),
    )
    generator = torch.Generator().manual_seed(3)
    epochs, steps = 25, 900 // 50
    for epoch in range(epochs):
        order = torch.randperm(900, generator=generator).reshape(1, steps, 50)
        for step in range(steps):
            rows = order[:, step]
            population.step(
                inputs[rows], labels[rows], learning_rate_at(epoch * steps + step, epochs * steps)
            )
    logits = population.logits(inputs)
    found = estimate_epsilon(logits, labels)
    assert found.value.shape == (3,)
    for i, epsilon in enumerate(epsilons):
        assert float(found.value[i]) == pytest.approx(epsilon, abs=0.03)
        assert found.low[i] <= epsilon <= found.high[i]
        assert abs(by_confidence(logits[i]) - epsilon) > abs(float(found.value[i]) - epsilon)
        assert found.high[i] - found.low[i] < 0.15
        alone = estimate_epsilon(logits[i], labels)
        assert_close(alone.value, found.value[i], atol=1e-12, rtol=0)


def oracle(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """ε, misfit and standard error, example by example, entry by entry."""
    examples, classes = logits.shape
    at_zero, at_one = [], []
    for row, label in zip(logits, labels, strict=True):
        allowed = [k for k in range(classes) if row[k] > -INF]
        total = sum(math.exp(row[k]) for k in allowed)
        mean = sum(row[k] for k in allowed) / len(allowed)
        zero, one = np.zeros((classes, classes)), np.zeros((classes, classes))
        for k in allowed if label in allowed else []:
            for j in allowed:
                hit = float(k == label)
                zero[k, j] = (math.exp(row[k]) / total - hit) * (row[j] - mean)
                one[k, j] = (1 / len(allowed) - hit) * (row[j] - mean)
        at_zero.append(zero)
        at_one.append(one)
    a, b = sum(at_zero) / examples, sum(at_one) / examples
    epsilon = float((a * b).sum() / (b * b).sum())
    scores = [
        ((zero - epsilon * one) * b).sum() / (b * b).sum() for zero, one in zip(at_zero, at_one, strict=True)
    ]
    misfit = math.sqrt(((a - epsilon * b) ** 2).sum() / (b * b).sum())
    return epsilon, misfit, math.sqrt(sum(score**2 for score in scores)) / examples


@pytest.mark.parametrize("masked", [False, True])
def test_agrees_with_the_oracle(masked: bool, logits: Tensor, labels: Tensor):
    logits = logits / 2
    if masked:
        logits[:, ::4, 6] = -INF
        logits[1, 3, labels[3]] = -INF
    found = estimate_epsilon(logits, labels)
    for member, model in enumerate(logits.numpy()):
        epsilon, misfit, error = oracle(model, labels.numpy())
        assert float(found.value[member]) == pytest.approx(epsilon, abs=1e-12)
        assert float(found.misfit[member]) == pytest.approx(misfit, abs=1e-12)
        half = BASE + PER_MISFIT * misfit + PER_ERROR * error
        assert float(found.low[member]) == pytest.approx(epsilon - half, abs=1e-12)
        assert float(found.high[member]) == pytest.approx(epsilon + half, abs=1e-12)
    assert found.value.max() - found.value.min() > 0.2


def test_two_member_dimensions_narrow_types_and_chunks(
    logits: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
):
    grid = torch.stack([logits, logits / 3])
    found = estimate_epsilon(grid.half(), labels.to(torch.int8))
    assert found.value.shape == found.low.shape == found.high.shape == found.misfit.shape == (2, 3)
    assert found.value.dtype == torch.float64
    assert_close(
        found.value[1, 2], estimate_epsilon((logits[2] / 3).half().double(), labels).value, atol=1e-12, rtol=0
    )
    monkeypatch.setattr("lscal.epsilon.ELEMENTS", 70)
    assert_close(estimate_epsilon(grid.half(), labels).low, found.low, atol=1e-12, rtol=0)


def test_a_constant_added_to_a_row_changes_nothing(logits: Tensor, labels: Tensor):
    moved = logits + torch.linspace(-5, 9, 101, dtype=torch.float64).unsqueeze(-1)
    assert_close(
        estimate_epsilon(moved, labels).value, estimate_epsilon(logits, labels).value, atol=1e-10, rtol=0
    )


def test_sharper_logits_tell_less_smoothing(logits: Tensor, labels: Tensor):
    values = [float(estimate_epsilon(scale * logits[1], labels).value) for scale in (0.3, 1.0, 3.0)]
    assert values == sorted(values, reverse=True)
    assert values[2] < 0  # sharper than any smoothing explains


def test_logits_which_say_nothing(labels: Tensor):
    with pytest.raises(ValueError, match=r"^no logit differs from another of its row"):
        estimate_epsilon(torch.full((101, 7), 0.4), labels)


def test_what_cannot_be_scored_has_no_epsilon(logits: Tensor, labels: Tensor):
    logits[1, 5, 0] = math.nan
    with pytest.raises(ValueError, match=r"\(1, 5, 0\) is nan"):
        estimate_epsilon(logits, labels)
