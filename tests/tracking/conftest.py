"""A tracking store for each test: made once, then copied."""

import shutil

import pytest
from mlflow import MlflowClient


@pytest.fixture(scope="session")
def initialised(tmp_path_factory):
    """An empty MLflow database."""
    path = tmp_path_factory.mktemp("initialised") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(initialised, tmp_path, monkeypatch):
    """A tracking store in a folder of its own, which is the working directory."""
    shutil.copy(initialised, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def client(uri):
    return MlflowClient(uri, uri)
