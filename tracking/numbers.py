"""Numbers as people read them: one minus sign, never -0.0, no digits that only a binary fraction has."""

import math


def number(value: float | None, decimals: int, signed: bool = False) -> str:
    """A number with a real minus sign, thousands in groups, and never -0.0; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:{'+' if signed else ''},.{decimals}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")
    return text.replace("-", "−").replace(",", "\N{NARROW NO-BREAK SPACE}")


def epsilon(value: float) -> str:
    """ε as a sentence gives it."""
    return significant(value)


def significant(value: float, digits: int = 4) -> str:
    """A number to so many significant digits, with a real minus sign."""
    return plain(value, digits).replace("-", "−")


def plain(value: float, digits: int = 6) -> str:
    """A number for a program: an ASCII minus, and no exponent, group or -0 that ε could have."""
    return f"{value + 0.0:.{digits}g}"


def points(share: float, decimals: int = 2) -> str:
    """A difference of shares in percentage points."""
    return f"{number(100 * share, decimals, signed=True)} pp"


def relative(share: float) -> str:
    """A relative change in per cent."""
    return f"{number(100 * share, 1, signed=True)} %"


def decimals(values: list[float], least: int = 1, most: int = 4) -> int:
    """How many decimals keep apart from 0 what is not 0; at least and at most so many."""
    told = [abs(value) for value in values if value and math.isfinite(value)]
    return next(
        (count for count in range(least, most) if all(value >= 0.5 * 10.0**-count for value in told)), most
    )
