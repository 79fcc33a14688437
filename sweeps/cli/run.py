"""Command line of `python -m sweeps.run`. It prints at once what was asked for and where the answer
will be; then the heavy imports begin.
"""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.cli.options import parser, stoppable
from sweeps.errors import Failed, WrongInput
from sweeps.plan import Plan
from sweeps.site import Site, places
from sweeps.terminal import Console
from tracking.exits import Exit

QUIET = ("list", "dry_run")
"""Options with which nothing is swept."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    console = Console(to_stderr="--json" in words)
    try:
        options = vars(parser().parse_args(words))
        console = Console(to_stderr="--json" in words, log_format=options.pop("log_format", "text"))
        with stoppable(lambda text: console.warn(text, event="stopping")):
            if not any(options.get(key) for key in QUIET):
                greet(options, console)
            from sweeps.cli.run_plan import conduct  # torch takes a second and more

            return conduct(options, console)
    except Failed as error:
        console.error(str(error))
        console.warn(f"All that was measured is kept; go on with: {command(words)}", event="resume")
        return Exit.FAILED
    except WrongInput as error:
        console.error(str(error))
        return Exit.WRONG_INPUT
    except KeyboardInterrupt:
        console.warn(
            f"Interrupted. What is finished is kept; go on with: {command(words)}", event="interrupted"
        )
        return Exit.INTERRUPTED


def greet(options: Mapping[str, Any], console: Console) -> None:
    """What was asked for, and where it will appear, before anything is read or imported; a plan in a file is
    read later, and printed then.
    """
    tasks = options.get("tasks") or [
        one for key in ("dataset", "architecture", "config") for one in listed(options.get(key))
    ]
    asked = ", ".join(tasks or ["digits/mlp"])
    if config := options.get("config"):
        by = f" by {config}" if config not in tasks else ""
        console.notice(f"{asked}{by}: how much label smoothing (ε)?", "bold", event="asked")
        return
    trials, seeds, policy = (options.get(key) or getattr(Plan, key) for key in ("trials", "seeds", "policy"))
    console.notice(
        f"{asked}: how much label smoothing (ε)? {trials} values × {seeds} seeds, policy {policy}.",
        "bold",
        event="asked",
    )
    state = options.get("state_dir") or os.environ.get("LSCAL_STATE") or Site.state_dir
    uri = options.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI") or Site.tracking_uri
    for line in places(Path(state), uri, tasks or ["digits/mlp"]):
        console.notice(f"  {line}", event="place")


def listed(value: str | Sequence[str] | None) -> list[str]:
    """An option that may be given once or several times."""
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def command(words: Sequence[str]) -> str:
    """The command that was given, without passwords: it is printed."""
    if any("://" in word for word in words):
        from tracking.mlflow.client import shown

        words = [shown(word) if "://" in word else word for word in words]
    return shlex.join(["python", "-m", "sweeps.run", *words])
