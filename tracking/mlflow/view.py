"""Views of a task's experiment in the MLflow UI: its runs, columns and charts, and their order and colours.

A view is an experiment tag such as the UI of MLflow 3.17 writes when a person saves one. It is internal to
that UI: another version shows its default table instead. `tests/tracking/test_view.py` looks at the views in
a browser.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

PREFIX = "mlflow.sharedViewState."
TRIALS, CONFIRMED = "lscal-trials", "lscal-confirmed"
COLUMNS = ("accuracy", "ece", "ece_calibrated", "aurc")
CHARTED = (*COLUMNS, "confidence_gap", "nll_calibrated")
"""Metrics that are drawn against ε."""
CURVES = ("train_loss", "select_accuracy", "select_nll", "select_ece")
COLOURS = ((13, 8, 135), (126, 3, 168), (204, 71, 120), (248, 149, 64))
"""From ε = 0 to `LAST` and beyond: the dark part of Matplotlib's plasma, which the colour-blind see as an
order too.
"""
LAST = 0.4
EDGES, LETTER = 24, 7
"""Of a column's heading, in pixels, so that it can be read and all columns fit."""

Chart = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """Charts under a heading, so many in a row; the UI's own are folded away."""

    name: str
    charts: Sequence[Chart]
    columns: int
    own: bool = False

    def heading(self) -> Mapping[str, Any]:
        """The chart in the UI's terms."""
        return {
            "uuid": self.name,
            "name": self.name,
            "columns": self.columns,
            "display": not self.own,
            "isReordered": not self.own,
            "isGenerated": self.own,
            "deleted": False,
        }


def views() -> Mapping[str, str]:
    """The experiment's tags, one for each view."""
    return {
        PREFIX + TRIALS: view("Trials by ε", "screen", "select", 2),
        PREFIX + CONFIRMED: view("Confirmed on test", "confirm", "test", 1),
    }


def address(experiment: str, key: str) -> str:
    """Where a view is in the UI, after the server's address."""
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={key}"


def view(name: str, stage: str, split: str, created: int) -> str:
    """A tag's value: a stage's runs by ascending ε with their metrics on a split. The UI lists later views
    before earlier ones.
    """
    metrics, columned = ([f"{split}/{metric}" for metric in some] for some in (CHARTED, COLUMNS))
    sections = [
        Section(
            "Accuracy against calibration",
            [scatter(f"{split}/ece", f"{split}/accuracy"), coordinates(["epsilon", *columned])],
            2,
        ),
        Section("Each metric against ε", [scatter("epsilon", metric) for metric in metrics], 3),
        Section("Epoch by epoch", [line(f"curves/{curve}") for curve in CURVES], 2),
        *(Section(added, (), 3, own=True) for added in ("curves", "select", "held_out", "test", "")),
    ]
    columns = ["metrics.`epsilon`", *(f"metrics.`{metric}`" for metric in columned), "params.`seeds`"]
    state = {
        "searchFilter": f"tags.stage = '{stage}'",
        "orderByKey": "metrics.`epsilon`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": columns,
        "columnOrder": columns,  # or they stand by the alphabet
        "columnWidths": {column: EDGES + LETTER * len(column.split("`")[1]) for column in columns},
        "runListHidden": False,
        "viewMaximized": False,
        "runsHiddenMode": "SHOW_ALL",  # or the UI draws ten runs at most
        "hideEmptyCharts": True,
        "isAccordionReordered": True,  # or our sections stand below those that the UI adds
        "compareRunSections": [one.heading() for one in sections],
        "compareRunCharts": [
            chart | {"metricSectionId": one.name} for one in sections for chart in one.charts
        ],
    }
    return json.dumps({"name": name, "createdAt": created, "state": json.dumps(state)})


def scatter(x: str, y: str) -> Chart:
    """A point per trial."""
    return card("SCATTER", f"{y} over {x}") | {
        "xaxis": {"key": x, "type": "METRIC"},
        "yaxis": {"key": y, "type": "METRIC"},
    }


def line(curve: str) -> Chart:
    """A line per trial, over its epochs."""
    return card("LINE", curve) | {
        "metricKey": curve,
        "selectedMetricKeys": [curve],
        "xAxisKey": "step",
        "displayPoints": False,
    }


def coordinates(metrics: Sequence[str]) -> Chart:
    """A line per trial through an axis for each metric."""
    return card("PARALLEL", "parallel coordinates") | {
        "selectedParams": [],
        "selectedMetrics": list(metrics),
        "showAllRuns": True,
    }


def card(kind: str, key: str) -> Chart:
    """Fields that the UI wants in every chart."""
    return {"type": kind, "uuid": key, "runsCountToCompare": 100, "deleted": False, "isGenerated": False}


def colour(epsilon: float) -> str:
    """The colour of a run's points and lines, such as `#0d0887`."""
    place = min(abs(epsilon) / LAST, 1.0) * (len(COLOURS) - 1)
    below = min(int(place), len(COLOURS) - 2)
    low, high = list(pairwise(COLOURS))[below]
    return "#" + "".join(
        f"{round(start + (place - below) * (end - start)):02x}" for start, end in zip(low, high, strict=True)
    )
