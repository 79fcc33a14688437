"""Selective classification: the error rate among the most confident, and measures of a ranking.

Ties are never broken by position: inside a group of equal confidences the errors are spread evenly, which is
the expectation over all orders. Any increasing transformation of the confidence gives the same numbers. The
functions of `BinnedStatistics` take groups of equal confidence, the most confident first, as `Summary.groups`
holds them.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lscal.binning import BinnedStatistics
from lscal.predictions import Predictions


def groups_of(
    confidence: Float[Tensor, "*member example"], correct: Bool[Tensor, "*member example"]
) -> BinnedStatistics:
    """Groups of equal confidence, the most confident first; only the counts are of use."""
    index = tie_groups(confidence)
    ones = torch.ones_like(index, dtype=torch.float64)
    zeros = torch.zeros_like(ones)
    count, right = zeros.scatter_add(-1, index, ones), zeros.scatter_add(-1, index, correct.to(torch.float64))
    return BinnedStatistics(count, zeros, right)


def risk_coverage(
    confidence: Float[Tensor, "*member example"],
    correct: Bool[Tensor, "*member example"],
) -> Float[Tensor, "*member example"]:
    """The selective risk at coverage 1/N, 2/N, …, 1: the error rate among that many most confident examples.
    Range [0, 1].

    Source: Geifman and El-Yaniv 2017, section 3.
    """
    groups = groups_of(confidence, correct)
    rate = torch.where(groups.count > 0, 1 - groups.correct / groups.count, 0)
    spread = rate.gather(-1, tie_groups(confidence).sort(-1).values)
    return spread.cumsum(-1) / torch.arange(
        1, confidence.shape[-1] + 1, dtype=torch.float64, device=confidence.device
    )


def aurc(
    confidence: Float[Tensor, "*member example"],
    correct: Bool[Tensor, "*member example"],
) -> Float[Tensor, "*member"]:
    """Area under the risk-coverage curve: the mean selective risk over coverages 1/N … 1.

    Range [0, 1], lower is better; a random ranking gives the error rate. Source: Geifman, Uziel and El-Yaniv
    2019.
    """
    return area(groups_of(confidence, correct))


def area(groups: BinnedStatistics) -> Float[Tensor, "*member"]:
    """AURC of groups, in closed form.

    A group of n with errors at rate r, after C examples with E errors, adds Σ_j (E + rj) / (C + j), j = 1 …
    n. That is rn + (E - rC)(ψ(C+n+1) - ψ(C+1)), ψ the digamma function.
    """
    n = groups.count
    wrong = n - groups.correct
    before, errors = n.cumsum(-1) - n, wrong.cumsum(-1) - wrong
    rate = torch.where(n > 0, wrong / n, 0)
    steps = torch.digamma(before + n + 1) - torch.digamma(before + 1)
    return (wrong + (errors - rate * before) * steps).sum(-1) / n.sum(-1)


def least_area(groups: BinnedStatistics) -> Float[Tensor, "*member"]:
    """The least AURC of a model with as many errors: all of them ranked last."""
    right = BinnedStatistics(*(torch.stack([p, q], -1) for p, q in two_groups(groups)))
    return area(right)


def two_groups(groups: BinnedStatistics) -> list[tuple[Tensor, Tensor]]:
    """Count, confidence and correct of all right examples and, after them, all wrong ones."""
    right = groups.correct.sum(-1)
    wrong = groups.count.sum(-1) - right
    nothing = torch.zeros_like(right)
    return [(right, wrong), (nothing, nothing), (right, nothing)]


def risk_at(groups: BinnedStatistics, coverage: float) -> Float[Tensor, "*member"]:
    """The error rate among the most confident ⌈coverage · N⌉ examples. Range [0, 1]. Errors: ValueError
    unless 0 < coverage <= 1.
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"the coverage is {coverage}; allowed is 0 < coverage <= 1")
    n, wrong = groups.count, groups.count - groups.correct
    taken = (coverage * n.sum(-1, keepdim=True) - 1e-9).ceil().clamp(min=1)
    inside = (taken - (n.cumsum(-1) - n)).clamp(min=0).minimum(n)
    return (torch.where(n > 0, wrong / n, 0) * inside).sum(-1) / taken.squeeze(-1)


def coverage_at(groups: BinnedStatistics, risk: float) -> Float[Tensor, "*member"]:
    """The largest coverage k/N at which the selective risk is at most `risk`; 0 where there is none. Range
    [0, 1].

    Errors: ValueError unless 0 <= risk <= 1.
    """
    if not 0 <= risk <= 1:
        raise ValueError(f"the risk is {risk}; allowed is 0 to 1")
    n, wrong = groups.count, groups.count - groups.correct
    before, errors = n.cumsum(-1) - n, wrong.cumsum(-1) - wrong
    rate = torch.where(n > 0, wrong / n, 0)
    slack = risk * before - errors  # errors that may still come
    over = torch.where(rate > risk, (slack / (rate - risk).clamp(min=1e-300) + 1e-9).floor(), n)
    whole = errors + wrong <= risk * (before + n) + 1e-9
    inside = torch.where(whole, n, torch.where(rate > risk, over.minimum(n), 0))
    reached = torch.where((n > 0) & (inside > 0), before + inside, 0)
    return reached.amax(-1) / n.sum(-1)


def break_even(first: Predictions, second: Predictions) -> Float[Tensor, "*member"]:
    """The break-even coverage of two models: up to it the second has the lower selective risk, or an equal
    one, and from it on the first.

    Asked of ε (`first`) and ε = 0 (`second`), it is the coverage above which label smoothing pays. It is the
    smallest k/N from which on the first model's risk is nowhere higher: 0 where the first is never worse, 1
    where it is worse even at full coverage (NaN where they do not differ). Range [0, 1].
    """
    curves = [risk_coverage(own.ranking, own.correct) for own in (first, second)]
    worse = curves[0] > curves[1] + 1e-12
    examples = worse.shape[-1]
    places = torch.arange(1, examples + 1, dtype=torch.float64, device=worse.device)
    last = torch.where(worse, places, 0).amax(-1) / examples
    same = ((curves[0] - curves[1]).abs() <= 1e-12).all(-1)
    return torch.where(same, torch.nan, last)


def tie_groups(confidence: Float[Tensor, "*member example"]) -> Int[Tensor, "*member example"]:
    """The group of each example: 0 for the highest confidence, equal confidences in one group."""
    ordered, order = confidence.sort(-1, descending=True)
    opens = torch.zeros_like(order)
    opens[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    return torch.empty_like(order).scatter_(-1, order, opens.cumsum(-1))
