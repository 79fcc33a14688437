"""The engine against the loops one would otherwise write: the same members, epochs, batches and scores, in
turn, each in a process of its own.

    python -m benchmarks.engine [digits/mlp fashion_mnist/mlp fashion_mnist/cnn] [--rounds 3] [--device auto]
    [--growth]

What is compared, per member and epoch (start-up, reading of data and the choice of the way not counted; the
choice is shown):
    plain       an Optuna study whose objective trains one member with a DataLoader, torch.optim and a
    scheduler, all cores to torch processes   the same in one process per core (on a GPU: four), each with one
    thread, sharing out the members resident    the plain loop with the data on the device, indexed: no
    DataLoader auto        `sweeps.training.autotune.choose`, then one `Engine.train`; also with --execution
    fused and looped
Every loop scores accuracy, NLL and ECE of *select* after each epoch; the engine fits a temperature on
*calibrate* besides. Optuna is left out where it is not installed. FLOP are those of torch's counter for one
plain step, times members and steps.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from sweeps.data.dataset import Dataset
from sweeps.data.load import load
from sweeps.devices import cores, pick_device
from sweeps.models.builtin import ARCHITECTURES
from sweeps.settings import resolve
from sweeps.task import Task
from sweeps.training.augmentation import Augmentation
from sweeps.training.autotune import choose, clock
from sweeps.training.member import Member
from sweeps.training.population import learning_rate_at

DATA = os.environ.get("LSCAL_DATA") or str(Path(__file__).parents[2] / "shared" / "data")
VARIANTS = ("plain", "processes", "resident", "fused", "looped", "auto")
ENGINES = ("auto", "fused", "looped")
EPSILONS = (0.0, 0.2, 0.1, 0.3, 0.05, 0.25, 0.15, 0.35)


@dataclass(frozen=True)
class Work:
    """What is trained: few members where one takes long, as the plain loop costs the same for each.

    Attributes:
        members: of the engine; `baseline` of the loops.
        examples: of *train*, None for all.
        epochs: of each member.
        target: the ratio to the plain loop that the engine is built for, on a CPU and on a GPU.
    """

    members: int
    baseline: int
    examples: int | None
    epochs: int
    target: tuple[float | None, float | None]


WORKS = {
    "digits/mlp": Work(64, 4, None, 40, (8.0, 100.0)),
    "fashion_mnist/mlp": Work(16, 2, None, 1, (2.5, 100.0)),
    "fashion_mnist/cnn": Work(8, 2, 8_000, 1, (1.7, 30.0)),
    "cifar10/resnet8": Work(4, 2, 4_000, 1, (None, None)),
    "cifar10/resnet18": Work(4, 2, 2_000, 1, (None, 5.0)),
}


def task_of(name: str) -> tuple[Task, Dataset]:
    """A task of the benchmark with its data."""
    work = WORKS[name]
    task = resolve({"tasks": [name], "epochs": work.epochs}).tasks[0]
    return task, load(task.dataset, DATA, work.examples)


def plain(name: str, members: range, device: torch.device, resident: bool) -> float:
    """The usual script. Returns its seconds."""
    task, dataset = task_of(name)
    recipe, train, select = task.recipe, dataset.splits["train"], dataset.splits["select"]
    inputs, labels = dataset.prepare(train.inputs), train.labels
    held_out, truth = dataset.prepare(select.inputs).to(device), select.labels.to(device)
    augmentation = Augmentation.parse(recipe.augment, dataset.shape) if recipe.augment else None
    batch = min(recipe.batch_size, len(labels))
    steps = len(labels) // batch * recipe.epochs
    if resident:
        inputs, labels = inputs.to(device), labels.to(device)

    def batches(seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        if not resident:
            generator = torch.Generator().manual_seed(seed * 1000 + epoch)
            loader = DataLoader(
                TensorDataset(inputs, labels), batch, shuffle=True, drop_last=True, generator=generator
            )
            yield from ((x.to(device), y.to(device)) for x, y in loader)
            return
        order = torch.randperm(len(labels)).to(device)
        for first in range(0, len(labels) - batch + 1, batch):
            rows = order[first : first + batch]
            yield inputs[rows], labels[rows]

    def train_one(epsilon: float, seed: int) -> tuple[float, float]:
        torch.manual_seed(seed)
        model = ARCHITECTURES[task.architecture].build(dataset.shape, len(dataset.classes)).to(device)
        loss_function = nn.CrossEntropyLoss(label_smoothing=epsilon)
        optimiser: torch.optim.Optimizer = torch.optim.AdamW(
            model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        if recipe.optimiser == "sgd":
            optimiser = torch.optim.SGD(
                model.parameters(), recipe.learning_rate, 0.9, weight_decay=recipe.weight_decay, nesterov=True
            )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate_at(step, steps))
        accuracy = ece = 0.0
        for epoch in range(recipe.epochs):
            model.train()
            choices = augmentation.draw([seed], epoch, batch).to(device) if augmentation else None
            for x, y in batches(seed, epoch):
                if (
                    augmentation is not None and choices is not None
                ):  # ours, a batch at a time: torchvision's transforms would be slower
                    x = augmentation(x[None], choices)[0]
                loss = loss_function(model(x), y)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
            model.eval()
            with torch.no_grad():
                logits = torch.cat([model(chunk) for chunk in torch.split(held_out, 512)])
            accuracy, _, ece = score(logits, truth)
        return accuracy, ece

    def warm_up() -> None:
        """Libraries choose their kernels in the first steps."""
        model = ARCHITECTURES[task.architecture].build(dataset.shape, len(dataset.classes)).to(device)
        for _ in range(3):
            model(inputs[:batch].to(device)).sum().backward()

    warm_up()
    started = clock(device)
    try:
        import optuna
    except ImportError:
        for member in members:
            train_one(EPSILONS[member % len(EPSILONS)], member)
    else:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(directions=["maximize", "minimize"])
        for member in members:
            study.enqueue_trial({"epsilon": EPSILONS[member % len(EPSILONS)]})
        study.optimize(
            lambda trial: train_one(trial.suggest_float("epsilon", 0.0, 0.4), trial.number),
            n_trials=len(members),
        )
    return clock(device) - started


def score(logits: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """Accuracy, NLL and ECE with 15 bins."""
    confidence, predicted = logits.softmax(-1).max(-1)
    correct = (predicted == labels).double()
    bins = (confidence * 15).long().clamp(max=14)
    gap = torch.zeros(15, dtype=torch.float64, device=logits.device).index_add_(
        0, bins, confidence.double() - correct
    )
    return (
        float(correct.mean()),
        float(nn.functional.cross_entropy(logits, labels)),
        float(gap.abs().sum() / len(labels)),
    )


def one_process(name: str, members: range, device_name: str, barrier: Any, queue: Any) -> None:
    """A process of the variant `processes`."""
    torch.set_num_threads(1)
    barrier.wait()
    queue.put(plain(name, members, torch.device(device_name), resident=False))


def processes(name: str, count: int, device: torch.device) -> tuple[float, int]:
    """The plain loop in several processes, `count` members each. Returns the seconds of the slowest, and the
    members in all.
    """
    workers = cores() if device.type == "cpu" else 4
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(workers), context.Queue()
    started = [
        context.Process(
            target=one_process,
            args=(name, range(worker * count, (worker + 1) * count), str(device), barrier, queue),
        )
        for worker in range(workers)
    ]
    for process in started:
        process.start()
    seconds = max(queue.get() for _ in started)
    for process in started:
        process.join()
    return seconds, workers * count


def engine(name: str, count: int, device: torch.device, execution: str) -> tuple[float, float, str]:
    """Our engine. Returns its seconds, those of the choice, and the way."""
    task, dataset = task_of(name)
    seeds = min(8, count)
    started = clock(device)
    chosen = choose(task, dataset, ("uniform",), device, seeds, execution, most=count)
    choosing = clock(device) - started
    recipe = task.recipe
    members = [
        Member(EPSILONS[row // seeds % len(EPSILONS)], row % seeds, recipe.learning_rate, recipe.weight_decay)
        for row in range(count)
    ]
    one = replace(chosen, task=replace(task, recipe=replace(recipe, epochs=1)))
    one.train(members[: chosen.execution.shards * 2], lambda _: None)
    started = clock(device)
    for first in range(0, count, max(1, chosen.execution.members)):
        chosen.train(members[first : first + chosen.execution.members], lambda _: None)
    return clock(device) - started, choosing, str(chosen.execution)


def flop(name: str) -> float:
    """Floating point operations of training one member for one epoch, the scoring left out."""
    task, dataset = task_of(name)
    batch = min(task.recipe.batch_size, len(dataset.splits["train"].labels))
    model = ARCHITECTURES[task.architecture].build(dataset.shape, len(dataset.classes))
    with FlopCounterMode(display=False) as counter:
        model(dataset.prepare(dataset.splits["train"].inputs[:batch])).sum().backward()
    return float(counter.get_total_flops()) * (len(dataset.splits["train"].labels) // batch)


def ceiling(device: torch.device) -> float:
    """FLOP/s of large float32 matrix products on all cores, or bfloat16 ones on a GPU."""
    size, kind = (1024, torch.float32) if device.type == "cpu" else (8192, torch.bfloat16)

    def multiply(_: int) -> float:
        left = torch.randn(size, size, device=device, dtype=kind)
        right = torch.randn(size, size, device=device, dtype=kind)
        best = math.inf
        for _repeat in range(5):
            left @ right
            started = clock(device)
            for _ in range(4):
                left @ right
            best = min(best, (clock(device) - started) / 4)
        return 2 * size**3 / best

    shards = cores() if device.type == "cpu" else 1
    with ThreadPoolExecutor(shards, "shard", torch.set_num_threads, (1,)) as pool:
        return sum(pool.map(multiply, range(shards)))


def one(variant: str, name: str, members: int, device: torch.device) -> dict[str, Any]:
    """One measurement, in this process: seconds per member and epoch, and the peak of the memory."""
    work = WORKS[name]
    choosing, execution = 0.0, ""
    if variant in ENGINES:
        seconds, choosing, execution = engine(name, members, device, variant)
    elif variant == "processes":
        seconds, members = processes(name, members, device)
    else:
        seconds = plain(name, range(members), device, resident=variant == "resident")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    children = (
        resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        / 1024
        * (cores() if variant == "processes" else 0)
    )
    if device.type == "cuda":
        peak, children = torch.cuda.max_memory_allocated() / 2**20, 0.0
    each = seconds / (members * work.epochs)
    return {
        "seconds": each,
        "choosing": choosing,
        "way": execution,
        "peak": peak + children,
        "members": members,
    }


def apart(variant: str, name: str, members: int, device: str) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.engine",
        "--one",
        variant,
        "--members",
        str(members),
        "--device",
        device,
        name,
    ]
    with tempfile.TemporaryDirectory() as folder:  # nothing is remembered from one to the next
        environment = {**os.environ, "XDG_CACHE_HOME": folder}
        found = subprocess.run(
            command,
            check=True,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            cwd=Path(__file__).parents[1],
        )
    result: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return result


def compare(name: str, rounds: int, device: torch.device, variants: list[str]) -> None:
    """All variants in turn, and their ratios to the plain loop of the same round."""
    work = WORKS[name]
    found: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    for _ in range(rounds):
        for variant in variants:
            members = work.members if variant in ENGINES else work.baseline
            found[variant].append(apart(variant, name, members, str(device)))
    operations, limit = flop(name), ceiling(device)
    target = work.target[device.type == "cuda"]
    examples = "all" if work.examples is None else f"{work.examples}"
    print(
        f"\n{name}: {work.members} members in the engine, {examples} training examples, {work.epochs} epochs,"
        f" {rounds} rounds"
    )
    print(
        f"ceiling: {limit / 1e9:.0f} GFLOP/s; a member's epoch is {operations / 1e9:.2f} GFLOP; target"
        f" {target or 'none'}"
    )
    print(
        f"{'':10}{'ratio to plain':>24}{'member-epochs/s':>17}{'GFLOP/s':>9}"
        f"{'of ceiling':>11}{'peak MiB':>10}"
        "  how"
    )
    for variant in variants:
        ratios = [
            base["seconds"] / own["seconds"] for base, own in zip(found["plain"], found[variant], strict=True)
        ]
        each = statistics.median(own["seconds"] for own in found[variant])
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        last = found[variant][-1]
        how = f"{last['way']}; chosen in {last['choosing']:.1f} s" if last["way"] else ""
        print(
            f"{variant:10}{spread:>24}{1 / each:>17.3g}{operations / each / 1e9:>9.1f}"
            f"{operations / each / limit:>11.0%}{last['peak']:>10.0f}"
            f"  {how}",
            flush=True,
        )


def growth(name: str, device: torch.device) -> None:
    """How the time of all members grows with their number."""
    most = WORKS[name].members
    sizes = [
        size
        for size in (1, 2, 4, 8, 16, 32, 64, 128)
        if size <= max(most, 64 if device.type == "cuda" else most)
    ]
    times = {size: apart("auto", name, size, str(device)) for size in sizes}
    base = times[1]["seconds"]
    print(f"{name}, time for E members as a multiple of the time for one:")
    for size, measured in times.items():
        print(f"  E = {size:3}: {measured['seconds'] * size / base:6.2f} ({measured['way']})", flush=True)


def main() -> None:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("tasks", nargs="*", default=["digits/mlp", "fashion_mnist/mlp", "fashion_mnist/cnn"])
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--device", default="auto")
    flags.add_argument(
        "--variants",
        default=",".join(VARIANTS),
        help=f"among {', '.join(VARIANTS)}; plain is always measured",
    )
    flags.add_argument("--growth", action="store_true", help="also the time for 1, 2, 4, … members")
    flags.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    flags.add_argument("--members", type=int, help=argparse.SUPPRESS)
    options = flags.parse_args()
    device = pick_device(options.device)
    if options.one:
        print(json.dumps(one(options.one, options.tasks[0], options.members, device)))
        return
    optuna = "none"
    with suppress(ImportError):
        import optuna as installed

        optuna = installed.__version__
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{cores()} CPU cores ({platform.machine()})"
    )
    print(
        f"{where}, Python {platform.python_version()}, torch {torch.__version__}, Optuna {optuna}, load"
        f" {os.getloadavg()[0]:.1f}, {time.strftime('%F %R')}"
    )
    for name in options.tasks:
        if name not in WORKS:
            flags.error(f"no task {name!r} in this benchmark; there are {', '.join(WORKS)}")
        compare(
            name,
            options.rounds,
            device,
            ["plain", *[v for v in options.variants.split(",") if v and v != "plain"]],
        )
        if options.growth:
            growth(name, device)


if __name__ == "__main__":
    main()
