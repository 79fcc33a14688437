"""Heartbeat of trials and workers in the study database, and sections that signals do not interrupt."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from optuna.exceptions import OptunaError
from sqlalchemy.exc import SQLAlchemyError

from sweeps.studies.database import cause_of
from sweeps.studies.retrying_storage import RetryingStorage
from tracking.exits import Exit

BEATS_IN_GRACE = 6
"""Heartbeats within the grace, after which a worker counts as dead."""


@contextmanager
def heartbeat(storage: RetryingStorage, grace: float, *beats: Callable[[], None]) -> Iterator[None]:
    """Calls `beats` every few seconds in a background thread; database outages do not stop it.

    Optuna beats for `optimize` only, not for ask and tell. `record_heartbeat`, `_trial_id`, `_study_id` and
    `_pop_waiting_trial_id` are not public; only this room uses them.
    """
    stop = threading.Event()

    def run() -> None:
        said: set[str] = set()
        while True:
            try:
                with storage.without_retries():
                    for beat in beats:
                        beat()
                said.clear()
            except (
                OptunaError,
                SQLAlchemyError,
                OSError,
            ) as error:  # the next beat tries again
                cause = cause_of(error.__cause__ or error)
                if cause not in said:
                    storage.say(f"heartbeat not recorded, the study store is unavailable: {cause}")
                said.add(cause)
            if stop.wait(grace / BEATS_IN_GRACE):
                return

    thread = threading.Thread(target=run, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Defers Ctrl-C and SIGTERM to the end of the block, so that no trial is asked without being held, or
    recorded by half.

    A second signal ends the process at once, as usual: its trials are then reaped.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def put_off(number: int, _: FrameType | None) -> None:
        if came:
            os._exit(Exit.INTERRUPTED)
        came.append(number)

    before = {which: signal.signal(which, put_off) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
        if came:
            signal.raise_signal(came[0])
