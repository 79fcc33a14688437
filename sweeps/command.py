"""The command line behind `python -m sweeps.run`. It says at once what was asked for and where the answer will be; then the heavy imports begin."""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.console import Console
from sweeps.errors import Failed, WrongInput
from sweeps.options import parser, stoppable
from sweeps.pages import page_of, pages_of
from sweeps.plan import Plan
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
            from sweeps.conductor import conduct  # torch takes a second and more

            return conduct(options, console)
    except Failed as error:
        console.error(str(error))
        console.warn(f"All that was measured is kept; go on with: {command(words)}", event="resume")
        return Exit.FAILED
    except WrongInput as error:
        console.error(str(error))
        return Exit.WRONG_INPUT
    except KeyboardInterrupt:
        console.warn(f"Interrupted. What is finished is kept; go on with: {command(words)}", event="interrupted")
        return Exit.INTERRUPTED


def greet(options: Mapping[str, Any], console: Console) -> None:
    """What was asked for, and where it will appear, before anything is read or imported."""
    tasks = options.get("tasks") or [options.get("dataset") or options.get("config") or "digits/mlp"]
    asked = ", ".join(tasks)
    if options.get("config"):  # its values are read later
        asked += f" by {options['config']}" if options.get("tasks") else ""
        console.notice(f"{asked}: how much label smoothing (ε)?", "bold", event="asked")
    else:
        trials, seeds, policy = (options.get(key) or getattr(Plan, key) for key in ("trials", "seeds", "policy"))
        console.notice(f"{asked}: how much label smoothing (ε)? {trials} values × {seeds} seeds, policy {policy}.", "bold", event="asked")
    folder = Path(options.get("state_dir") or os.environ.get("LSCAL_STATE") or Plan.state_dir)
    single = len(tasks) == 1 and re.fullmatch(r"\w+/\w+", asked)
    console.notice(f"  Page, when it is done: {(page_of(folder, asked) if single else pages_of(folder)).absolute().as_uri()}", event="page")
    console.notice(
        f"  MLflow: {browse(options.get('tracking_uri') or os.environ.get('MLFLOW_TRACKING_URI') or Plan.tracking_uri)}", event="mlflow"
    )


def browse(uri: str) -> str:
    """How a person opens what is in a tracking store."""
    if uri == Plan.tracking_uri:
        return "mlflow server, then http://127.0.0.1:5000"
    from tracking.store import shown

    return shown(uri) if uri.startswith("http") else f"mlflow server --backend-store-uri {shown(uri)}, then http://127.0.0.1:5000"


def command(words: Sequence[str]) -> str:
    """The command that was given, without passwords: it is printed."""
    if any("://" in word for word in words):
        from tracking.store import shown

        words = [shown(word) if "://" in word else word for word in words]
    return shlex.join(["python", "-m", "sweeps.run", *words])
