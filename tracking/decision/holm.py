"""Holm's correction of several claims."""

from collections.abc import Collection, Mapping

from tracking.decision.sequential import Name

Named = tuple[str, str]
"""Names a claim: the key of its point, and its metric."""


def holm(p: Mapping[Name, float], weights: Mapping[Name, float], level: float = 0.05) -> dict[Name, bool]:
    """Which claims are accepted, with a chance of at most `level` that one of them is false (Holm 1979,
    section 4: unequal weights).

    By ascending p/weight, each while p <= level · weight / (weights not yet accepted). Beyond Holm, none with
    p > level / 2, so that none is at odds with its own two-sided interval at 1 - level.
    """
    accepted = dict.fromkeys(p, False)
    left = sum(weights[name] for name in p)
    for name in sorted(p, key=lambda name: p[name] / weights[name]):
        if p[name] * left > level * weights[name] * (1 + 1e-12):
            break
        accepted[name] = bool(p[name] <= level / 2)
        left -= weights[name]
    return accepted


def weights(family: Collection[Named], own: Collection[Named], openings: int = 1) -> dict[Named, float]:
    """One half for the plan's own claims together, where there are some, a quarter at the second opening, and
    so on; the others share the rest equally.
    """
    others = len(family) - len(own)
    share = 0.0 if not own else 0.5**openings if others else 1.0
    return {claim: share / len(own) if claim in own else (1 - share) / others for claim in family}
