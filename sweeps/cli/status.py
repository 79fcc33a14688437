"""`python -m sweeps.status [TASK …]`: how far the sweeps of a study store are, as a table or as JSON. It only
reads.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy.engine import Engine

from sweeps.errors import WrongInput
from sweeps.studies.database import STORAGE, StoreAway, open_store
from sweeps.studies.progress import STATES, SweepStatus, WorkerStatus, progress
from tracking.exits import Exit
from tracking.mlflow.client import shown
from tracking.outbox.outbox import Outbox, megabytes

SECONDS = 2.0
"""Between two looks of --watch."""
STATE = "lscal-state"
WIDE, NARROW = 140, 100
"""Columns of a terminal: from the first on, the name of a study stays on one line; below the second, gaps are
narrower.
"""
PIPED = 160
"""The width where there is no terminal."""
USUAL = ("finished", "running", "queued")
"""States that have a column of their own."""
LEGEND = (
    "speed: epochs of all members together, and whole members; by the stage's last trials and what runs now."
    " left: until what is queued in the stage is trained."
)


@dataclass(frozen=True)
class Waiting:
    """What waits in an outbox of this machine for MLflow."""

    folder: str
    entries: int
    bytes: int


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="python -m sweeps.status",
        description=(
            "How far the sweeps of a study store are: trials, workers, speed, time left. It only reads."
        ),
        epilog=(
            "The keys of --json are described in docs/observability.md. Exit codes: 0 done, 1 the store is"
            " away, 2 wrong input. Ctrl-C ends --watch, with 0."
        ),
        allow_abbrev=False,
    )
    flags.add_argument(
        "tasks",
        nargs="*",
        metavar="TASK",
        help="dataset/architecture, a pattern such as 'fashion_mnist/*', or a study's name",
    )
    flags.add_argument(
        "--storage", metavar="URL", help=f"Optuna's database (default OPTUNA_STORAGE, or else {STORAGE})"
    )
    flags.add_argument(
        "--state-dir",
        metavar="DIR",
        help=f"where this machine keeps its outbox (default LSCAL_STATE, or else {STATE})",
    )
    flags.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=SECONDS,
        metavar="SECONDS",
        help=f"look again and again (every {SECONDS:g} seconds)",
    )
    flags.add_argument(
        "--json", action="store_true", help="one line of JSON on stdout; with --watch, one for each look"
    )
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parser().parse_args(arguments)
    try:
        if options.watch is not None and not 0.1 <= options.watch <= 86400:
            raise WrongInput(f"--watch is {options.watch:g}; allowed are 0.1 to 86400 seconds.")
        storage = options.storage or os.environ.get("OPTUNA_STORAGE") or STORAGE
        state = Path(options.state_dir or os.environ.get("LSCAL_STATE") or STATE)
        with open_store(storage) as engine:
            look = Look(engine, shown(storage), options.tasks, state / "outbox")
            if options.watch is None:
                show(look, as_json=options.json)
            else:
                watch(look, options.watch, as_json=options.json)
    except WrongInput as error:
        print(f"error: {error}", file=sys.stderr)
        return Exit.WRONG_INPUT
    except StoreAway as error:
        print(f"error: the study store does not answer: {error}", file=sys.stderr)
        return Exit.FAILED
    except KeyboardInterrupt:
        return Exit.DONE
    except BrokenPipeError:  # who read it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.DONE


@dataclass(frozen=True)
class Look:
    """Looks at a store, whose name is shown as `storage`, and at an outbox."""

    engine: Engine
    storage: str
    tasks: Sequence[str]
    folder: Path

    def sweeps(self) -> list[SweepStatus]:
        """How far the sweeps are. Errors: WrongInput, StoreAway."""
        return progress(self.engine, self.tasks)

    def waiting(self) -> Waiting | None:
        """What waits for MLflow; None where there is no outbox here."""
        if not self.folder.is_dir():
            return None
        outbox = Outbox(self.folder)
        return Waiting(str(self.folder), outbox.count(), outbox.bytes())

    def json(self) -> str:
        """All of it as one line of JSON."""
        waiting = self.waiting()
        content = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "storage": self.storage,
            "sweeps": [asdict(sweep) for sweep in self.sweeps()],
            "outbox": waiting and asdict(waiting),
        }
        return json.dumps(content, allow_nan=False)

    def table(self, width: int) -> RenderableType:
        """All of it as tables for a person, for a terminal of that many columns."""
        sweeps, waiting = self.sweeps(), self.waiting()
        parts: list[RenderableType] = (
            [table_of(sweeps, width)] if sweeps else [Text("No sweep has begun in this store.")]
        )
        workers = [(sweep, worker) for sweep in sweeps for worker in sweep.workers]
        if workers:
            parts += ["", workers_of(workers, width)]
        parts += [Text(line, "yellow") for line in idle(sweeps)]
        if waiting and waiting.entries:
            parts += [
                "",
                Text(f"For MLflow wait in {waiting.folder}: {waiting.entries} ({megabytes(waiting.bytes)})."),
            ]
        if any(sweep.member_epochs_per_second for sweep in sweeps):
            parts += ["", Text(LEGEND, "dim")]
        return Group(*parts)


def show(look: Look, *, as_json: bool) -> None:
    """Print it once."""
    if as_json:
        print(look.json(), flush=True)
    else:
        console = console_of()
        console.print(look.table(console.width))


def watch(look: Look, seconds: float, *, as_json: bool) -> None:
    """Look again and again, until Ctrl-C. A store that is away is waited for."""
    console = console_of()
    if as_json or not console.is_terminal:
        while True:
            try:
                show(look, as_json=as_json)
            except StoreAway as error:
                print(f"the study store does not answer: {error}", file=sys.stderr)
            time.sleep(seconds)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            now = f"{datetime.now():%H:%M:%S}"
            try:
                live.update(
                    Group(Text(f"{look.storage}  {now}", "dim"), look.table(console.width)), refresh=True
                )
            except StoreAway as error:
                live.update(Text(f"{now}  {look.storage} does not answer: {error}", "red"), refresh=True)
            time.sleep(seconds)


def console_of() -> Console:
    """The terminal, or a wide page where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED
    return console


def table_of(sweeps: Sequence[SweepStatus], width: int) -> Table:
    """A row for each sweep."""
    table = empty("Sweeps", width)
    table.add_column("sweep", no_wrap=True)
    table.add_column("stage", no_wrap=True)
    for state in USUAL:
        table.add_column(state, justify="right", no_wrap=True)
    table.add_column("also")
    table.add_column("speed", justify="right")
    table.add_column("left", justify="right", no_wrap=True)
    table.add_column("ε", justify="right", no_wrap=True)
    for sweep in sweeps:
        table.add_row(
            named(sweep, width),
            sweep.stage,
            f"{sweep.trials['finished']} of {sum(stage.planned for stage in sweep.stages)}",
            *(str(sweep.trials[state]) for state in USUAL[1:]),
            "\n".join(
                f"{sweep.trials[state]} {state}"
                for state in STATES
                if state not in USUAL and sweep.trials[state]
            ),
            (
                "—"
                if sweep.members_per_second is None
                else (
                    f"{rate(sweep.member_epochs_per_second)} epochs/s\n{rate(sweep.members_per_second)}"
                    " members/s"
                )
            ),
            "—" if sweep.seconds_left is None else duration(sweep.seconds_left),
            recommended(sweep),
            style="dim" if sweep.closed else None,
        )
    return table


def workers_of(workers: Iterable[tuple[SweepStatus, WorkerStatus]], width: int) -> Table:
    """A row for each worker."""
    table = empty("Workers", width)
    for heading in ("host", "pid", "device", "engine", "last beat", "sweep", "has in hand"):
        table.add_column(
            heading,
            justify="right" if heading in ("pid", "last beat") else "left",
            no_wrap=heading == "sweep",
            overflow="fold",
        )
    for sweep, worker in workers:
        host = worker.host if width >= WIDE else worker.host.partition(".")[0]
        seen = "never" if worker.silent_seconds is None else f"{duration(worker.silent_seconds)} ago"
        table.add_row(
            *(Text(clean(text)) for text in (host, worker.pid, worker.device, worker.engine)),
            seen if worker.alive else f"silent, {seen}",
            named(sweep, width),
            Text(in_hand(worker.trials) or "—"),
            style=None if worker.alive else "red",
        )
    return table


def empty(title: str, width: int) -> Table:
    """A table without columns; narrow gaps in a narrow terminal."""
    padding = (0, 2 if width >= NARROW else 1, 0, 0)
    return Table(
        box=None, pad_edge=False, padding=padding, title=title, title_justify="left", title_style="bold"
    )


def named(sweep: SweepStatus, width: int) -> str:
    """The name of a sweep's study, on two lines in a narrow terminal."""
    return sweep.study if width >= WIDE else sweep.study.replace("@", "\n@")


def idle(sweeps: Iterable[SweepStatus]) -> list[str]:
    """What keeps a sweep from going on, in sentences."""
    return [
        f"{sweep.study}: {sweep.trials['queued']} trials are queued and no worker is alive. Start one:\n "
        f" python -m sweeps.worker --study {sweep.study}"
        for sweep in sweeps
        if not sweep.closed and sweep.trials["queued"] and not any(worker.alive for worker in sweep.workers)
    ]


def in_hand(trials: Sequence[str]) -> str:
    """Names of trials such as `pilot-0-2#3` by their study: `pilot-0-2 3 4`. The screening's are numbers
    alone.
    """
    grouped: dict[str, list[str]] = {}
    for name in trials:
        study, _, number = clean(name).rpartition("#")
        grouped.setdefault(study or "screen", []).append(number)
    return ", ".join(f"{study} {' '.join(numbers)}" for study, numbers in grouped.items())


def recommended(sweep: SweepStatus) -> Text:
    """The recommended ε, — as long as there is none."""
    epsilon = (sweep.recommended or {}).get("epsilon")
    return Text(f"{epsilon:g}", "bold green") if isinstance(epsilon, (int, float)) else Text("—")


def rate(value: float | None) -> str:
    """A rate to three digits."""
    return "—" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """A duration in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def clean(text: str) -> str:
    """Text of a stranger without what could move a terminal's cursor, and not too long."""
    return "".join(character if character.isprintable() else "�" for character in text)[:60]
