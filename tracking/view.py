"""The view of a task's trials in the MLflow UI: one row per trial by ascending ε, with the columns which matter.

A view is an experiment tag which MLflow 3.17's own "Share" button writes. It is internal to the UI: where another version
does not know it, the default table appears instead.
"""

import json

KEY = "lscal-trials"
TAG = f"mlflow.sharedViewState.{KEY}"
CREATED = 0
METRICS = ("accuracy", "aurc", "confidence_gap", "ece", "ece_calibrated", "nll_calibrated")


def trials_view() -> str:
    """The tag's value."""
    columns = ["params.`epsilon`", *(f"metrics.`select/{name}`" for name in METRICS), "params.`seeds`"]
    state = {
        "searchFilter": "tags.stage = 'screen'",
        "orderByKey": "params.`epsilon`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": columns,
        "runListHidden": False,
        "viewMaximized": False,
        "isAccordionReordered": True,
    }
    return json.dumps({"name": "Trials by ε", "createdAt": CREATED, "state": json.dumps(state)})
