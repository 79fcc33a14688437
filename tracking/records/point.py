"""Point: a place in the search space."""

from collections.abc import Mapping
from typing import Any

Point = Mapping[str, Any]
"""A point of the search space: every tuned parameter by name, `epsilon` among them; numbers, and for
`smoothing` its name.
"""
SHORT = {"learning_rate": "lr", "weight_decay": "wd", "smoothing": ""}
"""Names which stand in every row of a table, in short."""


def brief(value: float | str, digits: int = 3) -> str:
    """A value of a point in short."""
    return value if isinstance(value, str) else f"{value:.{digits}g}"


def beside(point: Point) -> list[str]:
    """What a point has beside ε, in short; at ε = 0 all smoothings are the same, so none is named."""
    names = [name for name in point if name != "epsilon" and (name != "smoothing" or point["epsilon"] != 0)]
    return [f"{SHORT.get(name, name)} {brief(point[name])}".lstrip() for name in names]


def key_of(point: Point) -> str:
    """A point of the search space as text, the same for equal points."""
    return " ".join(f"{name}={point[name]!r}" for name in sorted(point))
