"""Opening of the study database, and what its errors mean."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import sqlalchemy
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from sweeps.errors import WrongInput
from tracking.mlflow.client import REFUSED, shown

STORAGE = "sqlite:///optuna.db"
CONNECT_SECONDS = 5


class StoreAway(RuntimeError):
    """The study store cannot be read now."""


def cause_of(error: BaseException) -> str:
    """The first line of a driver's message."""
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


def refused(error: BaseException) -> bool:
    """Whether a database refuses for good: drivers raise the same error as when it is away."""
    return any(word in str(error) for word in REFUSED)


def connect_arguments(url: str) -> dict[str, Any]:
    """Settings of connections to a database. Optuna keeps heartbeats without a time zone, in that of the
    connection: all have to have the same.
    """
    postgres = url.startswith("postgresql")
    return {"connect_timeout": CONNECT_SECONDS, "options": "-c timezone=utc"} if postgres else {}


@contextmanager
def open_store(url: str) -> Iterator[Engine]:
    """A study store, to be read only while inside. Errors: WrongInput where there is none; StoreAway."""
    engine = engine_of(url)
    try:
        try:
            found = sqlalchemy.inspect(engine).has_table("trial_heartbeats")
        except SQLAlchemyError as error:
            if isinstance(error, OperationalError) and not url.startswith("sqlite") and not refused(error):
                raise StoreAway(f"{shown(url)}: {cause_of(error)}") from error
            raise unreadable(url, error) from error
        if not found:
            raise WrongInput(
                f"{shown(url)} is no study store: it has no tables of Optuna. Name one with --storage or"
                " OPTUNA_STORAGE."
            )
        yield engine
    finally:
        engine.dispose()


def engine_of(url: str) -> Engine:
    """How to connect to a store. Errors: WrongInput."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return sqlalchemy.create_engine(
                parsed,
                pool_pre_ping=True,
                connect_args=connect_arguments(url),
                execution_options={"postgresql_readonly": True},
            )
    except (SQLAlchemyError, ImportError) as error:
        raise unreadable(url, error) from error
    path = os.path.abspath(parsed.database or "")
    if not os.path.isfile(path):
        raise WrongInput(
            f"there is no file {path!r}. Run a sweep in this directory, or name its study store with"
            " --storage or OPTUNA_STORAGE."
        )
    return sqlalchemy.create_engine(
        "sqlite://", creator=lambda: connect_sqlite(path), poolclass=sqlalchemy.NullPool
    )


def unreadable(url: str, error: Exception) -> WrongInput:
    """The error for a store which cannot be read."""
    return WrongInput(
        f"cannot read the study store {shown(url)}: {cause_of(error)}. Name one with --storage or"
        f" OPTUNA_STORAGE, such as {STORAGE} or postgresql+psycopg://user@host/name."
    )


def connect_sqlite(path: str) -> sqlite3.Connection:
    """A file which has to be there. Nothing is written to it, but what a killed writer left half done may be
    rolled back.
    """
    connection = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, timeout=CONNECT_SECONDS)
    connection.execute("PRAGMA query_only = ON")
    return connection
