"""Loss: what the members of a population that name the same smoothing are trained to make small."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lscal import confidence_penalised_cross_entropy, margin_smoothed_cross_entropy, smoothed_cross_entropy
from sweeps.data.dataset import IGNORED
from sweeps.training.member import Member
from sweeps.training.online_smoothing import RunningMeans
from sweeps.training.smoothing_kinds import SmoothingNoise, at_strength

ALTERNATIVES = {
    "margin": margin_smoothed_cross_entropy,
    "confidence_penalty": confidence_penalised_cross_entropy,
}


@final
class Loss:
    """The loss of each of some members: its mean over the examples, or over all labelled positions of a batch
    of sequences.

    Each smoothing has its own formula, whoever else is in the population. Nothing waits for the device.

    Args:
        places: which row of `means` each member has.
        means: those of the population; None where no smoothing of it is online.
    """

    def __init__(
        self,
        members: Sequence[Member],
        noise: SmoothingNoise,
        device: torch.device,
        places: Sequence[int],
        means: RunningMeans | None,
    ):
        self.kind, self.schedule = noise.loss, noise.schedule
        self.epsilon = torch.tensor([member.epsilon for member in members], device=device)
        drops = [member.drop for member in members]
        self.drop = None if min(drops) == 1 else torch.tensor(drops, device=device)
        self.places = torch.tensor(places, device=device)
        self.means = means if noise.online else None
        self.table = None if noise.uniform else noise.table.to(device, torch.float32)
        self.examples = None if noise.examples is None else noise.examples.to(device, torch.float32)

    def __call__(
        self,
        logits: Float[Tensor, "member *place class"],
        labels: Int[Tensor, "member *place"],
        rows: Int[Tensor, "member example"],
        share: Float[Tensor, ""],
    ) -> Float[Tensor, " member"]:
        """One value per member. `rows` of *train* are the batch; `share` of the training is past."""
        ignored = IGNORED if labels.ndim > 2 else None
        logits, labels = logits.flatten(1, -2), labels.flatten(1)
        strength = (
            self.epsilon if self.schedule == "constant" else self.epsilon * at_strength(self.schedule, share)
        )
        if self.drop is not None:
            strength = torch.where(share < self.drop, strength, 0)
        if self.kind != "cross_entropy":
            return ALTERNATIVES[self.kind](logits, labels, strength, ignore_index=ignored, reduction="mean")
        table, each = self.table, None
        if self.examples is not None:
            table, each = None, self.examples[rows]
        elif self.means is not None:
            table, each = None, self.means.of(self.places, labels)
            self.means.add(self.places, logits.detach(), labels)
        return smoothed_cross_entropy(
            logits,
            labels,
            strength,
            table,
            noise_per_example=each,
            masked=False,
            ignore_index=ignored,
            reduction="mean",
        )
