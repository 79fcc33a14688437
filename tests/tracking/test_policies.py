from dataclasses import replace

import pytest

from tracking.policies import POLICIES, Tolerances, candidates, recommend
from tracking.records import Comparison, Interval, Outcome

METRICS = ("accuracy", "ece", "ece_calibrated", "aurc", "aurc_calibrated", "nll_calibrated", "worst_class_accuracy")


def outcome(epsilon, accuracies, stage="screen"):
    uid = f"digits/mlp@1#{stage}{epsilon}"
    metrics = {"select/accuracy": tuple(accuracies)}
    seeds = tuple(range(len(accuracies)))
    return Outcome(uid, "digits/mlp", "digits/mlp@1", stage, 0, epsilon, 10, {"epsilon": epsilon}, seeds, metrics, {}, (), {}, 1.0, "now")


def comparison(epsilon, gain=(0.012, 0.004, 0.02), aurc=(-0.1, -0.2, 0.01), nll=0.0, worst=0.0):
    same = Interval(0.0, 0.0, 0.0)
    differences = dict.fromkeys(METRICS, same) | {
        "accuracy": Interval(*gain),
        "worst_class_accuracy": Interval(worst, worst - 0.1, worst + 0.1),
    }
    relative = dict.fromkeys(METRICS, same) | {"aurc_calibrated": Interval(*aurc), "nll_calibrated": Interval(nll, nll - 1, nll + 1)}
    estimates = {name: Interval(0.9, 0.88, 0.92) for name in METRICS}
    return Comparison(outcome(epsilon, (0.9,), "confirm"), estimates, differences, relative)


DEFAULT = Tolerances()
CONTROL = comparison(0.0, gain=(0.0, 0.0, 0.0), aurc=(0.0, 0.0, 0.0))
CANDIDATE = outcome(0.2, (0.95, 0.96))


def decide(policy, confirmed, candidate=CANDIDATE, tolerances=DEFAULT):
    return recommend(policy, candidate, {CANDIDATE.uid: confirmed}, CONTROL, tolerances, "run")


def test_a_proven_harmless_gain_is_adopted():
    found = decide("safe", comparison(0.2))
    assert found.epsilon == 0.2
    assert found.epsilon_wrong_classes == pytest.approx(0.18)
    assert [condition.met for condition in found.conditions] == [True] * 4
    assert "is adopted" in found.reason
    assert found.delta_accuracy == Interval(0.012, 0.004, 0.02)


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("gain", [(0.003, -0.001, 0.007), (0.003, 0.0, 0.006), (0.0, 0.0, 0.0)])
def test_a_gain_which_cannot_be_told_from_zero_is_not_adopted_and_the_sentence_says_so(policy, gain):
    found = decide(policy, comparison(0.2, gain=gain))
    assert found.epsilon == 0
    assert found.candidate == 0.2
    assert "cannot be told from zero" in found.reason
    assert found.delta_accuracy == Interval(0.0, 0.0, 0.0)


def test_a_loss_is_called_a_loss():
    assert "is a loss" in decide("accuracy", comparison(0.2, gain=(-0.01, -0.02, -0.001))).reason


@pytest.mark.parametrize(
    ("harm", "name"),
    [({"aurc": (0.02, -0.02, 0.06)}, "ranking kept"), ({"nll": 0.011}, "probabilities kept"), ({"worst": -0.011}, "worst class kept")],
)
def test_safe_refuses_what_recalibration_cannot_repair(harm, name):
    found = decide("safe", comparison(0.2, **harm))
    assert found.epsilon == 0
    assert [condition.name for condition in found.conditions if not condition.met] == [name]
    assert decide("accuracy", comparison(0.2, **harm)).epsilon == 0.2


def test_tolerances_are_the_plans():
    harmed = comparison(0.2, nll=0.03)
    assert decide("safe", harmed, tolerances=Tolerances(nll_relative=0.05)).epsilon == 0.2


def test_a_candidate_which_diverged_with_fresh_seeds_is_not_adopted():
    found = recommend("safe", CANDIDATE, {}, CONTROL, Tolerances(), None)
    assert found.epsilon == 0
    assert "diverged" in found.reason


def test_candidates():
    outcomes = [
        outcome(0.0, (0.90, 0.92, 0.91)),
        outcome(0.1, (0.949, 0.951, 0.95)),
        outcome(0.2, (0.951, 0.950, 0.952)),
        outcome(0.3, (0.930, 0.932, 0.934)),
    ]
    chosen = candidates(outcomes)
    assert chosen["accuracy"].epsilon == 0.2
    assert chosen["safe"].epsilon == 0.1 if near(outcomes) else 0.2


def near(outcomes):
    """Whether ε = 0.1 is within one standard error of ε = 0.2, worked out by hand."""
    differences = [-0.002, 0.001, -0.002]
    mean = sum(differences) / 3
    error = (sum((value - mean) ** 2 for value in differences) / 2) ** 0.5 / 3**0.5
    return mean + error >= 0


def test_of_equal_accuracies_the_smallest_epsilon_is_taken():
    outcomes = [outcome(epsilon, (0.9, 0.9)) for epsilon in (0.3, 0.0, 0.1)]
    assert {policy: chosen.epsilon for policy, chosen in candidates(outcomes).items()} == {"safe": 0.0, "accuracy": 0.0}
    found = recommend("safe", outcomes[1], {}, CONTROL, Tolerances(), None)
    assert found.epsilon == 0
    assert "one standard error" in found.reason


def test_the_candidate_of_safe_needs_a_paired_difference():
    """Seeds differ by far more than ε does: only their pairing tells that ε = 0.2 is ahead."""
    outcomes = [outcome(0.0, (0.80, 0.90, 0.85, 0.95)), outcome(0.2, (0.81, 0.91, 0.861, 0.959))]
    assert candidates(outcomes)["safe"].epsilon == 0.2
    shuffled = replace(outcomes[1], metrics={"select/accuracy": (0.959, 0.81, 0.91, 0.861)})
    assert candidates([outcomes[0], shuffled])["safe"].epsilon == 0.0
