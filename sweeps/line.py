"""The scribe's end of the line to its recorder. Imports nothing heavy: the recorder's process imports this too."""

import signal
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from tracking.store import TrackingUnavailable

if TYPE_CHECKING:
    from sweeps.scribe import Scribe


def serve(connection: Connection, uri: str) -> None:
    """Answer one call after another, (method, arguments) -> result or exception, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    scribe: Scribe | None = None
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        answer: Any
        try:
            scribe = scribe or begin(uri)
            answer = getattr(scribe, method)(*arguments)
        except Exception as error:  # this process's boundary: the other end raises it
            answer = error if isinstance(error, TrackingUnavailable) else TrackingUnavailable(f"{type(error).__name__}: {error}")
        connection.send(answer)


def begin(uri: str) -> "Scribe":
    """The scribe; importing MLflow takes seconds."""
    from sweeps.scribe import Scribe

    return Scribe(uri)
