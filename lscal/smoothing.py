"""Smoothing: the mass ε taken from the label, and the distribution which receives it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Distribution = Callable[[Int[Tensor, " example"], int], Float[Tensor, " class"]]
DISTRIBUTIONS: dict[str, Distribution] = {}
"""Noise distributions u by name. Each takes the training labels and K, and returns u(k), shape (K,), summing to 1."""


def distribution(function: Distribution) -> Distribution:
    """Register a noise distribution under the function's name."""
    DISTRIBUTIONS[function.__name__] = function
    return function


@distribution
def uniform(labels: Int[Tensor, " example"], classes: int) -> Float[Tensor, " class"]:
    """u(k) = 1/K (Szegedy et al. 2016, section 7). Shape (K,), float64."""
    return torch.full((classes,), 1 / classes, dtype=torch.float64, device=labels.device)


@distribution
def class_prior(labels: Int[Tensor, " example"], classes: int) -> Float[Tensor, " class"]:
    """u(k) = share of class k among the training labels ("unigram", Pereyra et al. 2017). Shape (K,), float64."""
    counts = torch.bincount(labels, minlength=classes).to(torch.float64)
    return counts / counts.sum()


@dataclass(frozen=True)
class Smoothing:
    """The target (1-ε)·onehot(y) + ε·u.

    `epsilon` is the ε/K convention of torch and Szegedy et al.: ε is spread over all K classes, the label's included.
    Range [0, 1). `distribution` names u, a key of `DISTRIBUTIONS`.
    """

    epsilon: float
    distribution: str = "uniform"

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < 1:
            raise ValueError(f"epsilon is {self.epsilon}; allowed is 0 <= epsilon < 1")
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(f"no noise distribution named {self.distribution!r}; there are {', '.join(sorted(DISTRIBUTIONS))}")

    def noise(self, labels: Int[Tensor, " example"], classes: int) -> Float[Tensor, " class"]:
        """u over the K classes, shape (K,), float64, estimated from the training labels where it depends on them."""
        return DISTRIBUTIONS[self.distribution](labels, classes)


def epsilon_wrong_classes(epsilon: float, classes: int) -> float:
    """The same uniform smoothing in the other convention, where only the wrong classes share the mass: ε(K-1)/K."""
    return epsilon * (classes - 1) / classes
