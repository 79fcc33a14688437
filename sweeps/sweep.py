"""The sweep of one task, from its study to its published recommendation."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from optuna.storages import RDBStorage

from sweeps.confirm import confirm
from sweeps.console import Console
from sweeps.engine import Engine
from sweeps.plan import Plan
from sweeps.recorder import Recorder, SweepRecorder
from sweeps.study import open_confirmation, open_study, written
from sweeps.worker import work
from tracking import summary
from tracking.policies import POLICIES, candidates, recommend
from tracking.records import Facts, Outcome, Recommendation
from tracking.store import shown as shown_uri

PACKAGES = ("torch", "optuna", "mlflow", "scikit-learn", "netcal", "numpy")


def sweep_task(plan: Plan, engine: Engine, storage: RDBStorage, recorder: Recorder, console: Console) -> Recommendation | None:
    """Screen on *select*, confirm on *test*, recommend and publish. None where ε = 0 itself diverged.

    Errors: TrackingUnavailable where MLflow does not take the recommendation; all trials are kept in the study.
    """
    task, dataset = engine.task, engine.dataset
    study, message = open_study(storage, plan, task, dataset.digest)
    console.say(f"{task.name}: {message}", style="bold")
    console.say(f"  {describe(plan, engine)}")
    records = SweepRecorder(recorder, dataset, study.name, task.name, facts(replace(plan, tasks=(task,)), engine), console.say)
    try:
        records.catch_up([*study.outcomes(), *study.dropped()])
        todo = study.unfinished() * plan.seeds * task.recipe.epochs
        with console.progress(f"screening {task.name}", todo) as advance:
            work(study, engine, records.finish, advance, console.say)
        outcomes = study.outcomes()
        control = control_of(outcomes)
        if control is None:
            records.stop("FAILED")
            console.say(f"{task.name}: ε = 0 diverged, so there is nothing to compare with. Try a lower learning_rate.", "red")
            return None

        chosen = candidates(outcomes)
        finalists = list({one.uid: one for one in (control, *chosen.values())}.values())
        confirmation = open_confirmation(storage, study, [one.point for one in finalists])
        records.catch_up(confirmation.outcomes())
        todo = confirmation.unfinished() * plan.confirm_seeds * task.recipe.epochs
        with console.progress(f"confirming {task.name}", todo) as advance:
            comparisons = confirm(confirmation, engine, records.finish, records.fetch, advance, console.say)
        found = {frozenset(comparison.outcome.point.items()): comparison for comparison in comparisons}
        points = {one.uid: frozenset(one.point.items()) for one in finalists}
        confirmed = {uid: found[point] for uid, point in points.items() if point in found}
        if control.uid not in confirmed:
            records.stop("FAILED")
            console.say(f"{task.name}: ε = 0 diverged with fresh seeds, so nothing can be confirmed. Try a lower learning_rate.", "red")
            return None

        parent, link = records.opened.result()
        recommendations = {
            name: recommend(name, candidate, confirmed, confirmed[control.uid], plan.tolerances, parent)
            for name, candidate in chosen.items()
        }
        tables = [summary.screening(outcomes), summary.differences(outcomes, control), summary.confirmation(list(confirmed.values()))]
        if dropped := study.dropped():
            tables.append(summary.dropped(dropped, plan.policy))
        records.publish(plan.policy, recommendations, list(confirmed.values()), tables)
    except BaseException as error:  # the run in MLflow is closed, whatever happened
        records.stop("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    shown = recommendations[plan.policy]
    for table in tables:
        console.table(table, mark=f"{shown.epsilon:.4g}")
    console.say(summary.LEGEND, "dim")
    closing(plan, shown, link, console)
    return shown


def control_of(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The trial at ε = 0 and the recipe's own values: the first one of them to be queued. None where it failed."""
    return next((outcome for outcome in outcomes if outcome.epsilon == 0), None)


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
    console.say(f"  Pull the ε: python -m tracking.recommend {shown.task}{custom}")
    console.say("")
