"""Follower: sends the entries of an outbox as they come, whether or not MLflow answers."""

import time
from collections.abc import Callable
from contextlib import suppress

from tracking.outbox.outbox import Damaged, Outbox
from tracking.outbox.sender import FAULTS, Draw, Sender

IDLE_SECONDS = 1.0
"""How often an empty outbox is looked into."""
BLOCKED_SECONDS = 0.2
"""How often it is tried again where others are sending all there is, or it was not taken a moment ago."""
LONGEST_PAUSE_SECONDS = 30.0
"""Between two attempts to reach a tracking store that is away."""


def follow(
    outbox: Outbox, uri: str, draw: Draw, stop: Callable[[float], bool], say: Callable[[str], None]
) -> None:
    """Send entries as they are put into an outbox, until `stop`; then those that can be sent at once.

    `stop` waits for so many seconds at most and returns whether this is the end; `threading.Event.wait` is
    one. `say` is given a line for each entry.
    """
    follower, wait = Follower(outbox, uri, draw, say=say), 0.0
    while not stop(wait):
        wait = follower.step()
    while not follower.step():
        pass


class Follower:
    """Sends from one outbox to one tracking store, an entry at a step.

    Attributes:
        away: why the tracking store does not answer; "" where it does.
    """

    def __init__(
        self,
        outbox: Outbox,
        uri: str,
        draw: Draw,
        idle: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda _: None,
    ):
        """`idle` is called where nothing can be sent, and returns whether it found something to do."""
        self.outbox, self.draw, self.idle, self.say = outbox, draw, idle, say
        self.sender = Sender(outbox, uri, draw)
        self.drawn: set[str] = set()
        self.away, self.pause, self.again = "", 0.0, 0.0

    def step(self) -> float:
        """Send one entry, if there is one and MLflow answers. Returns the seconds until there may be more to
        do.
        """
        if (wait := self.again - time.monotonic()) > 0:
            return 0.0 if self.draw_ahead() else wait
        try:
            sent = self.sender.step()
            busy = sent is not None or self.idle()
        except FAULTS as error:
            self.went_away(str(error))
            return 0.0
        self.away, self.pause = "", 0.0
        if sent and sent.line:
            self.say(sent.line)
        if busy:
            return 0.0
        return BLOCKED_SECONDS if self.sender.waiting() else IDLE_SECONDS

    def went_away(self, why: str) -> None:
        """Wait longer after each attempt that fails."""
        if not self.away:
            self.say(f"waiting for MLflow: {why}")
        self.sender.client, self.away = None, why
        self.pause = min(max(1.0, 2 * self.pause), LONGEST_PAUSE_SECONDS)
        self.again = time.monotonic() + self.pause

    def ask_at_once(self) -> None:
        """Try a tracking store that is away without waiting for the end of the pause."""
        if self.away:
            self.again = 0.0
            self.step()

    def draw_ahead(self) -> bool:
        """Put pictures into one entry while MLflow is away, for whoever sends it. Returns whether there may
        be another.
        """
        for entry in self.sender.waiting():
            if entry.kind == "trial" and entry.path.name not in self.drawn:
                self.drawn.add(entry.path.name)
                with self.outbox.claim(entry) as ours, suppress(Damaged, OSError):
                    record, files = entry.read() if ours else (None, {})
                    drawn = record is None or any(path.endswith(".png") for path in files)
                    if record and (pictures := {} if drawn else self.draw(record)):
                        self.outbox.replace(entry, record, {**files, **pictures})
                return True
        return False
