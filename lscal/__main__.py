"""The command `lscal`: every command of the project under one name. `lscal NAME …` is `python -m MODULE …`,
with the same parser.

Completion in a shell: `lscal --print-completion bash`, see `lscal --help`. It finds commands by their
modules' names, the one place where lscal names `sweeps` and `tracking`.
"""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

COMMANDS = {
    "run": ("sweeps.cli.run", "sweep ε for tasks, and recommend one for each"),
    "check": ("sweeps.cli.check", "what is wrong with data and a network, before a sweep"),
    "train": ("sweeps.cli.train", "what a recipe reaches at one ε, without a study"),
    "decide": ("sweeps.cli.decide", "recommend ε from predictions of networks trained elsewhere"),
    "worker": ("sweeps.cli.worker", "train for sweeps that run elsewhere"),
    "status": ("sweeps.cli.status", "how far sweeps are"),
    "recommend": ("tracking.recommend", "pull the recommended ε of a task"),
    "diff": ("tracking.diff", "what changed between two recommendations"),
    "page": ("tracking.report.page", "write the page of a task"),
    "serve": ("tracking.serve", "serve recommendations and pages over HTTP"),
    "replay": ("tracking.replay", "send to MLflow what it missed"),
    "audit": ("lscal.audit.command", "calibration of saved predictions"),
}
"""By name: the module whose `main` is the command and whose `parser` has its flags, and what it does."""
PARSERS = {"sweeps.cli.run": "sweeps.cli.options"}
"""Where another module has the parser."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, see `tracking.exits`."""
    name, *words = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        print(importlib.import_module("lscal").__version__)
        return 0
    if name == "--print-completion":
        return completion(words)
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        print(
            f"error: there is no command {name!r}.{f' Did you mean {near[0]}?' if near else ''} See lscal"
            " --help.",
            file=sys.stderr,
        )
        return 2
    module, _ = COMMANDS[name]
    if stranger := foreign(module.partition(".")[0]):
        print(f"error: {stranger}", file=sys.stderr)
        return 1
    return int(importlib.import_module(module).main(words))


def completion(words: Sequence[str]) -> int:
    """Print the script by which a shell completes `lscal`, its commands and their flags."""
    import shtab

    if len(words) != 1 or words[0] not in shtab.SUPPORTED_SHELLS:
        given, allowed = " ".join(words) or "not given", ", ".join(shtab.SUPPORTED_SHELLS)
        print(f"error: the shell of --print-completion is {given}; allowed are {allowed}.", file=sys.stderr)
        return 2
    whole = argparse.ArgumentParser(prog="lscal")
    commands = whole.add_subparsers()
    for name, (module, what) in COMMANDS.items():
        module = PARSERS.get(module, module)
        parser = importlib.import_module(module).parser()
        commands.add_parser(name, parents=[parser], add_help=False, help=what)
    print(shtab.complete(whole, words[0]))
    return 0


def overview() -> str:
    """All commands, on one screen."""
    lines = [f"  {name:10} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: lscal COMMAND …",
            "",
            *lines,
            "",
            "lscal COMMAND --help; lscal --version; lscal --print-completion bash|zsh",
        ]
    )


def foreign(package: str) -> str:
    """Why a package is not the one that was installed with lscal; "" where it is. Another project on PyPI has
    one named `sweeps`.
    """
    found = importlib.util.find_spec(package)
    ours = Path(__file__).parents[1] / package
    if (
        found is not None
        and found.origin is not None
        and Path(found.origin).parent.resolve() == ours.resolve()
    ):
        return ""
    where = "is not installed" if found is None else f"is that of another project, at {found.origin}"
    return (
        f"the package {package!r} {where}; wanted the one beside lscal, {ours}. Install lscal into an"
        " environment of its own."
    )


if __name__ == "__main__":
    sys.exit(main())
