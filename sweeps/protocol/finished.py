"""Answer of a finished sweep, repeated when the same command is given again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.plan import Asked, Plan
from sweeps.protocol.test_ledger import in_words
from sweeps.site import Site, page_of
from sweeps.studies.opening import known_study
from sweeps.studies.retrying_storage import RetryingStorage
from sweeps.studies.study import Study
from sweeps.task import Task
from tracking.mlflow import versions
from tracking.mlflow.client import TrackingUnavailable
from tracking.mlflow.versions import NotPublished
from tracking.records.recommendation import Recommendation
from tracking.report.answer import sentences

ANSWERED = "answered"
"""Attribute of a study: what a finished sweep was asked, and the version that answers it."""


@dataclass(frozen=True)
class Standing:
    """An answer that stands: a headline, its sentences, and the recommendation of the plan's policy."""

    headline: str
    lines: tuple[str, ...]
    recommendation: Recommendation


def standing(
    plan: Plan, site: Site, task: Task, digest: str, storage: RetryingStorage, asked: Asked
) -> Standing | None:
    """The answer that a finished sweep of this plan has published; None where there is something to do. It
    neither trains nor writes.
    """
    study = known_study(storage, plan, task, digest)
    noted = study.noted(ANSWERED) if study is not None else None
    page = page_of(Path(site.state_dir), task.name)
    if (
        study is None
        or not noted
        or asked.pilot_only
        or asked.reopen
        or noted["asked"] != question(plan)
        or study.unfinished()
        or not page.exists()
    ):
        return None
    try:
        found = versions.version(site.tracking_uri, task.name, noted["version"])
        records = {name: found.recommendation(name) for name in found.records}
    except (NotPublished, TrackingUnavailable):
        return None
    if plan.policy not in records:
        return None
    headline = f"{task.name}: nothing to do; version {found.number} stands."
    return Standing(headline, tuple(sentences(records, plan.policy, noted["links"])), records[plan.policy])


def note_answer(study: Study, version: int | None, links: dict[str, str]) -> None:
    """Keep with a study what its finished sweep was asked, and which version answers it; nothing where MLflow
    does not have it yet.
    """
    study.note(
        ANSWERED,
        None if version is None else {"asked": question(study.plan), "version": version, "links": links},
    )


def question(plan: Plan) -> dict[str, Any]:
    """What of a plan, beside its science, decides the answer."""
    return {
        "terms": in_words(plan),
        "effect": plan.effect,
        "confirm_seeds": plan.confirm_seeds,
        "trials": plan.trials,
        "rungs": plan.rungs,
    }
