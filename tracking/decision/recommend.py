"""Recommend: the recommendation of one policy, from its candidate's comparison with ε = 0."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracking.decision.conditions import COUNTED, claim_condition, needed
from tracking.decision.policies import POLICIES, Policy
from tracking.decision.sequential import Better
from tracking.decision.targets import effect_on
from tracking.decision.terms import Terms
from tracking.decision.verdict import verdict
from tracking.numbers import epsilon as spoken
from tracking.records.comparison import Comparison, Verdict
from tracking.records.outcome import Interval, Outcome
from tracking.records.point import Point, drop_of, until
from tracking.records.recommendation import ANSWERED, Condition, Recommendation


@dataclass(frozen=True)
class Source:
    """What a recommendation says of the sweep it comes from; the attributes are those of `Recommendation`."""

    study: str
    run_id: str | None
    smoothing: str
    examples: int
    openings: int
    created: str
    calibrate_examples: int | None = None
    training: str = ""
    invalid: str = ""


KEPT = "of those which keep the tolerances by their fits"


UNPROMISING = {
    name: (
        f"By the smooth fit through all trials, no other ε{kept} is ahead of ε = 0 in accuracy by more than"
        " one standard error of that fit, which is not the standard error of a single trial."
    )
    for name, kept in (("safe", f" {KEPT}"), ("raw", f" {KEPT}"))
}
"""Why the candidate of a policy that weighs standard errors is 0."""


LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.01, 1000.0
"""The range in which a temperature is sought; one at an end is no minimum."""


def recommend(
    name: str,
    candidate: Point,
    comparison: Comparison | None,
    control: Comparison,
    taken: bool,
    terms: Terms,
    source: Source,
    tied: tuple[float, float] | None = None,
) -> Recommendation:
    """The recommendation of the policy `name`.

    `comparison` is that of the candidate, None where it is ε = 0 or diverged with fresh seeds; `control` that
    of ε = 0; `taken` whether the policy's claim is accepted; `tied` as in `Recommendation`.
    """
    epsilon = float(candidate["epsilon"]) + 0.0  # never -0.0
    policy = POLICIES[name]
    conditions: tuple[Condition, ...] = ()
    if epsilon != 0 and comparison is not None:
        claim = claim_condition(policy.aim(comparison), comparison, taken)
        conditions = (claim, *policy.judge(comparison, control, terms))
    met = bool(conditions) and all(one.met for one in conditions) and not source.invalid
    adopted = comparison if comparison and met else control
    classes = adopted.outcome.classes
    temperature, at_bound = temperature_of(adopted.outcome)
    return Recommendation(
        task=adopted.outcome.task,
        epsilon=adopted.epsilon,
        epsilon_wrong_classes=adopted.epsilon * (classes - 1) / classes,
        smoothing=smoothing_of(adopted.outcome.point, source.smoothing),
        point=dict(adopted.outcome.point),
        policy=name,
        reason=reason(name, candidate, conditions, adopted, terms, source),
        accuracy=adopted.estimates["accuracy"],
        ece=adopted.estimates["ece"],
        ece_calibrated=adopted.estimates["ece_calibrated"],
        aurc=adopted.estimates["aurc"],
        delta_accuracy=adopted.difference("accuracy"),
        candidate=epsilon,
        **of_candidate(policy, candidate, comparison, taken, terms),
        conditions=conditions,
        seeds=len((comparison or control).outcome.seeds),
        examples=source.examples,
        coverage=adopted.coverage,
        openings=source.openings,
        study=source.study,
        run_id=source.run_id,
        created=source.created,
        training=source.training,
        invalid=source.invalid,
        recalibrator=adopted.recalibrator if name == "safe" else "temperature",
        temperature=temperature,
        at_bound=at_bound,
        calibrate_examples=source.calibrate_examples,
        control=answered(control.estimates),
        estimates=answered(adopted.estimates),
        tied=tied,
        claimed=policy.aim(comparison or control).metric,
        effect=terms.effect,
    )


def of_candidate(
    policy: Policy, candidate: Point, comparison: Comparison | None, taken: bool, terms: Terms
) -> dict[str, Any]:
    """What was found out about a candidate, by the names of `Recommendation`'s fields."""
    drop = drop_of(candidate) if candidate["epsilon"] != 0 else 1.0
    if comparison is None:
        return {"candidate_drop": drop}
    verdict, settles = judged(policy, comparison, taken, terms)
    return {
        "candidate_drop": drop,
        "differences": changes(comparison),
        "verdict": verdict,
        "settles": settles,
        "chance": comparison.chances.get(policy.aim(comparison).metric),
    }


def smoothing_of(point: Point, base: str) -> str:
    """The name of a point's smoothing, with its drop; `base` is what it is where the point does not say."""
    name, drop = str(point.get("smoothing", base)), drop_of(point)
    return name if drop == 1 else f"{name}@drop:{drop:g}"


def answered(values: Mapping[str, Interval]) -> dict[str, Interval]:
    """Those of some metrics that a recommendation carries."""
    return {metric: values[metric] for metric in ANSWERED if metric in values}


def changes(comparison: Comparison) -> dict[str, Interval]:
    """The differences to ε = 0 that a recommendation carries."""
    return {metric: comparison.difference(metric) for metric in answered(comparison.differences)}


def reason(
    name: str,
    candidate: Point,
    conditions: Sequence[Condition],
    adopted: Comparison,
    terms: Terms,
    source: Source,
) -> str:
    """Why a policy recommends what it does, in sentences."""
    if source.invalid:
        return f"The sweep is invalid: {source.invalid}"
    failed = [one for one in conditions if not one.met]
    named = " ".join(filter(None, (f"ε = {spoken(candidate['epsilon'])}", until(drop_of(candidate)))))
    if candidate["epsilon"] == 0:
        noun = POLICIES[name].target.noun
        other = f"By the smooth fit through all trials, no other ε promised a better {noun}."
        told = UNPROMISING.get(name, other)
    elif not conditions:
        told = f"The candidate {named} is not adopted: with fresh seeds its training diverged."
    else:
        verdict = "not adopted" if failed else "adopted"
        sentences = "; ".join(one.sentence for one in failed or conditions)
        told = f"The candidate {named} is {verdict}: {sentences}."
    examples = adopted.outcome.calibrate_examples
    if name == "utility" and (why := terms.prices.why_reviewed(adopted.coverage, examples)):
        told += f" {why}"
    if source.openings > 1:
        told += (
            f" The test split was opened {source.openings} times for this plan; all claims made on it are"
            " counted."
        )
    return told


def judged(policy: Policy, comparison: Comparison, taken: bool, terms: Terms) -> tuple[Verdict, str]:
    """The verdict on a candidate in what its policy claims, and what it would take where that is not
    known.
    """
    target = policy.aim(comparison)
    difference, effect = comparison.difference(target.metric), effect_on(target, terms)
    found = verdict(difference, target.sign, effect, taken)
    if found != "not known":
        return found, ""
    if verdict(difference, target.sign, effect) == "better":
        return found, COUNTED
    side: Better = 1 if difference.value > 0 else -1
    beyond_zero, within_effect = (0.0, side), (side * effect, -side)
    ways = [beyond_zero, within_effect] if abs(difference.value) < effect else [beyond_zero]
    return found, needed(comparison.differences[target.metric], comparison, ways)


def temperature_of(outcome: Outcome) -> tuple[float | None, int]:
    """The mean over seeds of the temperatures that are a minimum, and how many are none, but an end of the
    range; the mean of those where all are.
    """
    inside = [
        value for value in outcome.temperature if LEAST_TEMPERATURE * 1.001 < value < MOST_TEMPERATURE / 1.001
    ]
    counted = inside or outcome.temperature
    return (sum(counted) / len(counted) if counted else None), len(outcome.temperature) - len(inside)
