"""Claims and comparisons with ε = 0 on the test split."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from tracking.records.outcome import Interval, Outcome
from tracking.records.schema import Count, High, Low, Number, Share

Verdict = Literal["better", "worse", "practically the same", "not known"]
"""What a paired difference to ε = 0 says; `tracking.decision.verdict` gives it."""


ABOUT_DIFFERENCE = ("bleu", "accuracy", "nll_calibrated", "nll", "cost")
"""Metrics whose claim is about the difference itself; that of others is about the difference as a share of
the value at ε = 0.
"""


@dataclass(frozen=True)
class Claim:
    """That a metric is better than at ε = 0, tested at one or more looks as seeds were added
    (`tracking.decision.sequential`).

    Attributes:
        p: repeated one-sided p-value: valid at whatever look the seeds stopped; at most 0.025 just where the
            interval excludes 0.
        low, high: repeated 95 % interval of the difference at the last look, valid in the same sense.
        seeds: how many seeds there were at each look.
        values: the paired difference at each look.
    """

    p: Share
    low: Low
    high: High
    seeds: tuple[Count, ...]
    values: tuple[Number, ...]


@dataclass(frozen=True)
class Chance:
    """How likely a metric is better than at ε = 0, as A/B tests report it; not corrected for looks or for
    several claims.

    Attributes:
        better: share of a crossed bootstrap, over seeds and examples, in which the metric is better.
        loss: by how much it is worse on average over that bootstrap, counting 0 where it is better; in the
            metric's unit.
    """

    better: Share
    loss: Number


@dataclass(frozen=True)
class Comparison:
    """A confirmed ε on *test*, with fresh seeds: its metrics, and their paired differences to ε = 0.

    Attributes:
        outcome: the confirmation trial; its seeds are those of all looks.
        estimates: metric (`accuracy`, `ece`, `ece_calibrated`, …, `cost`) -> interval.
        differences: metric -> paired difference to ε = 0; all zero for ε = 0 itself.
        relative: metric -> that difference as a share of the value at ε = 0.
        claims: metric (`accuracy`, `nll_calibrated`, `nll`, `cost`) -> the claim that it is better than at ε
            = 0; none for ε = 0 itself.
        chances: metric -> the chance that it is better than at ε = 0, for those that are claimed.
        recalibrator: the calibrator after which metrics are `…_recalibrated`, by its name in lscal: the best
            for this ε on *calibrate*. Metrics `…_calibrated` are after temperature.
        coverage: the share of examples to decide without a review at which the expected cost is least, chosen
            on *calibrate*.
    """

    outcome: Outcome
    estimates: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    relative: Mapping[str, Interval]
    claims: Mapping[str, Claim] = field(default_factory=dict)
    coverage: Share = 1.0
    recalibrator: str = "temperature"
    chances: Mapping[str, Chance] = field(default_factory=dict)

    @property
    def epsilon(self) -> float:
        """The ε that was confirmed."""
        return self.outcome.epsilon

    def difference(self, metric: str) -> Interval:
        """The paired difference to ε = 0; where seeds were added by looks, with the interval that allows for
        that.
        """
        found, claim = self.differences[metric], self.claims.get(metric)
        return (
            replace(found, low=claim.low, high=claim.high) if claim and metric in ABOUT_DIFFERENCE else found
        )
