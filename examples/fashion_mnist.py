"""Fashion-MNIST with and without label smoothing: `python -m examples.fashion_mnist --data-dir DIR`.

Trains a perceptron with hard labels, and from the same initial weights again with label smoothing, at a row
of ε; measures accuracy, reliability and the confidence of single test images; draws; and writes
fashion_mnist.md with all of it.
"""

import argparse
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples import page, pictures
from examples.findings import Findings, Networks
from sweeps.cli.options import Parser
from sweeps.data.dataset import SplitName
from sweeps.data.load import load
from sweeps.devices import cores, pick_device
from sweeps.errors import WrongInput
from sweeps.plan import Plan
from sweeps.settings import resolve, site_of
from sweeps.terminal import Console
from sweeps.training.autotune import choose
from sweeps.training.engine import Engine
from sweeps.workers.worker import member_of
from tracking.exits import Exit

TASK = "fashion_mnist/mlp"
SEEDS = 3
EPSILONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
HELD_OUT: tuple[SplitName, ...] = ("calibrate", "test")


def parser() -> Parser:
    """The flags. Those of a plan have no default here."""
    flags = Parser(
        prog="python -m examples.fashion_mnist",
        description=__doc__,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    flags.add_argument("--data-dir", metavar="DIR", help="where data sets lie (default LSCAL_DATA)")
    flags.add_argument("--seeds", type=int, metavar="N", help=f"pairs of networks (default {SEEDS})")
    flags.add_argument(
        "--epochs", type=int, metavar="N", help="passes over the training data (default: the recipe's)"
    )
    flags.add_argument(
        "--train-examples", type=int, metavar="N", help="train on so many images only: a quick look"
    )
    flags.add_argument("--out", type=Path, metavar="DIR", help="where the page goes (default: examples/)")
    return flags


def run(arguments: Sequence[str], console: Console) -> Path:
    """Train, measure, draw, and write the page, whose path is returned."""
    values = vars(parser().parse_args(arguments))
    out = values.pop("out", Path(__file__).parent)
    given = {"tasks": [TASK], "data_dir": os.environ.get("LSCAL_DATA"), "seeds": SEEDS, **values}
    plan, site = resolve(given), site_of(given)
    task = plan.tasks[0]
    dataset = load(task.dataset, site.data_dir, plan.train_examples)
    engine = choose(
        task, dataset, plan.smoothing, pick_device(site.device), plan.seeds, plan.execution, plan.precision
    )
    networks, seconds = train(engine, plan, console)
    console.say("measuring, with 95 % intervals")
    findings = Findings.of(networks)
    console.say("drawing")
    pictures.draw_all(findings, out / "images")
    written: Path = out / "fashion_mnist.md"
    written.write_text(
        page.markdown(findings, setting(engine, plan, seconds, command(values))), encoding="utf-8"
    )
    return written


def train(engine: Engine, plan: Plan, console: Console) -> tuple[Networks, float]:
    """The networks, and the seconds they took. Members that share a seed share their initial weights and
    their batches.
    """
    members = [
        member_of(engine.task, plan.smoothing[0], {"epsilon": epsilon}, seed)
        for epsilon in EPSILONS
        for seed in range(plan.seeds)
    ]
    console.say(
        f"{TASK}: {len(EPSILONS)} values of ε × {plan.seeds} seeds, {engine.execution} on {engine.device}"
    )
    with console.progress(f"training {TASK}", len(members) * engine.task.recipe.epochs) as advance:
        trained = engine.train(members, advance)
    shape = (len(EPSILONS), plan.seeds, -1, len(engine.dataset.classes))
    logits: dict[SplitName, Tensor] = {
        split: engine.logits(trained, split).reshape(shape) for split in HELD_OUT
    }
    return Networks(engine.dataset.to(torch.device("cpu")), EPSILONS, logits), trained.seconds


def setting(engine: Engine, plan: Plan, seconds: float, command: str) -> page.Setting:
    """How the numbers came about."""
    recipe, splits = engine.task.recipe, engine.dataset.splits
    versions = ", ".join(f"{name} {version(name)}" for name in ("lscal", "torch", "numpy"))
    return page.Setting(
        command=command,
        task=engine.task.name,
        recipe=", ".join(f"{name.replace('_', ' ')} {value}" for name, value in recipe.to_mapping().items()),
        examples=(len(splits["train"].labels), len(splits["calibrate"].labels), len(splits["test"].labels)),
        seeds=plan.seeds,
        seconds=seconds,
        processor_seconds=time.process_time(),
        machine=f"{processor(engine)}; {engine.execution}; Python {platform.python_version()}, {versions}",
        date=datetime.now(UTC).date().isoformat(),
    )


def processor(engine: Engine) -> str:
    """What trained, in words."""
    if engine.device.type == "cuda":
        return torch.cuda.get_device_name(engine.device)
    count = cores()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"{count} core{'s' if count > 1 else ''} of"
        f" {names[0] if names else platform.processor() or platform.machine()}"
    )


def command(given: Mapping[str, Any]) -> str:
    """The command that was given, but for where the data lie on this machine."""
    words = [
        word
        for name, value in given.items()
        if name != "data_dir"
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    return shlex.join(["python", "-m", "examples.fashion_mnist", "--data-dir", "DIR", *words])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    console = Console(to_stderr=False)
    try:
        written = run(sys.argv[1:] if arguments is None else arguments, console)
    except WrongInput as error:
        console.err.print(f"error: {error}", style="red", markup=False)
        return Exit.WRONG_INPUT
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    console.say(f"written: {written}")
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
