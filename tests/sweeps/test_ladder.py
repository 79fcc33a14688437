"""Rungs in a real study, with a real training behind them."""

from dataclasses import replace

import pytest
import torch
from optuna.trial import TrialState

from sweeps.choice import choose
from sweeps.datasets import load
from sweeps.ladder import Ladder
from sweeps.meter import Meter
from sweeps.settings import resolve
from sweeps.study import open_storage, open_study, planned
from sweeps.way import Way
from sweeps.worker import Worker
from tracking import summary
from tracking.records import Outcome

EPOCHS, SEEDS = 8, 3


@pytest.fixture
def study(tmp_path):
    """A study in which three trials have finished with an accuracy that no network reaches."""
    plan = resolve({"trials": 5, "seeds": SEEDS, "epochs": EPOCHS, "policy": "accuracy"})
    storage = open_storage(f"sqlite:///{tmp_path}/optuna.db")
    opened, _ = open_study(storage, plan, plan.tasks[0], "digest")
    opened.enqueue(planned(plan, plan.tasks[0]))
    generator = torch.Generator().manual_seed(3)
    for trial in opened.ask(3):
        opened.tell(trial, finished(opened, trial, generator))
    yield opened
    storage.engine.dispose()


def finished(study, trial, generator):
    accuracy = 0.99999 + 1e-6 * torch.randn(EPOCHS, SEEDS, generator=generator)
    nll = 0.3 - 0.02 * torch.arange(EPOCHS)[:, None] + 0.001 * torch.randn(EPOCHS, SEEDS, generator=generator)
    return Outcome(
        uid=study.uid(trial),
        task="digits/mlp",
        study=study.name,
        stage="screen",
        number=trial.number,
        epsilon=trial.point["epsilon"],
        classes=10,
        point=dict(trial.point),
        seeds=tuple(range(SEEDS)),
        metrics={"select/accuracy": tuple(accuracy[-1].tolist()), "select/ece": (0.1,) * SEEDS},
        curves={},
        temperature=(1.0,) * SEEDS,
        bins={},
        seconds=1.0,
        finished="2026-11-21T00:00:00+00:00",
        by_seed={"accuracy": tuple(map(tuple, accuracy.tolist())), "nll_calibrated": tuple(map(tuple, nll.tolist()))},
    )


def work(study, engine, folder, finish=lambda *_: None, progress=lambda _: None, say=lambda _: None):
    """Train what is queued, as the one worker of the sweep."""
    with Worker(study, engine, finish, folder, say, Meter()) as worker:
        worker.work(study, progress)


@pytest.fixture(scope="module")
def engine():
    task = resolve({"epochs": EPOCHS}).tasks[0]
    chosen = choose(task, load("digits"), ("uniform",), torch.device("cpu"), SEEDS, "looped")
    return replace(chosen, way=Way("looped", "float32", 2, SEEDS, seconds=3.0))


def test_a_hopeless_trial_is_dropped_and_told_with_its_curves(study, engine, tmp_path):
    said, handed, advanced = [], [], []
    work(study, engine, tmp_path, lambda outcome, logits, files: handed.append((outcome, logits)), advanced.append, said.append)
    states = [trial.state for trial in study.trials()]
    assert states == [TrialState.COMPLETE] * 3 + [TrialState.PRUNED] * 2
    assert len(study.outcomes()) == 3
    first, second = study.dropped()
    assert [outcome for outcome, _ in handed] == [first, second]
    assert all(logits == {} for _, logits in handed)
    assert first.metrics == {}
    assert first.epsilon == 0.3
    assert first.dropped in said[0]
    assert said[0].startswith("trial 3 is dropped after 2 of 8 epochs: ε = 0.3 is dropped: predicted")
    assert {len(values) for values in first.curves.values()} == {2}
    assert [len(values) for values in first.by_seed.values()] == [2, 2]
    assert sum(first.by_seed["accuracy"][-1]) / SEEDS == pytest.approx(first.curves["select_accuracy"][-1])
    assert first.curves["select_accuracy"][-1] > 0.3
    assert sum(advanced) == 2 * SEEDS * EPOCHS  # the progress counts what is saved
    assert Outcome.from_json(first.to_json()) == first
    assert study.missing() == study.unfinished() == 0
    table = summary.dropped([first, second], "accuracy")
    assert table.title.endswith("the recommendation of policy accuracy")
    assert [row[:2] for row in table.rows] == [("0.05", "2"), ("0.3", "2")]
    assert table.rows[1][2] == f"{100 * first.curves['select_accuracy'][-1]:.2f}"


def test_without_rungs_every_trial_is_trained_to_its_end(study, engine, tmp_path):
    study.plan = replace(study.plan, rungs=False)
    work(study, engine, tmp_path)
    assert len(study.outcomes()) == 5
    assert study.dropped() == []
    assert study.outcomes()[-1].by_seed == {}  # what was not measured is not made up


def test_nothing_is_dropped_where_more_than_epsilon_is_tuned(study):
    trials = study.ask(2)
    assert sorted(Ladder(study, 3.0, print).rungs(trials, SEEDS)) == [2, 4, 6]
    study.plan = replace(study.plan, tune={"learning_rate": (1e-3, 1e-2)})
    assert Ladder(study, 3.0, print).rungs(trials, SEEDS) == {}


def test_a_short_screening_has_no_rungs(study):
    trials = study.ask(2)
    ladder = Ladder(study, 60 / (5 * SEEDS * EPOCHS) - 1e-6, print)
    assert ladder.rungs(trials, SEEDS) == {}
    assert ladder.most == 5
    assert Ladder(study, 60 / (5 * SEEDS * EPOCHS) + 1e-6, print).most == 3


def test_the_last_batch_has_no_rungs_where_too_few_trials_have_finished(tmp_path):
    plan = resolve({"trials": 4, "seeds": SEEDS, "epochs": EPOCHS})
    storage = open_storage(f"sqlite:///{tmp_path}/optuna.db")
    study, _ = open_study(storage, plan, plan.tasks[0], "digest")
    study.enqueue(planned(plan, plan.tasks[0]))
    ladder = Ladder(study, 3.0, print)
    assert ladder.rungs(study.ask(3), SEEDS)  # the fourth will be compared with these
    assert ladder.rungs(study.ask(1), SEEDS) == {}
    storage.engine.dispose()


def test_the_error_of_the_veto_is_that_of_a_relative_difference(study):
    ladder = Ladder(study, 3.0, print)
    assert ladder.error() == 0
    losses = torch.rand(400, generator=torch.Generator().manual_seed(1)) + 0.5
    ladder.note(0.0, losses)
    assert ladder.error() == 0
    change = 0.1 * torch.randn(400, generator=torch.Generator().manual_seed(2))
    ladder.note(0.2, losses + change)
    ladder.note(0.1, losses + 0.5 * change)
    assert ladder.error() == pytest.approx(float(change.std() / 20 / losses.mean()), rel=1e-4)
