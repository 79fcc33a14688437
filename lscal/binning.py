"""BinnedStatistics: the one additive object behind every binned metric, reliability diagram and interval."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BINS = 15
PART = 1 << 20


@dataclass(frozen=True, eq=False)
class BinnedStatistics:
    """Count, Σconfidence and Σcorrect of confidence bins, float64, for any leading member dimensions.

    Bin i of B covers [edge_i, edge_i+1); the last one includes 1.0. Statistics of two parts of a data set add
    up (`+`) to those of the whole, so they merge over batches, devices and processes; `to("cpu")` brings them
    from a device.

    Attributes:
        bounds: edges of shape (*member, bin+1) where the bins are not of equal width; None for i/B.
    """

    count: Float[Tensor, "*member bin"]
    confidence: Float[Tensor, "*member bin"]
    correct: Float[Tensor, "*member bin"]
    bounds: Float[Tensor, "*#member bin+1"] | None = None

    @classmethod
    def of(
        cls,
        confidence: Float[Tensor, "*member example"],
        correct: Bool[Tensor, "*member example"] | Float[Tensor, "*member example"],
        bins: int = BINS,
        *,
        bounds: Float[Tensor, "*#member edge"] | None = None,
    ) -> "BinnedStatistics":
        """Bin confidences in [0, 1] and whether each prediction was correct (or how probable it is that it
        was).

        Without `bounds` the bins are of equal width. No examples give empty bins.
        Errors: ValueError for a confidence outside [0, 1], NaN included, or fewer than one bin.
        """
        if bounds is not None:
            bins = bounds.shape[-1] - 1
        if bins < 1:
            raise ValueError(f"there are {bins} bins; wanted at least 1")
        *member, examples = confidence.shape
        total = torch.zeros(
            3, int(np.prod(member, dtype=int)) * bins, dtype=torch.float64, device=confidence.device
        )
        for start in range(0, examples, PART):
            part = confidence[..., start : start + PART].to(torch.float64)
            low, high = part.aminmax()
            if not bool((low >= 0) & (high <= 1)):  # NaN is neither
                wrong = part[~((part >= 0) & (part <= 1))][0]
                raise ValueError(f"a confidence is {float(wrong)}; allowed is 0 to 1")
            index = equal_width(part, bins) if bounds is None else between(part, bounds)
            total[0] += tally(index, bins)
            total[1] += tally(index, bins, part)
            total[2] += tally(index, bins, correct[..., start : start + PART])
        count, confidences, corrects = total.reshape(3, *member, bins)
        return cls(count, confidences, corrects, bounds)

    @classmethod
    def equal_mass(
        cls,
        confidence: Float[Tensor, "*member example"],
        correct: Bool[Tensor, "*member example"] | Float[Tensor, "*member example"],
        bins: int = BINS,
    ) -> "BinnedStatistics":
        """Bins that hold about N/B examples each, cut by value: equal confidences always share a bin, so
        bins may be empty.

        To bin a stream, take `bounds` from a first part (or pass) and give them to `of`.
        """
        return cls.of(confidence, correct, bounds=equal_mass_bounds(confidence, bins))

    def __add__(self, other: "BinnedStatistics") -> "BinnedStatistics":
        same = self.count.shape[-1] == other.count.shape[-1] and (self.bounds is None) == (
            other.bounds is None
        )
        if same and self.bounds is not None and other.bounds is not None:
            same = torch.equal(self.bounds, other.bounds.to(self.bounds.device))
        if not same:
            raise ValueError("these statistics have other bins; only statistics of the same bins add up")
        return BinnedStatistics(
            self.count + other.count,
            self.confidence + other.confidence,
            self.correct + other.correct,
            self.bounds,
        )

    @property
    def edges(self) -> Float[Tensor, "*member edge"]:
        """Where the bins begin and end, in [0, 1]; shape (bin+1,) where all members share them."""
        if self.bounds is not None:
            return self.bounds
        bins = self.count.shape[-1]
        return torch.arange(bins + 1, dtype=torch.float64, device=self.count.device) / bins

    @property
    def gap(self) -> Float[Tensor, "*member bin"]:
        """Σconfidence - Σcorrect of each bin as a share of all examples: positive where overconfident."""
        return (self.confidence - self.correct) / self.count.sum(-1, keepdim=True)

    def to(self, device: str | torch.device) -> "BinnedStatistics":
        """The same on another device."""
        bounds = None if self.bounds is None else self.bounds.to(device)
        return BinnedStatistics(
            self.count.to(device), self.confidence.to(device), self.correct.to(device), bounds
        )

    def pooled(self) -> "BinnedStatistics":
        """All members as one: sums over the leading dimensions.

        Errors: ValueError where every member has bins of its own.
        """
        bins = self.count.shape[-1]
        bounds = self.bounds
        if bounds is not None:
            rows = bounds.reshape(-1, bins + 1)
            if not bool((rows == rows[0]).all()):
                raise ValueError(
                    "the members' bins have edges of their own; pool the examples, then bin them"
                )
            bounds = rows[0]
        count, confidence, correct = (
            part.reshape(-1, bins).sum(0) for part in (self.count, self.confidence, self.correct)
        )
        return BinnedStatistics(count, confidence, correct, bounds)

    def coarsened(self, factor: int) -> "BinnedStatistics":
        """Every `factor` neighbouring bins as one. Errors: ValueError where the bins do not divide by it."""
        bins = self.count.shape[-1]
        if factor < 1 or bins % factor:
            raise ValueError(f"{bins} bins do not divide by {factor}")
        count, confidence, correct = (
            part.reshape(*part.shape[:-1], bins // factor, factor).sum(-1)
            for part in (self.count, self.confidence, self.correct)
        )
        return BinnedStatistics(
            count, confidence, correct, None if self.bounds is None else self.bounds[..., ::factor]
        )

    def resampled(self, replicates: int = 1000, random_state: int = 0) -> "BinnedStatistics":
        """The cell bootstrap: these statistics on resamples of the examples, in a new first dimension.

        The counts of the cells (bin × right or wrong) are drawn from a multinomial distribution, which is
        what redrawing the examples does to them, at a cost that does not depend on N. Inside a cell all
        confidences count as their mean: take fine bins, `coarsened` afterwards. Errors: ValueError where
        `correct` was no flags but probabilities, which are in no cell.
        """
        if not torch.equal(self.correct, self.correct.round()):
            raise ValueError(
                "the counts of right predictions are not whole; resample the examples, see `Resamples`"
            )
        generator = np.random.default_rng(random_state)
        *member, bins = self.count.shape
        count = self.count.reshape(-1, bins).cpu().numpy()
        correct = self.correct.reshape(-1, bins).cpu().numpy()
        mean = np.divide(
            self.confidence.reshape(-1, bins).cpu().numpy(), count, out=np.zeros_like(count), where=count > 0
        )
        drawn = np.zeros((replicates, len(count), 2, bins))
        for row, (n, right) in enumerate(zip(count, correct, strict=True)):
            cells = np.concatenate([n - right, right])
            filled = np.flatnonzero(cells)
            share = cells[filled] / cells.sum()
            drawn[:, row].reshape(replicates, -1)[:, filled] = generator.multinomial(
                round(cells.sum()), share, size=replicates
            )
        counts = torch.from_numpy(drawn).to(self.count.device)
        total = counts.sum(2)
        shape = (replicates, *member, bins)
        confidence = total * torch.from_numpy(mean).to(self.count.device)
        return BinnedStatistics(
            total.reshape(shape), confidence.reshape(shape), counts[:, :, 1].reshape(shape), self.bounds
        )

    def calibration_error(self) -> Float[Tensor, "*member"]:
        """ECE = Σ_b |Σconfidence_b - Σcorrect_b| / N, in [0, 1], lower is better (Naeini et al. 2015, Guo et
        al. 2017).
        """
        return self.gap.abs().sum(-1)


def equal_width(confidence: Float[Tensor, "*member example"], bins: int) -> Int[Tensor, "*member example"]:
    """The bin [i/B, (i+1)/B) of each confidence, in float64; 1.0 is in the last."""
    confidence = confidence.to(torch.float64)
    edges = torch.arange(bins, dtype=torch.float64, device=confidence.device) / bins
    below = torch.nextafter(edges, torch.full_like(edges, -1))
    places = torch.arange(bins, device=confidence.device)
    # rounding is monotonic: where multiplying puts every edge, and the number before it, into the right bin,
    # it does so for all numbers
    exact = torch.equal((edges * bins).long(), places) and torch.equal((below[1:] * bins).long(), places[:-1])
    if exact:
        return (confidence * bins).long().clamp_(0, bins - 1)
    return torch.bucketize(confidence, edges[1:], right=True)


def equal_mass_bounds(
    confidence: Float[Tensor, "*member example"], bins: int = BINS
) -> Float[Tensor, "*member edge"]:
    """Edges 0, v_1, …, v_B-1, 1 such that each bin [v_i, v_i+1) holds about N/B of the examples, for each
    member its own.
    """
    ordered = confidence.to(torch.float64).sort(-1).values
    examples = ordered.shape[-1]
    if bins < 1 or examples < 1:
        raise ValueError(f"there are {examples} examples for {bins} bins; wanted at least 1 of both")
    cuts = torch.arange(1, bins, device=confidence.device) * examples // bins
    first, last = torch.zeros_like(ordered[..., :1]), torch.ones_like(ordered[..., :1])
    return torch.cat([first, ordered[..., cuts], last], -1)


def between(
    confidence: Float[Tensor, "*member example"], bounds: Float[Tensor, "*#member edge"]
) -> Int[Tensor, "*member example"]:
    """The bin [bound_i, bound_i+1) of each confidence; the last includes its upper bound."""
    inner = bounds[..., 1:-1]
    if inner.ndim > 1:
        inner = inner.expand(*confidence.shape[:-1], inner.shape[-1]).contiguous()
    return torch.searchsorted(inner, confidence.contiguous(), right=True)


def tally(
    index: Int[Tensor, "*member example"], size: int, values: Tensor | None = None
) -> Float[Tensor, " total"]:
    """Σ of `values` (1 for each where None) by index in [0, size), float64, members one after another: shape
    (member · size,).
    """
    flat = index.reshape(-1, index.shape[-1])
    rows = flat.shape[0]
    cells = (
        flat.flatten()
        if rows == 1
        else (flat + size * torch.arange(rows, device=index.device).unsqueeze(-1)).flatten()
    )
    weights = None if values is None else values.expand(index.shape).to(torch.float64).flatten()
    return torch.bincount(cells, weights=weights, minlength=rows * size).to(torch.float64)
