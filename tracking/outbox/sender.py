"""Sender: takes entries out of an outbox, one after another, and writes them to their tracking store."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from tracking.mlflow.client import TrackingUnavailable, reach
from tracking.mlflow.runs import SweepRuns, connect
from tracking.outbox.outbox import PROGRAM, Damaged, Outbox, OutboxEntry, Record

ATTEMPTS = 4
"""An entry that a server that answers did not take so often is left where it is."""
FIRST_WAIT_SECONDS = 0.3
FAULTS = (
    MlflowException,
    SQLAlchemyError,
    OSError,
    TrackingUnavailable,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
)
"""Errors of writing one entry: those of the store, and those of content that makes no sense. The others are
sent.
"""

Draw = Callable[[Record], Mapping[str, bytes]]
"""The pictures of a trial that has none among its files, by path."""


@dataclass(frozen=True)
class Sent:
    """Result of sending an entry: `why` it was not taken, "" where it is in MLflow; `last` where it is not
    tried again.
    """

    entry: OutboxEntry
    what: str
    why: str = ""
    last: bool = False

    @property
    def line(self) -> str:
        """The line to print; "" where it is tried again."""
        if not self.why:
            return f"sent: {self.what}"
        return f"NOT sent: {self.what}: {self.why}" if self.last else ""


@dataclass(frozen=True)
class Failure:
    """An entry was not taken so many times; the next attempt is not before `again`, on the monotonic
    clock.
    """

    times: int
    why: str
    again: float


class Sender:
    """Sends from one outbox to one tracking store. Any number may share an outbox. Nothing but failures is
    remembered.
    """

    def __init__(self, outbox: Outbox, uri: str, draw: Draw):
        self.outbox, self.uri, self.draw = outbox, uri, draw
        self.client: MlflowClient | None = None
        self.failures: dict[str, Failure] = {}

    def connected(self) -> MlflowClient:
        """The client. Errors: TrackingAway; TrackingUnavailable."""
        self.client = self.client or connect(self.uri)
        return self.client

    def refused(self) -> dict[str, str]:
        """Why entries are not tried again, by name."""
        return {name: failure.why for name, failure in self.failures.items() if failure.times >= ATTEMPTS}

    def waiting(self, study: str | None = None) -> list[OutboxEntry]:
        """The entries that are still to be sent from here, less those that are not tried again."""
        refused = self.refused()
        return [entry for entry in self.outbox.entries(self.uri, study) if entry.path.name not in refused]

    def step(self) -> Sent | None:
        """Send the first entry that can be sent now; None where there is none.

        An entry waits for earlier ones of the same trial, and a sweep's findings wait for its trials. Errors:
        TrackingAway and TrackingUnavailable, where no entry could be sent: it is not the entry's fault.
        """
        waiting = self.waiting()
        client = self.connected() if waiting else None
        earlier: set[str] = set()
        for entry in waiting:
            blocked = entry.uid in earlier or (entry.kind == "publish" and entry.study in earlier)
            earlier |= {entry.uid, entry.study}
            failure = self.failures.get(entry.path.name)
            if blocked or (failure is not None and failure.again > time.monotonic()):
                continue
            with self.outbox.claim(entry) as ours:
                if ours and client:
                    return self.send(entry, client)
        return None

    def send(self, entry: OutboxEntry, client: MlflowClient) -> Sent:
        """Send an entry that is claimed, and delete it. Errors: TrackingAway; TrackingUnavailable."""
        try:
            record, files = entry.read()
        except Damaged as error:
            return Sent(
                entry, "an entry", f"{error}. It is kept as {self.outbox.set_aside(entry).name}.", last=True
            )
        except OSError as error:
            return self.failed(entry, "an entry", f"{entry.path.name} cannot be read: {error.strerror}")
        try:
            self.write(client, record, files)
        except FAULTS as error:
            self.client = None
            reach(self.uri)
            return self.failed(entry, record.what, str(getattr(error, "orig", None) or error).splitlines()[0])
        self.outbox.delete(entry)
        self.failures.pop(entry.path.name, None)
        return Sent(entry, record.what)

    def write(self, client: MlflowClient, record: Record, files: Mapping[str, bytes]) -> None:
        """Write a record to MLflow; repeated, it changes nothing."""
        sweep = SweepRuns(client, record.about)
        pictures = {path: content for path, content in files.items() if path.endswith(".png")}
        others = {path: content for path, content in files.items() if path not in pictures}
        if record.outcome is not None:
            sweep.trial(record.outcome, others, pictures or self.draw(record))
        elif record.evidence is not None:
            model = record.model and replace(record.model, program=others[PROGRAM])
            sweep.publish(record.evidence, record.tables, model, pictures)

    def failed(self, entry: OutboxEntry, what: str, why: str) -> Sent:
        """Remember that an entry was not taken by a server that answers."""
        name = entry.path.name
        times = self.failures[name].times + 1 if name in self.failures else 1
        self.failures[name] = Failure(times, why, time.monotonic() + FIRST_WAIT_SECONDS * 2 ** (times - 1))
        return Sent(entry, what, why, last=times >= ATTEMPTS)
