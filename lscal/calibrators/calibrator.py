"""Calibrator: the interface of every recalibration."""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor


class Calibrator(ABC):
    """A fitted map from logits to logits. `fit` returns one, so an unfitted calibrator does not exist."""

    @classmethod
    @abstractmethod
    def fit(cls, logits: Float[Tensor, "*member example class"], labels: Int[Tensor, " example"]) -> "Calibrator":
        """Fit on held-out logits, every member by itself, all at once."""

    @abstractmethod
    def __call__(self, logits: Float[Tensor, "*member example class"]) -> Float[Tensor, "*member example class"]:
        """Recalibrated logits in float64, of the same shape."""
