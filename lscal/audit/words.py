"""Words: numbers and findings as a person reads them, the same on the page and in the terminal."""

import math
from dataclasses import dataclass

from lscal.display import Display, display
from lscal.estimate import Estimate

TOO_LONG = 1e6
"""From here on numbers are written with a power of ten."""
NO_WIDTH = 1e-9
UNDEFINED = "not defined"


def title(name: str) -> str:
    """Name of a metric in a table."""
    return display(name).label or display(name).title


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


def sign(of: Display, unit: str) -> str:
    """Unit behind a scaled number."""
    return f" {unit}" if of.scale != 1 else ""


def decimals(estimate: Estimate, of: Display) -> int:
    """So many that half the interval's width has one or two figures, at most 4."""
    half = of.scale * float(estimate.high - estimate.low) / 2
    if not math.isfinite(half) or half < NO_WIDTH:
        return of.least_decimals
    return min(4, max(of.least_decimals, -math.floor(math.log10(half))))


def figures(estimate: Estimate, name: str, like: Estimate | None = None) -> Figures:
    """A metric, with as many decimals as `like` needs."""
    own = display(name)
    return written(estimate, own, decimals(like or estimate, own), sign(own, own.unit))


def change(estimate: Estimate, name: str) -> Figures:
    """A difference of a metric, signed."""
    own = display(name)
    places = decimals(estimate, own)
    nearest = own.scale * min(abs(float(estimate.low)), abs(float(estimate.high)))
    if nearest > NO_WIDTH and round(nearest, places) == 0:
        places = min(4, places + 1)  # an end near 0 should show on which side it is
    return written(estimate, own, places, sign(own, own.change_unit), signed=True)


def written(estimate: Estimate, of: Display, places: int, sign: str, signed: bool = False) -> Figures:
    """Value and interval. An infinite value has no interval but itself."""
    value, low, high = float(estimate.value), float(estimate.low), float(estimate.high)
    if not math.isfinite(value):
        return Figures(number(value, places), "")
    ends = [number(end, places, of.scale, signed) for end in (low, high)]
    return Figures(number(value, places, of.scale, signed) + sign, f"[{ends[0]}, {ends[1]}]")
