"""Options: the flags that the commands share, and what becomes of Ctrl-C. It imports nothing heavy: `--help`
and the first line do not wait for torch.
"""

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from types import FrameType
from typing import Any, NoReturn

from typing_extensions import override

from sweeps.errors import WrongInput
from sweeps.plan import Plan
from sweeps.site import LAUNCHES, Site
from sweeps.task import PRECISIONS
from sweeps.terminal import LOG_FORMATS
from tracking.decision.policies import POLICIES
from tracking.exits import Exit

NEGATIVE = re.compile(r"-\.?\d")
HELP = {
    "label_column": ("NAME", "column of --dataset with the classes (default: guessed and said)"),
    "input_columns": ("A,B", "columns of --dataset which the network sees (default: guessed and said)"),
    "split_column": ("NAME", "column of --dataset with train, validation or test"),
    "tokenizer": (
        "SPEC",
        "hf:NAME or a folder: its tokens are made of texts (default: words of the training texts)",
    ),
}


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Add the flags to a command line."""
    group = flags.add_argument_group(
        "your own data and network", "see docs/your-own-task.md; a code's module is imported and run"
    )
    group.add_argument(
        "--dataset",
        metavar="SPEC",
        help=(
            "a folder of images by class, a folder of parquet or CSV files, a .csv, .tsv, .parquet, .jsonl,"
            " .arff or .npz file, openml:NAME, hf:NAME, or package.module:function"
        ),
    )
    group.add_argument(
        "--name", metavar="NAME", help="of --dataset in the task's name (default: that of the file or folder)"
    )
    for key, (metavar, text) in HELP.items():
        group.add_argument(f"--{key.replace('_', '-')}", metavar=metavar, help=text)
    group.add_argument(
        "--image-size",
        type=int,
        metavar="N",
        help="pixels a side to which the images of --dataset are scaled",
    )
    group.add_argument(
        "--drop-rare-classes",
        action="store_true",
        help="leave out classes with too few examples instead of refusing",
    )
    group.add_argument(
        "--start-from",
        metavar="FILE",
        help=(
            "safetensors: every member begins with these weights; the seed still decides the order of the"
            " data and dropout"
        ),
    )
    group.add_argument(
        "--architecture",
        action="append",
        metavar="SPEC",
        help=(
            "package.module:function, timm:NAME, hf:NAME or hf:FOLDER, a name of --list; NAME=SPEC gives it a"
            " name; may be repeated"
        ),
    )


def add_execution(flags: argparse.ArgumentParser) -> None:
    """Add what pins how members are trained, see `plan.Execution`."""
    flags.add_argument(
        "--execution",
        metavar="KIND",
        help=(
            "auto (default), or fused or looped to pin how members are trained; fused:64:2 pins 64 members at"
            " a time in 2 shards, too"
        ),
    )


def add_recipe(flags: argparse.ArgumentParser) -> None:
    """Add what a recipe is changed by, see `sweeps.task`."""
    flags.add_argument(
        "--batch-size", type=int, metavar="N", help="examples in a step (default: the recipe's)"
    )
    flags.add_argument(
        "--learning-rate", type=float, metavar="RATE", help="at its peak (default: the recipe's)"
    )
    flags.add_argument("--weight-decay", type=float, metavar="DECAY", help="(default: the recipe's)")


class Parser(argparse.ArgumentParser):
    """Says which flag was meant, and leaves the exit code to `main`. What begins with a minus and a number is
    a value: `--epsilon -0.2:0.4`.
    """

    @override
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words: list[str] = []
        for word in sys.argv[1:] if args is None else args:
            if words and words[-1].startswith("--") and "=" not in words[-1] and NEGATIVE.match(word):
                words[-1] += f"={word}"
            else:
                words.append(word)
        return super().parse_known_args(words, namespace)

    @override
    def error(self, message: str) -> NoReturn:
        flags = [option for action in self._actions for option in action.option_strings]
        typed = [word.strip(":").partition("=")[0] for word in message.split() if word.startswith("--")]
        near = [match for word in typed if word not in flags for match in get_close_matches(word, flags, n=1)]
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise WrongInput(f"{message}.{hint} See {self.prog} --help.")


def parser() -> Parser:
    """The flags. Those that are keys of a plan have no default here: `Plan` is the only home of defaults."""
    flags = Parser(
        prog="python -m sweeps.run",
        description="Sweep the label-smoothing mass ε of classification tasks, and recommend one for each.",
        epilog=(
            "Exit codes: 0 done, 1 failed, 2 wrong input, 130 interrupted (state is kept; the same command"
            " goes on)."
        ),
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    flags.add_argument(
        "tasks",
        nargs="*",
        metavar="TASK",
        help="dataset/architecture, or a pattern such as 'fashion_mnist/*' (default: digits/mlp)",
    )
    add_design(flags)
    add_training(flags)
    add_site(flags)
    add_actions(flags)
    return flags


def add_design(flags: Parser) -> None:
    """Flags of the points that are tried, and of what decides."""
    flags.add_argument(
        "--epsilon",
        metavar="LOW:HIGH",
        help=f"range of ε (default {Plan.epsilon[0]:g}:{Plan.epsilon[1]:g}); ε = 0 is always tried",
    )
    flags.add_argument(
        "--trials", type=int, metavar="N", help=f"how many values of ε (default {Plan.trials})"
    )
    flags.add_argument(
        "--seeds", type=int, metavar="N", help=f"paired seeds of each trial (default {Plan.seeds})"
    )
    flags.add_argument(
        "--confirm-seeds",
        type=int,
        metavar="N",
        help="at most so many fresh seeds of each finalist (default: what --effect needs, by the pilot)",
    )
    flags.add_argument(
        "--effect",
        type=float,
        metavar="PP",
        help=f"smallest gain in accuracy of interest, in percentage points (default {100 * Plan.effect:g})",
    )
    flags.add_argument(
        "--price-per-hour",
        type=float,
        metavar="PRICE",
        help="of the device: the pilot then estimates the price of the sweep",
    )
    flags.add_argument(
        "--prices",
        metavar="WRONG:REVIEW:RIGHT",
        help=(
            "what a decision costs, for policy utility (default"
            f" {Plan.prices.wrong:g}:{Plan.prices.review:g}:{Plan.prices.right:g}; a negative price is an"
            " income)"
        ),
    )


def add_training(flags: Parser) -> None:
    """Flags of how members are trained, and of the choice among points."""
    flags.add_argument(
        "--epochs", type=int, metavar="N", help="passes over the training data (default: the recipe's)"
    )
    add_recipe(flags)
    flags.add_argument(
        "--train-examples", type=int, metavar="N", help="train on so many examples only: a cheaper look"
    )
    flags.add_argument(
        "--smoothing",
        metavar="NAMES",
        help=(
            f"who receives ε, see docs/smoothing.md; of several, one is chosen (default {Plan.smoothing[0]})"
        ),
    )
    flags.add_argument(
        "--tune",
        action="append",
        metavar="NAME=LOW:HIGH",
        help=(
            "tune learning_rate, weight_decay or smoothing=NAMES beside ε; or names alone, with ranges around"
            " the recipe's values"
        ),
    )
    flags.add_argument(
        "--rungs",
        action=argparse.BooleanOptionalAction,
        help="drop trials which can no longer change the recommendation (default on)",
    )
    flags.add_argument(
        "--policy",
        metavar="NAME",
        help=f"rule which chooses ε: {', '.join(POLICIES)} (default {Plan.policy})",
    )
    flags.add_argument(
        "--precision",
        metavar="NAME",
        help=f"of training: {', '.join(PRECISIONS)} (default {Plan.precision}); another one is another study",
    )


def add_site(flags: Parser) -> None:
    """Flags of this machine: execution, workers, stores, user-supplied files."""
    add_execution(flags)
    flags.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default auto)")
    flags.add_argument(
        "--workers",
        metavar="N",
        help="how many, auto: one for each GPU or 8 cores; 0: those which join from elsewhere (default auto)",
    )
    flags.add_argument(
        "--launch",
        metavar="NAME",
        help=f"how workers are placed: {', '.join(LAUNCHES)} (default inline for one worker, else processes)",
    )
    flags.add_argument(
        "--ray-address", metavar="ADDRESS", help="of a Ray cluster (default: Ray on this machine alone)"
    )
    flags.add_argument(
        "--gpus-per-worker",
        type=float,
        metavar="N",
        help="on Ray; may be a fraction (default 1 where there are GPUs)",
    )
    flags.add_argument(
        "--grace",
        type=float,
        metavar="SECONDS",
        help=f"a worker silent for so long is taken for dead (default {Plan.grace:g})",
    )
    flags.add_argument(
        "--state-dir",
        metavar="DIR",
        help=f"for outbox and checkpoints (default LSCAL_STATE, or else {Site.state_dir})",
    )
    flags.add_argument(
        "--storage", metavar="URL", help=f"Optuna's database (default OPTUNA_STORAGE, or else {Site.storage})"
    )
    flags.add_argument(
        "--tracking-uri",
        metavar="URI",
        help=f"MLflow (default MLFLOW_TRACKING_URI, or else {Site.tracking_uri})",
    )
    flags.add_argument("--data-dir", metavar="DIR", help="where data sets lie (default LSCAL_DATA)")
    add_flags(flags)


def add_actions(flags: Parser) -> None:
    """Flags of what is done with the plan."""
    flags.add_argument("--config", metavar="PLAN.YAML", help="a plan; flags win over it")
    flags.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved plan, the members and an estimate of the time; train nothing",
    )
    flags.add_argument(
        "--pilot-only",
        action="store_true",
        help="train four members, print what the sweep could detect and cost, and stop",
    )
    flags.add_argument(
        "--reopen-test",
        action="store_true",
        help="confirm other finalists on a test split which was opened before; all claims are counted",
    )
    flags.add_argument(
        "--fresh",
        action="store_true",
        help="do not try the published ε of the task beside the candidates of this sweep",
    )
    flags.add_argument(
        "--remeasure", action="store_true", help="measure anew how many members to train at a time"
    )
    flags.add_argument("--list", action="store_true", help="print the data sets, architectures and policies")
    flags.add_argument("--tables", action="store_true", help="print the tables behind the answer, too")
    flags.add_argument(
        "--json",
        action="store_true",
        help="the recommendations as one JSON line on stdout, all else on stderr",
    )
    flags.add_argument(
        "--log-format", choices=LOG_FORMATS, help="json: one line of JSON per event, on stderr"
    )
    flags.add_argument(
        "--metrics-port",
        type=int,
        metavar="PORT",
        help="serve metrics for Prometheus on 127.0.0.1 (0: any free port)",
    )


@contextmanager
def stoppable(say: Callable[[str], None]) -> Iterator[None]:
    """SIGTERM is taken as Ctrl-C. Either is acknowledged at once, also while torch computes; the second one
    ends the process.

    What it had in hand is then taken over later.
    """

    def stop(_: int, __: FrameType | None) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os._exit(Exit.INTERRUPTED))
        raise KeyboardInterrupt

    def acknowledge() -> None:
        said = False
        while number := os.read(
            reading, 1
        ):  # written by the C handler, which does not wait for the main thread
            if number[0] in (signal.SIGINT, signal.SIGTERM) and not said:
                said = True
                say("Stopping: what is finished is kept.")

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    listener = threading.Thread(target=acknowledge, daemon=True, name="signals")
    listener.start()
    earlier = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(earlier)
        os.close(writing)
        listener.join()
        os.close(reading)
