"""Decisions from outcomes alone, on simulated tasks whose true answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tracking.decision.from_outcomes import compare, decide_on
from tracking.decision.terms import Terms
from tracking.records.outcome import Bins, Outcome

EPSILONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)


def trials(random, gain, stage, seeds, noise, metrics):
    """Trials whose true accuracy is 0.9 + gain(ε); each further metric is 0.2 times a function of ε."""
    split = {"screen": "select", "confirm": "test"}[stage]
    first = {"screen": 0, "confirm": 5000}[stage]
    shared = random.normal(0, noise, seeds)
    made = []
    for epsilon in EPSILONS:
        values = {f"{split}/accuracy": tuple(0.9 + gain(epsilon) + shared + random.normal(0, noise, seeds))}
        values |= {
            f"{split}/{name}": tuple(0.2 * of(epsilon) + random.normal(0, 1e-4, seeds))
            for name, of in metrics.items()
        }
        name = f"{stage}#{epsilon}"
        places = tuple(range(first, first + seeds))
        made.append(
            Outcome(
                name,
                "made/up",
                "s",
                stage,
                0,
                epsilon,
                10,
                {"epsilon": epsilon},
                places,
                values,
                {},
                (),
                {},
                1.0,
                "now",
            )
        )
    return made


HARMLESS = dict.fromkeys(("nll_calibrated", "aurc_calibrated"), lambda _: 1.0)


def outcomes(seed, gain, noise=0.002, metrics=HARMLESS):
    random = np.random.default_rng(seed)
    return trials(random, gain, "screen", 8, noise, metrics) + trials(
        random, gain, "confirm", 8, noise, metrics
    )


def test_a_sweep_without_an_effect_recommends_zero():
    adopted = [decide_on(outcomes(seed, lambda _: 0.0)) for seed in range(20)]
    assert sum(found["safe"].epsilon > 0 for found in adopted) <= 2
    assert sum(found["accuracy"].epsilon > 0 for found in adopted) <= 2


def test_a_gain_is_found_near_its_peak():
    found = [decide_on(outcomes(seed, lambda e: 0.01 * e / 0.2 * math.exp(1 - e / 0.2))) for seed in range(8)]
    assert all(0.1 <= one["accuracy"].epsilon <= 0.3 for one in found)
    assert all(0 < one["safe"].epsilon <= 0.25 for one in found)
    assert found[0]["safe"].delta_accuracy.low > 0


def test_a_gain_with_a_worse_ranking_is_for_policy_accuracy_alone():
    harmful = {"nll_calibrated": lambda _: 1.0, "aurc_calibrated": lambda e: 1.0 + e}
    found = decide_on(outcomes(1, lambda e: 0.02 * min(1.0, e / 0.1), metrics=harmful))
    assert found["accuracy"].epsilon > 0
    assert found["safe"].epsilon in (0.0, 0.05)
    if found["safe"].candidate > 0.05:
        assert "AURC" in found["safe"].reason


def test_calibrated_finds_the_lowest_nll():
    lowest = {"nll_calibrated": lambda e: 1.0 + (e - 0.3) ** 2, "aurc_calibrated": lambda _: 1.0}
    found = decide_on(outcomes(2, lambda _: 0.0, metrics=lowest), Terms("calibrated"))
    assert found["calibrated"].epsilon == pytest.approx(0.3, abs=0.05)


def test_policies_whose_metrics_are_missing_are_left_out():
    found = decide_on(outcomes(3, lambda _: 0.0, metrics={}))
    assert set(found) == {"accuracy"}


def test_the_interval_is_students_over_paired_seeds():
    made = outcomes(4, lambda e: e / 10)
    control, other = (one for one in made if one.stage == "confirm" and one.epsilon in (0.0, 0.1))
    paired = np.array(other.metrics["test/accuracy"]) - np.array(control.metrics["test/accuracy"])
    delta = compare(other, control).differences["accuracy"]
    assert delta.value == pytest.approx(paired.mean())
    assert delta.high - delta.value == pytest.approx(2.364624 * paired.std(ddof=1) / math.sqrt(8), rel=1e-5)


def test_one_seed_and_seeds_which_agree_claim_nothing():
    for seeds, noise in ((1, 0.002), (4, 0.0)):
        random = np.random.default_rng(6)
        gain = lambda e: e / 10  # noqa: E731
        made = trials(random, gain, "screen", 8, 0.002, HARMLESS) + trials(
            random, gain, "confirm", seeds, noise, HARMLESS
        )
        assert decide_on(made)["accuracy"].epsilon == 0


def test_examples_count_where_they_are_known():
    bins = {"test": Bins((1000 * 8,), (0.9,), (0.9,), 0.0, 0.0)}
    control, other = (
        one for one in outcomes(7, lambda e: e / 100) if one.stage == "confirm" and one.epsilon in (0.0, 0.1)
    )
    blind, seeing = compare(other, control), compare(replace(other, bins=bins), control)
    assert seeing.differences["accuracy"].error(8) == pytest.approx(
        3 * blind.differences["accuracy"].error(8)
    )
    assert seeing.claims["accuracy"].p > blind.claims["accuracy"].p


def test_a_stage_without_a_control_is_refused():
    made = [one for one in outcomes(5, lambda _: 0.0) if not (one.stage == "confirm" and one.epsilon == 0)]
    with pytest.raises(ValueError, match="ε = 0"):
        decide_on(made)
