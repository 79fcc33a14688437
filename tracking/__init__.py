"""tracking: records of what was measured, the policies that choose ε from them, and MLflow. Imports neither
torch nor sweeps.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracking.recommend import recommendation, recommended_epsilon

__all__ = ["recommendation", "recommended_epsilon"]


def __getattr__(name: str) -> Any:
    """Import `tracking.recommend` when it is used, so that `python -m tracking.recommend` runs it once."""
    if name in __all__:
        from tracking import recommend

        return getattr(recommend, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
