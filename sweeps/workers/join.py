"""Joining: a worker takes part in sweeps under way, trains their queued trials, and leaves when they close.
See `sweeps.worker`.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
import torch

from sweeps.data.dataset import Dataset
from sweeps.data.load import load
from sweeps.devices import pick_device
from sweeps.engines import engine_for
from sweeps.errors import WrongInput
from sweeps.recording.provenance import facts
from sweeps.recording.recorder import Recorder, SweepRecorder
from sweeps.settings import site_of
from sweeps.site import Site
from sweeps.studies.opening import CLOSED, busy_stages, join_study, open_sweeps
from sweeps.studies.progress import BASE
from sweeps.studies.retrying_storage import RetryingStorage, wait_for_storage
from sweeps.studies.study import Study
from sweeps.terminal import Console
from sweeps.workers.metrics import Metrics
from sweeps.workers.worker import PAUSE_SECONDS, Worker


def serve(name: str | None, own: Mapping[str, Any], console: Console, host: str, port: int | None) -> None:
    """Train for the sweep `name` until it is closed; without a name, for every open one, for ever.

    Errors: WrongInput, with a name also where the data on this machine are not the sweep's.
    """
    if name is not None and not BASE.fullmatch(name):
        raise WrongInput(
            f"--study is {name!r}; wanted dataset/architecture@ and eight hexadecimal digits, as sweeps.run"
            " prints it."
        )
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings of an outage are pages long
    console.adopt()
    pick_device(own.get("device", Site.device))
    torch.set_num_threads(1)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported
    site = site_of(own)
    storage = wait_for_storage(site.storage, console.warn)
    storage.say = console.warn
    metrics = Metrics()
    address = None if port is None else metrics.serve(host, port)
    if address:
        console.say(f"metrics at {address}", event="metrics", address=address)
    refused: set[str] = set()
    try:
        with Recorder(site.tracking_uri, site.outbox) as recorder:
            while True:
                wanted = (
                    [name]
                    if name is not None
                    else [one for one in open_sweeps(storage) if one not in refused]
                )
                for one in wanted:
                    try:
                        join(
                            one,
                            own,
                            site,
                            storage,
                            recorder,
                            console,
                            metrics,
                            address,
                            stay=name is not None,
                        )
                    except WrongInput as error:
                        if name is not None:
                            raise
                        console.error(f"{one} is left to others: {error}", study=one)
                        refused.add(one)
                if name is not None:
                    return
                time.sleep(PAUSE_SECONDS)
    finally:
        metrics.close()
        storage.engine.dispose()


def join(
    name: str,
    own: Mapping[str, Any],
    site: Site,
    storage: RetryingStorage,
    recorder: Recorder,
    console: Console,
    metrics: Metrics,
    address: str | None,
    stay: bool,
) -> None:
    """Train the queued trials of one sweep until it is closed; without `stay`, until it has nothing to do
    while others are open.

    Errors: WrongInput where there is no such sweep, or its data are not those of this machine.
    """
    screening = join_study(storage, name, own)
    plan, task = screening.plan, screening.task
    if screening.noted(CLOSED):
        console.say(f"{name} is closed", event="closed", study=name)
        return
    if not stay and not any(stage.waiting() or stage.missing() for stage in busy_stages(screening)):
        return
    storage.use_grace(plan.grace)
    dataset = load(task.dataset, site.data_dir, plan.train_examples, task.loader)
    if screening.expected(dataset.digest) != name:
        raise WrongInput(other_sweep(screening, dataset))
    engine = engine_for(plan, task, dataset, site.device, say=console.say)
    console.say(
        f"joined {name}: {engine.execution} on {engine.device}", event="joined", study=name, task=task.name
    )
    records = SweepRecorder(recorder, dataset, name, task.name, facts(plan, site, engine), console.warn)

    def say(text: str) -> None:
        console.say(f"{name}: {text}", event="worker", study=name, task=task.name)

    with (
        sent(records),
        Worker(screening, engine, records.finish, site.checkpoints, say, metrics, address) as worker,
    ):
        while True:
            busy = False
            for study in busy_stages(screening):
                before = study.name
                while worker.batch(study, lambda _: None):
                    busy = True
                    console.say(
                        f"{before}: {len(study.outcomes())} trials are finished", event="trials", study=before
                    )
            if busy:
                continue
            if screening.noted(CLOSED):
                console.say(f"{name} is closed", event="closed", study=name)
                return
            if not stay and open_sweeps(storage) != [name]:
                return
            time.sleep(PAUSE_SECONDS)


def other_sweep(screening: Study, dataset: Dataset) -> str:
    """Reason why this machine's code, weights or data are not the sweep's, and the remedy."""
    name, task, unlike = screening.name, screening.task, screening.unlike(dataset.digest)
    if "code" in unlike:
        theirs, own = unlike["code"]
        return (
            f"the code of {task.architecture} on this machine is not that of the sweep {name}: its digest is"
            f" {own}, that of the sweep {theirs}. Give --architecture with the same file as on the machine"
            " where it was started."
        )
    if "start_from" in unlike:
        theirs, own = (f"the weights {value}" if value else "fresh weights" for value in unlike["start_from"])
        return (
            f"the members of {name} begin with {theirs}, those of this worker with {own} (digits of the"
            " file's SHA-256): see --start-from."
        )
    return (
        f"the data of {task.dataset} on this machine are not those of the sweep {name}: their digest is"
        f" {dataset.digest}, that of the sweep's plan {screening.digest()}. Compare the files with those of"
        " the machine where it was started, or give another --data-dir."
    )


@contextmanager
def sent(records: SweepRecorder) -> Iterator[None]:
    """On exit, waits until the records are sent, or prints where they are."""
    try:
        yield
    finally:
        records.drain()
        if sentence := records.unsent().sentence:
            records.say(sentence)
