"""tracking: records of what was measured, the policies which choose ε from them, and MLflow. Imports neither torch nor sweeps."""

from tracking.recommend import recommended_epsilon

__all__ = ["recommended_epsilon"]
