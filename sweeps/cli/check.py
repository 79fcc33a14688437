"""The command line behind `python -m sweeps.check`."""

import argparse
import json
import sys
from collections.abc import Sequence

from sweeps.cli.options import Parser, add_flags, add_recipe
from sweeps.errors import WrongInput
from sweeps.plan import Plan
from sweeps.preflight.finding import Finding, Level
from sweeps.task import Task
from sweeps.terminal import Console
from tracking.exits import Exit

STYLES: dict[Level, str | None] = {"fine": "green", "note": "dim", "doubt": "yellow", "wrong": "red"}


def parser() -> Parser:
    """The flags. Those of a plan have no default here."""
    flags = Parser(
        prog="python -m sweeps.check",
        description=(
            "Say what is wrong with data and a network before a sweep: reads them, builds the network and"
            " takes a few steps."
        ),
        epilog="Exit codes: 0 a sweep can be run, 1 it would fail or mislead (✗), 2 wrong input.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    flags.add_argument(
        "tasks",
        nargs="*",
        metavar="TASK",
        help="dataset/architecture (default: the data set and network given)",
    )
    add_flags(flags)
    flags.add_argument(
        "--epochs", type=int, metavar="N", help="passes over the training data (default: the recipe's)"
    )
    add_recipe(flags)
    flags.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help=f"of the sweep whose time is estimated (default {Plan.trials})",
    )
    flags.add_argument("--seeds", type=int, metavar="N", help=f"of each trial (default {Plan.seeds})")
    flags.add_argument(
        "--effect",
        type=float,
        metavar="PP",
        help="smallest gain in accuracy of interest, in percentage points (default 0.3)",
    )
    flags.add_argument("--train-examples", type=int, metavar="N", help="train on so many examples only")
    flags.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default auto)")
    flags.add_argument("--data-dir", metavar="DIR", help="where data sets lie (default LSCAL_DATA)")
    flags.add_argument("--json", action="store_true", help="the findings as one JSON line on stdout")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    console = Console(to_stderr=False)
    try:
        options = vars(parser().parse_args(sys.argv[1:] if arguments is None else arguments))
        as_json = options.pop("json", False)
        console.notice(
            f"{', '.join(options.get('tasks') or [options.get('dataset') or 'digits/mlp'])}: looking at data"
            " and network",
            event="asked",
        )
        from sweeps.preflight.task import checked  # torch takes a second and more

        found: dict[str, list[Finding]] = {}
        for task, findings in checked(options):
            found[task.name] = findings
            if not as_json:
                show(task, findings, console)
    except WrongInput as error:
        console.error(str(error))
        return Exit.WRONG_INPUT
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    if as_json:
        print(json.dumps({name: [vars(one) for one in own] for name, own in found.items()}))
    return Exit.FAILED if any(one.level == "wrong" for own in found.values() for one in own) else Exit.DONE


def show(task: Task, findings: Sequence[Finding], console: Console) -> None:
    """The findings as lines, and what they come to."""
    console.say(f"{task.name}: {task.recipe}", style="bold")
    for one in findings:
        console.say(f"  {one}", style=STYLES[one.level])
    wrong, doubts = (sum(one.level == level for one in findings) for level in ("wrong", "doubt"))
    if wrong:
        console.say(f"✗ {wrong} to mend before a sweep is worth its time.", style="bold red")
    else:
        console.say(
            f"✓ a sweep can be run{f', with {doubts} to look at (!)' if doubts else ''}.", style="bold green"
        )
