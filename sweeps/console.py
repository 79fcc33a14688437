"""Console: what a person sees in the terminal: lines, tables and one progress bar."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from sweeps.engine import Progress as Advance
from tracking.summary import Table

PLAIN_SECONDS = 10
"""Without a terminal, the progress is a plain line this often."""
WIDTH = 160
"""Tables are never cut to a narrower terminal: it wraps them, and nothing is lost."""


class Console:
    """Writes for people to stdout, or to stderr where stdout is kept for JSON. The progress bar is always on stderr."""

    def __init__(self, to_stderr: bool):
        self.out = RichConsole(stderr=to_stderr, highlight=False, soft_wrap=True)
        self.out.width = max(self.out.width, WIDTH)
        self.err = RichConsole(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str, style: str | None = None) -> None:
        """A line of text."""
        self.out.print(text, style=style, markup=False)

    def table(self, table: Table, mark: str | None = None) -> None:
        """A table; the row whose first cell is `mark` stands out."""
        drawn = RichTable(title=table.title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in table.header:
            drawn.add_column(heading, justify="left" if table.sentences else "right", no_wrap=not table.sentences)
        for row in table.rows:
            drawn.add_row(*row, style="bold green" if row[0] == mark else None)
        self.out.print()
        self.out.print(drawn)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Advance]:
        """A progress bar over `total` member-epochs with an estimate of the time left; plain lines without a terminal."""
        if self.err.is_terminal and not self.err.no_color:
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
        """The progress as plain lines."""
        started = last = time.monotonic()
        done = 0

        def advance(members: int) -> None:
            nonlocal done, last
            done += members
            now = time.monotonic()
            if now - last >= PLAIN_SECONDS or done == total:
                last = now
                left = (now - started) * max(0, total - done) / done
                self.err.print(f"{what}: {done} of {total} member-epochs, about {left:.0f} s left", markup=False)

        return advance
