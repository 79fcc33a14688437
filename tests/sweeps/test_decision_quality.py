"""A small version of `benchmarks.decision`: simulated tasks whose true answer is known, decided as real
sweeps are.
"""

import pytest

from benchmarks import decision

SMALL = decision.SIZES["small"]


@pytest.fixture(scope="module")
def found():
    """Sweeps of tasks where smoothing gains nothing, and where it gains 3 pp."""
    none = [decision.sweep(SMALL, decision.plateau(0.0), seed, ("accuracy", "safe")) for seed in range(6)]
    much = [decision.sweep(SMALL, decision.plateau(0.03), 100 + seed, ("accuracy",)) for seed in range(4)]
    return none, much


def test_without_a_gain_nothing_is_adopted(found):
    none, _ = found
    assert [one.recommendations["accuracy"].epsilon for one in none].count(0.0) >= 5
    assert [one.recommendations["safe"].epsilon for one in none].count(0.0) >= 5


def test_a_large_gain_is_found_soon_and_its_interval_holds_it(found):
    _, much = found
    assert all(one.recommendations["accuracy"].epsilon > 0 for one in much)
    assert all(one.recommendations["accuracy"].seeds <= 12 for one in much)
    assert sum(decision.holds(one, "accuracy") for one in much) >= 3


def test_a_worse_ranking_is_refused_by_safe_alone():
    truth = decision.Truth(decision.plateau(0.015).gain, harm=8.0)
    one = decision.sweep(SMALL, truth, 7, ("safe", "accuracy"))
    assert one.recommendations["safe"].epsilon == 0
    assert not all(condition.met for condition in one.recommendations["safe"].conditions)


def test_members_are_as_accurate_as_the_truth_says():
    task = decision.Task(decision.Size(20, 20, 40_000, 0.9, 0.1, 0.01, 0.02), decision.plateau(0.02), 3)
    right = {epsilon: (task.ahead("test", epsilon, 5) > 0).mean() for epsilon in (0.0, 0.2)}
    assert right[0.0] == pytest.approx(0.90, abs=0.006)
    assert right[0.2] == pytest.approx(0.92, abs=0.006)
    assert (task.ahead("test", 0.2, 5) == task.ahead("test", 0.2, 5)).all()
