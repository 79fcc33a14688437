"""Member: one point of the search space with one seed."""

import math
from dataclasses import dataclass

from lscal.smoothing import check_epsilon


@dataclass(frozen=True)
class Member:
    """What distinguishes a model from the others of its task. The seed decides the initialisation and the
    order of the data.

    Attributes:
        epsilon: label-smoothing mass below 1, and below 0 where that is meant; or the strength of another
            loss.
        seed: at least 0. Members that share a seed see the same batches.
        learning_rate: at its peak.
        weight_decay: as the recipe's optimiser understands it.
        smoothing: who receives ε, a base name of `sweeps.training.smoothing_kinds`.
        drop: the share of the optimiser steps after which ε is 0, in (0, 1]; 1 where it never is.
        clip: the largest norm of the member's gradient, all its parameters taken together.
    """

    epsilon: float
    seed: int
    learning_rate: float
    weight_decay: float
    smoothing: str = "uniform"
    clip: float = math.inf
    drop: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.drop <= 1:
            raise ValueError(f"drop is {self.drop}; allowed is 0 < drop <= 1")
        check_epsilon(self.epsilon, negative_epsilon=True)
