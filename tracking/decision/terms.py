"""Terms: what a plan says about deciding."""

from dataclasses import dataclass

from tracking.decision.prices import Prices


@dataclass(frozen=True)
class Tolerances:
    """How much worse than at ε = 0 confidence may become. Shares: 0.01 is 1 % or 1 percentage point.

    `confidence_gap` is how far the mean confidence may lie from the accuracy, for policy `raw`.
    """

    aurc_relative: float = 0.05
    nll_relative: float = 0.01
    worst_class_accuracy: float = 0.01
    confidence_gap: float = 0.01


@dataclass(frozen=True)
class Terms:
    """What a plan says about deciding: its own policy, tolerances, prices, and the smallest gain in accuracy
    of interest (a share).
    """

    policy: str = "safe"
    tolerances: Tolerances = Tolerances()
    prices: Prices = Prices()
    effect: float = 0.003
