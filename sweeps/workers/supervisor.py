"""Supervisor: one worker process, started again when it dies.

Imports nothing heavy: with Ray it runs in a process of its own on each node.
"""

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from sweeps.workers.die_with_parent import dying_with_parent
from tracking.exits import Exit

FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, Exit.INTERRUPTED)
"""Exits not caused by the program: a user, or the machine for want of memory, stopped it."""
QUICK_SECONDS = {True: 5.0, False: 60.0}
"""A run shorter than this counts as a failed start: when stopped from outside, and when it failed by itself
(imports alone may take ten seconds).
"""
DELAYS = (0.0, 2.0, 8.0, 30.0)
"""Seconds before the next start after 1, 2, … failed starts in a row. After one more, the worker is given up.
"""
LINES = 1000
"""Lines of a worker's output that are kept until they are read."""
LONGEST = 1 << 16
"""Bytes after which a line is cut."""
SHOWN = 5
"""Last lines of output in the reason for giving a worker up."""


@dataclass(frozen=True)
class News:
    """Events of a worker since the last news.

    Attributes:
        output: lines that it wrote.
        events: sentences about it.
        lost: why it was given up, with its last lines; "" where it was not.
    """

    output: tuple[str, ...]
    events: tuple[str, ...]
    working: bool
    lost: str


class Supervisor:
    """Keeps a worker running until it is done, finds its input wrong, or fails too often.

    The worker is `python ARGUMENTS`, on these cores (all where there are none), with `environment` on top of
    this process's: passwords belong there, as command lines are visible to all users. It leads a session of
    its own, so Ctrl-C in a terminal does not reach it, and it ends with this process
    (`sweeps.workers.die_with_parent`). Nothing here waits, except `stop`.
    """

    def __init__(
        self, number: int, arguments: Sequence[str], environment: Mapping[str, str], cores: Sequence[int] = ()
    ):
        self.number = number
        self.arguments = arguments
        self.environment = environment
        self.cores = cores
        self.process: subprocess.Popen[bytes] | None = None
        self.begun = 0.0
        self.due: float | None = 0.0
        self.in_vain = 0
        self.lost = ""
        self.output: deque[str] = deque(maxlen=LINES)
        self.events: deque[str] = deque()
        self.tail: deque[str] = deque(maxlen=SHOWN)
        self.reader = threading.Thread()

    def watch(self) -> News:
        """Start the worker where it is due, and return its news. Call about once a second."""
        if self.process is not None and (code := self.process.poll()) is not None:
            self.reader.join(1)  # the last lines; the worker's children may hold the pipe open
            self.process = None
            self.ended(code, time.monotonic() - self.begun)
        if self.process is None and self.due is not None and time.monotonic() >= self.due:
            self.begin()
        return self.news()

    def news(self) -> News:
        """Output and events since the last call, and the worker's state."""
        output, events = (
            tuple(lines.popleft() for _ in range(len(lines))) for lines in (self.output, self.events)
        )
        return News(output, events, self.process is not None, self.lost)

    def begin(self) -> None:
        """Start the worker."""
        self.begun = time.monotonic()
        try:
            self.process = subprocess.Popen(  # noqa: S603
                dying_with_parent(self.arguments, self.cores),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment},
                start_new_session=True,
            )
        except OSError as error:  # no memory, too many processes
            self.failed(f"could not be started ({error})", quick=True)
            return
        assert self.process.stdout is not None
        self.tail.clear()
        self.reader = threading.Thread(target=self.read, args=(self.process.stdout,), daemon=True)
        self.reader.start()

    def read(self, stream: IO[bytes]) -> None:
        """Read the worker's output as fast as it comes, so that it never blocks."""
        with stream:
            for line in iter(lambda: stream.readline(LONGEST), b""):
                text = line.decode(errors="replace").rstrip()
                self.tail.append(text)
                self.output.append(text)

    def ended(self, code: int, lived: float) -> None:
        """Decide what follows the worker's end, after `lived` seconds."""
        if code == Exit.DONE:
            self.due = None
        elif code == Exit.WRONG_INPUT:
            self.give_up("stopped: wrong input")
        else:
            how = (
                f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            )
            self.failed(how, quick=lived < QUICK_SECONDS[code in FROM_OUTSIDE])

    def failed(self, how: str, *, quick: bool) -> None:
        """Restart the worker after a delay that grows with each failed start; or give it up."""
        self.in_vain = self.in_vain + 1 if quick else 0
        if self.in_vain > len(DELAYS):
            self.give_up(f"{how}, soon after its start, {self.in_vain} times in a row")
            return
        delay = DELAYS[max(0, self.in_vain - 1)]
        self.due = time.monotonic() + delay
        self.events.append(f"worker {self.number} {how}; restarting{f' in {delay:g} s' if delay else ''}")

    def give_up(self, why: str) -> None:
        """Restart the worker no more."""
        self.due = None
        self.lost = "\n  ".join((f"worker {self.number} {why}", *self.tail))
        self.events.append(f"worker {self.number} {why}; not restarted")

    def ask_to_stop(self) -> None:
        """SIGTERM: the worker gives its trials back. It is not restarted."""
        self.due = None
        if self.process is not None:
            self.process.terminate()

    def stop(self, seconds: float) -> News:
        """Wait for the worker's end, then kill it with its children. None is left in any case."""
        if self.process is None:
            return self.news()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.events.append(f"worker {self.number} is killed: it did not stop within {seconds:.0f} s")
        finally:
            if self.process.returncode is None:  # not yet reaped, so the number is still its own
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            self.reader.join(1)
            self.process = None
        return self.news()
