"""Policies: rules which choose an ε from the evidence. Pure functions of records.

A policy is a function with the decorator `policy`. It lists the conditions on which its candidate is adopted, judged on
the confirmation (fresh seeds, *test*). Its candidate is chosen before, on the screening trials (*select*). Where a
condition fails, the recommendation is ε = 0, and the reason says which one.

Bounds are ends of two-sided 95 % intervals, so what is adopted is never at odds with the interval shown beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tracking.records import Comparison, Condition, Interval, Outcome, Recommendation, spread

Choose = Callable[[Sequence[Outcome]], Outcome]
Judge = Callable[[Comparison, "Tolerances"], tuple[Condition, ...]]


@dataclass(frozen=True)
class Tolerances:
    """How much worse than at ε = 0 confidence may become. Shares: 0.01 is 1 % or 1 percentage point."""

    aurc_relative: float = 0.05
    nll_relative: float = 0.01
    worst_class_accuracy: float = 0.01


@dataclass(frozen=True)
class Policy:
    """A named rule: how it chooses its candidate, and on what conditions the candidate is adopted."""

    name: str
    choose: Choose
    judge: Judge


POLICIES: dict[str, Policy] = {}


def policy(choose: Choose) -> Callable[[Judge], Judge]:
    """Register a policy under the function's name."""

    def register(judge: Judge) -> Judge:
        POLICIES[judge.__name__] = Policy(judge.__name__, choose, judge)
        return judge

    return register


def most_accurate(outcomes: Sequence[Outcome]) -> Outcome:
    """The trial of highest mean accuracy on *select*; of equal ones that of the smallest ε."""
    return max(outcomes, key=lambda outcome: (outcome.mean("select/accuracy"), -outcome.epsilon))


def smallest_near_best(outcomes: Sequence[Outcome]) -> Outcome:
    """The smallest ε whose accuracy on *select* is within one standard error of the best's.

    The standard error is that of the paired difference over the seeds (the rule: Breiman et al. 1984, section 3.4.3).
    """
    best = most_accurate(outcomes)

    def near(outcome: Outcome) -> bool:
        differences = outcome.differences("select/accuracy", best)
        mean = sum(differences) / len(differences)
        error: float = spread(differences) / len(differences) ** 0.5
        return mean + error >= 0

    return min((outcome for outcome in outcomes if near(outcome)), key=lambda outcome: outcome.epsilon)


def gains_accuracy(comparison: Comparison) -> Condition:
    """The whole 95 % interval of Δaccuracy lies above 0."""
    delta = comparison.differences["accuracy"]
    verdict = "is a gain" if delta.low > 0 else "is a loss" if delta.high < 0 else "cannot be told from zero"
    return Condition(
        name="accuracy gain",
        value=delta.value,
        bound=delta.low,
        threshold=0.0,
        met=delta.low > 0,
        sentence=f"its accuracy difference of {points(delta.value)} (95 % interval {points(delta.low)} to {points(delta.high)}) {verdict}",
    )


@policy(choose=smallest_near_best)
def safe(comparison: Comparison, tolerances: Tolerances) -> tuple[Condition, ...]:
    """A gain in accuracy is proven, and what recalibration cannot repair has not become worse than tolerated."""
    aurc = comparison.relative["aurc_calibrated"]
    nll = comparison.relative["nll_calibrated"]
    worst = comparison.differences["worst_class_accuracy"]
    return (
        gains_accuracy(comparison),
        Condition(
            name="ranking kept",
            value=aurc.value,
            bound=aurc.high,
            threshold=tolerances.aurc_relative,
            met=aurc.high < tolerances.aurc_relative,
            sentence=f"AURC after temperature changes by {aurc.value:+.1%}, at most {aurc.high:+.1%} (tolerated: below "
            f"{tolerances.aurc_relative:+.1%})",
        ),
        Condition(
            name="probabilities kept",
            value=nll.value,
            bound=nll.value,
            threshold=tolerances.nll_relative,
            met=nll.value < tolerances.nll_relative,
            sentence=f"NLL after temperature changes by {nll.value:+.1%} (tolerated: below {tolerances.nll_relative:+.1%})",
        ),
        Condition(
            name="worst class kept",
            value=worst.value,
            bound=worst.value,
            threshold=-tolerances.worst_class_accuracy,
            met=worst.value > -tolerances.worst_class_accuracy,
            sentence=f"worst-class accuracy changes by {points(worst.value)} (tolerated: above {points(-tolerances.worst_class_accuracy)})",
        ),
    )


@policy(choose=most_accurate)
def accuracy(comparison: Comparison, _: Tolerances) -> tuple[Condition, ...]:
    """Only accuracy counts; still, a gain must be told from zero."""
    return (gains_accuracy(comparison),)


def candidates(outcomes: Sequence[Outcome]) -> dict[str, Outcome]:
    """Each policy's candidate among the screening trials, by the policy's name."""
    return {name: policy.choose(outcomes) for name, policy in POLICIES.items()}


def recommend(
    name: str,
    candidate: Outcome,
    confirmed: Mapping[str, Comparison],
    control: Comparison,
    tolerances: Tolerances,
    run_id: str | None,
) -> Recommendation:
    """The recommendation of the policy `name`.

    `confirmed` holds the comparison of each candidate by its screening trial's uid, `control` that of ε = 0; `run_id` is
    the MLflow run which will carry the recommendation.
    """
    epsilon = candidate.epsilon
    if epsilon == 0:
        conditions: tuple[Condition, ...] = ()
        adopted = control
        reason = (
            "No ε above 0 was ahead of ε = 0 on select by more than one standard error."
            if name == "safe"
            else ("No ε above 0 was more accurate than ε = 0 on select.")
        )
    elif candidate.uid not in confirmed:
        conditions, adopted = (), control
        reason = f"The candidate ε = {epsilon:g} is not adopted: with fresh seeds its training diverged."
    else:
        comparison = confirmed[candidate.uid]
        conditions = POLICIES[name].judge(comparison, tolerances)
        failed = [condition for condition in conditions if not condition.met]
        adopted = control if failed else comparison
        told = "; ".join(condition.sentence for condition in failed or conditions)
        verdict = "is not adopted" if failed else "is adopted"
        reason = f"The candidate ε = {epsilon:g} {verdict}: {told}."
    classes = adopted.outcome.classes
    delta = adopted.differences["accuracy"]
    return Recommendation(
        task=adopted.outcome.task,
        epsilon=adopted.epsilon,
        epsilon_wrong_classes=adopted.epsilon * (classes - 1) / classes,
        policy=name,
        reason=reason,
        accuracy=adopted.estimates["accuracy"],
        ece=adopted.estimates["ece"],
        ece_calibrated=adopted.estimates["ece_calibrated"],
        aurc=adopted.estimates["aurc"],
        delta_accuracy=Interval(delta.value, delta.low, delta.high),
        candidate=epsilon,
        conditions=conditions,
        study=candidate.study,
        run_id=run_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def points(share: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * share:+.2f} pp"
