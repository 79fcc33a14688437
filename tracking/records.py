"""The records: Outcome, Comparison, Recommendation, Facts. Frozen values; JSON at the edge of Optuna and MLflow only."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

Stage = Literal["screen", "confirm"]


@dataclass(frozen=True)
class Interval:
    """A value with its two-sided 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bins:
    """A reliability diagram's data, pooled over the seeds: per equal-width confidence bin; None where a bin is empty."""

    count: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]
    gap: float
    error: float


@dataclass(frozen=True)
class Outcome:
    """One trial: one point of the search space, trained with S paired seeds to its end or to the rung where it was dropped.

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
        by_seed: metric -> after each epoch, one value per seed: what rungs compare. Empty where there were none.
        dropped: why a trial was not trained to its end; its metrics, temperature and bins are then empty. "" for all others.
    """

    uid: str
    task: str
    study: str
    stage: Stage
    number: int
    epsilon: float
    classes: int
    point: Mapping[str, float]
    seeds: tuple[int, ...]
    metrics: Mapping[str, tuple[float, ...]]
    curves: Mapping[str, tuple[float, ...]]
    temperature: tuple[float, ...]
    bins: Mapping[str, Bins]
    seconds: float
    finished: str
    by_seed: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    dropped: str = ""

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
        return tuple(value - theirs[seed] for seed, value in zip(self.seeds, self.metrics[metric], strict=True))

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
        values["by_seed"] = {key: tuple(tuple(epoch) for epoch in epochs) for key, epochs in values.get("by_seed", {}).items()}
        values["bins"] = {
            key: Bins(tuple(b["count"]), tuple(b["confidence"]), tuple(b["accuracy"]), b["gap"], b["error"])
            for key, b in values["bins"].items()
        }
        return cls(**values)


@dataclass(frozen=True)
class Comparison:
    """A confirmed ε on *test*, with fresh seeds: its metrics, and their paired differences to ε = 0.

    Attributes:
        estimates: metric (`accuracy`, `ece`, `ece_calibrated`, …) -> interval.
        differences: metric -> paired difference to ε = 0; all zero for ε = 0 itself.
        relative: metric -> that difference as a share of the value at ε = 0.
        outcome: the confirmation trial.
    """

    outcome: Outcome
    estimates: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    relative: Mapping[str, Interval]

    @property
    def epsilon(self) -> float:
        """The ε which was confirmed."""
        return self.outcome.epsilon


@dataclass(frozen=True)
class Condition:
    """One condition of a policy: what was found, the bound that was compared, the threshold, and the verdict."""

    name: str
    value: float
    bound: float
    threshold: float
    met: bool
    sentence: str


@dataclass(frozen=True)
class Recommendation:
    """The ε to train a task with, and why. `epsilon_wrong_classes` is the same in the other convention, ε(K-1)/K."""

    task: str
    epsilon: float
    epsilon_wrong_classes: float
    policy: str
    reason: str
    accuracy: Interval
    ece: Interval
    ece_calibrated: Interval
    aurc: Interval
    delta_accuracy: Interval
    candidate: float
    conditions: tuple[Condition, ...]
    study: str
    run_id: str | None
    created: str

    def to_json(self) -> str:
        """The record as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record which `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        for name in ("accuracy", "ece", "ece_calibrated", "aurc", "delta_accuracy"):
            values[name] = Interval(**values[name])
        values["conditions"] = tuple(Condition(**condition) for condition in values["conditions"])
        return cls(**values)


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


def spread(values: tuple[float, ...]) -> float:
    """Standard deviation with n-1 in the denominator, 0 for a single value."""
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else 0.0
