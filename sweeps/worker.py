"""A worker: one device. Asks a batch of trials, trains their members as one population, scores and tells them.

What is told is handed over to be logged.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from jaxtyping import Float
from torch import Tensor

from lscal import BinnedStatistics, Predictions, Report, Temperature
from lscal.diagrams import Reliability
from sweeps.datasets import Dataset, SplitName
from sweeps.engine import CALIBRATED, Engine, Progress, Trained
from sweeps.ladder import Ladder, curves_of
from sweeps.member import Member
from sweeps.plan import Plan, Task
from sweeps.study import HEARTBEAT_SECONDS, Study, Trial, uninterrupted
from tracking.records import Bins, Outcome, Stage

SCORED: dict[Stage, tuple[SplitName, ...]] = {"screen": ("select",), "confirm": ("select", "test")}
"""Splits whose metrics each stage looks at. The test split is opened by the confirmation alone."""

REPORTED = (
    "accuracy",
    "worst_class_accuracy",
    "nll",
    "brier",
    "confidence_gap",
    "ece",
    "debiased_ece",
    "equal_mass_ece",
    "classwise_ece",
    "smooth_ece",
    "mce",
    "aurc",
    "augrc",
    "coverage_at_risk",
)
"""Metrics of every trial, raw and after temperature."""

SEEDS_BETWEEN_STAGES = 5_000
SEEDS_BETWEEN_PLANS = 10_000

Logits = Mapping[SplitName, Float[Tensor, "seed example class"]]
Finish = Callable[[Outcome, Logits], None]
"""Takes a finished trial and its logits."""


def work(study: Study, engine: Engine, finish: Finish, progress: Progress, say: Callable[[str], None]) -> None:
    """Train trials until the study has as many as its plan wants.

    Trials which other workers hold are waited for: they are finished there, or taken over when that worker falls silent.
    On any interruption, what is unfinished is given back.
    """
    seeds = seeds_of(study.plan, study.stage)
    ladder = Ladder(study, engine.way.seconds, say)
    with study.heartbeat():
        try:
            while True:
                with uninterrupted():
                    trials = study.ask(min(ladder.most, max(1, engine.way.members // len(seeds))))
                if trials:
                    run_batch(study, engine, trials, seeds, ladder, finish, progress, say)
                elif others := study.elsewhere():
                    say(f"waiting for {others} trials which another worker holds")
                    time.sleep(HEARTBEAT_SECONDS)
                else:
                    return
        finally:
            study.release()


def run_batch(
    study: Study,
    engine: Engine,
    trials: Sequence[Trial],
    seeds: Sequence[int],
    ladder: Ladder,
    finish: Finish,
    progress: Progress,
    say: Callable[[str], None],
) -> None:
    """Train a batch of trials as one population and tell each of them."""
    members = [member_of(engine.task, study.plan.smoothing, trial.point, seed) for trial in trials for seed in seeds]
    trained = engine.train(members, progress, ladder.rungs(trials, len(seeds)))
    splits: tuple[SplitName, ...] = ("calibrate", *SCORED[study.stage])
    logits = {split: engine.logits(trained, split) for split in splits} if trained.lanes else {}
    for index, trial in enumerate(trials):
        rows = slice(index * len(seeds), (index + 1) * len(seeds))
        if not all(trained.finite[rows]):
            with uninterrupted():
                study.tell_diverged(trial, f"the loss became NaN or infinite at {describe(trial.point)}")
            say(f"trial {trial.number} failed: {study.diverged()[trial.number]}; the sweep goes on")
            continue
        if reason := ladder.reasons.get(trial.number):
            outcome = replace(unscored(study, trial, seeds, engine.dataset, trained, rows), dropped=reason)
            with uninterrupted():
                study.tell_dropped(trial, outcome)
                finish(outcome, {})
            progress(sum(engine.task.recipe.epochs - epochs for epochs in trained.epochs[rows]))
            continue
        own = {split: values[rows] for split, values in logits.items()}
        outcome, losses = score(study, trial, seeds, engine.dataset, own, trained, rows)
        ladder.note(outcome.epsilon, losses)
        with uninterrupted():
            study.tell(trial, outcome)
            finish(outcome, own)


def score(
    study: Study, trial: Trial, seeds: Sequence[int], dataset: Dataset, logits: Logits, trained: Trained, rows: slice
) -> tuple[Outcome, Float[Tensor, " row"]]:
    """The outcome of a trial: temperature fitted on *calibrate*, then every metric on the stage's other splits.

    Beside it, the recalibrated loss of each example of *select*, mean over the seeds.
    """
    temperature = Temperature.fit(logits["calibrate"], dataset.splits["calibrate"].labels.cpu())
    metrics: dict[str, tuple[float, ...]] = {}
    bins: dict[str, Bins] = {}
    for split in SCORED[study.stage]:
        report = Report.of(logits[split], dataset.splits[split].labels.cpu(), temperature, names=REPORTED)
        for name in report.raw:
            metrics[f"{split}/{name}"] = tuple(report.raw[name].tolist())
            metrics[f"{split}/{name}_calibrated"] = tuple(report.calibrated[name].tolist())
        bins[split] = bins_of(report.statistics)
        bins[f"{split}_calibrated"] = bins_of(report.statistics_calibrated)
    outcome = replace(
        unscored(study, trial, seeds, dataset, trained, rows), metrics=metrics, temperature=tuple(temperature.value.tolist()), bins=bins
    )
    select = Predictions.from_logits(logits["select"], dataset.splits["select"].labels.cpu())
    return outcome, select.calibrated(temperature).nll.mean(0)


def unscored(study: Study, trial: Trial, seeds: Sequence[int], dataset: Dataset, trained: Trained, rows: slice) -> Outcome:
    """What is known of a trial from its training alone."""
    epochs = trained.epochs[rows.start]
    curves = {name: values[:epochs, rows] for name, values in trained.curves.items() if name != CALIBRATED}
    compared = curves_of(trained.curves, rows, epochs)
    known = all(bool(values.isfinite().all()) for values in compared.values())
    return Outcome(
        uid=study.uid(trial),
        task=study.task.name,
        study=study.name,
        stage=study.stage,
        number=trial.number,
        epsilon=trial.point["epsilon"],
        classes=len(dataset.classes),
        point=dict(trial.point),
        seeds=tuple(seeds),
        metrics={},
        curves={name: tuple(values.double().mean(1).tolist()) for name, values in curves.items()},
        temperature=(),
        bins={},
        seconds=trained.seconds * epochs * len(seeds) / sum(trained.epochs),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        by_seed={name: tuple(tuple(seeds) for seeds in values.tolist()) for name, values in compared.items()} if known else {},
    )


def member_of(task: Task, smoothing: str, point: Mapping[str, float], seed: int) -> Member:
    """A member: the point's values, and the recipe's for what is not tuned."""
    recipe = task.recipe
    return Member(
        epsilon=point["epsilon"],
        seed=seed,
        learning_rate=point.get("learning_rate", recipe.learning_rate),
        weight_decay=point.get("weight_decay", recipe.weight_decay),
        smoothing=smoothing,
        clip=math.inf if recipe.clip is None else recipe.clip,
    )


def seeds_of(plan: Plan, stage: Stage) -> tuple[int, ...]:
    """The seeds of a stage, the same for every trial of it; no seed of the screening is used in the confirmation."""
    first = plan.random_state * SEEDS_BETWEEN_PLANS
    if stage == "screen":
        return tuple(range(first, first + plan.seeds))
    return tuple(range(first + SEEDS_BETWEEN_STAGES, first + SEEDS_BETWEEN_STAGES + plan.confirm_seeds))


def bins_of(statistics: BinnedStatistics) -> Bins:
    """Pooled bins as a record."""
    diagram = Reliability.of("", statistics)
    return Bins(diagram.count, diagram.confidence, diagram.accuracy, diagram.gap, diagram.error)


def describe(point: Mapping[str, float]) -> str:
    """A point of the search space in words."""
    return ", ".join(f"{name} = {value:.6g}" for name, value in point.items())
