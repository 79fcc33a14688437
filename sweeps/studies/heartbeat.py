"""Heartbeat of the trials and workers in the study database, and sections that signals do not interrupt."""

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
"""Heartbeats within the time after which a silent worker is taken for dead."""


@contextmanager
def heartbeat(storage: RetryingStorage, grace: float, *beats: Callable[[], None]) -> Iterator[None]:
    """While inside, do what `beats` do every few seconds, in a thread which outlives any absence of the
    database.

    Optuna beats for `optimize` only, not for ask and tell; `record_heartbeat`, `_trial_id`, `_study_id` and
    `_pop_waiting_trial_id` lie outside its public interface and are used in this file and in `roll` alone.
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
            ) as error:  # the database is away for a moment: the next beat tries again
                cause = cause_of(error.__cause__ or error)
                if cause not in said:
                    storage.say(f"No heartbeat, as the study store does not take it: {cause}")
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
    """Put off Ctrl-C and SIGTERM to the end of the block, so that no trial is asked and not held, or told by
    half.

    The second one ends the process at once, as it does elsewhere: others then find its trials silent.
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
