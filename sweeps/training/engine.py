"""The engine: trains a population of members on data that lie on the device. The loop reads from top to
bottom.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lscal import METRICS, Predictions, Temperature
from sweeps.data.dataset import IGNORED, Dataset, SplitName
from sweeps.task import Task
from sweeps.training.batches import Batches
from sweeps.training.checkpoint import Checkpoint
from sweeps.training.execution import Execution
from sweeps.training.member import Member
from sweeps.training.population import EVALUATION_CHUNK, Population, learning_rate_at
from sweeps.training.smoothing_kinds import SmoothingNoise
from sweeps.training.trial_checkpoints import TrialCheckpoints

CURVES = ("accuracy", "nll", "ece")
"""Scored on *select* after every epoch."""
CALIBRATED = "select_nll_calibrated"
"""The curve of the NLL after temperature: known after every epoch where there are rungs, otherwise at the end
alone, NaN elsewhere.
"""

Progress = Callable[[int], None]
"""Told after each epoch how many member-epochs were trained."""
Curves = dict[str, Float[Tensor, "epoch member"]]
Rung = Callable[[Curves], Sequence[bool]]
"""Which members go on, given all curves so far; members that were dropped earlier are marked by their
last values, NaN.
"""


@dataclass(frozen=True)
class Shard:
    """Members that one core trains, or all of a GPU's. `rows` are their places among all members."""

    population: Population
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Trained:
    """Members at the end of their training.

    Attributes:
        shards: the members that reached the end.
        curves: by name, one value per epoch and member, NaN after a member was dropped: `train_loss`
            (smoothed) and `select_…` metrics.
        finite: False for members whose loss or logits became NaN or infinite while they were trained.
        epochs: how many epochs each member was trained.
        seconds: wall time of the training.
    """

    shards: tuple[Shard, ...]
    curves: Curves
    finite: tuple[bool, ...]
    epochs: tuple[int, ...]
    seconds: float

    @staticmethod
    def joined(parts: Sequence["Trained"]) -> "Trained":
        """Members that were trained one part after another, to the end, as if together."""
        starts = [sum(len(part.epochs) for part in parts[:index]) for index in range(len(parts))]
        shards = (
            Shard(shard.population, tuple(start + row for row in shard.rows))
            for start, part in zip(starts, parts, strict=True)
            for shard in part.shards
        )
        return Trained(
            tuple(shards),
            {name: torch.cat([part.curves[name] for part in parts], 1) for name in parts[0].curves},
            tuple(finite for part in parts for finite in part.finite),
            tuple(epochs for part in parts for epochs in part.epochs),
            sum(part.seconds for part in parts),
        )


@dataclass
class TrainingState:
    """Members under training: where they are, and what was measured so far.

    Attributes:
        shards: the members that are still trained.
        epochs: how many epochs each member was trained, those that were dropped included.
        history: what was measured after each epoch, a value per member.
    """

    shards: list[Shard]
    epochs: Int[Tensor, " member"]
    history: list[dict[str, Float[Tensor, " member"]]] = field(default_factory=list)

    def curves(self) -> Curves:
        """Everything measured so far."""
        return {name: torch.stack([point[name] for point in self.history]) for name in self.history[0]}

    def note(self, measured: Sequence[dict[str, Tensor]]) -> None:
        """Append what the shards measured after an epoch."""
        self.history.append(spread(measured, self.shards, len(self.epochs)))
        for shard in self.shards:
            self.epochs[list(shard.rows)] += 1

    def keep(self, alive: Sequence[bool]) -> None:
        """Drop the others: their shards are compacted."""
        if len(alive) != len(self.epochs):
            raise ValueError(f"a rung returned {len(alive)} verdicts; members are {len(self.epochs)}")
        shards = []
        for shard in self.shards:
            stay = [index for index, row in enumerate(shard.rows) if alive[row]]
            if len(stay) == len(shard.rows):
                shards.append(shard)
            elif stay:
                shards.append(Shard(shard.population.kept(stay), tuple(shard.rows[index] for index in stay)))
        self.shards = shards


@dataclass(frozen=True)
class Engine:
    """How populations of one task are trained on one device.

    Attributes:
        feed: the batches.
        way: chosen by `sweeps.training.autotune.choose`, by measuring.
        noises: what the smoothings that members may name come to.
    """

    task: Task
    dataset: Dataset
    batches: Batches
    noises: Mapping[str, SmoothingNoise]
    device: torch.device
    execution: Execution

    def train(
        self,
        members: Sequence[Member],
        progress: Progress,
        rungs: dict[int, Rung] | None = None,
        checkpoints: TrialCheckpoints | None = None,
    ) -> Trained:
        """Train members by the task's recipe, scoring each on *select* after every epoch.

        At a rung, which is a number of finished epochs, the members that its rule does not keep are dropped.
        After each epoch a checkpoint is offered to `checkpoints`; what it holds already, the training goes on
        from, to the same bits.
        """
        started = time.perf_counter()
        if not members:
            raise ValueError("there are no members to train")
        rungs = rungs or {}
        training = self.begin(members)
        if (
            checkpoints is not None
            and (saved := checkpoints.read(training.shards[0].population.state().keys())) is not None
        ):
            self.resume(training, members, saved)
            progress(int(training.epochs.sum()))
        stop = threading.Event()
        with ThreadPoolExecutor(max(1, len(training.shards)), "shard", torch.set_num_threads, (1,)) as pool:
            try:
                for epoch in range(len(training.history), self.task.recipe.epochs):
                    one = partial(
                        self.train_epoch,
                        epoch=epoch,
                        decisive=bool(rungs) or epoch + 1 == self.task.recipe.epochs,
                        stop=stop,
                    )
                    training.note(list(pool.map(one, training.shards)))
                    progress(sum(len(shard.rows) for shard in training.shards))
                    if rule := rungs.get(epoch + 1):
                        training.keep(rule(training.curves()))
                        if not training.shards:
                            break
                    if checkpoints is not None and epoch + 1 < self.task.recipe.epochs:
                        checkpoints.offer(partial(self.checkpoint, training, members))
            finally:
                stop.set()
        return finished(training, time.perf_counter() - started)

    def train_epoch(
        self, shard: Shard, epoch: int, decisive: bool, stop: threading.Event
    ) -> dict[str, Float[Tensor, " member"]]:
        """One pass over *train*, then the scores on *select*; where it is decisive, those after a temperature
        from *calibrate* too.
        """
        population, batches = shard.population, self.batches
        losses, steps = (
            torch.zeros(len(shard.rows), device=self.device),
            self.task.recipe.epochs * batches.steps,
        )
        population.begin(epoch)
        try:
            for step, (inputs, labels, rows) in enumerate(
                batches.epoch(population.seeds, epoch), epoch * batches.steps
            ):
                losses += population.step(inputs, labels, learning_rate_at(step, steps), step / steps, rows)
                if stop.is_set():
                    break
        except BaseException:
            stop.set()  # the other shards need not finish an epoch that comes to nothing
            raise
        logits = self.evaluate(population, "select")
        measured = {"train_loss": losses / batches.steps} | scores(logits, batches.targets("select"))
        measured[CALIBRATED] = torch.full_like(losses, torch.nan)
        if decisive:
            held_out = self.evaluate(population, "calibrate")
            measured[CALIBRATED] = calibrated_nll(
                logits, batches.targets("select"), held_out, batches.targets("calibrate")
            )
        return {name: values.cpu() for name, values in measured.items()}

    def evaluate(self, population: Population, split: SplitName) -> Float[Tensor, "member prediction class"]:
        """A population's logits of a split, on the device; of sequences, those of the labelled positions."""
        parts = []
        for inputs, labels in self.batches.chunks(split, EVALUATION_CHUNK[self.device.type]):
            logits = population.logits(inputs)
            parts.append(logits if labels.ndim == 1 else logits[:, labels != IGNORED])
        return torch.cat(parts, dim=1)

    def logits(self, trained: Trained, split: SplitName) -> Float[Tensor, "member example class"]:
        """Trained members' logits of a split, on the CPU, float32; NaN for members that were dropped."""
        with ThreadPoolExecutor(max(1, len(trained.shards)), "shard", torch.set_num_threads, (1,)) as pool:
            found = list(
                pool.map(
                    lambda shard: {"logits": self.evaluate(shard.population, split).float().cpu()},
                    trained.shards,
                )
            )
        return spread(found, trained.shards, len(trained.epochs))["logits"]

    def begin(self, members: Sequence[Member]) -> TrainingState:
        """Fresh members, divided over the cores: seeds together, as they share their batches."""
        by_seed = sorted(range(len(members)), key=lambda row: members[row].seed)
        cuts = [len(members) * shard // self.execution.shards for shard in range(self.execution.shards + 1)]
        parts = [tuple(sorted(by_seed[low:high])) for low, high in pairwise(cuts) if low < high]
        return TrainingState(
            [Shard(self.population([members[row] for row in rows]), rows) for rows in parts],
            torch.zeros(len(members), dtype=torch.int64),
        )

    def population(self, members: Sequence[Member]) -> Population:
        """Freshly initialised members."""
        return self.execution.population(members, self.task, self.dataset, self.noises, self.device)

    def checkpoint(self, training: TrainingState, members: Sequence[Member]) -> Checkpoint:
        """All that a training needs to go on."""
        states = [shard.population.state() for shard in training.shards]
        rows = [row for shard in training.shards for row in shard.rows]
        state = {name: torch.cat([one[name] for one in states]) for name in states[0]}
        return Checkpoint(self.identity(members), tuple(rows), state, training.curves(), training.epochs)

    def resume(self, training: TrainingState, members: Sequence[Member], saved: Checkpoint) -> None:
        """Take over what a checkpoint holds, whichever way and over however many cores its members were
        trained.
        """
        saved.check(self.identity(members), training.shards[0].population.state().keys())
        training.keep([row in saved.rows for row in range(len(members))])
        for shard in training.shards:
            places = [saved.rows.index(row) for row in shard.rows]
            shard.population.load({name: value[places] for name, value in saved.state.items()})
        training.epochs = saved.epochs
        training.history = [
            {name: values[epoch] for name, values in saved.curves.items()}
            for epoch in range(int(saved.epochs.max()))
        ]

    def identity(self, members: Sequence[Member]) -> str:
        """What a checkpoint has to agree in with the training that goes on from it."""
        tables = {name: str(noise) for name, noise in self.noises.items()}
        return f"{self.task} on {self.dataset.digest}, noise {tables}: {list(members)}"


def finished(training: TrainingState, seconds: float) -> Trained:
    """The members at the end of their training."""
    curves = training.curves()
    wrong = ~torch.stack([values for name, values in curves.items() if name != CALIBRATED]).isfinite().all(0)
    while_trained = torch.arange(len(wrong))[:, None] < training.epochs
    finite = ~(wrong & while_trained).any(0)
    return Trained(
        tuple(training.shards), curves, tuple(finite.tolist()), tuple(training.epochs.tolist()), seconds
    )


def scores(
    logits: Float[Tensor, "member example class"], labels: Int[Tensor, " example"]
) -> dict[str, Float[Tensor, " member"]]:
    """The metrics named in `CURVES` of each member, NaN for members whose logits are not finite."""
    finite = finite_members(logits)
    predictions = Predictions.from_logits(torch.where(finite[:, None, None], logits, 0.0), labels)
    values = {f"select_{name}": METRICS[name].function(predictions) for name in CURVES}
    return {name: torch.where(finite, value, torch.nan).float() for name, value in values.items()}


def calibrated_nll(
    logits: Float[Tensor, "member example class"],
    labels: Int[Tensor, " example"],
    held_out: Float[Tensor, "member row class"],
    held_out_labels: Int[Tensor, " row"],
) -> Float[Tensor, " member"]:
    """The NLL of each member after a temperature fitted on held-out examples, NaN for members whose logits
    are not finite.
    """
    finite = finite_members(logits) & finite_members(held_out)
    temperature = Temperature.fit(torch.where(finite[:, None, None], held_out, 0.0), held_out_labels)
    predictions = Predictions.from_logits(torch.where(finite[:, None, None], logits, 0.0), labels)
    return torch.where(
        finite, METRICS["nll"].function(predictions.calibrated(temperature)), torch.nan
    ).float()


def finite_members(logits: Float[Tensor, "member example class"]) -> Bool[Tensor, " member"]:
    """Members all of whose logits are finite."""
    return logits.isfinite().all(-1).all(-1)


def spread(
    values: Sequence[dict[str, Tensor]], shards: Sequence[Shard], members: int
) -> dict[str, Float[Tensor, "member ..."]]:
    """The shards' values as one tensor over all members, NaN for those in no shard."""
    whole = {}
    for name, first in values[0].items():
        whole[name] = torch.full((members, *first.shape[1:]), torch.nan)
        for shard, own in zip(shards, values, strict=True):
            whole[name][list(shard.rows)] = own[name]
    return whole
