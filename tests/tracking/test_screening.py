"""Screening where more than ε is tuned, and where ε goes below 0."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tracking.decision.policies import POLICIES, constant_ahead, ties
from tracking.decision.prices import Prices
from tracking.decision.screening import SHORT, Screening, Tie, middle, shortened
from tracking.decision.terms import Terms
from tracking.records.evidence import Surface
from tracking.records.outcome import HELD_OUT_ACCURACY, Outcome


def candidates(screening, terms):
    """Each candidate's point, by name."""
    return {name: screening.point_at(tie) for name, tie in ties(screening, terms).items()}


def outcome(accuracy, number, **point):
    metrics = {
        "select/accuracy": tuple(accuracy),
        **{
            f"select/{name}": (0.3,) * 4
            for name in ("nll", "nll_calibrated", "aurc_calibrated", "confidence_gap", "cost")
        },
    }
    return Outcome(
        f"u{number}",
        "a/b",
        "a/b@1",
        "screen",
        number,
        point["epsilon"],
        10,
        point,
        (0, 1, 2, 3),
        metrics,
        {},
        (1.0,) * 4,
        {},
        1.0,
        "now",
    )


def test_accuracy_is_chosen_by_calibrate_as_well_where_every_trial_has_it():
    on_select = {0.0: 0.80, 0.1: 0.85, 0.2: 0.80}
    with_calibrate = {0.0: 0.80, 0.1: 0.82, 0.2: 0.86}
    noise = np.array([-0.001, 0.0, 0.0005, 0.0005])
    alone = [
        outcome(value + noise, number, epsilon=epsilon)
        for number, (epsilon, value) in enumerate(on_select.items())
    ]
    both = [
        replace(one, metrics={**one.metrics, HELD_OUT_ACCURACY: tuple(with_calibrate[one.epsilon] + noise)})
        for one in alone
    ]
    mixed = [*both[:2], alone[2]]
    found = [Screening(trials, trials[0], Prices(), (0.0, 0.2)) for trials in (alone, both, mixed)]
    assert [one.fit("accuracy").metric for one in found] == [
        "select/accuracy",
        HELD_OUT_ACCURACY,
        "select/accuracy",
    ]
    assert [one.best("accuracy", 1)["epsilon"] for one in found] == [
        pytest.approx(0.1, abs=0.03),
        pytest.approx(0.2, abs=0.03),
        pytest.approx(0.1, abs=0.03),
    ]
    assert found[1].fit("nll_calibrated").metric == "select/nll_calibrated"
    assert Screening(both[:1], both[0], Prices(), (0.0, 0.2)).value(
        "accuracy", both[0].point
    ) == pytest.approx(0.80, abs=1e-3)


def noisy(generator, value):
    return value + 0.0005 * generator.standard_normal(4)


def tuned():
    """The recipe's weight decay, 0.1, is far too large; the best is 0.01 at every ε but for a gain of 1 pp at
    ε = 0.2 with `online`.
    """
    generator = np.random.default_rng(3)
    points = [{"epsilon": 0.0, "weight_decay": 0.1, "smoothing": "uniform"}]
    points += [{"epsilon": 0.0, "weight_decay": decay, "smoothing": "uniform"} for decay in (0.003, 0.012)]
    points += [
        {
            "epsilon": 0.4 * generator.random(),
            "weight_decay": 10 ** generator.uniform(-3, -1),
            "smoothing": ("uniform", "online")[place % 2],
        }
        for place in range(20)
    ]

    def accuracy(point):
        bump = 0.01 * math.exp(-(((point["epsilon"] - 0.2) / 0.08) ** 2)) * (point["smoothing"] == "online")
        return 0.9 - 0.03 * (math.log10(point["weight_decay"]) + 2) ** 2 + bump

    outcomes = [
        outcome(noisy(generator, accuracy(point)), number, **point) for number, point in enumerate(points)
    ]
    return Screening(outcomes, outcomes[0], Prices(), (0.0, 0.4))


def test_epsilon_zero_is_judged_at_its_own_best_values():
    screening = tuned()
    assert screening.control_point["epsilon"] == 0
    assert screening.control_point["smoothing"] == "uniform"
    assert math.log10(screening.control_point["weight_decay"]) == pytest.approx(-2, abs=0.3)
    best = screening.best("accuracy", 1)
    assert best["smoothing"] == "online"
    assert best["epsilon"] == pytest.approx(0.2, abs=0.06)
    gain = screening.value("accuracy", best) - screening.value("accuracy", screening.control_point)
    assert gain == pytest.approx(0.01, abs=0.004)  # and not the 0.04 that another weight decay gains


def test_a_surface_shows_how_two_numbers_act_together():
    surfaces = tuned().surfaces()
    assert list(surfaces) == ["weight_decay"]
    surface = surfaces["weight_decay"]
    assert isinstance(surface, Surface)
    assert surface.others == {"smoothing": "online"}
    assert (surface.epsilon[0], surface.epsilon[-1]) == (0.0, 0.4)
    assert np.shape(surface.mean) == (len(surface.values), len(surface.epsilon))
    row, column = np.unravel_index(np.argmax(surface.mean), np.shape(surface.mean))
    assert surface.epsilon[column] == pytest.approx(0.2, abs=0.06)
    assert math.log10(surface.values[row]) == pytest.approx(-2, abs=0.3)
    assert np.max(surface.mean) == pytest.approx(0.91, abs=0.003)


def test_the_order_of_tuned_values_is_the_same_in_every_process():
    """It decides which combinations are tried: a set would be walked by the process's own hashes."""
    points = [dict.fromkeys("hgfedcba", value) | {"epsilon": value} for value in (0.1, 0.2)]
    screening = Screening(
        [outcome((0.9,) * 4, number, **point) for number, point in enumerate(points)],
        outcome((0.9,) * 4, 9, epsilon=0.0),
        Prices(),
        (0.0, 0.4),
    )
    assert list(screening.fit("accuracy").space.numbers) == list("abcdefgh")


def test_below_zero_the_smallest_is_the_nearest_to_zero():
    generator = np.random.default_rng(8)
    epsilons = (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3)
    gains = {-0.3: 0.02, -0.2: 0.02, -0.1: 0.02, 0.0: 0.0, 0.1: -0.01, 0.2: -0.02, 0.3: -0.03}
    outcomes = [
        outcome(noisy(generator, 0.9 + gains[epsilon]), number, epsilon=epsilon)
        for number, epsilon in enumerate(epsilons)
    ]
    screening = Screening(outcomes, outcomes[3], Prices(), (-0.3, 0.3))
    sizes = [abs(point["epsilon"]) for point in screening.points]
    assert screening.points[0]["epsilon"] == 0
    assert sizes == sorted(sizes)
    assert -0.15 < candidates(screening, Terms())["safe"]["epsilon"] < -0.03
    assert screening.surfaces() == {}


TRIED = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35)


def along(gain, tried=TRIED, span=(0.0, 0.4), noise=0.0005, seed=8, dropped=()):
    """The screening of trials whose accuracy is 0.9 + gain(ε), with four seeds."""
    generator = np.random.default_rng(seed)
    trials = [
        outcome(0.9 + gain(epsilon) + noise * generator.standard_normal(4), place, epsilon=epsilon)
        for place, epsilon in enumerate(tried)
    ]
    lost = [
        replace(trials[0], epsilon=epsilon, point={"epsilon": epsilon}, dropped="it was worse")
        for epsilon in dropped
    ]
    return Screening(trials, next(one for one in trials if one.epsilon == 0), Prices(), span, lost)


def level(epsilon):
    return 0.01 * min(1.0, epsilon / 0.05)


def slow_tie(screening, allowed=lambda _: True):
    """The tie by the definition: from the best outwards over the grid, until a value is further behind than
    the error of the best one's gain.
    """
    fit = screening.fit("accuracy")
    values = {
        epsilon: float(fit.mean([{"epsilon": epsilon}])[0])
        for epsilon in screening.epsilons
        if epsilon == 0 or allowed(epsilon)
    }
    best = max(values, key=lambda epsilon: (round(values[epsilon], 10), -abs(epsilon)))
    bar = values[best] - float(fit.shift([{"epsilon": best}], {"epsilon": 0.0}).error[0])
    place = screening.grid.index(0.0 if values[0.0] >= bar else best)
    ends = []
    for step in (-1, 1):
        end = place
        while 0 <= end + step < len(screening.grid) and values.get(screening.grid[end + step], -1.0) >= bar:
            end += step
        ends.append(screening.grid[end])
    return tuple(ends)


def allow(inside):
    return lambda points: np.array([inside(point["epsilon"]) for point in points])


@pytest.mark.parametrize(
    "gain",
    [
        level,
        lambda epsilon: 0.01 * math.exp(-(((epsilon - 0.15) / 0.04) ** 2)),
        lambda epsilon: 0.004 * epsilon,
        lambda epsilon: -0.02 * epsilon,
        lambda epsilon: 0.01 * math.cos(40 * epsilon),
        lambda epsilon: 0.01 * min(1.0, epsilon / 0.01),
    ],
)
def test_a_tie_is_what_its_definition_says(gain):
    for seed in range(3):
        for noise in (0.0003, 0.004):
            screening = along(gain, noise=noise, seed=seed)
            tie = screening.tie("accuracy", 1, cautious=True)
            assert (tie.low, tie.high) == slow_tie(screening)
            half = ((tie.low**0.5 + tie.high**0.5) / 2) ** 2
            inside = [
                value for value in (0.02, 0.05, 0.1, 0.2, 0.3, 0.4) if tie.low <= value <= tie.high
            ] or [float(f"{half:.2g}")]
            assert tie.epsilon == (0.0 if tie.low == 0 else min(inside, key=lambda value: abs(value - half)))
            gap = screening.tie("accuracy", 1, allow(lambda epsilon: not 0.1 < epsilon < 0.19), cautious=True)
            assert (gap.low, gap.high) == slow_tie(screening, lambda epsilon: not 0.1 < epsilon < 0.19)


def test_on_a_plateau_other_seeds_name_the_same():
    found = [
        along(lambda epsilon: 0.015 * (1 - math.exp(-epsilon / 0.04)), noise=0.003, seed=seed)
        for seed in range(12)
    ]
    named = [one.tie("accuracy", 1, cautious=True).epsilon for one in found]
    best = [one.best("accuracy", 1)["epsilon"] for one in found]
    assert max(named.count(value) for value in named) >= 10
    assert max(best.count(value) for value in best) <= 3
    assert set(named) <= set(SHORT)
    assert set(best) - set(SHORT)


@pytest.mark.parametrize("at", [0.06, 0.125, 0.175, 0.225])
def test_a_narrow_peak_between_round_values_is_not_missed(at):
    def gain(epsilon):
        return 0.02 * math.exp(-(((epsilon - at) / 0.03) ** 2))

    screening = along(gain, tried=(*TRIED, *(round(at + off, 3) for off in (-0.02, 0.0, 0.02))), noise=0.0003)
    assert screening.tie("accuracy", 1, cautious=True).epsilon == pytest.approx(at, abs=0.011)
    assert gain(screening.tie("accuracy", 1).epsilon) > 0.017


def test_zero_is_named_where_nothing_is_ahead_of_it_by_one_standard_error():
    """Unless who asks wants the best."""
    screening = along(lambda epsilon: 0.0002 * min(1.0, epsilon / 0.05), noise=0.004, seed=1)
    tie = screening.tie("accuracy", 1, cautious=True)
    assert (tie.low, tie.epsilon) == (0.0, 0.0)
    assert tie.high > 0
    bold = screening.tie("accuracy", 1)
    assert bold.epsilon == screening.best("accuracy", 1)["epsilon"] > 0
    assert bold.low == 0.0
    falling = along(lambda epsilon: -0.05 * epsilon)
    assert falling.tie("accuracy", 1).epsilon == falling.tie("accuracy", 1, cautious=True).epsilon == 0


def test_less_of_a_loss_is_better():
    screening = along(level)
    trials = [
        replace(
            one,
            metrics={
                **one.metrics,
                "select/cost": tuple(1 - value for value in one.metrics["select/accuracy"]),
            },
        )
        for one in screening.outcomes
    ]
    assert Screening(trials, trials[0], Prices(), (0.0, 0.4)).tie("cost", -1) == screening.tie("accuracy", 1)


def test_a_tie_ends_where_a_trial_was_dropped():
    kept = tuple(epsilon for epsilon in TRIED if epsilon != 0.2)
    whole, cut = along(level, tried=kept), along(level, tried=kept, dropped=(0.2,))
    assert 0.2 in whole.tie("accuracy", 1)
    tie = cut.tie("accuracy", 1)
    assert 0.2 not in tie
    assert tie.high < 0.2 or tie.low > 0.2
    assert tie.epsilon in tie


def test_a_tie_below_zero_stays_below():
    screening = along(
        lambda epsilon: level(-epsilon) if epsilon < 0 else -0.05 * epsilon,
        tried=tuple(0.1 * step for step in range(-3, 4)),
        span=(-0.3, 0.3),
    )
    tie = screening.tie("accuracy", 1, cautious=True)
    assert -0.3 <= tie.low < tie.epsilon < tie.high < 0
    assert tie.epsilon in (-0.1, -0.2)


def test_a_narrow_range():
    tried = (0.0, 0.03, 0.04, 0.05, 0.06, 0.07)
    tie = along(level, tried=tried, span=(0.03, 0.07)).tie("accuracy", 1, cautious=True)
    assert 0.03 <= tie.low < tie.epsilon <= tie.high <= 0.07
    rising = along(
        lambda epsilon: 0.02 * math.exp(-(((epsilon - 0.0613) / 0.003) ** 2)),
        tried=(*tried, 0.0613, 0.0605, 0.062),
        span=(0.03, 0.07),
    )
    assert rising.tie("accuracy", 1, cautious=True).epsilon == pytest.approx(0.061, abs=0.0015)


def test_a_single_finished_trial_ties_with_nothing():
    alone = along(level, tried=(0.0,))
    assert alone.tie("accuracy", 1, cautious=True) == Tie(0.0, 0.0, 0.0)
    assert set(ties(alone, Terms()).values()) == {Tie(0.0, 0.0, 0.0)}
    assert all(point["epsilon"] == 0 for point in candidates(alone, Terms()).values())


def test_short_values_come_first_then_two_digits():
    span = (0.0, 0.4)
    assert shortened(0.12, (0.03, 0.4), span) == 0.1
    assert shortened(0.15, (0.03, 0.4), span) == 0.1  # of equally near ones the smaller
    assert shortened(0.12, (0.11, 0.4), span) == 0.2
    assert shortened(0.1234, (0.11, 0.14), span) == 0.12
    assert shortened(0.1234, (0.122, 0.1249), span) == 0.1234  # two digits would lead outside
    assert shortened(-0.12, (-0.3, -0.03), (-0.3, 0.3)) == -0.1
    assert shortened(0.36, (0.35, 0.364), (0.0, 0.364)) == 0.364  # the end of the range
    assert shortened(0.6, (0.55, 0.9), (0.0, 0.9)) == 0.6


def test_the_middle_is_that_of_the_roots():
    assert middle(0.04, 0.36) == pytest.approx(0.16)
    assert middle(-0.36, -0.04) == pytest.approx(-0.16)
    assert middle(0.0, 0.4) == pytest.approx(0.1)


def test_where_only_zero_is_allowed_the_tie_is_among_all():
    screening = along(level)
    assert screening.tie("accuracy", 1, allow(lambda _: False), cautious=True) == screening.tie(
        "accuracy", 1, cautious=True
    )
    assert screening.tie("accuracy", 1, cautious=True).epsilon > 0


def test_where_more_is_tuned_a_named_point_has_the_values_that_are_best_there():
    screening = tuned()
    point = screening.point_at(Tie(0.1, 0.3, 0.2))
    assert point["smoothing"] == "online"
    assert point == screening.fit("accuracy").profile([0.2])[0]
    assert screening.point_at(Tie(0.0, 0.0, 0.0)) == screening.control_point
    chosen = screening.point_at(POLICIES["accuracy"].tie(screening, Terms()))
    assert set(chosen) == {"epsilon", "weight_decay", "smoothing"}
    assert chosen["epsilon"] == pytest.approx(0.2, abs=0.06)
    assert math.log10(chosen["weight_decay"]) == pytest.approx(-2, abs=0.3)


def test_what_is_in_the_tie_of_a_policy_is_what_is_told_of_it():
    screening, terms = along(level), Terms()
    tie = ties(screening, terms, ["safe"])["safe"]
    assert 0 < tie.low < tie.high
    around = (tie.low - 0.001, tie.low, tie.high, tie.high + 0.001)
    assert [epsilon in tie for epsilon in around] == [False, True, True, False]
    assert candidates(screening, terms)["safe"]["epsilon"] in tie


def in_time(gain, gap, shares=(0.15, 0.25, 0.35, 0.45, 0.55), seed=0):
    """A screening with constant ε and with some that fall to 0; `gain` and `gap` of ε and the share."""
    random = np.random.default_rng(seed)
    points = [{"epsilon": 0.0, "drop": 1.0}]
    points += [{"epsilon": epsilon, "drop": 1.0} for epsilon in (0.2, 0.1, 0.3, 0.05, 0.25, 0.15, 0.35)]
    points += [
        {"epsilon": epsilon, "drop": shares[place % len(shares)]}
        for place, epsilon in enumerate((0.2, 0.1, 0.3, 0.05, 0.25, 0.15, 0.35, 0.02))
    ]
    trials = []
    for number, point in enumerate(points):
        noise = 0.0005 * random.standard_normal(4)
        one = outcome([], number, **point)
        accuracy = tuple(0.9 + gain(point["epsilon"], point["drop"]) + noise)
        gaps = tuple(gap(point["epsilon"], point["drop"]) + noise)
        metrics = {**one.metrics, "select/accuracy": accuracy, "select/confidence_gap": gaps}
        trials.append(replace(one, epsilon=point["epsilon"], point=point, metrics=metrics))
    return Screening(trials, trials[0], Prices(), (0.0, 0.4))


def saved(epsilon, drop):
    """A gain that the first third of the training brings nearly whole."""
    return 0.015 * (1 - math.exp(-epsilon / 0.08)) * (1 if drop == 1 else 1 - math.exp(-drop / 0.12))


def test_each_schedule_has_candidates_of_its_own():
    screening = in_time(saved, lambda epsilon, drop: -0.8 * epsilon * (1 if drop == 1 else 0.05 * drop))
    found = ties(screening, Terms("raw"))
    assert set(found) == {name + suffix for name in POLICIES for suffix in ("", "@drop")}
    assert all(tie.drop == 1 for name, tie in found.items() if not name.endswith("@drop"))
    raw, falling = found["raw"], found["raw@drop"]
    assert raw.epsilon <= 0.05  # a constant ε bends confidence
    assert falling.epsilon >= 0.1
    assert 0.1 <= falling.drop <= 0.6
    point = screening.on("drop").point_at(falling)
    assert point == {"epsilon": falling.epsilon, "drop": falling.drop}
    assert screening.schedule == "constant"  # unchanged by the other


def test_a_share_that_is_too_late_for_honest_confidence_is_left_out():
    screening = in_time(
        saved, lambda epsilon, drop: -0.2 * epsilon * (drop > 0.3), shares=(0.1, 0.2, 0.5, 0.6)
    )
    assert ties(screening, Terms("raw"), ["raw"])["raw@drop"].drop < 0.4
    assert ties(screening, Terms("accuracy"), ["accuracy"])["accuracy@drop"].drop >= 0.4


def test_without_drops_there_is_one_schedule_and_a_fixed_share_stays():
    assert along(level).schedules == ("constant",)
    fixed = in_time(saved, lambda *_: 0.0, shares=(0.3,))
    assert fixed.on("drop").shares == (0.3,)
    assert fixed.on("constant").shares == (1.0,)


def test_at_zero_all_schedules_are_the_same_to_the_fit():
    fit = in_time(saved, lambda *_: 0.0).fit("accuracy")
    here = [{"epsilon": 0.0, "drop": drop} for drop in (1.0, 0.2, 0.5)]
    assert np.ptp(fit.mean(here)) < 1e-12
    apart = fit.mean([{"epsilon": 0.3, "drop": drop} for drop in (1.0, 0.15)])
    assert apart[0] > apart[1] + 0.002


def test_strict_policies_prefer_what_was_ahead_in_the_screening():
    found = ties(in_time(saved, lambda *_: 0.0, shares=(0.1, 0.15)), Terms())
    assert "accuracy" in constant_ahead(found)
    late = ties(in_time(lambda epsilon, drop: 0.01 * (drop < 1) * (epsilon > 0), lambda *_: 0.0), Terms())
    assert "accuracy" not in constant_ahead(late)
