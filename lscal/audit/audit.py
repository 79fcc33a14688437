"""Audit: the metrics of saved predictions with their intervals, as they are and after recalibrations that saw
none of the examples scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from lscal import crossfit, selective
from lscal.audit.files import Saved, WrongFile
from lscal.binning import BINS, BinnedStatistics, equal_width, tally
from lscal.calibrators import CALIBRATORS, Calibrator, PNorm, Temperature
from lscal.epsilon import TrainedEpsilon, estimate_epsilon
from lscal.estimate import Estimate, Resamples, correlation, found
from lscal.metrics import METRICS, applicable
from lscal.metrics.scores import TOP
from lscal.predictions import Predictions
from lscal.summary import Whole

LEVEL = 0.95
FITTED = 20_000
"""Examples that p-norm is fitted on at most: its two numbers need no more, and it takes a hundred times as
long as a temperature.
"""
SPLITS = ("nll_refinement", "nll_calibration", "brier_refinement", "brier_calibration")
"""Metrics that a temperature does not change or has repaired: not computed again after one."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Every metric of some predictions, and its values on the resamples. Of a population: the mean of its
    models.

    Attributes:
        by_model: each metric by name, one value per model, float64.
        replicates: the same on each resample of the examples.
        estimates: each metric with its 95 % interval: of one model for other examples, of a population for
            other models too.
    """

    predictions: Predictions
    by_model: dict[str, Float[Tensor, "*member"]]
    replicates: dict[str, Float[Tensor, "replicate *member"]]
    estimates: dict[str, Estimate]

    @classmethod
    def of(cls, predictions: Predictions, names: Sequence[str], resamples: Resamples) -> "Scored":
        """Score them."""
        whole = Whole(predictions)
        parts = [
            {name: METRICS[name].function(resampled) for name in names}
            for resampled in resamples.summaries(whole)
        ]
        drawn = {name: torch.cat([part[name] for part in parts]) for name in names}
        each = found(whole, drawn, LEVEL)
        by_model = {name: estimate.value for name, estimate in each.items()}
        if predictions.member:
            each = {
                name: Estimate.crossed(
                    by_model[name], drawn[name], bounds=(METRICS[name].low, METRICS[name].high)
                )
                for name in names
            }
        return cls(predictions, by_model, drawn, each)

    def less(self, other: "Scored", name: str) -> Estimate:
        """This metric less that of the other, paired: on the same resamples of the same examples, as
        `lscal.differences`.
        """
        value, drawn = (
            self.by_model[name] - other.by_model[name],
            self.replicates[name] - other.replicates[name],
        )
        if self.predictions.member:
            return Estimate.crossed(value, drawn)
        if METRICS[name].limits is None:
            return Estimate.of(value, drawn, LEVEL)
        alike = correlation(self.replicates[name], other.replicates[name])
        return self.estimates[name].less(other.estimates[name], alike)


@dataclass(frozen=True, eq=False)
class Audit:
    """One file's predictions.

    Attributes:
        name: their name on the page.
        raw: as they are.
        scaled: after temperature scaling.
        normalised: after p-norm logit normalisation and its temperature. Both are cross-fitted: each example
            is recalibrated with a fit on the other four folds.
        temperature: fitted on all examples, to be used on new ones; one value per model.
        norm: likewise.
        trained: the training predictions, where they were given.
        epsilon: the label smoothing estimated from them.
        others: after further calibrators, cross-fitted too, by method.
    """

    name: str
    saved: Saved
    raw: Scored
    scaled: Scored
    normalised: Scored
    temperature: Temperature
    norm: PNorm
    trained: Saved | None
    epsilon: TrainedEpsilon | None
    others: dict[str, Scored]

    @classmethod
    def of(
        cls,
        name: str,
        saved: Saved,
        resamples: Resamples,
        train: Saved | None = None,
        calibrators: Sequence[str] = (),
    ) -> "Audit":
        """Audit a file.

        `train` holds the same model's predictions of its training examples; `calibrators` are further methods
        of `lscal.CALIBRATORS` to score. Errors: KeyError for another name.
        """
        predictions = saved.predictions
        names = [
            metric.name
            for metric in applicable(predictions)
            if metric.name != "top_k_accuracy" or predictions.classes > TOP
        ]
        after = [name for name in names if name not in SPLITS]
        everything = predictions.logits(slice(0, predictions.examples))
        some = torch.randperm(predictions.examples, generator=torch.Generator().manual_seed(0))[:FITTED]
        return cls(
            name=name,
            saved=saved,
            raw=Scored.of(predictions, names, resamples),
            scaled=Scored.of(crossfit.temperature(predictions), after, resamples),
            normalised=Scored.of(crossfitted(predictions, PNorm), after, resamples),
            temperature=Temperature.fit(everything, predictions.labels),
            norm=PNorm.fit(predictions.logits(some), predictions.labels[some]),
            trained=train,
            epsilon=None if train is None else epsilon_of(train),
            others={
                method: Scored.of(crossfitted(predictions, CALIBRATORS[method]), after, resamples)
                for method in calibrators
            },
        )

    @property
    def models(self) -> int:
        """How many models the numbers are means of."""
        return max(1, len(self.saved.members))

    @property
    def unscored(self) -> int:
        """How many rows do not count."""
        return self.saved.predictions.scores.shape[-2] - self.saved.predictions.examples

    @cached_property
    def by_class(self) -> BinnedStatistics:
        """p_k and [label = k] of each class in 15 equal-width bins: shape (*member, class, bin)."""
        return by_class(self.saved.predictions)

    @cached_property
    def worst_class(self) -> tuple[str, float, int]:
        """Name, accuracy (mean of the models) and examples of the class that is right least often."""
        count, correct = Whole(self.saved.predictions).classes
        accuracy = (correct / count).reshape(-1, correct.shape[-1]).mean(0)
        worst = int(accuracy.nan_to_num(torch.inf).argmin())
        return (
            self.class_names[worst],
            float(accuracy[worst]),
            int(count.reshape(-1, count.shape[-1])[0, worst]),
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of the file, or numbers."""
        return self.saved.classes or tuple(str(k) for k in range(self.saved.predictions.classes))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two files of predictions of the same examples."""

    first: Audit
    second: Audit

    @property
    def names(self) -> list[str]:
        """The metrics that both have."""
        return list(self.first.raw.estimates)

    def difference(self, name: str) -> Estimate:
        """The metric of the second less that of the first, as they are."""
        return self.second.raw.less(self.first.raw, name)

    def scaled_difference(self, name: str) -> Estimate:
        """The same, each after its own temperature scaling."""
        return self.second.scaled.less(self.first.scaled, name)

    @cached_property
    def risks(self) -> tuple[Float[Tensor, " example"], Float[Tensor, " example"]]:
        """The error rate at each coverage, as they are: of a population the mean of its models."""
        first, second = (risk_coverage(one.saved.predictions) for one in (self.first, self.second))
        return first, second

    @property
    def break_even(self) -> float | None:
        """Where the risk-coverage curves meet, see `break_even`."""
        return break_even(*self.risks)

    @property
    def told_apart(self) -> bool:
        """Whether chance does not explain how the curves differ, at their ends (accuracy) or on the whole
        (AURC).
        """
        return told_from_zero(self.difference("accuracy")) or told_from_zero(self.difference("aurc"))


def break_even(first: Float[Tensor, " example"], second: Float[Tensor, " example"]) -> float | None:
    """The coverage from which on the second curve of risks is nowhere above the first; None where it is so
    everywhere or not even at 1.

    As `selective.break_even`, between the curves drawn.
    """
    worse = (second > first + 1e-12).nonzero()
    last = 0 if not len(worse) else int(worse[-1, 0]) + 1
    return last / len(first) if 0 < last < len(first) else None


def epsilon_of(train: Saved) -> TrainedEpsilon:
    """The ε of some training predictions. Errors: WrongFile where it cannot be estimated."""
    predictions = train.predictions
    try:
        return estimate_epsilon(predictions.logits(slice(0, predictions.examples)), predictions.labels)
    except ValueError as error:
        raise WrongFile(f"{train.path}: {error}") from error


def told_from_zero(difference: Estimate) -> bool:
    """Whether the interval leaves 0 out."""
    return float(difference.low) > 0 or float(difference.high) < 0


def crossfitted(predictions: Predictions, calibrator: type[Calibrator]) -> Predictions:
    """The predictions after a calibrator, fitted for each example on the folds without it. A single example
    stays as it is.
    """
    fold = torch.full((predictions.examples,), -1)
    fitted = []
    for i, (held, others) in enumerate(crossfit.folds(predictions.examples)):
        fold[held] = i
        some = others[:FITTED]  # the folds are in random order
        fitted.append(calibrator.fit(predictions.logits(some), predictions.labels[some]))

    def through(logits: Tensor, rows: slice | Tensor) -> Tensor:
        mapped = logits.to(torch.float64, copy=True)
        for i, own in enumerate(fitted):
            here = fold[rows] == i
            mapped[..., here, :] = own(logits[..., here, :])
        return mapped

    return predictions.mapped(through)


def risk_coverage(predictions: Predictions) -> Float[Tensor, " example"]:
    """The error rate at coverage 1/N, 2/N, …, 1: of a population the mean of its models."""
    risk = selective.risk_coverage(predictions.ranking, predictions.correct)
    return risk.reshape(-1, predictions.examples).mean(0)


def by_class(predictions: Predictions) -> BinnedStatistics:
    """`lscal.one_class` of every class, reading the predictions once: statistics of shape (*member, class,
    bin).
    """
    classes = predictions.classes
    total = torch.zeros(3, max(1, predictions.scores.shape[:-2].numel()), classes * BINS, dtype=torch.float64)
    first = BINS * torch.arange(classes)
    for members, rows, block in predictions.probability_blocks():
        p = block.to(torch.float64).clamp(0, 1)
        cell = (equal_width(p, BINS) + first).flatten(1)
        at_label = torch.nn.functional.one_hot(predictions.labels[rows], classes).expand(p.shape)
        for i, values in enumerate((None, p.flatten(1), at_label.flatten(1))):
            total[i, members] += tally(cell, classes * BINS, values).reshape(-1, classes * BINS)
    return BinnedStatistics(*total.reshape(3, *predictions.member, classes, BINS))
