"""The engine: trains a population of members on data that lie on the device. The loop reads from top to bottom."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lscal import DISTRIBUTIONS, METRICS, Predictions
from sweeps.architectures import ARCHITECTURES
from sweeps.datasets import Dataset, SplitName
from sweeps.errors import WrongInput
from sweeps.plan import Task
from sweeps.population import FusedPopulation, LoopedPopulation, Member, Population, learning_rate_at

CURVES = ("accuracy", "nll", "ece")
FUSED_MEMBERS = 32
SECOND_CORE = 1.3
"""All cores have to be this much faster than one to be taken."""
WARM_STEPS, TIMED_STEPS = 1, 3

Progress = Callable[[int], None]
"""Told after each epoch how many member-epochs were trained."""


@dataclass(frozen=True)
class Trained:
    """A population at the end of its training.

    Attributes:
        population: the members, trained.
        curves: by name, one value per epoch and member: `train_loss` (smoothed) and `select_…` metrics.
        finite: False for members whose loss or logits became NaN or infinite.
        seconds: wall time of the training.
    """

    population: Population
    curves: dict[str, Float[Tensor, "epoch member"]]
    finite: tuple[bool, ...]
    seconds: float


@dataclass(frozen=True)
class Engine:
    """How populations of one task are trained on one device: chosen once by `choose`, by measuring.

    Attributes:
        fused: whether all members share one pass (`FusedPopulation`) or take turns (`LoopedPopulation`).
        threads: how many CPU cores torch uses. For small members the others serve better elsewhere: the scribe has its process.
        size: how many members to train at a time.
        seconds: measured time of one member for one epoch, at that size.
    """

    task: Task
    dataset: Dataset
    smoothing: str
    device: torch.device
    fused: bool
    threads: int
    size: int
    seconds: float

    def population(self, members: Sequence[Member]) -> Population:
        """Freshly initialised members."""
        return build_population(self.fused, members, self.task, self.dataset, self.smoothing, self.device)

    def train(self, members: Sequence[Member], progress: Progress) -> Trained:
        """Train members by the task's recipe, scoring each on *select* after every epoch."""
        started = time.perf_counter()
        torch.set_num_threads(self.threads)
        recipe, train, select = self.task.recipe, self.dataset.splits["train"], self.dataset.splits["select"]
        population = self.population(members)
        orders = [torch.Generator().manual_seed(seed) for seed in population.seeds]
        examples = len(train.labels)
        batch = min(recipe.batch_size, examples)
        steps = examples // batch
        seen = self.dataset.prepare(select.inputs)
        history = []
        for epoch in range(recipe.epochs):
            losses = torch.zeros(len(members), device=self.device)
            order = torch.stack([torch.randperm(examples, generator=generator) for generator in orders]).to(self.device)
            for step in range(steps):
                rows = order[:, step * batch : (step + 1) * batch]
                rate = learning_rate_at(epoch * steps + step, recipe.epochs * steps)
                losses += population.step(self.dataset.prepare(train.inputs[rows]), train.labels[rows], rate)
            history.append({"train_loss": losses / steps} | scores(population.logits(seen), select.labels))
            progress(len(members))
        curves = {name: torch.stack([point[name] for point in history]).cpu() for name in history[0]}
        finite = torch.stack([values.isfinite().all(0) for values in curves.values()]).all(0)
        return Trained(population, curves, tuple(finite.tolist()), time.perf_counter() - started)

    def logits(self, trained: Trained, split: SplitName) -> Float[Tensor, "member example class"]:
        """A trained population's logits of a split, on the CPU, float32."""
        return trained.population.logits(self.dataset.prepare(self.dataset.splits[split].inputs)).float().cpu()


def scores(logits: Float[Tensor, "member example class"], labels: Int[Tensor, " example"]) -> dict[str, Float[Tensor, " member"]]:
    """The metrics named in `CURVES` of each member, NaN for members whose logits are not finite."""
    finite = logits.isfinite().all(-1).all(-1)
    predictions = Predictions.from_logits(torch.where(finite[:, None, None], logits, 0.0), labels)
    values = {f"select_{name}": METRICS[name].function(predictions) for name in CURVES}
    return {name: torch.where(finite, value, torch.nan).float() for name, value in values.items()}


def build_population(
    fused: bool, members: Sequence[Member], task: Task, dataset: Dataset, smoothing: str, device: torch.device
) -> Population:
    """A population of a task's architecture, whose noise distribution is estimated from *train*."""
    build = partial(ARCHITECTURES[task.architecture].build, dataset.shape, len(dataset.classes))
    noise = DISTRIBUTIONS[smoothing](dataset.splits["train"].labels, len(dataset.classes))
    kind = FusedPopulation if fused else LoopedPopulation
    return kind(members, build, noise, device)


def choose(task: Task, dataset: Dataset, smoothing: str, device: torch.device, seeds: int) -> Engine:
    """Measure a few steps of a fused and of a looped population at the real shapes, on one core and on all; take the fastest.

    A fused population gains by size, so it holds up to 32 members; a looped one does not, so it holds one trial's
    seeds: its results come in sooner. The data are put on the device here.
    Errors: WrongInput where the architecture cannot take the data set's inputs.
    """
    on_device = dataset.to(device)
    sizes = {True: seeds * max(1, FUSED_MEMBERS // seeds), False: seeds}
    cores = torch.get_num_threads()
    timings: dict[tuple[bool, int], float] = {}
    for threads in sorted({1, cores}):
        torch.set_num_threads(threads)
        for fused, size in sizes.items():
            timings[fused, threads] = time_epoch(fused, size, task, on_device, smoothing, device)
    torch.set_num_threads(cores)
    (fused, threads), seconds = min(timings.items(), key=lambda item: item[1] * (1 if item[0][1] == 1 else SECOND_CORE))
    return Engine(task, on_device, smoothing, device, fused, threads, sizes[fused], seconds)


def time_epoch(fused: bool, size: int, task: Task, dataset: Dataset, smoothing: str, device: torch.device) -> float:
    """Seconds for one epoch of one member in a population of `size`, from a few steps, the scoring included."""
    timed = size if fused else 1
    members = [Member(0.1, seed, task.recipe.learning_rate, task.recipe.weight_decay) for seed in range(timed)]
    try:
        population = build_population(fused, members, task, dataset, smoothing, device)
        train = dataset.splits["train"]
        batch = min(task.recipe.batch_size, len(train.labels))
        rows = torch.arange(batch, device=device).expand(timed, batch)
        inputs, labels = dataset.prepare(train.inputs[rows]), train.labels[rows]
        for _ in range(WARM_STEPS):
            population.step(inputs, labels, 0.0)
        started = clock(device)
        for _ in range(TIMED_STEPS):
            population.step(inputs, labels, 0.0)
        step = (clock(device) - started) / TIMED_STEPS
    except (RuntimeError, ValueError) as error:
        raise WrongInput(
            f"{task.architecture} cannot be trained on {dataset.name}, whose inputs have shape {dataset.shape}: {error}"
        ) from error
    started = clock(device)
    held_out = dataset.splits["select"].inputs[:batch]
    population.logits(dataset.prepare(held_out))
    scoring = (clock(device) - started) * len(dataset.splits["select"].labels) / len(held_out)
    return (step * (len(train.labels) // batch) + scoring) / timed


def clock(device: torch.device) -> float:
    """Seconds, after everything queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU, or the CPU where there is none. Errors: WrongInput for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise WrongInput(f"no device named {name!r}; allowed are auto, cpu, cuda and cuda:N.") from error
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise WrongInput(f"the device {name!r} is not there: torch sees {torch.cuda.device_count()} GPUs. Use --device cpu.")
    if device.type not in ("cpu", "cuda"):
        raise WrongInput(f"the device {name!r} is not supported; allowed are auto, cpu, cuda and cuda:N.")
    return device
