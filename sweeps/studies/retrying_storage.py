"""Storage of studies that retries while its database is away."""

import inspect
import sys
import threading
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
from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    stop_before_delay,
    wait_fixed,
    wait_random,
    wait_random_exponential,
)

from sweeps.errors import Failed, WrongInput
from sweeps.plan import Plan
from sweeps.studies.database import cause_of, connect_arguments, refused
from tracking.mlflow.client import shown

OPEN_SECONDS = 60.0
"""Longest wait at the start for a database that is away."""
OPENED_AT_ONCE = 8
"""Attempts to create the tables of a new database while other processes do the same."""


RETRY_SECONDS = 300.0
"""Longest outage of a database."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
SILENT_ATTEMPTS = 5
"""Failed attempts, about three seconds, before the outage is printed."""
INNER = ("_create_new_trial", "_get_trials", "_set_trial_param", "_get_stale_trial_ids")
"""Private methods that Optuna's cache calls."""


class StoreUnavailable(Failed):
    """The study store did not come back in time."""


def transient(error: BaseException) -> bool:
    """Whether an error means that the database is away, restarting or busy."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    # PendingRollbackError: Optuna treats any operational error as too long a query, and tries another one on
    # the broken connection
    return isinstance(cause, (OperationalError, InterfaceError, PendingRollbackError)) or (
        isinstance(cause, DBAPIError) and cause.connection_invalidated
    )


class RetryingStorage(RDBStorage):
    """Optuna's database storage whose calls are retried while the database is away, for up to
    `retry_seconds`.

    A call may have been carried out although its answer was lost, so callers must tolerate repetition: see
    `sweeps.studies.study`.
    """

    retry_seconds = RETRY_SECONDS

    def __init__(self, url: str, **settings: Any):
        self.local = threading.local()
        self.say: Callable[[str], None] = partial(print, file=sys.stderr)  # replaced by the console's
        with self.without_retries():  # a wrong URL fails at once
            super().__init__(url, **settings)

    def use_grace(self, seconds: float) -> None:
        """Set the seconds without a heartbeat after which a trial is given up."""
        self.grace_period = max(1, round(seconds))

    @contextmanager
    def without_retries(self) -> Iterator[None]:
        """Calls of this thread fail at once inside the block."""
        before, self.local.inside = getattr(self.local, "inside", False), True
        try:
            yield
        finally:
            self.local.inside = before

    def retrying(self, call: Callable[[], Any]) -> Any:
        """Result of a call, retried while the database is away. Errors: StoreUnavailable after
        `retry_seconds`.
        """
        if getattr(self.local, "inside", False):  # only the outermost call is repeated
            return call()
        attempts = Retrying(
            retry=retry_if_exception(transient),
            wait=wait_random_exponential(FIRST_PAUSE, LONGEST_PAUSE),  # spreads the workers' retries
            stop=stop_before_delay(self.retry_seconds),
            before_sleep=self.announce,
            retry_error_callback=self.give_up,
        )
        with self.without_retries():
            value = attempts(call)
        if attempts.statistics["attempt_number"] > SILENT_ATTEMPTS:
            self.say(f"The study store {shown(self.url)} is back.")
        return value

    def announce(self, state: RetryCallState) -> None:
        """Print once that the database is away, if it is for longer than a few seconds."""
        if state.attempt_number == SILENT_ATTEMPTS:
            self.say(
                f"The study store {shown(self.url)} does not answer ({cause_of(failure(state))}); trying"
                f" again for {self.retry_seconds:g} s."
            )

    def give_up(self, state: RetryCallState) -> None:
        """Errors: StoreUnavailable."""
        error = failure(state)
        raise StoreUnavailable(
            f"the study store {shown(self.url)} does not answer: {cause_of(error)}"
        ) from error


def failure(state: RetryCallState) -> BaseException:
    """Error of the last attempt; of an Optuna error, its cause."""
    error = state.outcome.exception() if state.outcome else None
    assert error is not None
    return error.__cause__ or error


def repeated(method: Callable[..., Any]) -> Callable[..., Any]:
    """A storage method that is retried while the database is away."""

    @wraps(method)
    def call(self: RetryingStorage, *arguments: Any, **named: Any) -> Any:
        return self.retrying(lambda: method(self, *arguments, **named))

    return call


for name, method in inspect.getmembers(RDBStorage, inspect.isfunction):
    if name in INNER or not name.startswith("_"):
        setattr(RetryingStorage, name, repeated(method))


def wait_for_storage(url: str, say: Callable[..., None]) -> RetryingStorage:
    """Open the study database, waiting while it is away: a sweep or worker may start before it.

    Errors: WrongInput where the URL or the credentials are wrong; StoreUnavailable where it stays away.
    """

    def away(error: BaseException) -> bool:
        cause = error.__cause__
        return isinstance(error, WrongInput) and cause is not None and transient(cause) and not refused(cause)

    def announce(state: RetryCallState) -> None:
        left = OPEN_SECONDS - (state.seconds_since_start or 0.0)
        error = state.outcome.exception() if state.outcome else None
        say(f"{error} Trying again, for {left:.0f} s more.", event="waiting", storage=shown(url))

    attempts = Retrying(
        retry=retry_if_exception(away),
        wait=wait_fixed(5),
        stop=stop_after_delay(OPEN_SECONDS),
        before_sleep=announce,
    )
    try:
        return attempts(open_storage, url)
    except RetryError as error:
        last = error.last_attempt.exception()
        raise StoreUnavailable(str(last)) from last


def open_storage(url: str) -> RetryingStorage:
    """Open the study database. Errors: WrongInput, naming the URL without its password."""
    attempts = Retrying(
        retry=retry_if_exception(created_meanwhile),
        wait=wait_random(0.1, 1),
        stop=stop_after_attempt(OPENED_AT_ONCE),
        reraise=True,
    )
    try:
        return attempts(make_storage, url)
    except (SQLAlchemyError, OptunaError, ImportError, ValueError) as error:
        cause = cause_of(error.__cause__ or error)
        raise WrongInput(
            f"cannot open the study store {shown(url)}: {cause}. Give a writable database with --storage or"
            " OPTUNA_STORAGE, such as sqlite:///optuna.db or postgresql+psycopg://user@host/name."
        ) from error


def created_meanwhile(error: BaseException) -> bool:
    """Whether another process is creating the tables."""
    return isinstance(error, (ProgrammingError, IntegrityError, OperationalError)) and (
        "exists" in str(error).lower()
    )


def make_storage(url: str) -> RetryingStorage:
    """The storage; missing tables are created."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        settings = {"pool_pre_ping": True, "connect_args": connect_arguments(url)}
        return RetryingStorage(
            url, engine_kwargs=settings, heartbeat_interval=1, grace_period=int(Plan.grace)
        )
