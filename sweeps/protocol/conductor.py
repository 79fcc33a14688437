"""Conductor: has the trials of a study trained, by this process or by workers that it places."""

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from tenacity import Retrying, retry_if_result, wait_fixed
from torch import Tensor

from sweeps.external_flags import words
from sweeps.recording.recorder import SweepRecorder
from sweeps.scoring import SENTENCES, Logits, Part, parts_of, splits_of
from sweeps.site import Site
from sweeps.studies.study import Study
from sweeps.terminal import Console
from sweeps.training.engine import Progress
from sweeps.workers.launch import kind_of, launcher
from sweeps.workers.launcher import Launcher
from sweeps.workers.processes import places
from sweeps.workers.worker import PAUSE_SECONDS, WORKERS, Worker, member_of, sentences
from tracking.records.outcome import Outcome
from tracking.records.point import key_of

FETCH_SECONDS = 10.0
"""Longest wait for the record of another worker's trial."""
LEAVE_SECONDS = 5.0
"""Time in which workers notice that a sweep is closed."""


@dataclass(frozen=True)
class Conductor:
    """Has trials trained by `trainers`: this process's worker, or those that a launcher places."""

    worker: Worker
    trainers: Worker | Launcher
    records: SweepRecorder
    console: Console

    def harvest(self, study: Study, what: str) -> dict[str, tuple[Outcome, Logits]]:
        """Have queued trials trained. Returns each finished trial with its logits, by its point's key.

        Records of other workers are waited for; where logits are gone, the members are trained again.
        """
        self.train(study, what)
        deadline = time.monotonic() + FETCH_SECONDS
        found: dict[str, tuple[Outcome, Logits]] = {}
        for outcome in study.outcomes():
            logits = awaited(partial(self.records.fetch, outcome), deadline)
            found[key_of(outcome.point)] = outcome, logits or self.train_again(study, outcome)
        return found

    def train_again(self, study: Study, outcome: Outcome) -> Logits:
        """Logits of a finished trial whose file is gone."""
        worker, engine, seeds = self.worker, self.worker.engine, study.seeds
        worker.say(f"the logits of ε = {outcome.epsilon:g} are missing; its members are trained again")
        smoothing = study.plan.bases[0]
        members = [member_of(study.task, smoothing, outcome.point, seed) for seed in seeds]
        trained = worker.train_in_parts(members, lambda _: None)
        logits: dict[Part, Tensor] = {
            split: engine.logits(trained, split) for split in splits_of(study.stage)
        }
        if SENTENCES in parts_of(study.stage, engine.dataset):
            logits[SENTENCES] = sentences(engine, trained, range(len(members)))
        return logits

    def train(self, study: Study, what: str) -> None:
        """Have queued trials trained, with a progress bar."""
        todo = study.pending() * len(study.seeds) * study.task.recipe.epochs
        with self.console.progress(f"{what} {study.task.name}", todo) as advance:
            if isinstance(self.trainers, Worker):
                self.trainers.work(study, advance)
            else:
                self.wait(study, self.trainers, advance)

    def wait(self, study: Study, trainers: Launcher, advance: Progress) -> None:
        """Keep the workers running until a study is finished. Errors: NoWorkers where none is left."""
        left, members = study.pending(), len(study.seeds) * study.task.recipe.epochs
        while left:
            trainers.watch()
            study.reap()
            self.worker.registry.clear_gone(study.plan.grace)
            now = study.pending()
            if now < left:
                advance((left - now) * members)
            left = now
            time.sleep(PAUSE_SECONDS)

    def dismiss(self) -> None:
        """Wait until the placed workers have left."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while isinstance(self.trainers, Launcher) and self.trainers.working() and time.monotonic() < deadline:
            self.trainers.watch()
            time.sleep(PAUSE_SECONDS / 4)


def trainers_of(site: Site, worker: Worker, console: Console) -> Worker | Launcher:
    """The worker of this process, where one is enough; or a launcher."""
    study, kind = worker.screening, kind_of(site)
    study.note(WORKERS, len(places(site.workers, site.device)) if kind == "processes" else 0)
    if kind == "inline":
        return worker
    if kind == "elsewhere":
        bring = shlex.join(["", *words(site.datasets, site.architectures, study.task.name)]).removeprefix(
            "''"
        )
        console.say(
            f"  Waiting for workers: python -m sweeps.worker --study {study.name}{bring}",
            event="waiting",
            study=study.name,
        )
    return launcher(site, study.name, console.warn, "json" if console.json else "text")


T = TypeVar("T")


def awaited(fetch: Callable[[], T | None], deadline: float | None = None) -> T | None:
    """The result of `fetch`, retried while it is None; None after the deadline."""
    end = time.monotonic() + FETCH_SECONDS if deadline is None else deadline
    attempts = Retrying(
        retry=retry_if_result(lambda found: found is None),
        wait=wait_fixed(PAUSE_SECONDS),
        stop=lambda _: time.monotonic() >= end,
        retry_error_callback=lambda _: None,
    )
    return attempts(fetch)
