"""The ε a checkpoint was trained with, estimated from its logits on the training examples."""

from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from lscal.predictions import check

BASE, PER_MISFIT, PER_ERROR = 0.02, 1.5, 1.64
"""Half width of the interval: a constant, and what it grows by with the misfit and with the standard
error.
"""
ELEMENTS = 1 << 20
"""Logits per chunk: 8 MB in float64."""


@dataclass(frozen=True, eq=False)
class TrainedEpsilon:
    """An estimate of the ε of each member, in the ε/K convention, float64.

    Attributes:
        value: the estimate. Near 0 where the labels were not smoothed; below 0 where they were sharpened.
        low: value - half width, see `estimate_epsilon` for what the interval covers.
        high: value + half width.
        misfit: the part of the gradient that no ε explains, relative to what ε = 1 would; at least 0. Above
            0.03 training was far from rest.
    """

    value: Float[Tensor, "*member"]
    low: Float[Tensor, "*member"]
    high: Float[Tensor, "*member"]
    misfit: Float[Tensor, "*member"]


def estimate_epsilon(
    logits: Float[Tensor, "*member example class"], labels: Integer[Tensor, " example"]
) -> TrainedEpsilon:
    """The uniform ε whose smoothed loss has the smallest gradient at these training logits.

    Where training has come to rest, the gradient of the smoothed loss in the last layer is 0. So is then,
    with the logits z (each row less its mean) and p = softmax(z),

        G(ε) = mean over examples of (p - (1-ε)·onehot(label) - ε/K) zᵀ = A - ε·B,    K × K.

    It is linear in ε, and the estimate is its least-squares root ⟨A, B⟩/⟨B, B⟩; `misfit` is ‖G‖/‖B‖ there.
    The usual way, to take the median confidence for its ideal 1 - ε(K-1)/K, counts every example that is not
    fitted as smoothing. Here hard and wrong examples are part of the balance, so its bias is gone wherever
    training came near to rest.

    Args:
        logits: of the training examples, or of a random part of them, in evaluation mode. Held-out examples
            are not in this balance: there the misfit is large. Masked classes (-inf) have no share of the
            smoothing.
        labels: those the network was trained on, mistakes included.

    The interval, value ± (0.02 + 1.5·misfit + 1.64 standard errors over examples), is no theorem: its
    constants were chosen to cover ε in at least 9 of 10 of the networks below. ε in {0, .02, .05, .1, .2, .3,
    .4} × 3 seeds in 29 settings: perceptrons, linear models, a small convolutional net; digits,
    Fashion-MNIST, TREC, a mixture of Gaussians; K from 2 to 100; 2 to 100 epochs, AdamW or SGD; dropout,
    batch norm, shifted images, weight decay 0 to 0.5, 15 % of the labels redrawn. `further` are 9 more
    settings with ε in {0, .03, .1, .15, .25, .35}, trained after these constants were proposed; narrower
    ones, also tried on them, covered less.

    | networks | number | bias | rmse | covered | mean half width | rmse of the median confidence |
    |---|---|---|---|---|---|---| | 99 % and more of the training examples right | 231 | +.002 | .005 | 100 %
    | .030 | .027 | | 90 to 99 % | 214 | +.023 | .043 | 96 % | .059 | .124 | | below 90 % | 164 | +.014 | .026
    | 99 % | .083 | .300 | | misfit below .03 | 465 | +.007 | .011 | 100 % | .037 | .082 | | misfit above .03
    (stopped early, slow to learn, or shifted images) | 144 | +.029 | .057 | 92 % | .109 | .324 | | further |
    162 | +.012 | .015 | 95 % | .047 | .137 |

    With K = 2 the equations are all the same one, and the misfit is always 0: there an early stop does not
    show (bias +.02). Time: three products of N × K by K × K. Memory: a few matrices of K × K in float64.
    Errors: ValueError for what `lscal.predictions.check` refuses, and where no logit differs from another of
    its row.
    """
    labels = labels.long()
    check(logits, labels)
    members = logits.shape[:-2]
    columns = torch.tensor(
        [of_member(logits[index].detach(), labels) for index in product(*map(range, members))],
        dtype=torch.float64,
    )
    value, misfit, error = columns.to(logits.device).reshape(*members, 3).unbind(-1)
    half = BASE + PER_MISFIT * misfit + PER_ERROR * error
    return TrainedEpsilon(value, value - half, value + half, misfit)


def of_member(
    logits: Float[Tensor, "example class"], labels: Integer[Tensor, " example"]
) -> tuple[float, float, float]:
    """ε, misfit and the standard error over examples, of one model."""
    examples, classes = logits.shape
    size = max(1, ELEMENTS // classes)
    chunks = list(zip(torch.split(logits, size), torch.split(labels, size), strict=True))
    a, b = torch.zeros(2, classes, classes, dtype=torch.float64, device=logits.device)
    for chunk in chunks:
        z, at_zero, at_one = residuals(*chunk)
        a += at_zero.T @ z / examples
        b += at_one.T @ z / examples
    norm = b.square().sum()
    if norm == 0:
        raise ValueError("no logit differs from another of its row; that tells nothing of the ε")
    epsilon = (a * b).sum() / norm
    scatter = torch.zeros_like(norm)
    for chunk in chunks:
        z, at_zero, at_one = residuals(*chunk)
        scatter += ((at_zero - epsilon * at_one) * (z @ b.T)).sum(-1).square().sum()
    return (
        float(epsilon),
        float((a - epsilon * b).norm() / b.norm()),
        float(scatter.sqrt() / (examples * norm)),
    )


def residuals(
    logits: Float[Tensor, "example class"], labels: Integer[Tensor, " example"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Centred logits, p - onehot and u - onehot, over the classes that are not masked; rows whose label is
    masked are 0.
    """
    masked = logits.isneginf()
    z = logits.to(torch.float64)
    z = z - z.amax(-1, keepdim=True)
    uniform = (~masked).to(torch.float64) / (~masked).sum(-1, keepdim=True)
    onehot = torch.zeros_like(z).scatter_(-1, labels.unsqueeze(-1), 1.0)
    counts = ~masked.gather(-1, labels.unsqueeze(-1))
    p = z.softmax(-1)
    z = z.masked_fill(masked, 0.0)
    z = (z - (z * uniform).sum(-1, keepdim=True)).masked_fill(masked, 0.0)
    return z, (p - onehot) * counts, (uniform - onehot) * counts
