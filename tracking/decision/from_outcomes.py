"""Decision: what the policies recommend from outcomes alone, without logits: for trials that were trained
elsewhere, or simulated.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial

from tracking.decision.decide import decide
from tracking.decision.policies import POLICIES, constant_ahead, ties
from tracking.decision.recommend import Source
from tracking.decision.screening import Screening
from tracking.decision.sequential import claim
from tracking.decision.targets import TARGETS
from tracking.decision.terms import Terms
from tracking.records.comparison import Claim, Comparison
from tracking.records.outcome import Interval, Outcome, spread
from tracking.records.point import Point, drop_of, key_of
from tracking.records.recommendation import Recommendation


def decide_on(
    outcomes: Sequence[Outcome], terms: Terms | None = None, span: tuple[float, float] = (0.0, 0.4)
) -> dict[str, Recommendation]:
    """What each policy recommends that can be judged by the metrics there are.

    Args:
        outcomes: finished trials of one task. Those of stage `screen` (metrics `select/…`) choose the
            candidates; those of stage `confirm` (metrics `test/…`, other seeds, the same for all) judge them.
            Each stage needs ε = 0 and `…/accuracy`; `…/nll_calibrated`, `…/aurc_calibrated`,
            `…/confidence_gap` and `test/worst_class_accuracy` where a policy looks at them.
        terms: policy, tolerances, prices; those of a default plan where None.
        span: the range of ε.

    A candidate is taken to be the nearest ε that was confirmed. How far the test examples themselves may
    mislead is not known without logits, as `sweeps.run` has them: they are taken to weigh as much as the
    spread of a single seed, which is on the safe side for the tasks in docs/statistics.md; not at all where
    outcomes have no `bins` of *test*, as values that were drawn without examples. With one seed nothing is
    claimed. A metric that a condition needs and no trial has counts as unchanged.

    Errors: ValueError where ε = 0 is missing in a stage.
    """
    terms = terms or Terms()
    screened, confirmed = (
        [one for one in outcomes if one.stage == stage and not one.dropped] for stage in ("screen", "confirm")
    )
    first, control = (
        next((one for one in stage if one.epsilon == 0), None) for stage in (screened, confirmed)
    )
    if first is None or control is None:
        raise ValueError(
            "there is no trial at ε = 0 among those of stage screen, or of stage confirm; wanted one in each"
        )
    screening = Screening(screened, first, terms.prices, span)
    able = [
        name
        for name, policy in POLICIES.items()
        if all(f"select/{metric}" in first.metrics for metric in needs(name, policy.target.metric))
    ]
    tied = ties(screening, terms, able)
    chosen = {name: nearest(screening.point_at(tie), confirmed) for name, tie in tied.items()}
    found = {key_of(one.point): compare(one, control) for one in confirmed}
    examples = sum(control.bins["test"].count) // len(control.seeds) if "test" in control.bins else 0
    source = Source(
        first.study, None, "uniform", examples, 1, control.finished, control.calibrate_examples or None
    )
    return decide(
        chosen,
        found,
        key_of(control.point),
        terms,
        source,
        tied={name: (tie.low, tie.high) for name, tie in tied.items()},
        between=partial(between, {key_of(one.point): one for one in confirmed}),
        constant_first=constant_ahead(tied),
    )


def between(confirmed: Mapping[str, Outcome], key: str, other: str, metric: str) -> Interval:
    """The paired difference of one confirmed point less another."""
    first, second = confirmed[key], confirmed[other]
    return interval(first.differences(f"test/{metric}", second), "test" in first.bins)


def needs(name: str, target: str) -> set[str]:
    """The metrics of the screening by which a policy chooses."""
    harmless = {"nll_calibrated", "aurc_calibrated"} if name in ("safe", "raw") else set()
    return {target} | harmless | ({"confidence_gap"} if name == "raw" else set())


def nearest(point: Point, confirmed: Sequence[Outcome]) -> Point:
    """The confirmed point of the same schedule nearest in ε, and then in its drop; ε = 0 stays ε = 0, and is
    nobody's neighbour.
    """

    def alike(one: Outcome) -> bool:
        if point["epsilon"] == 0 or one.epsilon == 0:
            return bool(one.epsilon == point["epsilon"])
        return (drop_of(one.point) < 1) == (drop_of(point) < 1)

    same = [one for one in confirmed if alike(one)] or [one for one in confirmed if one.epsilon == 0]
    return min(
        same, key=lambda one: (abs(one.epsilon - point["epsilon"]), abs(drop_of(one.point) - drop_of(point)))
    ).point


def compare(outcome: Outcome, control: Outcome) -> Comparison:
    """A confirmed trial against ε = 0, by the values of their common seeds."""
    names = [
        name.removeprefix("test/")
        for name in control.metrics
        if name.startswith("test/") and name in outcome.metrics
    ]
    own = {name: outcome.metrics[f"test/{name}"] for name in names}
    off = {name: outcome.differences(f"test/{name}", control) for name in names}
    share = {
        name: tuple(value / (control.mean(f"test/{name}") or 1.0) for value in values)
        for name, values in off.items()
    }
    unknown = Interval(0.0, 0.0, 0.0)
    needed = (
        "accuracy",
        "ece",
        "ece_calibrated",
        "aurc",
        "aurc_calibrated",
        "nll_calibrated",
        "worst_class_accuracy",
        "confidence_gap",
        "cost",
    )
    blank = dict.fromkeys(needed, unknown)
    sampled = "test" in outcome.bins
    differences = blank | {name: interval(values, sampled) for name, values in off.items()}
    relative = blank | {name: interval(values, sampled) for name, values in share.items()}
    claims = {} if outcome.epsilon == 0 else claims_of(differences, relative, len(outcome.seeds))
    return Comparison(
        outcome,
        blank | {name: interval(values, sampled) for name, values in own.items()},
        differences,
        relative,
        claims,
    )


def claims_of(
    differences: Mapping[str, Interval], relative: Mapping[str, Interval], seeds: int
) -> dict[str, Claim]:
    """The claims, at one look. Where seeds do not differ at all, or there is one, nothing tells chance: p is
    1.
    """
    known = [target for target in TARGETS if target.metric in differences]
    if seeds == 1 or differences["accuracy"].error(seeds) == 0:
        nothing = Claim(1.0, -math.inf, math.inf, (seeds,), (differences["accuracy"].value,))
        return {target.metric: nothing for target in known}
    return {
        target.metric: claim(
            {seeds: (relative if target.relative else differences)[target.metric]}, seeds, target.sign
        )
        for target in known
    }


def interval(values: Sequence[float], sampled: bool) -> Interval:
    """The mean over seeds with its 95 % interval by Student's t; of one seed nothing is known but its value.
    `sampled`: examples count too.
    """
    from scipy.special import stdtrit

    seeds, deviation = len(values), spread(tuple(values))
    mean = sum(values) / seeds
    examples = deviation if sampled else 0.0
    half = (
        float(stdtrit(seeds - 1, 0.975)) * math.hypot(examples, deviation / seeds**0.5)
        if seeds > 1
        else math.inf
    )
    return Interval(mean, mean - half, mean + half, examples, deviation, max(seeds - 1, 1))
