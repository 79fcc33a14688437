from itertools import pairwise, permutations

import numpy as np
import oracles
import pytest
import torch
from torch import Tensor

from lscal.predictions import Predictions
from lscal.selective import aurc, risk_coverage

TIED = torch.tensor([0.7, 0.4, 0.9, 0.7, 0.4, 0.7, 0.2], dtype=torch.float64)
RIGHT = torch.tensor([True, False, True, False, True, False, False])


def test_by_hand():
    confidence = torch.tensor([0.3, 0.9, 0.6, 0.8], dtype=torch.float64)
    correct = torch.tensor([False, True, True, False])
    assert risk_coverage(confidence, correct).tolist() == pytest.approx([0, 1 / 2, 1 / 3, 2 / 4])
    assert float(aurc(confidence, correct)) == pytest.approx((1 / 2 + 1 / 3 + 2 / 4) / 4)


def test_ties_are_the_mean_over_all_orders():
    curves = []
    for order in permutations(range(7)):
        if all(TIED[i] >= TIED[j] for i, j in pairwise(order)):
            wrong = np.array([not RIGHT[i] for i in order])
            curves.append(wrong.cumsum() / np.arange(1, 8))
    assert len(curves) == 6 * 2
    np.testing.assert_allclose(risk_coverage(TIED, RIGHT).numpy(), np.mean(curves, 0), atol=1e-15)
    assert float(aurc(TIED, RIGHT)) == pytest.approx(np.mean(curves), abs=1e-15)
    assert oracles.aurc(TIED.numpy(), RIGHT.numpy()) == pytest.approx(np.mean(curves), abs=1e-15)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_position_does_not_matter(seed: int):
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(risk_coverage(TIED[order], RIGHT[order]), risk_coverage(TIED, RIGHT), atol=1e-15, rtol=0)


def test_many_ties_agree_with_the_oracle(logits: Tensor, labels: Tensor):
    predictions = Predictions.from_logits(logits, labels)
    coarse = (predictions.confidence * 8).round() / 8
    values = aurc(coarse, predictions.correct)
    assert values.shape == (3,)
    for member in range(3):
        assert len(coarse[member].unique()) < 10
        expected = oracles.aurc(coarse[member].numpy(), predictions.correct[member].numpy())
        assert float(values[member]) == pytest.approx(expected, abs=1e-14)


def test_an_increasing_transformation_changes_nothing(logits: Tensor, labels: Tensor):
    predictions = Predictions.from_logits(logits, labels)
    curve = risk_coverage(predictions.confidence, predictions.correct)
    assert torch.equal(risk_coverage(5 * predictions.confidence.square() - 3, predictions.correct), curve)
    assert curve.shape == (3, 101)
    assert ((curve >= 0) & (curve <= 1)).all()


def test_full_coverage_is_the_error_rate(logits: Tensor, labels: Tensor):
    predictions = Predictions.from_logits(logits, labels)
    error = (~predictions.correct).to(torch.float64).mean(-1)
    torch.testing.assert_close(risk_coverage(predictions.confidence, predictions.correct)[:, -1], error, atol=1e-14, rtol=0)


def test_no_ranking_gives_the_error_rate():
    assert risk_coverage(torch.full((7,), 0.6, dtype=torch.float64), RIGHT).tolist() == pytest.approx([4 / 7] * 7)


def test_a_perfect_ranking_is_best_and_its_reverse_is_worst():
    perfect = torch.tensor([0.9, 0.3, 0.8, 0.2, 0.7, 0.1, 0.4], dtype=torch.float64)
    values = [float(aurc(confidence, RIGHT)) for confidence in (perfect, TIED, -perfect)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(sum(k / (3 + k) for k in range(1, 5)) / 7)


@pytest.mark.parametrize("right", [True, False])
def test_one_example(right: bool):
    assert float(aurc(torch.tensor([0.8], dtype=torch.float64), torch.tensor([right]))) == float(not right)
