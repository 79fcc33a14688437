"""CPU cores and the device to train on."""

import os

import torch

from sweeps.errors import WrongInput

MOST_SHARDS = 8
"""More threads than this would wait for each other's Python."""


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU, or the CPU where there is none. Errors: WrongInput for a device that is not
    there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise WrongInput(f"no device named {name!r}; allowed are auto, cpu, cuda and cuda:N.") from error
    if device.type == "cuda" and not (
        torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    ):
        raise WrongInput(
            f"the device {name!r} is not there: torch sees {torch.cuda.device_count()} GPUs. Use --device"
            " cpu."
        )
    if device.type not in ("cpu", "cuda"):
        raise WrongInput(f"the device {name!r} is not supported; allowed are auto, cpu, cuda and cuda:N.")
    return device


def cores() -> int:
    """CPU cores that this process may use: those of its affinity, at most OMP_NUM_THREADS where that is
    set.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(available, int(limit)) if limit.isdigit() and int(limit) > 0 else available
