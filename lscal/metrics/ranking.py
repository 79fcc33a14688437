"""Ranking: how well confidence puts the right predictions above the wrong ones (selective classification)."""

import torch
from jaxtyping import Float
from torch import Tensor

from lscal import selective
from lscal.metrics.metric import metric
from lscal.summary import Summary

INF = float("inf")
TARGET_RISK = 0.01
TARGET_COVERAGE = 0.8


@metric(0, 1)
def aurc(of: Summary) -> Float[Tensor, "*member"]:
    """Area under the risk-coverage curve: the mean error rate of the k most confident, k = 1 … N; tie-aware,
    see `lscal.selective`.

    Range [0, 1], lower is better; a random ranking gives the error rate. Source: Geifman, Uziel and El-Yaniv
    2019.
    """
    return selective.area(of.groups)


@metric(0, 1)
def e_aurc(of: Summary) -> Float[Tensor, "*member"]:
    """AURC less the least AURC at the same error rate: the ranking alone. Range [0, 1], lower is better.

    The least is exact for N examples, not its limit for many. Source: Geifman, Uziel and El-Yaniv 2019.
    """
    return (selective.area(of.groups) - selective.least_area(of.groups)).clamp(min=0)


@metric(0, 0.5)
def augrc(of: Summary) -> Float[Tensor, "*member"]:
    """Area under the generalised risk-coverage curve, errors so far / N: the mean risk of a silent failure.

    Equals (1 - AUROC) a(1-a) + (1-a)²/2 with a the accuracy. Range [0, 1/2], lower is better. Source: Traub
    et al. 2024.
    """
    groups = of.groups
    wrong = groups.count - groups.correct
    return (groups.count * (wrong.cumsum(-1) - wrong / 2)).sum(-1) / groups.count.sum(-1).square()


@metric(0, 1)
def misclassification_auroc(of: Summary) -> Float[Tensor, "*member"]:
    """P(a right prediction is more confident than a wrong one), ties one half. Range [0, 1], higher is
    better; 0.5 is no ranking.

    NaN where all predictions are right or all are wrong. Source: Hendrycks and Gimpel 2017.
    """
    groups = of.groups
    wrong = groups.count - groups.correct
    later = wrong.sum(-1, keepdim=True) - wrong.cumsum(-1)
    return (groups.correct * (later + wrong / 2)).sum(-1) / (groups.correct.sum(-1) * wrong.sum(-1))


@metric(0, 1)
def risk_at_coverage(of: Summary) -> Float[Tensor, "*member"]:
    """The error rate among the most confident 80 %. Range [0, 1], lower is better. Other coverages:
    `lscal.selective.risk_at`.
    """
    return selective.risk_at(of.groups, TARGET_COVERAGE)


@metric(0, 1)
def coverage_at_risk(of: Summary) -> Float[Tensor, "*member"]:
    """The largest share of examples, most confident first, with an error rate of at most 1 %. Range [0, 1],
    higher is better.

    Other risks: `lscal.selective.coverage_at`.
    """
    return selective.coverage_at(of.groups, TARGET_RISK)


@metric(0, INF)
def fidelity(of: Summary) -> Float[Tensor, "*member"]:
    """Var(g) / (a(1-a)): the share of the variance of right-or-wrong that confidence explains.

    g is the accuracy to expect at a confidence, by isotonic regression fitted on other folds; a the accuracy.
    Range [0, 1] but for noise, higher is better. It does not change when the confidence is recalibrated by an
    increasing map. NaN where all are right or all wrong.
    """
    expected = of.whole.accuracy_at
    a = of.mean(of.predictions.correct)
    explained = of.mean(expected.square()) - of.mean(expected).square()
    return torch.where((a > 0) & (a < 1), explained / (a * (1 - a)), torch.nan)
