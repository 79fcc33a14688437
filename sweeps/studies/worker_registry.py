"""Registry of the workers of a sweep, in the study database.

A worker is a RUNNING trial of the study `NAME/workers` with Optuna's heartbeat, so workers coordinate as
trials do, and a wrong clock of a worker does no harm. SQLite has no clock of its own; it uses the machine's.
"""

import contextlib
import math
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from sqlalchemy.engine import Connection

from sweeps.studies import queries

ABOUT = "about"
"""User attribute of a worker's trial: the worker's description of itself."""
HOLDS = "holds"
"""User attribute of a worker's trial: the trials it is training."""
WORKERS = "/workers"
"""Suffix of the name of the study that holds the registry."""


@dataclass(frozen=True)
class RegisteredWorker:
    """An open entry of the registry.

    Attributes:
        number: 0, 1, … in the order of entry.
        about: the worker's own description: host, pid, device, …; its clock may be wrong.
        holds: the trials it is training.
        age: seconds since the last heartbeat.
        alive: whether that is within the grace.
    """

    number: int
    about: Mapping[str, str | None]
    holds: tuple[str, ...]
    age: float
    alive: bool


class Registration:
    """A worker's own entry. After it was closed as dead, the next beat opens a new one."""

    def __init__(self, storage: RDBStorage, study: int, about: Mapping[str, str | None]):
        self.storage, self.study, self.about = storage, study, dict(about)
        self.holds: list[str] = []
        self.since = time.monotonic()
        self.left = False
        self.lock = threading.Lock()  # beats come from another thread
        self.trial = self.entered()

    def entered(self) -> int:
        """Trial of a new entry. It gets a heartbeat before it runs: without one it could never be found
        overdue.
        """
        queued = create_trial(state=TrialState.WAITING, user_attrs={ABOUT: self.about, HOLDS: self.holds})
        trial = self.storage.create_new_trial(self.study, queued)
        self.storage.record_heartbeat(trial)
        self.storage.set_trial_state_values(trial, TrialState.RUNNING)
        return trial

    def beat(self) -> None:
        """Record a heartbeat. Errors: those of the storage, after which the next beat may succeed."""
        with self.lock:
            if self.left:
                return
            if self.storage.get_trial(self.trial).state == TrialState.RUNNING:
                self.storage.record_heartbeat(self.trial)
            else:
                self.trial = self.entered()

    def hold(self, trials: Sequence[str]) -> None:
        """Store that trials the worker trains, such as `pilot-0-2#3`, for people to read. Errors: those of
        the storage.
        """
        self.holds = list(trials)
        with contextlib.suppress(UpdateFinishedTrialError):  # closed as dead: the next beat stores it
            self.storage.set_trial_user_attr(self.trial, HOLDS, self.holds)

    def leave(self) -> None:
        """Close the entry, its value the worker's lifetime in seconds. Repeated calls do nothing."""
        with self.lock:
            self.left = True
            closed(self.storage, self.trial, TrialState.COMPLETE, time.monotonic() - self.since)


class WorkerRegistry:
    """Workers of one sweep, stored in the database alone."""

    def __init__(self, storage: RDBStorage, name: str):
        self.storage = storage
        try:
            self.study = storage.create_new_study([StudyDirection.MAXIMIZE], name + WORKERS)
        except DuplicatedStudyError:
            self.study = storage.get_study_id_from_name(name + WORKERS)

    def enter(self, about: Mapping[str, str | None]) -> Registration:
        """A new worker's entry, kept alive by its beats. Errors: those of the storage."""
        return Registration(self.storage, self.study, about)

    def present(self, grace: float) -> list[RegisteredWorker]:
        """All open entries, by number; those without a heartbeat for `grace` seconds are not alive."""
        running = self.storage.get_all_trials(self.study, deepcopy=False, states=(TrialState.RUNNING,))
        ages = heartbeat_ages(self.storage, [self.study])
        found = []
        for trial in running:
            age, noted = ages.get(trial._trial_id, math.inf), trial.user_attrs
            found.append(
                RegisteredWorker(
                    trial.number, noted.get(ABOUT, {}), tuple(noted.get(HOLDS, ())), age, age <= grace
                )
            )
        return found

    def clear_gone(self, grace: float) -> int:
        """Close the entries without a heartbeat for `grace` seconds. Returns how many."""
        gone = [trial for trial, age in heartbeat_ages(self.storage, [self.study]).items() if age > grace]
        return sum(closed(self.storage, trial, TrialState.FAIL) for trial in gone)


def closed(storage: RDBStorage, trial: int, state: TrialState, value: float | None = None) -> bool:
    """Whether this call ended a trial, and not an earlier one."""
    try:
        return storage.set_trial_state_values(trial, state, None if value is None else [value])
    except UpdateFinishedTrialError:
        return False


def heartbeat_ages(storage: RDBStorage, studies: Collection[int]) -> dict[int, float]:
    """Seconds since the last heartbeat of each RUNNING trial of some studies (their ids), by trial id;
    infinite where there was none.

    Errors: those of SQLAlchemy.
    """
    with storage.engine.connect() as connection:
        return ages_of(connection, studies)


def ages_of(connection: Connection, studies: Collection[int]) -> dict[int, float]:
    """As `heartbeat_ages`, on an open connection.

    Optuna stores heartbeats without a time zone, in that of the connection: all clients of a PostgreSQL have
    to use the same one.
    """
    return {
        row.trial_id: (
            math.inf
            if row.heartbeat is None
            else max(0.0, (row.now.replace(tzinfo=None) - row.heartbeat).total_seconds())
        )
        for row in connection.execute(queries.HEARTBEATS, {"studies": list(studies)})
    }
