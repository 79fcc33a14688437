"""Figures: what the scripts of the report draw, as plain values; means over seeds, rounded to what a drawing
shows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tracking.decision.prices import promised
from tracking.records.comparison import Comparison
from tracking.records.evidence import Band, Evidence, Instance, Surface
from tracking.records.outcome import Bins, Outcome, screened, spread
from tracking.records.point import beside, drop_of
from tracking.report.words import MEASURES, at, candidate_of

DIGITS = 5
EPOCHS = 400
"""Epochs of a curve that are drawn; longer ones are thinned."""
CALIBRATED = "_calibrated"
DRAWN = ("title", "scale", "decimals", "unit", "change_unit", "better")
"""What charts need of the display of a metric."""


def figures(evidence: Evidence) -> dict[str, Any]:
    """All that is drawn of a task."""
    control = next((one for one in evidence.outcomes if one.epsilon == 0), None)
    plain = evidence.recommendations[evidence.policy].best
    base = evidence.comparisons[0].outcome if evidence.comparisons else None
    return {
        "epsilon": plain.epsilon,
        "candidate": plain.candidate,
        "measures": {
            name: {key: value for key, value in asdict(measure).items() if key in DRAWN}
            for name, measure in MEASURES.items()
        },
        "bands": {name: band_of(band) for name, band in evidence.bands.items() if name in MEASURES},
        "trials": [
            drawn(one, control, "select", lambda metric: screened(metric, *evidence.outcomes))
            for one in evidence.outcomes
        ],
        "confirmed": [drawn(one.outcome, base, "test", "test/{}".format) for one in evidence.comparisons],
        "surfaces": {name: surface(name, one, evidence.outcomes) for name, one in evidence.surfaces.items()},
        "tolerances": dict(evidence.tolerances),
        "prices": dict(evidence.prices),
    }


def drawn(
    outcome: Outcome, control: Outcome | None, split: str, named: Callable[[str], str]
) -> dict[str, Any]:
    """One trial as it is drawn: metrics with standard errors, differences to ε = 0, bins, risks and the curve
    of accuracy.

    `named` tells under which name a metric is among the trial's.
    """
    names = [name for name in MEASURES if named(name) in outcome.metrics]
    paired = control is not None and control.seeds == outcome.seeds
    accuracy = outcome.curves.get("select_accuracy", ())
    stride = math.ceil(len(accuracy) / EPOCHS) or 1
    return {
        "name": name_of(outcome),
        "epsilon": outcome.epsilon,
        "drop": drop_of(outcome.point),
        "seeds": len(outcome.seeds),
        "values": {name: mean_and_error(outcome.metrics[named(name)]) for name in names},
        "shifts": {
            name: mean_and_error(outcome.differences(named(name), control))
            for name in names
            if paired and control is not None and named(name) in control.metrics
        },
        "bins": {
            kind: bins_of(outcome.bins[key], len(outcome.seeds))
            for kind, key in (("raw", split), ("calibrated", split + CALIBRATED))
            if key in outcome.bins
        },
        "risks": (
            {
                kind: mean_risk(outcome, key)
                for kind, key in (
                    ("raw", split),
                    ("calibrated", split + CALIBRATED),
                    ("priced", f"calibrate{CALIBRATED}"),
                )
                if outcome.risks.get(key)
            }
            | promised_risk(outcome)
        ),
        "curve": {"stride": stride, "values": [rounded(value) for value in accuracy[stride - 1 :: stride]]},
    }


def name_of(outcome: Outcome) -> str:
    """ε, and any other tuned value, in short."""
    return ", ".join([at(outcome.epsilon), *beside(outcome.point)])


def band_of(band: Band) -> dict[str, list[float | None]]:
    """A band with rounded numbers."""
    return {name: [rounded(value) for value in values] for name, values in asdict(band).items()}


def surface(name: str, fitted: Surface, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Fitted accuracy over ε and another tuned number, and the trials that it rests on."""
    return {
        "epsilon": list(fitted.epsilon),
        "values": list(fitted.values),
        "mean": [[rounded(value) for value in row] for row in fitted.mean],
        "others": ", ".join(beside({"epsilon": 1.0, **fitted.others})),
        "trials": [
            {
                "name": name_of(one),
                "epsilon": one.epsilon,
                "value": max(one.point[name], fitted.values[0]),
                "accuracy": rounded(one.mean(screened("accuracy", *outcomes))),
            }
            for one in outcomes
        ],
    }


def mean_and_error(values: Sequence[float]) -> list[float | None]:
    """Mean over seeds, and its standard error; None with one seed."""
    error = spread(tuple(values)) / len(values) ** 0.5 if len(values) > 1 else None
    return [rounded(sum(values) / len(values)), rounded(error)]


def bins_of(bins: Bins, members: int) -> dict[str, Any]:
    """The bins that hold examples: edges, share of all, confidence, accuracy, and where a calibrated model
    would be.
    """
    width, whole = 1 / len(bins.count), sum(bins.count)
    rows = []
    for i, (count, confidence, accuracy) in enumerate(
        zip(bins.count, bins.confidence, bins.accuracy, strict=True)
    ):
        if confidence is not None and accuracy is not None:
            low, high = consistent(count, confidence, members)
            rows.append(
                [
                    rounded(value)
                    for value in (i * width, (i + 1) * width, count / whole, confidence, accuracy, low, high)
                ]
            )
    return {
        "rows": rows,
        "gap": rounded(bins.gap),
        "error": rounded(bins.error),
        "examples": round(whole / members),
    }


def consistent(count: int, confidence: float, members: int) -> tuple[float, float]:
    """Where 95 % of the accuracies of a bin would fall if each of its examples were right with its
    confidence.

    Quantiles of Binomial(n, confidence)/n, n = count/members being the different examples (Bröcker and Smith
    2007, in closed form).
    """
    from scipy.special import bdtrik

    n = max(1, round(count / members))
    low, high = (math.ceil(bdtrik(tail, n, min(max(confidence, 1e-15), 1.0))) / n for tail in (0.025, 0.975))
    return low, high


def mean_risk(outcome: Outcome, key: str) -> list[float | None]:
    """The mean risk over seeds at each coverage."""
    return [rounded(sum(column) / len(column)) for column in zip(*outcome.risks[key], strict=True)]


def promised_risk(outcome: Outcome) -> dict[str, list[float | None]]:
    """The highest risk that the examples of *calibrate* leave possible at each coverage; none where their
    number is not known.
    """
    if not outcome.calibrate_examples or not outcome.risks.get(f"calibrate{CALIBRATED}"):
        return {}
    rows = outcome.risks[f"calibrate{CALIBRATED}"]
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return {"promised": [rounded(limit) for limit in promised(mean, outcome.calibrate_examples)]}


def break_even(risks: Sequence[float], control: Sequence[float]) -> float:
    """The coverage above which ε errs no more than ε = 0: 0 where it never errs more, 1 where it does even at
    full coverage.
    """
    worse = [
        i for i, (own, other) in enumerate(zip(risks, control, strict=True), start=1) if own > other + 1e-12
    ]
    return max(worse, default=0) / len(risks)


def risk_at(comparison: Comparison, coverage: int) -> float | None:
    """The mean error rate on *test* among so many per cent most confident examples, after temperature."""
    rows = comparison.outcome.risks.get(f"test{CALIBRATED}", ())
    return sum(row[coverage - 1] for row in rows) / len(rows) if rows else None


ROUND = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995)


def levels(outcomes: Sequence[Outcome]) -> list[float]:
    """Up to four round accuracies that some trial reached, closer together near the best: what a table of
    convergence asks for.
    """
    best = max(
        (max(one.curves["select_accuracy"]) for one in outcomes if one.curves.get("select_accuracy")),
        default=0.0,
    )
    reached = [level for level in ROUND if level <= best] or (
        [math.floor(100 * best) / 100] if best > 0 else []
    )
    return [reached[-back] for back in (7, 4, 2, 1) if back <= len(reached)]


def epochs_to(outcome: Outcome, level: float) -> int | None:
    """The first epoch after which the mean accuracy on *select* is at least `level`; None where it never
    is.
    """
    curve = outcome.curves.get("select_accuracy", ())
    return next((epoch for epoch, value in enumerate(curve, start=1) if value >= level), None)


def rounded(value: float | None) -> float | None:
    """To five significant digits; None where it is no number."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")


def falls(evidence: Evidence) -> list[tuple[Instance, int]]:
    """Instances by the largest fall of confidence from ε = 0 to the candidate, each with the candidate's
    place.
    """
    tried = candidate_of(evidence, evidence.recommendations[evidence.policy].best)
    place = evidence.comparisons.index(tried) if tried else len(evidence.comparisons) - 1
    return [
        (one, place)
        for one in sorted(evidence.instances, key=lambda one: one.confidence[place] - one.confidence[0])
    ]


def places(evidence: Evidence) -> list[float]:
    """Where the confirmed ε stand in the picture of an instance: by ε, one after another where some fall to
    0.
    """
    if any(drop_of(one.outcome.point) < 1 for one in evidence.comparisons):
        return [float(place) for place in range(len(evidence.comparisons))]
    return [one.epsilon for one in evidence.comparisons]


def slope(
    confidence: Sequence[float], places: Sequence[float], width: float, height: float
) -> Sequence[Mapping[str, float]]:
    """Where the confidences of an instance lie in a small picture: x by their place, y by confidence from 1
    at the top to 0.
    """
    lowest = min(places)
    reach = max(places) - lowest or 1.0
    return [
        {"x": round(width * (e - lowest) / reach, 1), "y": round(height * (1 - c), 1)}
        for e, c in zip(places, confidence, strict=True)
    ]
