"""Log: what is written to MLflow. One experiment per task, a parent run per sweep, a child run per trial.

A trial is written when it is finished, by one batch of all its numbers and one of its files. Runs are found again by the
tag `uid`, so that a resumed sweep goes on where it was.
"""

import logging
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from tracking import view
from tracking.recommend import POLICY_TAG, TAG
from tracking.records import Comparison, Facts, Outcome, Recommendation
from tracking.store import TrackingUnavailable, shown
from tracking.summary import LEGEND, Table, name

DECIMALS = 7
BATCH = 1000
NOTE_LIMIT = 8000
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's own would block for four minutes on a dead server
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Settings of MLflow for a sweep. What the user sets is left alone."""


def connect(uri: str) -> MlflowClient:
    """A client of a tracking store that answers. Errors: TrackingUnavailable."""
    for key, value in DEFAULTS.items():
        os.environ.setdefault(key, value)
    for noisy in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    except (OSError, SQLAlchemyError, MlflowException) as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise TrackingUnavailable(f"the MLflow tracking store {shown(uri)} does not answer: {cause}") from error
    return client


class Sweep:
    """The runs of one study: its parent, and a child per trial."""

    def __init__(self, client: MlflowClient, task: str, study: str, facts: Facts):
        self.client, self.task, self.study, self.facts = client, task, study, facts
        experiment = client.get_experiment_by_name(task)
        if experiment is not None and experiment.lifecycle_stage != "active":
            raise TrackingUnavailable(
                f"the MLflow experiment {task!r} was deleted. Restore it: mlflow experiments restore -x {experiment.experiment_id}"
            )
        tags = {view.TAG: view.trials_view()}
        self.experiment: str = client.create_experiment(task, tags=tags) if experiment is None else experiment.experiment_id
        found = self.runs(f"tags.role = 'sweep' AND tags.study = '{study}'")
        self.parent: str = found[0].info.run_id if found else self.create("sweep", f"sweep {study.rpartition('@')[2]}", {})
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

    def create(self, role: str, run_name: str, tags: Mapping[str, str], seconds: float = 0.0) -> str:
        """A new run, begun so many seconds ago, with everything of `Facts` on it."""
        start = int(1000 * (time.time() - seconds))
        every = {"role": role, "task": self.task, "study": self.study, **self.facts.tags, **tags}
        run_id: str = self.client.create_run(self.experiment, start, every, run_name).info.run_id
        entity = Dataset(name=self.facts.dataset, digest=self.facts.digest, source_type="local", source=self.facts.where)
        self.client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "sweep")])])
        return run_id

    def trial(self, outcome: Outcome, files: Mapping[str, bytes]) -> None:
        """Write a finished trial, whose uid is not in `logged`. `files` are artifacts by path."""
        suffix = {"screen": " (control)" if outcome.epsilon == 0 else "", "confirm": " confirmed"}[outcome.stage]
        tags = {"mlflow.parentRunId": self.parent, "uid": outcome.uid, "stage": outcome.stage}
        if outcome.dropped:
            suffix = " dropped"
            tags |= {"dropped": outcome.dropped, "mlflow.note.content": outcome.dropped}
        run_id = self.create("trial", f"ε = {name(outcome)}{suffix}", tags, outcome.seconds)
        params = {
            **self.facts.params,
            **{key: f"{value:.6g}" for key, value in outcome.point.items()},
            "epsilon_wrong_classes": f"{outcome.epsilon * (outcome.classes - 1) / outcome.classes:.6g}",
            "stage": outcome.stage,
            "seeds": " ".join(str(seed) for seed in outcome.seeds),
        }
        self.write(run_id, metrics_of(outcome), params, {})
        self.upload(run_id, {**files, "outcome.json": outcome.to_json().encode()})
        self.client.set_terminated(run_id, "KILLED" if outcome.dropped else "FINISHED")
        self.logged[outcome.uid] = run_id

    def logits(self, outcome: Outcome, split: str) -> bytes | None:
        """The logits file of a logged trial, None where the store does not have it."""
        run_id = self.logged.get(outcome.uid)
        path = f"logits/{split}.npz"
        if run_id is None or path not in {file.path for file in self.client.list_artifacts(run_id, "logits")}:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(run_id, path, folder)).read_bytes()

    def publish(
        self,
        policy: str,
        recommendations: Mapping[str, Recommendation],
        confirmed: Sequence[Comparison],
        tables: Sequence[Table],
    ) -> None:
        """Write the recommendations to the parent run and to the experiment, with the tables and the way to the pictures.

        From here on they can be pulled. The experiment's tags are written last: a reader never finds half of it.
        """
        chosen = recommendations[policy]
        metrics = [metric("recommended_epsilon", chosen.epsilon)]
        for comparison in confirmed:
            if comparison.epsilon == chosen.epsilon:
                metrics += [metric(f"test/{key}", interval.value) for key, interval in comparison.estimates.items()]
                metrics.append(metric("test/accuracy_delta", comparison.differences["accuracy"].value))
        best = next((one.outcome for one in confirmed if one.epsilon == chosen.candidate), confirmed[0].outcome)
        note = note_of(chosen, recommendations, tables, self.link(""), self.logged.get(best.uid))
        tags = {"recommended_epsilon": f"{chosen.epsilon:g}", "policy": policy, "mlflow.note.content": note}
        params = {key: value for key, value in self.facts.params.items() if key not in self.client.get_run(self.parent).data.params}
        self.write(self.parent, metrics, params, tags)
        records = {f"recommendation.{key}.json": record.to_json().encode() for key, record in recommendations.items()}
        self.upload(self.parent, {**records, "plan.yaml": self.facts.plan.encode(), "summary.md": note.encode()})
        self.client.set_terminated(self.parent)
        for key, record in recommendations.items():
            self.client.set_experiment_tag(self.experiment, TAG + key, record.to_json())
        self.client.set_experiment_tag(self.experiment, POLICY_TAG, policy)
        self.client.set_experiment_tag(self.experiment, "mlflow.note.content", note)

    def link(self, server: str) -> str:
        """The address of the task's experiment in the MLflow UI."""
        return f"{server.rstrip('/')}{'/' if server else ''}#/experiments/{self.experiment}/runs?workflowType=machine_learning&viewStateShareKey={view.KEY}"

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
    points = []
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
    """A metric point, rounded to what can matter."""
    return Metric(key, round(value, DECIMALS), int(time.time() * 1000), step)


def note_of(
    chosen: Recommendation, recommendations: Mapping[str, Recommendation], tables: Iterable[Table], link: str, pictured: str | None
) -> str:
    """Markdown which begins with the answer; `pictured` is the run whose reliability diagram it shows.

    MLflow cuts a note at 8000 characters: tables which do not fit are left out.
    """
    note = f"## Recommended ε = {chosen.epsilon:g} (policy {chosen.policy})\n\n{chosen.reason}\n\n"
    note += f"[All trials by ε]({link}) · pull it: `python -m tracking.recommend {chosen.task}`\n"
    for other in recommendations.values():
        if other.policy != chosen.policy:
            note += f"\nPolicy {other.policy}: ε = {other.epsilon:g}. {other.reason}\n"
    if pictured:
        note += f"\n![reliability diagrams on test](get-artifact?path=reliability/test.png&run_uuid={pictured})\n"
    for table in tables:
        section = f"\n{table.to_markdown()}\n"
        if len(note) + len(section) + len(LEGEND) + 2 <= NOTE_LIMIT:
            note += section
    return f"{note}\n{LEGEND}"
