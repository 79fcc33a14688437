"""Online label smoothing: who receives ε is what a member itself predicted in the epoch before."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

NAMES = ("means", "sums", "counts")


@final
class RunningMeans:
    """Per member and class: the mean prediction for the examples of the class that it got right.

    Uniform in the first epoch. A class of which nothing was right in an epoch keeps what it had.
    Source: Zhang et al. 2021, "Delving Deep into Label Smoothing" (arXiv 2011.12562).

    Attributes:
        means: of the epoch before; row y of a member is its u for the label y.
        sums, counts: of the epoch under way.
    """

    def __init__(self, members: int, classes: int, device: torch.device):
        self.means: Float[Tensor, "member class class"] = torch.full(
            (members, classes, classes), 1 / classes, device=device
        )
        self.sums: Float[Tensor, "member class class"] = torch.zeros_like(self.means)
        self.counts: Float[Tensor, "member class"] = torch.zeros((members, classes), device=device)

    def next_epoch(self) -> None:
        """Take what the epoch under way has come to, and begin another."""
        counts = self.counts.unsqueeze(-1)
        self.means.copy_(torch.where(counts > 0, self.sums / counts.clamp(min=1), self.means))
        self.sums.zero_()
        self.counts.zero_()

    def of(
        self, members: Int[Tensor, " some"], labels: Int[Tensor, "some example"]
    ) -> Float[Tensor, "some example class"]:
        """u of each example."""
        return self.means[members[:, None], labels.clamp(min=0)]  # what is ignored has a label below 0

    def add(
        self,
        members: Int[Tensor, " some"],
        logits: Float[Tensor, "some example class"],
        labels: Int[Tensor, "some example"],
    ) -> None:
        """Count a batch in. Nothing waits for the device."""
        right = (logits.argmax(-1) == labels).to(self.sums.dtype)
        places = (members[:, None].expand_as(labels), labels.clamp(min=0))
        self.sums.index_put_(places, logits.softmax(-1) * right.unsqueeze(-1), accumulate=True)
        self.counts.index_put_(places, right, accumulate=True)

    def state(self) -> dict[str, Tensor]:
        """The tensors themselves, the member first."""
        return {f"online/{name}": getattr(self, name) for name in NAMES}
