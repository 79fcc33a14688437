"""The sweep of one task, from its study to its published recommendation."""

import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from optuna.storages import RDBStorage

from sweeps import pilot
from sweeps.confirm import Confirmation, Run, confirm
from sweeps.console import Console
from sweeps.engine import Engine
from sweeps.export import NotExportable, calibrated_model, exported, unpack
from sweeps.instances import instances_of
from sweeps.openings import TestOpened, earlier_claims, note_claims, open_test, openings_of, refuse_more
from sweeps.pilot import most_confirm_seeds
from sweeps.plan import Plan
from sweeps.recorder import Recorder, SweepRecorder
from sweeps.study import Study, control_point, open_stage, open_study, written
from sweeps.worker import Logits, harvest, weights_path, work
from tracking import summary
from tracking.evidence import Evidence, Pilot
from tracking.model import ExportedModel
from tracking.pilot import sentences
from tracking.policies import POLICIES, Source, candidates, claimed, decide, key_of
from tracking.records import Facts, Outcome, Point, Recommendation
from tracking.screening import Screening
from tracking.store import shown as shown_uri

DECIDED = "decided"
PACKAGES = ("torch", "optuna", "mlflow", "scikit-learn", "netcal", "numpy")


@dataclass(frozen=True)
class Sweep:
    """The sweep of one task. The methods are its steps, in this order; what each finds is kept in the studies."""

    plan: Plan
    engine: Engine
    storage: RDBStorage
    screening: Study
    records: SweepRecorder
    console: Console

    def pilot(self) -> Pilot | None:
        """Train two seeds at ε = 0 and 0.1, and say what this sweep can find out. None where one of them diverged."""
        control = control_point(self.plan, self.engine.task)
        study = open_stage(self.storage, self.screening, "pilot", pilot.points(self.plan, control), 0, pilot.SEEDS)
        self.records.catch_up(study.outcomes())
        if pilot.kept(study) is None:
            found = self.harvest(study, "piloting")
            if len(found) < 2:
                self.console.say("The pilot diverged, so nothing is known of the noise. Try a lower learning_rate.", "red")
                return None
            pilot.keep(study, found, self.engine)
        right = pilot.kept(study)
        assert right is not None
        report = pilot.report(study, right, self.engine)
        for line in sentences(report):
            self.console.say(f"  {line}")
        return report

    def screen(self) -> Screening | None:
        """Train the trials of the plan. None where ε = 0 diverged."""
        study, plan = self.screening, self.plan
        self.records.catch_up([*study.outcomes(), *study.dropped()])
        todo = study.unfinished() * plan.seeds * study.task.recipe.epochs
        with self.console.progress(f"screening {study.task.name}", todo) as advance:
            work(study, self.engine, self.records.finish, advance, self.console.say)
        outcomes = study.outcomes()
        control = next((outcome for outcome in outcomes if outcome.epsilon == 0), None)
        return None if control is None else Screening(outcomes, control, plan.prices, plan.epsilon, study.dropped())

    def confirm(self, finalists: Mapping[str, Sequence[str]], points: Mapping[str, Point], control: str, seeds: int) -> Confirmation:
        """Train the finalists and ε = 0 with fresh seeds, on *test*, until their questions are settled."""
        confirmation = Confirmation(self.engine.dataset, self.plan.terms, seeds, control)

        def train(places: Sequence[int], keys: Sequence[str]) -> Mapping[str, tuple[Outcome, Logits]]:
            study = open_stage(self.storage, self.screening, "confirm", [points[key] for key in keys], places[0], len(places))
            self.records.catch_up(study.outcomes())
            found = self.harvest(study, f"confirming with seeds {places[0] + 1} to {places[-1] + 1} of at most {seeds}:")
            return {key: found[key] for key in keys if key in found}

        confirm(confirmation, finalists, train)
        return confirmation

    def model(self, run: Run) -> ExportedModel | None:
        """A confirmed point's first member with its temperature, to be registered; None where its weights are gone or torch cannot export it."""
        outcome = run.outcomes[0]
        content = self.records.artifact(outcome, weights_path(outcome))
        if content is None:
            self.console.say("The weights of the recommended ε are not in the tracking store, so no model is registered.")
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
                calibrated_model(self.engine.task, self.engine.dataset, unpack(content), temperature), self.engine.dataset, about
            )
        except NotExportable as error:
            self.console.say(f"No model is registered: {error}")
            return None

    def harvest(self, study: Study, what: str) -> dict[str, tuple[Outcome, Logits]]:
        """Train what is queued in a study, with a progress bar."""
        todo = study.unfinished() * len(study.seeds) * study.task.recipe.epochs
        with self.console.progress(f"{what} {study.task.name}", todo) as advance:
            return harvest(study, self.engine, self.records.finish, self.records.fetch, advance, self.console.say)


def sweep_task(
    plan: Plan, engine: Engine, storage: RDBStorage, recorder: Recorder, console: Console, *, pilot_only: bool = False, reopen: bool = False
) -> Recommendation | Pilot | None:
    """Pilot, screen on *select*, confirm on *test*, recommend and publish. None where ε = 0 itself diverged.

    Errors: TestOpened where *test* was opened for other finalists and `reopen` is False; TrackingUnavailable where MLflow does not
    take the recommendation. All trials are kept in the study.
    """
    task, dataset = engine.task, engine.dataset
    study, message = open_study(storage, plan, task, dataset.digest)
    console.say(f"{task.name}: {message}", style="bold")
    console.say(f"  {describe(plan, engine)}")
    found = facts(replace(plan, tasks=(task,)), engine)
    records = SweepRecorder(recorder, dataset, study.name, task.name, found, console.say)
    sweep = Sweep(plan, engine, storage, study, records, console)
    try:
        if not (reopen or pilot_only):
            refuse_more(study)
        piloted = sweep.pilot()
        if pilot_only:
            records.stop("FINISHED")
            return piloted
        screening = sweep.screen()
        if screening is None:
            records.stop("FAILED")
            console.say(f"{task.name}: ε = 0 diverged, so there is nothing to compare with. Try a lower learning_rate.", "red")
            return None

        chosen = candidates(screening, plan.terms)
        control = key_of(screening.control_point)
        points = {control: screening.control_point} | {key_of(point): point for point in chosen.values()}
        finalists = {
            key: [name for name, point in chosen.items() if key_of(point) == key] for key, point in points.items() if point["epsilon"] > 0
        }
        earlier = openings_of(study)
        advised = len(earlier[-1].seeds) if earlier else piloted.confirm_seeds if piloted else most_confirm_seeds(plan)
        seeds = plan.confirm_seeds or advised
        parent, link = records.opened.result()
        openings = open_test(study, [points[key] for key in (control, *finalists)], seeds, parent, reopen, console.say)
        confirmation = sweep.confirm(finalists, points, control, seeds)
        comparisons = confirmation.comparisons()
        if control not in comparisons:
            records.stop("FAILED")
            console.say(f"{task.name}: ε = 0 diverged with fresh seeds, so nothing can be confirmed. Try a lower learning_rate.", "red")
            return None

        source = Source(study.name, parent, plan.smoothing, len(dataset.splits["test"].labels), len(openings), "")
        decided = decide(chosen, comparisons, control, plan.terms, source, earlier_claims(study))
        note_claims(study, [comparisons[key].claims[metric].p for key, metric in claimed(chosen) if key in comparisons])
        created = first_seen(study, plan.policy, decided)
        recommendations = {name: replace(one, created=created) for name, one in decided.items()}
        ordered = [control, *(key for key in comparisons if key != control)]
        evidence = Evidence(
            task=task.name,
            study=study.name,
            run_id=parent,
            created=created,
            plan=found.plan,
            facts={**found.params, **found.tags},
            classes=dataset.classes,
            examples={name: len(split.labels) for name, split in dataset.splits.items()},
            policy=plan.policy,
            tolerances=asdict(plan.tolerances),
            prices=asdict(plan.prices),
            recommendations=recommendations,
            pilot=piloted,
            outcomes=tuple(sorted(screening.outcomes, key=lambda outcome: outcome.epsilon)),
            dropped=screening.dropped,
            bands=screening.bands(),
            comparisons=tuple(comparisons[key] for key in ordered),
            openings=openings,
            instances=instances_of(dataset, [confirmation.runs[key] for key in ordered], shown_place(ordered, chosen[plan.policy])),
        )
        tables = tables_of(evidence, screening)
        records.publish(evidence, tables, sweep.model(confirmation.runs[key_of(recommendations[plan.policy].point)]))
    except BaseException as error:  # the run in MLflow is closed, whatever happened
        records.stop("KILLED" if isinstance(error, KeyboardInterrupt) else "FINISHED" if isinstance(error, TestOpened) else "FAILED")
        raise
    shown = recommendations[plan.policy]
    for table in tables:
        console.table(table, mark=f"{shown.epsilon:.4g}")
    console.say(summary.LEGEND, "dim")
    closing(plan, shown, link, console)
    return shown


def first_seen(study: Study, policy: str, recommendations: Mapping[str, Recommendation]) -> str:
    """When a decision was made first, ISO 8601 in UTC: the same command, run again, publishes the same one."""
    content = policy + "".join(one.to_json() for one in recommendations.values())
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    known = study.noted(DECIDED) or {}
    if digest not in known:
        known = {**known, digest: datetime.now(UTC).isoformat(timespec="seconds")}
        study.note(DECIDED, known)
    return str(known[digest])


def shown_place(keys: Sequence[str], candidate: Point) -> int:
    """The place of the candidate among the confirmed points; of the last one where it is ε = 0, or is not among them."""
    return keys.index(key_of(candidate)) if key_of(candidate) in keys[1:] else len(keys) - 1


def tables_of(evidence: Evidence, screening: Screening) -> list[summary.Table]:
    """What a person reads at the end."""
    tables = [
        summary.conditions(evidence.recommendations[evidence.policy]),
        summary.confirmation(evidence.comparisons),
        summary.screening(evidence.outcomes),
        summary.differences(evidence.outcomes, screening.control),
    ]
    if evidence.dropped:
        tables.append(summary.dropped(evidence.dropped, evidence.policy))
    return [table for table in tables if table.rows]


def describe(plan: Plan, engine: Engine) -> str:
    """The resolved plan of a task in one line."""
    examples = {name: len(split.labels) for name, split in engine.dataset.splits.items()}
    tuned = "".join(f", {name} in [{low:g}, {high:g}]" for name, (low, high) in plan.tune.items())
    return (
        f"ε in [{plan.epsilon[0]:g}, {plan.epsilon[1]:g}]{tuned}, {plan.smoothing} smoothing; {plan.trials} trials × {plan.seeds} paired seeds × "
        f"{engine.task.recipe.epochs} epochs; examples: {', '.join(f'{name} {n}' for name, n in examples.items())}; "
        f"{engine.way} on {engine.device}"
    )


def facts(plan: Plan, engine: Engine) -> Facts:
    """What a reader of a run needs to repeat it."""
    task, dataset = engine.task, engine.dataset
    recipe = {name: written(value) for name, value in task.recipe.to_mapping().items() if name not in plan.tune}
    versions = {f"version.{package}": importlib.metadata.version(package) for package in PACKAGES}
    commit = git_commit()
    return Facts(
        params={
            "dataset": task.dataset,
            "architecture": task.architecture,
            "smoothing": plan.smoothing,
            "train_examples": str(len(dataset.splits["train"].labels)),
            **recipe,
        },
        tags={
            **versions,
            "version.python": platform.python_version(),
            "device": str(engine.device),
            "engine": engine.way.kind,
            "precision": engine.way.precision,
            **({"mlflow.source.git.commit": commit} if commit else {}),
        },
        dataset=dataset.name,
        digest=dataset.digest,
        where=dataset.where,
        plan=plan.to_yaml(),
    )


def git_commit() -> str | None:
    """The commit of this code, None outside of a git checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def closing(plan: Plan, shown: Recommendation, link: str, console: Console) -> None:
    """The answer, and the exact next commands."""
    console.say("")
    console.say(f"Recommended ε for {shown.task}: {shown.epsilon:g} (policy {shown.policy})", "bold green")
    console.say(f"  {shown.reason}")
    if others := [name for name in POLICIES if name != shown.policy]:
        console.say(f"  Other policies: --policy {' or '.join(others)} of tracking.recommend.")
    console.say("")
    given = shown_uri(plan.tracking_uri)
    if plan.tracking_uri.startswith("http"):
        server = given
    else:
        uri = "" if plan.tracking_uri == Plan.tracking_uri else f" --backend-store-uri {given}"
        console.say(f"  Browse it:  mlflow server{uri}")
        server = "http://127.0.0.1:5000"
    console.say(f"  then open   {server.rstrip('/')}/{link}")
    custom = "" if plan.tracking_uri == Plan.tracking_uri else f" --tracking-uri {given}"
    console.say(f"  Its page:   python -m tracking.serve{custom}")
    console.say(f"  then open   http://127.0.0.1:8000/v1/tasks/{shown.task}/page")
    console.say(f"  Pull the ε: python -m tracking.recommend {shown.task}{custom}")
    console.say("")
