"""Versions: the recommendations that are published, read without importing MLflow.

A task is a registered model of MLflow's registry, `dataset--architecture`, and each published sweep a version
of it. The version's tags are the recommendation; the alias `recommended` marks the version that holds.
`registry` writes all this.
"""

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Self

from tracking.mlflow.client import get, is_server, rows
from tracking.names import NAMES, is_task, model_of
from tracking.records.recommendation import Recommendation

ALIAS = "recommended"
RECORD = "recommendation."
"""Begins the key of the tag that holds a policy's Recommendation as JSON."""
PINNED = "pinned"
"""Tag of the registered model: the number of the version that later sweeps do not replace."""
HIGHEST = 2**31 - 1
"""Largest number of a version that a database can hold."""
TAGS = (
    "SELECT v.name, v.version, a.alias, t.key, t.value FROM model_versions v JOIN model_version_tags t ON"
    " t.workspace = v.workspace AND t.name = v.name AND t.version = v.version LEFT JOIN"
    " registered_model_aliases a ON a.workspace = v.workspace AND a.name = v.name AND a.version = v.version"
    " AND a.alias = :alias WHERE v.workspace = 'default' AND v.current_stage <> 'Deleted_Internal'"
)
"""A row for each tag of each version; `alias` is NULL where the version is not the recommended one."""
PAGE = 200
"""Versions asked for at a time."""


class Altered(RuntimeError):
    """A version whose tags differ from the files of its run."""


class NotPublished(LookupError):
    """There is no such recommendation."""


def folder_of(created: str) -> str:
    """Where the files of a decision that was made then are among the artifacts of its run; a run can carry
    several decisions.
    """
    return f"decisions/{re.sub('[^0-9T]', '-', created)}"


@dataclass(frozen=True)
class Version:
    """One published sweep of a task.

    Attributes:
        number: 1, 2, … in the order of publication.
        policy: the one that the sweep was run with.
        run_id: the MLflow run that carries the evidence.
        created: ISO 8601, UTC.
        records: by policy, its Recommendation as JSON.
        recommended: whether the alias is on this version.
    """

    task: str
    number: int
    policy: str
    run_id: str
    created: str
    records: Mapping[str, str] = field(hash=False)
    recommended: bool

    @property
    def folder(self) -> str:
        """Where the files of this version are among the artifacts of its run."""
        return folder_of(self.created)

    @classmethod
    def of(cls, number: int, tags: Mapping[str, str], recommended: bool) -> Self | None:
        """The version that such tags describe; None where one was made by hand, or a name in it is none."""
        records = {key.removeprefix(RECORD): value for key, value in tags.items() if key.startswith(RECORD)}
        if (
            not all(re.fullmatch(form, tags.get(key, "")) for key, form in NAMES.items())
            or tags["policy"] not in records
        ):
            return None
        if not is_task(tags.get("task", "")):
            return None
        return cls(
            tags["task"], number, tags["policy"], tags["run_id"], tags["created"], records, recommended
        )

    def recommendation(self, policy: str | None = None) -> Recommendation:
        """That of a policy, by default the sweep's. Errors: NotPublished, listing those there are."""
        name = policy or self.policy
        if name not in self.records:
            there = ", ".join(sorted(self.records))
            raise NotPublished(
                f"task {self.task!r} has no recommendation by policy {name!r} in version {self.number}; there"
                f" are: {there}."
            )
        return self.read(name)

    def recommendations(self) -> dict[str, Recommendation]:
        """Those of all its policies, by name."""
        return {name: self.read(name) for name in self.records}

    def read(self, policy: str) -> Recommendation:
        """The record in the tag of a policy. Errors: WrongRecord."""
        where = f"tag {RECORD}{policy} of version {self.number} of {self.task}"
        return Recommendation.from_json(self.records[policy], where)


def version(uri: str, task: str, number: int | None = None) -> Version:
    """A version of a task, by default the recommended one.

    Errors: WrongName; NotPublished, with the nearest names; TrackingUnavailable.
    """
    name = model_of(task)
    if number is None or 0 < number <= HIGHEST:
        found = by_http(uri, name, number) if is_server(uri) else by_sql(uri, name, number)
        if found is not None:
            return found
    if there := [one.number for one in history(uri, task)]:
        wanted = f"version {number}" if number is not None else f"version with the alias {ALIAS!r}"
        raise NotPublished(f"task {task!r} has no {wanted}; there are: {', '.join(map(str, there))}.")
    near = get_close_matches(task, [one.task for one in recommended(uri)], n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(other) for other in near)}? " if near else ""
    raise NotPublished(f"nothing is published for task {task!r}. {hint}Run: python -m sweeps.run '{task}'")


def history(uri: str, task: str) -> list[Version]:
    """All versions of a task, the latest first; none where nothing is published. Errors: WrongName,
    TrackingUnavailable.
    """
    name = model_of(task)
    found = all_by_http(uri, name) if is_server(uri) else select(uri, "v.name = :name", {"name": name})
    return sorted(found, key=lambda one: -one.number)


def recommended(uri: str) -> list[Version]:
    """The recommended version of every task, by name. Errors: TrackingUnavailable."""
    if is_server(uri):
        models = pages(uri, "registered-models/search", "registered_models", {})
        found = [
            by_http(uri, model["name"], None)
            for model in models
            if ALIAS in {entry["alias"] for entry in model.get("aliases", [])}
        ]
    else:
        found = list(select(uri, "a.alias IS NOT NULL", {}))
    return sorted((one for one in found if one is not None), key=lambda one: one.task)


def published(uri: str) -> int:
    """How many models have a recommended version, without reading the versions. Errors:
    TrackingUnavailable.
    """
    if is_server(uri):
        models = pages(uri, "registered-models/search", "registered_models", {})
        return sum(ALIAS in {entry["alias"] for entry in model.get("aliases", [])} for model in models)
    query = "SELECT count(*) FROM registered_model_aliases WHERE workspace = 'default' AND alias = :alias"
    return int(rows(uri, query, {"alias": ALIAS})[0][0])


def pinned(uri: str, task: str) -> int | None:
    """The number of the version that is pinned. Errors: WrongName, TrackingUnavailable."""
    name = model_of(task)
    if is_server(uri):
        reply = get(uri, "registered-models/get?" + urllib.parse.urlencode({"name": name}))
        values = [
            tag["value"]
            for tag in (reply or {}).get("registered_model", {}).get("tags", [])
            if tag["key"] == PINNED
        ]
    else:
        query = (
            "SELECT t.value FROM registered_model_tags t WHERE t.workspace = 'default' AND t.name = :name AND"
            " t.key = :key"
        )
        values = [row[0] for row in rows(uri, query, {"name": name, "key": PINNED})]
    return int(values[0]) if values else None


def params(uri: str, run_id: str) -> dict[str, str]:
    """The parameters of a run, by name; none where there is no such run. Errors: TrackingUnavailable."""
    if is_server(uri):
        reply = get(uri, "runs/get?" + urllib.parse.urlencode({"run_id": run_id}))
        return {} if reply is None else tags_of(reply["run"]["data"].get("params", []))
    return {
        row[0]: row[1]
        for row in rows(uri, "SELECT p.key, p.value FROM params p WHERE p.run_uuid = :run", {"run": run_id})
    }


def touch(uri: str) -> None:
    """Read something of the registry. Errors: TrackingUnavailable."""
    if is_server(uri):
        get(uri, "registered-models/search?max_results=1")
    else:
        rows(uri, "SELECT count(*) FROM registered_models", {})


def by_sql(uri: str, name: str, number: int | None) -> Version | None:
    """One version from MLflow's tables, by default the recommended one."""
    if number is None:
        found = select(uri, "v.name = :name AND a.alias IS NOT NULL", {"name": name})
    else:
        found = select(uri, "v.name = :name AND v.version = :version", {"name": name, "version": number})
    return found[0] if found else None


def select(uri: str, condition: str, parameters: Mapping[str, str | int]) -> list[Version]:
    """The versions that meet a condition on `v`, the version, and `a`, its alias: one query."""
    found = rows(uri, f"{TAGS} AND {condition}", {"alias": ALIAS, **parameters})
    tags: dict[tuple[str, int, bool], dict[str, str]] = {}
    for name, number, alias, key, value in found:
        tags.setdefault((name, number, alias is not None), {})[key] = value
    versions = [Version.of(number, own, held) for (_, number, held), own in tags.items()]
    return [one for one in versions if one is not None]


def by_http(uri: str, name: str, number: int | None) -> Version | None:
    """One version from an MLflow server, by default the recommended one."""
    path = "registered-models/alias" if number is None else "model-versions/get"
    asked = {"name": name, **({"alias": ALIAS} if number is None else {"version": str(number)})}
    reply = get(uri, f"{path}?{urllib.parse.urlencode(asked)}")
    if reply is None:
        return None
    found = reply["model_version"]
    return Version.of(
        int(found["version"]),
        tags_of(found.get("tags", [])),
        number is None or ALIAS in found.get("aliases", []),
    )


def all_by_http(uri: str, name: str) -> list[Version]:
    """All versions of a registered model from an MLflow server."""
    current = by_http(uri, name, None)
    found = pages(uri, "model-versions/search", "model_versions", {"filter": f"name = '{name}'"})
    versions = [Version.of(int(one["version"]), tags_of(one.get("tags", [])), False) for one in found]
    return [
        current if current and one.number == current.number else one for one in versions if one is not None
    ]


def pages(uri: str, path: str, key: str, asked: Mapping[str, str]) -> list[dict[str, Any]]:
    """All entries of a search of an MLflow server, page by page."""
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        more = {"page_token": token} if token else {}
        reply = get(uri, f"{path}?{urllib.parse.urlencode({**asked, 'max_results': PAGE, **more})}") or {}
        found.extend(reply.get(key, []))
        token = reply.get("next_page_token", "")
        if not token:
            return found


def tags_of(entries: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """MLflow's list of keys and values as a mapping."""
    return {entry["key"]: entry.get("value", "") for entry in entries}
