"""What a recipe reaches: `python -m sweeps.train fashion_mnist/cnn --epsilon 0 --seeds 3` trains a task at
one ε, without a study.

It scores on *select* and on *test*. To choose an ε, use `sweeps.run`: it opens *test* once, for the
finalists.
"""

import argparse
import sys
from collections.abc import Sequence

from sweeps.cli.options import Parser, add_execution, add_flags, add_recipe, stoppable
from sweeps.errors import WrongInput
from sweeps.terminal import Console
from tracking.exits import Exit


def parser() -> Parser:
    """The flags. Those of a plan have no default here."""
    flags = Parser(
        prog="python -m sweeps.train",
        description=__doc__,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    flags.add_argument(
        "tasks",
        nargs="?",
        metavar="TASK",
        help="dataset/architecture (default: the data set and network given)",
    )
    add_flags(flags)
    flags.add_argument(
        "--epsilon", type=float, default=0.0, metavar="EPSILON", help="label smoothing mass ε (default 0)"
    )
    flags.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="how many seeds, from --seed on (default 3)"
    )
    flags.add_argument("--seed", type=int, default=0, metavar="N", help="the first seed (default 0)")
    flags.add_argument(
        "--out",
        metavar="DIR",
        help=(
            "write logits and labels of select, calibrate and test there, as python -m sweeps.decide reads"
            " them"
        ),
    )
    flags.add_argument(
        "--epochs", type=int, metavar="N", help="passes over the training data (default: the recipe's)"
    )
    add_recipe(flags)
    flags.add_argument("--train-examples", type=int, metavar="N", help="train on so many examples only")
    flags.add_argument(
        "--smoothing", metavar="NAME", help="who receives ε (default uniform); @drop:0.3 takes it to 0"
    )
    add_execution(flags)
    flags.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default auto)")
    flags.add_argument("--data-dir", metavar="DIR", help="where data sets lie (default LSCAL_DATA)")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    console = Console(to_stderr=False)
    try:
        options = vars(parser().parse_args(sys.argv[1:] if arguments is None else arguments))
        with stoppable(lambda text: console.warn(text, event="stopping")):
            console.notice(
                f"{options.get('tasks') or options.get('dataset') or 'digits/mlp'}: training at ε ="
                f" {options['epsilon']:g}",
                event="asked",
            )
            from sweeps.cli.train_task import train  # torch takes a second and more

            train(options, console)
    except WrongInput as error:
        console.err.print(f"error: {error}", style="red", markup=False)
        return Exit.WRONG_INPUT
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return Exit.DONE
