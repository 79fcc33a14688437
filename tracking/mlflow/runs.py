"""Runs of a sweep in MLflow. One experiment per task, a parent run per sweep, a child run per trial.

A trial is written when it is finished, by one batch of all its numbers and one of its files. Every step may
be repeated and leaves the same: runs are found again by the tag `uid`, times are those of the record, and a
run is complete when it is terminated. Any number of processes write to one sweep; MLflow has no transaction
over "find or create", so where two create at once, both see it and agree on which run stays.
"""

import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, Param, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from tracking.mlflow import example_table, note, registry, view
from tracking.mlflow.client import TrackingUnavailable, is_server, reach, shown, sqlite_path
from tracking.mlflow.model import ExportedModel
from tracking.mlflow.note import Places
from tracking.mlflow.versions import folder_of
from tracking.names import model_of
from tracking.records.about import About
from tracking.records.evidence import Evidence
from tracking.records.inputs import CONTEXTS, USED
from tracking.records.outcome import Outcome
from tracking.records.point import brief
from tracking.report.answer import smoothing
from tracking.report.summary import Table, count, name

BATCH = 1000
ARTIFACTS = "artifacts"
"""Tag of a trial's run: how many files it has beside outcome and pictures. They may come after the numbers,
from another machine.
"""
DECIMALS = 7
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # MLflow's own would block for four minutes on a dead server
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for results
}
"""Settings of MLflow for a sweep. The user's own are left alone."""


def connect(uri: str) -> MlflowClient:
    """A client of a tracking store that answers. Errors: TrackingAway; TrackingUnavailable."""
    reach(uri)
    for key, value in DEFAULTS.items():
        os.environ.setdefault(key, value)
    for noisy in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        with alone(uri):
            client = MlflowClient(uri, uri)
            client.search_experiments(max_results=1)
    except (OSError, SQLAlchemyError, MlflowException) as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise TrackingUnavailable(
            f"the MLflow tracking store {shown(uri)} does not answer: {cause}"
        ) from error
    return client


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """One process at a time in the folder of a SQLite database: two that create MLflow's tables at once
    leave them broken.
    """
    path = None if is_server(uri) else sqlite_path(uri)
    if not path:
        yield
        return
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


class SweepRuns:
    """The runs of one study: its parent, and a child per trial. Both experiment and parent are found, or
    made.
    """

    def __init__(self, client: MlflowClient, about: About):
        self.client, self.task, self.study, self.facts, self.inputs = (
            client,
            about.task,
            about.study,
            about.facts,
            about.inputs,
        )
        self.experiment = self.experiment_of(self.task)
        self.name = f"sweep {self.study.rpartition('@')[2]}"
        parent = self.found("role = 'sweep'") or self.create(
            "role = 'sweep'", self.name, {"role": "sweep"}, None
        )
        self.parent: str = parent.info.run_id
        if not (parent.inputs and parent.inputs.dataset_inputs):
            client.log_inputs(self.parent, self.inputs.of(self.facts, tuple(CONTEXTS)))

    def experiment_of(self, task: str) -> str:
        """The id of the task's experiment, with its views. Errors: TrackingUnavailable where it was
        deleted.
        """
        views = dict(view.views())
        if self.client.get_experiment_by_name(task) is None:
            try:
                return str(self.client.create_experiment(task, tags=views))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process made it meanwhile
                    raise
        experiment = self.client.get_experiment_by_name(task)
        assert experiment is not None
        if experiment.lifecycle_stage != "active":
            raise TrackingUnavailable(
                f"the MLflow experiment {task!r} was deleted. Restore it: mlflow experiments restore -x"
                f" {experiment.experiment_id}"
            )
        for key, value in views.items():
            if experiment.tags.get(key) != value:
                self.client.set_experiment_tag(experiment.experiment_id, key, value)
        return str(experiment.experiment_id)

    def runs(self, where: str) -> list[Run]:
        """The runs of the study that match, all pages; of those that are the same, the one that stays comes
        first.
        """
        found: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment], f"tags.study = '{self.study}' AND tags.{where}", page_token=token
            )
            found.extend(page)
            token = page.token
            if not token:
                return sorted(found, key=lambda run: (not complete(run), -artifacts(run), run.info.run_id))

    def found(self, where: str) -> Run | None:
        """The one run that matches, None where there is none."""
        return next(iter(self.runs(where)), None)

    def create(self, where: str, run_name: str, tags: Mapping[str, str], start: int | None) -> Run:
        """A new run, with everything of `Facts` on it. Where another process made the same run at the same
        time, both return the same one.
        """
        every = {"task": self.task, "study": self.study, **self.facts.tags, **tags}
        made: Run = self.client.create_run(self.experiment, start, every, run_name)
        first, *_ = self.runs(where)
        if first.info.run_id != made.info.run_id:
            self.client.delete_run(made.info.run_id)
        return first

    def resume(self) -> None:
        """Mark the parent run of a sweep that was killed, or had failed, as RUNNING again."""
        if self.client.get_run(self.parent).info.status in ("KILLED", "FAILED"):
            self.client.update_run(self.parent, status="RUNNING")

    def logged(self) -> set[str]:
        """The uids of the trials whose runs are complete."""
        return {run.data.tags["uid"] for run in self.runs("role = 'trial'") if complete(run)}

    def trial(self, outcome: Outcome, files: Mapping[str, bytes], pictures: Mapping[str, bytes]) -> None:
        """Write a finished trial, or the parts that its run lacks; nothing where that is complete. `files`
        and `pictures` are artifacts by path.
        """
        uid, ended = f"uid = '{outcome.uid}'", milliseconds(outcome.finished)
        tags = {
            "role": "trial",
            "mlflow.parentRunId": self.parent,
            "uid": outcome.uid,
            "finished": outcome.finished,
            "stage": outcome.stage,
            "mlflow.note.content": note.of_trial(outcome),
            "mlflow.runColor": view.colour(outcome.epsilon),
            **({"dropped": outcome.dropped} if outcome.dropped else {}),
        }
        run = self.found(uid) or self.create(
            uid, trial_name(outcome), tags, ended - int(1000 * outcome.seconds)
        )
        if complete(run) and artifacts(run) >= len(files):
            return
        run_id, outcome = (
            run.info.run_id,
            replace(outcome, finished=run.data.tags["finished"]),
        )  # where it was trained twice, one time
        params = {
            **self.facts.params,
            **{key: brief(value, 6) for key, value in outcome.point.items()},
            "epsilon_wrong_classes": f"{outcome.epsilon * (outcome.classes - 1) / outcome.classes:.6g}",
            "stage": outcome.stage,
            "seeds": f"{len(outcome.seeds)}: {note.numbers(outcome.seeds)}",
        }
        if not complete(run):
            self.client.log_inputs(run_id, self.inputs.of(self.facts, USED[outcome.stage]))
            self.write(run_id, metrics_of(outcome), params, {})
        self.upload(run_id, {**pictures, **files, "outcome.json": outcome.to_json().encode()})
        self.client.set_tag(run_id, ARTIFACTS, str(len(files)))
        self.client.set_terminated(
            run_id, "KILLED" if outcome.dropped else "FINISHED", milliseconds(outcome.finished)
        )
        for other in self.runs(uid)[1:]:
            if complete(other):  # no process writes it any more, and all keep the same one
                self.client.delete_run(other.info.run_id)

    def artifact(self, uid: str, path: str) -> bytes | None:
        """A file of a trial, None where the store does not have it, or has half of it."""
        run = self.found(f"uid = '{uid}'")
        return (
            registry.artifact(self.client, run.info.run_id, path)
            if run is not None and complete(run)
            else None
        )

    def tidy(self) -> None:
        """Leave one parent and one run per trial, where processes that did not see each other made two."""
        parents, trials = self.runs("role = 'sweep'"), self.runs("role = 'trial'")
        seen: set[str] = set()
        for run in trials:
            if run.data.tags["uid"] in seen:
                self.client.delete_run(run.info.run_id)
            elif run.data.tags["mlflow.parentRunId"] != self.parent:
                self.client.set_tag(run.info.run_id, "mlflow.parentRunId", self.parent)
            seen.add(run.data.tags["uid"])
        for run in parents:
            if run.info.run_id != self.parent:
                self.client.delete_run(run.info.run_id)

    def publish(
        self,
        evidence: Evidence,
        tables: Sequence[Table],
        model: ExportedModel | None,
        pictures: Mapping[str, bytes],
    ) -> int:
        """Write all that was found to the parent run, publish the recommendations, and have the experiment's
        note begin with the answer.

        The records get the id of the parent run, unknown while MLflow is away. Each step may be repeated. The
        registry comes after the run it points to is complete, and the note last: a reader never finds half of
        it. Returns the number of the published version.
        """
        from tracking.report.page import page

        self.tidy()
        evidence = self.placed(evidence)
        constant = evidence.recommendations[evidence.policy]
        chosen = constant.best
        decision = {
            **{
                f"recommendation.{key}.json": record.to_json().encode()
                for key, record in evidence.recommendations.items()
            },
            "evidence.json": evidence.to_json().encode(),
            "page.html": page(evidence).encode(),
            "plan.yaml": evidence.plan.encode(),
        }
        kept = {
            f"{folder_of(evidence.created)}/{name}": content for name, content in decision.items()
        }  # later ones replace those at the root
        self.upload(self.parent, {**pictures, **example_table.table(evidence), **decision, **kept})
        tags = {
            "recommended_epsilon": f"{constant.epsilon:g}",
            "recommended_smoothing": chosen.smoothing,
            "policy": evidence.policy,
            **example_table.TAGS,
        }
        params = {
            key: value
            for key, value in self.facts.params.items()
            if key not in self.client.get_run(self.parent).data.params
        }
        self.write(self.parent, answer(evidence), params, tags)
        source = self.client.get_run(self.parent).info.artifact_uri if model is None else self.keep(model)
        verdict = "adopted" if chosen.epsilon != 0 else "kept"
        self.client.set_terminated(self.parent, end_time=milliseconds(evidence.created))
        self.client.update_run(self.parent, name=f"ε = {smoothing(chosen)} {verdict} · {self.name}")
        version = registry.publish(
            self.client, self.task, evidence.recommendations, evidence.policy, self.parent, source
        )
        text = note.of_sweep(
            evidence, tables, Places(self.experiment, self.parent, version, model is not None)
        )
        self.upload(self.parent, {"summary.md": text.encode()})
        self.client.set_tag(self.parent, "mlflow.note.content", text)
        self.client.set_experiment_tag(self.experiment, "mlflow.note.content", text)
        return version

    def placed(self, evidence: Evidence) -> Evidence:
        """The evidence with the parent run's id where it belongs."""
        named = {key: replace(one, run_id=self.parent) for key, one in evidence.recommendations.items()}
        openings = tuple(
            replace(one, run_id=self.parent) if one.run_id == "" else one for one in evidence.openings
        )
        return replace(evidence, run_id=self.parent, recommendations=named, openings=openings)

    def keep(self, model: ExportedModel) -> str:
        """Have MLflow keep a model, once; its URI."""
        same = self.client.search_logged_models([self.experiment], f"tags.digest = '{model.digest}'")
        if same and same[0].status == LoggedModelStatus.READY:
            return f"models:/{same[0].model_id}"
        tags = {"digest": model.digest, "task": self.task}
        name = model_of(self.task)
        kept = (
            same[0]
            if same
            else self.client.create_logged_model(self.experiment, name, self.parent, tags, dict(model.about))
        )
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
        """Mark the parent run as KILLED or FAILED; `resume` sets it RUNNING again."""
        self.client.set_terminated(self.parent, status)

    def write(
        self, run_id: str, metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """One batch; more only where there are over 1000 metric points, MLflow's limit."""
        head, rest = metrics[: BATCH - len(params) - len(tags)], metrics[BATCH - len(params) - len(tags) :]
        self.client.log_batch(
            run_id, head, [Param(*item) for item in params.items()], [RunTag(*item) for item in tags.items()]
        )
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


def complete(run: Run) -> bool:
    """Whether all of a run is there: it is terminated as the last step of its writing."""
    return bool(RunStatus.is_terminated(RunStatus.from_string(run.info.status)))


def artifacts(run: Run) -> int:
    """How many files a trial's run has beside outcome and pictures."""
    return int(run.data.tags.get(ARTIFACTS, 0))


def milliseconds(when: str) -> int:
    """An ISO 8601 time as MLflow counts."""
    return int(1000 * datetime.fromisoformat(when).timestamp())


def metrics_of(outcome: Outcome) -> list[Metric]:
    """Every final metric as mean and, under `…_sd`, standard deviation over the seeds, and the curves epoch
    by epoch.
    """
    when = milliseconds(outcome.finished)  # fixed: a point that is written again is the same point
    points = [metric("epsilon", outcome.epsilon, when)]
    for key in outcome.metrics:
        points.append(metric(key, outcome.mean(key), when))
        points.append(metric(f"{key}_sd", outcome.spread(key), when))
    if outcome.temperature:
        points.append(metric("temperature", sum(outcome.temperature) / len(outcome.temperature), when))
    points.append(metric("train_seconds", outcome.seconds, when))
    for key, values in outcome.curves.items():
        points += [metric(f"curves/{key}", value, when, epoch) for epoch, value in enumerate(values, start=1)]
    return points


def metric(key: str, value: float, when: int, step: int = 0) -> Metric:
    """A metric point with the five digits that can matter: the UI shows all there are. `outcome.json` has the
    others.
    """
    return Metric(key, float(f"{round(value, DECIMALS):.5g}") + 0.0, when, step)


def trial_name(outcome: Outcome) -> str:
    """Name of a run in a list, such as `ε = 0.15 · 8 seeds`."""
    epsilon, seeds = f"ε = {name(outcome)}", count(len(outcome.seeds))
    if outcome.dropped:
        return f"{epsilon} · dropped"
    if outcome.stage == "pilot":
        return f"pilot {epsilon} · {seeds}"
    if outcome.stage == "confirm":
        return f"{epsilon} · test, seeds {note.numbers(outcome.seeds)}"
    return f"{epsilon} · {'control' if outcome.epsilon == 0 else seeds}"


def answer(evidence: Evidence) -> list[Metric]:
    """The recommended constant ε; on *test* the metrics of the recommended smoothing, and what it gains."""
    chosen = evidence.recommendations[evidence.policy]
    when = milliseconds(evidence.created)
    points = [
        Metric("recommended_epsilon", chosen.epsilon, when, 0),
        Metric("candidate_epsilon", chosen.candidate, when, 0),
    ]
    for comparison in evidence.comparisons:
        if comparison.outcome.point == chosen.best.point:
            points += [
                metric(f"test/{key}", interval.value, when) for key, interval in comparison.estimates.items()
            ]
            points += [
                metric(f"test/{key}_delta", interval.value, when)
                for key, interval in comparison.differences.items()
            ]
    return points
