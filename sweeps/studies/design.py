"""Design of the trials: points of ε from a Sobol sequence, where ε is dropped, the control at ε = 0, and the
paired seeds.
"""

import math
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
"""Where more than ε is tuned, one trial in this many is at ε = 0, beside the control."""


def radical_inverse(index: int) -> float:
    """One-dimensional Sobol sequence: the binary digits of the index, mirrored at the point (van der Corput
    1935).
    """
    value, scale = 0.0, 0.5
    while index:
        value += scale * (index & 1)
        index, scale = index >> 1, scale / 2
    return value


def sobol(plan: Plan) -> list[float]:
    """Values of ε that a plan tries beside 0: the Sobol sequence over its range, 1/2, 1/4, 3/4, 1/8 and so
    on.

    With more trials the first ones stay the same.
    """
    low, high = plan.epsilon
    values = (round(low + (high - low) * radical_inverse(index), 9) for index in count())
    return list(islice((value for value in values if value != 0), plan.trials - 1))


def arms(plan: Plan) -> dict[str, tuple[str, tuple[float, float]]]:
    """What each smoothing of a plan comes to: its base name, and the range of its drop."""
    from sweeps.training.smoothing_kinds import parsed

    parts = {name: parsed(name) for name in plan.smoothing}
    return {name: (part.base, part.drops) for name, part in parts.items()}


def planned(plan: Plan, task: Task) -> list[Point]:
    """Points that a screening begins with: ε = 0 and the other values of ε.

    Where smoothings with and without a drop are tried, they take turns, those with a drop first. A constant ε
    gets the values that it would have alone; a dropped one fills the plane of ε and its share evenly.

    Where more is tuned, ε = 0 is tried at the recipe's values and at others over their ranges, so that it is
    judged at its own best values as every other ε is; the other points are drawn while the sweep runs.
    """
    control = control_point(plan, task)
    if plan.tuned:
        others = plan.trials // PLAIN_SHARE if plan.tune else 0
        return [control, *({**control, **place} for place in places(plan.ranges(task), others))]
    ranges = [drops for _, drops in arms(plan).values()]
    turns = [iter(dropped_points(plan, drops)) for drops in sorted(ranges)]
    points = (next(turns[index % len(turns)]) for index in range(plan.trials - 1))
    return [control, *({**control, **point} for point in points)]


def dropped_points(plan: Plan, drops: tuple[float, float]) -> list[Point]:
    """Values of ε, each with the share of the training after which it falls to 0, if it does: the first two
    dimensions of Sobol's sequence over both ranges, the second to three digits.
    """
    epsilons = sobol(plan)
    low, high = drops
    if high == 1:
        return [{"epsilon": epsilon, **({"drop": 1.0} if plan.dropping else {})} for epsilon in epsilons]
    shares = (round(low + (high - low) * second_inverse(index), 3) for index in count(1))
    return [{"epsilon": epsilon, "drop": share} for epsilon, share in zip(epsilons, shares, strict=False)]


def second_inverse(index: int) -> float:
    """The second dimension of Sobol's sequence: the digits of the index times Pascal's triangle modulo 2
    (Sobol 1967, primitive polynomial x + 1), mirrored at the point.
    """
    digits = [index >> place & 1 for place in range(index.bit_length())]
    mixed = (
        sum(digits[column] * math.comb(column, row) for column in range(row, len(digits))) % 2
        for row in range(len(digits))
    )
    return math.fsum(digit / 2 ** (row + 1) for row, digit in enumerate(mixed))


def places(ranges: Mapping[str, tuple[float, float]], number: int) -> list[dict[str, float]]:
    """`number` combinations of values that fill their ranges evenly on a log scale (an additive recurrence
    with roots of primes).
    """
    roots = {name: prime**0.5 for name, prime in zip(sorted(ranges), (2, 3), strict=False)}
    return [
        {name: low * (high / low) ** (index * roots[name] % 1) for name, (low, high) in ranges.items()}
        for index in range(1, number + 1)
    ]


def control_point(plan: Plan, task: Task) -> Point:
    """ε = 0 at the recipe's values. All smoothings are the same there; the first one's name is used, and no
    drop.
    """
    control: dict[str, Any] = {"epsilon": 0.0} | {key: float(getattr(task.recipe, key)) for key in plan.tune}
    control |= {"smoothing": plan.bases[0]} if len(plan.bases) > 1 else {}
    return control | ({"drop": 1.0} if plan.dropping else {})


def seeds_of(plan: Plan, stage: Stage, count: int, first: int = 0) -> tuple[int, ...]:
    """Seeds of a stage, the same for every trial of it; no seed belongs to two stages."""
    start = plan.random_state * SEEDS_BETWEEN_PLANS + FIRST_SEED[stage] + first
    return tuple(range(start, start + count))
