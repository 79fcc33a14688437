"""The command line behind `python -m sweeps.run`: flags and YAML to a Plan, the Plan to its sweeps."""

import argparse
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import optuna
import torch
from typing_extensions import override

from sweeps.architectures import ARCHITECTURES
from sweeps.brought.flags import add_flags, add_recipe, brought, check_used
from sweeps.check.network import refusal
from sweeps.choice import choose, pick_device
from sweeps.console import LOG_FORMATS, Console, duration
from sweeps.datasets import DATASETS, Dataset, load
from sweeps.engine import Engine
from sweeps.errors import WrongInput
from sweeps.launch import NoWorkers
from sweeps.meter import Meter
from sweeps.openings import TestOpened
from sweeps.patience import StoreUnavailable
from sweeps.pilot import FINALISTS, SEEDS, most_confirm_seeds
from sweeps.plan import LAUNCHES, MODES, Plan, Task, has_secret, read_yaml, resolve
from sweeps.recorder import Recorder
from sweeps.study import open_storage
from sweeps.sweep import sweep_task
from sweeps.translation import translating
from sweeps.way import network
from sweeps.worker import TooLarge
from tracking.evidence import Pilot
from tracking.policies import POLICIES
from tracking.records import Recommendation
from tracking.store import DEFAULT_URI, TrackingAway, TrackingUnavailable, reach, shown

NEGATIVE = re.compile(r"-\.?\d")
DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """Says which flag was meant, and leaves the exit code to `main`. What begins with a minus and a number is a value: `--epsilon -0.2:0.4`."""

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
    """The flags. Those which are keys of a plan have no default here: `Plan` is the only home of defaults."""
    flags = Parser(
        prog="python -m sweeps.run",
        description="Sweep the label-smoothing mass ε of classification tasks, and recommend one for each.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong input, 130 interrupted (state is kept; the same command goes on).",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    flags.add_argument(
        "tasks", nargs="*", metavar="TASK", help="dataset/architecture, or a pattern such as 'fashion_mnist/*' (default: digits/mlp)"
    )
    flags.add_argument(
        "--epsilon", metavar="LOW:HIGH", help=f"range of ε (default {Plan.epsilon[0]:g}:{Plan.epsilon[1]:g}); ε = 0 is always tried"
    )
    flags.add_argument("--trials", type=int, metavar="N", help=f"how many values of ε (default {Plan.trials})")
    flags.add_argument("--seeds", type=int, metavar="N", help=f"paired seeds of each trial (default {Plan.seeds})")
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
    flags.add_argument("--price-per-hour", type=float, metavar="PRICE", help="of the device: the pilot then says what the sweep costs")
    flags.add_argument(
        "--prices",
        metavar="WRONG:REVIEW:RIGHT",
        help="what a decision costs, for policy utility (default "
        f"{Plan.prices.wrong:g}:{Plan.prices.review:g}:{Plan.prices.right:g}; a negative price is an income)",
    )
    flags.add_argument("--epochs", type=int, metavar="N", help="passes over the training data (default: the recipe's)")
    add_recipe(flags)
    flags.add_argument("--train-examples", type=int, metavar="N", help="train on so many examples only: a cheaper look")
    flags.add_argument(
        "--smoothing",
        metavar="NAMES",
        help=f"who receives ε, see docs/smoothing.md; of several, one is chosen (default {Plan.smoothing[0]})",
    )
    flags.add_argument(
        "--tune",
        action="append",
        metavar="NAME=LOW:HIGH",
        help="tune learning_rate, weight_decay or smoothing=NAMES beside ε; or names alone, with ranges around the recipe's values",
    )
    flags.add_argument(
        "--rungs", action=argparse.BooleanOptionalAction, help="drop trials which can no longer change the recommendation (default on)"
    )
    flags.add_argument("--policy", metavar="NAME", help=f"rule which chooses ε: {', '.join(POLICIES)} (default {Plan.policy})")
    flags.add_argument("--engine", metavar="NAME", help=f"how members are trained: {', '.join(MODES)} (default auto: measured)")
    flags.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default auto)")
    flags.add_argument(
        "--workers", metavar="N", help="how many, auto: one for each GPU or 8 cores; 0: those which join from elsewhere (default auto)"
    )
    flags.add_argument(
        "--launch", metavar="NAME", help=f"how workers are placed: {', '.join(LAUNCHES)} (default inline for one worker, else processes)"
    )
    flags.add_argument("--ray-address", metavar="ADDRESS", help="of a Ray cluster (default: Ray on this machine alone)")
    flags.add_argument("--gpus-per-worker", type=float, metavar="N", help="on Ray; may be a fraction (default 1 where there are GPUs)")
    flags.add_argument(
        "--grace", type=float, metavar="SECONDS", help=f"a worker silent for so long is taken for dead (default {Plan.grace:g})"
    )
    flags.add_argument("--state-dir", metavar="DIR", help=f"for outbox and checkpoints (default LSCAL_STATE, or else {Plan.state_dir})")
    flags.add_argument("--storage", metavar="URL", help=f"Optuna's database (default OPTUNA_STORAGE, or else {Plan.storage})")
    flags.add_argument("--tracking-uri", metavar="URI", help=f"MLflow (default MLFLOW_TRACKING_URI, or else {DEFAULT_URI})")
    flags.add_argument("--data-dir", metavar="DIR", help="where data sets lie (default LSCAL_DATA)")
    add_flags(flags)
    flags.add_argument("--config", metavar="PLAN.YAML", help="a plan; flags win over it")
    flags.add_argument(
        "--dry-run", action="store_true", help="print the resolved plan, the members and an estimate of the time; train nothing"
    )
    flags.add_argument("--pilot-only", action="store_true", help="train four members, say what the sweep could find out and cost, and stop")
    flags.add_argument(
        "--reopen-test", action="store_true", help="confirm other finalists on a test split which was opened before; all claims are counted"
    )
    flags.add_argument("--list", action="store_true", help="print the data sets, architectures and policies")
    flags.add_argument("--json", action="store_true", help="the recommendations as one JSON line on stdout, all else on stderr")
    flags.add_argument("--log-format", choices=LOG_FORMATS, help="json: one line of JSON per event, on stderr")
    flags.add_argument("--metrics-port", type=int, metavar="PORT", help="serve metrics for Prometheus on 127.0.0.1 (0: any free port)")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    console = Console(to_stderr="--json" in words)
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings of a database that is away are pages long
    try:
        options = vars(parser().parse_args(words))
        config, dry, listing, as_json = (options.pop(key, None) for key in ("config", "dry_run", "list", "json"))
        pilot_only, reopen, port = options.pop("pilot_only", False), options.pop("reopen_test", False), options.pop("metrics_port", None)
        console = Console(to_stderr="--json" in words, log_format=options.pop("log_format", "text"))
        console.adopt()
        if listing:
            return list_names(console)
        plan = resolve(merge(options, read_yaml(config) if config else {}))
        check_used(plan.datasets, plan.architectures, [task.name for task in plan.tasks])
        if dry:
            return dry_run(plan, console)
        with stoppable():
            found = run(plan, console, port, pilot_only=pilot_only, reopen=reopen)
    except (TrackingUnavailable, StoreUnavailable, TooLarge, NoWorkers) as error:
        console.error(str(error))
        console.warn(f"All that was measured is kept; go on with: {command(words)}", event="resume")
        return FAILED
    except WrongInput as error:
        console.error(str(error))
        return WRONG_INPUT
    except KeyboardInterrupt:
        console.warn(f"Interrupted. What is finished is kept; go on with: {command(words)}", event="interrupted")
        return INTERRUPTED
    if as_json:
        print("[" + ", ".join(one.to_json() for one in found) + "]")
    return DONE if found else FAILED


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM is taken as Ctrl-C; the second of either ends the process at once, and what it had in hand is taken over later."""

    def stop(_: int, __: FrameType | None) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os._exit(INTERRUPTED))
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def command(words: Sequence[str]) -> str:
    """The command which was given, without passwords: it is printed."""
    return shlex.join(["python", "-m", "sweeps.run", *(shown(word) if "://" in word else word for word in words)])


def merge(flags: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Flags win over the plan's YAML, that wins over the environment."""
    environment = {
        "storage": os.environ.get("OPTUNA_STORAGE"),
        "tracking_uri": os.environ.get("MLFLOW_TRACKING_URI"),
        "data_dir": os.environ.get("LSCAL_DATA"),
        "state_dir": os.environ.get("LSCAL_STATE"),
    }
    given = {key: value for key, value in flags.items() if value != []}
    for key, own in brought(given).items():
        given[key] = {**(plan.get(key) or {}), **own}
    if given.get("workers", "auto") != "auto" and str(given["workers"]).isdigit():
        given["workers"] = int(given["workers"])
    if "effect" in given:
        given["effect"] /= 100
    if "prices" in given:
        given["prices"] = prices_of(given["prices"])
    if "tune" in given:
        given["tune"] = {name: value for text in given["tune"] for name, value in tuned(text)}
    return {**{key: value for key, value in environment.items() if value}, **plan, **given}


def tuned(text: str) -> list[tuple[str, str | None]]:
    """`NAME=LOW:HIGH`, `smoothing=NAME,NAME`, or names whose ranges are not given."""
    name, given, value = text.partition("=")
    return [(name, value)] if given else [(name, None) for name in text.split(",")]


def prices_of(text: str) -> dict[str, str]:
    """`WRONG:REVIEW:RIGHT` as the mapping which a plan has."""
    words = text.split(":")
    if len(words) != 3:
        raise WrongInput(f"--prices is {text!r}; wanted WRONG:REVIEW:RIGHT, such as 1:0.1:0.")
    return dict(zip(("wrong", "review", "right"), words, strict=True))


def list_names(console: Console) -> int:
    """Print what there is."""
    for title, names in (("Data sets", DATASETS), ("Architectures", ARCHITECTURES), ("Policies", POLICIES)):
        console.say(f"{title}:", style="bold")
        for name in sorted(names):
            entry: Any = names[name]
            documented = getattr(entry, "build", None) or getattr(entry, "judge", None) or entry
            console.say(f"  {name:15} {(documented.__doc__ or '').strip().splitlines()[0]}")
    console.say("A task is dataset/architecture, such as digits/mlp.")
    return DONE


def prepare(plan: Plan, task: Task, datasets: dict[str, Dataset], say: Callable[[str], None]) -> Engine:
    """Read a task's data once, say what was guessed, and choose its engine by measuring."""
    if task.dataset not in datasets:
        datasets[task.dataset] = load(task.dataset, plan.data_dir, plan.train_examples)
        for note in datasets[task.dataset].notes:
            say(f"{task.dataset}: {note}")
    if task.architecture in plan.architectures and (why := refusal(task, datasets[task.dataset])):
        raise WrongInput(f"{task.name}: {why.about}: {why.text}. See python -m sweeps.check.")
    if datasets[task.dataset].sequences:  # or else it would be found in the confirmation
        translating(network(task, datasets[task.dataset]), datasets[task.dataset])
    return choose(task, datasets[task.dataset], plan.smoothing, pick_device(plan.device), plan.seeds, plan.engine)


def dry_run(plan: Plan, console: Console) -> int:
    """Print the plan as YAML, and what it would cost on this device."""
    print(plan.to_yaml(), end="")
    sys.stdout.flush()
    for url, name in ((plan.storage, "OPTUNA_STORAGE"), (plan.tracking_uri, "MLFLOW_TRACKING_URI")):
        if has_secret(url):
            console.err.print(f"# {shown(url)} has a password, so it is not part of the YAML: set {name}", markup=False)
    datasets: dict[str, Dataset] = {}
    total = 0.0
    for task in plan.tasks:
        engine = prepare(plan, task, datasets, lambda text: console.err.print(f"# {text}", markup=False))
        screened, confirmed = plan.trials * plan.seeds, (1 + FINALISTS) * (plan.confirm_seeds or most_confirm_seeds(plan))
        seconds = (screened + confirmed + 2 * SEEDS) * task.recipe.epochs * engine.way.seconds
        total += seconds
        print(
            f"# {task.name}: {2 * SEEDS} members for the pilot, {screened} in {plan.trials} trials, about {confirmed} or fewer to confirm; "
            f"{task.recipe.epochs} epochs each, "
            f"{engine.way} on {engine.device}; about {duration(seconds)}, measured on this machine"
        )
    print(f"# in all about {duration(total)}, start-up not counted")
    return DONE


def run(
    plan: Plan, console: Console, port: int | None = None, *, pilot_only: bool = False, reopen: bool = False
) -> list[Recommendation | Pilot]:
    """Sweep every task of a plan, or only its pilot. A task at which ε = 0 diverges has no result. With a `port`, metrics are served there.

    Everything that can be wrong with the input is found here, before the first training: devices, stores, data, shapes.
    """
    pick_device(plan.device)
    torch.set_num_threads(1)  # each core has a lane while members are trained, and the scribe beside what comes between
    try:
        reach(plan.tracking_uri)
    except TrackingAway as error:
        console.say(f"{error} The sweep goes on; what MLflow is to know is kept in {plan.state_dir}/outbox.", "red", event="mlflow_away")
    except TrackingUnavailable as error:
        raise WrongInput(str(error)) from error
    storage = open_storage(plan.storage)
    storage.say = console.warn
    meter = Meter()
    metrics = None if port is None else meter.serve(port=port)
    datasets: dict[str, Dataset] = {}
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported
    try:
        with Recorder(plan.tracking_uri, Path(plan.state_dir, "outbox")) as recorder:
            engines = [prepare(plan, task, datasets, console.say) for task in plan.tasks]
            found, refused = [], []
            for engine in engines:
                try:
                    found.append(sweep_task(plan, engine, storage, recorder, console, meter, metrics, pilot_only=pilot_only, reopen=reopen))
                except TestOpened as error:  # the other tasks need not wait
                    refused.append(error)
    finally:
        meter.close()
        storage.engine.dispose()
    if refused:
        raise WrongInput("\n".join(str(error) for error in refused))
    return [one for one in found if one is not None]
