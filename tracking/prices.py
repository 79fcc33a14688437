"""Prices: what a decision costs, and the share of examples which is best decided without a review."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Prices:
    """What one example costs, in any unit: decided wrongly, reviewed by a person, decided rightly. A negative price is an income."""

    wrong: float = 1.0
    review: float = 0.1
    right: float = 0.0

    def cost(self, risk: float, coverage: float) -> float:
        """The expected cost of an example where the most confident share `coverage` is decided, with error rate `risk`, and the rest reviewed."""
        return coverage * (risk * self.wrong + (1 - risk) * self.right) + (1 - coverage) * self.review

    def best_coverage(self, risks: Sequence[float]) -> float:
        """The coverage of least expected cost, the smallest of equal ones; `risks` are at even steps up to full coverage. In [0, 1]."""
        steps = len(risks)
        costs = [self.review, *(self.cost(risk, step / steps) for step, risk in enumerate(risks, start=1))]
        return costs.index(min(costs)) / steps

    def cost_at(self, risks: Sequence[float], coverage: float) -> float:
        """The expected cost at a coverage; `risks` as in `best_coverage`."""
        place = round(coverage * len(risks))
        return self.review if place == 0 else self.cost(risks[place - 1], place / len(risks))
