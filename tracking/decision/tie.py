"""Ties: rules by which a policy finds its candidate, and the ε that the screening cannot tell from it."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tracking.decision.screening import Screening, Tie
from tracking.decision.terms import Terms
from tracking.records.point import Point

Find = Callable[[Screening, "Terms"], Tie]


Array = npt.NDArray[np.bool_]


def most_accurate(screening: Screening, _: Terms) -> Tie:
    """The most accurate, and what cannot be told apart from it."""
    return screening.tie("accuracy", 1)


def among_harmless(screening: Screening, terms: Terms) -> Tie:
    """What cannot be told apart from the most accurate of those ε whose fitted NLL and AURC keep the
    tolerances; ε = 0 where that is one of them.

    Where no ε but 0 keeps them, among all: the confirmation then says what fails.
    """
    after = "recalibrated" if screening.has("nll_recalibrated") else "calibrated"
    return screening.tie(
        "accuracy", 1, lambda points: harmless(screening, points, terms, after), cautious=True
    )


def among_honest(screening: Screening, terms: Terms) -> Tie:
    """As for `safe`, among those ε whose fitted mean confidence also stays with the accuracy, by a standard
    error of the difference to ε = 0, or a quarter of the tolerance if that is less: a candidate at the very
    edge would be refused by every second test.
    """

    def honest(points: Sequence[Point]) -> Array:
        fit = screening.fit("confidence_gap")
        gaps = np.abs(fit.mean([*points, screening.control_point]))
        tolerance = terms.tolerances.confidence_gap
        unsure = np.minimum(fit.shift(points, screening.control_point).error, tolerance / 4)
        kept: Array = harmless(screening, points, terms, "calibrated") & (
            gaps[:-1] + unsure <= terms.tolerances.gap(float(gaps[-1]))
        )
        return kept

    return screening.tie("accuracy", 1, honest, cautious=True)


def harmless(screening: Screening, points: Sequence[Point], terms: Terms, after: str) -> Array:
    """At which points the fits of NLL and AURC stay within the tolerances; `after` temperature
    ("calibrated") or each trial's best of several recalibrations ("recalibrated").
    """
    tolerated = {
        f"nll_{after}": terms.tolerances.nll_relative,
        f"aurc_{after}": terms.tolerances.aurc_relative,
    }
    fitted = {name: screening.fit(name).mean([*points, screening.control_point]) for name in tolerated}
    kept: Array = np.all(
        [fitted[name][:-1] < (1 + most) * fitted[name][-1] for name, most in tolerated.items()], axis=0
    )
    return kept


def most_probable(screening: Screening, _: Terms) -> Tie:
    """The lowest fitted NLL after temperature, and what cannot be told apart from it."""
    return screening.tie("nll_calibrated", -1)


def most_honest(screening: Screening, _: Terms) -> Tie:
    """The lowest fitted NLL without recalibration, and what cannot be told apart from it."""
    return screening.tie("nll", -1)


def cheapest(screening: Screening, _: Terms) -> Tie:
    """The least fitted cost, each trial at the coverage that is cheapest on *calibrate*, and what cannot be
    told apart from it.
    """
    return screening.tie("cost", -1)
