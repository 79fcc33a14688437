"""Workers as processes on this machine."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from typing_extensions import override

from sweeps.devices import MOST_SHARDS, pick_device
from sweeps.workers.launcher import STOP_SECONDS, Launcher, Reporter, judge
from sweeps.workers.supervisor import Supervisor


@dataclass(frozen=True)
class Placement:
    """Device and cores of a worker: "cpu" or "cuda:N", N counted among the GPUs visible here; () for all
    cores.
    """

    device: str
    cores: tuple[int, ...] = ()


class Processes(Launcher):
    """Workers as processes on this machine, one at each placement. `arguments` are Python's: `-m
    sweeps.worker …`.
    """

    def __init__(
        self,
        placements: Sequence[Placement],
        arguments: Sequence[str],
        environment: Mapping[str, str],
        reporter: Reporter,
    ):
        self.reporter = reporter
        self.supervisors = [
            Supervisor(
                number, [*arguments, "--device", seen(place)], {**environment, **limits(place)}, place.cores
            )
            for number, place in enumerate(placements, 1)
        ]

    @override
    def start(self) -> None:
        for supervisor in self.supervisors:
            supervisor.watch()

    @override
    def watch(self) -> None:
        judge(
            [self.reporter.report(supervisor.number, supervisor.watch()) for supervisor in self.supervisors]
        )

    @override
    def stop(self) -> None:
        for supervisor in self.supervisors:
            supervisor.ask_to_stop()
        deadline = time.monotonic() + STOP_SECONDS
        try:
            for supervisor in self.supervisors:
                self.reporter.report(
                    supervisor.number, supervisor.stop(max(0.0, deadline - time.monotonic()))
                )
        finally:  # also after a second Ctrl-C
            for supervisor in self.supervisors:
                supervisor.stop(0)

    @override
    def working(self) -> int:
        return sum(supervisor.process is not None for supervisor in self.supervisors)


def seen(place: Placement) -> str:
    """The device as the worker names it; it sees one GPU at most."""
    return place.device.partition(":")[0]


def limits(place: Placement) -> dict[str, str]:
    """Environment that limits a worker to its placement.

    A worker sees its own GPU alone. OMP_NUM_THREADS of this process limits each worker too.
    """
    if place.device != "cpu":
        return {"CUDA_VISIBLE_DEVICES": gpus()[int(place.device.partition(":")[2])]}
    given = os.environ.get("OMP_NUM_THREADS", "")
    most = int(given) if given.isdigit() and int(given) > 0 else len(place.cores)
    return {"OMP_NUM_THREADS": str(min(most, len(place.cores)))}


def gpus() -> list[str]:
    """GPUs of this process, as CUDA_VISIBLE_DEVICES names them, counted without initialising one."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        [name.strip() for name in named.split(",")][:count]
        if named is not None
        else [str(index) for index in range(count)]
    )


def places(workers: int | Literal["auto"], device: str) -> list[Placement]:
    """Placements of `workers` workers; "auto" is one for each GPU, or on a CPU one for each group of up to 8
    cores.

    More workers than GPUs share them in turn; more than cores share these. Errors: WrongInput for a missing
    device.
    """
    if pick_device(device).type == "cuda":
        index = device.partition(":")[2]
        chosen = [int(index)] if index else list(range(len(gpus())))
        count = len(chosen) if workers == "auto" else workers
        return [Placement(f"cuda:{chosen[number % len(chosen)]}") for number in range(count)]
    cores = (
        sorted(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else list(range(os.cpu_count() or 1))
    )
    count = -(-len(cores) // MOST_SHARDS) if workers == "auto" else workers
    if count > len(cores):
        return [Placement("cpu", (cores[number % len(cores)],)) for number in range(count)]
    ends = [number * len(cores) // count for number in range(count + 1)]
    return [Placement("cpu", tuple(cores[low:high])) for low, high in pairwise(ends)]
