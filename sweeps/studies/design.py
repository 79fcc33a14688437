"""Design of the trials: points of ε from a Sobol sequence, the control at ε = 0, and the paired seeds."""

from collections.abc import Mapping
from itertools import count, islice
from typing import Any

from sweeps.plan import Plan
from sweeps.task import Task
from tracking.records.outcome import Stage
from tracking.records.point import Point

FIRST_SEED: dict[Stage, int] = {"screen": 0, "pilot": 4_000, "confirm": 5_000}


SEEDS_BETWEEN_PLANS = 10_000


PLAIN_SHARE = 4
"""Where more than ε is tuned, one trial in so many is at ε = 0, beside the control."""


def radical_inverse(index: int) -> float:
    """The one-dimensional Sobol sequence: the binary digits of the index, mirrored at the point (van der
    Corput 1935).
    """
    value, scale = 0.0, 0.5
    while index:
        value += scale * (index & 1)
        index, scale = index >> 1, scale / 2
    return value


def sobol(plan: Plan) -> list[float]:
    """The values of ε which a plan tries beside 0: the Sobol sequence over its range, 1/2, 1/4, 3/4, 1/8 and
    so on.

    With more trials the first ones stay what they were.
    """
    low, high = plan.epsilon
    values = (round(low + (high - low) * radical_inverse(index), 9) for index in count())
    return list(islice((value for value in values if value != 0), plan.trials - 1))


def planned(plan: Plan, task: Task) -> list[Point]:
    """The points which a screening begins with: ε = 0 and the other values of ε.

    Where more is tuned, ε = 0 at the recipe's own values and at others over their ranges, so that it is
    judged at its own best values as every other ε is; the rest is drawn while it goes on.
    """
    control = control_point(plan, task)
    if not plan.tuned:
        return [control, *({"epsilon": epsilon} for epsilon in sobol(plan))]
    others = plan.trials // PLAIN_SHARE if plan.tune else 0
    return [control, *({**control, **place} for place in places(plan.ranges(task), others))]


def places(ranges: Mapping[str, tuple[float, float]], number: int) -> list[dict[str, float]]:
    """So many combinations of values which fill their ranges evenly on a log scale (an additive recurrence
    with roots of primes).
    """
    roots = {name: prime**0.5 for name, prime in zip(sorted(ranges), (2, 3), strict=False)}
    return [
        {name: low * (high / low) ** (index * roots[name] % 1) for name, (low, high) in ranges.items()}
        for index in range(1, number + 1)
    ]


def control_point(plan: Plan, task: Task) -> Point:
    """ε = 0 at the recipe's own values. There all smoothings are the same; it has the name of the first."""
    control: dict[str, Any] = {"epsilon": 0.0} | {key: float(getattr(task.recipe, key)) for key in plan.tune}
    return control | ({"smoothing": plan.smoothing[0]} if len(plan.smoothing) > 1 else {})


def seeds_of(plan: Plan, stage: Stage, count: int, first: int = 0) -> tuple[int, ...]:
    """Seeds of a stage, the same for every trial of it; none belongs to two stages."""
    start = plan.random_state * SEEDS_BETWEEN_PLANS + FIRST_SEED[stage] + first
    return tuple(range(start, start + count))
