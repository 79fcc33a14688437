"""Metrics towards label distributions q, such as the shares of several annotators (Peterson et al. 2019)."""

from jaxtyping import Float
from torch import Tensor

from lscal.binning import BINS, equal_width
from lscal.metrics.metric import metric
from lscal.summary import Summary

INF = float("inf")


@metric(0, 1, of_distributions=True)
def agreement(of: Summary) -> Float[Tensor, "*member"]:
    """Mean q(predicted class): the chance that a random annotator agrees. Range [0, 1], higher is better."""
    return of.mean(of.whole.agreements)


@metric(0, INF, of_distributions=True)
def soft_nll(of: Summary) -> Float[Tensor, "*member"]:
    """Mean -Σ_k q_k log p_k, in nats. Range [mean entropy of q, inf], lower is better."""
    return of.mean(of.whole.distances[0])


@metric(0, INF, of_distributions=True)
def kl(of: Summary) -> Float[Tensor, "*member"]:
    """Mean KL(q || p) = Σ_k q_k log(q_k / p_k), in nats. Range [0, inf], lower is better."""
    return of.mean(of.whole.distances[1])


@metric(0, 0.6931471805599453, of_distributions=True)
def jensen_shannon(of: Summary) -> Float[Tensor, "*member"]:
    """Mean Jensen-Shannon divergence ½KL(q || m) + ½KL(p || m) with m = (p+q)/2, in nats (Lin 1991). Range
    [0, log 2], lower is better.
    """
    return of.mean(of.whole.distances[2])


@metric(0, 1, of_distributions=True)
def total_variation(of: Summary) -> Float[Tensor, "*member"]:
    """Mean ½Σ_k |p_k - q_k| (the DistCE of Baan et al. 2022). Range [0, 1], lower is better."""
    return of.mean(of.whole.distances[3])


@metric(0, 1, of_distributions=True)
def human_ece(of: Summary) -> Float[Tensor, "*member"]:
    """Calibration error towards q: Σ_b |Σconfidence - Σq(predicted)| / N over 15 equal-width bins. Range [0,
    1], lower is better.
    """
    own = of.predictions
    return of.binned(
        equal_width(own.confidence, BINS), BINS, own.confidence, of.whole.agreements
    ).calibration_error()
