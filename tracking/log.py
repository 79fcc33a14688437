"""Log: what is written to MLflow. One experiment per task, a parent run per sweep, a child run per trial.

A trial is written when it is finished, by one batch of all its numbers and one of its files. Runs are found again by the
tag `uid`, so that a resumed sweep goes on where it was.
"""

import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from tracking import instances, note, registry, view
from tracking.evidence import Evidence
from tracking.inputs import CONTEXTS, USED, Inputs
from tracking.model import ExportedModel
from tracking.note import Places
from tracking.records import Facts, Outcome
from tracking.store import TrackingUnavailable, shown
from tracking.summary import Table, count, name
from tracking.versions import folder_of, model_of

BATCH = 1000
DECIMALS = 7
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's own would block for four minutes on a dead server
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # which is for what was asked for
}
"""Settings of MLflow for a sweep. What the user sets is left alone."""


def connect(uri: str) -> MlflowClient:
    """A client of a tracking store that answers. Errors: TrackingUnavailable."""
    for key, value in DEFAULTS.items():
        os.environ.setdefault(key, value)
    for noisy in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        client = MlflowClient(uri, uri)
        client.search_experiments(max_results=1)
    except (OSError, SQLAlchemyError, MlflowException) as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise TrackingUnavailable(f"the MLflow tracking store {shown(uri)} does not answer: {cause}") from error
    return client


class Sweep:
    """The runs of one study: its parent, and a child per trial."""

    def __init__(self, client: MlflowClient, task: str, study: str, facts: Facts, inputs: Inputs):
        self.client, self.task, self.study, self.facts, self.inputs = client, task, study, facts, inputs
        experiment = client.get_experiment_by_name(task)
        if experiment is not None and experiment.lifecycle_stage != "active":
            raise TrackingUnavailable(
                f"the MLflow experiment {task!r} was deleted. Restore it: mlflow experiments restore -x {experiment.experiment_id}"
            )
        views = view.views()
        self.experiment: str = client.create_experiment(task, tags=dict(views)) if experiment is None else experiment.experiment_id
        for key, value in views.items():
            if experiment is not None and experiment.tags.get(key) != value:
                client.set_experiment_tag(self.experiment, key, value)
        self.name = f"sweep {study.rpartition('@')[2]}"
        found = self.runs(f"tags.role = 'sweep' AND tags.study = '{study}'")
        self.parent: str = found[0].info.run_id if found else self.create("sweep", self.name, {}, tuple(CONTEXTS))
        client.update_run(self.parent, status="RUNNING")
        self.logged = {run.data.tags["uid"]: run.info.run_id for run in self.runs(f"tags.`mlflow.parentRunId` = '{self.parent}'")}

    def runs(self, where: str) -> list[Run]:
        """The runs of the experiment that match, all pages."""
        found: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment], where, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return found

    def create(self, role: str, run_name: str, tags: Mapping[str, str], splits: Sequence[str], seconds: float = 0.0) -> str:
        """A new run, begun so many seconds ago, with everything of `Facts` on it, which reads some splits."""
        start = int(1000 * (time.time() - seconds))
        every = {"role": role, "task": self.task, "study": self.study, **self.facts.tags, **tags}
        run_id: str = self.client.create_run(self.experiment, start, every, run_name).info.run_id
        self.client.log_inputs(run_id, self.inputs.of(self.facts, splits))
        return run_id

    def trial(self, outcome: Outcome, files: Mapping[str, bytes]) -> None:
        """Write a finished trial, whose uid is not in `logged`. `files` are artifacts by path."""
        tags = {
            "mlflow.parentRunId": self.parent,
            "uid": outcome.uid,
            "stage": outcome.stage,
            "mlflow.note.content": note.of_trial(outcome),
            "mlflow.runColor": view.colour(outcome.epsilon),
            **({"dropped": outcome.dropped} if outcome.dropped else {}),
        }
        run_id = self.create("trial", trial_name(outcome), tags, USED[outcome.stage], outcome.seconds)
        params = {
            **self.facts.params,
            **{key: f"{value:.6g}" for key, value in outcome.point.items()},
            "epsilon_wrong_classes": f"{outcome.epsilon * (outcome.classes - 1) / outcome.classes:.6g}",
            "stage": outcome.stage,
            "seeds": f"{len(outcome.seeds)}: {note.numbers(outcome.seeds)}",
        }
        self.write(run_id, metrics_of(outcome), params, {})
        self.upload(run_id, {**files, "outcome.json": outcome.to_json().encode()})
        self.client.set_terminated(run_id, "KILLED" if outcome.dropped else "FINISHED")
        self.logged[outcome.uid] = run_id

    def artifact(self, outcome: Outcome, path: str) -> bytes | None:
        """A file of a logged trial, None where the store does not have it."""
        run_id = self.logged.get(outcome.uid)
        if run_id is None or path not in {file.path for file in self.client.list_artifacts(run_id, path.rpartition("/")[0])}:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(run_id, path, folder)).read_bytes()

    def publish(self, evidence: Evidence, tables: Sequence[Table], model: ExportedModel | None, pictures: Mapping[str, bytes]) -> int:
        """Write all that was found to the parent run, publish the recommendations, and have the experiment's note begin with the answer.

        Each step may be repeated. The registry comes after the run it points to is complete, and the note last: a reader never finds
        half of it. Returns the number of the published version.
        """
        from tracking.page import page

        chosen = evidence.recommendations[evidence.policy]
        decision = {
            **{f"recommendation.{key}.json": record.to_json().encode() for key, record in evidence.recommendations.items()},
            "evidence.json": evidence.to_json().encode(),
            "page.html": page(evidence).encode(),
            "plan.yaml": evidence.plan.encode(),
        }
        kept = {
            f"{folder_of(evidence.created)}/{name}": content for name, content in decision.items()
        }  # later ones replace those at the root
        self.upload(self.parent, {**pictures, **instances.table(evidence), **decision, **kept})
        tags = {"recommended_epsilon": f"{chosen.epsilon:g}", "policy": evidence.policy, **instances.TAGS}
        params = {key: value for key, value in self.facts.params.items() if key not in self.client.get_run(self.parent).data.params}
        self.write(self.parent, answer(evidence), params, tags)
        source = self.client.get_run(self.parent).info.artifact_uri if model is None else self.keep(model)
        verdict = "adopted" if chosen.epsilon > 0 else "kept"
        self.client.set_terminated(self.parent)
        self.client.update_run(self.parent, name=f"ε = {chosen.epsilon:.4g} {verdict} · {self.name}")
        version = registry.publish(self.client, self.task, evidence.recommendations, evidence.policy, self.parent, source)
        text = note.of_sweep(evidence, tables, Places(self.experiment, self.parent, version, model is not None))
        self.upload(self.parent, {"summary.md": text.encode()})
        self.client.set_tag(self.parent, "mlflow.note.content", text)
        self.client.set_experiment_tag(self.experiment, "mlflow.note.content", text)
        return version

    def keep(self, model: ExportedModel) -> str:
        """Have MLflow keep a model, once; its URI."""
        same = self.client.search_logged_models([self.experiment], f"tags.digest = '{model.digest}'")
        if same and same[0].status == LoggedModelStatus.READY:
            return f"models:/{same[0].model_id}"
        tags = {"digest": model.digest, "task": self.task}
        name = model_of(self.task)
        kept = same[0] if same else self.client.create_logged_model(self.experiment, name, self.parent, tags, dict(model.about))
        with tempfile.TemporaryDirectory() as folder:
            model.write(Path(folder), kept.model_id)
            self.client.log_model_artifacts(kept.model_id, folder)
        self.client.log_outputs(self.parent, [LoggedModelOutput(kept.model_id, step=0)])
        self.client.finalize_logged_model(kept.model_id, LoggedModelStatus.READY)
        return f"models:/{kept.model_id}"

    def link(self, server: str) -> str:
        """The address of the task's trials in the MLflow UI."""
        return f"{server.rstrip('/')}{'/' if server else ''}{view.address(self.experiment, view.TRIALS)}"

    def stop(self, status: str) -> None:
        """Mark the parent run as KILLED or FAILED; a resumed sweep sets it RUNNING again."""
        self.client.set_terminated(self.parent, status)

    def write(self, run_id: str, metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """One batch; more only where there are over 1000 metric points, MLflow's limit."""
        head, rest = metrics[: BATCH - len(params) - len(tags)], metrics[BATCH - len(params) - len(tags) :]
        self.client.log_batch(run_id, head, [Param(*item) for item in params.items()], [RunTag(*item) for item in tags.items()])
        for start in range(0, len(rest), BATCH):
            self.client.log_batch(run_id, rest[start : start + BATCH])

    def upload(self, run_id: str, files: Mapping[str, bytes]) -> None:
        """Store files as artifacts of a run."""
        with tempfile.TemporaryDirectory() as folder:
            for path, content in files.items():
                target = Path(folder, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            self.client.log_artifacts(run_id, folder)


def metrics_of(outcome: Outcome) -> list[Metric]:
    """Every final metric as mean and, under `…_sd`, standard deviation over the seeds, and the curves epoch by epoch."""
    points = [metric("epsilon", outcome.epsilon)]
    for key in outcome.metrics:
        points.append(metric(key, outcome.mean(key)))
        points.append(metric(f"{key}_sd", outcome.spread(key)))
    if outcome.temperature:
        points.append(metric("temperature", sum(outcome.temperature) / len(outcome.temperature)))
    points.append(metric("train_seconds", outcome.seconds))
    for key, values in outcome.curves.items():
        points += [metric(f"curves/{key}", value, epoch) for epoch, value in enumerate(values, start=1)]
    return points


def metric(key: str, value: float, step: int = 0) -> Metric:
    """A metric point with the five digits that can matter: the UI shows all there are. `outcome.json` has the others."""
    return Metric(key, float(f"{round(value, DECIMALS):.5g}") + 0.0, int(time.time() * 1000), step)


def trial_name(outcome: Outcome) -> str:
    """What a run is called in a list, such as `ε = 0.15 · 8 seeds`."""
    epsilon, seeds = f"ε = {name(outcome)}", count(len(outcome.seeds))
    if outcome.dropped:
        return f"{epsilon} · dropped"
    if outcome.stage == "pilot":
        return f"pilot {epsilon} · {seeds}"
    if outcome.stage == "confirm":
        return f"{epsilon} · test, seeds {note.numbers(outcome.seeds)}"
    return f"{epsilon} · {'control' if outcome.epsilon == 0 else seeds}"


def answer(evidence: Evidence) -> list[Metric]:
    """The recommended ε, and on *test* its metrics and what it gains over ε = 0."""
    chosen = evidence.recommendations[evidence.policy]
    now = int(time.time() * 1000)
    points = [Metric("recommended_epsilon", chosen.epsilon, now, 0), Metric("candidate_epsilon", chosen.candidate, now, 0)]
    for comparison in evidence.comparisons:
        if comparison.outcome.point == chosen.point:
            points += [metric(f"test/{key}", interval.value) for key, interval in comparison.estimates.items()]
            points += [metric(f"test/{key}_delta", interval.value) for key, interval in comparison.differences.items()]
    return points
