"""The records: Outcome, Comparison, Recommendation, Facts. Frozen values; JSON at the edge of Optuna and MLflow only."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self

Stage = Literal["pilot", "screen", "confirm"]
Verdict = Literal["better", "worse", "practically the same", "not known"]
"""What a paired difference to ε = 0 says; `tracking.verdict` gives it."""
Point = Mapping[str, Any]
"""A point of the search space: every tuned parameter by name, `epsilon` among them; numbers, and for `smoothing` its name."""


SHORT = {"learning_rate": "lr", "weight_decay": "wd", "smoothing": ""}
"""Names which stand in every row of a table, in short."""


def brief(value: float | str, digits: int = 3) -> str:
    """A value of a point in short."""
    return value if isinstance(value, str) else f"{value:.{digits}g}"


def beside(point: Point) -> list[str]:
    """What a point has beside ε, in short; at ε = 0 all smoothings are the same, so none is named."""
    names = [name for name in point if name != "epsilon" and (name != "smoothing" or point["epsilon"] != 0)]
    return [f"{SHORT.get(name, name)} {brief(point[name])}".lstrip() for name in names]


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
    """A reliability diagram's data, pooled over the seeds: per equal-width confidence bin; None where a bin is empty."""

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
"""Accuracy on *select* and *calibrate* together. A temperature changes no prediction, so the examples it was fitted on are as good as the others."""


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
        risks: `split` and `split_calibrated` -> per seed the error rate among the 1 %, 2 %, …, 100 % most confident examples.
        dropped: why a trial was not trained to its end; its metrics, temperature and bins are then empty. "" for all others.
        calibrate_examples: how many independent examples *calibrate* has; 0 in records of versions which did not write it.
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
        return tuple(value - theirs[seed] for seed, value in zip(self.seeds, self.metrics[metric], strict=True))

    @classmethod
    def joined(cls, parts: "Sequence[Outcome]") -> "Outcome":
        """Trials of the same point with different seeds, as one; named after the first."""
        first, seeds = parts[0], [len(part.seeds) for part in parts]
        return replace(
            first,
            seeds=tuple(seed for part in parts for seed in part.seeds),
            metrics={name: tuple(value for part in parts for value in part.metrics[name]) for name in first.metrics},
            curves={
                name: tuple(weighted(point, seeds) for point in zip(*(part.curves[name] for part in parts), strict=True))
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
            values[name] = {key: tuple(tuple(row) for row in rows) for key, rows in values.get(name, {}).items()}
        values["bins"] = {
            key: Bins(tuple(b["count"]), tuple(b["confidence"]), tuple(b["accuracy"]), b["gap"], b["error"])
            for key, b in values["bins"].items()
        }
        return cls(**values)


def screened(metric: str, *outcomes: Outcome) -> str:
    """The name under which candidates are chosen by a metric: on *select*; accuracy on *calibrate* as well, where all trials have that."""
    everywhere = metric == "accuracy" and all(HELD_OUT_ACCURACY in outcome.metrics for outcome in outcomes)
    return HELD_OUT_ACCURACY if everywhere else f"select/{metric}"


ABOUT_DIFFERENCE = ("bleu", "accuracy", "nll_calibrated", "cost")
"""Metrics whose claim is about the difference itself; that of others is about the difference as a share of the value at ε = 0."""
ANSWERED = (
    "accuracy",
    "bleu",
    "ece",
    "ece_calibrated",
    "nll",
    "nll_calibrated",
    "aurc",
    "aurc_calibrated",
    "confidence_gap",
    "confidence_gap_calibrated",
    "cost",
)
"""Metrics which a recommendation carries, raw and repaired by the temperature, where they were measured."""


@dataclass(frozen=True)
class Claim:
    """That a metric is better than at ε = 0, tested at one or more looks as seeds were added (`tracking.sequential`).

    Attributes:
        p: repeated one-sided p-value: valid at whatever look the seeds stopped; at most 0.025 just where the interval excludes 0.
        low, high: repeated 95 % interval of the difference at the last look, valid in the same sense.
        seeds: how many seeds there were at each look.
        values: the paired difference at each look.
    """

    p: float
    low: float
    high: float
    seeds: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """A confirmed ε on *test*, with fresh seeds: its metrics, and their paired differences to ε = 0.

    Attributes:
        outcome: the confirmation trial; its seeds are those of all looks.
        estimates: metric (`accuracy`, `ece`, `ece_calibrated`, …, `cost`) -> interval.
        differences: metric -> paired difference to ε = 0; all zero for ε = 0 itself.
        relative: metric -> that difference as a share of the value at ε = 0.
        claims: metric (`accuracy`, `nll_calibrated`, `cost`) -> the claim that it is better than at ε = 0; none for ε = 0 itself.
        coverage: the share of examples to decide without a review at which the expected cost is least, chosen on *calibrate*.
    """

    outcome: Outcome
    estimates: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    relative: Mapping[str, Interval]
    claims: Mapping[str, Claim] = field(default_factory=dict)
    coverage: float = 1.0

    @property
    def epsilon(self) -> float:
        """The ε which was confirmed."""
        return self.outcome.epsilon

    def difference(self, metric: str) -> Interval:
        """The paired difference to ε = 0; where seeds were added by looks, with the interval which allows for that."""
        found, claim = self.differences[metric], self.claims.get(metric)
        return replace(found, low=claim.low, high=claim.high) if claim and metric in ABOUT_DIFFERENCE else found


@dataclass(frozen=True)
class Condition:
    """One condition of a policy.

    Attributes:
        value, low, high: what was found, with its 95 % interval.
        bound: the end of the interval, or the value, that was compared with the threshold.
        threshold: in the same unit.
        met: the verdict.
        sentence: all of it in words.
        remedy: what would change the verdict, such as "12 more seeds would settle it"; "" where nothing needs to.
    """

    name: str
    value: float
    low: float
    high: float
    bound: float
    threshold: float
    met: bool
    sentence: str
    remedy: str = ""


@dataclass(frozen=True)
class Recommendation:
    """The ε to train a task with, and why.

    Attributes:
        epsilon: in the ε/K convention; `epsilon_wrong_classes` is the same in the other one, ε(K-1)/K.
        point: every tuned value to train with, ε included.
        accuracy, ece, ece_calibrated, aurc: on *test*, at the recommended ε.
        delta_accuracy: paired difference to ε = 0, on *test*.
        candidate: the ε that was put to the conditions; `conditions` are empty where it is 0.
        seeds, examples: how many fresh seeds and test examples the numbers rest on.
        coverage: share of examples to decide without a review, at the plan's prices.
        openings: how often the test split has been opened for this plan.
        study: the Optuna study. run_id: the MLflow run which carries the evidence.
        created: ISO 8601, UTC.
        temperature: T, by which logits are divided: the mean over the fresh seeds at the recommended ε, in 0.01 to 1000. None where it is not
            known: the fields from here on are younger than the others, and records of older versions lack them.
        at_bound: how many seeds have no best T within that range; they are left out of the mean, unless all are such.
        calibrate_examples: how many examples T was fitted on.
        control, estimates: metric of `ANSWERED` -> its value on *test*, at ε = 0 and at the recommended ε.
        differences: metric -> paired difference of the candidate to ε = 0, also where it was not adopted; that of what is claimed with its repeated
            interval. Empty where the candidate is 0, or diverged.
        tied: lowest and highest ε which the screening cannot tell apart by the policy's own criteria.
        claimed: the metric in which the candidate had to be better.
        verdict: on the candidate in that metric, against ε = 0. None where the candidate is 0, or diverged.
        settles: what it would take where the verdict is "not known".
        effect: the smallest change of accuracy (or BLEU) of interest, a share.
        incumbent: the ε which was published before for the same training, and was confirmed beside the candidate; None where there was none.
        training: digest of task, data and recipe: what is published for the same training can be compared. "" where it is not known.
    """

    task: str
    epsilon: float
    epsilon_wrong_classes: float
    smoothing: str
    point: Point
    policy: str
    reason: str
    accuracy: Interval
    ece: Interval
    ece_calibrated: Interval
    aurc: Interval
    delta_accuracy: Interval
    candidate: float
    conditions: tuple[Condition, ...]
    seeds: int
    examples: int
    coverage: float
    openings: int
    study: str
    run_id: str | None
    created: str
    temperature: float | None = None
    at_bound: int = 0
    calibrate_examples: int | None = None
    control: Mapping[str, Interval] = field(default_factory=dict)
    estimates: Mapping[str, Interval] = field(default_factory=dict)
    differences: Mapping[str, Interval] = field(default_factory=dict)
    tied: tuple[float, float] | None = None
    claimed: str = "accuracy"
    verdict: Verdict | None = None
    settles: str = ""
    effect: float | None = None
    incumbent: float | None = None
    training: str = ""

    def to_json(self) -> str:
        """The record as one line of JSON; an infinite number of degrees of freedom is written as null."""
        return json.dumps(without_infinity(asdict(self)), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record which `to_json` wrote, or that of an older or a younger version: what is not known there has its default, and is left out here."""
        values: dict[str, Any] = json.loads(text)
        known = {one.name for one in fields(cls)}
        values = {name: value for name, value in values.items() if name in known}
        for name in ("accuracy", "ece", "ece_calibrated", "aurc", "delta_accuracy"):
            values[name] = interval_of(values[name])
        for name in ("control", "estimates", "differences"):
            values[name] = {metric: interval_of(entry) for metric, entry in values.get(name, {}).items()}
        values["tied"] = tuple(values["tied"]) if values.get("tied") else None
        values["conditions"] = tuple(Condition(**condition) for condition in values["conditions"])
        return cls(**values)


def without_infinity(value: Any) -> Any:
    """Plain values with None for numbers which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_infinity(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_infinity(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def interval_of(values: Mapping[str, Any]) -> Interval:
    """An Interval from plain values; null is an infinite end, or infinitely many degrees of freedom."""
    infinite = {"low": -math.inf, "high": math.inf, "freedom": math.inf}
    return Interval(**{**values, **{name: end for name, end in infinite.items() if values.get(name) is None}})


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
    return (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else 0.0
