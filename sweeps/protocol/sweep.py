"""Sweep of one task, from its study to its published recommendation."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from sweeps.early_stopping.pruner import waves
from sweeps.plan import Asked, Plan
from sweeps.protocol import pilot
from sweeps.protocol.conductor import Conductor, awaited, trainers_of
from sweeps.protocol.confirm import Confirmation, Run, confirm
from sweeps.protocol.example_table import instances_of
from sweeps.protocol.finished import note_answer
from sweeps.protocol.pilot import most_confirm_seeds
from sweeps.protocol.report import describe, pull_command, shown_place, tables_of, ui_address, write_page
from sweeps.protocol.shortlist import Shortlist, published_before
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
from sweeps.site import Site
from sweeps.studies.design import control_point, planned
from sweeps.studies.opening import CLOSED, open_stage, open_study
from sweeps.studies.retrying_storage import RetryingStorage
from sweeps.studies.study import Study
from sweeps.terminal import Console
from sweeps.training.engine import Engine
from sweeps.training.export import NotExportable, calibrated_model, exported, unpack
from sweeps.workers.metrics import Metrics
from sweeps.workers.worker import Worker, weights_path
from tracking.decision.decide import claimed, decide
from tracking.decision.policies import DROPPED, INCUMBENT
from tracking.decision.power import sentences as told
from tracking.decision.recommend import Source
from tracking.decision.screening import Screening
from tracking.mlflow.model import ExportedModel
from tracking.records.comparison import Comparison
from tracking.records.evidence import Evidence, Opening, Pilot
from tracking.records.outcome import Facts, Outcome
from tracking.records.point import Point, drop_of, key_of
from tracking.records.recommendation import Recommendation
from tracking.records.schema import values_of
from tracking.report import summary
from tracking.report.answer import sentences, smoothing

DECIDED, RECOMMENDED, PUBLISHED = "decided", "recommended", "published"


@dataclass(frozen=True)
class Sweep:
    """The sweep of one task. The methods are its steps; their results are stored in the studies."""

    plan: Plan
    site: Site
    conductor: Conductor
    screening: Study
    records: SweepRecorder
    facts: Facts
    console: Console
    asked: Asked

    @property
    def engine(self) -> Engine:
        """The engine with which this process trains."""
        return self.conductor.worker.engine

    def run(self) -> Recommendation | Pilot | None:
        """Pilot, screen, fit, confirm, decide, publish; see `sweep_task`."""
        if not (self.asked.reopen or self.asked.pilot_only):
            refuse_more(self.screening)
        piloted = self.pilot()
        if self.asked.pilot_only:
            return self.close("FINISHED", piloted)
        screening = self.screen()
        if screening is None:
            return self.give_up("diverged, so there is nothing to compare with")
        shortlist = self.fit(screening)
        parent = self.records.where()
        run_id = parent.id if parent else ""
        openings = self.open_test(shortlist, piloted, run_id)
        confirmation = self.confirm(shortlist, len(openings[-1].seeds))
        if shortlist.control not in confirmation.runs:
            return self.give_up("diverged with fresh seeds, so nothing can be confirmed")
        evidence = self.decide(shortlist, confirmation, screening, piloted, openings, run_id)
        return self.publish(evidence, screening, confirmation)

    def fit(self, screening: Screening) -> Shortlist:
        """Fit the metrics over ε, and choose each policy's candidate."""
        with self.console.phase("fitting accuracy and calibration over ε"):
            return Shortlist.of(screening, self.plan, self.published(screening))

    def open_test(self, shortlist: Shortlist, piloted: Pilot | None, run_id: str) -> tuple[Opening, ...]:
        """Record that *test* is opened for the shortlist, with as many seeds as the plan, an earlier opening
        or the pilot gives.
        """
        earlier = openings_of(self.screening)
        if earlier:
            advised = len(earlier[-1].seeds)
        else:
            advised = piloted.confirm_seeds if piloted else most_confirm_seeds(self.plan)
        points = [shortlist.points[key] for key in (shortlist.control, *shortlist.finalists)]
        seeds = self.plan.confirm_seeds or advised
        return open_test(self.screening, points, seeds, run_id, self.asked.reopen, self.console.say)

    def decide(
        self,
        shortlist: Shortlist,
        confirmation: Confirmation,
        screening: Screening,
        piloted: Pilot | None,
        openings: tuple[Opening, ...],
        run_id: str,
    ) -> Evidence:
        """Recommend an ε by each policy, and collect the evidence."""
        plan, study, dataset, control = self.plan, self.screening, self.engine.dataset, shortlist.control
        comparisons = confirmation.comparisons()
        recommendations, created = self.recommend(shortlist, confirmation, comparisons, len(openings), run_id)
        others = [key for key in comparisons if key != control]
        points = {key: comparisons[key].outcome.point for key in others}
        others.sort(key=lambda key: (drop_of(points[key]) < 1, points[key]["epsilon"]))
        ordered = [control, *others]
        with self.console.phase("judging what was found"):
            bands, surfaces = screening.bands(), screening.surfaces()
            dropped = recommendations[plan.policy].preferred == "dropped"
            shown = shortlist.candidates[plan.policy + (DROPPED if dropped else "")]
            place = shown_place(ordered, shown)
            instances = instances_of(dataset, [confirmation.runs[key] for key in ordered], place)
        return Evidence(
            task=study.task.name,
            study=study.name,
            run_id=run_id,
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

    def recommend(
        self,
        shortlist: Shortlist,
        confirmation: Confirmation,
        comparisons: Mapping[str, Comparison],
        openings: int,
        run_id: str,
    ) -> tuple[dict[str, Recommendation], str]:
        """Each policy's recommendation, and when it was first made."""
        plan, study, dataset = self.plan, self.screening, self.engine.dataset
        source = Source(
            study=study.name,
            run_id=run_id,
            smoothing=plan.bases[0],
            examples=len(dataset.splits["test"].labels),
            openings=openings,
            created="",
            calibrate_examples=len(dataset.splits["calibrate"].labels),
            training=plan.training(study.task, dataset.digest),
        )
        chosen, incumbent = shortlist.candidates, shortlist.incumbent
        decided = decide(
            chosen,
            comparisons,
            shortlist.control,
            plan.terms,
            source,
            earlier_claims(study),
            shortlist.ties,
            incumbent,
            confirmation.between,
            shortlist.constant_first,
        )
        tried = chosen if incumbent is None else {**chosen, INCUMBENT: incumbent}
        note_claims(study, [claim.p for claim in claimed(tried, comparisons, plan.terms)])
        created = first_seen(study, plan.policy, decided)
        return {name: replace(one, created=created) for name, one in decided.items()}, created

    def publish(self, evidence: Evidence, screening: Screening, confirmation: Confirmation) -> Recommendation:
        """Export the network, write the page, publish the evidence to MLflow and print the answer."""
        plan, study, console, task = self.plan, self.screening, self.console, evidence.task
        both = evidence.recommendations[plan.policy]
        shown = both.best
        tables = tables_of(evidence, screening)
        with console.phase("exporting the network of the recommended ε"):
            model = self.model(confirmation.runs[key_of(shown.point)])
        with console.phase("drawing, and publishing to MLflow"):
            page_at = write_page(Path(self.site.state_dir), evidence)
            version = self.records.publish(evidence, tables, model)
            parent = self.records.where()
        links = {"page": page_at} | ({"MLflow": ui_address(self.site, parent.link)} if parent else {})
        if self.asked.tables:
            for table in tables:
                console.table(table, mark=smoothing(shown))
            console.paragraph(summary.LEGEND, "dim")
        if version is None:
            unsent = self.records.unsent().sentence
            console.paragraph(f"MLflow does not have it yet. {unsent}", "red", event="unsent")
        console.say(f"  Pull the ε: {pull_command(self.site, task)}   # --explain, --json")
        console.answer(
            f"Recommended ε for {task}: {smoothing(shown)} (policy {shown.policy})",
            sentences(evidence.recommendations, plan.policy, links),
        )
        study.note(RECOMMENDED, {"policy": shown.policy, "epsilon": both.epsilon})
        note_answer(study, version, links)
        study.note(CLOSED, datetime.now(UTC).isoformat(timespec="seconds"))
        return both

    def give_up(self, why: str) -> Pilot | None:
        """End without a recommendation, as there is no control."""
        self.console.say(f"{self.screening.task.name}: ε = 0 {why}. Try a lower learning_rate.", "red")
        return self.close("FAILED", None)

    def published(self, screening: Screening) -> list[Point]:
        """The published point of the same task, data and recipe by the plan's policy, to be confirmed beside
        the candidates; at most one.

        The first result is stored with the study, so that the finalists of an opened test split do not
        change.
        """
        study, plan = self.screening, self.plan
        known = study.noted(PUBLISHED)
        if known is None or self.asked.reopen:
            training = plan.training(study.task, self.engine.dataset.digest)
            alone = self.asked.fresh or (bool(openings_of(study)) and not self.asked.reopen)
            known = [] if alone else published_before(plan.policy, self.site, study.task.name, training)
            study.note(PUBLISHED, known)
        (low, high), constant = plan.epsilon, {"drop": 1.0} if plan.dropping else {}
        points: list[Point] = [
            point
            for point in ({**{key: one[key] for key in one if key != "drop"}, **constant} for one in known)
            if point.keys() == screening.control_point.keys() and low <= point["epsilon"] <= high
        ]
        for point in points:
            self.console.paragraph(
                f"  ε = {point['epsilon']:g}, which is published for this task, is confirmed beside the"
                " candidates (--fresh: not)."
            )
        return points

    def close(self, status: str, found: Pilot | None) -> Pilot | None:
        """End the sweep without a recommendation."""
        self.records.stop(status)
        self.screening.note(CLOSED, datetime.now(UTC).isoformat(timespec="seconds"))
        return found

    def pilot(self) -> Pilot | None:
        """Train two seeds at ε = 0 and 0.1, and report what this sweep can detect. None where one of them
        diverged.
        """
        control = control_point(self.plan, self.engine.task)
        study = open_stage(self.screening, "pilot", pilot.points(self.plan, control), 0, pilot.SEEDS)
        self.records.catch_up(study.outcomes())
        if pilot.kept(study) is None:
            found = self.conductor.harvest(study, "piloting")
            if len(found) < 2:
                self.console.say(
                    "The pilot diverged, so the noise is unknown. Try a lower learning_rate.", "red"
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
        for wave in waves(points) if self.conductor.worker.pruner(study).active else [points]:
            study.enqueue(wave)
            self.conductor.train(study, "screening")
        # by points, as numbers depend on which trials were queued again
        outcomes = sorted(study.outcomes(), key=lambda one: key_of(one.point))
        plain = sorted((one for one in outcomes if one.epsilon == 0), key=lambda one: one.number)
        control = next(iter(plain), None)  # the recipe's values, unless they diverged
        if control is None:
            return None
        return Screening(outcomes, control, plan.prices, plan.epsilon, study.dropped())

    def confirm(self, shortlist: Shortlist, seeds: int) -> Confirmation:
        """Train the finalists and ε = 0 with fresh seeds, on *test*, until their questions are settled."""
        confirmation = Confirmation(self.engine.dataset, self.plan.terms, seeds, shortlist.control)

        def train(places: Sequence[int], keys: Sequence[str]) -> Mapping[str, tuple[Outcome, Logits]]:
            points = [shortlist.points[key] for key in keys]
            study = open_stage(self.screening, "confirm", points, places[0], len(places))
            self.records.catch_up(study.outcomes())
            found = self.conductor.harvest(
                study, f"confirming with seeds {places[0] + 1} to {places[-1] + 1} of at most {seeds}:"
            )
            return {key: found[key] for key in keys if key in found}

        confirm(confirmation, shortlist.finalists, train)
        return confirmation

    def model(self, run: Run) -> ExportedModel | None:
        """A confirmed point's first member with its recalibration, to be registered; None where its weights
        are gone or torch cannot export it.
        """
        outcome = run.outcomes[0]
        content = awaited(lambda: self.records.artifact(outcome, weights_path(outcome)))
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
            "recalibrator": run.calibrator.method,
            "seed": str(seed),
            "trial": outcome.uid,
        }
        try:
            return exported(
                calibrated_model(self.engine.task, self.engine.dataset, unpack(content), run.calibrator),
                self.engine.dataset,
                about,
            )
        except NotExportable as error:
            self.console.say(f"No model is registered: {error}")
            return None


def sweep_task(
    plan: Plan,
    site: Site,
    engine: Engine,
    storage: RetryingStorage,
    recorder: Recorder,
    console: Console,
    metrics: Metrics,
    asked: Asked,
    metrics_address: str | None = None,
) -> Recommendation | Pilot | None:
    """Pilot, screen on *select*, confirm on *test*, recommend and publish. None where ε = 0 itself diverged.

    Errors: TestOpened where *test* was opened for other finalists and `asked.reopen` is False; NoWorkers
    where all were given up. All trials are stored in the study, and unsent records in the outbox.
    """
    study, message = open_study(storage, plan, engine.task, engine.dataset.digest)
    console.paragraph(f"{study.task.name}: {message}", style="bold", event="opened", study=study.name)
    console.paragraph(
        f"  {describe(plan, engine)}",
        event="plan",
        execution=str(engine.execution),
        device=str(engine.device),
    )
    found = facts(replace(plan, tasks=(study.task,)), site, engine)
    records = SweepRecorder(recorder, engine.dataset, study.name, study.task.name, found, console.warn)
    try:
        worker = Worker(
            study,
            engine,
            records.finish,
            site.checkpoints,
            console.say,
            metrics,
            metrics_address,
        )
        with trainers_of(site, worker, console) as trainers:
            conductor = Conductor(worker, trainers, records, console)
            answer = Sweep(plan, site, conductor, study, records, found, console, asked).run()
            conductor.dismiss()
            return answer
    except BaseException as error:  # the run in MLflow is closed in any case
        ends = {KeyboardInterrupt: "KILLED", TestOpened: "FINISHED"}
        records.stop(next((status for kind, status in ends.items() if isinstance(error, kind)), "FAILED"))
        raise


def first_seen(study: Study, policy: str, recommendations: Mapping[str, Recommendation]) -> str:
    """When a decision was first made, ISO 8601 in UTC: a repeated command publishes the same record."""
    found = [json.dumps(values_of(replace(one, run_id=""))) for one in recommendations.values()]
    digest = hashlib.sha256((policy + "".join(found)).encode()).hexdigest()[:16]
    known = study.noted(DECIDED) or {}
    if digest not in known:
        known = {**known, digest: datetime.now(UTC).isoformat(timespec="seconds")}
        study.note(DECIDED, known)
    return str(known[digest])
