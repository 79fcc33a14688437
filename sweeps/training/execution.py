"""Execution: how populations of a task are trained on a device, and the cache of what was measured."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from sweeps.data.dataset import Dataset
from sweeps.devices import cores
from sweeps.models.initial_weights import take_over
from sweeps.models.lookup import architecture_of
from sweeps.task import ExecutionKind, Precision, Task
from sweeps.training.member import Member
from sweeps.training.population import FusedPopulation, LoopedPopulation, Population
from sweeps.training.smoothing_kinds import SmoothingNoise


@dataclass(frozen=True)
class Execution:
    """How members are trained.

    Attributes:
        kind: "fused", all members of a shard in one pass, or "looped", one after another.
        precision: of forward and backward passes.
        shards: how many populations are trained side by side, one on each core; a GPU has one.
        members: how many to train at a time, in all shards.
        seconds: measured time of one member for one epoch.
    """

    kind: ExecutionKind
    precision: Precision
    shards: int
    members: int
    seconds: float = 0.0

    def population(
        self,
        members: Sequence[Member],
        task: Task,
        dataset: Dataset,
        noises: Mapping[str, SmoothingNoise],
        device: torch.device,
    ) -> Population:
        """Freshly initialised members of a task."""
        build = partial(network, task, dataset)
        population = FusedPopulation if self.kind == "fused" else LoopedPopulation
        return population(
            members, build, noises, device, task.recipe.optimiser, getattr(torch, self.precision)
        )

    def __str__(self) -> str:
        precision = "" if self.precision == "float32" else f", {self.precision}"
        return (
            f"{self.kind}{precision}, {self.members} members at a time in {self.shards}"
            f" shard{'s' if self.shards > 1 else ''}"
        )


def network(task: Task, dataset: Dataset) -> nn.Module:
    """A network as its members begin: freshly initialised, or with the weights that the task starts from."""
    module: nn.Module = architecture_of(task).module(dataset)
    if task.start_from:
        take_over(module, task.start_from)
    return module


def autotune_key(
    task: Task,
    dataset: Dataset,
    seeds: int,
    device: torch.device,
    execution: str,
    precision: Precision,
    shards: int,
    most: int | None,
) -> str:
    """All that may decide how members are best trained, and how long one takes."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.machine()} {platform.node()}"
    )
    about = {
        "architecture": task.architecture + architecture_of(task).version,
        "data": dataset.digest,
        **{name: value for name, value in task.recipe.to_mapping().items() if name != "epochs"},
        "seeds": seeds,
        "device": name,
        "cores": cores(),
        "torch": torch.__version__,
        "execution": execution,
        "precision": precision,
        "shards": shards,
        "most": most,
    }
    return json.dumps(about)


def cache() -> Path:
    """Where ways are remembered: `lscal/ways.json` in XDG_CACHE_HOME, or else in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lscal" / "ways.json"


def remembered() -> dict[str, dict[str, Any]]:
    """All remembered ways by key. None where the file is missing or is not ours."""
    try:
        found = json.loads(cache().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def recall(key: str) -> Execution | None:
    """The way that was remembered under a key; None where there is none, or where the file holds something
    else.
    """
    try:
        execution = Execution(**remembered()[key])
        sound = (
            execution.kind in get_args(ExecutionKind)
            and execution.precision in get_args(Precision)
            and min(execution.shards, execution.members) > 0 < execution.seconds
        )
    except (KeyError, TypeError):
        return None
    return execution if sound else None


def remember(key: str, execution: Execution) -> None:
    """Remember a way. Where there is no place to write to, it is measured again the next time."""
    path = cache()
    partial_path = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path.write_text(json.dumps(remembered() | {key: asdict(execution)}, indent=1))
        partial_path.replace(path)
    except OSError:
        return
