"""Runs, prices or lists the tasks of a plan: the heavy half of `python -m sweeps.run`."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import torch

from sweeps.data.builtin import DATASETS, YIELDS
from sweeps.data.dataset import Dataset
from sweeps.data.load import load
from sweeps.devices import pick_device
from sweeps.engines import engine_for
from sweeps.errors import Failed, WrongInput
from sweeps.external_flags import check_used
from sweeps.models.builtin import ARCHITECTURES
from sweeps.plan import Asked, Plan
from sweeps.preflight.network import refusal
from sweeps.protocol.finished import standing
from sweeps.protocol.pilot import SEEDS, expected, finalists, most_confirm_seeds
from sweeps.protocol.sweep import sweep_task
from sweeps.protocol.test_ledger import TestOpened
from sweeps.recording.recorder import Recorder
from sweeps.settings import merge, read_yaml, resolve, site_of
from sweeps.site import SECRETS, Site, has_secret, places, to_yaml
from sweeps.studies.retrying_storage import wait_for_storage
from sweeps.task import Task
from sweeps.terminal import Console, duration
from sweeps.training.beam_search import translating
from sweeps.training.engine import Engine
from sweeps.training.execution import network
from sweeps.workers.metrics import Metrics
from tracking.decision.policies import POLICIES
from tracking.exits import Exit
from tracking.mlflow.client import TrackingAway, TrackingUnavailable, reach, shown
from tracking.records.evidence import Pilot
from tracking.records.recommendation import Recommendation


def list_names(console: Console) -> int:
    """Print what there is."""
    for title, names in (("Data sets", DATASETS), ("Architectures", ARCHITECTURES), ("Policies", POLICIES)):
        console.say(f"{title}:", style="bold")
        for name in sorted(names):
            entry: Any = names[name]
            documented = getattr(entry, "build", None) or getattr(entry, "judge", None) or entry
            kind = (
                f"yields {YIELDS[name]}"
                if name in YIELDS
                else f"reads {entry.reads}"
                if name in ARCHITECTURES
                else ""
            )
            first = (documented.__doc__ or "").strip().splitlines()[0]
            console.paragraph(f"  {name:15} {first}{f' ({kind})' if kind else ''}")
    console.paragraph(
        "A task is dataset/architecture, where the network reads what the data set yields; '*/mlp' means all"
        " such tasks of mlp."
    )
    return Exit.DONE


def conduct(options: Mapping[str, Any], console: Console) -> int:
    """Do what was asked for, and return the exit code. Errors: WrongInput."""
    optuna.logging.set_verbosity(
        optuna.logging.ERROR
    )  # its warnings of a database that is away are pages long
    console.adopt()
    given = dict(options)
    config, dry, listing, as_json, tables = (
        given.pop(key, None) for key in ("config", "dry_run", "list", "json", "tables")
    )
    pilot_only, reopen, fresh, remeasure = (
        given.pop(key, False) for key in ("pilot_only", "reopen_test", "fresh", "remeasure")
    )
    port = given.pop("metrics_port", None)
    if listing:
        return list_names(console)
    values = merge(given, read_yaml(config) if config else {})
    plan, site = resolve(values), site_of(values)
    check_used(site.datasets, site.architectures, [task.name for task in plan.tasks])
    if dry:
        return dry_run(plan, site, console, remeasure=remeasure)
    if config:
        for line in places(Path(site.state_dir), site.tracking_uri, [task.name for task in plan.tasks]):
            console.notice(f"  {line}", event="place")
    asked = Asked(pilot_only=pilot_only, reopen=reopen, fresh=fresh, tables=bool(tables))
    try:
        found = run(plan, site, console, asked, port, remeasure=remeasure)
    except TrackingUnavailable as error:
        raise Failed(str(error)) from error
    if as_json:
        print("[" + ", ".join(one.to_json() for one in found) + "]")
    return Exit.DONE if found else Exit.FAILED


def read(
    plan: Plan, site: Site, task: Task, datasets: dict[str, Dataset], say: Callable[[str], None]
) -> None:
    """Read a task's data once, print what was guessed, and check that its network can be trained on them.
    Errors: WrongInput.
    """
    if task.dataset not in datasets:
        datasets[task.dataset] = load(task.dataset, site.data_dir, plan.train_examples, task.loader)
        for note in datasets[task.dataset].notes:
            say(f"{task.dataset}: {note}")
    if task.network is not None and (why := refusal(task, datasets[task.dataset])):
        raise WrongInput(f"{task.name}: {why.about}: {why.text}. See python -m sweeps.check.")
    if datasets[task.dataset].sequences:  # or else it would be found in the confirmation
        translating(network(task, datasets[task.dataset]), datasets[task.dataset])


def prepare(
    plan: Plan,
    site: Site,
    task: Task,
    datasets: dict[str, Dataset],
    say: Callable[[str], None],
    *,
    remeasure: bool = False,
) -> Engine:
    """A task's engine, on data that are read once."""
    read(plan, site, task, datasets, say)
    return engine_for(plan, task, datasets[task.dataset], site.device, say=say, remeasure=remeasure)


def dry_run(plan: Plan, site: Site, console: Console, *, remeasure: bool) -> int:
    """Print the plan as YAML, and what it would cost on this device."""
    print(to_yaml(plan, site), end="")
    sys.stdout.flush()
    for key, name in SECRETS.items():
        if has_secret(url := getattr(site, key)):
            console.err.print(
                f"# {shown(url)} has a password, so it is not part of the YAML: set {name}", markup=False
            )
    datasets: dict[str, Dataset] = {}
    total = 0.0
    for task in plan.tasks:
        engine = prepare(
            plan,
            site,
            task,
            datasets,
            lambda text: console.err.print(f"# {text}", markup=False),
            remeasure=remeasure,
        )
        screened, confirmed = (
            plan.trials * plan.seeds,
            (1 + finalists(plan)) * (plan.confirm_seeds or most_confirm_seeds(plan)),
        )
        seconds = (screened + confirmed + 2 * SEEDS) * task.recipe.epochs * engine.execution.seconds
        total += seconds
        print(
            f"# {task.name}: {2 * SEEDS} members for the pilot, {screened} in {plan.trials} trials, about"
            f" {confirmed} or fewer to confirm; {task.recipe.epochs} epochs each, {engine.execution} on"
            f" {engine.device}; about {duration(seconds)}, measured on this machine"
        )
        print(f"# {expected(plan, engine.dataset).sentence}")
    print(f"# in all about {duration(total)}, start-up not counted")
    return Exit.DONE


def run(
    plan: Plan,
    site: Site,
    console: Console,
    asked: Asked,
    port: int | None = None,
    *,
    remeasure: bool = False,
) -> list[Recommendation | Pilot]:
    """Sweep every task of a plan, or only its pilot. A task at which ε = 0 diverges has no result. With a
    `port`, metrics are served there.

    Everything that can be wrong with the input is found here, before the first training: devices, stores,
    data, shapes. What takes time is done task by task.
    """
    pick_device(site.device)
    torch.set_num_threads(
        1
    )  # each core has a shard while members are trained, and the uploader beside what comes between
    try:
        reach(site.tracking_uri)
    except TrackingAway as error:
        console.say(
            f"{error} The sweep goes on; what MLflow is to know is kept in {site.state_dir}/outbox.",
            "red",
            event="mlflow_away",
        )
    except TrackingUnavailable as error:
        raise WrongInput(str(error)) from error
    storage = wait_for_storage(site.storage, console.warn)
    storage.say = console.warn
    metrics = Metrics()
    address = None if port is None else metrics.serve(port=port)
    datasets: dict[str, Dataset] = {}
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported
    try:
        with console.phase(f"reading {', '.join(dict.fromkeys(task.dataset for task in plan.tasks))}"):
            for task in plan.tasks:
                read(plan, site, task, datasets, console.paragraph)
        with Recorder(site.tracking_uri, site.outbox) as recorder:
            found: list[Recommendation | Pilot | None] = []
            refused = []
            for task in plan.tasks:
                if known := standing(plan, site, task, datasets[task.dataset].digest, storage, asked):
                    console.answer(known.headline, known.lines)
                    found.append(known.recommendation)
                    continue
                engine = prepare(plan, site, task, datasets, console.say, remeasure=remeasure)
                try:
                    found.append(
                        sweep_task(plan, site, engine, storage, recorder, console, metrics, asked, address)
                    )
                except TestOpened as error:  # the other tasks need not wait
                    refused.append(error)
    finally:
        metrics.close()
        storage.engine.dispose()
    if refused:
        raise WrongInput("\n".join(str(error) for error in refused))
    return [one for one in found if one is not None]
