"""Terms: what a plan says about deciding."""

from dataclasses import dataclass

from tracking.decision.prices import Prices


@dataclass(frozen=True)
class Tolerances:
    """How much worse than at ε = 0 confidence may become. Shares: 0.01 is 1 % or 1 percentage point.

    `confidence_gap` is how far the mean confidence may lie from the accuracy, for policy `raw`; where it lies
    further at ε = 0, half of that further than there.
    """

    aurc_relative: float = 0.05
    nll_relative: float = 0.01
    worst_class_accuracy: float = 0.01
    confidence_gap: float = 0.01

    def gap(self, control: float) -> float:
        """How far, either way, the mean confidence may lie from the accuracy, given its distance at ε = 0."""
        most = self.confidence_gap
        return most if abs(control) <= most else abs(control) + most / 2


@dataclass(frozen=True)
class Terms:
    """What a plan says about deciding: its own policy, tolerances, prices, and the smallest gain in accuracy
    of interest (a share).
    """

    policy: str = "safe"
    tolerances: Tolerances = Tolerances()
    prices: Prices = Prices()
    effect: float = 0.003
