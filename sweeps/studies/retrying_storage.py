"""Storage of studies that retries while its database is away."""

import inspect
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import optuna
from optuna.exceptions import OptunaError, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    ProgrammingError,
    SQLAlchemyError,
)

from sweeps.errors import Failed, WrongInput
from sweeps.plan import Plan
from sweeps.studies.progress import cause_of
from tracking.mlflow.client import REFUSED, shown

OPEN_SECONDS = 60.0
"""How long a database that is away at the start is waited for."""
OPENED_AT_ONCE = 8
"""How often the tables of a new database are tried to be created, where others do the same."""


RETRY_SECONDS = 300.0
"""How long a database may be away."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
INNER = ("_create_new_trial", "_get_trials", "_set_trial_param", "_get_stale_trial_ids")
"""Methods which Optuna's cache calls, although they are not public."""


class StoreUnavailable(Failed):
    """The study store did not come back in time."""


def transient(error: BaseException) -> bool:
    """Whether an error says that the database is away, restarting, or busy."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    # PendingRollbackError: Optuna takes any operational error for too long a query, and tries another one on
    # the broken connection
    return isinstance(cause, (OperationalError, InterfaceError, PendingRollbackError)) or (
        isinstance(cause, DBAPIError) and cause.connection_invalidated
    )


class RetryingStorage(RDBStorage):
    """Optuna's database storage, whose calls are repeated while the database is away, for up to `patience`
    seconds.

    A call may have been carried out although its answer was lost. So what calls it has to be harmless when
    repeated: see `sweeps.studies.study`.
    """

    retry_seconds = RETRY_SECONDS

    def __init__(self, url: str, **settings: Any):
        self.local = threading.local()
        self.say: Callable[[str], None] = partial(print, file=sys.stderr)  # until someone has a better place
        with self.without_retries():  # a wrong URL is to be told at once
            super().__init__(url, **settings)

    def use_grace(self, seconds: float) -> None:
        """After how many seconds of silence a trial is given up."""
        self.grace_period = max(1, round(seconds))

    @contextmanager
    def without_retries(self) -> Iterator[None]:
        """Calls of this thread fail at once while inside."""
        before, self.local.inside = getattr(self.local, "inside", False), True
        try:
            yield
        finally:
            self.local.inside = before

    def patiently(self, call: Callable[[], Any]) -> Any:
        """What a call gives, once the database answers. Errors: StoreUnavailable after `patience` seconds."""
        if getattr(self.local, "inside", False):  # only the outermost call is repeated
            return call()
        deadline, pause, said = time.monotonic() + self.retry_seconds, FIRST_PAUSE, False
        while True:
            try:
                with self.without_retries():
                    value = call()
            except (StorageInternalError, SQLAlchemyError) as error:
                if not transient(error):
                    raise
                cause = cause_of(error.__cause__ or error)
                if time.monotonic() + pause > deadline:
                    raise StoreUnavailable(
                        f"the study store {shown(self.url)} does not answer: {cause}"
                    ) from error
                if not said and pause > 1:
                    self.say(
                        f"The study store {shown(self.url)} does not answer ({cause}); trying again for"
                        f" {self.retry_seconds:g} s."
                    )
                    said = True
                time.sleep(random.uniform(pause / 2, pause))  # noqa: S311  # so that workers do not come back all at once
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if said:
                self.say(f"The study store {shown(self.url)} is back.")
            return value


def repeated(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the storage, repeated while the database is away."""

    @wraps(method)
    def call(self: RetryingStorage, *arguments: Any, **named: Any) -> Any:
        return self.patiently(lambda: method(self, *arguments, **named))

    return call


for name, method in inspect.getmembers(RDBStorage, inspect.isfunction):
    if name in INNER or not name.startswith("_"):
        setattr(RetryingStorage, name, repeated(method))


def wait_for_storage(url: str, say: Callable[..., None]) -> RetryingStorage:
    """The database of studies, waited for where it is away: a sweep or a worker is often started before it.

    Errors: WrongInput where the URL or the credentials are wrong; StoreUnavailable where it stays away.
    """
    deadline = time.monotonic() + OPEN_SECONDS
    while True:
        try:
            return open_storage(url)
        except WrongInput as error:
            cause = error.__cause__
            if cause is None or not transient(cause) or any(word in str(cause) for word in REFUSED):
                raise
            if time.monotonic() > deadline:
                raise StoreUnavailable(str(error)) from error
            say(
                f"{error} Trying again, for {deadline - time.monotonic():.0f} s more.",
                event="waiting",
                storage=shown(url),
            )
            time.sleep(5)


def open_storage(url: str) -> RetryingStorage:
    """The database of studies. Errors: WrongInput, naming the URL without its password."""
    for attempt in range(OPENED_AT_ONCE):
        try:
            return make_storage(url)
        except (ProgrammingError, IntegrityError, OperationalError) as error:
            if "exists" not in str(error).lower() or attempt + 1 == OPENED_AT_ONCE:
                raise unusable(url, error) from error
            time.sleep(random.uniform(0.1, 1))  # noqa: S311  # another process creates the tables at this moment
        except (SQLAlchemyError, OptunaError, ImportError, ValueError) as error:
            raise unusable(url, error) from error
    raise AssertionError


def make_storage(url: str) -> RetryingStorage:
    """The storage, whose tables are created where they are missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        settings = {"pool_pre_ping": True, **connection(url)}
        return RetryingStorage(
            url, engine_kwargs=settings, heartbeat_interval=1, grace_period=int(Plan.grace)
        )


def unusable(url: str, error: Exception) -> WrongInput:
    """Why a database cannot be used."""
    cause = cause_of(error.__cause__ or error)
    return WrongInput(
        f"cannot open the study store {shown(url)}: {cause}. Give a writable database with --storage or"
        " OPTUNA_STORAGE, such as sqlite:///optuna.db or postgresql+psycopg://user@host/name."
    )


def connection(url: str) -> dict[str, Any]:
    """Settings of connections to a database. Optuna keeps heartbeats without a time zone, in that of the
    connection: all have to have the same.
    """
    return {"connect_args": {"options": "-c timezone=utc"}} if url.startswith("postgresql") else {}
