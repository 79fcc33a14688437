"""Plan and Task: what will be run, as frozen values, and the only home of defaults. `settings` makes a Plan
from YAML and flags.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from sweeps.task import Precision, Task
from tracking.decision.prices import Prices
from tracking.decision.terms import Terms, Tolerances

PLAIN_TRIALS, PLAIN_SEEDS = 8, 8
"""The defaults where no smoothing is dropped: as many members, fewer places and more seeds at each."""
FROM_RECIPE = 4.0
"""A range that is not given is the recipe's value divided and multiplied by this."""
RECORD = 3
"""The form of what a study keeps; another one begins a new study."""


@dataclass(frozen=True)
class Plan:
    """The science and the decision of a sweep: hashed, recorded, the same on every machine (see `Site`).

    Attributes:
        epsilon: the range tried; below 0 where that is written.
        smoothing: names of smoothings, see `sweeps.training.smoothing_kinds`; of several, one is chosen
            beside ε. With `@drop`, so is the share of the training after which ε falls to 0.
        tune: ranges of `learning_rate` and `weight_decay` tuned beside ε; None is a quarter of the recipe's
            value to four times it.
        trials: points tried, each with `seeds` paired seeds.
        confirm_seeds: most fresh seeds of the finalists; None for as many as `effect` needs by the pilot.
        effect: the smallest gain in accuracy of interest, a share: 0.003 is 0.3 percentage points.
        rungs: whether trials that can no longer change the recommendation are dropped, see
            `sweeps.early_stopping.rule`.
        policy, tolerances, prices: what decides.
        price_per_hour: of the device, for the estimate of the pilot.
        precision: of forward and backward passes.
        execution: pins how members are trained, see `Execution`; recorded, but no part of the science.
        grace: seconds without a heartbeat after which the trials of a worker are given to others.
    """

    tasks: tuple[Task, ...]
    epsilon: tuple[float, float] = (0.0, 0.4)
    smoothing: tuple[str, ...] = ("uniform", "uniform@drop")
    tune: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    trials: int = 16
    seeds: int = 4
    confirm_seeds: int | None = None
    effect: float = 0.003
    train_examples: int | None = None
    rungs: bool = True
    policy: str = "safe"
    tolerances: Tolerances = Tolerances()
    prices: Prices = Prices()
    price_per_hour: float | None = None
    random_state: int = 0
    precision: Precision = "float32"
    execution: str = "auto"
    grace: float = 30.0

    @property
    def terms(self) -> Terms:
        """Policy, tolerances, prices and the effect of interest."""
        return Terms(self.policy, self.tolerances, self.prices, self.effect)

    @property
    def tuned(self) -> bool:
        """Whether more than ε, and when it falls to 0, differs between trials: those are drawn by Optuna."""
        return bool(self.tune) or len(self.bases) > 1

    @property
    def bases(self) -> tuple[str, ...]:
        """The smoothings apart from when ε falls to 0."""
        from sweeps.training.smoothing_kinds import bases

        return bases(self.smoothing)

    @property
    def dropping(self) -> bool:
        """Whether smoothings whose ε falls to 0 are tried: points then have a `drop`."""
        from sweeps.training.smoothing_kinds import dropping

        return dropping(self.smoothing)

    def ranges(self, task: Task) -> dict[str, tuple[float, float]]:
        """The ranges of the numbers that are tuned beside ε."""
        own = {key: getattr(task.recipe, key) for key in self.tune}
        return {
            key: given or (own[key] / FROM_RECIPE, own[key] * FROM_RECIPE) for key, given in self.tune.items()
        }

    def science(self, task: Task, digest: str) -> dict[str, Any]:
        """All that decides the numbers of a screening trial. A study holds the trials of one such value."""
        from sweeps.models.initial_weights import digest as digest_of
        from sweeps.models.lookup import architecture_of  # these import torch: --help does not wait for it
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
            **({"code": version} if (version := architecture_of(task).version) else {}),
            **({"start_from": digest_of(task.start_from)} if task.start_from else {}),
        }

    def training(self, task: Task, digest: str) -> str:
        """A digest of task, data and recipe: what was published for the same training may be tried again in
        another sweep.
        """
        science = self.science(task, digest)
        beside = ("record", "epsilon", "smoothing", "files", "tune", "seeds", "random_state", "precision")
        return short_digest({key: value for key, value in science.items() if key not in beside})

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, as YAML has them and `settings.resolve` reads them back."""
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
        return mapping


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


def short_digest(science: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of a plan or of a point, the same in every order of its names."""
    return hashlib.sha256(json.dumps(science, sort_keys=True).encode()).hexdigest()[:8]
