"""Verdict: what a paired difference to ε = 0 says, in one of four words; every place that gives a verdict
takes it from here.
"""

from typing import Literal

from tracking.records.comparison import Verdict
from tracking.records.outcome import Interval


def verdict(
    difference: Interval, better: Literal[1, -1], effect: float = 0.0, accepted: bool = True
) -> Verdict:
    """What the 95 % interval of a difference says.

    `practically the same` comes first: the whole interval lies within ± `effect`, the smallest difference of
    interest, so which side of 0 it lies on does not matter. Then `better` or `worse`, where it leaves out 0;
    else `not known`.

    Args:
        difference: to ε = 0.
        better: 1 where more of the metric is better, -1 where less is.
        effect: in the metric's unit, 0 where none is of so little interest.
        accepted: whether a gain is accepted as a claim; one that is not, as other claims are counted with
            it, is not known.
    """
    low, high = sorted((better * difference.low, better * difference.high))
    if effect > 0 and -effect <= low and high <= effect:
        return "practically the same"
    if high < 0:
        return "worse"
    return "better" if low > 0 and accepted else "not known"
