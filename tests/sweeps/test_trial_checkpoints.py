"""Checkpoints of trials, which continue in any population; and damaged ones."""

import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sweeps.data.load import load
from sweeps.settings import resolve
from sweeps.training.autotune import choose
from sweeps.training.checkpoint import Checkpoint
from sweeps.training.execution import Execution
from sweeps.training.member import Member
from sweeps.training.trial_checkpoints import TrialCheckpoints, epochs_done, place

ONE, TWO, THREE = ([Member(epsilon, seed, 3e-3, 1e-2) for seed in (0, 1)] for epsilon in (0.0, 0.2, 0.3))


@pytest.fixture(scope="module")
def engine():
    made = choose(
        resolve({"epochs": 3}).tasks[0], load("digits"), ("uniform",), torch.device("cpu"), 2, "fused"
    )
    return replace(made, execution=Execution("fused", "float32", 1, 8))


@pytest.fixture(scope="module")
def whole(engine):
    """The logits of all members, trained in one go."""
    return engine.logits(engine.train([*ONE, *TWO, *THREE], lambda _: None), "test")


class Killed(BaseException):
    """What ends a training in the middle."""


@pytest.fixture
def checkpoints(engine, tmp_path):
    """Makes shelves in one folder; what they say is in `said`."""

    def make(**trials):
        return TrialCheckpoints(tmp_path, trials, engine.identity, said.append, seconds=0, share=float("inf"))

    said = make.said = []
    return make


def until_epoch(engine, members, epochs, checkpoints):
    """Train, and be killed after so many epochs' checkpoints."""
    left = iter([None] * epochs + [Killed()])

    def progress(_):
        if error := next(left):
            raise error

    with pytest.raises(Killed):
        engine.train(members, progress, checkpoints=checkpoints)


def test_trials_go_on_beside_others_to_the_same_bits(engine, checkpoints, whole, tmp_path):
    until_epoch(engine, [*ONE, *TWO, *THREE], 2, checkpoints(one=ONE, two=TWO, three=THREE))
    assert [epochs_done(tmp_path, uid) for uid in ("one", "two", "three", "four")] == [2, 2, 2, 0]
    told = []
    trained = engine.train([*THREE, *ONE], told.append, checkpoints=checkpoints(three=THREE, one=ONE))
    assert told == [8, 4]  # two of three epochs were there
    assert torch.equal(engine.logits(trained, "test"), whole[[4, 5, 0, 1]])
    assert len(trained.curves["train_loss"]) == 3


@pytest.mark.parametrize("length", [0, 7, 500, -1])
def test_a_truncated_checkpoint_is_told_and_its_population_begins_anew(
    engine, checkpoints, whole, tmp_path, length
):
    until_epoch(engine, [*ONE, *TWO], 1, checkpoints(one=ONE, two=TWO))
    path = place(tmp_path, "two")
    path.write_bytes(path.read_bytes()[:length])
    trained = engine.train([*ONE, *TWO], lambda _: None, checkpoints=checkpoints(one=ONE, two=TWO))
    assert torch.equal(engine.logits(trained, "test"), whole[:4])
    assert len(checkpoints.said) == 1
    assert "trained from the start" in checkpoints.said[0]


def test_what_was_trained_otherwise_is_not_gone_on_from(engine, checkpoints, tmp_path):
    until_epoch(engine, ONE, 1, checkpoints(one=ONE))
    assert checkpoints(one=TWO).read(engine.begin(TWO).shards[0].population.state().keys()) is None
    assert "of another training" in checkpoints.said[0]
    assert not place(tmp_path, "one").exists()


def test_trials_which_were_not_trained_equally_far_do_not_go_on_together(engine, checkpoints):
    until_epoch(engine, ONE, 1, checkpoints(one=ONE))
    until_epoch(engine, TWO, 2, checkpoints(two=TWO))
    assert checkpoints(one=ONE, two=TWO).read(engine.begin(ONE).shards[0].population.state().keys()) is None
    assert checkpoints.said == []


def test_a_full_disk_is_told_once_and_the_training_goes_on(engine, checkpoints, whole, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        trained = engine.train(ONE, lambda _: None, checkpoints=checkpoints(one=ONE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(engine.logits(trained, "test"), whole[:2])
    assert len(checkpoints.said) == 1
    assert "No checkpoints are written any more" in checkpoints.said[0]
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_are_written_no_more_often_than_asked(engine, tmp_path):
    seldom = TrialCheckpoints(tmp_path, {"one": ONE}, engine.identity, print, seconds=3600)
    engine.train(ONE, lambda _: None, checkpoints=seldom)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_on_the_disk_before_it_replaces_the_last(tmp_path, monkeypatch):
    """A power cut between write and rename must not leave an empty file under the name of a good one."""
    steps = []
    fsync, move = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: steps.append("fsync") or fsync(handle))
    monkeypatch.setattr(Path, "replace", lambda path, to: steps.append("rename") or move(path, to))
    saved = Checkpoint("one", (0,), {"w": torch.ones(1, 2)}, {}, torch.ones(1, dtype=torch.int64))
    saved.write(tmp_path / "one.safetensors")
    assert steps == ["fsync", "rename"]
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]
