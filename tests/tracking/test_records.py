import json
import math

import made
import pytest

from tracking.records.evidence import Evidence
from tracking.records.outcome import Bins, Interval, Outcome
from tracking.records.recommendation import Recommendation


def part(seeds, accuracy, count, confidence, right):
    bins = Bins(count, confidence, right, 0.1 * len(seeds), 0.2)
    return Outcome(
        f"uid{seeds[0]}",
        "digits/mlp",
        "s",
        "confirm",
        0,
        0.1,
        10,
        {"epsilon": 0.1},
        seeds,
        {"test/accuracy": accuracy},
        {"select_accuracy": (accuracy[0], accuracy[0] + 0.1)},
        tuple(1.0 for _ in seeds),
        {"test": bins},
        2.0,
        f"2026-01-0{seeds[0]}",
        risks={"test": tuple((0.1, 0.2) for _ in seeds)},
    )


def test_batches_of_seeds_join_to_one_outcome():
    first = part((1,), (0.8,), (0, 2, 1), (None, 0.5, 0.9), (None, 0.5, 1.0))
    second = part((2, 3, 4), (0.9, 0.7, 0.6), (0, 0, 3), (None, None, 0.7), (None, None, 0.0))
    whole = Outcome.joined([first, second])
    assert whole.seeds == (1, 2, 3, 4)
    assert whole.mean("test/accuracy") == pytest.approx(0.75)
    assert whole.curves["select_accuracy"] == pytest.approx(((0.8 + 3 * 0.9) / 4, (0.9 + 3 * 1.0) / 4))
    bins = whole.bins["test"]
    assert bins.count == (0, 2, 4)
    assert bins.confidence == (None, 0.5, pytest.approx((0.9 + 3 * 0.7) / 4))
    assert bins.accuracy == (None, 0.5, pytest.approx(0.25))
    assert bins.gap == pytest.approx((0.1 + 3 * 0.3) / 4)
    assert (whole.seconds, whole.finished, len(whole.risks["test"]), len(whole.temperature)) == (
        4.0,
        "2026-01-02",
        4,
        4,
    )


def test_an_outcome_alone_joins_to_itself():
    alone = part((1, 2), (0.8, 0.9), (0, 2, 1), (None, 0.5, 0.9), (None, 0.5, 1.0))
    assert Outcome.joined([alone]) == alone


def test_the_standard_error_has_a_part_that_seeds_do_not_shrink():
    found = Interval(0.01, 0.0, 0.02, examples=0.003, seeds=0.008)
    assert found.error(4) == pytest.approx(0.005)
    assert found.error(10**12) == pytest.approx(0.003)


def test_evidence_comes_back_from_json_as_it_was():
    evidence = made.evidence()
    assert Evidence.from_json(evidence.to_json()) == evidence
    json.loads(evidence.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_recommendation_comes_back_from_json_with_its_infinite_freedom():
    recommendation = made.evidence().recommendations["safe"]
    assert Recommendation.from_json(recommendation.to_json()) == recommendation
    assert math.isinf(Interval(0, 0, 0).freedom)
