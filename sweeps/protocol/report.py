"""Report of a sweep: its tables, its page, and where to find them."""

import os
from collections.abc import Sequence
from pathlib import Path

from sweeps.plan import Plan
from sweeps.site import Site, page_of
from sweeps.training.engine import Engine
from tracking.decision.screening import Screening
from tracking.mlflow.client import shown as shown_uri
from tracking.records.evidence import Evidence
from tracking.records.point import Point, key_of
from tracking.report import summary
from tracking.report.page import page

UI_ADDRESS = "LSCAL_MLFLOW_UI"
"""Environment variable: where people open MLflow, if not at the tracking URI."""


def write_page(state_dir: Path, evidence: Evidence) -> str:
    """Write the page of the task on this machine; its address."""
    path = page_of(state_dir, evidence.task)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(evidence), encoding="utf-8")
    return path.absolute().as_uri()


def shown_place(keys: Sequence[str], candidate: Point) -> int:
    """The place of the candidate among the confirmed points; of the last one where it is ε = 0, or is not
    among them.
    """
    return keys.index(key_of(candidate)) if key_of(candidate) in keys[1:] else len(keys) - 1


def tables_of(evidence: Evidence, screening: Screening) -> list[summary.Table]:
    """What a person reads at the end."""
    tables = [
        summary.conditions(evidence.recommendations[evidence.policy]),
        summary.confirmation(evidence.comparisons),
        summary.people(evidence.comparisons),
        summary.screening(evidence.outcomes),
        summary.differences(
            evidence.outcomes,
            screening.control,
            screening.fit("accuracy") if len(evidence.outcomes) > 1 else None,
        ),
    ]
    if evidence.dropped:
        tables.append(summary.dropped(evidence.dropped, evidence.policy))
    return [table for table in tables if table.rows]


def describe(plan: Plan, engine: Engine) -> str:
    """The resolved plan of a task in a sentence."""
    examples = {name: len(split.labels) for name, split in engine.dataset.splits.items()}
    tuned = "".join(
        f", {name} in [{low:g}, {high:g}]" for name, (low, high) in plan.ranges(engine.task).items()
    )
    smoothing = "" if plan.smoothing == Plan.smoothing else f", {' or '.join(plan.smoothing)} smoothing"
    span = "" if plan.epsilon == Plan.epsilon else f" in [{plan.epsilon[0]:g}, {plan.epsilon[1]:g}]"
    return (
        f"{plan.trials} ε{span}{tuned}{smoothing} × {plan.seeds} seeds × {engine.task.recipe.epochs} epochs; "
        f"{', '.join(f'{name} {n}' for name, n in examples.items())}"
    )


def ui_address(site: Site, link: str) -> str:
    """Where a person opens MLflow at a place in its UI."""
    server = os.environ.get(UI_ADDRESS) or (
        shown_uri(site.tracking_uri) if site.tracking_uri.startswith("http") else "http://127.0.0.1:5000"
    )
    return f"{server.rstrip('/')}/{link}"


def pull_command(site: Site, task: str) -> str:
    """The exact command that pulls what was found."""
    custom = (
        "" if site.tracking_uri == Site.tracking_uri else f" --tracking-uri {shown_uri(site.tracking_uri)}"
    )
    return f"python -m tracking.recommend {task}{custom}"
