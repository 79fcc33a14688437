"""Policies: rules that choose an ε from the evidence. Pure functions of records.

A policy is a function with the decorator `policy`. Its candidate is chosen by the smooth fit of the screening
trials. The claim that the candidate is better than ε = 0 is tested on the confirmation (fresh seeds, *test*);
the function lists the conditions on which it is adopted besides. Where the claim or a condition fails, the
recommendation is ε = 0, and the reason says which.

Bounds are ends of two-sided 95 % intervals, so what is adopted is never at odds with the interval shown
beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tracking.decision.conditions import condition, remedy, tolerance_remedy
from tracking.decision.screening import Screening
from tracking.decision.targets import ACCURACY, BLEU, COST, NLL, RANKING, Target
from tracking.decision.terms import Terms
from tracking.decision.tie import Find, among_harmless, among_honest, cheapest, most_accurate, most_probable
from tracking.numbers import points, relative
from tracking.records.comparison import Comparison
from tracking.records.point import Point
from tracking.records.recommendation import Condition

Judge = Callable[[Comparison, Comparison, "Terms"], tuple[Condition, ...]]


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


@policy(tie=among_harmless, target=ACCURACY)
def safe(comparison: Comparison, _: Comparison, terms: Terms) -> tuple[Condition, ...]:
    """A gain in accuracy is proven, and what temperature does not repair has not become worse than
    tolerated.
    """
    tolerances = terms.tolerances
    ranking, aurc = comparison.claims[RANKING.metric], comparison.relative[RANKING.metric]
    nll, worst = comparison.relative["nll_calibrated"], comparison.differences["worst_class_accuracy"]
    ranked = ranking.high < tolerances.aurc_relative
    return (
        condition(
            "ranking kept",
            replace(aurc, low=ranking.low, high=ranking.high),
            bound=ranking.high,
            threshold=tolerances.aurc_relative,
            met=ranked,
            sentence=(
                f"AURC after temperature changes by {relative(aurc.value)}, at most {relative(ranking.high)}"
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
                f"NLL after temperature changes by {relative(nll.value)} (tolerated: below"
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
    """As `safe`, for teams that cannot recalibrate: confidence as it is also stays with the accuracy."""
    gap, before = comparison.estimates["confidence_gap"], control.estimates["confidence_gap"]
    largest = max(terms.tolerances.confidence_gap, abs(before.value))
    return (
        *safe(comparison, control, terms),
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


def by(name: str, terms: Terms) -> Policy:
    """The policy of a name; the incumbent is judged by the plan's own."""
    return POLICIES[terms.policy if name == INCUMBENT else name]


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
