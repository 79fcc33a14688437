"""Uploader: follows the outbox, draws the pictures of its entries and sends them to MLflow.

Drawing and MLflow are slow Python, so this runs in a process of its own while the training goes on. It
imports no torch, so that the process starts soon, and Ctrl-C does not reach it. All that it sends lies in the
outbox: it may die at any time, and others may send the same.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sweeps.recording.plots import TrialPictures
from sweeps.recording.requests import (
    CatchUp,
    CloseSweep,
    FetchFiles,
    OpenSweep,
    ParentRun,
    ReadProgress,
    Request,
    UploadProgress,
)
from tracking.mlflow.client import TrackingUnavailable
from tracking.mlflow.runs import Sweep
from tracking.outbox.outbox import Damaged, Outbox, Record, digest
from tracking.outbox.sender import FAULTS, Sender
from tracking.records.about import About

IDLE_SECONDS = 1.0
"""How often an empty outbox is looked into."""
BLOCKED_SECONDS = 0.2
"""How often it is tried again where all that is there is being sent by others, or was not taken a moment
ago.
"""
LONGEST_PAUSE_SECONDS = 30.0
"""Between two attempts to reach a tracking store that is away."""


class Uploader:
    """Sends what is in an outbox to one tracking store."""

    def __init__(self, uri: str, folder: str):
        self.outbox = Outbox(Path(folder))
        self.pictures = TrialPictures()
        self.sender = Sender(self.outbox, uri, self.pictures.of)
        self.drawn: set[str] = set()
        self.behind: list[CatchUp] = []
        self.away, self.pause, self.again = "", 0.0, 0.0

    def step(self) -> float:
        """Send one entry, if there is one and MLflow answers. Returns after how many seconds there may be
        more to do.
        """
        if (wait := self.again - time.monotonic()) > 0:
            return 0.0 if self.draw_ahead() else wait
        try:
            sent = self.sender.step()
            if sent is None and self.behind:
                self.put_missing(self.behind[0])
                self.behind.pop(0)
        except FAULTS as error:
            self.sender.client, self.away = None, str(error)
            self.pause = min(max(1.0, 2 * self.pause), LONGEST_PAUSE_SECONDS)
            self.again = time.monotonic() + self.pause
            return 0.0
        self.away, self.pause = "", 0.0
        if sent or self.behind:
            return 0.0
        return BLOCKED_SECONDS if self.sender.waiting() else IDLE_SECONDS

    def draw_ahead(self) -> bool:
        """Put pictures into one entry while MLflow is away, for whoever sends it. Returns whether there may
        be another.
        """
        for entry in self.sender.waiting():
            if entry.kind == "trial" and entry.path.name not in self.drawn:
                self.drawn.add(entry.path.name)
                with self.outbox.claim(entry) as ours, suppress(Damaged, OSError):
                    record, files = entry.read() if ours else (None, {})
                    if record and not any(path.endswith(".png") for path in files):
                        self.outbox.replace(entry, record, {**files, **self.pictures.of(record)})
                return True
        return False

    def finish(self) -> None:
        """The recorder is gone: whoever sends what is left finds the pictures in it."""
        while self.draw_ahead():
            pass

    def answer(self, request: Request[Any]) -> Any:
        """The answer to a request of the recorder, or the error that it is to raise."""
        try:
            match request:
                case OpenSweep(about):
                    sweep = self.runs(about)
                    sweep.resume()
                    return ParentRun(sweep.parent, sweep.link(""))
                case CloseSweep(about, status):
                    return self.runs(about).stop(status)
                case CatchUp(_, outcomes):
                    self.pictures.note_controls(outcomes)
                    return self.behind.append(request)
                case FetchFiles(about, uid, paths):
                    return self.artifacts(about, uid, paths)
                case ReadProgress(study):
                    return self.progress(study)
        except TrackingUnavailable as error:
            return error
        except Exception as error:  # this process's boundary: the other end raises it
            return TrackingUnavailable(f"{type(error).__name__}: {error}")

    def progress(self, study: str) -> UploadProgress:
        """UploadProgress of sending a study; a tracking store that is away is asked at once."""
        if self.away:
            self.again = 0.0
            self.step()
        left = len(self.sender.waiting(study)) + sum(one.about.study == study for one in self.behind)
        return UploadProgress(left, self.away, tuple(self.sender.refused().values()))

    def runs(self, about: About) -> Sweep:
        """The runs of a sweep. Errors: TrackingUnavailable."""
        return Sweep(self.sender.connected(), about)

    def put_missing(self, late: CatchUp) -> None:
        """Put the outcomes into the outbox that are neither there nor in MLflow. Their logits are gone.
        Errors: TrackingUnavailable.
        """
        there = self.runs(late.about).logged()
        put = {entry.uid for entry in self.sender.waiting()}
        for outcome in late.outcomes:
            if outcome.uid not in there and digest(outcome.uid) not in put:
                self.outbox.put(Record.of_trial(late.about, outcome), {}, lambda _: None)

    def artifacts(self, about: About, uid: str, paths: Sequence[str]) -> list[bytes] | None:
        """Files of a trial that is in MLflow; None where one of them is missing. Errors:
        TrackingUnavailable.
        """
        if self.away:
            raise TrackingUnavailable(self.away)
        sweep, found = self.runs(about), []
        for path in paths:
            content = sweep.artifact(uid, path)
            if content is None:
                return None
            found.append(content)
        return found
