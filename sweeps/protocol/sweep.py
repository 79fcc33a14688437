"""The sweep of one task, from its study to its published recommendation."""

import hashlib
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sweeps.early_stopping.pruner import waves
from sweeps.external_flags import words
from sweeps.plan import Asked, Plan
from sweeps.protocol import pilot
from sweeps.protocol.confirm import Confirmation, Run, confirm
from sweeps.protocol.example_table import instances_of
from sweeps.protocol.finished import note_answer
from sweeps.protocol.pilot import most_confirm_seeds
from sweeps.protocol.test_ledger import (
    TestOpened,
    earlier_claims,
    note_claims,
    open_test,
    openings_of,
    refuse_more,
)
from sweeps.recording.provenance import facts
from sweeps.recording.recorder import Recorder, SweepRecorder
from sweeps.scoring import Logits
from sweeps.site import page_of
from sweeps.studies.design import control_point, planned
from sweeps.studies.retrying_storage import PatientStorage
from sweeps.studies.study import CLOSED, Study, open_stage, open_study
from sweeps.terminal import Console
from sweeps.training.engine import Engine, Progress
from sweeps.training.export import NotExportable, calibrated_model, exported, unpack
from sweeps.workers.launch import kind_of, launcher
from sweeps.workers.launcher import Launcher
from sweeps.workers.metrics import Meter
from sweeps.workers.processes import places
from sweeps.workers.worker import PAUSE_SECONDS, WORKERS, Worker, harvest, patiently, weights_path
from tracking.decision.policies import INCUMBENT, Source, candidates, claimed, decide, in_tie, key_of, tied
from tracking.decision.power import sentences as told
from tracking.decision.screening import Screening
from tracking.mlflow import versions
from tracking.mlflow.client import TrackingUnavailable
from tracking.mlflow.client import shown as shown_uri
from tracking.mlflow.model import ExportedModel
from tracking.mlflow.versions import NotPublished
from tracking.records.evidence import Evidence, Pilot
from tracking.records.outcome import Facts, Outcome, Point
from tracking.records.recommendation import Recommendation
from tracking.report import summary
from tracking.report.answer import sentences
from tracking.report.page import page

DECIDED, RECOMMENDED, PUBLISHED = "decided", "recommended", "published"
LEAVE_SECONDS = 5.0
"""Workers see within so long that a sweep is closed."""
UI_ADDRESS = "LSCAL_MLFLOW_UI"
"""Environment variable: where people open MLflow, if not at the tracking URI."""


@dataclass(frozen=True)
class Sweep:
    """The sweep of one task. The methods are its steps, in this order; what each finds is kept in the
    studies.
    """

    plan: Plan
    worker: Worker
    hands: Worker | Launcher
    screening: Study
    records: SweepRecorder
    facts: Facts
    console: Console
    asked: Asked

    @property
    def engine(self) -> Engine:
        """What this process trains with, where it has to."""
        return self.worker.engine

    def run(self) -> Recommendation | Pilot | None:
        """All steps, see `sweep_task`."""
        plan, study, dataset, task = self.plan, self.screening, self.engine.dataset, self.screening.task
        records, console = self.records, self.console
        if not (self.asked.reopen or self.asked.pilot_only):
            refuse_more(study)
        piloted = self.pilot()
        if self.asked.pilot_only:
            return self.close("FINISHED", piloted)
        screening = self.screen()
        if screening is None:
            console.say(
                f"{task.name}: ε = 0 diverged, so there is nothing to compare with. Try a lower"
                " learning_rate.",
                "red",
            )
            return self.close("FAILED", None)

        with console.phase("fitting accuracy and calibration over ε"):
            chosen, ties = candidates(screening, plan.terms), tied(screening, plan.terms)
            published = self.published(screening)
        control = key_of(screening.control_point)
        points = {control: screening.control_point} | {
            key_of(point): point for point in (*chosen.values(), *published)
        }
        finalists = {
            key: [name for name, point in chosen.items() if key_of(point) == key]
            for key, point in points.items()
            if point["epsilon"] != 0
        }
        incumbent = next(
            (point for point in published if in_tie(screening, plan.terms, plan.policy, point["epsilon"])),
            None,
        )
        if incumbent is not None and plan.policy not in finalists[key_of(incumbent)]:
            finalists[key_of(incumbent)].append(plan.policy)
        earlier = openings_of(study)
        advised = (
            len(earlier[-1].seeds)
            if earlier
            else piloted.confirm_seeds
            if piloted
            else most_confirm_seeds(plan)
        )
        seeds = plan.confirm_seeds or advised
        parent, _ = records.where() or ("", "")
        openings = open_test(
            study,
            [points[key] for key in (control, *finalists)],
            seeds,
            parent,
            self.asked.reopen,
            console.say,
        )
        confirmation = self.confirm(finalists, points, control, seeds)
        comparisons = confirmation.comparisons()
        if control not in comparisons:
            console.say(
                f"{task.name}: ε = 0 diverged with fresh seeds, so nothing can be confirmed. Try a lower"
                " learning_rate.",
                "red",
            )
            return self.close("FAILED", None)

        source = Source(
            study=study.name,
            run_id=parent,
            smoothing=plan.smoothing[0],
            examples=len(dataset.splits["test"].labels),
            openings=len(openings),
            created="",
            calibrate_examples=len(dataset.splits["calibrate"].labels),
            training=plan.training(task, dataset.digest),
        )
        decided = decide(
            chosen, comparisons, control, plan.terms, source, earlier_claims(study), ties, incumbent
        )
        tried = chosen if incumbent is None else {**chosen, INCUMBENT: incumbent}
        note_claims(study, [claim.p for claim in claimed(tried, comparisons, plan.terms)])
        created = first_seen(study, plan.policy, decided)
        recommendations = {name: replace(one, created=created) for name, one in decided.items()}
        ordered = [
            control,
            *sorted((key for key in comparisons if key != control), key=lambda key: comparisons[key].epsilon),
        ]
        with console.phase("judging what was found"):
            bands, surfaces = screening.bands(), screening.surfaces()
            instances = instances_of(
                dataset,
                [confirmation.runs[key] for key in ordered],
                shown_place(ordered, chosen[plan.policy]),
            )
        evidence = Evidence(
            task=task.name,
            study=study.name,
            run_id=parent,
            created=created,
            plan=self.facts.plan,
            facts={**self.facts.params, **self.facts.tags},
            classes=dataset.classes,
            examples={name: len(split.labels) for name, split in dataset.splits.items()},
            policy=plan.policy,
            tolerances=asdict(plan.tolerances),
            prices=asdict(plan.prices),
            recommendations=recommendations,
            pilot=piloted,
            outcomes=tuple(sorted(screening.outcomes, key=lambda outcome: outcome.epsilon)),
            dropped=screening.dropped,
            bands=bands,
            comparisons=tuple(comparisons[key] for key in ordered),
            openings=openings,
            surfaces=surfaces,
            instances=instances,
        )
        tables = tables_of(evidence, screening)
        with console.phase("exporting the network of the recommended ε"):
            model = self.model(confirmation.runs[key_of(recommendations[plan.policy].point)])
        with console.phase("drawing, and publishing to MLflow"):
            page_at = self.write_page(evidence)
            version = records.publish(evidence, tables, model)
            _, link = records.where() or ("", "")
        links = {"page": page_at} | ({"MLflow": ui_address(plan, link)} if link else {})
        shown = recommendations[plan.policy]
        if self.asked.tables:
            for table in tables:
                console.table(table, mark=f"{shown.epsilon:.4g}")
            console.paragraph(summary.LEGEND, "dim")
        if version is None:
            console.paragraph(
                f"MLflow does not have it yet. {records.unsent().sentence}", "red", event="unsent"
            )
        console.say(f"  Pull the ε: {pull_command(plan, task.name)}   # --explain, --json")
        console.answer(
            f"Recommended ε for {task.name}: {shown.epsilon:g} (policy {shown.policy})",
            sentences(recommendations, plan.policy, links),
        )
        study.note(RECOMMENDED, {"policy": shown.policy, "epsilon": shown.epsilon})
        note_answer(study, version, links)
        study.note(CLOSED, datetime.now(UTC).isoformat(timespec="seconds"))
        return shown

    def write_page(self, evidence: Evidence) -> str:
        """Write the page of the task on this machine; its address."""
        path = page_of(Path(self.plan.state_dir), evidence.task)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(evidence), encoding="utf-8")
        return path.absolute().as_uri()

    def published(self, screening: Screening) -> list[Point]:
        """The point that is published for the same task, data and recipe by the plan's policy, to be
        confirmed beside the candidates; at most one.

        What is found the first time is kept with the study, so that the finalists of an opened test split do
        not change.
        """
        study, plan = self.screening, self.plan
        known = study.noted(PUBLISHED)
        if known is None or self.asked.reopen:
            training = plan.training(study.task, self.engine.dataset.digest)
            alone = self.asked.fresh or (bool(openings_of(study)) and not self.asked.reopen)
            known = [] if alone else published_before(plan, study.task.name, training)
            study.note(PUBLISHED, known)
        low, high = plan.epsilon
        points = [
            point
            for point in known
            if point.keys() == screening.control_point.keys() and low <= point["epsilon"] <= high
        ]
        for point in points:
            self.console.paragraph(
                f"  ε = {point['epsilon']:g}, which is published for this task, is confirmed beside the"
                " candidates (--fresh: not)."
            )
        return points

    def dismiss(self) -> None:
        """Let the workers which were placed leave by themselves."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while isinstance(self.hands, Launcher) and self.hands.working() and time.monotonic() < deadline:
            self.hands.watch()
            time.sleep(PAUSE_SECONDS / 4)

    def close(self, status: str, found: Pilot | None) -> Pilot | None:
        """End here, without a recommendation."""
        self.records.stop(status)
        self.screening.note(CLOSED, datetime.now(UTC).isoformat(timespec="seconds"))
        return found

    def pilot(self) -> Pilot | None:
        """Train two seeds at ε = 0 and 0.1, and say what this sweep can find out. None where one of them
        diverged.
        """
        control = control_point(self.plan, self.engine.task)
        study = open_stage(self.screening, "pilot", pilot.points(self.plan, control), 0, pilot.SEEDS)
        self.records.catch_up(study.outcomes())
        if pilot.kept(study) is None:
            found = self.harvest(study, "piloting")
            if len(found) < 2:
                self.console.say(
                    "The pilot diverged, so nothing is known of the noise. Try a lower learning_rate.", "red"
                )
                return None
            pilot.keep(study, found, self.engine)
        right = pilot.kept(study)
        assert right is not None
        report = pilot.report(study, right, self.engine)
        for line in told(report):
            self.console.paragraph(f"  {line}")
        return report

    def screen(self) -> Screening | None:
        """Train the trials of the plan. None where ε = 0 diverged."""
        study, plan = self.screening, self.plan
        self.records.catch_up([*study.outcomes(), *study.dropped()])
        points = planned(plan, study.task)
        for wave in waves(points) if self.worker.ladder(study).active else [points]:
            study.enqueue(wave)
            self.train(study, "screening")
        outcomes = sorted(
            study.outcomes(), key=lambda one: key_of(one.point)
        )  # numbers tell which were queued again
        plain = sorted((one for one in outcomes if one.epsilon == 0), key=lambda one: one.number)
        control = next(iter(plain), None)  # the recipe's own values, unless they diverged
        return (
            None
            if control is None
            else Screening(outcomes, control, plan.prices, plan.epsilon, study.dropped())
        )

    def confirm(
        self, finalists: Mapping[str, Sequence[str]], points: Mapping[str, Point], control: str, seeds: int
    ) -> Confirmation:
        """Train the finalists and ε = 0 with fresh seeds, on *test*, until their questions are settled."""
        confirmation = Confirmation(self.engine.dataset, self.plan.terms, seeds, control)

        def train(places: Sequence[int], keys: Sequence[str]) -> Mapping[str, tuple[Outcome, Logits]]:
            study = open_stage(
                self.screening, "confirm", [points[key] for key in keys], places[0], len(places)
            )
            self.records.catch_up(study.outcomes())
            found = self.harvest(
                study, f"confirming with seeds {places[0] + 1} to {places[-1] + 1} of at most {seeds}:"
            )
            return {key: found[key] for key in keys if key in found}

        confirm(confirmation, finalists, train)
        return confirmation

    def model(self, run: Run) -> ExportedModel | None:
        """A confirmed point's first member with its temperature, to be registered; None where its weights are
        gone or torch cannot export it.
        """
        outcome = run.outcomes[0]
        content = patiently(lambda: self.records.artifact(outcome, weights_path(outcome)))
        if content is None:
            self.console.say(
                "The weights of the recommended ε are not in the tracking store, so no model is registered."
            )
            return None
        temperature, seed = outcome.temperature[0], outcome.seeds[0]
        about = {
            "task": outcome.task,
            "epsilon": f"{outcome.epsilon:g}",
            "temperature": f"{temperature:.6g}",
            "seed": str(seed),
            "trial": outcome.uid,
        }
        try:
            return exported(
                calibrated_model(self.engine.task, self.engine.dataset, unpack(content), temperature),
                self.engine.dataset,
                about,
            )
        except NotExportable as error:
            self.console.say(f"No model is registered: {error}")
            return None

    def harvest(self, study: Study, what: str) -> dict[str, tuple[Outcome, Logits]]:
        """Have what is queued in a study trained, and give each finished trial with its logits."""
        train = partial(self.train, what=what)
        return harvest(study, self.worker, train, self.records.fetch)

    def train(self, study: Study, what: str) -> None:
        """Have what is queued in a study trained, with a progress bar."""
        todo = study.pending() * len(study.seeds) * study.task.recipe.epochs
        with self.console.progress(f"{what} {study.task.name}", todo) as advance:
            if isinstance(self.hands, Worker):
                self.hands.work(study, advance)
            else:
                self.wait(study, self.hands, advance)

    def wait(self, study: Study, hands: Launcher, advance: Progress) -> None:
        """Keep the workers running until a study is finished. Errors: NoWorkers where none is left."""
        left, members = study.pending(), len(study.seeds) * study.task.recipe.epochs
        while left:
            hands.watch()
            study.reap()
            self.worker.roll.clear_gone(self.plan.grace)
            now = study.pending()
            if now < left:
                advance((left - now) * members)
            left = now
            time.sleep(PAUSE_SECONDS)


def sweep_task(
    plan: Plan,
    engine: Engine,
    storage: PatientStorage,
    recorder: Recorder,
    console: Console,
    meter: Meter,
    asked: Asked,
    metrics: str | None = None,
) -> Recommendation | Pilot | None:
    """Pilot, screen on *select*, confirm on *test*, recommend and publish. None where ε = 0 itself diverged.

    Errors: TestOpened where *test* was opened for other finalists and `asked.reopen` is False; NoWorkers
    where all were given up. All trials are kept in the study, and what MLflow did not take in the outbox.
    """
    study, message = open_study(storage, plan, engine.task, engine.dataset.digest)
    console.paragraph(f"{study.task.name}: {message}", style="bold", event="opened", study=study.name)
    console.paragraph(
        f"  {describe(plan, engine)}", event="plan", execution=str(engine.way), device=str(engine.device)
    )
    found = facts(replace(plan, tasks=(study.task,)), engine)
    records = SweepRecorder(recorder, engine.dataset, study.name, study.task.name, found, console.warn)
    try:
        worker = Worker(
            study, engine, records.finish, Path(plan.state_dir, "checkpoints"), console.say, meter, metrics
        )
        with hands_of(plan, worker, console) as hands:
            sweep = Sweep(plan, worker, hands, study, records, found, console, asked)
            answer = sweep.run()
            sweep.dismiss()
            return answer
    except BaseException as error:  # the run in MLflow is closed, whatever happened
        records.stop(
            "KILLED"
            if isinstance(error, KeyboardInterrupt)
            else "FINISHED"
            if isinstance(error, TestOpened)
            else "FAILED"
        )
        raise


def hands_of(plan: Plan, worker: Worker, console: Console) -> Worker | Launcher:
    """Who trains: the worker of this process, where one is enough; or those which are placed, or join from
    elsewhere.
    """
    study, kind = worker.screening, kind_of(plan)
    study.note(WORKERS, len(places(plan.workers, plan.device)) if kind == "processes" else 0)
    if kind == "inline":
        return worker
    if kind == "elsewhere":
        bring = shlex.join(["", *words(plan.datasets, plan.architectures, study.task.name)]).removeprefix(
            "''"
        )
        console.say(
            f"  Waiting for workers: python -m sweeps.worker --study {study.name}{bring}",
            event="waiting",
            study=study.name,
        )
    return launcher(plan, study.name, console.warn, "json" if console.json else "text")


def published_before(plan: Plan, task: str, training: str) -> list[Point]:
    """The point above ε = 0 that the plan's policy recommends in the published version of a task, if that is
    of the same training.
    """
    try:
        found = versions.version(plan.tracking_uri, task)
        record = found.recommendation(plan.policy)
    except (NotPublished, TrackingUnavailable):
        return []
    return [dict(record.point)] if record.training == training and record.epsilon != 0 else []


def first_seen(study: Study, policy: str, recommendations: Mapping[str, Recommendation]) -> str:
    """When a decision was made first, ISO 8601 in UTC: the same command, run again, publishes the same
    one.
    """
    content = policy + "".join(replace(one, run_id="").to_json() for one in recommendations.values())
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    known = study.noted(DECIDED) or {}
    if digest not in known:
        known = {**known, digest: datetime.now(UTC).isoformat(timespec="seconds")}
        study.note(DECIDED, known)
    return str(known[digest])


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


def ui_address(plan: Plan, link: str) -> str:
    """Where a person opens MLflow at a place in its UI."""
    server = os.environ.get(UI_ADDRESS) or (
        shown_uri(plan.tracking_uri) if plan.tracking_uri.startswith("http") else "http://127.0.0.1:5000"
    )
    return f"{server.rstrip('/')}/{link}"


def pull_command(plan: Plan, task: str) -> str:
    """The exact command that pulls what was found."""
    custom = (
        "" if plan.tracking_uri == Plan.tracking_uri else f" --tracking-uri {shown_uri(plan.tracking_uri)}"
    )
    return f"python -m tracking.recommend {task}{custom}"
