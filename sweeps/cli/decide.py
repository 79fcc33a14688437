"""The command line behind `python -m sweeps.decide`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from sweeps.cli.options import Parser
from sweeps.errors import WrongInput
from sweeps.terminal import Console
from tracking.decision.terms import Terms
from tracking.exits import Exit


def parser() -> Parser:
    """The flags."""
    flags = Parser(
        prog="python -m sweeps.decide",
        description=(
            "Recommend ε from predictions of networks that were trained elsewhere. Nothing is trained, and"
            " nothing is published."
        ),
        epilog="Exit codes: 0 done, 2 wrong input.",
        allow_abbrev=False,
    )
    flags.add_argument(
        "--from",
        dest="place",
        type=Path,
        required=True,
        metavar="DIR|CSV",
        help=(
            "predictions by name, such as eps0.1_seed3/validation.npz and eps0.1_seed3/test.npz, or a CSV"
            " with the columns epsilon, seed, validation (or select, calibrate), test"
        ),
    )
    flags.add_argument(
        "--name", default="mine/saved", metavar="TASK", help="the task's name (default mine/saved)"
    )
    flags.add_argument(
        "--policy", default=Terms.policy, metavar="NAME", help="whose answer comes first (default safe)"
    )
    flags.add_argument(
        "--effect",
        type=float,
        default=100 * Terms.effect,
        metavar="PP",
        help="smallest gain in accuracy of interest, in percentage points (default 0.3)",
    )
    flags.add_argument("--page", type=Path, metavar="FILE", help="also write the page, such as decision.html")
    flags.add_argument("--json", action="store_true", help="print the whole record instead of sentences")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    console = Console(to_stderr=False)
    try:
        options = parser().parse_args(sys.argv[1:] if arguments is None else arguments)
        from sweeps.protocol.decide_saved import decided  # torch takes a second and more
        from sweeps.saved_members import collected, found
        from tracking.decision.policies import POLICIES
        from tracking.names import WrongName, model_of

        if options.policy not in POLICIES:
            raise WrongInput(f"--policy is {options.policy!r}; allowed are {', '.join(sorted(POLICIES))}.")
        if not 0 < options.effect < 100:
            raise WrongInput(f"--effect is {options.effect:g}; allowed is a number above 0 and below 100.")
        try:
            model_of(options.name)
        except WrongName as error:
            raise WrongInput(f"--name: {error}") from error
        collection = collected(found(options.place))
        terms = Terms(options.policy, effect=options.effect / 100)
        evidence = decided(collection, options.name, terms)
    except WrongInput as error:
        console.error(str(error))
        return Exit.WRONG_INPUT
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    from tracking.report.answer import Whole, sentences, smoothing
    from tracking.report.page import page

    links = {}
    if options.page is not None:
        try:
            options.page.write_text(page(evidence), encoding="utf-8")
        except OSError as error:
            console.error(f"cannot write the page {str(options.page)!r}: {error.strerror}.")
            return Exit.FAILED
        links["page"] = options.page.resolve().as_uri()
    if options.json:
        print(Whole.of(evidence.recommendations, options.policy, links).to_json())
        return Exit.DONE
    count = len(collection.seeds)
    console.say(
        f"{len(collection.points)} ε × {count} seeds; "
        f"{', '.join(f'{name} {size}' for name, size in evidence.examples.items())} examples"
    )
    for note in evidence.notes:
        console.paragraph(f"  {note}")
    best = evidence.recommendations[options.policy].best
    console.answer(
        f"Recommended ε for {options.name}: {smoothing(best)} (policy {options.policy})",
        sentences(evidence.recommendations, options.policy, links),
    )
    return Exit.DONE
