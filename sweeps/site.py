"""Site: this machine's part of a sweep: its stores, folders, device, workers and user-supplied files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from sweeps.data.readers.spec import Columns
from sweeps.plan import Plan

Launch = Literal["inline", "processes", "ray"]
LAUNCHES: tuple[Launch, ...] = get_args(Launch)
SECRETS = {"storage": "OPTUNA_STORAGE", "tracking_uri": "MLFLOW_TRACKING_URI"}
"""Fields that may hold a password, with the environment variable to give it by."""


@dataclass(frozen=True)
class Site:
    """Where and how a plan runs on one machine. Nothing of it changes a measured number or is hashed.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N".
        storage: database URL of the Optuna studies.
        tracking_uri: MLflow server or database.
        data_dir: folder of data sets.
        workers: how many; "auto" is one for each GPU or each few cores, 0 none but those that join.
        launch: how workers are placed, see `sweeps.workers.launch`; with None, a single one is this process.
        ray_address: Ray cluster; None begins one on this machine.
        gpus_per_worker: may be a fraction, on Ray.
        state_dir: folder of the outbox, the checkpoints and the pages.
        datasets, architectures: user-supplied ones by name, see `sweeps.external`.
        start_from: file of initial weights, see `sweeps.models.initial_weights`.
    """

    device: str = "auto"
    storage: str = "sqlite:///optuna.db"
    tracking_uri: str = "sqlite:///mlflow.db"
    data_dir: str | None = None
    workers: int | Literal["auto"] = "auto"
    launch: Launch | None = None
    ray_address: str | None = None
    gpus_per_worker: float | None = None
    state_dir: str = "lscal-state"
    datasets: Mapping[str, Columns] = field(default_factory=dict)
    architectures: Mapping[str, str] = field(default_factory=dict)
    start_from: str | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, as YAML has them, without URLs that hold a password."""
        mapping = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        mapping["datasets"] = {name: columns.to_mapping() for name, columns in self.datasets.items()}
        mapping["architectures"] = dict(self.architectures)
        return {key: value for key, value in mapping.items() if not (key in SECRETS and has_secret(value))}

    @property
    def outbox(self) -> Path:
        """Folder of what MLflow has not taken yet."""
        return Path(self.state_dir, "outbox")

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints of trials."""
        return Path(self.state_dir, "checkpoints")


def to_yaml(plan: Plan, site: Site) -> str:
    """YAML that, given to `--config`, reproduces the run."""
    values = {**plan.to_mapping(), **site.to_mapping()}
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120)


def has_secret(url: str) -> bool:
    """Whether a URL carries a user's password or token before its host."""
    return "@" in url.partition("://")[2]


def pages_of(state_dir: Path) -> Path:
    """The folder of all pages."""
    return state_dir / "pages"


def page_of(state_dir: Path, task: str) -> Path:
    """The page of a task such as `digits/mlp`."""
    return pages_of(state_dir) / f"{task.replace('/', '--')}.html"


def places(state_dir: Path, tracking_uri: str, tasks: Sequence[str]) -> tuple[str, str]:
    """Where results will be: the page, or the folder of several tasks' pages; and MLflow."""
    single = len(tasks) == 1 and re.fullmatch(r"\w+/\w+", tasks[0])
    page = page_of(state_dir, tasks[0]) if single else pages_of(state_dir)
    return f"Page, when it is done: {page.absolute().as_uri()}", f"MLflow: {browse(tracking_uri)}"


def browse(uri: str) -> str:
    """How to open a tracking store in a browser."""
    if uri == Site.tracking_uri:
        return "mlflow server, then http://127.0.0.1:5000"
    from tracking.mlflow.client import shown  # SQLAlchemy takes a quarter of a second

    if uri.startswith("http"):
        return shown(uri)
    return f"mlflow server --backend-store-uri {shown(uri)}, then http://127.0.0.1:5000"
