"""Prices: what a decision costs, and the share of examples that is best decided without a review."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tracking.records.outcome import Outcome

LEVEL = 0.95
"""With this probability the error rate of what is decided is not above the limit that n examples promise."""


@dataclass(frozen=True)
class Prices:
    """What one example costs, in any unit: decided wrongly, reviewed by a person, decided rightly. A negative
    price is an income.
    """

    wrong: float = 1.0
    review: float = 0.1
    right: float = 0.0

    def decided(self, risk: float) -> float:
        """The expected cost of an example that is decided, with this error rate."""
        return risk * self.wrong + (1 - risk) * self.right

    def cost(self, risk: float, coverage: float) -> float:
        """The expected cost of an example where the most confident share `coverage` is decided, with error
        rate `risk`, and the rest reviewed.
        """
        return coverage * self.decided(risk) + (1 - coverage) * self.review

    def best_coverage(self, risks: Sequence[float], examples: int = 0) -> float:
        """The coverage of least expected cost, the smallest of equal ones; `risks` are at even steps up to
        full coverage. In [0, 1].

        Where the risks are those of so many `examples`, only among the coverages at which they promise that
        deciding costs less than a review: 100 examples without an error may come from an error rate of 3 %. 0
        where nothing is promised, which reviews everything.
        """
        steps = len(risks)
        costs = [self.review, *(self.cost(risk, step / steps) for step, risk in enumerate(risks, start=1))]
        limits = promised(risks, examples) if examples else risks
        kept = [
            0,
            *(
                step
                for step, limit in enumerate(limits, start=1)
                if not examples or self.decided(limit) < self.review
            ),
        ]
        return min(kept, key=costs.__getitem__) / steps

    def coverage_of(self, outcome: Outcome) -> float:
        """The best coverage of a trial after temperature, chosen on *calibrate* by the mean over seeds, which
        share their examples.
        """
        rows = outcome.risks["calibrate_calibrated"]
        return self.best_coverage(
            [sum(column) / len(rows) for column in zip(*rows, strict=True)], outcome.calibrate_examples
        )

    def cost_at(self, risks: Sequence[float], coverage: float) -> float:
        """The expected cost at a coverage; `risks` as in `best_coverage`."""
        place = round(coverage * len(risks))
        return self.review if place == 0 else self.cost(risks[place - 1], place / len(risks))

    @property
    def break_even(self) -> float:
        """The error rate below which deciding costs less than a review; at most 0 where it never does, above
        1 where it always does.
        """
        return (self.review - self.right) / (self.wrong - self.right)

    def why_reviewed(self, coverage: float, examples: int) -> str:
        """Why everything is reviewed, in words, where so many examples of *calibrate* promise nothing else;
        "" where something is decided.
        """
        if coverage > 0 or not examples or self.break_even <= 0:
            return ""
        least = promised([0.0], examples)[0]
        if least < self.break_even:
            return (
                f"No share of the {examples} examples of calibrate promises an error rate below"
                f" {percent(self.break_even)}, at which deciding costs less than a review, so everything is"
                " reviewed at these prices."
            )
        wanted = math.ceil(math.log(1 - LEVEL) / math.log1p(-self.break_even))
        return (
            f"The {examples} examples of calibrate cannot promise an error rate below {percent(least)}, and"
            f" deciding costs less than a review below {percent(self.break_even)}, so everything is reviewed"
            f" at these prices; it takes at least {wanted} examples."
        )


def promised(risks: Sequence[float], examples: int) -> tuple[float, ...]:
    """The highest error rate at each coverage that goes with the risk of so many independent examples: its
    one-sided upper 95 % limit.

    Clopper and Pearson (1934); `risks` are at even steps up to full coverage. A mean over seeds has a
    fraction of an error. In [0, 1].
    """
    from scipy.special import betaincinv  # a fifth of a second to import

    steps = len(risks)
    decided = [max(1, math.ceil(examples * step / steps - 1e-9)) for step in range(1, steps + 1)]
    return tuple(
        float(betaincinv(risk * count + 1, count * (1 - risk), LEVEL)) if risk < 1 else 1.0
        for risk, count in zip(risks, decided, strict=True)
    )


def percent(share: float) -> str:
    """A share in per cent, to two digits."""
    return f"{100 * share:.2g} %"
