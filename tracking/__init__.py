"""tracking: records of what was measured, the policies which choose ε from them, and MLflow. Imports neither torch nor sweeps."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracking.recommend import recommended_epsilon

__all__ = ["recommended_epsilon"]


def __getattr__(name: str) -> Any:
    """Import `tracking.recommend` when it is used, so that `python -m tracking.recommend` runs it once."""
    if name == "recommended_epsilon":
        from tracking.recommend import recommended_epsilon

        return recommended_epsilon
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
