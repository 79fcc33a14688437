"""Calibration: confidence against accuracy, of the top label unless a name has another."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lscal import smooth
from lscal.binning import BinnedStatistics
from lscal.debiased import debiased_error
from lscal.metrics.metric import metric
from lscal.summary import Resampled, Summary

INF = float("inf")


@metric(-1, 1)
def confidence_gap(of: Summary) -> Float[Tensor, "*member"]:
    """Mean confidence - accuracy. Range [-1, 1]; positive is overconfident, negative underconfident, 0 is
    best.
    """
    return of.mean(of.predictions.confidence - of.predictions.correct.to(torch.float64))


@metric(0, 1)
def ece(of: Summary) -> Float[Tensor, "*member"]:
    """Expected calibration error Σ_b |Σconfidence - Σcorrect| / N, 15 equal-width bins (Guo et al. 2017).
    Range [0, 1], lower is better.
    """
    return of.bins.calibration_error()


@metric(0, 1)
def calibrated_ece(of: Summary) -> Float[Tensor, "*member"]:
    """The ECE that a perfectly calibrated model with these bins would show on average: what an ECE is to be
    compared with.

    Σ_b E|X_b - n_b c_b| / N with X_b binomial (n_b, mean confidence c_b): 2 ν C(n, ν) c^ν (1-c)^(n-ν+1), ν =
    floor(nc) + 1 (de Moivre 1730). Range [0, 1]; it falls with N and does not depend on the model's quality.
    """
    return binomial_deviation(of.bins).sum(-1) / of.bins.count.sum(-1)


def debiased_interval(of: Summary, level: float) -> tuple[Float[Tensor, "*member"], Float[Tensor, "*member"]]:
    """The interval of `debiased_ece`."""
    return debiased_error(of.bins, level)


@metric(0, 1, interval=debiased_interval)
def debiased_ece(of: Summary) -> Float[Tensor, "*member"]:
    """The calibration error at which the ECE observed is the one to expect, 15 equal-width bins; see
    `lscal.debiased`.

    0 where a perfectly calibrated model would show as much. Range [0, 1], lower is better. Its interval
    inverts a test; on resamples it is the plain ECE, for its correlations.
    """
    return of.bins.calibration_error() if isinstance(of, Resampled) else debiased_error(of.bins)[0]


@metric(0, 1)
def equal_mass_ece(of: Summary) -> Float[Tensor, "*member"]:
    """As `ece`, in 15 bins of equal mass that never split equal confidences ("adaptive", Nixon et al. 2019).
    Range [0, 1], lower is better.
    """
    return of.equal_mass.calibration_error()


@metric(0, 1)
def classwise_ece(of: Summary) -> Float[Tensor, "*member"]:
    """Mean over the K classes of Σ_b |Σ(p_k - [label = k])| / N, 15 equal-width bins of p_k (Kull et al.
    2019). Range [0, 1], lower is better.

    A class that does not occur in the labels counts: probability given to it is wrong.
    """
    return of.classwise_gaps().mean(-1)


@metric(0, 1)
def mce(of: Summary) -> Float[Tensor, "*member"]:
    """Maximum calibration error: the largest |mean confidence - accuracy| of a filled bin, 15 of equal width
    (Naeini et al. 2015).

    Range [0, 1], lower is better. A bin of one example can decide it: read it beside the counts.
    """
    bins = of.bins
    return torch.where(bins.count > 0, (bins.confidence - bins.correct).abs() / bins.count, 0).amax(-1)


@metric(0, 1)
def rmsce(of: Summary) -> Float[Tensor, "*member"]:
    """√ Σ_b n_b/N (mean confidence - accuracy)², 15 equal-width bins (Nguyen and O'Connor 2015). Range [0,
    1], lower is better.
    """
    bins = of.bins
    return (squares(bins).sum(-1) / bins.count.sum(-1)).sqrt()


@metric(0, 1)
def debiased_rmsce(of: Summary) -> Float[Tensor, "*member"]:
    """√ max(0, Σ_b n_b/N [(mean confidence - accuracy)² - a_b(1-a_b)/(n_b-1)]). Range [0, 1], lower is
    better.

    Bins of one example count 0. Source: Bröcker 2012; Kumar, Liang and Ma 2019.
    """
    bins = of.bins
    variance = bins.correct * (1 - bins.correct / bins.count) / (bins.count - 1)
    terms = torch.where(bins.count > 1, squares(bins) - variance, 0)
    return (terms.sum(-1) / bins.count.sum(-1)).clamp(min=0).sqrt()


@metric(0, 1)
def overconfidence(of: Summary) -> Float[Tensor, "*member"]:
    """The part of the ECE from bins whose confidence is above their accuracy; with `underconfidence` it sums
    to the ECE. Range [0, 1].
    """
    return of.bins.gap.clamp(min=0).sum(-1)


@metric(0, 1)
def underconfidence(of: Summary) -> Float[Tensor, "*member"]:
    """The part of the ECE from bins whose confidence is below their accuracy. Range [0, 1], lower is
    better.
    """
    return (-of.bins.gap).clamp(min=0).sum(-1)


@metric(0, 1)
def smooth_ece(of: Summary) -> Float[Tensor, "*member"]:
    """Smooth ECE: ∫|residual smoothed by σ| at the σ that equals it; no bins. Range [0, 1], lower is better.

    Source: Błasiok and Nakkiran 2023, "Smooth ECE"; grid and normalisation of its reference implementation.
    On resamples the bandwidth stays that of the data, and the value moves along its tangent, see
    `smooth_deviation`.
    """
    value = smooth.error(*of.whole.mesh, of.whole.bandwidth)
    return value + smooth_deviation(of) if isinstance(of, Resampled) else value


@metric(0, 1)
def ks_error(of: Summary) -> Float[Tensor, "*member"]:
    """Kolmogorov-Smirnov calibration error: the largest |Σ(confidence - correct)| / N over the least
    confident, any share of them.

    Looked at between groups of equal confidence only. Range [0, 1], lower is better. Source: Gupta et al.
    2021, equation 7.
    """
    return of.groups.gap.flip(-1).cumsum(-1).abs().amax(-1).clamp(max=1)


@metric(-INF, INF)
def spiegelhalter(of: Summary) -> Float[Tensor, "*member"]:
    """Spiegelhalter's Z: Σ(correct - c)(1 - 2c) / √Σ(1 - 2c)² c(1 - c), standard normal where confidences c
    are calibrated.

    |Z| > 1.96 speaks against calibration at the 5 % level. NaN where every confidence is 1/2 or 1. Source:
    Spiegelhalter 1986.
    """
    c, correct = of.predictions.confidence, of.predictions.correct.to(torch.float64)
    wrong = -torch.expm1(of.predictions.log_confidence)
    slope = 1 - 2 * c
    return of.total((correct - c) * slope) / of.total(slope.square() * c * wrong).sqrt()


def p_value(z: Float[Tensor, "*member"]) -> Float[Tensor, "*member"]:
    """The two-sided p-value of a standard normal Z, in [0, 1]."""
    p: Tensor = torch.special.erfc(z.abs() / math.sqrt(2))
    return p


def squares(bins: BinnedStatistics) -> Float[Tensor, "*member bin"]:
    """n_b (mean confidence - accuracy)² of each bin, 0 where it is empty."""
    return torch.where(bins.count > 0, (bins.confidence - bins.correct).square() / bins.count, 0)


def binomial_deviation(bins: BinnedStatistics) -> Float[Tensor, "*member bin"]:
    """E|X - nc| of each bin, X binomial with its count n and mean confidence c."""
    n = bins.count
    c = (bins.confidence / n.clamp(min=1)).clamp(0, 1)
    v = (n * c).floor() + 1
    choose = torch.lgamma(n + 1) - torch.lgamma(v + 1) - torch.lgamma((n - v).clamp(min=0) + 1)
    log_power = torch.special.xlogy(v, c) + torch.special.xlogy(n - v + 1, 1 - c)
    return torch.where((n > 0) & (v <= n), 2 * v * torch.exp(choose + log_power), 0)


def smooth_deviation(of: Resampled) -> Float[Tensor, "replicate *member"]:
    """How far smooth ECE moves on resamples: the error at the data's σ moves by Δ, its fixed point by Δ / (1
    - slope in σ).

    The error is taken of the rank groups, each at its mean confidence.
    """
    whole, unchanged = of.whole, of.blocks.unchanged
    sigma = whole.bandwidth
    step = 0.05 * sigma
    slope = (smooth.error(*whole.mesh, sigma + step) - smooth.error(*whole.mesh, sigma - step)) / (2 * step)
    centres = unchanged.groups.confidence[0] / unchanged.groups.count[0].clamp(min=1)
    kernel = smooth.kernel(centres, sigma)
    there, here = (smooth.error_of_groups(summary.groups, kernel) for summary in (of, unchanged))
    return (there - here) / (1 - slope.clamp(max=0))
