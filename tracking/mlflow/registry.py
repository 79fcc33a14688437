"""Registry: where recommendations are published, in MLflow's model registry; `versions` documents how they
lie there, and reads them.

A version is made with all its tags at once, so there is never half a one. Then `settle` moves the alias to
where it belongs, which follows from the versions there are and from two tags of the registered model:
`pinned`, and `restored`. Whoever changes one of these calls it last, so that the alias ends right in whatever
order publishers come.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from tracking.mlflow.client import TrackingUnavailable
from tracking.mlflow.versions import ALIAS, PINNED, RECORD, NotPublished, Version
from tracking.names import model_of
from tracking.numbers import plain
from tracking.records.recommendation import Recommendation
from tracking.report.answer import sentences

RESTORED = "restored"
"""Tag of the registered model, "3 instead of 7": version 3 is recommended for as long as 7 is the latest."""
TRANSIENT = ("BAD_REQUEST", "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
"""Answers of MLflow when two write to one database at a time, and when a server is away."""
ATTEMPTS = 8
LONGEST_WAIT_SECONDS = 1.0
DESCRIPTION_LIMIT = 5000
T = TypeVar("T")


def publish(
    client: MlflowClient,
    task: str,
    recommendations: Mapping[str, Recommendation],
    policy: str,
    run_id: str,
    source: str,
) -> int:
    """Publish a sweep's findings as the next version of its task; repeated for the same run and time, it is
    the same version.

    Args:
        client: of the tracking store, the registry too.
        task: `dataset/architecture`.
        recommendations: by policy.
        policy: the one whose ε is recommended.
        run_id: the run that carries the evidence.
        source: where the model's files are: a logged model as `models:/m-…`, or the run's artifacts.

    Returns: the number of the version. It is the recommended one, unless another is pinned or is later.
    Errors: WrongName; TrackingUnavailable.
    """
    name, chosen = model_of(task), recommendations[policy]
    answer = "\n".join(sentences(recommendations, policy))
    tags = {
        "task": task,
        "answer": answer,
        **short(chosen),
        **scheduled(chosen.best),
        "epsilon": plain(chosen.epsilon, 10),
        "policy": policy,
        "created": chosen.created,
        "run_id": run_id,
        **{RECORD + key: record.to_json() for key, record in recommendations.items()},
    }
    description = f"{answer}\n\nPolicy {policy}. {chosen.best.reason}"[:DESCRIPTION_LIMIT]

    model_id = source.removeprefix("models:/") if source.startswith("models:/") else None

    def find_or_create() -> int:
        for one in published(client, task):
            if one.tags["run_id"] == run_id and one.tags["created"] == chosen.created:
                return int(one.version)
        # MLflow would look up a models:/ source in the default store, which need not be this one
        files = client.get_logged_model(model_id).artifact_location if model_id else source
        made = client.create_model_version(
            name, files, run_id, tags=tags, description=description, await_creation_for=0, model_id=model_id
        )
        return int(made.version)

    retried(lambda: register(client, task))
    number = retried(find_or_create)
    settle(client, task)
    return number


def scheduled(best: Recommendation) -> dict[str, str]:
    """Tags of what the policy recommends beside the constant ε of tag `epsilon`: an ε that falls to 0."""
    return (
        {} if best.drop == 1 else {"dropped_epsilon": plain(best.epsilon, 10), "drop": plain(best.drop)}
    ) | {"smoothing": best.smoothing}


def short(chosen: Recommendation) -> dict[str, str]:
    """Tags for those who read single values: T where there is one, the ε that cannot be distinguished (lowest
    and highest), and the verdict.
    """
    known = {
        "temperature": None if chosen.temperature is None else f"{chosen.temperature:.6g}",
        "tied": chosen.tied and f"{plain(chosen.tied[0])} {plain(chosen.tied[1])}",
        "verdict": chosen.verdict,
    }
    return {name: value for name, value in known.items() if value}


def restore(client: MlflowClient, task: str, number: int) -> None:
    """Recommend an earlier version until the next one is published. Errors: NotPublished;
    TrackingUnavailable.
    """
    latest = max(known(client, task, number))
    held = client.get_registered_model(model_of(task)).tags.get(PINNED)
    if held is not None:
        raise NotPublished(
            f"version {held} of task {task!r} is pinned, so no other can be restored. Give --unpin first, or"
            f" --pin {number}."
        )
    retried(
        lambda: client.set_registered_model_tag(model_of(task), RESTORED, f"{number} instead of {latest}")
    )
    settle(client, task)


def pin(client: MlflowClient, task: str, number: int) -> None:
    """Recommend a version, whatever is published later. Errors: NotPublished; TrackingUnavailable."""
    known(client, task, number)
    retried(lambda: client.set_registered_model_tag(model_of(task), PINNED, str(number)))
    settle(client, task)


def unpin(client: MlflowClient, task: str) -> None:
    """Recommend the latest version again. Errors: NotPublished; TrackingUnavailable."""
    known(client, task)
    for tag in (PINNED, RESTORED):
        if tag in client.get_registered_model(model_of(task)).tags:
            retried(lambda tag=tag: client.delete_registered_model_tag(model_of(task), tag))  # type: ignore[misc]
    settle(client, task)


def settle(client: MlflowClient, task: str) -> None:
    """Move the alias to where it belongs.

    It is read again after it was set: a version or a tag that came meanwhile is either seen here, or its
    maker settles after us.
    """
    for _ in range(ATTEMPTS):
        versions = [int(one.version) for one in retried(lambda: published(client, task))]
        model = retried(lambda: client.get_registered_model(model_of(task)))
        goal = belongs(versions, model.tags)
        if int(model.aliases.get(ALIAS, 0)) == goal:
            return
        retried(lambda goal=goal: client.set_registered_model_alias(model_of(task), ALIAS, str(goal)))  # type: ignore[misc]
    raise TrackingUnavailable(
        f"the alias {ALIAS!r} of {model_of(task)!r} is being moved by others all the time."
    )


def belongs(versions: list[int], tags: Mapping[str, str]) -> int:
    """The version that the alias belongs on: the pinned one, else the restored one, else the latest."""
    latest = max(versions)
    wanted = [tags.get(PINNED, "")]
    restored, _, instead = tags.get(RESTORED, "").partition(" instead of ")
    if instead == str(latest):
        wanted.append(restored)
    return next((number for text in wanted for number in versions if str(number) == text), latest)


def register(client: MlflowClient, task: str) -> None:
    """Make the task's registered model where there is none."""
    try:
        client.create_registered_model(model_of(task), tags={"task": task})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def published(client: MlflowClient, task: str) -> list[ModelVersion]:
    """The versions of a task, less those registered by hand."""
    found = client.search_model_versions(f"name = '{model_of(task)}'")
    return [one for one in found if Version.of(int(one.version), one.tags, False)]


def known(client: MlflowClient, task: str, number: int | None = None) -> list[int]:
    """The numbers of a task's versions, that one among them. Errors: NotPublished."""
    there = sorted(int(one.version) for one in published(client, task))
    if not there:
        raise NotPublished(f"nothing is published for task {task!r}.")
    if number is not None and number not in there:
        raise NotPublished(f"task {task!r} has no version {number}; there are: {', '.join(map(str, there))}.")
    return there


def retried(call: Callable[[], T]) -> T:
    """The result of a call that may meet another writer: again after a random wait, up to some seconds.
    Errors: TrackingUnavailable.
    """
    retries = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(0.05, LONGEST_WAIT_SECONDS),
        retry=retry_if_exception(lambda error: getattr(error, "error_code", None) in TRANSIENT),
    )
    try:
        return retries(call)
    except RetryError as error:
        cause = str(error.last_attempt.exception()).splitlines()[0]
        raise TrackingUnavailable(f"the registry does not take it: {cause}") from error


def disagreements(client: MlflowClient, version: Version) -> list[str]:
    """The policies of a version whose tags differ from the files of its run; none where all agree. Tags can
    be edited, so the run holds.
    """
    return [
        policy
        for policy, record in sorted(version.records.items())
        if (kept := artifact(client, version.run_id, f"{version.folder}/{RECORD}{policy}.json")) is None
        or kept.decode() != record
    ]


def artifact(client: MlflowClient, run_id: str, path: str) -> bytes | None:
    """A file among a run's artifacts, None where there is none. Errors: TrackingUnavailable."""
    try:
        if path not in {
            entry.path for entry in client.list_artifacts(run_id, path.rpartition("/")[0] or None)
        }:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return Path(client.download_artifacts(run_id, path, folder)).read_bytes()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise TrackingUnavailable(
            f"the artifacts of run {run_id!r} cannot be read: {str(error).splitlines()[0]}"
        ) from error
    except OSError as error:
        raise TrackingUnavailable(f"the artifacts of run {run_id!r} cannot be read: {error}.") from error
