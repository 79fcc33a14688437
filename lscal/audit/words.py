"""Words: numbers and findings as a person reads them, the same on the page and in the terminal."""

import math
from dataclasses import dataclass

from lscal.estimate import Estimate
from lscal.metrics import METRICS

TOO_LONG = 1e6
"""From here on numbers are written with a power of ten."""
NO_WIDTH = 1e-9
UNDEFINED = "not defined"
TITLES = {
    "top_k_accuracy": "top-5 accuracy",
    "calibrated_ece": "ECE if calibrated",
    "human_ece": "ECE towards annotators",
    "risk_at_coverage": "errors at 80 % coverage",
    "coverage_at_risk": "coverage at 1 % errors",
    "e_aurc": "E-AURC",
    "misclassification_auroc": "AUROC right or wrong",
    "spiegelhalter": "Spiegelhalter's Z",
    "jensen_shannon": "Jensen-Shannon",
    "brier": "Brier score",
    "kl": "KL divergence",
}
"""Where the name of a metric, with spaces and its abbreviations in capitals, is not what a reader knows it
by.
"""

CAPITALS = {"nll", "ece", "mce", "rmsce", "ks", "aurc", "augrc", "auroc", "brier"}


@dataclass(frozen=True)
class Unit:
    """How numbers are written: multiplied by `factor`, followed by `sign`; a difference by
    `of_difference`.
    """

    factor: float = 1.0
    sign: str = ""
    of_difference: str = ""
    least_decimals: int = 3


PERCENT = Unit(100.0, " %", " pp", 1)
POINTS = Unit(100.0, " pp", " pp", 1)
PER_MILLE = Unit(1000.0, " ‰", " ‰", 1)
PLAIN = Unit()
SCORE = Unit(least_decimals=1)
PLAIN_NAMES = {"spherical", "misclassification_auroc", "fidelity"}
PER_MILLE_NAMES = {"aurc", "e_aurc", "augrc"}


def title(name: str) -> str:
    """What a reader calls a metric."""
    words = (
        word.upper() if word in CAPITALS - {"brier"} else word.capitalize() if word == "brier" else word
        for word in name.split("_")
    )
    return TITLES.get(name, " ".join(words))


def unit(name: str) -> Unit:
    """The unit of a metric: areas under risk-coverage curves in per mille, other shares in per cent."""
    metric = METRICS[name]
    if metric.low == -1 and metric.high == 1:
        return POINTS
    if name == "spiegelhalter":
        return SCORE
    if name in PER_MILLE_NAMES:
        return PER_MILLE
    return (
        PERCENT
        if metric.low >= 0 and metric.high <= 1 and metric.high >= 0.9 and name not in PLAIN_NAMES
        else PLAIN
    )


def number(value: float, decimals: int, factor: float = 1.0, signed: bool = False) -> str:
    """A number with a true minus sign, and a plus where `signed`."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, UNDEFINED)
    scaled = factor * value
    if abs(scaled) >= TOO_LONG:
        return f"{scaled:{'+' if signed else ''}.2e}".replace("-", "−")
    if round(scaled, decimals) == 0:
        return f"{0:.{decimals}f}"
    return f"{scaled:{'+' if signed else ''},.{decimals}f}".replace("-", "−")


@dataclass(frozen=True)
class Figures:
    """An estimate in words: "7.3 %" and "[6.8, 7.9]", "" where it has no interval."""

    value: str
    interval: str

    def __str__(self) -> str:
        return f"{self.value} {self.interval}".rstrip()


def decimals(estimate: Estimate, of: Unit) -> int:
    """So many that half the interval's width has one or two figures, at most 4."""
    half = of.factor * float(estimate.high - estimate.low) / 2
    if not math.isfinite(half) or half < NO_WIDTH:
        return of.least_decimals
    return min(4, max(of.least_decimals, -math.floor(math.log10(half))))


def figures(estimate: Estimate, name: str, like: Estimate | None = None) -> Figures:
    """A metric, with as many decimals as `like` needs."""
    own = unit(name)
    return written(estimate, own, decimals(like or estimate, own), own.sign)


def change(estimate: Estimate, name: str) -> Figures:
    """A difference of a metric, signed."""
    own = unit(name)
    places = decimals(estimate, own)
    nearest = own.factor * min(abs(float(estimate.low)), abs(float(estimate.high)))
    if nearest > NO_WIDTH and round(nearest, places) == 0:
        places = min(4, places + 1)  # an end near 0 should show on which side it is
    return written(estimate, own, places, own.of_difference, signed=True)


def written(estimate: Estimate, of: Unit, places: int, sign: str, signed: bool = False) -> Figures:
    """Value and interval. An infinite value has no interval but itself."""
    value, low, high = float(estimate.value), float(estimate.low), float(estimate.high)
    if not math.isfinite(value):
        return Figures(number(value, places), "")
    ends = [number(end, places, of.factor, signed) for end in (low, high)]
    return Figures(number(value, places, of.factor, signed) + sign, f"[{ends[0]}, {ends[1]}]")
