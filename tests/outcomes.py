"""Outcomes with nothing in them but what a test names."""

from typing import Any

from tracking.records.outcome import Outcome


def bare(epsilon: float, **values: Any) -> Outcome:
    """An outcome at ε; `values` are its other fields."""
    empty = {"metrics": {}, "curves": {}, "temperature": (), "bins": {}, "seconds": 1.0, "finished": "now"}
    named = {"uid": f"u{epsilon}", "task": "digits/mlp", "study": "s", "stage": "screen", "number": 0}
    numbers = {"epsilon": epsilon, "classes": 10, "point": {"epsilon": epsilon}, "seeds": (0, 1)}
    return Outcome(**{**named, **numbers, **empty, **values})
