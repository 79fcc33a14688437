"""Summary: the sums over examples that every metric is made of, on the examples themselves or on resamples of
them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lscal import crossfit, distances, smooth
from lscal.binning import BINS, BinnedStatistics, between, equal_mass_bounds, equal_width, tally
from lscal.classwise import ClasswiseResiduals
from lscal.predictions import Predictions
from lscal.selective import tie_groups

GROUPS = 128


class Summary(ABC):
    """Sums over the examples of some predictions. Shapes are (*lead, …): `lead` is the member dimensions,
    behind a dimension of replicates where there are any.

    A metric is written once, as a function of these sums; `Whole` gives its value, `Resampled` the values on
    resamples.
    """

    whole: "Whole"

    @property
    def predictions(self) -> Predictions:
        """The predictions summed up."""
        return self.whole.own

    @abstractmethod
    def total(self, values: Tensor) -> Float[Tensor, "*lead"]:
        """Σ of values (*member, example)."""

    @abstractmethod
    def total_by(self, index: Tensor, size: int, values: Tensor | None = None) -> Float[Tensor, "*lead size"]:
        """Σ of values (1 where None) by index in [0, size), both (*member, example)."""

    @property
    @abstractmethod
    def examples(self) -> Float[Tensor, "*lead"]:
        """N, to be divided by: it has a dimension of 1 for each member dimension."""

    @property
    @abstractmethod
    def ranks(self) -> tuple[Int[Tensor, "*member example"], int]:
        """The group of each example, the most confident first, and how many groups there are at most."""

    def mean(self, values: Tensor) -> Float[Tensor, "*lead"]:
        """Mean of values (*member, example)."""
        return self.total(values) / self.examples

    def binned(
        self, index: Tensor, size: int, confidence: Tensor, correct: Tensor, bounds: Tensor | None = None
    ) -> BinnedStatistics:
        """Count, Σconfidence and Σcorrect by index."""
        return BinnedStatistics(
            self.total_by(index, size),
            self.total_by(index, size, confidence),
            self.total_by(index, size, correct),
            bounds,
        )

    @cached_property
    def bins(self) -> BinnedStatistics:
        """15 equal-width bins of the top label's confidence."""
        own = self.predictions
        return self.binned(equal_width(own.confidence, BINS), BINS, own.confidence, own.correct)

    @cached_property
    def equal_mass(self) -> BinnedStatistics:
        """15 bins of equal mass, cut at the values of the examples themselves, also on resamples."""
        own = self.predictions
        bounds = equal_mass_bounds(own.confidence)
        return self.binned(between(own.confidence, bounds), BINS, own.confidence, own.correct, bounds)

    @cached_property
    def groups(self) -> BinnedStatistics:
        """Examples of equal confidence, the most confident group first; empty groups at the end."""
        own = self.predictions
        index, size = self.ranks
        return self.binned(index, size, own.confidence, own.correct)

    @cached_property
    def mesh(self) -> tuple[Float[Tensor, "*lead point"], Float[Tensor, "*lead point"]]:
        """Σ(confidence - correct) and count near the points i/1000, each example shared linearly between the
        two beside it.
        """
        own = self.predictions
        place = own.confidence * smooth.MESH
        left = place.long().clamp(max=smooth.MESH - 1)
        share, residual = place - left, own.confidence - own.correct.to(torch.float64)
        residuals, count = (
            self.total_by(left, smooth.MESH + 1, (1 - share) * values)
            + self.total_by(left + 1, smooth.MESH + 1, share * values)
            for values in (residual, torch.ones_like(residual))
        )
        return residuals, count

    @cached_property
    def classes(self) -> tuple[Float[Tensor, "*lead class"], Float[Tensor, "*lead class"]]:
        """How many examples each class has, and how many of them are right."""
        own = self.predictions
        labels = own.labels.expand(*own.member, -1)
        return self.total_by(labels, own.classes), self.total_by(labels, own.classes, own.correct)

    @abstractmethod
    def classwise_gaps(self) -> Float[Tensor, "*lead class"]:
        """Σ_b |Σ(p_k - [label = k])| / N of each class over 15 equal-width bins of p_k."""


@dataclass(frozen=True, eq=False)
class Whole(Summary):
    """Sums over the examples, each counted once; and what is worked out from all examples, however they are
    resampled.
    """

    own: Predictions

    @property
    def whole(self) -> "Whole":  # type: ignore[override]
        """Itself."""
        return self

    @cached_property
    def recalibrated(self) -> Predictions:
        """The predictions after a temperature that was fitted on other examples, see
        `crossfit.temperature`.
        """
        return crossfit.temperature(self.own)

    @cached_property
    def accuracy_at(self) -> Float[Tensor, "*member example"]:
        """g(confidence): the accuracy to expect of each example by its confidence, see
        `crossfit.isotonic`.
        """
        return crossfit.isotonic(self.own)

    @cached_property
    def distances(self) -> list[Float[Tensor, "*member example"]]:
        """How far each example's probabilities are from its label distribution, see `distances.distances`."""
        return distances.distances(self.own)

    @cached_property
    def agreements(self) -> Float[Tensor, "*member example"]:
        """The label distribution's probability of each example's predicted class."""
        return distances.agreements(self.own)

    @cached_property
    def bandwidth(self) -> Float[Tensor, "*member"]:
        """σ of smooth ECE, see `smooth.bandwidth`."""
        return smooth.bandwidth(*self.mesh)

    def total(self, values: Tensor) -> Float[Tensor, "*member"]:
        """Σ of values (*member, example)."""
        return values.to(torch.float64).sum(-1)

    def total_by(
        self, index: Tensor, size: int, values: Tensor | None = None
    ) -> Float[Tensor, "*member size"]:
        """As `Summary.total_by`."""
        return tally(index, size, values).reshape(*index.shape[:-1], size)

    @property
    def examples(self) -> Float[Tensor, "*lead"]:
        """N."""
        return torch.tensor(
            float(self.predictions.examples), dtype=torch.float64, device=self.predictions.labels.device
        )

    @cached_property
    def ranks(self) -> tuple[Int[Tensor, "*member example"], int]:
        """A group is what shares a confidence, exactly."""
        return tie_groups(self.predictions.ranking), self.predictions.examples

    def classwise_gaps(self) -> Float[Tensor, "*member class"]:
        """As `Summary.classwise_gaps`."""
        gaps = [part[:, 0].abs().sum(-1) for part in ClasswiseResiduals.of(self.predictions).parts()]
        return torch.cat(gaps, -1).reshape(*self.predictions.member, -1) / self.examples


@dataclass(frozen=True, eq=False)
class Blocks:
    """Examples put into blocks at random, in equal parts; up to 1024 examples every block is one example."""

    whole: Whole
    block: Int[Tensor, " example"]
    count: int

    @cached_property
    def classwise(self) -> ClasswiseResiduals:
        """The classwise sums of each block."""
        return ClasswiseResiduals.of(self.whole.own, self.block, self.count)

    @cached_property
    def sizes(self) -> Float[Tensor, " block"]:
        """How many examples each block has."""
        return tally(self.block, self.count)

    @cached_property
    def unchanged(self) -> "Resampled":
        """The one resample that draws every block once."""
        return Resampled(self, torch.ones(1, self.count, dtype=torch.float64, device=self.block.device))

    @cached_property
    def groups(self) -> tuple[Int[Tensor, "*member example"], int]:
        """The rank groups of resamples: at most 128, of neighbouring confidences."""
        ties, own = tie_groups(self.whole.own.ranking), self.whole.own
        if own.examples <= GROUPS:
            return ties, own.examples
        cuts = torch.arange(1, GROUPS, device=ties.device) * own.examples // GROUPS
        return torch.searchsorted(ties.sort(-1).values[..., cuts].contiguous(), ties, right=True), GROUPS


@dataclass(frozen=True, eq=False)
class Resampled(Summary):
    """Sums over resamples of the examples.

    A resample draws as many blocks as there are, with replacement. All sums are taken over each block once,
    and a resample weighs the blocks: its cost does not depend on N.
    """

    blocks: Blocks
    weights: Float[Tensor, "replicate block"]

    @property
    def whole(self) -> Whole:  # type: ignore[override]
        """The same predictions, each example counted once."""
        return self.blocks.whole

    def total(self, values: Tensor) -> Float[Tensor, "replicate *member"]:
        """Σ of values (*member, example) on each resample; inf where an infinite value was drawn."""
        flat = values.reshape(-1, values.shape[-1]).to(torch.float64)
        block, count = self.blocks.block.expand(flat.shape), self.blocks.count
        infinite = torch.isinf(flat)
        drawn = self.weights @ tally(block, count, flat.masked_fill(infinite, 0)).reshape(-1, count).T
        if infinite.any():
            drawn[self.weights @ tally(block, count, infinite).reshape(-1, count).T > 0] = torch.inf
        return drawn.reshape(-1, *values.shape[:-1])

    def total_by(
        self, index: Tensor, size: int, values: Tensor | None = None
    ) -> Float[Tensor, "replicate *member size"]:
        """As `Summary.total_by`, on each resample."""
        *member, examples = index.shape
        cells = index.reshape(-1, examples) + size * self.blocks.block
        flat = None if values is None else values.expand(index.shape).reshape(-1, examples)
        drawn = []
        for row, own in enumerate(cells):
            sums = tally(own, self.blocks.count * size, None if flat is None else flat[row]).reshape(-1, size)
            drawn.append(self.weights @ sums)
        return torch.stack(drawn, 1).reshape(len(self.weights), *member, -1)

    @cached_property
    def examples(self) -> Float[Tensor, "replicate *lead"]:
        """How many examples each resample has: N where the blocks are of one size."""
        return (self.weights @ self.blocks.sizes).reshape(-1, *(1 for _ in self.predictions.member))

    @property
    def ranks(self) -> tuple[Int[Tensor, "*member example"], int]:
        """See `Blocks.groups`."""
        return self.blocks.groups

    def classwise_gaps(self) -> Float[Tensor, "replicate *member class"]:
        """As `Summary.classwise_gaps`."""
        gaps = []
        for part in self.blocks.classwise.parts():
            drawn = torch.stack([self.weights @ own.flatten(1) for own in part], 1)
            gaps.append(drawn.reshape(*drawn.shape[:-1], -1, BINS).abs().sum(-1))
        shape = (len(self.weights), *self.predictions.member, self.predictions.classes)
        return torch.cat(gaps, -1).reshape(shape) / self.examples.unsqueeze(-1)
