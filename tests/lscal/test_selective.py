from itertools import pairwise, permutations

import numpy as np
import oracles
import pytest
import torch
from populations import population
from torch import Tensor

from lscal.predictions import Predictions
from lscal.selective import (
    area,
    aurc,
    break_even,
    coverage_at,
    groups_of,
    least_area,
    risk_at,
    risk_coverage,
    tie_groups,
)

TIED = torch.tensor([0.7, 0.4, 0.9, 0.7, 0.4, 0.7, 0.2], dtype=torch.float64)
RIGHT = torch.tensor([True, False, True, False, True, False, False])


def drawn(trial: int) -> tuple[Tensor, Tensor]:
    """Up to 40 examples whose confidences are a few small integers, so that most are tied."""
    generator = torch.Generator().manual_seed(trial)
    examples = int(torch.randint(1, 41, (1,), generator=generator))
    confidence = torch.randint(
        int(torch.randint(1, 12, (1,), generator=generator)), (examples,), generator=generator
    ).double()
    return confidence, torch.rand(examples, generator=generator) < torch.rand(1, generator=generator)


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
    torch.testing.assert_close(
        risk_coverage(TIED[order], RIGHT[order]), risk_coverage(TIED, RIGHT), atol=1e-15, rtol=0
    )


def test_tied_curves_and_areas_by_brute_force():
    for trial in range(150):
        confidence, correct = drawn(trial)
        risks = oracles.risks(confidence.numpy(), correct.numpy())
        np.testing.assert_allclose(risk_coverage(confidence, correct).numpy(), risks, atol=1e-14)
        groups = groups_of(confidence, correct)
        assert float(area(groups)) == pytest.approx(np.mean(risks), abs=1e-14)
        ranked_last = oracles.aurc(correct.double().numpy(), correct.numpy())
        assert float(least_area(groups)) == pytest.approx(ranked_last, abs=1e-14)
        assert ranked_last <= np.mean(risks) + 1e-14


def test_risk_and_coverage_by_brute_force():
    """Every coverage k/N and between, every risk that occurs and between, against the array of risks."""
    for trial in range(60):
        confidence, correct = drawn(1000 + trial)
        risks, groups = oracles.risks(confidence.numpy(), correct.numpy()), groups_of(confidence, correct)
        examples = len(risks)
        for k in range(1, examples + 1):
            assert float(risk_at(groups, k / examples)) == pytest.approx(risks[k - 1], abs=1e-12)
            assert float(risk_at(groups, (k - 0.4) / examples)) == pytest.approx(risks[k - 1], abs=1e-12)
        for risk in {
            0.0,
            0.01,
            0.37,
            1.0,
            *(value for own in set(risks) for value in (own, own + 1e-4, own - 1e-4)),
        }:
            if 0 <= risk <= 1:
                reached = max([k for k in range(1, examples + 1) if risks[k - 1] <= risk + 1e-10], default=0)
                assert float(coverage_at(groups, risk)) == pytest.approx(reached / examples, abs=1e-12), (
                    trial,
                    risk,
                )


def test_members_by_themselves():
    generator = torch.Generator().manual_seed(2)
    confidence = torch.randint(5, (2, 3, 30), generator=generator).double()
    correct = torch.rand(2, 3, 30, generator=generator) < 0.6
    groups = groups_of(confidence, correct)
    for function in (area, least_area, lambda own: risk_at(own, 0.8), lambda own: coverage_at(own, 0.3)):
        values = function(groups)
        assert values.shape == (2, 3)
        assert float(values[1, 2]) == pytest.approx(
            float(function(groups_of(confidence[1, 2], correct[1, 2]))), abs=1e-15
        )
    assert risk_coverage(confidence, correct).shape == (2, 3, 30)


def test_many_ties_agree_with_the_oracle(logits: Tensor, labels: Tensor):
    predictions = Predictions.from_logits(logits, labels)
    coarse = (predictions.confidence * 8).round() / 8
    values = aurc(coarse, predictions.correct)
    assert values.shape == (3,)
    for member in range(3):
        assert len(coarse[member].unique()) < 10
        expected = oracles.aurc(coarse[member].numpy(), predictions.correct[member].numpy())
        assert float(values[member]) == pytest.approx(expected, abs=1e-14)


def test_large_groups_keep_their_digits():
    """A million examples in three groups: in closed form, against the sum."""
    confidence = torch.arange(1_000_000).remainder(3).double()
    correct = torch.arange(1_000_000).remainder(7) < 5
    groups = groups_of(confidence, correct)
    assert float(area(groups)) == pytest.approx(float(risk_coverage(confidence, correct).mean()), rel=1e-11)
    assert float(coverage_at(groups, 2 / 7)) == pytest.approx(1, abs=1e-5)


def test_an_increasing_transformation_changes_nothing(logits: Tensor, labels: Tensor):
    predictions = Predictions.from_logits(logits, labels)
    curve = risk_coverage(predictions.confidence, predictions.correct)
    assert torch.equal(risk_coverage(5 * predictions.confidence.square() - 3, predictions.correct), curve)
    assert curve.shape == (3, 101)
    assert ((curve >= 0) & (curve <= 1)).all()


def test_full_coverage_is_the_error_rate(logits: Tensor, labels: Tensor):
    predictions = Predictions.from_logits(logits, labels)
    error = (~predictions.correct).to(torch.float64).mean(-1)
    torch.testing.assert_close(
        risk_coverage(predictions.confidence, predictions.correct)[:, -1], error, atol=1e-14, rtol=0
    )


def test_no_ranking_gives_the_error_rate():
    assert risk_coverage(torch.full((7,), 0.6, dtype=torch.float64), RIGHT).tolist() == pytest.approx(
        [4 / 7] * 7
    )


def test_a_perfect_ranking_is_best_and_its_reverse_is_worst():
    perfect = torch.tensor([0.9, 0.3, 0.8, 0.2, 0.7, 0.1, 0.4], dtype=torch.float64)
    values = [float(aurc(confidence, RIGHT)) for confidence in (perfect, TIED, -perfect)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(sum(k / (3 + k) for k in range(1, 5)) / 7)


@pytest.mark.parametrize("right", [True, False])
def test_one_example(right: bool):
    assert float(aurc(torch.tensor([0.8], dtype=torch.float64), torch.tensor([right]))) == float(not right)


def test_groups_of_equals():
    assert tie_groups(TIED).tolist() == [1, 2, 0, 1, 2, 1, 3]
    groups = groups_of(TIED, RIGHT)
    assert groups.count.tolist() == [1, 3, 2, 1, 0, 0, 0]
    assert groups.correct.tolist() == [1, 1, 1, 0, 0, 0, 0]


def test_a_sliver_of_coverage_is_the_first_example():
    groups = groups_of(torch.tensor([0.9, 0.2, 0.4], dtype=torch.float64), torch.tensor([False, True, True]))
    assert float(risk_at(groups, 1e-10)) == 1


@pytest.mark.parametrize("coverage", [0.0, -0.1, 1.1, float("nan")])
def test_a_coverage_out_of_range(coverage: float):
    with pytest.raises(ValueError, match=rf"^the coverage is {coverage}; allowed is 0 < coverage <= 1$"):
        risk_at(groups_of(TIED, RIGHT), coverage)


@pytest.mark.parametrize("risk", [-0.1, 1.1, float("nan")])
def test_a_risk_out_of_range(risk: float):
    with pytest.raises(ValueError, match=rf"^the risk is {risk}; allowed is 0 to 1$"):
        coverage_at(groups_of(TIED, RIGHT), risk)


# ---- break-even
# --------------------------------------------------------------------------------------------------


def model(confidence: list[float], right: list[bool]) -> Predictions:
    """Two classes; the label is always 0."""
    gaps = torch.tensor(confidence, dtype=torch.float64) * torch.where(torch.tensor(right), 1, -1)
    return Predictions.from_logits(
        torch.stack([gaps, torch.zeros_like(gaps)], -1) + 0.3, torch.zeros(len(right), dtype=torch.int64)
    )


T, F = True, False


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # risks 0 1/2 1/3 1/4 against 0 0 1/3 2/4: behind at two of four examples, ahead from the third on
        (([4, 3, 2, 1], [T, F, T, T]), ([4, 3, 2, 1], [T, T, F, F]), 2 / 4),
        (([4, 3, 2, 1], [F, T, T, T]), ([4, 3, 2, 1], [T, T, F, F]), 2 / 4),
        (
            ([4, 3, 2, 1], [T, T, T, F]),
            ([4, 3, 2, 1], [T, F, T, T]),
            0,
        ),  # equal at full coverage, and nowhere behind
        (([4, 3, 2, 1], [T, T, T, F]), ([4, 3, 2, 1], [T, F, T, F]), 0),
        (([4, 3, 2, 1], [T, F, T, F]), ([4, 3, 2, 1], [T, T, T, F]), 1),
        (([4, 3, 2, 1], [F, F, F, T]), ([4, 3, 2, 1], [T, F, T, F]), 1),
        (
            ([3, 3, 3, 3], [T, F, T, F]),
            ([4, 3, 2, 1], [F, T, F, T]),
            0,
        ),  # 1/2 throughout against 1 1/2 2/3 1/2
        (([4, 3, 2, 1], [F, T, F, T]), ([3, 3, 3, 3], [T, F, T, F]), 3 / 4),
    ],
)
def test_break_even_by_hand(
    first: tuple[list[float], list[bool]], second: tuple[list[float], list[bool]], expected: float
):
    assert float(break_even(model(*first), model(*second))) == pytest.approx(expected)


def test_nothing_tells_a_model_from_itself():
    assert torch.isnan(break_even(model([3, 2, 2], [T, F, T]), model([3, 2, 2], [T, T, F])))


def test_break_even_of_members():
    logits, labels = population(seed=27)
    population_of = Predictions.from_logits(logits, labels)
    values = break_even(population_of, Predictions.from_logits(logits.roll(1, 0), labels))
    assert values.shape == (3,)
    for member in range(3):
        one, two = (Predictions.from_logits(logits[i], labels) for i in (member, (member - 1) % 3))
        curves = [
            np.array(oracles.risks(own.log_confidence.numpy(), own.correct.numpy())) for own in (one, two)
        ]
        behind = np.flatnonzero(curves[0] > curves[1] + 1e-12)
        assert float(values[member]) == pytest.approx((behind.max() + 1) / 101 if len(behind) else 0)
