"""Recommendations: the ε of each policy, with its conditions."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from tracking.records.comparison import Verdict
from tracking.records.outcome import Interval
from tracking.records.point import Point

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
class Condition:
    """One condition of a policy.

    Attributes:
        value, low, high: what was found, with its 95 % interval.
        bound: the end of the interval, or the value, that was compared with the threshold.
        threshold: in the same unit.
        met: the verdict.
        sentence: all of it in words.
        remedy: what would change the verdict, such as "12 more seeds would settle it"; "" where nothing needs
            to.
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
        temperature: T, by which logits are divided: the mean over the fresh seeds at the recommended ε, in
            0.01 to 1000. None where it is not known: the fields from here on are younger than the others, and
            records of older versions lack them.
        at_bound: how many seeds have no best T within that range; they are left out of the mean, unless all
            are such.
        calibrate_examples: how many examples T was fitted on.
        control, estimates: metric of `ANSWERED` -> its value on *test*, at ε = 0 and at the recommended ε.
        differences: metric -> paired difference of the candidate to ε = 0, also where it was not adopted;
            that of what is claimed with its repeated interval. Empty where the candidate is 0, or diverged.
        tied: lowest and highest ε which the screening cannot tell apart by the policy's own criteria.
        claimed: the metric in which the candidate had to be better.
        verdict: on the candidate in that metric, against ε = 0. None where the candidate is 0, or diverged.
        settles: what it would take where the verdict is "not known".
        effect: the smallest change of accuracy (or BLEU) of interest, a share.
        incumbent: the ε which was published before for the same training, and was confirmed beside the
            candidate; None where there was none.
        training: digest of task, data and recipe: what is published for the same training can be compared. ""
            where it is not known.
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
        """The record which `to_json` wrote, or that of an older or a younger version: what is not known there
        has its default, and is left out here.
        """
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
