"""The records: Outcome, Comparison, Recommendation, Facts. Frozen values; JSON at the edge of Optuna and
MLflow only.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from tracking.records.point import Point

Stage = Literal["pilot", "screen", "confirm"]


@dataclass(frozen=True)
class Interval:
    """A value with its two-sided 95 % interval, and what its uncertainty is made of.

    The variance of the value is `examples`² + `seeds`² / S, where S is how many seeds it is the mean of.

    Attributes:
        examples: standard deviation due to the examples alone: what is left with any number of seeds.
        seeds: standard deviation of a single seed, beyond what its examples explain.
        freedom: degrees of freedom of that variance (Satterthwaite 1946).
    """

    value: float
    low: float
    high: float
    examples: float = 0.0
    seeds: float = 0.0
    freedom: float = math.inf

    def error(self, seeds: int) -> float:
        """The standard error with so many seeds."""
        return math.hypot(self.examples, self.seeds / seeds**0.5)


@dataclass(frozen=True)
class Bins:
    """A reliability diagram's data, pooled over the seeds: per equal-width confidence bin; None where a bin
    is empty.
    """

    count: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]
    gap: float
    error: float

    @classmethod
    def joined(cls, parts: "Sequence[Bins]", seeds: Sequence[int]) -> "Bins":
        """The bins of several groups of so many seeds as those of all."""
        places = range(len(parts[0].count))
        count = tuple(sum(part.count[place] for part in parts) for place in places)

        def mean(name: str, place: int) -> float | None:
            values = ((getattr(part, name)[place], part.count[place]) for part in parts)
            return sum(value * n for value, n in values if n) / count[place] if count[place] else None

        return cls(
            count=count,
            confidence=tuple(mean("confidence", place) for place in places),
            accuracy=tuple(mean("accuracy", place) for place in places),
            gap=weighted([part.gap for part in parts], seeds),
            error=weighted([part.error for part in parts], seeds),
        )


HELD_OUT_ACCURACY = "held_out/accuracy"
"""Accuracy on *select* and *calibrate* together. A temperature changes no prediction, so the examples it was
fitted on are as good as the others.
"""


@dataclass(frozen=True)
class Outcome:
    """One trial: one point of the search space, trained with S paired seeds to its end or to the rung where
    it was dropped.

    Attributes:
        uid: names the trial among all, in every store.
        epsilon: ε in the ε/K convention.
        point: every tuned parameter, ε included.
        metrics: `split/metric` -> one value per seed; `split/metric_calibrated` after temperature.
        curves: name -> mean over the seeds after each epoch.
        temperature: fitted on *calibrate*, one per seed.
        bins: `split` and `split_calibrated` -> the data of a reliability diagram.
        seconds: wall time of training, this trial's share of its population's.
        finished: ISO 8601, UTC.
        by_seed: metric -> after each epoch, one value per seed: what rungs compare. Empty where there were
            none.
        risks: `split` and `split_calibrated` -> per seed the error rate among the 1 %, 2 %, …, 100 % most
            confident examples.
        dropped: why a trial was not trained to its end; its metrics, temperature and bins are then empty. ""
            for all others.
        calibrate_examples: how many independent examples *calibrate* has; 0 in records of versions which did
            not write it.
    """

    uid: str
    task: str
    study: str
    stage: Stage
    number: int
    epsilon: float
    classes: int
    point: Point
    seeds: tuple[int, ...]
    metrics: Mapping[str, tuple[float, ...]]
    curves: Mapping[str, tuple[float, ...]]
    temperature: tuple[float, ...]
    bins: Mapping[str, Bins]
    seconds: float
    finished: str
    by_seed: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    risks: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    dropped: str = ""
    calibrate_examples: int = 0

    def mean(self, metric: str) -> float:
        """Mean over the seeds of a metric such as `select/accuracy`."""
        values = self.metrics[metric]
        return sum(values) / len(values)

    def spread(self, metric: str) -> float:
        """Standard deviation over the seeds, 0 with one seed."""
        return spread(self.metrics[metric])

    def differences(self, metric: str, control: "Outcome") -> tuple[float, ...]:
        """This trial's value less the control's, seed by seed."""
        theirs = dict(zip(control.seeds, control.metrics[metric], strict=True))
        return tuple(
            value - theirs[seed] for seed, value in zip(self.seeds, self.metrics[metric], strict=True)
        )

    @classmethod
    def joined(cls, parts: "Sequence[Outcome]") -> "Outcome":
        """Trials of the same point with different seeds, as one; named after the first."""
        first, seeds = parts[0], [len(part.seeds) for part in parts]
        return replace(
            first,
            seeds=tuple(seed for part in parts for seed in part.seeds),
            metrics={
                name: tuple(value for part in parts for value in part.metrics[name]) for name in first.metrics
            },
            curves={
                name: tuple(
                    weighted(point, seeds)
                    for point in zip(*(part.curves[name] for part in parts), strict=True)
                )
                for name in first.curves
            },
            temperature=tuple(value for part in parts for value in part.temperature),
            bins={name: Bins.joined([part.bins[name] for part in parts], seeds) for name in first.bins},
            seconds=sum(part.seconds for part in parts),
            finished=max(part.finished for part in parts),
            by_seed={},
            risks={name: tuple(row for part in parts for row in part.risks[name]) for name in first.risks},
        )

    def to_json(self) -> str:
        """The record as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record which `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        for name in ("seeds", "temperature"):
            values[name] = tuple(values[name])
        for name in ("metrics", "curves"):
            values[name] = {key: tuple(entries) for key, entries in values[name].items()}
        for name in ("by_seed", "risks"):
            values[name] = {
                key: tuple(tuple(row) for row in rows) for key, rows in values.get(name, {}).items()
            }
        values["bins"] = {
            key: Bins(tuple(b["count"]), tuple(b["confidence"]), tuple(b["accuracy"]), b["gap"], b["error"])
            for key, b in values["bins"].items()
        }
        return cls(**values)


def screened(metric: str, *outcomes: Outcome) -> str:
    """The name under which candidates are chosen by a metric: on *select*; accuracy on *calibrate* as well,
    where all trials have that.
    """
    everywhere = metric == "accuracy" and all(HELD_OUT_ACCURACY in outcome.metrics for outcome in outcomes)
    return HELD_OUT_ACCURACY if everywhere else f"select/{metric}"


@dataclass(frozen=True)
class Facts:
    """What a reader needs to repeat a sweep; written to every run of it.

    Attributes:
        params: the recipe and the plan's choices, by name.
        tags: library versions and the git commit.
        dataset, digest, where: name of the data set, a hash of its splits, and where it was read from.
        plan: YAML which reproduces the sweep.
    """

    params: Mapping[str, str]
    tags: Mapping[str, str]
    dataset: str
    digest: str
    where: str
    plan: str


def weighted(values: Sequence[float], weights: Sequence[int]) -> float:
    """The weighted mean."""
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)


def spread(values: tuple[float, ...]) -> float:
    """Standard deviation with n-1 in the denominator, 0 for a single value."""
    mean = sum(values) / len(values)
    return (
        (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else 0.0
    )
