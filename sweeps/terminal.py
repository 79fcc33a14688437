"""Console: lines, tables and a progress bar for people; one line of JSON per event for machines."""

import json
import logging
import math
import shutil
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable
from typing_extensions import override

from tracking.report.summary import Table

Advance = Callable[[int], None]
"""Called with the number of trained member-epochs."""
LogFormat = Literal["text", "json"]
LOG_FORMATS: tuple[LogFormat, ...] = get_args(LogFormat)
PLAIN_SECONDS = 10
"""Between two lines of progress where there is no terminal."""
PLAIN_WIDTH, WIDEST = 100, 120
"""Columns of a paragraph: where there is no terminal, and at most."""
WIDTH = 160
"""Columns of tables; a narrower terminal wraps them, so no text is lost."""


class Console:
    """Writes text for people to stdout, or to stderr where stdout carries JSON; the progress bar and errors
    are always on stderr.

    With `log_format="json"` everything goes to stderr, each event as a line of JSON: `time` (ISO 8601, UTC,
    milliseconds), `level` (`info`, `warning`, `error`), `event`, `message`, and the event's own fields.
    """

    def __init__(self, to_stderr: bool, log_format: LogFormat = "text"):
        self.json = log_format == "json"
        self.out = RichConsole(stderr=to_stderr, highlight=False, soft_wrap=True)
        self.err = RichConsole(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str, style: str | None = None, *, event: str = "message", **fields: Any) -> None:
        """Print a line; a red one is a warning."""
        if not self.json:
            self.out.print(text, style=style, markup=False)
        elif text.strip():
            write_event("warning" if style == "red" else "info", event, text, fields)

    def paragraph(
        self, text: str, style: str | None = None, *, event: str = "message", **fields: Any
    ) -> None:
        """Print sentences, wrapped at words to the width of the terminal; links stay whole."""
        if self.json:
            self.say(text, style, event=event, **fields)
            return
        width = max(40, min(shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns, WIDEST))
        lines = textwrap.wrap(
            text, width, break_long_words=False, break_on_hyphens=False, subsequent_indent="  "
        )
        self.out.print("\n".join(lines), style=style, markup=False)

    def answer(self, headline: str, lines: Sequence[str]) -> None:
        """Print the answer: a headline, then its sentences."""
        self.say("")
        self.paragraph(headline, "bold green", event="answer")
        for line in lines:
            self.paragraph(line, event="answer")

    @contextmanager
    def phase(self, what: str) -> Iterator[None]:
        """Show what takes a moment inside the block."""
        if self.live:
            with self.err.status(what):
                yield
        else:
            self.notice(f"{what} …", event="phase")
            yield

    def notice(self, text: str, style: str | None = None, *, event: str = "message", **fields: Any) -> None:
        """Print a line to stderr that is no warning: what starts, and where its results go."""
        if self.json:
            write_event("info", event, text, fields)
        else:
            self.err.print(text, style=style, markup=False)

    @property
    def live(self) -> bool:
        """Whether there is a terminal on which a line can be redrawn."""
        return self.err.is_terminal and not self.err.no_color and not self.json

    def warn(self, text: str, *, event: str = "warning", **fields: Any) -> None:
        """Print a line to stderr."""
        if self.json:
            write_event("warning", event, text, fields)
        else:
            self.err.print(text, markup=False)

    def error(self, text: str, *, event: str = "error", **fields: Any) -> None:
        """Print why the command stops, to stderr."""
        if self.json:
            write_event("error", event, text, fields)
        else:
            self.err.print(f"error: {text}", style="red", markup=False)

    def table(self, table: Table, mark: str | None = None) -> None:
        """Print a table; the row whose first cell is `mark` is highlighted."""
        if self.json:
            write_event(
                "info", "table", table.title, {"header": table.header, "rows": table.rows, "mark": mark}
            )
            return
        drawn = RichTable(
            title=table.title,
            title_justify="left",
            title_style="bold",
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        for heading in table.header:
            drawn.add_column(
                heading, justify="left" if table.sentences else "right", no_wrap=not table.sentences
            )
        for row in table.rows:
            drawn.add_row(*row, style="bold green" if row[0] == mark else None)
        self.out.print()
        self.out.print(drawn, width=max(self.out.width, WIDTH))

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Advance]:
        """A progress bar over `total` member-epochs with an estimate of the time left; lines now and then
        without a terminal.
        """
        if self.live:
            bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                MofNCompleteColumn(),
                TextColumn("member-epochs, left"),
                TimeRemainingColumn(),
                console=self.err,
                transient=True,
            )
            with bar:
                task = bar.add_task(what, total=total)
                yield lambda members: bar.advance(task, members)
        else:
            yield self.plain(what, total)

    def plain(self, what: str, total: int) -> Advance:
        """The progress as lines."""
        started = last = time.monotonic()
        done = 0

        def advance(members: int) -> None:
            nonlocal done, last
            done += members
            now = time.monotonic()
            if now - last >= PLAIN_SECONDS or done == total:
                last = now
                left = (now - started) * max(0, total - done) / done
                text = f"{what}: {done} of {total} member-epochs, about {left:.0f} s left"
                if self.json:
                    write_event(
                        "info",
                        "progress",
                        text,
                        {"what": what, "done": done, "total": total, "seconds_left": round(left, 1)},
                    )
                else:
                    self.err.print(text, markup=False)

        return advance

    def adopt(self) -> None:
        """With JSON, turn other output into events: Python's warnings and logging, Optuna's, and the trace of
        a crash.
        """
        if not self.json:
            return
        logging.captureWarnings(True)
        logging.basicConfig(handlers=[Adopted()], level=logging.WARNING, force=True)
        import optuna

        optuna.logging.disable_default_handler()
        optuna.logging.enable_propagation()
        sys.excepthook = lambda _, error, __: write_crash(error)
        threading.excepthook = lambda crash: write_crash(crash.exc_value)


class Adopted(logging.Handler):
    """Turns log records into events."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        level = (
            "error"
            if record.levelno >= logging.ERROR
            else "warning"
            if record.levelno >= logging.WARNING
            else "info"
        )
        write_event(level, "log", record.getMessage().strip(), {"logger": record.name})


def write_crash(error: BaseException | None) -> None:
    """Write the event of an uncaught error."""
    trace = "".join(traceback.format_exception(error))
    write_event("error", "crash", f"{type(error).__name__}: {error}", {"trace": trace})


def write_event(level: str, event: str, message: str, fields: Mapping[str, Any]) -> None:
    """Write one line of JSON to stderr, in ASCII: no value can break the line or colour a terminal, and every
    encoding accepts it.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = {"time": now, "level": level, "event": event, "message": message}
    sys.stderr.write(
        json.dumps(plain_value(head | dict(fields) | head), allow_nan=False) + "\n"
    )  # one write: threads do not mix lines
    sys.stderr.flush()


def plain_value(value: Any) -> Any:
    """A value as JSON: numbers that are not finite become null, unknown types text."""
    if isinstance(value, Mapping):
        return {str(key): plain_value(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)) or (
        isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    ):
        return [plain_value(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def duration(seconds: float) -> str:
    """A time in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
