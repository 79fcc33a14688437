"""Estimate: a value with its interval, from a bootstrap crossed over seeds × examples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.special import ndtri, stdtrit
from torch import Tensor

from lscal.binning import BINS
from lscal.predictions import Predictions

REPLICATES = 1000
CHUNK = 100


@dataclass(frozen=True)
class Estimate:
    """A value and the two-sided interval which covers the truth with probability `level`."""

    value: float
    low: float
    high: float
    level: float = 0.95

    @classmethod
    def of(cls, value: float, replicates: Float[Tensor, " replicate"], level: float = 0.95) -> "Estimate":
        """The percentile interval of the replicates, moved so that they centre on `value`.

        The move removes the bootstrap's own bias: resampled data look less calibrated than the data themselves.
        """
        centred = replicates - replicates.mean() + value
        tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64, device=replicates.device)
        low, high = torch.quantile(centred, tails).tolist()
        return cls(value, low, high, level)


@dataclass(frozen=True)
class Resamples:
    """Random weights over seeds and over examples, the same for every model compared: that makes differences paired.

    Seeds are drawn S-1 at a time (Rao and Wu 1988), which gives the mean over seeds its right variance even at S = 2.
    With one seed there is nothing to resample, and the interval covers the examples only.
    """

    seeds: Float[Tensor, "replicate seed"]
    examples: Float[Tensor, "replicate example"]

    @classmethod
    def draw(cls, seeds: int, examples: int, replicates: int = REPLICATES, random_state: int = 0) -> "Resamples":
        """Weights, each row summing to 1, reproducible from `random_state`."""
        generator = torch.Generator().manual_seed(random_state)

        def weights(draws: int, size: int) -> Tensor:
            picks = torch.randint(size, (replicates, draws), generator=generator)
            counts = torch.zeros(replicates, size, dtype=torch.float64)
            return counts.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.float64)) / draws

        return cls(seeds=weights(max(1, seeds - 1), seeds), examples=weights(examples, examples))

    def of(self, predictions: Predictions) -> dict[str, Float[Tensor, " replicate"]]:
        """Every metric of `WEIGHTED`, averaged over the seeds, on each resample.

        The deviations due to the drawn examples and to the drawn seeds are added. Redrawing both inside one value would
        count the seed × example interaction three times (Owen 2007, "The pigeonhole bootstrap"); the sum counts it
        twice, so an interval errs a little on the wide side. Deviations due to seeds are widened by the ratio of
        Student's t at S-1 degrees of freedom to the normal quantile: a spread seen on few seeds is itself uncertain.
        """
        parts: dict[str, list[Tensor]] = {name: [] for name in WEIGHTED}
        for weights in torch.split(self.examples, CHUNK):
            for name, function in WEIGHTED.items():
                parts[name].append(function(predictions, weights).mean(-1))
        even = torch.full_like(self.examples[:1], 1 / self.examples.shape[1])
        seeds = self.seeds.shape[1]
        widen = float(stdtrit(seeds - 1, 0.95) / ndtri(0.95)) if seeds > 1 else 0.0
        replicates = {}
        for name, function in WEIGHTED.items():
            by_seed = function(predictions, even).squeeze(0)
            replicates[name] = torch.cat(parts[name]) + widen * (self.seeds @ by_seed - by_seed.mean())
        return replicates


Weights = Float[Tensor, "replicate example"]
PerSeed = Float[Tensor, "replicate seed"]
WEIGHTED: Mapping[str, Callable[[Predictions, Weights], PerSeed]]
"""Metrics of predictions (seed, example) under example weights whose rows sum to 1; equal weights give `METRICS`."""


def accuracy(predictions: Predictions, weights: Weights) -> PerSeed:
    """Weighted share of correct examples."""
    return weights @ predictions.correct.to(torch.float64).T


def worst_class_accuracy(predictions: Predictions, weights: Weights) -> PerSeed:
    """Lowest weighted accuracy among the classes drawn."""
    onehot = torch.nn.functional.one_hot(predictions.labels.long(), predictions.classes).to(torch.float64)
    mass = weights @ onehot
    correct = predictions.correct.to(torch.float64)
    right = torch.stack([(weights * row) @ onehot for row in correct], 1)
    return torch.where(mass.unsqueeze(1) > 0, right / mass.unsqueeze(1), torch.inf).amin(-1)


def nll(predictions: Predictions, weights: Weights) -> PerSeed:
    """Weighted mean of -log p(label)."""
    return weights @ predictions.nll.T


def ece(predictions: Predictions, weights: Weights) -> PerSeed:
    """Weighted Σ_b |Σ(confidence - correct)| over 15 equal-width bins."""
    residual = predictions.confidence - predictions.correct.to(torch.float64)
    index = (predictions.confidence * BINS).long().clamp(0, BINS - 1)
    columns = []
    for row, bins in zip(residual, index, strict=True):
        cells = torch.zeros(row.shape[0], BINS, dtype=torch.float64, device=row.device).scatter_(1, bins.unsqueeze(1), row.unsqueeze(1))
        columns.append((weights @ cells).abs().sum(-1))
    return torch.stack(columns, -1)


def confidence_gap(predictions: Predictions, weights: Weights) -> PerSeed:
    """Weighted mean confidence - accuracy."""
    return weights @ (predictions.confidence - predictions.correct.to(torch.float64)).T


def aurc(predictions: Predictions, weights: Weights) -> PerSeed:
    """Weighted mean of the selective risk; an example of weight w takes up w of the coverage."""
    columns = []
    for confidence, correct in zip(predictions.log_confidence, predictions.correct, strict=True):
        order = confidence.sort(descending=True, stable=True).indices
        drawn = weights[:, order]
        wrong = (drawn * (~correct[order]).to(torch.float64)).cumsum(-1)
        columns.append((drawn * wrong / drawn.cumsum(-1).clamp(min=torch.finfo(torch.float64).tiny)).sum(-1))
    return torch.stack(columns, -1)


WEIGHTED = {f.__name__: f for f in (accuracy, worst_class_accuracy, nll, ece, confidence_gap, aurc)}
