"""Policies: rules which choose an ε from the evidence. Pure functions of records.

A policy is a function with the decorator `policy`. Its candidate is chosen by the smooth fit of the screening
trials. The claim that the candidate is better than ε = 0 is tested on the confirmation (fresh seeds, *test*);
the function lists the conditions on which it is adopted besides. Where the claim or a condition fails, the
recommendation is ε = 0, and the reason says which.

Bounds are ends of two-sided 95 % intervals, so what is adopted is never at odds with the interval shown
beside it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tracking.decision.holm import holm
from tracking.decision.prices import Prices
from tracking.decision.screening import Screening, Tie
from tracking.decision.sequential import Better, examples_to_settle, seeds_to_settle
from tracking.decision.sequential import verdict as settled_by
from tracking.decision.verdict import verdict
from tracking.numbers import epsilon as spoken
from tracking.numbers import number, points, relative
from tracking.records.comparison import Claim, Comparison, Verdict
from tracking.records.outcome import Interval, Outcome
from tracking.records.point import Point, key_of
from tracking.records.recommendation import ANSWERED, Condition, Recommendation

Named = tuple[str, str]
"""Names a claim: the key of its point, and its metric."""
Find = Callable[[Screening, "Terms"], Tie]
Judge = Callable[[Comparison, Comparison, "Terms"], tuple[Condition, ...]]
Array = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Tolerances:
    """How much worse than at ε = 0 confidence may become. Shares: 0.01 is 1 % or 1 percentage point.

    `confidence_gap` is how far the mean confidence may lie from the accuracy, for policy `raw`.
    """

    aurc_relative: float = 0.05
    nll_relative: float = 0.01
    worst_class_accuracy: float = 0.01
    confidence_gap: float = 0.01


@dataclass(frozen=True)
class Terms:
    """What a plan says about deciding: its own policy, tolerances, prices, and the smallest gain in accuracy
    of interest (a share).
    """

    policy: str = "safe"
    tolerances: Tolerances = Tolerances()
    prices: Prices = Prices()
    effect: float = 0.003


@dataclass(frozen=True)
class Target:
    """A metric which a policy claims to be better than at ε = 0: its name, as a person says it, 1 where more
    is better, and its scale.
    """

    metric: str
    noun: str
    sign: Better
    scale: float
    unit: str
    relative: bool = False


ACCURACY = Target("accuracy", "accuracy", 1, 100, " pp")
BLEU = Target("bleu", "BLEU", 1, 100, "")
"""Of translations, in the place of the accuracy of single tokens."""
NLL = Target("nll_calibrated", "NLL after temperature", -1, 1, "")
COST = Target("cost", "expected cost", -1, 1, "")
RANKING = Target("aurc_calibrated", "AURC after temperature", -1, 100, " %", relative=True)
FAMILY_LEVEL = 0.05
"""How likely any false claim may be."""
TARGETS = (ACCURACY, BLEU, NLL, COST, RANKING)
"""What is tested at every look of the confirmation."""


@dataclass(frozen=True)
class Policy:
    """A named rule: among what it finds its candidate, what the candidate has to be better in, and what else
    it has to meet.
    """

    name: str
    tie: Find
    target: Target
    judge: Judge

    def choose(self, screening: Screening, terms: Terms) -> Point:
        """Its candidate."""
        return screening.point_at(self.tie(screening, terms).epsilon)

    def aim(self, comparison: Comparison) -> Target:
        """What it claims of a confirmed point: where translations were measured, BLEU stands for accuracy."""
        return BLEU if self.target == ACCURACY and BLEU.metric in comparison.estimates else self.target


POLICIES: dict[str, Policy] = {}
INCUMBENT = "the published ε"
"""Stands beside the policies' names for an ε that is published already: the plan's policy tries it beside its
own candidate.
"""


def policy(tie: Find, target: Target) -> Callable[[Judge], Judge]:
    """Register a policy under the function's name."""

    def register(judge: Judge) -> Judge:
        POLICIES[judge.__name__] = Policy(judge.__name__, tie, target, judge)
        return judge

    return register


def most_accurate(screening: Screening, _: Terms) -> Tie:
    """The most accurate, and what cannot be told apart from it."""
    return screening.tie("accuracy", 1)


def among_harmless(screening: Screening, terms: Terms) -> Tie:
    """What cannot be told apart from the most accurate of those ε whose fitted NLL and AURC keep the
    tolerances; ε = 0 where that is one of them.

    Where no ε but 0 keeps them, among all: the confirmation then says what fails.
    """
    return screening.tie("accuracy", 1, lambda points: harmless(screening, points, terms), cautious=True)


def among_honest(screening: Screening, terms: Terms) -> Tie:
    """As for `safe`, among those ε whose fitted mean confidence also stays with the accuracy."""

    def honest(points: Sequence[Point]) -> Array:
        gaps = np.abs(screening.fit("confidence_gap").mean([*points, screening.control_point]))
        kept: Array = harmless(screening, points, terms) & (
            gaps[:-1] <= max(terms.tolerances.confidence_gap, gaps[-1])
        )
        return kept

    return screening.tie("accuracy", 1, honest, cautious=True)


def harmless(screening: Screening, points: Sequence[Point], terms: Terms) -> Array:
    """At which points the fits of NLL and AURC after temperature stay within the tolerances."""
    tolerated = {
        "nll_calibrated": terms.tolerances.nll_relative,
        "aurc_calibrated": terms.tolerances.aurc_relative,
    }
    fitted = {name: screening.fit(name).mean([*points, screening.control_point]) for name in tolerated}
    kept: Array = np.all(
        [fitted[name][:-1] < (1 + most) * fitted[name][-1] for name, most in tolerated.items()], axis=0
    )
    return kept


def most_probable(screening: Screening, _: Terms) -> Tie:
    """The lowest fitted NLL after temperature, and what cannot be told apart from it."""
    return screening.tie("nll_calibrated", -1)


def cheapest(screening: Screening, _: Terms) -> Tie:
    """The least fitted cost, each trial at the coverage which is cheapest on *calibrate*, and what cannot be
    told apart from it.
    """
    return screening.tie("cost", -1)


@policy(tie=among_harmless, target=ACCURACY)
def safe(comparison: Comparison, _: Comparison, terms: Terms) -> tuple[Condition, ...]:
    """A gain in accuracy is proven, and what recalibration cannot repair has not become worse than
    tolerated.
    """
    tolerances = terms.tolerances
    ranking = comparison.claims[RANKING.metric]
    aurc = comparison.relative[RANKING.metric]
    nll = comparison.relative["nll_calibrated"]
    worst = comparison.differences["worst_class_accuracy"]
    return (
        Condition(
            name="ranking kept",
            value=aurc.value,
            low=ranking.low,
            high=ranking.high,
            bound=ranking.high,
            threshold=tolerances.aurc_relative,
            met=ranking.high < tolerances.aurc_relative,
            sentence=(
                f"AURC after temperature changes by {relative(aurc.value)}, at most {relative(ranking.high)}"
                f" (tolerated: below {relative(tolerances.aurc_relative)})"
            ),
            remedy=(
                remedy(aurc, comparison, tolerances.aurc_relative, -1)
                if ranking.high >= tolerances.aurc_relative
                else ""
            ),
        ),
        Condition(
            name="probabilities kept",
            value=nll.value,
            low=nll.low,
            high=nll.high,
            bound=nll.value,
            threshold=tolerances.nll_relative,
            met=nll.value < tolerances.nll_relative,
            sentence=(
                f"NLL after temperature changes by {relative(nll.value)} (tolerated: below"
                f" {relative(tolerances.nll_relative)})"
            ),
            remedy=tolerance_remedy("nll_relative", nll) if nll.value >= tolerances.nll_relative else "",
        ),
        Condition(
            name="worst class kept",
            value=worst.value,
            low=worst.low,
            high=worst.high,
            bound=worst.value,
            threshold=-tolerances.worst_class_accuracy,
            met=worst.value > -tolerances.worst_class_accuracy,
            sentence=(
                f"worst-class accuracy changes by {points(worst.value)} (tolerated: above"
                f" {points(-tolerances.worst_class_accuracy)})"
            ),
            remedy=(
                tolerance_remedy("worst_class_accuracy", worst)
                if worst.value <= -tolerances.worst_class_accuracy
                else ""
            ),
        ),
    )


@policy(tie=among_honest, target=ACCURACY)
def raw(comparison: Comparison, control: Comparison, terms: Terms) -> tuple[Condition, ...]:
    """As `safe`, for teams which cannot recalibrate: confidence as it is also stays with the accuracy."""
    gap, before = comparison.estimates["confidence_gap"], control.estimates["confidence_gap"]
    largest = max(terms.tolerances.confidence_gap, abs(before.value))
    met = abs(gap.value) <= largest
    return (
        *safe(comparison, control, terms),
        Condition(
            name="confidence kept",
            value=gap.value,
            low=gap.low,
            high=gap.high,
            bound=abs(gap.value),
            threshold=largest,
            met=met,
            sentence=(
                f"mean confidence lies {points(gap.value)} from accuracy (tolerated: at most"
                f" {100 * largest:.2f} pp either way; at ε = 0 {points(before.value)})"
            ),
            remedy=(
                "" if met else "temperature scaling repairs it: policy safe is for teams which recalibrate"
            ),
        ),
    )


@policy(tie=most_accurate, target=ACCURACY)
def accuracy(_: Comparison, __: Comparison, ___: Terms) -> tuple[Condition, ...]:
    """Only accuracy counts; still, a gain must be told from zero."""
    return ()


@policy(tie=most_probable, target=NLL)
def calibrated(_: Comparison, __: Comparison, ___: Terms) -> tuple[Condition, ...]:
    """The lowest NLL after temperature, where it is told from that of ε = 0."""
    return ()


@policy(tie=cheapest, target=COST)
def utility(_: Comparison, __: Comparison, ___: Terms) -> tuple[Condition, ...]:
    """The least expected cost at the plan's prices of a wrong decision, a review and a right one."""
    return ()


def candidates(screening: Screening, terms: Terms) -> dict[str, Point]:
    """Each policy's candidate by its name, chosen by the screening trials alone."""
    return {name: entry.choose(screening, terms) for name, entry in POLICIES.items()}


def tied(screening: Screening, terms: Terms) -> dict[str, tuple[float, float]]:
    """The lowest and the highest ε of those that each policy's candidate stands for: by the policy's own
    criteria they cannot be told apart.
    """
    ties = {name: entry.tie(screening, terms) for name, entry in POLICIES.items()}
    return {name: (tie.low, tie.high) for name, tie in ties.items()}


def in_tie(screening: Screening, terms: Terms, policy: str, epsilon: float) -> bool:
    """Whether an ε is one of those that a policy's candidate stands for."""
    return epsilon in POLICIES[policy].tie(screening, terms)


def by(name: str, terms: Terms) -> Policy:
    """The policy of a name; the incumbent is judged by the plan's own."""
    return POLICIES[terms.policy if name == INCUMBENT else name]


def claimed(chosen: Mapping[str, Point], found: Mapping[str, Comparison], terms: Terms) -> list[Claim]:
    """The claims that are made, each once: policies with the same candidate and target make one. None for
    candidates at ε = 0.
    """
    named = {
        (key, by(name, terms).aim(found[key]).metric): None
        for name, point in chosen.items()
        if point["epsilon"] != 0 and (key := key_of(point)) in found
    }
    return [found[key].claims[metric] for key, metric in named]


def accepted(
    found: Mapping[str, Comparison], terms: Terms, earlier: Sequence[float] = (), openings: int = 1
) -> dict[str, bool]:
    """Whether each policy's claim is accepted, by weighted Holm over all finalists (Holm 1979) at a
    family-wise level of 5 %.

    `found` holds the comparison of the candidate of each policy that has one other than 0, and of the
    incumbent, if any. Half of the weight is that of the plan's own policy, at the k-th opening of *test* 2⁻ᵏ.
    `earlier` are p-values of claims from earlier openings, which belong to the same family.
    """
    claims = {
        name: (key_of(one.outcome.point), by(name, terms).aim(one).metric) for name, one in found.items()
    }
    family = {claim: found[name].claims[claim[1]].p for name, claim in claims.items()}
    family |= {("an earlier opening", str(place)): p for place, p in enumerate(earlier)}
    own = {claims[name] for name in (terms.policy, INCUMBENT) if name in claims}
    verdicts = holm(family, weights(family, own, openings))
    return {name: verdicts[claim] for name, claim in claims.items()}


def weights(family: Collection[Named], own: Collection[Named], openings: int = 1) -> dict[Named, float]:
    """One half for the plan's own claims together, where there are some, a quarter at the second opening, and
    so on; the others share the rest equally.
    """
    others = len(family) - len(own)
    share = 0.0 if not own else 0.5**openings if others else 1.0
    return {claim: share / len(own) if claim in own else (1 - share) / others for claim in family}


def decide(
    chosen: Mapping[str, Point],
    found: Mapping[str, Comparison],
    control: str,
    terms: Terms,
    source: "Source",
    earlier: Sequence[float] = (),
    tied: Mapping[str, tuple[float, float]] | None = None,
    incumbent: Point | None = None,
) -> dict[str, Recommendation]:
    """What each policy recommends.

    `chosen` holds each policy's candidate, `found` the confirmed points by key, without those which diverged;
    `control` is the key of ε = 0. `earlier` as in `accepted`; `tied` holds, for each policy that has one, the
    lowest and highest ε which the screening cannot tell apart. `incumbent` is an ε that is published for the
    same data and recipe, and among those of the plan's policy; see `stable`.
    """
    ranges = tied or {}
    every = {**chosen, **({INCUMBENT: incumbent} if incumbent is not None else {})}
    finalists = {
        name: found[key_of(point)]
        for name, point in every.items()
        if point["epsilon"] != 0 and key_of(point) in found
    }
    taken = accepted(finalists, terms, earlier, source.openings)

    def judge(name: str, point: Point) -> Recommendation:
        policy = by(name, terms).name
        return recommend(
            policy,
            point,
            finalists.get(name),
            found[control],
            taken.get(name, False),
            terms,
            source,
            ranges.get(policy),
        )

    decided = {name: judge(name, point) for name, point in chosen.items()}
    if incumbent is not None and INCUMBENT in finalists:
        decided[terms.policy] = stable(decided[terms.policy], judge(INCUMBENT, incumbent))
    return decided


def stable(chosen: Recommendation, published: Recommendation) -> Recommendation:
    """What the plan's policy recommends where an ε that is published, and cannot be told apart from its
    candidate, was confirmed beside it.

    The published one stays where it holds every condition: nobody has to change a recipe for what may be
    chance.
    """
    epsilon = published.candidate
    if published.epsilon == epsilon:
        reason = (
            f"ε = {spoken(epsilon)}, which is published already, cannot be told apart from what this sweep"
            " would name, and stays. "
        )
        return replace(published, incumbent=epsilon, reason=reason + published.reason)
    failed = "; ".join(one.sentence for one in published.conditions if not one.met)
    return replace(
        chosen,
        incumbent=epsilon,
        reason=f"{chosen.reason} The published ε = {spoken(epsilon)} does not stay: {failed}.",
    )


def settled(names: Sequence[str], comparison: Comparison, control: Comparison, terms: Terms) -> bool:
    """Whether more seeds can be saved: what the policies of these names decide about their common candidate
    is clear already.

    A claim is clear where its repeated interval excludes 0, or any gain of interest. An adoption is clear
    where every condition is met besides; a rejection where one failed condition's whole interval lies beyond
    its threshold.
    """
    return all(clear(POLICIES[name], comparison, control, terms) for name in names)


def clear(policy: Policy, comparison: Comparison, control: Comparison, terms: Terms) -> bool:
    """Whether one policy's decision is clear."""
    target = policy.aim(comparison)
    claim = comparison.claims[target.metric]
    found = settled_by(claim, target.sign, effect_on(target, terms))
    conditions = policy.judge(comparison, control, terms)
    if found == "hopeless" or any(not one.met and not undecided(one) for one in conditions):
        return True
    strict = policy.name != terms.policy  # its claim shares half of the weight with the others
    proven = found == "proven" and (not strict or claim.p <= FAMILY_LEVEL / 2 / (len(POLICIES) - 1))
    return proven and all(one.met for one in conditions)


def undecided(condition: Condition) -> bool:
    """Whether the interval of a condition holds its threshold; the threshold of a gap holds on both sides."""
    return any(
        condition.low <= edge <= condition.high for edge in (condition.threshold, -condition.threshold)
    )


def claim_condition(policy: Policy, comparison: Comparison, taken: bool) -> Condition:
    """The condition that the candidate is better than ε = 0 in what the policy claims."""
    target = policy.aim(comparison)
    difference, claim = comparison.differences[target.metric], comparison.claims[target.metric]
    value, low, high = (target.scale * number for number in (difference.value, claim.low, claim.high))
    better, worse = (low > 0, high < 0) if target.sign > 0 else (high < 0, low > 0)
    word = {1: ("a gain", "a loss"), -1: ("a fall", "a rise")}[target.sign]
    told = f"is {word[0]}" if taken else f"is {word[1]}" if worse else "cannot be told from zero"
    if better and not taken:
        told += " when the claims of all policies are counted (Holm)"
    digits = 2 if target.scale == 100 else 4
    span = (
        f"{number(low, digits, signed=True)}{target.unit} to {number(high, digits, signed=True)}{target.unit}"
    )
    return Condition(
        name=f"{target.noun} {'gain' if target.sign > 0 else 'falls'}",
        value=difference.value,
        low=claim.low,
        high=claim.high,
        bound=claim.low if target.sign > 0 else claim.high,
        threshold=0.0,
        met=taken,
        sentence=(
            f"its {target.noun} difference of {number(value, digits, signed=True)}{target.unit} (95 %"
            f" interval {span}) {told}"
        ),
        remedy="" if taken else COUNTED if better else remedy(difference, comparison, 0.0, target.sign),
    )


def recommend(
    name: str,
    candidate: Point,
    comparison: Comparison | None,
    control: Comparison,
    taken: bool,
    terms: Terms,
    source: "Source",
    tied: tuple[float, float] | None = None,
) -> Recommendation:
    """The recommendation of the policy `name`.

    `comparison` is that of the candidate, None where it is ε = 0 or diverged with fresh seeds; `control` that
    of ε = 0; `taken` whether the policy's claim is accepted; `tied` as in `Recommendation`.
    """
    epsilon = float(candidate["epsilon"]) + 0.0  # never -0.0
    conditions: tuple[Condition, ...] = ()
    adopted = control
    if epsilon == 0:
        reason = UNPROMISING.get(
            name,
            "By the smooth fit through all trials, no other ε promised a better"
            f" {POLICIES[name].target.noun}.",
        )
    elif comparison is None:
        reason = (
            f"The candidate ε = {spoken(epsilon)} is not adopted: with fresh seeds its training diverged."
        )
    else:
        conditions = (
            claim_condition(POLICIES[name], comparison, taken),
            *POLICIES[name].judge(comparison, control, terms),
        )
        failed = [condition for condition in conditions if not condition.met]
        adopted = control if failed else comparison
        told = "; ".join(condition.sentence for condition in failed or conditions)
        reason = f"The candidate ε = {spoken(epsilon)} is {'not adopted' if failed else 'adopted'}: {told}."
    if name == "utility" and (
        why := terms.prices.why_reviewed(adopted.coverage, adopted.outcome.calibrate_examples)
    ):
        reason += f" {why}"
    if source.openings > 1:
        reason += (
            f" The test split was opened {source.openings} times for this plan; all claims made on it are"
            " counted."
        )
    classes = adopted.outcome.classes
    found, settles = (None, "") if comparison is None else judged(POLICIES[name], comparison, taken, terms)
    temperature, at_bound = temperature_of(adopted.outcome)
    return Recommendation(
        task=adopted.outcome.task,
        epsilon=adopted.epsilon,
        epsilon_wrong_classes=adopted.epsilon * (classes - 1) / classes,
        smoothing=adopted.outcome.point.get("smoothing", source.smoothing),
        point=dict(adopted.outcome.point),
        policy=name,
        reason=reason,
        accuracy=adopted.estimates["accuracy"],
        ece=adopted.estimates["ece"],
        ece_calibrated=adopted.estimates["ece_calibrated"],
        aurc=adopted.estimates["aurc"],
        delta_accuracy=adopted.difference("accuracy"),
        candidate=epsilon,
        conditions=conditions,
        seeds=len((comparison or control).outcome.seeds),
        examples=source.examples,
        coverage=adopted.coverage,
        openings=source.openings,
        study=source.study,
        run_id=source.run_id,
        created=source.created,
        training=source.training,
        temperature=temperature,
        at_bound=at_bound,
        calibrate_examples=source.calibrate_examples,
        control={metric: control.estimates[metric] for metric in ANSWERED if metric in control.estimates},
        estimates={metric: adopted.estimates[metric] for metric in ANSWERED if metric in adopted.estimates},
        differences=(
            {metric: comparison.difference(metric) for metric in ANSWERED if metric in comparison.differences}
            if comparison
            else {}
        ),
        tied=tied,
        claimed=POLICIES[name].aim(comparison or control).metric,
        verdict=found,
        settles=settles,
        effect=terms.effect,
    )


KEPT = "of those which keep the tolerances by their fits"
UNPROMISING = {
    name: (
        f"By the smooth fit through all trials, no other ε{kept} is ahead of ε = 0 in accuracy by more than"
        " one standard error of that fit, which is not the standard error of a single trial."
    )
    for name, kept in (("safe", f" {KEPT}"), ("raw", f" {KEPT}"))
}
"""Why the candidate of a policy that weighs standard errors is 0."""


def effect_on(target: Target, terms: Terms) -> float:
    """The smallest difference of interest in what is claimed, in its unit; 0 where the plan names none."""
    return terms.effect if target in (ACCURACY, BLEU) else 0.0


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


LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.01, 1000.0
"""The range in which a temperature is sought; one at an end is no minimum."""


def temperature_of(outcome: Outcome) -> tuple[float | None, int]:
    """The mean over seeds of the temperatures which are a minimum, and how many are none, but an end of the
    range; the mean of those where all are.
    """
    inside = [
        value for value in outcome.temperature if LEAST_TEMPERATURE * 1.001 < value < MOST_TEMPERATURE / 1.001
    ]
    counted = inside or outcome.temperature
    return (sum(counted) / len(counted) if counted else None), len(outcome.temperature) - len(inside)


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


COUNTED = (
    "the claims of the other policies are counted with it: in a sweep for this policy half of the weight"
    " would be its own"
)


def remedy(found: Interval, comparison: Comparison, threshold: float, sign: Better) -> str:
    """What would bring the bound of an interval to the right side of the threshold, if the estimate stays as
    it is.
    """
    if sign * (found.value - threshold) <= 0:
        return "more seeds would not: the estimate itself lies on the wrong side"
    return needed(found, comparison, [(threshold, sign)])


def needed(found: Interval, comparison: Comparison, ways: Sequence[tuple[float, Better]]) -> str:
    """The least that would bring an interval to the right side (1: above) of one of some thresholds, if the
    estimate stays as it is: seeds, or else test examples.
    """
    seeds = len(comparison.outcome.seeds)
    bins = comparison.outcome.bins.get("test")
    examples = sum(bins.count) // seeds if bins else 0
    if more := [count for way in ways if (count := seeds_to_settle(found, seeds, *way)) is not None]:
        return (
            f"{min(more)} more seeds would settle it, if the estimate stays (--confirm-seeds"
            f" {seeds + min(more)} --reopen-test)"
        )
    enough = [
        count
        for way in ways
        if examples and (count := examples_to_settle(found, seeds, examples, *way)) is not None
    ]
    if not enough:
        return "no number of seeds would settle it"
    return (
        f"no number of seeds would settle it; about {rounded(min(enough))} test examples (now {examples})"
        " would, if the estimate stays"
    )


def rounded(count: int) -> str:
    """A count to two digits."""
    return f"{int(float(f'{count:.1e}')):,}".replace(",", " ")


def tolerance_remedy(name: str, found: Interval) -> str:
    """What would change a condition that is judged by the value itself."""
    return f"a smaller ε; or, in a next sweep, a tolerance {name} above {abs(found.value) * 1.001:.3g}"
