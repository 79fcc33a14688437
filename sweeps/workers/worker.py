"""Worker: one device. It asks a batch of trials, trains their members as one population, scores and records
them.

Outcomes are handed to the recorder before the study. `python -m sweeps.worker` joins a sweep from any
machine, see `join`.
"""

import math
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from jaxtyping import Float
from optuna.exceptions import OptunaError
from sqlalchemy.exc import SQLAlchemyError
from torch import Tensor

from sweeps.early_stopping.pruner import Pruner, packed
from sweeps.engines import engine_for
from sweeps.errors import Failed, WrongInput
from sweeps.scoring import SENTENCES, Logits, Part, parts_of, score, splits_of, unscored
from sweeps.studies.heartbeat import heartbeat, uninterrupted
from sweeps.studies.study import Study, Trial
from sweeps.studies.worker_registry import WorkerRegistry
from sweeps.task import PinnedExecution, Task
from sweeps.training.allocator import give_freed_memory_back
from sweeps.training.beam_search import statistics_of
from sweeps.training.engine import Engine, Progress, Trained
from sweeps.training.execution import network
from sweeps.training.export import network_of, pack, weights_of
from sweeps.training.member import Member
from sweeps.training.trial_checkpoints import TrialCheckpoints, epochs_done, place
from sweeps.workers.metrics import Metrics
from tracking.records.outcome import Outcome
from tracking.records.point import Point, brief

PAUSE_SECONDS = 1.0
"""Between two reads of a study in which there is nothing to do."""
EXECUTION, WORKERS = "way", "workers"
Files = Mapping[str, bytes]
"""Artifacts by path."""
Finish = Callable[[Outcome, Logits, Files], None]
"""Receives a finished trial, its logits and further files."""
Say = Callable[[str], None]


class TakenOver(Exception):
    """All trials of a batch belong to other workers by now."""


class TooLarge(Failed):
    """A single member does not fit into the device's memory."""


class Worker:
    """One device at work.

    As a context, it is registered with the sweep and beats.

    Attributes:
        engine: trains in the execution that the sweep's first worker chose, so that all members are
            comparable to the last bit.
        finish: receives finished trials, before the study does.
        folder: of checkpoints.
        most: number of members known to fit into memory.
    """

    def __init__(
        self,
        screening: Study,
        engine: Engine,
        finish: Finish,
        folder: Path,
        say: Say,
        metrics: Metrics,
        metrics_address: str | None = None,
    ):
        self.screening, self.engine = screening, agreed(screening, engine)
        self.finish, self.folder, self.say, self.metrics = finish, folder, say, metrics
        self.most = self.engine.execution.members
        self.pruners: dict[str, Pruner] = {}
        self.study = screening
        self.registry = WorkerRegistry(screening.storage, screening.name)
        self.about = {
            "host": socket.gethostname(),
            "pid": str(os.getpid()),
            "device": str(engine.device),
            "engine": str(self.engine.execution),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "metrics": metrics_address,
        }
        metrics.described({key: value for key, value in self.about.items() if value})

    def __enter__(self) -> "Worker":
        self.place = self.registry.enter(self.about)
        self.beating = heartbeat(self.screening.storage, self.screening.plan.grace, self.beat)
        self.beating.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.beating.__exit__(None, None, None)
        storage = self.screening.storage
        # if this fails, the entry is closed when its heartbeats are overdue
        with suppress(OptunaError, SQLAlchemyError), storage.without_retries():
            self.place.leave()

    def beat(self) -> None:
        """Heartbeat of the worker and its trials."""
        self.study.beat()
        self.place.beat()
        self.metrics.beaten()

    def share(self) -> int:
        """Number of workers to divide trials among: registered, or launched and expected."""
        present = sum(one.alive for one in self.registry.present(self.screening.plan.grace))
        return max(1, present, self.screening.noted(WORKERS) or 0)

    def work(self, study: Study, progress: Progress) -> None:
        """Train trials until the study has as many as its plan wants.

        Trials of other workers are waited for: they are finished there, or reassigned when that worker's
        heartbeats are overdue. On any interruption, unfinished trials are given back.
        """
        said = 0
        while True:
            if self.batch(study, progress):
                continue
            others = study.elsewhere()
            if not others and not study.waiting():
                return
            if others != said:
                self.say(f"waiting for {others} trials of other workers")
                said = others
            time.sleep(PAUSE_SECONDS)

    def batch(self, study: Study, progress: Progress) -> bool:
        """Ask and train one batch; False where there is nothing to do. On any interruption, unfinished trials
        are given back.
        """
        pruner = self.pruner(study)
        self.study = study
        try:
            with uninterrupted():
                fair = -(-study.pending() // self.share())
                trials = study.ask(max(1, min(fair, self.most // len(study.seeds))))
            if not trials:
                return False
            stage = study.name.removeprefix(self.screening.name).lstrip("/")
            self.place.hold([f"{stage}#{trial.number}".lstrip("#") for trial in trials])
            parts: dict[int, list[Trial]] = defaultdict(list)
            for trial in trials:  # a population is trained equally far
                parts[epochs_done(self.folder, study.uid(trial))].append(trial)
            for part in parts.values():
                self.train(study, part, pruner, progress)
        except TakenOver:
            self.say("missed the heartbeat deadline; trials were reassigned, discarding them here")
            study.held.clear()
            study.lost.clear()
        finally:
            for _ in range(study.release()):
                self.metrics.ended("returned")
        self.place.hold([])
        self.metrics.trials(study.task.name, study.states())
        return True

    def pruner(self, study: Study) -> Pruner:
        """The pruner of a study."""
        if study.name not in self.pruners:
            self.pruners[study.name] = pruner_of(study, self.engine, self.say)
        return self.pruners[study.name]

    def train(self, study: Study, trials: Sequence[Trial], pruner: Pruner, progress: Progress) -> None:
        """Train a batch of trials as one population, or as smaller ones where it does not fit into memory,
        and record each trial.
        """

        def watched(epochs: int) -> None:
            if study.taken_over():
                raise TakenOver
            self.metrics.advance(epochs)
            progress(epochs)

        seeds = study.seeds
        smoothing = study.plan.bases[0]
        members = {
            study.uid(trial): [member_of(study.task, smoothing, trial.point, seed) for seed in seeds]
            for trial in trials
        }
        checkpoints = TrialCheckpoints(self.folder, members, self.engine.identity, self.say)
        every = [member for own in members.values() for member in own]
        if len(trials) == 1 and len(every) > self.most:  # it did not fit before
            self.tell(study, trials, pruner, self.train_in_parts(every, watched), progress)
            return
        try:
            trained = self.engine.train(every, watched, pruner.rungs(trials, len(seeds)), checkpoints)
            self.tell(study, trials, pruner, trained, progress)
            return
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            shortage = str(error).strip().splitlines()[0]
        self.halve(len(trials) * len(seeds), shortage)
        left = [trial for trial in trials if trial.number in study.held]  # some may be recorded
        while left:
            part = left[: max(1, self.most // len(seeds))]
            self.train(study, part, pruner, progress)
            left = left[len(part) :]

    def train_in_parts(self, members: Sequence[Member], progress: Progress) -> Trained:
        """Train the members of one trial that do not fit into memory together, part by part."""
        whole: list[Trained] = []
        start = 0
        while start < len(members):
            try:
                whole.append(self.engine.train(members[start : start + self.most], progress))
                start += len(whole[-1].epochs)
                continue
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                shortage = str(error).strip().splitlines()[0]
            self.halve(min(self.most, len(members) - start), shortage)
        return Trained.joined(whole)

    def halve(self, members: int, shortage: str) -> None:
        """Train at most half as many members at a time from now on. Errors: TooLarge where that is none."""
        give_freed_memory_back()
        self.most = min(self.most, members // 2)
        if not self.most:
            raise TooLarge(
                f"one member of {self.engine.task.name} does not fit into the memory of {self.engine.device}:"
                f" {shortage}"
            )
        self.say(
            f"{members} members do not fit into the memory of {self.engine.device} ({shortage}); {self.most}"
            " at a time from now on"
        )

    def tell(
        self, study: Study, trials: Sequence[Trial], pruner: Pruner, trained: Trained, progress: Progress
    ) -> None:
        """Score each trial of a batch, and record it."""
        seeds = study.seeds
        self.metrics.trained(len(trained.epochs), trained.seconds)
        splits = splits_of(study.stage) if trained.shards else ()
        logits = {split: self.engine.logits(trained, split) for split in splits}
        for index, trial in enumerate(trials):
            rows = slice(index * len(seeds), (index + 1) * len(seeds))
            if not all(trained.finite[rows]):
                self.tell_diverged(study, trial)
            elif reason := pruner.reasons.get(trial.number):
                known = unscored(study, trial, seeds, self.engine.dataset, trained, rows)
                outcome = replace(known, dropped=reason)
                with uninterrupted():
                    self.finish(outcome, {}, {})
                    self.after_end(study, trial, "dropped", study.tell_dropped(trial, outcome))
                progress(sum(study.task.recipe.epochs - epochs for epochs in trained.epochs[rows]))
            else:
                own: dict[Part, Tensor] = {split: values[rows] for split, values in logits.items()}
                self.tell_finished(study, trial, pruner, trained, rows, own)

    def tell_diverged(self, study: Study, trial: Trial) -> None:
        """Record a trial whose loss became NaN or infinite."""
        why = f"the loss became NaN or infinite at {describe(trial.point)}"
        with uninterrupted():
            self.after_end(study, trial, "diverged", study.tell_diverged(trial, why))
        self.say(f"trial {trial.number} failed: {why}; the sweep goes on")

    def tell_finished(
        self,
        study: Study,
        trial: Trial,
        pruner: Pruner,
        trained: Trained,
        rows: slice,
        logits: dict[Part, Tensor],
    ) -> None:
        """Score and record a trial that was trained to its end."""
        dataset = self.engine.dataset
        if SENTENCES in parts_of(study.stage, dataset):
            logits[SENTENCES] = sentences(self.engine, trained, range(rows.start, rows.stop))
        outcome, losses = score(study, trial, study.seeds, dataset, logits, trained, rows)
        files = {}
        if study.stage == "confirm":
            files[weights_path(outcome)] = pack(weights_of(trained, rows.start))
        with uninterrupted():
            self.finish(outcome, logits, files)
            told = study.tell(trial, outcome, packed(losses) if pruner.active else "")
            self.after_end(study, trial, "finished", told)

    def after_end(self, study: Study, trial: Trial, state: str, mine: bool) -> None:
        """Remove a recorded trial's checkpoint, and count or print its end."""
        place(self.folder, study.uid(trial)).unlink(missing_ok=True)
        if mine:
            self.metrics.ended(state)
            return
        self.say(
            f"trial {trial.number} at {describe(trial.point)} was reassigned; its outcome here is discarded"
        )


def sentences(
    engine: Engine, trained: Trained, rows: Iterable[int]
) -> Float[Tensor, "seed sentence statistic"]:
    """Statistics of BLEU for some trained members, from their translations of *test*."""
    networks = (
        network_of(engine.task, engine.dataset, weights_of(trained, row)).to(engine.device) for row in rows
    )
    return torch.stack([statistics_of(network, engine.dataset) for network in networks])


def agreed(screening: Study, engine: Engine) -> Engine:
    """An engine that trains as the sweep's first worker on such a device did: fused and looped members agree
    to rounding only.

    Errors: WrongInput where the plan pins the other kind.
    """
    kept = screening.note_once(f"{EXECUTION}.{engine.device.type}", engine.execution.kind)
    if kept == engine.execution.kind:
        return engine
    plan = screening.plan
    if PinnedExecution.of(plan.execution).kind:
        raise WrongInput(
            f"{screening.name} was begun with {kept} members, and the plan has --execution {plan.execution}:"
            " they agree to rounding only. Leave --execution out, or give another --storage."
        )
    return engine_for(replace(plan, execution=kept), engine.task, engine.dataset, str(engine.device))


def pruner_of(study: Study, engine: Engine, say: Say) -> Pruner:
    """Pruner of a study whose trials an engine trains."""
    parameters = sum(one.numel() for one in network(engine.task, engine.dataset).parameters())
    return Pruner(study, len(engine.dataset.splits["train"].labels), parameters, say)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device's memory is used up. A thread does not start where there is no
    memory for its stack.
    """
    said = str(error)
    signs = ("DefaultCPUAllocator: ", "out of memory", "can't start new thread")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(sign in said for sign in signs)


def weights_path(outcome: Outcome) -> str:
    """Path of the weights of a confirmed trial's first seed among its artifacts."""
    return f"weights/{outcome.seeds[0]}.safetensors"


def member_of(task: Task, smoothing: str, point: Point, seed: int) -> Member:
    """Member at a point; parameters that are not tuned come from `smoothing` and the recipe."""
    recipe = task.recipe
    return Member(
        epsilon=point["epsilon"],
        seed=seed,
        learning_rate=point.get("learning_rate", recipe.learning_rate),
        weight_decay=point.get("weight_decay", recipe.weight_decay),
        smoothing=point.get("smoothing", smoothing),
        clip=math.inf if recipe.clip is None else recipe.clip,
        drop=point.get("drop", 1.0),
    )


def describe(point: Point) -> str:
    """A point of the search space in words."""
    return ", ".join(f"{name} = {brief(value, 6)}" for name, value in point.items())
