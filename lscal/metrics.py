"""Metrics: one value per member.

Each function takes `Predictions` with any leading member dimensions and returns a float64 tensor of that shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lscal import selective
from lscal.binning import BinnedStatistics
from lscal.predictions import Predictions

Function = Callable[[Predictions], Float[Tensor, "*member"]]


@dataclass(frozen=True)
class Metric:
    """A named metric and the direction in which it is better."""

    name: str
    better: Literal["higher", "lower", "nearer 0"]
    function: Function


METRICS: dict[str, Metric] = {}


def metric(better: Literal["higher", "lower", "nearer 0"]) -> Callable[[Function], Function]:
    """Register a metric under the function's name, so that every Report contains it."""

    def register(function: Function) -> Function:
        METRICS[function.__name__] = Metric(function.__name__, better, function)
        return function

    return register


@metric("higher")
def accuracy(predictions: Predictions) -> Float[Tensor, "*member"]:
    """Share of examples whose most probable class is the label. Range [0, 1], higher is better."""
    return predictions.correct.to(torch.float64).mean(-1)


@metric("higher")
def worst_class_accuracy(predictions: Predictions) -> Float[Tensor, "*member"]:
    """The lowest accuracy among the classes which occur in the labels. Range [0, 1], higher is better."""
    onehot = torch.nn.functional.one_hot(predictions.labels.long(), predictions.classes).to(torch.float64)
    present = onehot.sum(0) > 0
    return (predictions.correct.to(torch.float64) @ onehot[:, present] / onehot[:, present].sum(0)).amin(-1)


@metric("lower")
def nll(predictions: Predictions) -> Float[Tensor, "*member"]:
    """Mean -log p(label), unsmoothed, in nats. Range [0, inf), lower is better."""
    return predictions.nll.mean(-1)


@metric("lower")
def brier(predictions: Predictions) -> Float[Tensor, "*member"]:
    """Mean Σ_k (p_k - onehot_k)² (Brier 1950). Range [0, 2], lower is better."""
    return predictions.brier.mean(-1)


@metric("lower")
def ece(predictions: Predictions) -> Float[Tensor, "*member"]:
    """Expected calibration error of the top label, 15 equal-width bins (Guo et al. 2017). Range [0, 1], lower is better."""
    return BinnedStatistics.of(predictions.confidence, predictions.correct).calibration_error()


@metric("nearer 0")
def confidence_gap(predictions: Predictions) -> Float[Tensor, "*member"]:
    """Mean confidence - accuracy. Range [-1, 1]; positive is overconfident, negative underconfident, 0 is best."""
    return predictions.confidence.mean(-1) - accuracy(predictions)


@metric("lower")
def aurc(predictions: Predictions) -> Float[Tensor, "*member"]:
    """Area under the risk-coverage curve, see `lscal.selective.aurc`. Range [0, 1], lower is better."""
    return selective.aurc(predictions.log_confidence, predictions.correct)
