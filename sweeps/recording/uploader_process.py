"""The scribe's end of the line to its recorder. Imports nothing heavy: the recorder's process imports this
too.
"""

import signal
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from tracking.mlflow.client import TrackingUnavailable

if TYPE_CHECKING:
    from sweeps.recording.uploader import Scribe


def serve(connection: Connection, uri: str, folder: str) -> None:
    """Answer calls, (method, arguments) -> result or exception, and send what is in the outbox between them,
    until the other end is closed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    scribe = begin(uri, folder)
    wait = 0.0
    while True:
        try:
            if not connection.poll(wait):
                wait = scribe.step()
                continue
            method, arguments = connection.recv()
            connection.send(answer(scribe, method, arguments))
        except (EOFError, ConnectionError):  # the other end is closed, or its process is gone
            return
        wait = 0.0


def answer(scribe: "Scribe", method: str, arguments: tuple[Any, ...]) -> Any:
    """What a method of the scribe returns or raises."""
    try:
        return getattr(scribe, method)(*arguments)
    except Exception as error:  # this process's boundary: the other end raises it
        return (
            error
            if isinstance(error, TrackingUnavailable)
            else TrackingUnavailable(f"{type(error).__name__}: {error}")
        )


def begin(uri: str, folder: str) -> "Scribe":
    """The scribe; importing MLflow takes seconds."""
    from sweeps.recording.uploader import Scribe

    return Scribe(uri, folder)
