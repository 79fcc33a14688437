"""Settled: whether more seeds can be saved."""

from collections.abc import Mapping, Sequence

from tracking.decision.conditions import undecided
from tracking.decision.holm import weights
from tracking.decision.policies import Policy, by, own
from tracking.decision.sequential import state_of
from tracking.decision.targets import effect_on
from tracking.decision.terms import Terms
from tracking.records.comparison import Comparison

FAMILY_LEVEL = 0.05
"""How likely any false claim may be."""


def settled(
    names: Sequence[str],
    comparison: Comparison,
    control: Comparison,
    terms: Terms,
    levels: Mapping[str, float],
) -> bool:
    """Whether more seeds can be saved: what the policies of these candidates decide about their common point
    is clear already.

    A claim is clear where its repeated interval excludes 0 and its p is at most the candidate's level in
    Holm's first step, or where the interval excludes any gain of interest. An adoption is clear where every
    condition is met besides; a rejection where one failed condition's whole interval lies beyond its
    threshold.
    """
    return all(clear(by(name, terms), comparison, control, terms, levels[name]) for name in names)


def clear(policy: Policy, comparison: Comparison, control: Comparison, terms: Terms, level: float) -> bool:
    """Whether one policy's decision is clear."""
    target = policy.aim(comparison)
    claim = comparison.claims[target.metric]
    found = state_of(claim, target.sign, effect_on(target, terms))
    conditions = policy.judge(comparison, control, terms)
    if found == "hopeless" or any(not one.met and not undecided(one) for one in conditions):
        return True
    return found == "proven" and claim.p <= level and all(one.met for one in conditions)


def levels(named: Mapping[str, tuple[str, str]], terms: Terms) -> dict[str, float]:
    """The p that is accepted in Holm's first step for each candidate, by name, whatever the others' are.
    `named` holds the point and the metric of each claim.
    """
    family = set(named.values())
    shares = weights(family, {claim for name, claim in named.items() if own(name, terms)})
    return {name: min(FAMILY_LEVEL / 2, FAMILY_LEVEL * shares[claim]) for name, claim in named.items()}
