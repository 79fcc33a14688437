"""Rungs in a real study, with a real training behind them."""

from dataclasses import replace

import pytest
import torch
from optuna.trial import TrialState
from outcomes import bare

from sweeps.data.load import load
from sweeps.early_stopping.pruner import WORTH, Pruner, has_rungs, packed, unpacked, waves
from sweeps.early_stopping.rule import Curve
from sweeps.settings import resolve
from sweeps.studies.design import planned
from sweeps.studies.opening import open_study
from sweeps.studies.retrying_storage import open_storage
from sweeps.training.autotune import choose
from sweeps.training.execution import Execution
from sweeps.workers.metrics import Metrics
from sweeps.workers.worker import Worker
from tracking.records.outcome import Outcome
from tracking.report import summary

EPOCHS, SEEDS = 8, 3


@pytest.fixture
def study(tmp_path):
    """A study of which the first wave has finished, with an accuracy that no network reaches; the second one
    is queued.
    """
    plan = resolve(
        {"smoothing": "uniform", "trials": 6, "seeds": SEEDS, "epochs": EPOCHS, "policy": "accuracy"}
    )
    storage = open_storage(f"sqlite:///{tmp_path}/optuna.db")
    opened, _ = open_study(storage, plan, plan.tasks[0], "digest")
    first, second = waves(planned(plan, plan.tasks[0]))
    opened.enqueue(first)
    generator = torch.Generator().manual_seed(3)
    for trial in opened.ask(4):
        opened.tell(trial, finished(opened, trial, generator))
    opened.enqueue(second)
    yield opened
    storage.engine.dispose()


def finished(study, trial, generator):
    accuracy = 0.99999 + 1e-6 * torch.randn(EPOCHS, SEEDS, generator=generator)
    nll = 0.3 - 0.02 * torch.arange(EPOCHS)[:, None] + 0.001 * torch.randn(EPOCHS, SEEDS, generator=generator)
    return bare(
        trial.point["epsilon"],
        uid=study.uid(trial),
        study=study.name,
        number=trial.number,
        point=dict(trial.point),
        seeds=tuple(range(SEEDS)),
        metrics={"select/accuracy": tuple(accuracy[-1].tolist()), "select/ece": (0.1,) * SEEDS},
        temperature=(1.0,) * SEEDS,
        by_seed={
            name: tuple(map(tuple, values.tolist()))
            for name, values in {"accuracy": accuracy, "nll_calibrated": nll}.items()
        },
    )


def work(study, engine, folder, finish=lambda *_: None, progress=lambda _: None, say=lambda _: None):
    """Train what is queued, as the one worker of the sweep."""
    with Worker(study, engine, finish, folder, say, Metrics()) as worker:
        worker.work(study, progress)


@pytest.fixture(scope="module")
def engine():
    task = resolve({"epochs": EPOCHS}).tasks[0]
    chosen = choose(task, load("digits"), ("uniform",), torch.device("cpu"), SEEDS, "looped")
    return replace(chosen, execution=Execution("looped", "float32", 2, SEEDS))


@pytest.fixture
def worth_it(monkeypatch):
    """Rungs for a screening as small as this one."""
    monkeypatch.setattr("sweeps.early_stopping.pruner.WORTH", 1.0)


def pruner(study, say=print):
    return Pruner(study, 600, 26_000, say)


@pytest.mark.usefixtures("worth_it")
def test_a_hopeless_trial_is_dropped_and_recorded_with_its_curves(study, engine, tmp_path):
    said, handed, advanced = [], [], []
    work(
        study,
        engine,
        tmp_path,
        lambda outcome, logits, files: handed.append((outcome, logits)),
        advanced.append,
        said.append,
    )
    states = [trial.state for trial in study.trials()]
    assert states == [TrialState.COMPLETE] * 4 + [TrialState.PRUNED] * 2
    assert len(study.outcomes()) == 4
    first, second = study.dropped()
    assert [outcome for outcome, _ in handed] == [first, second]
    assert all(logits == {} for _, logits in handed)
    assert first.metrics == {}
    assert first.epsilon == 0.05
    assert first.dropped in said[0]
    assert said[0].startswith("trial 4 is dropped after 2 of 8 epochs: ε = 0.05 is dropped: predicted")
    assert {len(values) for values in first.curves.values()} == {2}
    assert [len(values) for values in first.by_seed.values()] == [2, 2]
    assert sum(first.by_seed["accuracy"][-1]) / SEEDS == pytest.approx(first.curves["select_accuracy"][-1])
    assert first.curves["select_accuracy"][-1] > 0.3
    assert sum(advanced) == 2 * SEEDS * EPOCHS  # the progress counts what is saved
    assert Outcome.from_json(first.to_json()) == first
    assert study.missing() == study.unfinished() == study.pending() == 0
    table = summary.dropped([first, second], "accuracy")
    assert table.title.endswith("the recommendation of policy accuracy")
    assert [row[:2] for row in table.rows] == [("0.05", "2"), ("0.25", "2")]
    assert table.rows[0][2] == f"{100 * first.curves['select_accuracy'][-1]:.2f}"


def test_without_rungs_every_trial_is_trained_to_its_end(study, engine, tmp_path):
    study.plan = replace(study.plan, rungs=False)
    work(study, engine, tmp_path)
    assert len(study.outcomes()) == 6
    assert study.dropped() == []
    assert study.outcomes()[-1].by_seed == {}  # only rungs need it


@pytest.mark.usefixtures("worth_it")
def test_nothing_is_dropped_where_more_than_epsilon_is_tuned(study):
    trials = study.ask(2)
    assert sorted(pruner(study).rungs(trials, SEEDS)) == [2, 4, 6]
    study.plan = replace(study.plan, tune={"learning_rate": (1e-3, 1e-2)})
    assert pruner(study).rungs(trials, SEEDS) == {}


def test_whether_there_are_rungs_follows_from_the_plan(study):
    """Not from how fast anything is: members × epochs × examples × parameters."""
    plan, task = study.plan, study.task
    enough = WORTH / (6 * SEEDS * EPOCHS)
    assert has_rungs(plan, task, round(enough / 1000) + 1, 1000)
    assert not has_rungs(plan, task, round(enough / 1000) - 1, 1000)
    assert not has_rungs(replace(plan, rungs=False), task, round(enough), 1000)


def test_more_trials_leave_the_first_waves_as_they_were():
    points = [{"epsilon": 0.01 * number} for number in range(21)]
    assert [len(wave) for wave in waves(points)] == [4, 4, 8, 5]
    assert waves(points[:9])[:2] == waves(points)[:2]
    assert [point for wave in waves(points) for point in wave] == points


@pytest.mark.usefixtures("worth_it")
def test_a_decision_depends_on_earlier_waves_alone(study):
    """Given that a trial of the same wave has finished or not, when a trial is judged, then the verdict is
    the same; one of the first wave goes on.
    """
    fifth, sixth = study.ask(2)
    curve = Curve(
        fifth.point["epsilon"],
        {"accuracy": torch.full((2, SEEDS), 0.9), "nll_calibrated": torch.full((2, SEEDS), 0.4)},
    )
    before = pruner(study).decision(fifth.point, curve)
    assert not before.keep
    study.tell(sixth, finished(study, sixth, torch.Generator().manual_seed(9)))
    assert pruner(study).decision(fifth.point, curve) == before
    assert pruner(study).decision({"epsilon": 0.1}, replace(curve, epsilon=0.1)).keep


@pytest.mark.usefixtures("worth_it")
def test_the_error_of_the_veto_is_that_of_a_relative_difference(study):
    losses = torch.rand(400, generator=torch.Generator().manual_seed(1)) + 0.5
    change = 0.1 * torch.randn(400, generator=torch.Generator().manual_seed(2))
    outcomes = study.outcomes()

    def error(told):
        return pruner(study).error(
            [
                (outcome, packed(told[outcome.epsilon]) if outcome.epsilon in told else None)
                for outcome in outcomes
            ]
        )

    assert error({}) == error({0.0: losses}) == error({0.1: losses}) == 0
    assert error({0.0: losses, 0.2: losses + change, 0.1: losses + 0.5 * change}) == pytest.approx(
        float(change.std() / 20 / losses.mean()), rel=1e-4
    )


def test_losses_are_kept_as_text_and_of_many_examples_an_even_share():
    losses = torch.rand(10_000)
    assert torch.equal(unpacked(packed(losses[:100])), losses[:100])
    kept = unpacked(packed(losses))
    assert len(kept) == 4096
    assert (kept[0], kept[-1]) == (losses[0], losses[-1])


def test_a_dropped_trial_is_left_alone_until_an_epoch_after_its_drop(study):
    judge = pruner(study)
    assert judge.epochs == EPOCHS == 8
    falling = {"epsilon": 0.2, "drop": 0.5}
    assert [judge.judged(falling, past) for past in (2, 4, 5, 6)] == [False, False, True, True]
    assert judge.judged({"epsilon": 0.2, "drop": 1.0}, 2)
    assert judge.judged({"epsilon": 0.2}, 2)


def test_trials_are_compared_with_those_of_their_own_schedule(tmp_path):
    plan = resolve({"trials": 9, "seeds": SEEDS, "epochs": EPOCHS, "policy": "accuracy"})
    storage = open_storage(f"sqlite:///{tmp_path}/optuna.db")
    opened, _ = open_study(storage, plan, plan.tasks[0], "digest")
    points = planned(plan, plan.tasks[0])
    opened.enqueue(points)
    generator = torch.Generator().manual_seed(3)
    for trial in opened.ask(8):
        opened.tell(trial, finished(opened, trial, generator))
    judge = pruner(opened)
    for place in (7, 8):
        point = points[place]
        before, _ = judge.before(point)
        drops = [outcome.point["drop"] for outcome, _ in before if outcome.epsilon != 0]
        assert before[0][0].epsilon == 0
        assert drops
        assert all((drop < 1) == (point["drop"] < 1) for drop in drops)
    storage.engine.dispose()
