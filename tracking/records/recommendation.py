"""Recommendations: the ε of each policy, with its conditions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from tracking.records.comparison import Chance, Verdict
from tracking.records.outcome import Interval
from tracking.records.point import Point, drop_of
from tracking.records.schema import Count, Epsilon, High, Low, Number, Positive, Share, read, write

ANSWERED = (
    "accuracy",
    "bleu",
    "ece",
    "ece_calibrated",
    "nll",
    "nll_calibrated",
    "aurc",
    "aurc_calibrated",
    "accuracy_recalibrated",
    "ece_recalibrated",
    "nll_recalibrated",
    "aurc_recalibrated",
    "confidence_gap",
    "confidence_gap_calibrated",
    "cost",
)
"""Metrics that a recommendation carries, raw, after temperature and after its recalibrator, where they were
measured.
"""


Preferred = Literal["constant", "dropped"]


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
    value: Number
    low: Low
    high: High
    bound: Number
    threshold: Number
    met: bool
    sentence: str
    remedy: str = ""


@dataclass(frozen=True)
class Recommendation:
    """The constant ε to train a task with, and why; and beside it, where that was tried, the ε that falls to
    0 while training goes on.

    Attributes:
        epsilon: in the ε/K convention; `epsilon_wrong_classes` is the same in the other one, ε(K-1)/K.
        point: every tuned value to train with, ε included.
        accuracy, ece, ece_calibrated, aurc: on *test*, at the recommended ε.
        delta_accuracy: paired difference to ε = 0, on *test*.
        candidate: the ε that was put to the conditions; `conditions` are empty where it is 0.
        seeds, examples: how many fresh seeds and test examples the numbers rest on.
        coverage: share of examples to decide without a review, at the plan's prices.
        openings: how often the test split has been opened for this plan.
        study: the Optuna study. run_id: the MLflow run that carries the evidence.
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
        tied: lowest and highest ε that the screening cannot tell apart by the policy's own criteria.
        claimed: the metric in which the candidate had to be better.
        verdict: on the candidate in that metric, against ε = 0. None where the candidate is 0, or diverged.
        settles: what it would take where the verdict is "not known".
        effect: the smallest change of accuracy (or BLEU) of interest, a share.
        incumbent: the ε that was published before for the same training, and was confirmed beside the
            candidate; None where there was none.
        training: digest of task, data and recipe: what is published for the same training can be compared. ""
            where it is not known.
        dropped: the same for the policy's candidate whose ε falls to 0; its `point` has the `drop`. None
            where none was tried.
        preferred: which of both the policy recommends.
        candidate_drop: the share after which the candidate's ε falls to 0; 1 where it does not.
        recalibrator: the calibrator that repairs the recommended ε best, by its name in lscal; what the
            policy is judged by where it is `safe`. T is beside it in any case.
        chance: how likely the candidate is better than ε = 0 in what is claimed, and the expected loss of
            choosing it; None where the candidate is 0, or diverged.
        invalid: why nothing of the sweep can be trusted, "" where it can.
        apart: the paired difference on *test* of the dropped one less the constant one, in what is claimed;
            None unless both are adopted.
    """

    task: str
    epsilon: Epsilon
    epsilon_wrong_classes: Epsilon
    smoothing: str
    point: Point
    policy: str
    reason: str
    accuracy: Interval
    ece: Interval
    ece_calibrated: Interval
    aurc: Interval
    delta_accuracy: Interval
    candidate: Epsilon
    conditions: tuple[Condition, ...]
    seeds: Count
    examples: Count
    coverage: Share
    openings: Count
    study: str
    run_id: str | None
    created: str
    temperature: Positive | None = None
    at_bound: Count = 0
    calibrate_examples: Count | None = None
    control: Mapping[str, Interval] = field(default_factory=dict)
    estimates: Mapping[str, Interval] = field(default_factory=dict)
    differences: Mapping[str, Interval] = field(default_factory=dict)
    tied: tuple[Epsilon, Epsilon] | None = None
    claimed: str = "accuracy"
    verdict: Verdict | None = None
    settles: str = ""
    effect: float | None = None
    incumbent: Epsilon | None = None
    training: str = ""
    dropped: "Recommendation | None" = None
    preferred: Preferred = "constant"
    candidate_drop: Share = 1.0
    recalibrator: str = "temperature"
    chance: Chance | None = None
    invalid: str = ""
    apart: Interval | None = None

    @property
    def best(self) -> "Recommendation":
        """What the policy recommends, constant or dropped."""
        return self.dropped if self.dropped is not None and self.preferred == "dropped" else self

    @property
    def drop(self) -> float:
        """The share of the training after which ε is 0; 1 where it is constant."""
        return drop_of(self.point)

    def to_json(self) -> str:
        """The record as one line of JSON; an infinite number of degrees of freedom is written as null."""
        return write(self)

    @classmethod
    def from_json(cls, text: str, where: str = "the recommendation") -> Self:
        """The record that `to_json` wrote, or that of an older or a younger version: what is not known there
        has its default, and is left out here. Errors: WrongRecord.
        """
        return read(cls, text, where)
