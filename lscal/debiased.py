"""Debiased ECE: the calibration error behind an observed ECE, with its interval, by inverting a test.

Finite bins deviate by chance, so an ECE is too large, and the more so the better the model. Asked instead is which gaps would make the
observed ECE unsurprising. Gaps are moved together along one path, each by t standard errors and none by more than t times itself:

    m_b(t) = max(0, g_b + t·min(s_b, g_b))        g_b = |Σconfidence - Σcorrect|_b / N, s_b its standard error

Were m_b the true gaps, the ECE to expect is E(t) = Σ_b E|m_b + s_b Z|, with variance V(t). The value is Σ_b m_b where E(t) is the ECE
observed; the limits are Σ_b m_b where E(t) ± z·√V(t) is. Coverage is in docs/statistics.md; moving resamples of a corrected ECE covers
44 to 92 % instead of 95, since |·| is not smooth at 0.
"""

import math
from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

from lscal.binning import BinnedStatistics

HALVINGS = 50
RANGE = -200.0, 20.0

Bins = Float[Tensor, "*member bin"]
PerMember = Float[Tensor, "*member"]


def debiased_error(bins: BinnedStatistics, level: float = 0.0) -> tuple[PerMember, PerMember]:
    """The limits of the calibration error at this confidence level, in [0, 1]; both are the value itself at level 0."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    gaps, errors = standard_errors(bins)
    share = bins.count / bins.count.sum(-1, keepdim=True)
    # the counts of the bins are drawn as well
    counts = (torch.where(share > 0, gaps.square() / share, 0).sum(-1) - gaps.sum(-1).square()).clamp(min=0) / bins.count.sum(-1)
    low, high = (crossing(gaps, errors, counts, sign * z) for sign in (1, -1))
    return low, high


def standard_errors(bins: BinnedStatistics) -> tuple[Bins, Bins]:
    """The gap of each bin as a share of N, and its standard error; the accuracy is shrunk by one example towards the confidence."""
    n = bins.count.sum(-1, keepdim=True)
    confidence = bins.confidence / bins.count.clamp(min=1)
    accuracy = ((bins.correct + confidence) / (bins.count + 1)).clamp(0, 1)
    return bins.gap.abs(), (bins.count * accuracy * (1 - accuracy)).sqrt() / n


def crossing(gaps: Bins, errors: Bins, counts: PerMember, z: float) -> PerMember:
    """Σ_b m_b(t) at the t where E(t) + z·√V(t) is the observed ECE: 0 where even gaps of 0 would show more."""
    observed = gaps.sum(-1)
    low, high = (torch.full_like(observed, bound) for bound in RANGE)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        expected, variance = expectation(moved(gaps, errors, middle), errors)
        above = expected + z * (variance + counts).sqrt() > observed
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return moved(gaps, errors, low).sum(-1).clamp(max=1)


def moved(gaps: Bins, errors: Bins, steps: PerMember) -> Bins:
    """The gaps, moved along the path."""
    return (gaps + steps.unsqueeze(-1) * torch.minimum(gaps, errors)).clamp(min=0)


def expectation(gaps: Bins, errors: Bins) -> tuple[PerMember, PerMember]:
    """Mean and variance of the ECE where these are the true gaps: of the sum of folded normal variables."""
    ratio = torch.where(errors > 0, gaps / errors, torch.inf)
    folded = errors * math.sqrt(2 / math.pi) * torch.exp(-0.5 * ratio.square()) + gaps * torch.erf(ratio / math.sqrt(2))
    return folded.sum(-1), (gaps.square() + errors.square() - folded.square()).clamp(min=0).sum(-1)
