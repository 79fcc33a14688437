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
"""How long a database that is away at the start is waited for."""
OPENED_AT_ONCE = 8
"""How often the tables of a new database are tried to be created, where others do the same."""


RETRY_SECONDS = 300.0
"""How long a database may be away."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
SILENT_ATTEMPTS = 5
"""After so many failed attempts, about three seconds, it is printed that the database is away."""
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

    def retrying(self, call: Callable[[], Any]) -> Any:
        """The result of a call, once the database answers. Errors: StoreUnavailable after `retry_seconds`."""
        if getattr(self.local, "inside", False):  # only the outermost call is repeated
            return call()
        attempts = Retrying(
            retry=retry_if_exception(transient),
            wait=wait_random_exponential(FIRST_PAUSE, LONGEST_PAUSE),  # workers do not come back all at once
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
        """Print once that the database is away, if that is no matter of a second."""
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
    """The error of the last attempt; of one of Optuna's, its cause."""
    error = state.outcome.exception() if state.outcome else None
    assert error is not None
    return error.__cause__ or error


def repeated(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the storage, repeated while the database is away."""

    @wraps(method)
    def call(self: RetryingStorage, *arguments: Any, **named: Any) -> Any:
        return self.retrying(lambda: method(self, *arguments, **named))

    return call


for name, method in inspect.getmembers(RDBStorage, inspect.isfunction):
    if name in INNER or not name.startswith("_"):
        setattr(RetryingStorage, name, repeated(method))


def wait_for_storage(url: str, say: Callable[..., None]) -> RetryingStorage:
    """The database of studies, waited for where it is away: a sweep or a worker is often started before it.

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
    """The database of studies. Errors: WrongInput, naming the URL without its password."""
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
    """Whether another process creates the tables at this moment."""
    return isinstance(error, (ProgrammingError, IntegrityError, OperationalError)) and (
        "exists" in str(error).lower()
    )


def make_storage(url: str) -> RetryingStorage:
    """The storage, whose tables are created where they are missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        settings = {"pool_pre_ping": True, "connect_args": connect_arguments(url)}
        return RetryingStorage(
            url, engine_kwargs=settings, heartbeat_interval=1, grace_period=int(Plan.grace)
        )
