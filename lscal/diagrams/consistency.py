"""Consistency: the region in which the accuracy of a calibrated model would fall, by chance alone.

Bröcker and Smith 2007, "Increasing the reliability of reliability diagrams", section 3, there by resampling;
here in closed form.
"""

from collections.abc import Sequence

LEVEL = 0.95
"""Probability of the region. It leaves out at most (1 - LEVEL) / 2 on either side."""

Regions = tuple[tuple[float | None, ...], tuple[float | None, ...]]
"""Lower and upper ends; None where there is nothing to compare."""


def binomial(count: Sequence[float], confidence: Sequence[float | None], members: int = 1) -> Regions:
    """Where the accuracy of each bin would fall if every example in it were right with its confidence.

    The number right among n examples of mean confidence p is taken as Binomial(n, p): exact where all
    confidences of the bin are p, and a little wide otherwise, for a sum of unequal chances varies less. The
    ends are its quantiles over n, so that each side leaves out at most 2.5 %. Range [0, 1].

    `count` sums over members that saw the same examples. What one member gets right another mostly does too,
    so n = count / members: the number of different examples. That is right for equal members and wide for
    independent ones.
    """
    import numpy as np
    from scipy.special import bdtrik

    filled = [i for i, p in enumerate(confidence) if p is not None]
    n = np.array([max(1, round(count[i] / members)) for i in filled], dtype=float)
    p = np.array([confidence[i] for i in filled], dtype=float)
    ends: list[list[float | None]] = []
    for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        share = np.ceil(bdtrik(tail, n, np.clip(p, 1e-15, 1))) / n  # at p = 0 it is NaN
        row: list[float | None] = [None] * len(confidence)
        for i, end in zip(filled, share.tolist(), strict=True):
            row[i] = end
        ends.append(row)
    return tuple(ends[0]), tuple(ends[1])


def smooth(confidence: Sequence[float | None], variance: Sequence[float | None]) -> Regions:
    """Where a weighted share of right predictions would fall, of which calibration gives the mean and the
    variance.

    The ends are the quantiles of the beta distribution with this mean p and variance v: Beta(p(n-1),
    (1-p)(n-1)), n = p(1-p)/v being the number of examples that would vary as much. It stays in [0, 1] and
    leans as a binomial does where p is near 0 or 1, which a normal distribution does not. Where all n are
    right with a chance pⁿ of more than 2.5 %, the upper end is 1; where none is, the lower end is 0.
    """
    import numpy as np
    from scipy.special import betaincinv

    filled = [
        i
        for i, (p, v) in enumerate(zip(confidence, variance, strict=True))
        if p is not None and v is not None
    ]
    p = np.array([confidence[i] for i in filled], dtype=float)
    v = np.array([variance[i] for i in filled], dtype=float)
    certain = (v <= 0) | (p <= 0) | (p >= 1)
    q = np.where(certain, 0.5, p)
    n = np.where(certain, 2.0, np.maximum(q * (1 - q) / np.where(certain, 1.0, v), 1.0))
    a, b = (np.maximum(share * (n - 1), 1e-9) for share in (q, 1 - q))
    ends: list[list[float | None]] = []
    for tail, extreme, chance in (((1 - LEVEL) / 2, 0.0, (1 - q) ** n), ((1 + LEVEL) / 2, 1.0, q**n)):
        values = np.where(chance > (1 - LEVEL) / 2, extreme, betaincinv(a, b, tail))
        values = np.where(certain, p, values)
        row: list[float | None] = [None] * len(confidence)
        for i, end in zip(filled, values.tolist(), strict=True):
            row[i] = end
        ends.append(row)
    return tuple(ends[0]), tuple(ends[1])
