import math

import numpy as np
import oracles
import pytest
import torch
from populations import population
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy
from torch import Tensor

from lscal.metrics import METRICS, applicable
from lscal.predictions import Predictions

NAMES = [name for name, own in METRICS.items() if own.of_distributions]
every = pytest.mark.parametrize("name", NAMES)
INF = math.inf


def annotators(labels: Tensor, classes: int, votes: int = 5) -> Tensor:
    """Shares of a few votes, most of them for the label, so that many classes get none."""
    generator = torch.Generator().manual_seed(classes)
    chance = 0.4 / classes + 0.6 * torch.nn.functional.one_hot(labels, classes)
    drawn = torch.multinomial(chance.double(), votes, replacement=True, generator=generator)
    return torch.nn.functional.one_hot(drawn, classes).sum(-2).double() / votes


def value(name: str, logits: Tensor, q: Tensor) -> Tensor:
    return METRICS[name].function(Predictions.from_logits(logits, q))


def test_they_are_what_the_issue_asks_for():
    assert NAMES == ["agreement", "soft_nll", "kl", "jensen_shannon", "total_variation", "human_ece"]


@every
@pytest.mark.parametrize(("examples", "classes"), [(101, 7), (1, 4), (60, 2), (37, 100)])
def test_agrees_with_the_oracle(examples: int, classes: int, name: str):
    logits, labels = population(seed=51, examples=examples, classes=classes)
    q = annotators(labels, classes)
    grid = torch.stack([logits, logits.roll(1, -1)])
    values = value(name, grid, q)
    assert values.shape == (2, 3)
    assert values.dtype == torch.float64
    expected = [[oracles.METRICS[name](z.numpy(), q.numpy()) for z in own] for own in grid]
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-12)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_narrow_logits_and_distributions(logits: Tensor, labels: Tensor, name: str, dtype: torch.dtype):
    q = annotators(labels, 7).to(dtype)
    narrow = logits.to(dtype)
    expected = [oracles.METRICS[name](z.double().numpy(), q.double().numpy()) for z in narrow]
    np.testing.assert_allclose(value(name, narrow, q).numpy(), expected, atol=2e-6, rtol=2e-6)


@every
def test_probabilities_are_scored_like_their_logits(logits: Tensor, labels: Tensor, name: str):
    q = annotators(labels, 7)
    from_p = METRICS[name].function(Predictions.from_probabilities(logits.softmax(-1), q))
    np.testing.assert_allclose(from_p.numpy(), value(name, logits, q).numpy(), atol=1e-12)


@every
def test_masked_examples_do_not_count(logits: Tensor, labels: Tensor, name: str):
    q, mask = annotators(labels, 7), torch.arange(101) % 4 != 2
    expected = value(name, logits[:, mask], q[mask])
    logits[:, ~mask], q[~mask] = math.nan, math.nan
    assert torch.equal(METRICS[name].function(Predictions.from_logits(logits, q, mask=mask)), expected)


def test_scipy_agrees(logits: Tensor, labels: Tensor):
    q, p = annotators(labels, 7).numpy(), logits[1].softmax(-1).numpy()
    assert float(value("kl", logits[1], annotators(labels, 7))) == pytest.approx(
        entropy(q, p, axis=1).mean(), abs=1e-12
    )
    distance = float(value("jensen_shannon", logits[1], annotators(labels, 7)))
    assert distance == pytest.approx((jensenshannon(q, p, axis=1) ** 2).mean(), abs=1e-12)


@every
def test_certain_labels_give_the_ordinary_metric(logits: Tensor, labels: Tensor, name: str):
    ordinary = {"agreement": "accuracy", "soft_nll": "nll", "kl": "nll", "human_ece": "ece"}
    onehot = torch.nn.functional.one_hot(labels, 7).double()
    if name in ordinary:
        expected = METRICS[ordinary[name]].function(Predictions.from_logits(logits, labels))
        np.testing.assert_allclose(value(name, logits, onehot).numpy(), expected.numpy(), atol=1e-13)
    else:
        at_label = logits.softmax(-1).gather(-1, labels.expand(3, -1).unsqueeze(-1)).squeeze(-1)
        divergence = (
            math.log(2) - ((1 + at_label) * (1 + at_label).log() - at_label * at_label.log()) / 2
        ).mean(-1)
        expected = {"total_variation": 1 - at_label.mean(-1), "jensen_shannon": divergence}[name]
        np.testing.assert_allclose(value(name, logits, onehot).numpy(), expected.numpy(), atol=1e-12)


@every
def test_the_human_distribution_itself_is_best(labels: Tensor, name: str):
    q = annotators(labels, 7) * 0.9 + 0.1 / 7
    own = float(value(name, q.log(), q))
    entropies = -(q * q.log()).sum(-1).mean()
    best = {"agreement": float(q.amax(-1).mean()), "soft_nll": float(entropies)}.get(name, 0)
    assert own == pytest.approx(best, abs=1e-14)
    assert (METRICS[name].better == "higher") == (name == "agreement")


def test_a_class_ruled_out_that_annotators_named():
    logits = torch.tensor([[0.4, -INF, 1.2], [0.1, 0.2, 0.3]], dtype=torch.float64)
    q = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.5, 0.3]], dtype=torch.float64)
    for name in NAMES:
        found = float(value(name, logits, q))
        assert found == pytest.approx(oracles.METRICS[name](logits.numpy(), q.numpy()), abs=1e-13)
        assert (found == INF) == (name in {"soft_nll", "kl"})
    named_not = torch.tensor([[0.75, 0.0, 0.25], [0.2, 0.5, 0.3]], dtype=torch.float64)
    assert math.isfinite(float(value("soft_nll", logits, named_not)))


def test_opposites_are_farthest():
    logits = torch.tensor([[0.0, -INF, -INF]], dtype=torch.float64)
    q = torch.tensor([[0.0, 0.5, 0.5]], dtype=torch.float64)
    assert float(value("jensen_shannon", logits, q)) == pytest.approx(math.log(2))
    assert float(value("total_variation", logits, q)) == 1
    assert float(value("agreement", logits, q)) == 0
    assert float(value("human_ece", logits, q)) == 1


@every
def test_the_range_is_kept(name: str):
    generator = torch.Generator().manual_seed(8)
    for scale in (0, 1, 30, 1000):
        q = torch.distributions.Dirichlet(torch.full((4,), 0.05)).sample((50,)).double()
        q = q / q.sum(-1, keepdim=True)
        for logits in (
            scale * torch.randn(50, 4, generator=generator),
            scale * torch.randn(50, 4, generator=generator).double(),
        ):
            found = float(value(name, logits, q))
            assert METRICS[name].low <= found <= METRICS[name].high


@every
def test_class_indices_are_not_enough(logits: Tensor, labels: Tensor, name: str):
    predictions = Predictions.from_logits(logits, labels)
    with pytest.raises(
        ValueError,
        match=rf"^{name} compares with label distributions; give labels of shape \(N, K\) instead of \(N,\)$",
    ):
        METRICS[name].function(predictions)
    assert name not in [own.name for own in applicable(predictions)]


def test_distributions_allow_all_metrics(logits: Tensor, labels: Tensor):
    assert applicable(Predictions.from_logits(logits, annotators(labels, 7))) == list(METRICS.values())
