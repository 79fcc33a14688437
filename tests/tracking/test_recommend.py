"""Pulling, from a real MLflow database and a real MLflow server."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from mlflow import MlflowClient

from tracking import recommended_epsilon
from tracking.recommend import POLICY_TAG, TAG, NotPublished, main, recommendation
from tracking.records import Condition, Interval, Recommendation
from tracking.store import TrackingUnavailable, is_server, reach, shown

HALF = Interval(0.5, 0.4, 0.6)
CONDITION = Condition("accuracy gain", 0.01, 0.002, 0.0, True, "a gain, für ε > 0 & more")


def record(task, epsilon, policy):
    return Recommendation(
        task, epsilon, 0.9 * epsilon, policy, "because", HALF, HALF, HALF, HALF, HALF, epsilon, (CONDITION,), "study", "run", "now"
    )


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    client = MlflowClient(uri)
    for task, epsilon in (("digits/mlp", 0.25), ("digits/c n:n'%", 0.125)):
        experiment = client.create_experiment(task, artifact_location="mlflow-artifacts:/x")
        client.set_experiment_tag(experiment, TAG + "safe", record(task, epsilon, "safe").to_json())
        client.set_experiment_tag(experiment, TAG + "accuracy", record(task, epsilon + 0.05, "accuracy").to_json())
        client.set_experiment_tag(experiment, POLICY_TAG, "safe")
    client.create_experiment("empty/task")
    return uri


@pytest.fixture(scope="module")
def server(uri, tmp_path_factory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        uri,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, start_new_session=True, cwd=log.parent)
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            reach(address)
            break
        except TrackingUnavailable:
            time.sleep(0.5)
    else:
        pytest.fail(log.read_text())
    yield address
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=30)


@pytest.fixture(params=["database", "server"])
def store(request, uri):
    return uri if request.param == "database" else request.getfixturevalue("server")


@pytest.mark.parametrize(("task", "epsilon"), [("digits/mlp", 0.25), ("digits/c n:n'%", 0.125)])
def test_the_record_comes_back_whole(store, task, epsilon):
    assert recommendation(task, tracking_uri=store) == record(task, epsilon, "safe")
    assert recommended_epsilon(task, policy="accuracy", tracking_uri=store) == epsilon + 0.05


@pytest.mark.parametrize("task", ["no/such", "empty/task", "digits/mlp' OR 1=1 --", ""])
def test_what_is_not_there_is_told(store, task):
    with pytest.raises(NotPublished, match="python -m sweeps.run"):
        recommendation(task, tracking_uri=store)


def test_an_unknown_policy_is_told_with_those_there_are(store):
    with pytest.raises(NotPublished, match="accuracy, safe"):
        recommendation("digits/mlp", "secure", store)


def test_a_misspelt_task_is_told_the_nearest(uri):
    with pytest.raises(NotPublished, match="Did you mean 'digits/mlp'"):
        recommendation("digit/mlp", tracking_uri=uri)


def test_the_command_prints_the_number_alone(uri, capsys):
    assert main(["digits/mlp", "--tracking-uri", uri]) == 0
    assert capsys.readouterr().out == "0.25\n"
    assert main(["nothing/here", "--tracking-uri", uri]) == 1
    assert capsys.readouterr().out == ""


def test_the_command_answers_within_three_seconds_and_imports_no_torch(uri):
    code = (
        "import sys, tracking.recommend as r; r.main(['digits/mlp', '--json']); "
        "sys.exit(bool({'torch', 'sweeps', 'lscal', 'mlflow'} & set(sys.modules)))"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "MLFLOW_TRACKING_URI": uri}, capture_output=True, text=True, check=False
    )
    assert time.perf_counter() - started < 3
    assert done.returncode == 0, done.stderr
    assert Recommendation.from_json(done.stdout).epsilon == 0.25


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
