"""Registry of the workers of a sweep, in the study database.

A worker is a RUNNING trial of the study `NAME/workers` with a heartbeat of Optuna's, so that the only
coordination is the one which trials have, and a wrong clock on a worker does no harm. SQLite has no clock of
its own; there it is that of the machine.
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
"""User attribute of a worker's trial: what it says about itself."""
HOLDS = "holds"
"""User attribute of a worker's trial: the trials which it has in hand."""
WORKERS = "/workers"
"""Ends the name of the study which is a roll."""


@dataclass(frozen=True)
class RegisteredWorker:
    """An entry of the roll which is not crossed out.

    Attributes:
        number: 0, 1, … in the order of entry.
        about: what the worker said of itself: host, pid, device, …; its clock may be wrong.
        holds: the trials which it has in hand.
        age: seconds since the last sign of life.
        alive: whether that is within the grace.
    """

    number: int
    about: Mapping[str, str | None]
    holds: tuple[str, ...]
    age: float
    alive: bool


class Registration:
    """A worker's entry. One who was taken for dead and crossed out is entered again by the next beat."""

    def __init__(self, storage: RDBStorage, study: int, about: Mapping[str, str | None]):
        self.storage, self.study, self.about = storage, study, dict(about)
        self.holds: list[str] = []
        self.since = time.monotonic()
        self.left = False
        self.lock = threading.Lock()  # beats come from a thread of their own
        self.trial = self.entered()

    def entered(self) -> int:
        """A new entry's trial. It runs only once it has a heartbeat: one without could never be found
        silent.
        """
        queued = create_trial(state=TrialState.WAITING, user_attrs={ABOUT: self.about, HOLDS: self.holds})
        trial = self.storage.create_new_trial(self.study, queued)
        self.storage.record_heartbeat(trial)
        self.storage.set_trial_state_values(trial, TrialState.RUNNING)
        return trial

    def beat(self) -> None:
        """Give a sign of life. Errors: those of the storage, after which the next beat may succeed."""
        with self.lock:
            if self.left:
                return
            if self.storage.get_trial(self.trial).state == TrialState.RUNNING:
                self.storage.record_heartbeat(self.trial)
            else:
                self.trial = self.entered()

    def hold(self, trials: Sequence[str]) -> None:
        """Tell which trials the worker has in hand, such as `pilot-0-2#3`, for people to read. Errors: those
        of the storage.
        """
        self.holds = list(trials)
        with contextlib.suppress(UpdateFinishedTrialError):  # crossed out: the next beat tells it
            self.storage.set_trial_user_attr(self.trial, HOLDS, self.holds)

    def leave(self) -> None:
        """Cross the entry out, its value the seconds for which the worker was there. A second time, it does
        nothing.
        """
        with self.lock:
            self.left = True
            closed(self.storage, self.trial, TrialState.COMPLETE, time.monotonic() - self.since)


class WorkerRegistry:
    """The workers of one sweep. Its state is in the database alone."""

    def __init__(self, storage: RDBStorage, name: str):
        self.storage = storage
        try:
            self.study = storage.create_new_study([StudyDirection.MAXIMIZE], name + WORKERS)
        except DuplicatedStudyError:
            self.study = storage.get_study_id_from_name(name + WORKERS)

    def enter(self, about: Mapping[str, str | None]) -> Registration:
        """A worker's entry, to be kept alive by its beats. Errors: those of the storage."""
        return Registration(self.storage, self.study, about)

    def present(self, grace: float) -> list[RegisteredWorker]:
        """All entries which are not crossed out, by number; those silent for longer than `grace` seconds are
        not alive.
        """
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
        """Cross out the entries which are silent for longer than `grace` seconds, and say how many those
        were.
        """
        gone = [trial for trial, age in heartbeat_ages(self.storage, [self.study]).items() if age > grace]
        return sum(closed(self.storage, trial, TrialState.FAIL) for trial in gone)


def closed(storage: RDBStorage, trial: int, state: TrialState, value: float | None = None) -> bool:
    """Whether it was this call that ended a trial, and not an earlier one."""
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
    """As `heartbeat_ages`, of a database which is not opened as a storage.

    Optuna writes heartbeats without a time zone, in that of the connection: all who share a PostgreSQL have
    to agree on it.
    """
    return {
        row.trial_id: (
            math.inf
            if row.heartbeat is None
            else max(0.0, (row.now.replace(tzinfo=None) - row.heartbeat).total_seconds())
        )
        for row in connection.execute(queries.HEARTBEATS, {"studies": list(studies)})
    }
