"""Point: a place in the search space."""

from collections.abc import Mapping
from typing import Any

Point = Mapping[str, Any]
"""A point of the search space: every tuned parameter by name, `epsilon` among them; numbers, and for
`smoothing` its name. `drop` is the share of the training after which ε is 0; it is 1, or absent, where ε is
constant.
"""
SHORT = {"learning_rate": "lr", "weight_decay": "wd", "smoothing": ""}
"""Names that stand in every row of a table, in short."""


def brief(value: float | str, digits: int = 3) -> str:
    """A value of a point in short."""
    return value if isinstance(value, str) else f"{value:.{digits}g}"


def drop_of(point: Point) -> float:
    """The share of the training after which ε is 0; 1 where it never is."""
    return float(point.get("drop", 1.0))


def until(drop: float) -> str:
    """Until when ε holds, in short; "" where it is constant."""
    return "" if drop == 1 else f"until {brief(100 * drop)} %"


def beside(point: Point) -> list[str]:
    """What a point has beside ε, in short; at ε = 0 all smoothings are the same, so none is named."""
    found = [until(drop_of(point))] if point["epsilon"] != 0 and drop_of(point) != 1 else []
    names = [name for name in point if name not in ("epsilon", "drop")]
    names = [name for name in names if name != "smoothing" or point["epsilon"] != 0]
    return found + [f"{SHORT.get(name, name)} {brief(point[name])}".lstrip() for name in names]


def key_of(point: Point) -> str:
    """A point of the search space as text, the same for equal points."""
    return " ".join(f"{name}={point[name]!r}" for name in sorted(point))
