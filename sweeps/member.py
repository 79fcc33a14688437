"""Member: one point of the search space with one seed."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """What distinguishes a model from the others of its task. The seed decides the initialisation and the order of the data.

    Attributes:
        epsilon: label-smoothing mass in [0, 1).
        seed: at least 0. Members which share a seed see the same batches.
        learning_rate: at its peak.
        weight_decay: as the recipe's optimiser understands it.
        smoothing: the name of the distribution which receives ε.
        clip: the largest norm of the member's gradient, all its parameters taken together.
    """

    epsilon: float
    seed: int
    learning_rate: float
    weight_decay: float
    smoothing: str = "uniform"
    clip: float = math.inf
