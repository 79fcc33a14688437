"""Classwise sums: confidence in each class against how often it is the label, one class against the rest."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lscal.binning import BINS, BinnedStatistics, equal_width
from lscal.predictions import Predictions

SPARSE = 0.0666
"""Just below 1/15, where the second bin begins: of a row at most 15 probabilities lie above, whatever K
is.
"""

CLASSES_AT_ONCE = 64
DOUBLE = 1 << 22


@dataclass(frozen=True, eq=False)
class ClasswiseResiduals:
    """Σ(p_k - [label = k]) by block of examples, class and bin of p_k.

    Almost every probability lies in the first bin: the first bin is what remains of the sums of whole columns
    when the others are taken out.
    """

    sums: Float[Tensor, "member block class bin"]

    @classmethod
    def of(
        cls, predictions: Predictions, block: Int[Tensor, " example"] | None = None, blocks: int = 1
    ) -> "ClasswiseResiduals":
        """Read the probabilities once. Without `block` all examples are one block; sums of more than 4
        million cells are float32, to spare memory.
        """
        labels, classes = predictions.labels, predictions.classes
        members = max(1, predictions.scores.shape[:-2].numel())
        width = torch.float64 if members * blocks * classes * BINS <= DOUBLE else torch.float32
        sums = torch.zeros(members, blocks, classes, BINS, dtype=width, device=labels.device)
        for part, rows, p in predictions.probability_blocks():
            count, many = p.shape[:2]
            base = torch.arange(part.start, part.start + count, device=labels.device).unsqueeze(-1) * blocks
            place = (
                (base if block is None else base + block[rows]).expand(count, many).flatten()
            )  # (member, block) of each row
            flat, columns = p.reshape(-1), p.reshape(-1, classes)
            if block is None:
                sums[part, 0, :, 0] += (
                    p.transpose(1, 2) @ torch.ones(many, dtype=p.dtype, device=p.device)
                ).to(width)
            else:
                sums.view(-1, classes, BINS)[..., 0].index_add_(0, place, columns.to(width))
            large = (flat >= SPARSE).nonzero().squeeze(-1)
            row, klass = large // classes, large % classes
            values = flat[large].to(torch.float64)
            own = labels[rows].repeat(count)
            at_label = columns.gather(-1, own.unsqueeze(-1)).squeeze(-1).to(torch.float64)
            first = (place[row] * classes + klass) * BINS
            add(sums, first, -values)
            add(sums, first + equal_width(values.clamp(0, 1), BINS), values)
            add(
                sums,
                (place * classes + own) * BINS + equal_width(at_label.clamp(0, 1), BINS),
                -torch.ones_like(at_label),
            )
        return cls(sums)

    def parts(self) -> Iterator[Float[Tensor, "member block class bin"]]:
        """The sums in float64, 64 classes at a time."""
        for first in range(0, self.sums.shape[2], CLASSES_AT_ONCE):
            yield self.sums[:, :, first : first + CLASSES_AT_ONCE].to(torch.float64)


def add(sums: Tensor, cell: Int[Tensor, " entry"], values: Float[Tensor, " entry"]) -> None:
    """Add values to cells of a contiguous tensor; counting is faster than scattering where the tensor is
    small.
    """
    flat = sums.view(-1)
    if flat.numel() <= 4 * cell.numel():
        flat += torch.bincount(cell, weights=values, minlength=flat.numel()).to(flat.dtype)
    else:
        flat.index_add_(0, cell, values.to(flat.dtype))


def one_class(predictions: Predictions, positive: int, bins: int = BINS) -> BinnedStatistics:
    """One class against the rest: p_k binned against whether the label is k. For K = 2 this is the
    positive-class view.

    Errors: ValueError for a class outside [0, K).
    """
    if not 0 <= positive < predictions.classes:
        raise ValueError(f"there is no class {positive}; allowed is 0 to {predictions.classes - 1}")
    members = max(1, predictions.scores.shape[:-2].numel())
    p = torch.empty(members, predictions.examples, dtype=torch.float64, device=predictions.labels.device)
    for part, rows, block in predictions.probability_blocks():
        p[part, rows] = block[..., positive].to(torch.float64).clamp(0, 1)
    p = p.reshape(*predictions.member, predictions.examples)
    return BinnedStatistics.of(p, (predictions.labels == positive).expand(p.shape), bins)
