"""The tracking store, read without importing MLflow.

`import mlflow` takes seconds. A pull has to answer at once, and a server that is away has to be told before a
sweep starts.
"""

import base64
import http.client
import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

DEFAULT_URI = "sqlite:///mlflow.db"
SECONDS = 5
"""How long a tracking server may take to answer."""
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
BUSY = (408, 429)
"""Statuses below 500 that mean: later."""
REFUSED = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "Access denied",
    "Unknown database",
    "unable to open",
)
"""Words of a database that mean: never: drivers raise the same error as when it is away."""


class TrackingUnavailable(RuntimeError):
    """The tracking store cannot be reached, read or written."""


class WrongAddress(TrackingUnavailable):
    """The tracking URI is invalid."""


class TrackingAway(TrackingUnavailable):
    """The tracking store does not answer now, and may do so later."""


def is_server(uri: str) -> bool:
    """Whether a tracking URI is that of a server. Errors: WrongAddress where it is neither server nor
    database.
    """
    scheme = uri.partition("://")[0].partition("+")[0]
    if scheme in ("http", "https"):
        return True
    if scheme in DATABASES and "://" in uri:
        return False
    raise WrongAddress(
        f"the tracking URI is {shown(uri)!r}; allowed are http(s)://host and database URLs such as"
        f" {DEFAULT_URI}."
    )


def reach(uri: str) -> None:
    """Ask a server for an experiment, which touches its database, or a database for anything.

    A SQLite file need not be there yet; its folder must be. Errors, within some seconds: TrackingAway where
    it may answer later; TrackingUnavailable where the address or the credentials are wrong.
    """
    if is_server(uri):
        get(uri, "experiments/get?experiment_id=0")
    elif (path := sqlite_path(uri)) is not None and not os.path.exists(path):
        folder = os.path.dirname(os.path.abspath(path))
        if not os.access(folder, os.W_OK):
            raise WrongAddress(
                f"the tracking store {shown(uri)} cannot be made: {folder!r} is no folder that can be"
                " written."
            )
    else:
        rows(uri, "SELECT count(*) FROM sqlite_master" if path is not None else "SELECT 1", {})


def sqlite_path(uri: str) -> str | None:
    """The file of a SQLite URL, None for other databases."""
    try:
        url = make_url(uri)
    except ArgumentError as error:
        raise WrongAddress(f"the tracking URI {shown(uri)!r} cannot be read: {error}.") from error
    return url.database or "" if url.get_backend_name() == "sqlite" else None


def identity(uri: str) -> str:
    """Names a tracking store, without secrets and whatever the working directory: the URI, with an absolute
    path to a SQLite file.

    Errors: TrackingUnavailable.
    """
    if not is_server(uri) and (path := sqlite_path(uri)):
        return f"sqlite:///{os.path.abspath(path)}"
    return shown(uri).rstrip("/")


def rows(uri: str, query: str, parameters: Mapping[str, str | int]) -> Sequence[Any]:
    """The rows of one query. Errors: TrackingAway; TrackingUnavailable."""
    if (path := sqlite_path(uri)) is not None and not os.path.exists(path):
        raise TrackingUnavailable(
            f"there is no file {path!r}. Run a sweep in this directory, or set MLFLOW_TRACKING_URI."
        )
    try:
        patience = (
            {"connect_timeout": SECONDS}
            if make_url(uri).get_backend_name() in ("postgresql", "mysql")
            else {}
        )
        engine = sqlalchemy.create_engine(make_url(uri), connect_args=patience)
        try:
            with engine.connect() as connection:
                return connection.execute(sqlalchemy.text(query), dict(parameters)).all()
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        away = isinstance(error, OperationalError) and not any(word in cause for word in REFUSED)
        raise (TrackingAway if away else TrackingUnavailable)(
            f"the tracking store {shown(uri)} does not answer: {cause}."
        ) from error


def get(uri: str, path: str) -> dict[str, Any] | None:
    """GET of MLflow's REST API, None where the thing asked for does not exist.

    Credentials are those that MLflow itself reads from the environment, or those in the URL. Errors:
    TrackingAway; TrackingUnavailable.
    """
    try:
        parts = urllib.parse.urlsplit(uri)
        _ = parts.port  # raises where it is none
    except ValueError as error:
        raise WrongAddress(f"the tracking URI {shown(uri)!r} cannot be read: {error}.") from error
    user = parts.username or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = parts.password or os.environ.get("MLFLOW_TRACKING_PASSWORD")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    request = urllib.request.Request(f"{shown(uri).rstrip('/')}/api/2.0/mlflow/{path}")  # noqa: S310  # http(s), see is_server
    if user and password:
        credentials = f"{urllib.parse.unquote(user)}:{urllib.parse.unquote(password)}"
        request.add_header("Authorization", f"Basic {base64.b64encode(credentials.encode()).decode()}")
    elif token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:  # noqa: S310
            reply: dict[str, Any] = json.load(response)
            return reply
    except urllib.error.HTTPError as error:
        cause = error.read().decode(errors="replace")
        if (error.code == 404 and "RESOURCE_DOES_NOT_EXIST" in cause) or (
            error.code == 400 and "alias" in cause and "not found" in cause
        ):
            return None  # MLflow calls a missing alias a wrong parameter
        away = error.code >= 500 or error.code in BUSY
        raise (TrackingAway if away else TrackingUnavailable)(
            f"the MLflow server {shown(uri)} answers {error.code} {error.reason}."
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        wrong = isinstance(reason, (ValueError, http.client.InvalidURL, ssl.SSLCertVerificationError))
        raise (TrackingUnavailable if wrong else TrackingAway)(
            f"the MLflow server {shown(uri)} does not answer: {reason}. Start it, or give another with"
            f" --tracking-uri or MLFLOW_TRACKING_URI; without either, {DEFAULT_URI} in this directory is"
            " used."
        ) from error


def shown(uri: str) -> str:
    """A URI without the user and password before its host."""
    scheme, separator, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"
