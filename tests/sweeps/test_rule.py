import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from outcomes import bare
from scipy.stats import multivariate_normal, norm

from sweeps.early_stopping.rule import (
    DRAWS,
    Criterion,
    Curve,
    End,
    Veto,
    adopted,
    candidate,
    condition,
    criterion_of,
    predict,
    relative_error,
    survivors,
)
from tracking.decision.terms import Tolerances
from tracking.records.outcome import spread

EPSILONS = (0.0, 0.2, 0.1, 0.3, 0.05, 0.25, 0.15, 0.35)
EPOCHS, SEEDS, RUNG = 20, 6, 10
ACCURATE = Criterion("accuracy")


def curves(end, slowness=0.0, noise=0.001, seed=5, seeds=SEEDS, epsilons=EPSILONS, metric="accuracy"):
    """Trials that approach `end(ε)` exponentially, the larger ε the slower, with noise shared by no two of
    them.
    """
    generator = np.random.default_rng(seed)
    progress = np.arange(1, EPOCHS + 1)[:, None] / EPOCHS
    found = []
    for epsilon in epsilons:
        left = np.exp(-5 * progress / (1 + slowness * epsilon))
        values = end(epsilon) - 0.3 * (left - left[-1]) + noise * generator.normal(size=(EPOCHS, seeds))
        found.append(Curve(epsilon, {metric: torch.from_numpy(values)}))
    return found


def until(curve, epochs=RUNG):
    return Curve(curve.epsilon, {metric: values[:epochs] for metric, values in curve.values.items()})


def judge(trials, finished, criteria=(ACCURATE,), **options):
    return survivors(
        [until(one) for one in trials[finished:]], trials[:finished], EPOCHS, criteria, **options
    )


def both(one, other):
    return [Curve(a.epsilon, {**a.values, **b.values}) for a, b in zip(one, other, strict=True)]


def test_a_slow_trial_that_will_win_goes_on_though_it_is_the_last_now():
    trials = curves(lambda epsilon: 0.85 + 0.05 * epsilon, slowness=4.0)
    now = [float(trial.values["accuracy"][RUNG - 1].mean()) for trial in trials]
    assert min(now) == now[-1]
    decisions = judge(trials, 4)
    assert decisions[-1].keep
    assert decisions[-1].predicted["accuracy"].value == pytest.approx(0.85 + 0.05 * 0.35, abs=0.004)


def test_a_trial_that_cannot_win_is_dropped_with_a_reason():
    trials = curves(lambda epsilon: 0.85 - 0.2 * (epsilon - 0.1) ** 2)
    decisions = judge(trials, 4)
    assert [decision.keep for decision in decisions] == [True, False, True, False]
    best = float(trials[2].values["accuracy"][-1].mean())
    last = decisions[-1]
    assert last.risk <= 0.01
    assert last.predicted["accuracy"].low < 0.8375 < last.predicted["accuracy"].high < best
    interval = last.predicted["accuracy"]
    value, low, high, best = (
        f"{100 * one:.2f}" for one in (interval.value, interval.low, interval.high, best)
    )
    assert (
        last.reason
        == f"ε = 0.35 is dropped: predicted accuracy {value} % [{low}, {high}], best so far {best} % at ε ="
        " 0.1;"
        f" the chance that it changes the recommendation is {100 * last.risk:.1f} %."
    )


def test_the_control_is_never_dropped():
    trials = curves(lambda epsilon: 0.8 + 0.3 * epsilon)
    again = Curve(0.0, trials[0].values)
    decisions = judge([*trials[:4], again, *trials[4:]], 4, risk=1.0)
    assert [decision.keep for decision in decisions] == [True, False, False, False, False]


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_nothing_is_dropped_before_three_trials_have_finished(finished):
    decisions = judge(curves(lambda epsilon: 0.85 - epsilon), finished, risk=1.0)
    assert all(decision.keep and not decision.predicted for decision in decisions)
    assert "fewer than 3" in decisions[-1].reason


def test_nothing_is_dropped_before_the_control_has_finished_or_with_one_seed():
    one, two = (curves(lambda epsilon: 0.85 - epsilon, seeds=seeds) for seeds in (1, 2))
    assert all(decision.keep for trials in (two[1:], one) for decision in judge(trials, 4, risk=1.0))
    assert not any(decision.keep for decision in judge(two, 4, risk=1.0))


def test_a_trial_with_nan_goes_on_and_does_not_affect_the_others():
    trials = curves(lambda epsilon: 0.85 - 0.2 * (epsilon - 0.1) ** 2)
    broken = Curve(0.4, {"accuracy": torch.full((RUNG, SEEDS), torch.nan, dtype=torch.float64)})
    running = [until(one) for one in trials[4:]]
    found = survivors([running[0], broken, *running[1:]], trials[:4], EPOCHS, [ACCURATE])
    assert found[1].keep
    assert "not finite" in found[1].reason
    assert [found[0], *found[2:]] == judge(trials, 4)


def test_the_risk_is_that_of_all_dropped_trials_together():
    trials = curves(lambda _: 0.85, noise=0.01, epsilons=(0.0, 0.09, 0.21, *np.linspace(0.1, 0.2, 30)))
    kept = torch.tensor([decision.keep for decision in judge(trials, 3, risk=0.1)] + [True] * 3)
    end = End.draw([until(one) for one in trials[3:]], trials[:3], [ACCURATE])
    alone = [end.change(torch.arange(33) != index) for index in range(30)]
    assert sum(risk <= 0.1 for risk in alone) > 25  # one by one, nearly all of these equals could go
    assert 0.05 < end.change(kept) <= 0.1
    assert 5 < int((~kept).sum()) < 25


def test_a_policy_that_vetoes_worse_probabilities_drops_what_only_accuracy_would_keep():
    trials = both(
        curves(lambda epsilon: 0.85 + 0.1 * epsilon),
        curves(lambda epsilon: 0.4 + 0.3 * epsilon, seed=6, metric="nll_calibrated"),
    )
    accuracy = Criterion("accuracy", proven=True)
    assert judge(trials, 4, [accuracy])[-1].keep
    vetoed = replace(accuracy, vetoes=(Veto("nll_calibrated", 0.01, error=0.005),))
    assert not any(decision.keep for decision in judge(trials, 4, [vetoed]))
    unsure = replace(accuracy, vetoes=(Veto("nll_calibrated", 0.01, error=0.5),))
    assert judge(trials, 4, [unsure])[-1].keep


def test_a_trial_is_kept_for_any_criterion():
    trials = both(
        curves(lambda epsilon: 0.85 - 0.2 * epsilon),
        curves(lambda epsilon: 0.4 - 0.2 * epsilon, seed=6, metric="nll_calibrated"),
    )
    sharpest = Criterion("nll_calibrated", sign=-1)
    assert [decision.keep for decision in judge(trials, 4, [ACCURATE])] == [False] * 4
    assert [decision.keep for decision in judge(trials, 4, [sharpest])] == [False, False, False, True]
    for criteria in ([ACCURATE, sharpest], [sharpest, ACCURATE]):
        assert [decision.keep for decision in judge(trials, 4, criteria)] == [False, False, False, True]


def test_curves_that_do_not_fit_are_refused():
    trials = curves(lambda _: 0.85)
    running, finished, aurc = until(trials[4]), trials[:4], Criterion("aurc", sign=-1)
    more = curves(lambda _: 0.85, seeds=SEEDS + 1)[:4]
    for wrong, message in (
        (([running], more, EPOCHS, [ACCURATE]), "wanted the same seeds"),
        (([running, until(trials[5], 3)], finished, EPOCHS, [ACCURATE]), "one rung"),
        (([running], finished, EPOCHS + 1, [ACCURATE]), "21 epochs"),
        (([trials[4]], finished, EPOCHS, [ACCURATE]), "allowed is 1 to 19"),
        (([running], finished, EPOCHS, [aurc]), "'aurc'"),
    ):
        with pytest.raises(ValueError, match=message):
            survivors(*wrong)


def test_trials_are_cut_out_of_the_engines_curves():
    values = torch.arange(12.0).reshape(2, 6)
    low, high = Curve.of_members(
        [0.1, 0.3], {"select_accuracy": values, "select_nll_calibrated": -values, "train_loss": values}
    )
    assert (low.epsilon, high.epsilon) == (0.1, 0.3)
    assert set(low.values) == {"accuracy", "nll_calibrated"}
    assert high.values["accuracy"].tolist() == [[3, 4, 5], [9, 10, 11]]
    assert low.values["nll_calibrated"].tolist() == [[0, -1, -2], [-6, -7, -8]]


def outcome(epsilon, values):
    return bare(epsilon, seeds=tuple(range(len(values))), metrics={"select/accuracy": tuple(values)})


def most_accurate(outcomes):
    """The most accurate trial; of equal ones that of the smallest ε."""
    return max(outcomes, key=lambda one: (one.mean("select/accuracy"), -abs(one.epsilon)))


def middle_near_best(outcomes):
    """ε = 0 where it is within one standard error of the best, by its paired gain; else of the best and its
    neighbours the one nearest to the middle.
    """
    best, control = most_accurate(outcomes), next(one for one in outcomes if one.epsilon == 0)
    gains = best.differences("select/accuracy", control)
    bar = best.mean("select/accuracy") - spread(gains) / len(gains) ** 0.5 - 1e-9
    if control.mean("select/accuracy") >= bar:
        return control
    along = sorted(outcomes, key=lambda one: one.epsilon)
    first = last = along.index(best)
    while first > 0 and along[first - 1].mean("select/accuracy") >= bar:
        first -= 1
    while last + 1 < len(along) and along[last + 1].mean("select/accuracy") >= bar:
        last += 1
    middle = (along[first].epsilon + along[last].epsilon) / 2
    return min(
        along[first : last + 1], key=lambda one: (round(abs(one.epsilon - middle), 9), abs(one.epsilon))
    )


@pytest.mark.parametrize(("near", "policy"), [(False, most_accurate), (True, middle_near_best)])
def test_candidates_are_the_best_trials_ties_included(near, policy):
    generator = torch.Generator().manual_seed(4)
    finals = (
        torch.randint(3, 8, (200, 6, 3), generator=generator).double() / 8
    )  # eighths: sums are exact, and many tie
    epsilons = torch.tensor([0.2, 0.0, 0.3, -0.12, 0.1, -0.25], dtype=torch.float64)
    chosen = candidate(finals, epsilons, near)
    for draw, index in zip(finals, chosen.tolist(), strict=True):
        outcomes = [
            outcome(float(epsilon), values.tolist()) for epsilon, values in zip(epsilons, draw, strict=True)
        ]
        assert policy(outcomes).epsilon == float(epsilons[index])
    assert len(set(chosen.tolist())) > 2


def test_dropping_matters_where_the_candidate_before_or_after_would_be_adopted():
    finals = torch.tensor([[0.9, 0.8, 0.7]] * 3 + [[0.8, 0.9, 0.7]]).unsqueeze(-1)
    passes = torch.tensor(
        [[True, False, False], [False, True, False], [False, False, True], [True, False, True]]
    )
    epsilons, kept = torch.tensor([0.3, 0.2, 0.0]), torch.tensor([False, True, True])
    alone = [End(2, epsilons, {"accuracy": finals}, [ACCURATE], [passes]).change(kept)]
    alone += [
        End(2, epsilons, {"accuracy": finals[[draw]]}, [ACCURATE], [passes[[draw]]]).change(kept)
        for draw in range(4)
    ]
    assert alone == [0.5, 1.0, 1.0, 0.0, 0.0]


def test_a_gain_is_adopted_as_often_as_its_error_implies():
    own = torch.tensor([[0.80, 0.82, 0.81, 0.85], [0.83, 0.83, 0.86, 0.86]], dtype=torch.float64)
    finals = {"accuracy": own.expand(40_000, -1, -1)}
    luck = torch.randn(2, 40_000, 2, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    found = adopted(Criterion("accuracy", proven=True), finals, 0, luck).double().mean(0)
    gains = (own[1] - own[0]).numpy()
    error = gains.std(ddof=1) / 2
    assert found[0] == 0
    assert float(found[1]) == pytest.approx(
        norm.sf((1.96 * error - gains.mean()) / (math.sqrt(2) * error)), abs=0.01
    )
    assert bool(adopted(Criterion("accuracy"), finals, 0, luck).all())


def test_a_veto_weighs_the_errors_of_seeds_and_of_examples():
    own = torch.tensor([[0.30, 0.34, 0.32], [0.32, 0.32, 0.35]], dtype=torch.float64)
    finals = {"accuracy": own.expand(40_000, -1, -1), "nll": own.expand(40_000, -1, -1)}
    luck = torch.randn(2, 40_000, 2, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    found = (
        adopted(Criterion("accuracy", vetoes=(Veto("nll", 0.05, error=0.02),)), finals, 0, luck)
        .double()
        .mean(0)
    )
    rise = (own[1] - own[0]).numpy() / 0.32
    spread = math.sqrt(2 * (rise.var(ddof=1) / 3 + 0.02**2))
    assert float(found[1]) == pytest.approx(norm.cdf((0.05 - rise.mean()) / spread), abs=0.01)


def test_the_error_of_a_relative_change_is_the_largest_among_trials():
    control = torch.tensor([[0.1, 0.9, 0.5, 0.3], [0.3, 0.7, 0.5, 0.1]])
    near, far = control + 0.2, control * torch.tensor([0.5, 2.0, 1.0, 1.5])
    found = relative_error(torch.stack([far, near]), control)
    base = np.array([0.2, 0.8, 0.5, 0.2])
    assert found == pytest.approx(np.std(base * [-0.5, 1.0, 0.0, 0.5], ddof=1) / 2 / base.mean())
    assert relative_error(near[None], control) == pytest.approx(0, abs=1e-7)


def test_the_criteria_of_the_policies():
    tolerances = Tolerances(nll_relative=0.03)
    assert criterion_of("safe", tolerances, 0.02) == Criterion("accuracy", 1, near=True, proven=True)
    assert criterion_of("raw", tolerances, 0.02) == Criterion(
        "accuracy", 1, near=True, proven=True, vetoes=(Veto("nll_calibrated", 0.03, 0.02),)
    )
    assert criterion_of("accuracy", tolerances, 0.02) == Criterion("accuracy", proven=True)
    assert criterion_of("calibrated", tolerances, 0.02) == Criterion("nll_calibrated", sign=-1)
    assert criterion_of("somebody's", tolerances, 0.02) is None


def test_conditioning_agrees_with_the_joint_normal_distribution():
    generator = np.random.default_rng(2)
    root = generator.normal(size=(5, 7))
    prior, noise, known = root @ root.T, 0.3, np.array([0.4, -1.0, 2.0])
    mean, covariance, fit = condition(
        torch.from_numpy(prior), torch.from_numpy(known), torch.tensor(noise, dtype=torch.float64)
    )
    inverse = np.linalg.inv(prior[2:, 2:] + noise * np.eye(3))
    np.testing.assert_allclose(mean, prior[:2, 2:] @ inverse @ known)
    np.testing.assert_allclose(covariance, prior[:2, :2] - prior[:2, 2:] @ inverse @ prior[2:, :2])
    _, _, other = condition(
        2 * torch.from_numpy(prior), torch.from_numpy(known), torch.tensor(noise, dtype=torch.float64)
    )
    logs = [
        multivariate_normal(cov=scale * prior[2:, 2:] + noise * np.eye(3)).logpdf(known) for scale in (1, 2)
    ]
    assert float(fit - other) == pytest.approx(logs[0] - logs[1])


def test_where_gains_are_alike_an_end_is_the_level_of_the_later_half_plus_the_seeds_gain():
    generator = np.random.default_rng(9)
    levels, gains = generator.uniform(0.5, 0.8, size=(5, 1, 3)), np.array([0.05, 0.02, 0.09])
    early = (
        levels + 0.001 * np.array([-50, -40, -1, 0, 1])[:, None]
    )  # the first two of five epochs do not count
    then = np.concatenate([early[2:], np.full((3, 3, 3), 0.3), levels[2:] + gains], 1)
    epsilons = torch.tensor([0.12, 0.3, 0.0, 0.1, 0.2], dtype=torch.float64)
    drawn = predict(
        torch.from_numpy(early[:2]), torch.from_numpy(then), epsilons, torch.Generator().manual_seed(0)
    )
    assert drawn.shape == (DRAWS, 2, 3)
    np.testing.assert_allclose(drawn.mean(0), levels[:2, 0] + gains, atol=1e-5)
    assert float(drawn.std(0).max()) < 1e-4


def test_intervals_hold_the_ends_of_data_made_as_the_model_says():
    generator = np.random.default_rng(1)
    hits, widths = [], []
    for number in range(80):
        trials = curves(
            lambda epsilon: 0.85 + 0.05 * math.sqrt(epsilon), slowness=2.0, noise=0.01, seed=number, seeds=4
        )
        finished = int(generator.integers(3, 6))
        for trial, decision in zip(trials[finished:], judge(trials, finished), strict=True):
            interval = decision.predicted["accuracy"]
            hits.append(interval.low <= float(trial.values["accuracy"][-1].mean()) <= interval.high)
            widths.append(interval.high - interval.low)
    assert 0.93 <= np.mean(hits) <= 0.995
    assert np.median(widths) < 0.05  # without the curves, ends differ by 0.03


def test_seeds_scatter_in_the_draws_as_in_the_finished_trials():
    trials = [
        trial.values["accuracy"]
        for trial in curves(lambda _: 0.85, noise=0.01, seeds=40, epsilons=(0.1, *EPSILONS))
    ]
    then = torch.stack(trials[1:])
    drawn = predict(
        trials[0][None, :RUNG],
        then,
        torch.tensor((0.1, *EPSILONS), dtype=torch.float64),
        torch.Generator().manual_seed(0),
    )
    gains = then[:, -1] - then[:, RUNG // 2 : RUNG].mean(1)
    scatter = float((drawn[:, 0] - drawn[:, 0].mean(0)).std(1).mean())
    assert scatter == pytest.approx(0.01 * math.sqrt(1.2 * 9 / 8), rel=0.06)
    assert scatter == pytest.approx(float(gains.std(1).mean()) * math.sqrt(9 / 8), rel=0.06)


def test_a_decision_depends_on_neither_chance_nor_the_place_in_the_list():
    trials = curves(lambda epsilon: 0.85 - 0.2 * (epsilon - 0.1) ** 2)
    assert judge(trials, 4) == judge(trials, 4)
    running = [until(one) for one in trials[4:]]
    for order in ((0, 1, 2, 3), (3, 0, 2, 1), (2, 3, 1, 0)):
        found = survivors([running[index] for index in order], trials[:4], EPOCHS, [ACCURATE])
        assert [found[order.index(index)].keep for index in range(4)] == [True, False, True, False]
