"""Accuracy and proper scores."""

from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

from lscal.metrics.metric import metric
from lscal.summary import Summary

INF = float("inf")
TOP = 5


def wilson(right: Tensor, examples: Tensor, z: float) -> tuple[Tensor, Tensor]:
    """The limits of a share (Wilson 1927): they stay inside [0, 1], and mean something at 0 errors too."""
    share = right / examples
    middle = (share + z**2 / (2 * examples)) / (1 + z**2 / examples)
    half = z / (1 + z**2 / examples) * (share * (1 - share) / examples + z**2 / (4 * examples**2)).sqrt()
    return torch.minimum(middle - half, share).clamp(min=0), torch.maximum(middle + half, share).clamp(max=1)


def accuracy_limits(of: Summary, level: float) -> tuple[Float[Tensor, "*member"], Float[Tensor, "*member"]]:
    """Wilson's interval of `accuracy`."""
    return wilson(of.total(of.predictions.correct), of.examples, NormalDist().inv_cdf((1 + level) / 2))


def top_k_limits(of: Summary, level: float) -> tuple[Float[Tensor, "*member"], Float[Tensor, "*member"]]:
    """Wilson's interval of `top_k_accuracy`."""
    return wilson(of.total(of.predictions.rank < TOP), of.examples, NormalDist().inv_cdf((1 + level) / 2))


def worst_class_limits(
    of: Summary, level: float
) -> tuple[Float[Tensor, "*member"], Float[Tensor, "*member"]]:
    """From the least of the classes' lower Wilson limits to the least of their upper ones, the latter for all
    K classes at once.

    The least of K noisy accuracies lies below the truth, by more the smaller the classes are: resampling
    repeats that, and covers 60 %.
    """
    count, correct = of.classes
    low, _ = wilson(correct, count, NormalDist().inv_cdf((1 + level) / 2))
    _, high = wilson(correct, count, NormalDist().inv_cdf(1 - (1 - level) / 2 / count.shape[-1]))
    return torch.where(count > 0, low, INF).amin(-1), torch.where(count > 0, high, INF).amin(-1)


@metric(0, 1, interval=accuracy_limits)
def accuracy(of: Summary) -> Float[Tensor, "*member"]:
    """Share of examples whose most probable class is the label. Range [0, 1], higher is better."""
    return of.mean(of.predictions.correct)


@metric(0, 1, interval=top_k_limits)
def top_k_accuracy(of: Summary) -> Float[Tensor, "*member"]:
    """Share of examples with fewer than 5 classes more probable than the label. Range [0, 1], higher is
    better.

    A label that ties with the fifth class counts. For another k: `(predictions.rank < k).mean()`.
    """
    return of.mean(of.predictions.rank < TOP)


@metric(0, 1, interval=worst_class_limits)
def worst_class_accuracy(of: Summary) -> Float[Tensor, "*member"]:
    """The lowest accuracy among the classes that occur in the labels. Range [0, 1], higher is better."""
    count, correct = of.classes
    return torch.where(count > 0, correct / count, INF).amin(-1)


@metric(0, INF)
def nll(of: Summary) -> Float[Tensor, "*member"]:
    """Mean -log p(label), unsmoothed, in nats. Range [0, inf], lower is better."""
    return of.mean(of.predictions.nll)


@metric(0, INF)
def nll_refinement(of: Summary) -> Float[Tensor, "*member"]:
    """What is left of the NLL after cross-fitted temperature scaling: the loss that one temperature does not
    repair.

    In nats, range [0, inf], lower is better. Source: Berta et al. 2025, "Rethinking Early Stopping: Refine,
    Then Calibrate".
    """
    return of.mean(of.whole.recalibrated.nll)


@metric(-INF, INF)
def nll_calibration(of: Summary) -> Float[Tensor, "*member"]:
    """NLL - its refinement: what cross-fitted temperature scaling repairs. In nats; a little below 0 where
    there is nothing to repair.
    """
    return of.mean(of.predictions.nll - of.whole.recalibrated.nll)


@metric(0, 2)
def brier(of: Summary) -> Float[Tensor, "*member"]:
    """Mean Σ_k (p_k - onehot_k)² (Brier 1950). Range [0, 2], for two classes too; lower is better."""
    return of.mean(of.predictions.brier)


@metric(0, 2)
def brier_refinement(of: Summary) -> Float[Tensor, "*member"]:
    """What is left of the Brier score after the temperature of `nll_refinement`. Range [0, 2], lower is
    better.
    """
    return of.mean(of.whole.recalibrated.brier)


@metric(-2, 2)
def brier_calibration(of: Summary) -> Float[Tensor, "*member"]:
    """Brier score - its refinement. Range [-2, 2]; a little below 0 where there is nothing to repair."""
    return of.mean(of.predictions.brier - of.whole.recalibrated.brier)


@metric(0, 1)
def spherical(of: Summary) -> Float[Tensor, "*member"]:
    """Mean p(label) / √Σ_k p_k² (Roby 1965), a proper score. Range [0, 1], higher is better."""
    return of.mean(of.predictions.spherical)
