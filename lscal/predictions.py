"""Predictions: the input boundary. Logits and labels are checked here once; everything after trusts them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Predictions:
    """What every metric needs to know of each example, in float64, for any leading member dimensions.

    Attributes:
        confidence: largest softmax probability, in [1/K, 1].
        log_confidence: its logarithm, in [-log K, 0]. Tells saturated confidences apart where `confidence` is 1.0.
        correct: whether the most probable class is the label.
        nll: -log p(label), in nats, at least 0.
        brier: Σ_k (p_k - onehot_k)², in [0, 2].
        labels: class indices in [0, classes).
        classes: K, at least 2.
    """

    confidence: Float[Tensor, "*member example"]
    log_confidence: Float[Tensor, "*member example"]
    correct: Bool[Tensor, "*member example"]
    nll: Float[Tensor, "*member example"]
    brier: Float[Tensor, "*member example"]
    labels: Int[Tensor, " example"]
    classes: int

    @classmethod
    def from_logits(cls, logits: Float[Tensor, "*member example class"], labels: Int[Tensor, " example"]) -> "Predictions":
        """Score logits (any float type, computed in float64) against integer labels.

        Errors: ValueError for shapes that do not fit, no examples, fewer than two classes, NaN or +inf logits, a row
        of only -inf, and labels outside [0, K). -inf (a masked class) is a probability of 0.
        """
        check(logits, labels)
        labels = labels.long()
        logits = logits.to(torch.float64)
        log_probabilities = logits.log_softmax(-1)
        top, predicted = logits.max(-1, keepdim=True)
        # 1 + Σ others: log_softmax rounds the sum to 1 where a confidence is nearly 1, log1p does not
        others = (logits - top).exp().scatter(-1, predicted, 0.0).sum(-1)
        predicted = predicted.squeeze(-1)
        log_confidence = -others.log1p()
        at_label = log_probabilities.gather(-1, labels.expand(logits.shape[:-1]).unsqueeze(-1)).squeeze(-1)
        probabilities = log_probabilities.exp()
        return cls(
            confidence=log_confidence.exp(),
            log_confidence=log_confidence,
            correct=predicted == labels,
            nll=-at_label,
            brier=probabilities.square().sum(-1) - 2 * at_label.exp() + 1,
            labels=labels,
            classes=logits.shape[-1],
        )


def check(logits: Float[Tensor, "*member example class"], labels: Int[Tensor, " example"]) -> None:
    """Raise ValueError, naming the offending value and its place, unless the logits and labels can be scored."""
    if logits.ndim < 2 or labels.ndim != 1 or logits.shape[-2] != labels.shape[0]:
        raise ValueError(f"logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}; wanted (..., N, K) and (N,)")
    examples, classes = logits.shape[-2:]
    if examples == 0 or classes < 2:
        raise ValueError(f"there are {examples} examples of {classes} classes; wanted at least 1 example and 2 classes")
    bad = torch.isnan(logits) | torch.isposinf(logits)
    if bad.any():
        where = tuple(bad.nonzero()[0].tolist())
        raise ValueError(f"the logit at {where} is {logits[where].item()}; allowed are finite numbers and -inf")
    if torch.isneginf(logits.amax(-1)).any():
        raise ValueError("every logit of a row is -inf; at least one class must be possible")
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        place = int(outside.nonzero()[0, 0])
        raise ValueError(f"the label at {place} is {int(labels[place])}; allowed is 0 to {classes - 1}, the number of logits less one")
