"""Launch: who trains. One interface to place workers and keep them running, and the one for processes on this machine."""

import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from typing_extensions import override

from sweeps.brought.flags import words
from sweeps.choice import MOST_LANES, pick_device
from sweeps.console import LogFormat
from sweeps.errors import Failed
from sweeps.keeper import Keeper, News
from sweeps.plan import Launch, Plan

Kind = Launch | Literal["elsewhere"]
STOP_SECONDS = 20.0
"""A worker has so long to give its trials back before it is killed. Slurm and Kubernetes give 30 s."""


class NoWorkers(Failed):
    """All workers were given up: why, and the last lines they wrote."""


class Launcher(ABC):
    """Places workers and keeps them running while a sweep is conducted.

    Used by one thread, as a context: workers are started on entering and none is left on leaving, whatever happened.
    """

    @abstractmethod
    def start(self) -> None:
        """Place the workers. Errors: WrongInput where there is no place for them."""

    @abstractmethod
    def watch(self) -> None:
        """Start dead workers again, and say what they say. To be called about once a second; it does not wait.

        Errors: NoWorkers where all were given up.
        """

    @abstractmethod
    def stop(self) -> None:
        """Ask all workers to give their trials back, and kill those which take too long. Interrupted by Ctrl-C, kill all at once."""

    @abstractmethod
    def working(self) -> int:
        """How many workers run, as of the last `watch`."""

    def __enter__(self) -> "Launcher":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Elsewhere(Launcher):
    """Places nobody: workers join from elsewhere, or this process trains itself."""

    @override
    def start(self) -> None:
        pass

    @override
    def watch(self) -> None:
        pass

    @override
    def stop(self) -> None:
        pass

    @override
    def working(self) -> int:
        return 0


@dataclass(frozen=True)
class Voice:
    """Says what is new of workers. Lines which a worker wrote as JSON are passed on to stderr as they are."""

    say: Callable[[str], None]
    json: bool = False

    def tell(self, number: int, news: News) -> News:
        """Say a worker's news, and give them back."""
        for line in news.output:
            if self.json:
                print(line, file=sys.stderr, flush=True)
            else:
                self.say(f"worker {number}: {line}")
        for sentence in news.events:
            self.say(sentence)
        return news


@dataclass(frozen=True)
class Placement:
    """Where a worker runs: "cpu" or "cuda:N", N counted among the GPUs which this process sees; and on which cores, () for all."""

    device: str
    cores: tuple[int, ...] = ()


class Processes(Launcher):
    """Workers as processes on this machine, one at each placement. `arguments` are Python's: `-m sweeps.worker …`."""

    def __init__(self, placements: Sequence[Placement], arguments: Sequence[str], environment: Mapping[str, str], voice: Voice):
        self.voice = voice
        self.keepers = [
            Keeper(number, [*arguments, "--device", seen(place)], {**environment, **limits(place)}, place.cores)
            for number, place in enumerate(placements, 1)
        ]

    @override
    def start(self) -> None:
        for keeper in self.keepers:
            keeper.watch()

    @override
    def watch(self) -> None:
        judge([self.voice.tell(keeper.number, keeper.watch()) for keeper in self.keepers])

    @override
    def stop(self) -> None:
        for keeper in self.keepers:
            keeper.ask_to_stop()
        deadline = time.monotonic() + STOP_SECONDS
        try:
            for keeper in self.keepers:
                self.voice.tell(keeper.number, keeper.stop(max(0.0, deadline - time.monotonic())))
        finally:  # a second Ctrl-C leads here
            for keeper in self.keepers:
                keeper.stop(0)

    @override
    def working(self) -> int:
        return sum(keeper.process is not None for keeper in self.keepers)


def judge(news: Iterable[News]) -> None:
    """Errors: NoWorkers where every worker was given up."""
    lost = [one.lost for one in news]
    if lost and all(lost):
        raise NoWorkers("\n".join(("no worker is left; what is finished is kept. Mend this, and give the same command again:", *lost)))


def seen(place: Placement) -> str:
    """The device as the worker sees it, which sees one GPU at most."""
    return place.device.partition(":")[0]


def limits(place: Placement) -> dict[str, str]:
    """Environment which holds a worker to its placement.

    A worker sees its own GPU alone, so nothing of it can come to lie on another. OMP_NUM_THREADS of this process is a
    limit for each worker too.
    """
    if place.device != "cpu":
        return {"CUDA_VISIBLE_DEVICES": gpus()[int(place.device.partition(":")[2])]}
    given = os.environ.get("OMP_NUM_THREADS", "")
    most = int(given) if given.isdigit() and int(given) > 0 else len(place.cores)
    return {"OMP_NUM_THREADS": str(min(most, len(place.cores)))}


def gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them. Counted without beginning to use one."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in named.split(",")][:count] if named is not None else [str(index) for index in range(count)]


def places(workers: int | Literal["auto"], device: str) -> list[Placement]:
    """Where `workers` workers run; "auto" is one for each GPU, or on a CPU one for each group of up to 8 cores.

    More workers than GPUs share them in turn; more than cores share these. Errors: WrongInput for a device that is not there.
    """
    if pick_device(device).type == "cuda":
        index = device.partition(":")[2]
        chosen = [int(index)] if index else list(range(len(gpus())))
        count = len(chosen) if workers == "auto" else workers
        return [Placement(f"cuda:{chosen[number % len(chosen)]}") for number in range(count)]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    count = -(-len(cores) // MOST_LANES) if workers == "auto" else workers
    if count > len(cores):
        return [Placement("cpu", (cores[number % len(cores)],)) for number in range(count)]
    ends = [number * len(cores) // count for number in range(count + 1)]
    return [Placement("cpu", tuple(cores[low:high])) for low, high in pairwise(ends)]


def kind_of(plan: Plan) -> Kind:
    """How a plan's workers are placed. Where it does not say, a single one is the process itself."""
    if plan.workers == 0:
        return "elsewhere"
    return plan.launch or ("inline" if len(places(plan.workers, plan.device)) == 1 else "processes")


def launcher(plan: Plan, study: str, say: Callable[[str], None], log_format: LogFormat = "text") -> Launcher:
    """What places a plan's workers, which train the trials of a study; with `inline`, that is up to this process.

    Errors: WrongInput for a device that is not there, where Ray is missing, and for stores which other machines cannot reach.
    """
    kind = kind_of(plan)
    if kind in ("elsewhere", "inline"):
        return Elsewhere()
    stores = {"OPTUNA_STORAGE": plan.storage, "MLFLOW_TRACKING_URI": plan.tracking_uri}
    arguments = ["-m", "sweeps.worker", "--study", study, "--log-format", log_format]
    for flag, folder in (("--state-dir", plan.state_dir), ("--data-dir", plan.data_dir), ("--start-from", plan.start_from)):
        if folder:
            arguments += [flag, str(Path(folder).absolute())]
    arguments += words(plan.datasets, plan.architectures, study.partition("@")[0])
    voice = Voice(say, json=log_format == "json")
    if kind == "processes":
        return Processes(places(plan.workers, plan.device), arguments, stores, voice)
    from sweeps.cluster import Ray

    return Ray(plan.ray_address, plan.workers, plan.device, plan.gpus_per_worker, arguments, stores, voice)
