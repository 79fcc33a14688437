"""Publish and pull: `python -m tracking.recommend TASK` prints the recommended ε of a task.

A published recommendation is a tag of the task's MLflow experiment, one per policy. Pulling reads that tag straight from
the database or with one GET, as importing MLflow alone takes seconds.
"""

import argparse
import base64
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from tracking.records import Recommendation

DEFAULT_URI = "sqlite:///mlflow.db"
TAG = "lscal.recommendation."
POLICY_TAG = "lscal.policy"
SECONDS = 10
"""How long a tracking server may take to answer."""


class NotPublished(LookupError):
    """There is no such recommendation, or the tracking store does not answer."""


def recommended_epsilon(task: str, policy: str | None = None, tracking_uri: str | None = None) -> float:
    """The recommended label-smoothing mass ε of a task such as `digits/mlp`, in the ε/K convention of torch.

    Args are those of `recommendation`. Errors: NotPublished.
    """
    return recommendation(task, policy, tracking_uri).epsilon


def recommendation(task: str, policy: str | None = None, tracking_uri: str | None = None) -> Recommendation:
    """The latest recommendation of a task.

    Args:
        task: `dataset/architecture`.
        policy: by default the one which the latest sweep was run with.
        tracking_uri: by default MLFLOW_TRACKING_URI, or else sqlite:///mlflow.db in the working directory.

    Errors: NotPublished, saying which recommendations there are.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    tags = experiment_tags(uri, task)
    published = sorted(key.removeprefix(TAG) for key in tags if key.startswith(TAG))
    if not published:
        raise NotPublished(f"task {task!r} has no recommendation yet. Run: python -m sweeps.run '{task}'")
    name = policy or tags.get(POLICY_TAG, published[0])
    if name not in published:
        raise NotPublished(f"task {task!r} has no recommendation by policy {name!r}; there are: {', '.join(published)}.")
    return Recommendation.from_json(tags[TAG + name])


def experiment_tags(uri: str, task: str) -> Mapping[str, str]:
    """The tags of the MLflow experiment named like the task."""
    scheme = uri.partition("://")[0].partition("+")[0]
    if scheme in ("http", "https"):
        return tags_by_http(uri, task)
    if scheme in ("sqlite", "postgresql", "mysql", "mssql"):
        return tags_by_sql(uri, task)
    raise NotPublished(f"the tracking URI {uri!r} is not one we can read; allowed are http(s)://… and database URLs such as {DEFAULT_URI}.")


def tags_by_sql(uri: str, task: str) -> Mapping[str, str]:
    """Read MLflow's tables `experiments` and `experiment_tags`."""
    import sqlalchemy
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    url = make_url(uri)
    if url.get_backend_name() == "sqlite" and not os.path.exists(url.database or ""):
        raise NotPublished(f"there is no file {url.database!r}. Run a sweep in this directory, or set MLFLOW_TRACKING_URI.")
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            rows = connection.execute(
                sqlalchemy.text(
                    "SELECT e.name, t.key, t.value FROM experiments e LEFT JOIN experiment_tags t"
                    " ON t.experiment_id = e.experiment_id AND e.name = :task WHERE e.lifecycle_stage = 'active'"
                ),
                {"task": task},
            ).all()
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise NotPublished(f"the tracking store {url.render_as_string(hide_password=True)} does not answer: {cause}") from error
    finally:
        engine.dispose()
    names = {row[0] for row in rows}
    if task not in names:
        raise missing(task, names)
    return {key: value for name, key, value in rows if name == task and key is not None}


def tags_by_http(uri: str, task: str) -> Mapping[str, str]:
    """Ask an MLflow server for one experiment."""
    query = urllib.parse.urlencode({"experiment_name": task})
    try:
        reply = get_json(f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/get-by-name?{query}")
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise missing(task, ()) from error
        raise NotPublished(f"the tracking server {host_of(uri)} answers {error.code} {error.reason}.") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise NotPublished(f"the tracking server {host_of(uri)} does not answer: {getattr(error, 'reason', error)}.") from error
    return {tag["key"]: tag["value"] for tag in reply["experiment"].get("tags", [])}


def get_json(url: str) -> dict[str, dict[str, list[dict[str, str]]]]:
    """GET with the credentials which MLflow itself reads from the environment or takes from the URL."""
    parts = urllib.parse.urlsplit(url)
    user = parts.username or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = parts.password or os.environ.get("MLFLOW_TRACKING_PASSWORD")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(netloc=host)))  # noqa: S310  # callers give http(s) only
    if user and password:
        credentials = base64.b64encode(f"{urllib.parse.unquote(user)}:{urllib.parse.unquote(password)}".encode()).decode()
        request.add_header("Authorization", f"Basic {credentials}")
    elif token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=SECONDS) as response:  # noqa: S310
        reply: dict[str, dict[str, list[dict[str, str]]]] = json.load(response)
        return reply


def host_of(uri: str) -> str:
    """A server's URL without credentials."""
    parts = urllib.parse.urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def missing(task: str, names: Sequence[str] | set[str]) -> NotPublished:
    """The error for a task without an experiment, with the nearest names."""
    near = get_close_matches(task, sorted(names), n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    return NotPublished(f"no sweep of task {task!r} is in the tracking store.{hint} Run: python -m sweeps.run '{task}'")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Prints ε alone, or the record with --json; exits with 1 where there is none."""
    parser = argparse.ArgumentParser(prog="python -m tracking.recommend", description="Print the recommended ε of a task.")
    parser.add_argument("task", help="dataset/architecture, such as digits/mlp")
    parser.add_argument("--policy", help="by default the one which the latest sweep was run with")
    parser.add_argument("--json", action="store_true", help="print the whole record")
    parser.add_argument("--tracking-uri", help=f"by default MLFLOW_TRACKING_URI, or else {DEFAULT_URI}")
    options = parser.parse_args(arguments)
    try:
        found = recommendation(options.task, options.policy, options.tracking_uri)
    except NotPublished as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(found.to_json() if options.json else f"{found.epsilon:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
