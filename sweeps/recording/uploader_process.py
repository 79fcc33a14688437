"""Process of the uploader. Imports nothing heavy: the recorder's process imports this too."""

import signal
from multiprocessing.connection import Connection


def serve(connection: Connection, uri: str, folder: str) -> None:
    """Send what is in the outbox, and answer requests between two entries, until the recorder has closed its
    end or is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from sweeps.recording.uploader import Uploader  # MLflow takes seconds to import

    uploader = Uploader(uri, folder)
    wait = 0.0
    while True:
        try:
            if not connection.poll(wait):
                wait = uploader.step()
                continue
            connection.send(uploader.answer(connection.recv()))
        except (EOFError, ConnectionError):
            uploader.finish()
            return
        wait = 0.0
