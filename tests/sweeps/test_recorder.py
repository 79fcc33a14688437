"""The recorder and its uploader, two real processes: nothing waits for MLflow, and nothing is lost when one
of them dies.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from entries import FACTS, FOUND, UNPLACED
from mlflow import MlflowClient
from published import free_port

from sweeps.data.load import load
from sweeps.recording.recorder import Recorder, SweepRecorder
from tracking.outbox.outbox import Outbox


@pytest.fixture(scope="module")
def dataset():
    return load("digits")


def logits_of(dataset, number):
    """Made-up logits of two seeds."""
    random = torch.Generator().manual_seed(number)
    return {
        split: torch.randn(2, len(dataset.splits[split].labels), 10, generator=random)
        for split in ("calibrate", "select")
    }


def outcome(number):
    return replace(FOUND.outcomes[number], seeds=(0, 1), temperature=(1.0, 1.1))


def children(uri):
    client = MlflowClient(uri, uri)
    return client, client.search_runs(
        [client.get_experiment_by_name(FOUND.task).experiment_id], "tags.role = 'trial'"
    )


def test_a_sweep_is_recorded_published_and_read_back_also_when_the_uploader_is_killed(
    dataset, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # where MLflow puts artifacts
    uri, said = f"sqlite:///{tmp_path}/mlflow.db", []
    with Recorder(uri, tmp_path / "box") as recorder:
        records = SweepRecorder(recorder, dataset, FOUND.study, FOUND.task, FACTS, said.append)
        records.finish(outcome(0), logits_of(dataset, 0), {"weights/0.safetensors": b"weights"})
        records.finish(outcome(1), logits_of(dataset, 1))
        records.drain()
        os.kill(recorder.process.pid, signal.SIGKILL)
        records.finish(outcome(2), logits_of(dataset, 2))
        records.catch_up([outcome(number) for number in range(4)])
        version = records.publish(UNPLACED, [], None)
        assert (version, records.unsent().entries, said) == (1, 0, [])
        for number in range(3):
            found = records.fetch(outcome(number))
            assert found.keys() == {"calibrate", "select"}
            assert all(torch.equal(found[split], logits_of(dataset, number)[split]) for split in found)
        assert records.fetch(outcome(3)) is None  # its numbers alone were caught up
        assert records.artifact(outcome(0), "weights/0.safetensors") == b"weights"
        parent = records.where()
    assert not recorder.process.is_alive()
    client, found = children(uri)
    assert sorted(run.data.tags["uid"] for run in found) == sorted(outcome(number).uid for number in range(4))
    assert client.get_run(parent.id).data.metrics["recommended_epsilon"] == 0.1
    assert parent.link.startswith("#/experiments/")
    for run in found:
        assert "reliability/select.png" in [
            file.path for file in client.list_artifacts(run.info.run_id, "reliability")
        ]


def test_without_mlflow_nothing_waits_and_all_is_kept(dataset, tmp_path):
    uri, said = f"http://127.0.0.1:{free_port()}", []
    with Recorder(uri, tmp_path / "box") as recorder:
        records = SweepRecorder(recorder, dataset, FOUND.study, FOUND.task, FACTS, said.append)
        began = time.monotonic()
        for number in range(3):
            records.finish(outcome(number), logits_of(dataset, number))
        assert time.monotonic() - began < 1.5
        began = time.monotonic()
        assert records.where() is None
        assert time.monotonic() - began < 6
        assert torch.equal(records.fetch(outcome(1))["select"], logits_of(dataset, 1)["select"])
        began = time.monotonic()
        assert records.fetch(outcome(3)) is None
        assert records.publish(UNPLACED, [], None) is None
        assert time.monotonic() - began < 30
        left = records.unsent()
        assert left.entries == 4
        assert f"python -m tracking.replay --tracking-uri {uri} --outbox {tmp_path / 'box'}" in left.sentence
        assert any("does not answer" in line for line in said)
    pictures = [
        path
        for entry in Outbox(tmp_path / "box").entries()
        for path in entry.read()[1]
        if path.endswith(".png")
    ]
    assert sorted(pictures) == ["overview.png", "reliability.png", *["reliability/select.png"] * 3]


KILLED = """
import os, sys
from pathlib import Path
from test_recorder import *
if __name__ == "__main__":
    recorder = Recorder(sys.argv[1], Path(sys.argv[2]))
    dataset = load("digits")
    records = SweepRecorder(recorder, dataset, FOUND.study, FOUND.task, FACTS, print)
    records.finish(outcome(0), logits_of(dataset, 0))
    print(recorder.process.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_a_worker_that_is_killed_leaves_its_entries_to_others_and_no_process(tmp_path):
    uri = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "killed.py").write_text(KILLED)
    path = os.pathsep.join(
        str(place) for place in (Path(__file__).parent, Path(__file__).parents[1], Path(__file__).parents[2])
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "killed.py"), uri, str(tmp_path / "box")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [entry.read()[0].uid for entry in Outbox(tmp_path / "box").entries()] == [outcome(0).uid]
    uploader = int(done.stdout)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{uploader}").exists() and "zombie" not in Path(f"/proc/{uploader}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
