"""Faults of the databases and of MLflow: the sweep's numbers are the same, and MLflow gets everything."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from arena import Arena, ended
from mlflow import MlflowClient
from published import free_port, mlflow_server
from test_workers import same

from tracking.recommend import recommendation

BUSY = ("RUNNING", "COMPLETE")


def restart_often(database, arena, conductor, times):
    """Restart the database while the sweep runs, in turn as an orderly end of all sessions and as a crash."""
    for number in range(times):
        arena.until(lambda: conductor.poll() is not None or any(map(arena.trials, BUSY)))
        if conductor.poll() is not None:
            return number
        database.restart(("fast", "immediate")[number % 2])
        time.sleep(1)
    return times


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("times", [2, 10])
def test_a_database_that_is_restarted_changes_no_number(database, arena, undisturbed, times):
    conductor = arena.sweep("--launch", "inline", "--epochs", "12" if times == 2 else "60")
    with ended(conductor):
        assert restart_often(database, arena, conductor, times) > 1
        if times == 2:
            same(arena, conductor, undisturbed)
        else:  # a longer sweep, so that there is time for ten
            found = arena.finish(conductor)
            alone = Arena(arena.folder, f"sqlite:///{arena.folder}/alone.db", arena.tracking)
            assert alone.finish(alone.sweep("--launch", "inline", "--epochs", "60")) == found
            assert alone.outcomes() == arena.outcomes()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_database_that_is_away_for_half_a_minute_changes_no_number(database, arena, undisturbed):
    conductor = arena.sweep("--launch", "inline")
    with ended(conductor):
        arena.until(lambda: arena.trials("RUNNING"))
        database.stop()
        back = threading.Timer(30, database.start)
        back.start()
        back.join()
        same(arena, conductor, undisturbed)


@pytest.mark.slow
def test_mlflow_is_away_for_the_whole_sweep_and_gets_everything_later(tmp_path, undisturbed):
    port = free_port()
    arena = Arena(tmp_path, f"sqlite:///{tmp_path}/optuna.db", f"http://127.0.0.1:{port}")
    conductor = arena.sweep("--launch", "inline")
    with ended(conductor):
        same(arena, conductor, undisturbed)
    said = " ".join(arena.said().split())  # sentences are wrapped to the width of the terminal
    assert "The sweep goes on" in said
    assert "python -m tracking.replay" in said
    with server(tmp_path, port):
        replayed(arena, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["start", "middle", "end"])
def test_mlflow_that_is_killed_gets_everything_later(tmp_path, undisturbed, moment):
    port = free_port()
    arena = Arena(tmp_path, f"sqlite:///{tmp_path}/optuna.db", f"http://127.0.0.1:{port}")
    with server(tmp_path, port, signal.SIGKILL):
        conductor = arena.sweep("--launch", "inline")
        counted = {
            "start": lambda: True,
            "middle": lambda: arena.trials("COMPLETE") >= 4,
            "end": lambda: "confirm" in " ".join(arena.studies()),
        }
        arena.until(lambda: (tmp_path / "optuna.db").exists() and arena.studies() and counted[moment]())
    with ended(conductor):
        time.sleep(2)
        with server(tmp_path, port):
            same(arena, conductor, undisturbed)
            replayed(arena, undisturbed)


def server(folder, port, end=signal.SIGTERM):
    return mlflow_server(f"sqlite:///{folder}/mlflow.db", folder, port, end)


def replayed(arena, undisturbed):
    """After a replay, MLflow has one complete run for each trial, a parent, and the recommendation."""
    command = [sys.executable, "-m", "tracking.replay"]
    around = {"cwd": arena.folder, "env": arena.environment(), "timeout": 120}
    done = subprocess.run(command, capture_output=True, text=True, check=False, **around)
    assert done.returncode == 0, done.stdout + done.stderr
    client = MlflowClient(arena.tracking, arena.tracking)
    experiment = client.get_experiment_by_name("digits/mlp")
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    uids = sorted(run.data.tags["uid"] for run in found if run.data.tags["role"] == "trial")
    assert uids == sorted(undisturbed[1])
    assert {run.info.status for run in found} == {"FINISHED"}
    assert sum(run.data.tags["role"] == "sweep" for run in found) == 1
    for run in found:
        if run.data.tags["role"] == "trial":
            files = {entry.path for entry in client.list_artifacts(run.info.run_id)}
            assert {"outcome.json", "logits", "reliability"} <= files
    assert recommendation("digits/mlp", tracking_uri=arena.tracking).epsilon == undisturbed[0]["epsilon"]
