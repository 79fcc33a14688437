"""BinnedStatistics: the one additive object behind every binned metric and reliability diagram."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

BINS = 15


@dataclass(frozen=True)
class BinnedStatistics:
    """Count, Σconfidence and Σcorrect of equal-width confidence bins, float64, for any leading member dimensions.

    Bin i of B covers [i/B, (i+1)/B); the last one includes 1.0. Statistics of two parts of a data set add up (`+`) to
    those of the whole, so they merge over batches, devices and processes.
    """

    count: Float[Tensor, "*member bin"]
    confidence: Float[Tensor, "*member bin"]
    correct: Float[Tensor, "*member bin"]

    @classmethod
    def of(
        cls,
        confidence: Float[Tensor, "*member example"],
        correct: Bool[Tensor, "*member example"],
        bins: int = BINS,
    ) -> "BinnedStatistics":
        """Bin confidences in [0, 1] and whether each prediction was correct."""
        *member, examples = confidence.shape
        index = (confidence * bins).long().clamp(0, bins - 1).reshape(-1, examples)
        rows = index.shape[0]
        cell = (index + bins * torch.arange(rows, device=index.device).unsqueeze(-1)).flatten()

        def total(values: Tensor) -> Tensor:
            weights = values.to(torch.float64).flatten()
            return torch.bincount(cell, weights=weights, minlength=rows * bins).reshape(*member, bins)

        return cls(count=total(torch.ones_like(confidence)), confidence=total(confidence), correct=total(correct))

    def __add__(self, other: "BinnedStatistics") -> "BinnedStatistics":
        return BinnedStatistics(self.count + other.count, self.confidence + other.confidence, self.correct + other.correct)

    def pooled(self) -> "BinnedStatistics":
        """All members as one: sums over the leading dimensions."""
        bins = self.count.shape[-1]
        count, confidence, correct = (part.reshape(-1, bins).sum(0) for part in (self.count, self.confidence, self.correct))
        return BinnedStatistics(count, confidence, correct)

    def calibration_error(self) -> Float[Tensor, "*member"]:
        """ECE = Σ_b |Σconfidence_b - Σcorrect_b| / N, in [0, 1], lower is better (Naeini et al. 2015, Guo et al. 2017)."""
        return (self.confidence - self.correct).abs().sum(-1) / self.count.sum(-1)
