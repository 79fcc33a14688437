"""What a recipe reaches at one ε, scored on *select* and on *test*: behind `python -m sweeps.train`."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lscal import METRICS, Predictions
from sweeps.data.dataset import SplitName
from sweeps.data.load import load
from sweeps.engines import engine_for
from sweeps.errors import WrongInput
from sweeps.external_flags import check_used, supplied
from sweeps.settings import resolve, site_of
from sweeps.studies.design import arms
from sweeps.terminal import Console
from sweeps.training.engine import Engine, Trained
from sweeps.workers.worker import member_of

SHOWN: tuple[SplitName, ...] = ("select", "test")
SAVED: tuple[SplitName, ...] = ("select", "calibrate", "test")


def train(options: Mapping[str, Any], console: Console) -> None:
    """Train, and print accuracy, NLL and ECE of every seed. Errors: WrongInput."""
    values = dict(options)
    epsilon, first, out = values.pop("epsilon"), values.pop("seed"), values.pop("out", None)
    values = {"data_dir": os.environ.get("LSCAL_DATA"), "smoothing": "uniform", **supplied(values), **values}
    plan, site = resolve(values), site_of(values)
    check_used(site.datasets, site.architectures, [task.name for task in plan.tasks])
    if not epsilon < 1:
        raise WrongInput(f"--epsilon is {epsilon:g}; allowed is ε < 1.")
    if len(plan.smoothing) > 1:
        raise WrongInput(f"--smoothing names {len(plan.smoothing)}: {', '.join(plan.smoothing)}; wanted one.")
    (base, (low, high)), *_ = arms(plan).values()
    if low != high:
        raise WrongInput(f"--smoothing is {plan.smoothing[0]}; wanted one share, such as {base}@drop:0.3.")
    if first < 0:
        raise WrongInput(f"--seed is {first}; allowed is a whole number of at least 0.")
    if len(plan.tasks) > 1:
        raise WrongInput(
            f"{len(plan.tasks)} tasks are named; wanted one of {', '.join(task.name for task in plan.tasks)}."
        )
    task = plan.tasks[0]
    dataset = load(task.dataset, site.data_dir, plan.train_examples, task.loader)
    for note in dataset.notes:
        console.say(f"{task.dataset}: {note}")
    engine = engine_for(plan, task, dataset, site.device, most=plan.seeds)
    console.say(f"{task.name} at ε = {epsilon:g}: {task.recipe}", style="bold")
    console.say(
        f"{len(dataset.splits['train'].labels)} training examples, {plan.seeds} seeds; {engine.execution} on"
        f" {engine.device}"
    )
    point = {"epsilon": epsilon, "drop": low}
    seeds = range(first, first + plan.seeds)
    members = [member_of(task, base, point, seed) for seed in seeds]
    started = time.perf_counter()
    with console.progress(f"training {task.name}", plan.seeds * task.recipe.epochs) as advance:
        trained = engine.train(members, advance)
    seconds = time.perf_counter() - started
    if out is not None:
        write(Path(out), point, seeds, engine, trained)
        console.say(f"  logits of select, calibrate and test are in {out}")
    for split in SHOWN:
        predictions = Predictions.from_logits(engine.logits(trained, split), dataset.splits[split].targets)
        for name, scale, digits in (("accuracy", 100, 2), ("nll", 1, 4), ("ece", 100, 2)):
            values_of = scale * METRICS[name].function(predictions)
            spread = float(values_of.std()) if plan.seeds > 1 else 0.0
            each = " ".join(f"{float(value):.{digits}f}" for value in values_of)
            unit = " %" if scale == 100 else ""
            console.say(
                f"  {split:6} {name:8} {float(values_of.mean()):.{digits}f}{unit} ± {spread:.{digits}f} over"
                f" seeds: {each}"
            )
    console.say(
        f"  {seconds:.0f} s of training, {seconds / plan.seeds / task.recipe.epochs:.2f} s a member and epoch"
    )


def write(
    folder: Path, point: Mapping[str, float], seeds: Sequence[int], engine: Engine, trained: Trained
) -> None:
    """Write the logits and labels of each member's held-out splits, named as `sweeps.saved_members` reads
    them. Errors: WrongInput where there is no place to write.
    """
    falling = "" if point["drop"] == 1 else f"_drop{point['drop']:g}"
    try:
        for split in SAVED:
            labels = engine.dataset.splits[split].targets.cpu().numpy()
            for seed, logits in zip(seeds, engine.logits(trained, split), strict=True):
                place = folder / f"eps{point['epsilon']:g}{falling}_seed{seed}"
                place.mkdir(parents=True, exist_ok=True)
                np.savez(place / f"{split}.npz", logits=logits.numpy(), labels=labels)
    except OSError as error:
        raise WrongInput(f"cannot write to --out {str(folder)!r}: {error.strerror}.") from error
