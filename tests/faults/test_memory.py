"""A device whose memory is used up, for real: the process may not have more address space."""

import subprocess
import sys

import pytest
from arena import ROOT

SCRIPT = """
import resource, sys
from dataclasses import replace
from pathlib import Path
import optuna, torch
from sweeps.training.autotune import choose
from sweeps.data.load import load
from sweeps.workers.metrics import Metrics
from sweeps.settings import resolve
from sweeps.studies.retrying_storage import open_storage
from sweeps.studies.design import planned
from sweeps.studies.opening import open_study
from sweeps.workers.worker import Worker

torch.set_num_threads(1)
trials, seeds, megabytes, most = map(int, sys.argv[1:5])
plan = resolve({"trials": trials, "seeds": seeds, "epochs": 1, "tasks": ["digits/mlp"]})
task, dataset = plan.tasks[0], load("digits")
storage = open_storage("sqlite:///optuna.db")
study, _ = open_study(storage, plan, task, dataset.digest)
study.enqueue(planned(plan, task))
engine = choose(task, dataset, ("uniform",), torch.device("cpu"), seeds, "fused")
engine = replace(engine, execution=replace(engine.execution, shards=1, members=trials * seeds))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
with Worker(study, engine, lambda *_: None, Path("checkpoints"), print, Metrics()) as worker:
    worker.engine = engine
    worker.most = most
    if megabytes:
        resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, resource.RLIM_INFINITY))
    worker.work(study, lambda _: None)
    print("LEFT", study.unfinished(), "MOST", worker.most)
for outcome in sorted(study.outcomes(), key=lambda outcome: outcome.epsilon):
    print("OUTCOME", outcome.epsilon, outcome.seeds, outcome.metrics["select/nll"])
"""


def trained(folder, trials, seeds, megabytes, most):
    """What a worker with so much memory to spare says, and its outcomes."""
    folder.mkdir()
    words = [sys.executable, "-c", SCRIPT, *map(str, (trials, seeds, megabytes, most))]
    done = subprocess.run(
        words,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    return [line for line in lines if not line.startswith("OUTCOME")], [
        line for line in lines if line.startswith("OUTCOME")
    ]


@pytest.mark.slow  # what a process can still allocate near its limit is not the same each time
def test_a_population_that_does_not_fit_is_halved(tmp_path):
    said, outcomes = trained(tmp_path / "little", 8, 64, 150, 512)
    assert any("do not fit into the memory of cpu" in line for line in said)
    assert any(line.startswith("LEFT 0") for line in said)
    assert outcomes == trained(tmp_path / "much", 8, 64, 0, 512)[1]
    assert len(outcomes) == 8


def test_a_trial_that_does_not_fit_alone_is_trained_in_parts(tmp_path):
    said, outcomes = trained(tmp_path / "parts", 2, 8, 0, 3)
    assert said[-1] == "LEFT 0 MOST 3"
    assert outcomes == trained(tmp_path / "whole", 2, 8, 0, 16)[1]
