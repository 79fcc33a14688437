"""Pulling, from a real MLflow database and a real MLflow server."""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace

import pytest
from mlflow import MlflowClient
from published import made, mlflow_server, publish

from tracking import recommended_epsilon
from tracking.mlflow.client import TrackingUnavailable, is_server, reach, shown
from tracking.mlflow.versions import NotPublished
from tracking.names import WrongName
from tracking.recommend import main, recommendation, recommended_smoothing
from tracking.records.recommendation import Recommendation

TASK = "digits/mlp"
FIRST, SECOND = made(epsilon=0.25), made(epsilon=0.1, created="2026-12-01T00:00:00+00:00")


@pytest.fixture(scope="module")
def database(initialised, tmp_path_factory):
    folder = tmp_path_factory.mktemp("database")
    shutil.copy(initialised, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri, uri)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        publish(client, FIRST)
        publish(client, SECOND)
    client.create_registered_model("empty--task", tags={"task": "empty/task"})
    return uri


@pytest.fixture(scope="module")
def server(database, tmp_path_factory):
    with mlflow_server(database, tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(params=["database", "server"])
def store(request):
    return request.getfixturevalue(request.param)


def test_the_record_comes_back_whole(store):
    assert recommendation(TASK, tracking_uri=store) == SECOND.recommendations["safe"]
    assert recommendation(TASK, "raw", 1, store) == FIRST.recommendations["raw"]
    assert recommended_epsilon(TASK, version=1, tracking_uri=store) == 0.25


@pytest.mark.parametrize("task", ["no/such", "empty/task"])
def test_what_is_not_there_is_told(store, task):
    with pytest.raises(NotPublished, match=f"Run: python -m sweeps.run '{task}'"):
        recommendation(task, tracking_uri=store)


@pytest.mark.parametrize("task", ["digits/mlp' OR 1=1 --", "", "digits--mlp", "../x", "digits/mlp/x"])
def test_a_name_which_no_task_can_have_is_refused(store, task):
    with pytest.raises(WrongName, match="wanted dataset/architecture"):
        recommendation(task, tracking_uri=store)


def test_an_unknown_policy_or_version_is_told_with_those_there_are(store):
    with pytest.raises(NotPublished, match="accuracy, calibrated, raw, safe"):
        recommendation(TASK, "secure", tracking_uri=store)
    for number in (3, 0, -1, 2**31, 10**30):
        with pytest.raises(NotPublished, match=f"no version {number}; there are: 2, 1"):
            recommendation(TASK, None, number, store)


def test_a_misspelt_task_is_told_the_nearest(store):
    with pytest.raises(NotPublished, match="Did you mean 'digits/mlp'"):
        recommendation("digit/mlp", tracking_uri=store)


def test_the_command_prints_the_number_alone(store, capsys):
    assert main([TASK, "--tracking-uri", store]) == 0
    assert capsys.readouterr().out == "0.1\n"
    assert main([TASK, "--version", "1", "--tracking-uri", store]) == 0
    assert capsys.readouterr().out == "0.25\n"
    for wrong in ("nothing/here", "not a name"):
        assert main([wrong, "--tracking-uri", store]) == 2
        assert capsys.readouterr().out == ""


def test_the_history_marks_what_is_recommended_and_pinned(store, capsys):
    def history(*arguments):
        assert main([TASK, "--tracking-uri", store, *arguments]) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()[1:]]

    assert [row[:3] for row in history("--history")] == [["*", "2", "0.1"], ["1", "0.25", "safe"]]
    assert [row[0] for row in history("--restore", "1")] == ["2", "*"]
    assert [row[0] for row in history("--pin", "1")] == ["2", "*"]
    assert [row[-1] == "pinned" for row in history("--history")] == [False, True]
    assert [row[0] for row in history("--unpin")] == ["*", "1"]
    assert main([TASK, "--tracking-uri", store, "--pin", "9"]) == 2
    assert "there are: 1, 2" in capsys.readouterr().err


def test_a_version_is_compared_with_its_run(store, capsys):
    assert main([TASK, "--tracking-uri", store, "--verify"]) == 0
    assert capsys.readouterr().out.startswith("version 2 of digits/mlp is what run ")


def test_one_plain_request_gives_the_number(server):
    """The README's command, without the shell."""
    with urllib.request.urlopen(
        f"{server}/api/2.0/mlflow/registered-models/alias?name=digits--mlp&alias=recommended"
    ) as reply:
        tags = json.load(reply)["model_version"]["tags"]
    assert next(tag["value"] for tag in tags if tag["key"] == "epsilon") == "0.1"


def test_the_command_needs_less_than_two_seconds_of_a_core_and_imports_nothing_heavy(database):
    code = (
        "import sys, tracking.recommend as r; r.main(['digits/mlp', '--json'])\n"
        "heavy = {'torch', 'sweeps', 'mlflow', 'fastapi', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "ours = {name for name in sys.modules if name.startswith('lscal.')} - {'lscal.display'}\n"
        "sys.exit(bool(heavy | ours))"
    )
    environment = {**os.environ, "MLFLOW_TRACKING_URI": database}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert Recommendation.from_json(done.stdout).epsilon == 0.1


def test_a_store_which_is_not_there_is_not_made(tmp_path):
    with pytest.raises(TrackingUnavailable, match="there is no file"):
        recommendation(TASK, tracking_uri=f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []


def test_a_silent_server_is_given_up_on():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.perf_counter()
        with pytest.raises(TrackingUnavailable, match="does not answer"):
            reach(f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}")
        assert time.perf_counter() - started < 15


@pytest.mark.parametrize("uri", ["file:///tmp/x", "mlruns", "databricks", "ftp://host/x"])
def test_other_stores_are_refused(uri):
    with pytest.raises(TrackingUnavailable, match="allowed are"):
        is_server(uri)


def test_credentials_are_never_shown():
    assert shown("http://me:secret@host:5000/path") == "http://host:5000/path"
    assert shown("postgresql+psycopg://me:s@c@host/db") == "postgresql+psycopg://host/db"
    assert shown("sqlite:///a@b.db") == "sqlite:///a@b.db"


def test_a_dropped_epsilon_is_pulled_by_its_own_door_and_the_number_stays_constant(
    initialised, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(initialised, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    sweep = made(epsilon=0.25)
    constant = sweep.recommendations["safe"]
    falling = replace(
        constant,
        epsilon=0.3,
        point={"epsilon": 0.3, "drop": 0.4},
        smoothing="uniform@drop:0.4",
        candidate=0.3,
    )
    both = replace(constant, dropped=falling, preferred="dropped")
    client = MlflowClient(uri, uri)
    publish(client, replace(sweep, recommendations={**sweep.recommendations, "safe": both}))
    assert recommended_smoothing(TASK, tracking_uri=uri) == (0.3, 0.4, "uniform")
    assert recommended_epsilon(TASK, tracking_uri=uri) == 0.25
    assert main([TASK, "--tracking-uri", uri]) == 0
    printed = capsys.readouterr()
    assert printed.out == "0.25\n"
    assert "This is the best constant ε. 0.3 until 40 % of the steps is recommended" in printed.err
    assert main([TASK, "--tracking-uri", uri, "--explain"]) == 0
    explained = " ".join(capsys.readouterr().out.split())
    assert explained.startswith("Train with label_smoothing=0.3 for the first 40 % of the steps, then 0, and")
    assert "A constant ε? 0.25:" in explained
    assert main([TASK, "--tracking-uri", uri, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["epsilon"], record["dropped"]["point"]["drop"], record["preferred"]) == (
        0.25,
        0.4,
        "dropped",
    )
    (version,) = client.search_model_versions("name = 'digits--mlp'")
    tags = {name: version.tags[name] for name in ("epsilon", "dropped_epsilon", "drop", "smoothing")}
    assert tags == {
        "epsilon": "0.25",
        "dropped_epsilon": "0.3",
        "drop": "0.4",
        "smoothing": "uniform@drop:0.4",
    }
    assert recommendation(TASK, tracking_uri=uri).dropped == both.dropped
