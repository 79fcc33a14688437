"""Policies: rules that choose an ε from the evidence. Pure functions of records.

A policy is a function with the decorator `policy`. Its candidate is chosen by the smooth fit of the screening
trials. The claim that the candidate is better than ε = 0 is tested on the confirmation (fresh seeds, *test*);
the function lists the conditions on which it is adopted besides. Where the claim or a condition fails, the
recommendation is ε = 0, and the reason says which.

Bounds are ends of two-sided 95 % intervals, so what is adopted is never at odds with the interval shown
beside it.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from lscal.display import recalibrator
from tracking.decision.conditions import condition, remedy, tolerance_remedy
from tracking.decision.screening import Schedule, Screening, Tie
from tracking.decision.targets import ACCURACY, BLEU, COST, NLL, RANKING, RAW_NLL, REPAIRED_RANKING, Target
from tracking.decision.terms import Terms
from tracking.decision.tie import (
    Find,
    among_harmless,
    among_honest,
    cheapest,
    most_accurate,
    most_honest,
    most_probable,
)
from tracking.numbers import points, relative
from tracking.records.comparison import Comparison
from tracking.records.recommendation import Condition

Judge = Callable[[Comparison, Comparison, "Terms"], tuple[Condition, ...]]


@dataclass(frozen=True)
class Policy:
    """A named rule: among what it finds its candidate, what the candidate has to be better in, and what else
    it has to meet.

    Where a constant ε and one that falls to 0 are both adopted, it prefers the one that falls, unless that is
    told worse on *test*; if `strict`, the one that was ahead in the screening, however little.
    """

    name: str
    tie: Find
    target: Target
    judge: Judge
    strict: bool = False

    def aim(self, comparison: Comparison) -> Target:
        """What it claims of a confirmed point: where translations were measured, BLEU stands for accuracy."""
        return BLEU if self.target == ACCURACY and BLEU.metric in comparison.estimates else self.target


POLICIES: dict[str, Policy] = {}


INCUMBENT = "the published ε"
"""Stands beside the policies' names for an ε that is published already: the plan's policy tries it beside its
own candidate.
"""


DROPPED = "@drop"
"""Behind a policy's name, its candidate whose ε falls to 0 while training goes on."""


def policy(tie: Find, target: Target, strict: bool = False) -> Callable[[Judge], Judge]:
    """Register a policy under the function's name."""

    def register(judge: Judge) -> Judge:
        POLICIES[judge.__name__] = Policy(judge.__name__, tie, target, judge, strict)
        return judge

    return register


@policy(tie=among_harmless, target=ACCURACY)
def safe(comparison: Comparison, control: Comparison, terms: Terms) -> tuple[Condition, ...]:
    """A gain in accuracy is proven, and what no recalibration can repair has not become worse than tolerated:
    each ε after the best of several, ε = 0 with its own.
    """
    if REPAIRED_RANKING.metric not in comparison.claims:  # a record of an older version, or without logits
        return kept(comparison, terms, RANKING, "nll_calibrated", "temperature")
    after = recalibrator(comparison.recalibrator)
    if comparison.recalibrator != control.recalibrator:
        after += f" (ε = 0: {recalibrator(control.recalibrator)})"
    return kept(comparison, terms, REPAIRED_RANKING, "nll_recalibrated", after)


def kept(
    comparison: Comparison, terms: Terms, ranked_by: Target, nll_metric: str, after: str
) -> tuple[Condition, ...]:
    """That ranking, probabilities and the worst class are kept, after a recalibration."""
    tolerances = terms.tolerances
    ranking, aurc = comparison.claims[ranked_by.metric], comparison.relative[ranked_by.metric]
    nll, worst = comparison.relative[nll_metric], comparison.differences["worst_class_accuracy"]
    ranked = ranking.high < tolerances.aurc_relative
    return (
        condition(
            "ranking kept",
            replace(aurc, low=ranking.low, high=ranking.high),
            bound=ranking.high,
            threshold=tolerances.aurc_relative,
            met=ranked,
            sentence=(
                f"AURC after {after} changes by {relative(aurc.value)}, at most {relative(ranking.high)}"
                f" (tolerated: below {relative(tolerances.aurc_relative)})"
            ),
            remedy="" if ranked else remedy(aurc, comparison, tolerances.aurc_relative, -1),
        ),
        condition(
            "probabilities kept",
            nll,
            bound=nll.value,
            threshold=tolerances.nll_relative,
            met=nll.value < tolerances.nll_relative,
            sentence=(
                f"NLL after {after} changes by {relative(nll.value)} (tolerated: below"
                f" {relative(tolerances.nll_relative)})"
            ),
            remedy=tolerance_remedy("nll_relative", nll),
        ),
        condition(
            "worst class kept",
            worst,
            bound=worst.value,
            threshold=-tolerances.worst_class_accuracy,
            met=worst.value > -tolerances.worst_class_accuracy,
            sentence=(
                f"worst-class accuracy changes by {points(worst.value)} (tolerated: above"
                f" {points(-tolerances.worst_class_accuracy)})"
            ),
            remedy=tolerance_remedy("worst_class_accuracy", worst),
        ),
    )


@policy(tie=among_honest, target=ACCURACY)
def raw(comparison: Comparison, control: Comparison, terms: Terms) -> tuple[Condition, ...]:
    """A proven gain for teams that cannot recalibrate: confidence as it is also stays with the accuracy, and
    ranking and probabilities are kept after temperature.
    """
    gap, before = comparison.estimates["confidence_gap"], control.estimates["confidence_gap"]
    largest = terms.tolerances.gap(before.value)
    return (
        *kept(comparison, terms, RANKING, "nll_calibrated", "temperature"),
        condition(
            "confidence kept",
            gap,
            bound=abs(gap.value),
            threshold=largest,
            met=abs(gap.value) <= largest,
            sentence=(
                f"mean confidence lies {points(gap.value)} from accuracy (tolerated: at most"
                f" {100 * largest:.2f} pp either way; at ε = 0 {points(before.value)})"
            ),
            remedy="temperature scaling repairs it: policy safe is for teams which recalibrate",
        ),
    )


@policy(tie=most_accurate, target=ACCURACY, strict=True)
def accuracy(_: Comparison, __: Comparison, ___: Terms) -> tuple[Condition, ...]:
    """Only accuracy counts; still, a gain must be told from zero."""
    return ()


@policy(tie=most_probable, target=NLL)
def calibrated(_: Comparison, __: Comparison, ___: Terms) -> tuple[Condition, ...]:
    """The lowest NLL after temperature, where it is told from that of ε = 0."""
    return ()


@policy(tie=most_honest, target=RAW_NLL, strict=True)
def honest(comparison: Comparison, _: Comparison, terms: Terms) -> tuple[Condition, ...]:
    """For teams that cannot recalibrate, and care for confidence more than for tenths of accuracy: the lowest
    NLL as it is, where accuracy is not worse by more than the effect of interest.
    """
    accuracy = comparison.difference("accuracy")
    kept = accuracy.low > -terms.effect
    return (
        condition(
            "accuracy kept",
            accuracy,
            bound=accuracy.low,
            threshold=-terms.effect,
            met=kept,
            sentence=(
                f"accuracy changes by {points(accuracy.value)}, at least {points(accuracy.low)} (tolerated:"
                f" above {points(-terms.effect)})"
            ),
            remedy="" if kept else remedy(comparison.differences["accuracy"], comparison, -terms.effect, 1),
        ),
    )


@policy(tie=cheapest, target=COST)
def utility(_: Comparison, __: Comparison, ___: Terms) -> tuple[Condition, ...]:
    """The least expected cost at the plan's prices of a wrong decision, a review and a right one."""
    return ()


def by(name: str, terms: Terms) -> Policy:
    """The policy of a candidate's name; the incumbent is judged by the plan's own."""
    return POLICIES[terms.policy if name == INCUMBENT else name.removesuffix(DROPPED)]


def own(name: str, terms: Terms) -> bool:
    """Whether a candidate is one of the plan's policy."""
    return by(name, terms).name == terms.policy


def ties(screening: Screening, terms: Terms, among: Collection[str] = POLICIES) -> dict[str, Tie]:
    """What the candidates of some policies stand for, chosen by the screening trials alone: by the policy's
    own criteria they cannot be told apart. Under a policy's name for a constant ε, with `DROPPED` behind it
    for one that falls to 0.
    """
    suffixes: dict[Schedule, str] = {"constant": "", "drop": DROPPED}
    return {
        name + suffixes[schedule]: entry.tie(screening.on(schedule), terms)
        for schedule in screening.schedules
        for name, entry in POLICIES.items()
        if name in among
    }


def constant_ahead(found: Mapping[str, Tie]) -> set[str]:
    """The strict policies whose constant candidate is ahead of the one that falls to 0, by their ties."""
    return {
        name
        for name, entry in POLICIES.items()
        if entry.strict and name + DROPPED in found and found[name].value >= found[name + DROPPED].value
    }
