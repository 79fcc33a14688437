"""`python -m sweeps.worker` trains for sweeps that `sweeps.run` conducts, from anywhere. See
`sweeps.workers.join`.
"""

import argparse
import sys
from collections.abc import Sequence

from sweeps.cli.options import Parser, add_flags, stoppable
from sweeps.errors import Failed, WrongInput
from sweeps.site import Site
from sweeps.terminal import LOG_FORMATS, Console
from tracking.exits import Exit


def parser() -> Parser:
    """The flags. Those that are keys of a plan have no default here."""
    flags = Parser(
        prog="python -m sweeps.worker",
        description=(
            "Train for sweeps which python -m sweeps.run conducts, on this machine or another. The plan is"
            " read from the study."
        ),
        epilog=(
            "Exit codes: 0 the sweep is closed, 1 failed, 2 wrong input, 130 stopped (its trials are given"
            " back)."
        ),
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    flags.add_argument(
        "--study",
        metavar="NAME",
        help="the sweep to join, as sweeps.run prints it (default: every open one, until stopped)",
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
    flags.add_argument(
        "--state-dir",
        metavar="DIR",
        help=f"for outbox and checkpoints (default LSCAL_STATE, or else {Site.state_dir})",
    )
    flags.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default auto)")
    flags.add_argument(
        "--metrics-port",
        type=int,
        metavar="PORT",
        help="serve metrics for Prometheus there (0: any free port)",
    )
    flags.add_argument(
        "--metrics-host",
        metavar="HOST",
        default="127.0.0.1",
        help="address to serve them at (default 127.0.0.1)",
    )
    flags.add_argument(
        "--log-format",
        choices=LOG_FORMATS,
        default="text",
        help="json: one line of JSON per event, on stderr",
    )
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    console = Console(to_stderr=True)
    try:
        options = vars(parser().parse_args(sys.argv[1:] if arguments is None else arguments))
        console = Console(to_stderr=True, log_format=options.pop("log_format"))
        study = options.pop("study", None)
        host, port = options.pop("metrics_host"), options.pop("metrics_port", None)
        with stoppable(lambda text: console.warn(text, event="stopping")):
            console.notice(f"{study or 'every open sweep'}: starting a worker", event="asked")
            from sweeps.settings import merge  # torch takes a second and more
            from sweeps.workers.join import serve
            from tracking.mlflow.client import TrackingUnavailable

            try:
                serve(study, merge(options, {}), console, host, port)
            except TrackingUnavailable as error:
                raise Failed(str(error)) from error
    except WrongInput as error:
        console.error(str(error))
        return Exit.WRONG_INPUT
    except Failed as error:
        console.error(str(error))
        return Exit.FAILED
    except KeyboardInterrupt:
        console.warn("Stopped. What is finished is kept, what is not is given back.", event="stopped")
        return Exit.INTERRUPTED
    return Exit.DONE
