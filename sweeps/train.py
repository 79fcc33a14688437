"""What a recipe reaches: `python -m sweeps.train fashion_mnist/cnn --epsilon 0 --seeds 3` trains a task at one ε, without a study.

It scores on *select* and on *test*. To choose an ε, use `sweeps.run`: it opens *test* once, for the finalists.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence

from lscal import METRICS, Predictions
from sweeps.brought.flags import brought, check_used
from sweeps.choice import choose, pick_device
from sweeps.console import Console
from sweeps.datasets import SplitName, load
from sweeps.errors import WrongInput
from sweeps.options import Parser, add_execution, add_flags, add_recipe
from sweeps.settings import resolve
from sweeps.workers.worker import member_of
from tracking.exits import Exit

SHOWN: tuple[SplitName, ...] = ("select", "test")


def parser() -> Parser:
    """The flags. Those of a plan have no default here."""
    flags = Parser(prog="python -m sweeps.train", description=__doc__, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    flags.add_argument("tasks", nargs="?", metavar="TASK", help="dataset/architecture (default: what is brought)")
    add_flags(flags)
    flags.add_argument("--epsilon", type=float, default=0.0, metavar="EPSILON", help="label smoothing mass ε (default 0)")
    flags.add_argument("--seeds", type=int, default=3, metavar="N", help="how many seeds, from 0 on (default 3)")
    flags.add_argument("--epochs", type=int, metavar="N", help="passes over the training data (default: the recipe's)")
    add_recipe(flags)
    flags.add_argument("--train-examples", type=int, metavar="N", help="train on so many examples only")
    flags.add_argument("--smoothing", metavar="NAME", help="who receives ε (default uniform)")
    add_execution(flags)
    flags.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default auto)")
    flags.add_argument("--data-dir", metavar="DIR", help="where data sets lie (default LSCAL_DATA)")
    return flags


def train(arguments: Sequence[str], console: Console) -> None:
    """Train, and print accuracy, NLL and ECE of every seed."""
    values = vars(parser().parse_args(arguments))
    epsilon = values.pop("epsilon")
    plan = resolve({"data_dir": os.environ.get("LSCAL_DATA"), **brought(values), **values})
    check_used(plan.datasets, plan.architectures, [task.name for task in plan.tasks])
    if not epsilon < 1:
        raise WrongInput(f"--epsilon is {epsilon:g}; allowed is ε < 1.")
    if len(plan.smoothing) > 1:
        raise WrongInput(f"--smoothing names {len(plan.smoothing)}: {', '.join(plan.smoothing)}; wanted one.")
    if len(plan.tasks) > 1:
        raise WrongInput(f"{len(plan.tasks)} tasks are named; wanted one of {', '.join(task.name for task in plan.tasks)}.")
    task = plan.tasks[0]
    dataset = load(task.dataset, plan.data_dir, plan.train_examples)
    for note in dataset.notes:
        console.say(f"{task.dataset}: {note}")
    engine = choose(task, dataset, plan.smoothing, pick_device(plan.device), plan.seeds, plan.execution, plan.precision, most=plan.seeds)
    console.say(f"{task.name} at ε = {epsilon:g}: {task.recipe}", style="bold")
    console.say(f"{len(dataset.splits['train'].labels)} training examples, {plan.seeds} seeds; {engine.way} on {engine.device}")
    members = [member_of(task, plan.smoothing[0], {"epsilon": epsilon}, seed) for seed in range(plan.seeds)]
    started = time.perf_counter()
    with console.progress(f"training {task.name}", plan.seeds * task.recipe.epochs) as advance:
        trained = engine.train(members, advance)
    seconds = time.perf_counter() - started
    for split in SHOWN:
        predictions = Predictions.from_logits(engine.logits(trained, split), dataset.splits[split].targets)
        for name, scale, digits in (("accuracy", 100, 2), ("nll", 1, 4), ("ece", 100, 2)):
            values_of = scale * METRICS[name].function(predictions)
            spread = float(values_of.std()) if plan.seeds > 1 else 0.0
            each = " ".join(f"{float(value):.{digits}f}" for value in values_of)
            unit = " %" if scale == 100 else ""
            console.say(f"  {split:6} {name:8} {float(values_of.mean()):.{digits}f}{unit} ± {spread:.{digits}f} over seeds: {each}")
    console.say(f"  {seconds:.0f} s of training, {seconds / plan.seeds / task.recipe.epochs:.2f} s a member and epoch")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    console = Console(to_stderr=False)
    try:
        train(sys.argv[1:] if arguments is None else arguments, console)
    except WrongInput as error:
        console.err.print(f"error: {error}", style="red", markup=False)
        return Exit.WRONG_INPUT
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
