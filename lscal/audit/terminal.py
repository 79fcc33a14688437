"""Terminal: the findings as sentences and one table, plain where stdout is no terminal."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

from lscal.audit import verdict
from lscal.audit.audit import Audit, Comparison
from lscal.audit.words import change, figures, title

WIDTH = 200
"""Tables are never cut to a narrower terminal: it wraps them, and nothing is lost."""
NAME = 24
"""Letters of a file's name at the head of a column."""


@contextmanager
def working(what: str) -> Iterator[None]:
    """Shows on stderr, where it is a terminal, the step in progress."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(f"{what} …"):
            yield
    else:
        yield


def show(audits: Sequence[Audit], comparison: Comparison | None) -> None:
    """Print the sentences and a table of every metric."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.width = max(console.width, WIDTH)
    if comparison is None:
        (audit,) = audits
        say(console, audit.name, verdict.of_audit(audit))
        console.print(metrics(audit))
        return
    for audit in audits:
        say(console, audit.name, verdict.of_audit(audit))
    say(
        console,
        f"{comparison.second.name} against {comparison.first.name}",
        verdict.of_comparison(comparison),
    )
    console.print(differences(comparison))


def say(console: Console, heading: str, sentences: Sequence[str]) -> None:
    """A heading and sentences, a line each."""
    console.print(heading, style="bold")
    for sentence in sentences:
        console.print(sentence)
    console.print()


def metrics(audit: Audit) -> Table:
    """Every metric with its interval, and its value after the recalibrations."""
    table = empty("metric", "as it is", "95 % interval", "temperature", "p-norm", *audit.others)
    for name in audit.raw.estimates:
        raw = figures(audit.raw.estimates[name], name)
        after = [
            (
                figures(scored.estimates[name], name, like=audit.raw.estimates[name]).value
                if name in scored.estimates
                else ""
            )
            for scored in (audit.scaled, audit.normalised, *audit.others.values())
        ]
        table.add_row(title(name), raw.value, raw.interval, *after)
    return table


def differences(comparison: Comparison) -> Table:
    """Every metric of both, their difference, and that after a temperature each."""
    table = empty(
        "metric",
        tail(comparison.first.name),
        tail(comparison.second.name),
        "difference",
        "95 % interval",
        "after temperature",
        "95 % interval",
    )
    for name in comparison.names:
        first, second = comparison.first.raw.estimates[name], comparison.second.raw.estimates[name]
        raw = change(comparison.difference(name), name)
        scaled = (
            change(comparison.scaled_difference(name), name)
            if name in comparison.first.scaled.estimates
            else None
        )
        row = [
            title(name),
            figures(first, name).value,
            figures(second, name, like=first).value,
            raw.value,
            raw.interval,
        ]
        table.add_row(*row, *((scaled.value, scaled.interval) if scaled else ("", "")))
    return table


def empty(*header: str) -> Table:
    """A table without rows: the first column is text, the others numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, heading in enumerate(header):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    return table


def tail(name: str) -> str:
    """The end of a name."""
    return name if len(name) <= NAME else f"…{name[1 - NAME :]}"
