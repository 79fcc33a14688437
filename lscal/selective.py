"""Selective classification: how well confidence ranks the right predictions above the wrong ones."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def risk_coverage(
    confidence: Float[Tensor, "*member example"],
    correct: Bool[Tensor, "*member example"],
) -> Float[Tensor, "*member example"]:
    """The selective risk at coverage 1/N, 2/N, …, 1: the error rate among that many most confident examples.

    Ties are never broken by position: inside a group of equal confidences the errors are spread evenly, which is the
    expectation over all orders. Any increasing transformation of the confidence gives the same curve. Range [0, 1].
    Source: Geifman and El-Yaniv 2017, section 3.
    """
    ordered, order = confidence.sort(-1, descending=True)
    errors = (~correct).to(torch.float64).gather(-1, order)
    opens = torch.ones_like(correct)
    opens[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    group = opens.cumsum(-1) - 1
    size = torch.zeros_like(errors).scatter_add_(-1, group, torch.ones_like(errors))
    wrong = torch.zeros_like(errors).scatter_add_(-1, group, errors)
    spread = (wrong / size.clamp(min=1)).gather(-1, group)
    coverage = torch.arange(1, errors.shape[-1] + 1, dtype=torch.float64, device=errors.device)
    return spread.cumsum(-1) / coverage


def aurc(
    confidence: Float[Tensor, "*member example"],
    correct: Bool[Tensor, "*member example"],
) -> Float[Tensor, "*member"]:
    """Area under the risk-coverage curve: the mean selective risk over coverages 1/N … 1, tie-aware.

    Range [0, 1], lower is better; a random ranking gives the error rate. Source: Geifman, Uziel and El-Yaniv 2019.
    """
    return risk_coverage(confidence, correct).mean(-1)
