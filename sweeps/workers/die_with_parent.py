"""Starts a process that ends when its parent does.

A child outlives a parent killed with -9. On Linux it may ask for SIGTERM at that moment; the request and the
cores it may use survive `exec`. A program of its own asks, since a process with threads must not run Python
between fork and exec.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Sequence

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def dying_with_parent(arguments: Sequence[str], cores: Iterable[int] = ()) -> list[str]:
    """Command that runs `python ARGUMENTS` on these cores (all, where none are given) until this process
    ends.

    Start it from a thread that lives as long as its process: Linux takes the end of that thread for the end
    of the parent.
    """
    return [
        sys.executable,
        "-m",
        "sweeps.workers.die_with_parent",
        str(os.getpid()),
        ",".join(map(str, cores)),
        *arguments,
    ]


def become(parent: int, cores: Sequence[int], arguments: Sequence[str]) -> None:
    """Turn into `python ARGUMENTS`. SIGTERM comes when the parent ends, or at once where it has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if cores:
            os.sched_setaffinity(0, cores)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606


if __name__ == "__main__":
    become(int(sys.argv[1]), [int(core) for core in sys.argv[2].split(",") if core], sys.argv[3:])
