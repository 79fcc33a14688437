"""Calibrators: fitted, frozen maps from logits to logits, by name, and their JSON."""

import json

from lscal.calibrators.beta import Beta
from lscal.calibrators.binning import BBQ, Histogram
from lscal.calibrators.calibrator import Calibrator
from lscal.calibrators.ensemble import EnsembleTemperature
from lscal.calibrators.isotonic import Isotonic
from lscal.calibrators.p_norm import PNorm
from lscal.calibrators.structured import StructuredMatrixScaling, StructuredVectorScaling
from lscal.calibrators.temperature import Temperature
from lscal.calibrators.vector import VectorScaling

CALIBRATORS: dict[str, type[Calibrator]] = {
    calibrator.method: calibrator
    for calibrator in (
        Temperature,
        EnsembleTemperature,
        PNorm,
        VectorScaling,
        StructuredVectorScaling,
        StructuredMatrixScaling,
        Isotonic,
        Histogram,
        Beta,
        BBQ,
    )
}
"""Every method by name."""

__all__ = [
    "BBQ",
    "CALIBRATORS",
    "Beta",
    "Calibrator",
    "EnsembleTemperature",
    "Histogram",
    "Isotonic",
    "PNorm",
    "StructuredMatrixScaling",
    "StructuredVectorScaling",
    "Temperature",
    "VectorScaling",
    "calibrator_from_json",
]


def calibrator_from_json(text: str) -> Calibrator:
    """The calibrator that `Calibrator.to_json` wrote.

    Errors: ValueError where the text is no such JSON, names an unknown method, or holds fields or values
    that the method does not allow.
    """
    try:
        values = json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise ValueError(f"not a calibrator in JSON: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("method"), str):
        raise ValueError('not a calibrator: wanted a JSON object with a "method"')
    method = values.pop("method")
    if method not in CALIBRATORS:
        raise ValueError(f"no calibrator named {method!r}; there are {', '.join(sorted(CALIBRATORS))}")
    return CALIBRATORS[method].from_fields(values)


def refuse(constant: str) -> float:
    """NaN and Infinity are no JSON numbers, though Python reads them."""
    raise ValueError(f"a calibrator holds {constant}; allowed are finite numbers")
