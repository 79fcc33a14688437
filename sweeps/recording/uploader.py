"""Uploader: follows the outbox, draws the pictures of its entries and sends them to MLflow.

Drawing and MLflow are slow Python, so this runs in a process of its own while the training goes on. It
imports no torch, so that the process starts soon, and Ctrl-C does not reach it. All that it sends lies in the
outbox: it may die at any time, and others may send the same.
"""

from collections.abc import Sequence
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
from tracking.outbox.follow import Follower
from tracking.outbox.outbox import Outbox, Record, digest
from tracking.records.about import About


class Uploader:
    """Sends what is in an outbox to one tracking store."""

    def __init__(self, uri: str, folder: str):
        self.pictures = TrialPictures()
        self.late: list[CatchUp] = []
        self.follower = Follower(Outbox(Path(folder)), uri, self.pictures.of, self.put_late)
        self.sender = self.follower.sender

    def step(self) -> float:
        """Send one entry, see `Follower.step`."""
        return self.follower.step()

    def finish(self) -> None:
        """The recorder is gone: whoever sends what is left finds the pictures in it."""
        while self.follower.draw_ahead():
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
                    return self.late.append(request)
                case FetchFiles(about, uid, paths):
                    return self.artifacts(about, uid, paths)
                case ReadProgress(study):
                    return self.progress(study)
        except TrackingUnavailable as error:
            return error
        except Exception as error:  # this process's boundary: the other end raises it
            return TrackingUnavailable(f"{type(error).__name__}: {error}")

    def progress(self, study: str) -> UploadProgress:
        """Progress of sending a study; a tracking store that is away is asked at once."""
        self.follower.ask_at_once()
        left = len(self.sender.waiting(study)) + sum(one.about.study == study for one in self.late)
        return UploadProgress(left, self.follower.away, tuple(self.sender.refused().values()))

    def runs(self, about: About) -> Sweep:
        """The runs of a sweep. Errors: TrackingUnavailable."""
        return Sweep(self.sender.connected(), about)

    def put_late(self) -> bool:
        """Put those outcomes of the first request to catch up into the outbox that are neither there nor in
        MLflow. Returns whether there was a request. Errors: TrackingUnavailable.
        """
        if not self.late:
            return False
        late = self.late[0]
        there = self.runs(late.about).logged()
        put = {entry.uid for entry in self.sender.waiting()}
        for outcome in late.outcomes:
            if outcome.uid not in there and digest(outcome.uid) not in put:
                self.follower.outbox.put(Record.of_trial(late.about, outcome), {}, lambda _: None)
        self.late.pop(0)
        return True

    def artifacts(self, about: About, uid: str, paths: Sequence[str]) -> list[bytes] | None:
        """Files of a trial that is in MLflow; None where one of them is missing. Errors:
        TrackingUnavailable.
        """
        if self.follower.away:
            raise TrackingUnavailable(self.follower.away)
        sweep, found = self.runs(about), []
        for path in paths:
            content = sweep.artifact(uid, path)
            if content is None:
                return None
            found.append(content)
        return found
