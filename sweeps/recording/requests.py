"""Requests that a recorder makes of its uploader, and their answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tracking.records.about import About
from tracking.records.outcome import Outcome

Answer = TypeVar("Answer")


class Request(Generic[Answer]):
    """What a recorder asks; answered by an `Answer`, or by a TrackingUnavailable to be raised."""


@dataclass(frozen=True)
class ParentRun:
    """The run of a sweep in MLflow: its id, and the address of its trials in the UI."""

    id: str
    link: str


@dataclass(frozen=True)
class UploadProgress:
    """UploadProgress of sending one study.

    Attributes:
        left: entries still to be sent.
        away: why MLflow does not answer; "" where it does.
        refused: why MLflow refused entries.
    """

    left: int
    away: str
    refused: tuple[str, ...]


@dataclass(frozen=True)
class OpenSweep(Request[ParentRun]):
    """Find or create the runs of a sweep; one that was stopped goes on."""

    about: About


@dataclass(frozen=True)
class CloseSweep(Request[None]):
    """Mark a sweep as KILLED, FAILED or FINISHED."""

    about: About
    status: str


@dataclass(frozen=True)
class CatchUp(Request[None]):
    """Send those outcomes that neither MLflow nor the outbox has, as soon as MLflow answers."""

    about: About
    outcomes: Sequence[Outcome]


@dataclass(frozen=True)
class FetchFiles(Request[list[bytes] | None]):
    """Read artifacts of a trial from MLflow; None where one of them is missing."""

    about: About
    uid: str
    paths: Sequence[str]


@dataclass(frozen=True)
class ReadProgress(Request[UploadProgress]):
    """Read how far the sending of a study is; a tracking store that is away is asked at once."""

    study: str
