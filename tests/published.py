"""Published: a task's sweep as it lies in MLflow when it is finished, made from an Evidence without a
training.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from made import evidence

from tracking.mlflow import registry
from tracking.mlflow.client import TrackingUnavailable, reach
from tracking.mlflow.versions import folder_of

PAGE = "<!doctype html><title>page</title><script>1</script>"


def made(task="digits/mlp", epsilon=0.25, created="2026-11-21T12:00:00+00:00"):
    """An Evidence whose policy recommends such an ε, created then."""
    found = evidence(task=task, pictures=False)
    records = {name: replace(one, created=created) for name, one in found.recommendations.items()}
    records[found.policy] = replace(records[found.policy], epsilon=epsilon)
    return replace(found, created=created, recommendations=records)


def beside(uri):
    """A folder beside a SQLite database, as an absolute address: MLflow's own default depends on the
    directory a process works in. Else None.
    """
    database = uri.removeprefix("sqlite:///")
    return Path(database).absolute().with_name("artifacts").as_uri() if uri.startswith("sqlite:///") else None


def publish(client, found, params=None):
    """The version, and its run with its artifacts."""
    if known := client.get_experiment_by_name(found.task):
        experiment = known.experiment_id
    else:
        experiment = client.create_experiment(found.task, artifact_location=beside(client.tracking_uri))
    run = client.create_run(experiment).info
    for key, value in (params or {}).items():
        client.log_param(run.run_id, key, value)
    found = replace(found, run_id=run.run_id)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, folder_of(found.created))
        place.mkdir(parents=True)
        (place / "evidence.json").write_text(found.to_json())
        (place / "page.html").write_text(PAGE + found.created)
        for name, record in found.recommendations.items():
            (place / f"recommendation.{name}.json").write_text(record.to_json())
        client.log_artifacts(run.run_id, folder)
    records = found.recommendations
    number = registry.publish(client, found.task, records, found.policy, run.run_id, run.artifact_uri)
    return number, run.run_id


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def mlflow_server(uri, folder, port=0, end=signal.SIGTERM):
    """The address of a real MLflow server on a database, which keeps artifacts in a folder."""
    address = f"http://127.0.0.1:{(port := port or free_port())}"
    flags = f"--backend-store-uri {uri} --artifacts-destination {folder}/artifacts --workers 1"
    flags += f" --host 127.0.0.1 --port {port}"
    with process("mlflow", "server", *flags.split(), folder=folder, end=end) as log:
        for _ in range(240):
            try:
                reach(address)
                break
            except TrackingUnavailable:
                time.sleep(0.25)
        else:
            raise AssertionError(log.read_text())
        yield address


@contextmanager
def process(module, *arguments, folder, end=signal.SIGTERM):
    """A real process of a module, ended with all its children; gives the file that it writes to."""
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment = {**os.environ, **quiet, "PYTHONPATH": str(Path(__file__).parents[1])}
    log = Path(folder, f"{module}.log")
    with log.open("w") as stream:
        streams = {"stdout": stream, "stderr": stream, "cwd": folder, "start_new_session": True}
        running = subprocess.Popen([sys.executable, "-m", module, *arguments], env=environment, **streams)
    try:
        yield log
    finally:
        os.killpg(running.pid, end)
        running.wait(timeout=30)
