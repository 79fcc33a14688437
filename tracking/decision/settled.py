"""Settled: whether more seeds can be saved."""

from collections.abc import Sequence

from tracking.decision.conditions import undecided
from tracking.decision.policies import POLICIES, Policy
from tracking.decision.sequential import state_of
from tracking.decision.targets import effect_on
from tracking.decision.terms import Terms
from tracking.records.comparison import Comparison

FAMILY_LEVEL = 0.05
"""How likely any false claim may be."""


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
    found = state_of(claim, target.sign, effect_on(target, terms))
    conditions = policy.judge(comparison, control, terms)
    if found == "hopeless" or any(not one.met and not undecided(one) for one in conditions):
        return True
    strict = policy.name != terms.policy  # its claim shares half of the weight with the others
    proven = found == "proven" and (not strict or claim.p <= FAMILY_LEVEL / 2 / (len(POLICIES) - 1))
    return proven and all(one.met for one in conditions)
