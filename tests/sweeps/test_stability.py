"""The rules that `benchmarks.stability` compares, on values whose answer is seen by eye."""

import numpy as np
import pytest

from benchmarks import stability


def seen(values, error=0.25):
    epsilons = np.linspace(0.0, 0.4, len(values)).round(9)
    return stability.Seen(epsilons, np.array(values), np.full(len(values), error), np.ones(len(values), bool))


@pytest.mark.parametrize(
    ("values", "expected"),
    [  # at 0, 0.05, … 0.4
        ((0.0, 0.9, 1.0, 0.9, 0.8, 0.8, 0.2, 0.1, 0.0), {"before": 0.05, "best": 0.1, "in force": 0.1}),
        ((0.0, 0.9, 0.2, 0.1, 0.8, 1.0, 0.9, 0.8, 0.2), {"before": 0.05, "best": 0.25, "in force": 0.3}),
        ((0.8, 0.9, 1.0, 0.9, 0.8, 0.8, 0.2, 0.1, 0.0), {"before": 0.0, "best": 0.1, "in force": 0.0}),
    ],
)
def test_rules_name_what_they_say(values, expected):
    rules = {
        "before": "smallest ε within one standard error (1 SE)",
        "best": "best",
        "in force": "middle on the scale of √ε, short list",
    }
    assert {name: stability.RULES[rule](seen(values)) for name, rule in rules.items()} == pytest.approx(
        expected
    )


def test_the_share_of_equal_pairs():
    assert stability.same([0.1, 0.1, 0.1, 0.2]) == 0.5


def test_the_rule_in_force_is_the_one_of_that_name():
    task = stability.Task(
        stability.SIZES["small"],
        stability.Truth(tuple(0.015 * min(1, epsilon / 0.1) for epsilon in stability.GRID)),
        5,
    )
    named = stability.named_by(stability.screening_of(task, range(8)), "safe")
    assert named[stability.IN_FORCE] == named["middle on the scale of √ε, short list"] > 0
