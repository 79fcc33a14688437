"""Progress of sweeps, read from the study database without Optuna."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from sweeps.errors import WrongInput
from sweeps.studies import queries
from sweeps.studies.database import StoreAway, cause_of
from sweeps.studies.worker_registry import ABOUT, HOLDS, WORKERS, ages_of

GRACE = 30.0
"""Seconds of silence after which a worker is taken for dead, where the study does not say."""
RECENT = 16
"""Finished trials of a stage from which its speed is worked out, the latest ones."""
NEARLY = 0.9
"""Part of a running trial which is at most taken for done: it may be slower than those before it."""
STATES = ("finished", "running", "queued", "dropped", "diverged", "requeued")
"""What a trial can be. Requeued: given up by its worker; its point is tried again under another number."""
STAGES = ("pilot", "screen", "confirm")
BASE = re.compile(r"(?P<task>[a-z0-9_]+/[a-z0-9_]+)@[0-9a-f]{8}")
BESIDE = re.compile(r"(?P<stage>pilot|confirm)-(?P<first>\d{1,6})-(?P<end>\d{1,6})")
KEPT = ("plan", "settings", "created", "closed", "recommended")
"""What is read of a sweep's user attributes."""
NOTED = ("diverged", "surplus", ABOUT, HOLDS)
"""What is read of a trial's."""


@dataclass(frozen=True)
class WorkerStatus:
    """A worker which is on a sweep's roll, as it described itself.

    Attributes:
        since: when it came, by its own clock.
        metrics: where its metrics are served; "" where they are not.
        silent_seconds: since its last sign of life, by the database's clock; None where there was none.
        trials: those which it has in hand.
    """

    number: int
    host: str
    pid: str
    device: str
    engine: str
    since: str
    metrics: str
    silent_seconds: float | None
    alive: bool
    trials: tuple[str, ...]


@dataclass(frozen=True)
class StageStatus:
    """One study of a sweep.

    Attributes:
        members: of each trial.
        planned: trials which there are to be: those which are, and those which the plan still wants drawn.
        trials: how many are in each of `STATES`.
    """

    study: str
    stage: str
    members: int
    planned: int
    trials: Mapping[str, int]

    @property
    def left(self) -> int:
        """Trials which nobody has begun."""
        return self.planned - sum(
            self.trials[state] for state in ("finished", "running", "dropped", "diverged")
        )


@dataclass(frozen=True)
class SweepStatus:
    """How far a sweep is.

    Attributes:
        stage: `pilot`, `screen` or `confirm`, whichever is under way; `deciding` between them; `closed`.
        closed: ISO 8601, None while it is open.
        member_epochs_per_second: None where nothing runs, or no trial of the stage was finished yet.
        seconds_left: of the stage under way; None where it is not known. How long a confirmation goes on is
            known to nobody.
        recommended: policy and ε, None until they are decided.
    """

    task: str
    study: str
    created: str | None
    closed: str | None
    stage: str
    trials: Mapping[str, int]
    stages: tuple[StageStatus, ...]
    member_epochs_per_second: float | None
    members_per_second: float | None
    seconds_left: float | None
    ends: str | None
    workers: tuple[WorkerStatus, ...]
    recommended: Mapping[str, Any] | None


@dataclass(frozen=True)
class TrialRow:
    """A trial as it lies in the store. `age` is that of its heartbeat in seconds, infinite where it has none
    or does not run.
    """

    id: int
    number: int
    state: str
    started: datetime | None
    ended: datetime | None
    age: float
    notes: Mapping[str, Any]

    @property
    def kind(self) -> str | None:
        """One of `STATES`; None where it is one too many."""
        return kind_of(self.state, self.notes)

    @property
    def seconds(self) -> float | None:
        """How long it took, by its worker's clock alone; None where it has not come to its end."""
        return (self.ended - self.started).total_seconds() if self.started and self.ended else None


def kind_of(state: str, notes: Mapping[str, Any]) -> str | None:
    """What a trial is, one of `STATES`, by Optuna's name of its state; None where it is one too many."""
    if "surplus" in notes:
        return None
    kinds = {"COMPLETE": "finished", "RUNNING": "running", "WAITING": "queued", "PRUNED": "dropped"}
    return kinds.get(state) or ("diverged" if "diverged" in notes else "requeued")


@dataclass(frozen=True)
class Snapshot:
    """What was read of a store: ids of studies by name, attributes by study, trials by study, epochs of
    dropped trials by trial.
    """

    studies: Mapping[str, int]
    attributes: Mapping[int, Mapping[str, Any]]
    trials: Mapping[int, Sequence[TrialRow]]
    epochs: Mapping[int, int]


def progress(engine: Engine, patterns: Sequence[str] = ()) -> list[SweepStatus]:
    """The sweeps of the tasks which a pattern matches, by default all; open ones first, the latest first.

    Errors: WrongInput where a pattern matches none; StoreAway.
    """
    try:
        with engine.connect() as connection:
            snapshot = read(connection, patterns)
    except SQLAlchemyError as error:
        raise StoreAway(cause_of(error)) from error
    found = [
        sweep_of(name, snapshot, datetime.now(UTC))
        for name in reversed(list(snapshot.studies))
        if BASE.fullmatch(name)
    ]
    return sorted(found, key=lambda sweep: sweep.closed is not None)


def read(connection: Connection, patterns: Sequence[str]) -> Snapshot:
    """What is known of the sweeps of some tasks. Errors: WrongInput where a pattern matches none."""
    rows = connection.execute(queries.STUDIES).all()
    names = [row.study_name for row in rows if BASE.fullmatch(row.study_name)]
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            tasks = sorted({name.partition("@")[0] for name in names})
            raise WrongInput(
                f"there is no sweep of task {pattern!r} in this store; there are:"
                f" {', '.join(tasks) or 'none'}."
            )
    chosen = [name for name in names if not patterns or any(matches(name, pattern) for pattern in patterns)]
    studies = {row.study_name: row.study_id for row in rows if row.study_name.startswith(tuple(chosen))}
    attributes: dict[int, dict[str, Any]] = {}
    for row in connection.execute(
        queries.ATTRIBUTES_OF_STUDIES, {"studies": [studies[name] for name in chosen], "keys": KEPT}
    ):
        attributes.setdefault(row.study_id, {})[row.key] = json.loads(row.value_json)
    wanted = {"studies": list(studies.values())}
    ages = ages_of(connection, wanted["studies"])
    notes: dict[int, dict[str, Any]] = {}
    for row in connection.execute(queries.ATTRIBUTES_OF_TRIALS, {**wanted, "keys": NOTED}):
        notes.setdefault(row.trial_id, {})[row.key] = json.loads(row.value_json)
    trials: dict[int, list[TrialRow]] = {}
    for row in connection.execute(queries.TRIALS, wanted):
        one = TrialRow(
            row.trial_id,
            row.number,
            row.state,
            row.started,
            row.ended,
            ages.get(row.trial_id, math.inf),
            notes.get(row.trial_id, {}),
        )
        trials.setdefault(row.study_id, []).append(one)
    dropped = [one.id for rows in trials.values() for one in recent(rows) if one.state == "PRUNED"]
    outcomes = connection.execute(queries.OUTCOMES, {"trials": dropped})
    epochs = {row.trial_id: epochs_of(row.value_json) for row in outcomes}
    return Snapshot(studies, attributes, trials, epochs)


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern such as `fashion_mnist/*` means a sweep's task, or is the name of its study."""
    return pattern == name or fnmatchcase(name.partition("@")[0], pattern)


def epochs_of(outcome: str) -> int:
    """How many epochs a dropped trial was trained, by its outcome."""
    return max((len(curve) for curve in json.loads(json.loads(outcome))["curves"].values()), default=0)


def recent(trials: Iterable[TrialRow]) -> list[TrialRow]:
    """The trials which came to their end last."""
    ended = [one for one in trials if one.kind in ("finished", "dropped") and one.seconds is not None]
    return sorted(ended, key=lambda one: one.ended or datetime.min)[-RECENT:]


def sweep_of(name: str, snapshot: Snapshot, now: datetime) -> SweepStatus:
    """How far one sweep is."""
    kept = snapshot.attributes.get(snapshot.studies[name], {})
    plan, settings = mapping(kept.get("plan")), mapping(kept.get("settings"))
    grace, epochs = number(settings.get("grace")) or GRACE, number(plan.get("epochs"))
    stages = sorted(
        (stage for study in snapshot.studies if (stage := stage_of(name, study, plan, settings, snapshot))),
        key=order,
    )
    closed = kept.get("closed")
    under_way = next(
        (stage.stage for stage in stages if stage.trials["running"] or stage.left > 0), "deciding"
    )
    speed, left = pace([stage for stage in stages if stage.stage == under_way], epochs, grace, snapshot, now)
    entries = snapshot.trials.get(snapshot.studies.get(name + WORKERS, -1), ())
    return SweepStatus(
        task=name.partition("@")[0],
        study=name,
        created=None if (created := number(kept.get("created"))) is None else iso(created),
        closed=str(closed) if closed else None,
        stage="closed" if closed else under_way,
        trials={state: sum(stage.trials[state] for stage in stages) for state in STATES},
        stages=tuple(stages),
        member_epochs_per_second=speed,
        members_per_second=speed / epochs if speed and epochs else None,
        seconds_left=left,
        ends=None if left is None else iso(now.timestamp() + left),
        workers=tuple(worker_of(one, grace) for one in entries if one.kind == "running"),
        recommended=mapping(kept.get("recommended")) or None,
    )


def stage_of(
    name: str, study: str, plan: Mapping[str, Any], settings: Mapping[str, Any], snapshot: Snapshot
) -> StageStatus | None:
    """A study as a stage of the sweep `name`; None where it is none."""
    trials = snapshot.trials.get(snapshot.studies[study], ())
    counts = Counter(one.kind for one in trials)
    planned = sum(counts[state] for state in STATES if state != "requeued")
    if study == name:
        stage, members = "screen", int(number(plan.get("seeds")) or 1)
        if settings.get("tune"):  # its points are drawn one by one
            planned = max(planned, int(number(settings.get("trials")) or 0))
    elif study.startswith(name + "/") and (beside := BESIDE.fullmatch(study.removeprefix(name + "/"))):
        stage, members = beside["stage"], int(beside["end"]) - int(beside["first"])
    else:
        return None
    return StageStatus(study, stage, members, planned, {state: counts[state] for state in STATES})


def order(stage: StageStatus) -> tuple[int, int]:
    """Sorts stages as they come to pass."""
    beside = BESIDE.fullmatch(stage.study.rpartition("/")[2])
    return STAGES.index(stage.stage), int(beside["first"]) if beside else 0


def pace(
    stages: Sequence[StageStatus], epochs: float | None, grace: float, snapshot: Snapshot, now: datetime
) -> tuple[float | None, float | None]:
    """Member-epochs per second of a stage, and the seconds until all that is queued in it is trained; None
    where they are not known.

    The trials which ended last tell how fast one member among many is, by durations alone, so that no
    worker's clock matters; that times the members which run now is the speed now. How far a running trial is
    follows from when it began by its worker's clock, between none and nearly all.
    """
    trials = [
        (one, stage.members)
        for stage in stages
        for one in snapshot.trials.get(snapshot.studies[stage.study], ())
    ]
    ended = {one.id for one in recent(one for one, _ in trials)}
    running = [(one, members) for one, members in trials if one.kind == "running" and one.age <= grace]
    spent = sum((one.seconds or 0.0) * members for one, members in trials if one.id in ended)
    if not epochs or spent <= 0 or not running:
        return None, None
    of_member = (
        sum(snapshot.epochs.get(one.id, epochs) * members for one, members in trials if one.id in ended)
        / spent
    )
    speed = of_member * sum(members for _, members in running)
    if speed <= 0:
        return None, None
    waiting = sum(stage.members * (stage.left + stage.trials["running"]) for stage in stages) * epochs
    done = sum(members * min(NEARLY * epochs, of_member * elapsed(one, now)) for one, members in running)
    return speed, (waiting - done) / speed


def elapsed(trial: TrialRow, now: datetime) -> float:
    """Seconds since a trial was begun, not below 0."""
    return max(0.0, (now.replace(tzinfo=None) - trial.started).total_seconds()) if trial.started else 0.0


def worker_of(trial: TrialRow, grace: float) -> WorkerStatus:
    """An entry of a roll."""
    about = mapping(trial.notes.get(ABOUT))
    host, pid, device, engine, since, metrics = (
        str(about.get(key) or "") for key in ("host", "pid", "device", "engine", "since", "metrics")
    )
    holds = trial.notes.get(HOLDS)
    return WorkerStatus(
        number=trial.number,
        host=host,
        pid=pid,
        device=device,
        engine=engine,
        since=since,
        metrics=metrics,
        silent_seconds=trial.age if math.isfinite(trial.age) else None,
        alive=trial.age <= grace,
        trials=tuple(map(str, holds)) if isinstance(holds, list) else (),
    )


def mapping(value: Any) -> Mapping[str, Any]:
    """A value of the store as a mapping, or as JSON of one; empty where it is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
    """A value of the store as a finite number, None where it is none."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def iso(seconds: float) -> str:
    """A moment in ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
