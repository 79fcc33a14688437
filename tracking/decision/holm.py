"""Holm's correction of several claims."""

from collections.abc import Mapping

from tracking.decision.sequential import Name


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
