"""Scribe: sends finished trials to MLflow and draws their pictures, in a process of its own.

Drawing and MLflow are slow Python; the training runs on meanwhile. This module imports no torch, so that its
process is there soon, and it is not reached by Ctrl-C. All that it is to send lies in the outbox: it may die
at any time, and others may send the same.
"""

import io
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lscal.diagrams import Reliability, draw
from sweeps.recording.plots import overview
from tracking.mlflow.client import TrackingUnavailable
from tracking.mlflow.runs import Sweep
from tracking.outbox.outbox import Damaged, Outbox, Record, digest
from tracking.outbox.sender import FAULTS, Sender
from tracking.records.about import About
from tracking.records.evidence import Evidence
from tracking.records.outcome import Bins, Outcome, Stage

DIAGRAMS: dict[Stage, tuple[str, ...]] = {
    "pilot": ("select",),
    "screen": ("select",),
    "confirm": ("test", "test_calibrated"),
}
"""Which of an outcome's bins are drawn."""
IDLE_SECONDS = 5.0
"""How often an empty outbox is looked into: others put entries into it, too."""
BLOCKED_SECONDS = 0.2
"""How often it is tried again where all that is there is being sent by others, or was not taken a moment
ago.
"""
LONGEST_PAUSE_SECONDS = 30.0
"""Between two attempts to reach a tracking store that is away."""


@dataclass(frozen=True)
class Progress:
    """How the sending of one study goes: entries still to be sent, why MLflow does not answer ("" where it
    does), and what it refused.
    """

    left: int
    away: str
    refused: tuple[str, ...]


class Scribe:
    """Sends what is in an outbox to one tracking store. The controls are kept: their diagrams stand beside
    every other's.
    """

    def __init__(self, uri: str, folder: str):
        self.outbox = Outbox(Path(folder))
        self.sender = Sender(self.outbox, uri, self.pictures_of_trial)
        self.controls: dict[str, Outcome] = {}
        self.drawn: set[str] = set()
        self.behind: list[tuple[About, Sequence[Outcome]]] = []
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
                self.enter(*self.behind[0])
                self.behind.pop(0)
        except FAULTS as error:
            self.sender.client, self.away = None, str(error)
            self.pause = min(max(1.0, 2 * self.pause), LONGEST_PAUSE_SECONDS)
            self.again = time.monotonic() + self.pause
            return self.pause
        self.away, self.pause = "", 0.0
        if sent or self.behind:
            return 0.0
        return BLOCKED_SECONDS if self.sender.waiting() else IDLE_SECONDS

    def draw_ahead(self) -> bool:
        """Put pictures into one entry while MLflow is away, so that whoever sends it has them. Returns
        whether there may be another.
        """
        for entry in self.sender.waiting():
            if entry.kind == "trial" and entry.path.name not in self.drawn:
                self.drawn.add(entry.path.name)
                with self.outbox.claim(entry) as ours, suppress(Damaged, OSError):
                    record, files = entry.read() if ours else (None, {})
                    if record and not any(path.endswith(".png") for path in files):
                        self.outbox.replace(entry, record, {**files, **self.pictures_of_trial(record)})
                return True
        return False

    def draw(self) -> None:
        """Put pictures into all entries: this process is about to end, and MLflow is away."""
        while self.draw_ahead():
            pass

    def send(self) -> None:
        """There is something new in the outbox. A tracking store which is away is not asked sooner for
        that.
        """

    def progress(self, study: str) -> Progress:
        """How the sending of a study goes; a tracking store which is away is asked at once."""
        if self.away:
            self.again = 0.0
            self.step()
        left = len(self.sender.waiting(study)) + sum(about.study == study for about, _ in self.behind)
        return Progress(left, self.away, tuple(self.sender.refused().values()))

    def open(self, about: About) -> tuple[str, str]:
        """The id of a sweep's parent run, and the address of its trials in the UI. A sweep which was stopped
        goes on. Errors: TrackingUnavailable.
        """
        sweep = self.sweep(about)
        sweep.resume()
        return sweep.parent, sweep.link("")

    def sweep(self, about: About) -> Sweep:
        """The runs of a sweep. Errors: TrackingUnavailable."""
        return Sweep(self.sender.connected(), about)

    def catch_up(self, about: About, outcomes: Sequence[Outcome]) -> None:
        """Have the outcomes sent which neither the tracking store nor the outbox has, when MLflow answers.
        Their logits are gone.
        """
        for outcome in outcomes:
            self.note_control(outcome)
        self.behind.append((about, outcomes))

    def enter(self, about: About, outcomes: Sequence[Outcome]) -> None:
        """Put those outcomes into the outbox which are nowhere. Errors: TrackingUnavailable."""
        there = self.sweep(about).logged()
        put = {entry.uid for entry in self.sender.waiting()}
        for outcome in outcomes:
            if outcome.uid not in there and digest(outcome.uid) not in put:
                self.outbox.put(Record.of_trial(about, outcome), {}, lambda _: None)

    def artifacts(self, about: About, uid: str, paths: Sequence[str]) -> list[bytes] | None:
        """Files of a trial which is in MLflow; None where one of them is gone. Errors:
        TrackingUnavailable.
        """
        if self.away:
            raise TrackingUnavailable(self.away)
        sweep, found = self.sweep(about), []
        for path in paths:
            content = sweep.artifact(uid, path)
            if content is None:
                return None
            found.append(content)
        return found

    def stop(self, about: About, status: str) -> None:
        """Mark a sweep as KILLED, FAILED or FINISHED. Errors: TrackingUnavailable."""
        self.sweep(about).stop(status)

    def pictures(self, evidence: Evidence) -> dict[str, bytes]:
        """The pictures of what was found."""
        chosen = evidence.recommendations[evidence.policy]
        control, *others = (one.outcome for one in evidence.comparisons)
        shown = [control, *(one for one in others if one.epsilon == chosen.candidate)][:2]
        return {"overview.png": overview(evidence), "reliability.png": reliability(shown, "test")}

    def pictures_of_trial(self, record: Record) -> Mapping[str, bytes]:
        """The pictures of a trial, beside those of its control where that is known; none for what was found,
        which has them.
        """
        if (outcome := record.outcome) is None:
            return {}
        self.note_control(outcome)
        control = self.controls.get(outcome.study)
        shown = [outcome] if control is None or outcome.epsilon == 0 else [control, outcome]
        return {picture_path(key): reliability(shown, key) for key in DIAGRAMS[outcome.stage] if outcome.bins}

    def note_control(self, outcome: Outcome) -> None:
        """Keep an outcome at ε = 0."""
        if outcome.epsilon == 0:
            self.controls[outcome.study] = outcome


def picture_path(key: str) -> str:
    """Where the diagram of some bins is among the artifacts."""
    return f"reliability/{key.replace('_calibrated', '_after_temperature')}.png"


def reliability(outcomes: Sequence[Outcome], key: str) -> bytes:
    """Reliability diagrams side by side as PNG, of the bins under `key` of each outcome."""
    split, _, calibrated = key.partition("_")
    after = " after temperature" if calibrated else ""
    shown = [
        diagram(f"{one.task} at ε = {one.epsilon:.4g}, {split}{after}", one.bins[key], len(one.seeds))
        for one in outcomes
    ]
    stream = io.BytesIO()
    draw(shown).savefig(stream, format="png")
    return stream.getvalue()


def diagram(title: str, bins: Bins, seeds: int) -> Reliability:
    """A record's bins as a diagram."""
    return Reliability.of_bins(
        title,
        count=bins.count,
        confidence=bins.confidence,
        accuracy=bins.accuracy,
        gap=bins.gap,
        error=bins.error,
        members=seeds,
    )
