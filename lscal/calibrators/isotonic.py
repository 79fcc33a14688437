"""Isotonic regression per class (Zadrozny and Elkan 2002), by scikit-learn or by netcal."""

from dataclasses import dataclass
from typing import ClassVar, final

from typing_extensions import override

from lscal.calibrators import netcal
from lscal.calibrators.one_vs_rest import Answers, Array, OneVsRest


@final
@dataclass(frozen=True, eq=False)
class Isotonic(OneVsRest):
    """scikit-learn's isotonic regression: the ascending curve of least squared error, linear between its
    knots.
    """

    method: ClassVar[str] = "isotonic"

    @override
    @classmethod
    def curve(cls, probability: Array, occurs: Answers) -> tuple[Array, Array]:
        from sklearn.isotonic import IsotonicRegression

        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(probability, occurs)
        return fitted.X_thresholds_, fitted.y_thresholds_


@final
@dataclass(frozen=True, eq=False)
class NetcalIsotonic(OneVsRest):
    """netcal's isotonic regression. It calls scikit-learn's, so the curves are the same."""

    method: ClassVar[str] = "netcal_isotonic"

    @override
    @classmethod
    def curve(cls, probability: Array, occurs: Answers) -> tuple[Array, Array]:
        return netcal.isotonic_curve(probability, occurs)
