"""Plan and Task: what will be run, as frozen values, and the only home of defaults. `settings` makes a Plan
from YAML and flags.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, NamedTuple, get_args

import yaml

from sweeps.data.readers.spec import Columns
from sweeps.task import Precision, Task
from tracking.decision.prices import Prices
from tracking.decision.terms import Terms, Tolerances

Launch = Literal["inline", "processes", "ray"]
LAUNCHES: tuple[Launch, ...] = get_args(Launch)
FROM_RECIPE = 4.0
"""A range which is not given is the recipe's value divided and multiplied by this."""
RECORD = 3
"""The form of what a study keeps; another one begins a new study."""


@dataclass(frozen=True)
class Plan:
    """A whole sweep, resolved.

    Scientific: `epsilon` (range tried, below 0 where that is written), `smoothing` (who receives ε, see
    `sweeps.training.smoothing_kinds`; of several names one is chosen beside ε). Nuisance: `tune` (ranges of
    `learning_rate` and `weight_decay` tuned beside ε; None is a quarter of the recipe's value to four times
    it). Fixed: each task's recipe. `trials` points are tried, each with `seeds` paired seeds; the finalists
    are trained again with up to `confirm_seeds` fresh ones, as many as `effect`, the smallest gain in
    accuracy of interest (a share: 0.003 is 0.3 pp), needs by the pilot unless given. `rungs` has trials
    dropped which can no longer change the recommendation of `policy`, see `sweeps.early_stopping.rule`.
    `tolerances` and `prices` are what the policies judge by; `price_per_hour` is that of the device, for the
    pilot's estimate. `precision` is that of forward and backward passes. `execution` pins how members are
    trained, see `Execution`: it is recorded, but is no part of the science.

    `workers` is how many there are, "auto" one for each GPU or each few cores, 0 none but those which join
    from elsewhere; `launch` says how they are placed, see `sweeps.workers.launch`; with None, a single one is
    the process itself. On Ray, `gpus_per_worker` may be a fraction. A worker which gave no sign of life for
    `grace` seconds is taken for dead. In `state_dir` lie the outbox and the checkpoints.

    `datasets` and `architectures` are those which are brought, by name, see `sweeps.data.readers`.
    `start_from` is a file of weights from which every member begins, see `sweeps.models.initial_weights`.
    """

    tasks: tuple[Task, ...]
    epsilon: tuple[float, float] = (0.0, 0.4)
    smoothing: tuple[str, ...] = ("uniform",)
    tune: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    trials: int = 8
    seeds: int = 8
    confirm_seeds: int | None = None
    effect: float = 0.003
    train_examples: int | None = None
    rungs: bool = True
    policy: str = "safe"
    tolerances: Tolerances = Tolerances()
    prices: Prices = Prices()
    price_per_hour: float | None = None
    random_state: int = 0
    device: str = "auto"
    precision: Precision = "float32"
    execution: str = "auto"
    storage: str = "sqlite:///optuna.db"
    tracking_uri: str = "sqlite:///mlflow.db"
    data_dir: str | None = None
    workers: int | Literal["auto"] = "auto"
    launch: Launch | None = None
    ray_address: str | None = None
    gpus_per_worker: float | None = None
    grace: float = 30.0
    state_dir: str = "lscal-state"
    datasets: Mapping[str, Columns] = field(default_factory=dict)
    architectures: Mapping[str, str] = field(default_factory=dict)
    start_from: str | None = None

    @property
    def terms(self) -> Terms:
        """What it says about deciding."""
        return Terms(self.policy, self.tolerances, self.prices, self.effect)

    @property
    def tuned(self) -> bool:
        """Whether more than ε differs between trials."""
        return bool(self.tune) or len(self.smoothing) > 1

    def ranges(self, task: Task) -> dict[str, tuple[float, float]]:
        """The ranges of the numbers which are tuned beside ε."""
        own = {key: getattr(task.recipe, key) for key in self.tune}
        return {
            key: given or (own[key] / FROM_RECIPE, own[key] * FROM_RECIPE) for key, given in self.tune.items()
        }

    def science(self, task: Task, digest: str) -> dict[str, Any]:
        """All that decides the numbers of a screening trial. A study holds the trials of one such value."""
        from sweeps.models.builtin import ARCHITECTURES  # these import torch, which --help does not wait for
        from sweeps.models.initial_weights import digest as digest_of
        from sweeps.training.smoothing_kinds import digests

        return {
            "record": RECORD,
            "task": task.name,
            "precision": self.precision,
            **{key: value for key, value in task.recipe.to_mapping().items() if key not in self.tune},
            "epsilon": list(self.epsilon),
            "smoothing": only(self.smoothing),
            **({"files": files} if (files := digests(self.smoothing)) else {}),
            "tune": {key: list(value) for key, value in sorted(self.ranges(task).items())},
            "seeds": self.seeds,
            "train_examples": self.train_examples,
            "random_state": self.random_state,
            "data": digest,
            **({"code": version} if (version := ARCHITECTURES[task.architecture].version) else {}),
            **({"start_from": digest_of(self.start_from)} if self.start_from else {}),
        }

    def training(self, task: Task, digest: str) -> str:
        """A digest of task, data and recipe: what was published for the same training may be tried again in
        another sweep.
        """
        science = self.science(task, digest)
        beside = ("record", "epsilon", "smoothing", "files", "tune", "seeds", "random_state", "precision")
        return short_digest({key: value for key, value in science.items() if key not in beside})

    def to_mapping(self) -> dict[str, Any]:
        """The plan as plain values: what `from_mapping` reads back. A password in a URL is left out."""
        mapping: dict[str, Any] = {
            "tasks": [{"task": task.name, **task.recipe.to_mapping()} for task in self.tasks]
        }
        for entry in fields(self):
            if entry.name != "tasks":
                mapping[entry.name] = getattr(self, entry.name)
        mapping["epsilon"] = list(self.epsilon)
        mapping["smoothing"] = only(self.smoothing)
        mapping["tune"] = {key: None if value is None else list(value) for key, value in self.tune.items()}
        mapping["tolerances"], mapping["prices"] = asdict(self.tolerances), asdict(self.prices)
        mapping["datasets"] = {name: columns.to_mapping() for name, columns in self.datasets.items()}
        mapping["architectures"] = dict(self.architectures)
        return {
            key: value
            for key, value in mapping.items()
            if not (key in ("storage", "tracking_uri") and has_secret(value))
        }

    def to_yaml(self) -> str:
        """YAML which, given to `--config`, reproduces the run."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False, default_flow_style=None, width=120)


class Asked(NamedTuple):
    """What a command is asked for beside the plan: nothing of it changes a measured number.

    `pilot_only` stops after the pilot, `reopen` opens *test* once more, `fresh` leaves the published ε out of
    the candidates, `tables` prints the tables behind the answer.
    """

    pilot_only: bool = False
    reopen: bool = False
    fresh: bool = False
    tables: bool = False


def only(names: tuple[str, ...]) -> str | list[str]:
    """A single name as it is, several as a list."""
    return names[0] if len(names) == 1 else list(names)


def has_secret(url: str) -> bool:
    """Whether a URL carries a user's password or token before its host."""
    return "@" in url.partition("://")[2]


def short_digest(science: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of a plan or of a point, the same in every order of its names."""
    return hashlib.sha256(json.dumps(science, sort_keys=True).encode()).hexdigest()[:8]
