"""A worker: one device. Asks a batch of trials, trains their members as one population, scores and tells them.

What is told is handed over to be logged.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import torch
from jaxtyping import Float
from torch import Tensor

from lscal import METRICS, BinnedStatistics, PNorm, Predictions, Report, Temperature
from lscal.diagrams import Reliability
from lscal.selective import risk_coverage
from sweeps.datasets import Dataset, SplitName
from sweeps.engine import CALIBRATED, Engine, Progress, Trained
from sweeps.export import pack, weights_of
from sweeps.ladder import Ladder, curves_of
from sweeps.member import Member
from sweeps.plan import Task
from sweeps.study import HEARTBEAT_SECONDS, Study, Trial, uninterrupted
from tracking.policies import key_of
from tracking.records import Bins, Outcome, Stage

SCORED: dict[Stage, tuple[SplitName, ...]] = {"pilot": ("select",), "screen": ("select",), "confirm": ("select", "test")}
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

STEPS = 100
"""Coverages at which the error rate among the most confident examples is kept."""

Logits = Mapping[SplitName, Float[Tensor, "seed example class"]]
Files = Mapping[str, bytes]
"""Artifacts by path."""
Finish = Callable[[Outcome, Logits, Files], None]
"""Takes a finished trial, its logits and further files."""
Fetch = Callable[[Outcome], Logits | None]
"""The logits of a trial which was finished earlier, or None where they are gone."""


def work(study: Study, engine: Engine, finish: Finish, progress: Progress, say: Callable[[str], None]) -> None:
    """Train trials until the study has as many as its plan wants.

    Trials which other workers hold are waited for: they are finished there, or taken over when that worker falls silent.
    On any interruption, what is unfinished is given back.
    """
    seeds = study.seeds
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


def harvest(
    study: Study, engine: Engine, finish: Finish, fetch: Fetch, progress: Progress, say: Callable[[str], None]
) -> dict[str, tuple[Outcome, Logits]]:
    """Train what is queued in a study, and give each finished trial with its logits, by the key of its point.

    Logits of trials which were finished by an earlier run are fetched; where they are gone, their members are trained once more.
    """
    fresh: dict[str, Logits] = {}

    def keep(outcome: Outcome, logits: Logits, files: Files) -> None:
        fresh[outcome.uid] = logits
        finish(outcome, logits, files)

    work(study, engine, keep, progress, say)
    return {
        key_of(outcome.point): (outcome, fresh.get(outcome.uid) or fetch(outcome) or again(study, engine, outcome, say))
        for outcome in study.outcomes()
    }


def again(study: Study, engine: Engine, outcome: Outcome, say: Callable[[str], None]) -> Logits:
    """The logits of a finished trial whose file is gone: train its members once more."""
    say(f"the logits of ε = {outcome.epsilon:g} are not in the tracking store; its {len(outcome.seeds)} members are trained again")
    trained = engine.train([member_of(engine.task, study.plan.smoothing, outcome.point, seed) for seed in study.seeds], lambda _: None)
    return {split: engine.logits(trained, split) for split in ("calibrate", *SCORED[study.stage])}


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
                finish(outcome, {}, {})
            progress(sum(engine.task.recipe.epochs - epochs for epochs in trained.epochs[rows]))
            continue
        own = {split: values[rows] for split, values in logits.items()}
        outcome, losses = score(study, trial, seeds, engine.dataset, own, trained, rows)
        ladder.note(outcome.epsilon, losses)
        with uninterrupted():
            study.tell(trial, outcome)
            finish(outcome, own, {weights_path(outcome): pack(weights_of(trained, rows.start))} if study.stage == "confirm" else {})


def weights_path(outcome: Outcome) -> str:
    """Where the weights of a confirmed trial's first seed are among its artifacts."""
    return f"weights/{outcome.seeds[0]}.safetensors"


def score(
    study: Study, trial: Trial, seeds: Sequence[int], dataset: Dataset, logits: Logits, trained: Trained, rows: slice
) -> tuple[Outcome, Float[Tensor, " row"]]:
    """The outcome of a trial: temperature fitted on *calibrate*, then every metric on the stage's other splits.

    Beside it, the recalibrated loss of each example of *select*, mean over the seeds.
    """
    labels = {split: dataset.splits[split].labels.cpu() for split in logits}
    temperature = Temperature.fit(logits["calibrate"], labels["calibrate"])
    metrics: dict[str, tuple[float, ...]] = {}
    bins: dict[str, Bins] = {}
    for split in SCORED[study.stage]:
        report = Report.of(logits[split], labels[split], temperature, names=REPORTED)
        for name in report.raw:
            metrics[f"{split}/{name}"] = tuple(report.raw[name].tolist())
            metrics[f"{split}/{name}_calibrated"] = tuple(report.calibrated[name].tolist())
        bins[split] = bins_of(report.statistics)
        bins[f"{split}_calibrated"] = bins_of(report.statistics_calibrated)
    if study.stage == "confirm":
        metrics |= after_p_norm(logits, labels)
    risks: dict[str, tuple[tuple[float, ...], ...]] = {}
    for split in ("calibrate", *SCORED[study.stage]):
        raw = Predictions.from_logits(logits[split], labels[split])
        calibrated = raw.calibrated(temperature)
        risks |= {split: risks_of(raw), f"{split}_calibrated": risks_of(calibrated)}
        if split == "select":
            losses = calibrated.nll.mean(0)
    known = unscored(study, trial, seeds, dataset, trained, rows)
    return replace(known, metrics=metrics, temperature=tuple(temperature.value.tolist()), bins=bins, risks=risks), losses


def after_p_norm(logits: Logits, labels: Mapping[SplitName, Tensor]) -> dict[str, tuple[float, ...]]:
    """What p-norm normalisation, fitted on *calibrate*, makes of the metrics on *test*."""
    predictions = Predictions.from_logits(logits["test"], labels["test"])
    repaired = predictions.calibrated(PNorm.fit(logits["calibrate"], labels["calibrate"]))
    return {f"test/{name}_p_norm": tuple(METRICS[name].function(repaired).tolist()) for name in ("nll", "ece", "aurc")}


def risks_of(predictions: Predictions) -> tuple[tuple[float, ...], ...]:
    """Per seed, the error rate among the 1 %, 2 %, …, 100 % most confident examples, to five decimals."""
    curve = risk_coverage(predictions.ranking, predictions.correct)
    places = torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS * curve.shape[-1]
    values = curve[:, (places - 1e-9).ceil().long().clamp(min=1) - 1]
    return tuple(tuple(round(value, 5) for value in row) for row in values.tolist())


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


def bins_of(statistics: BinnedStatistics) -> Bins:
    """Pooled bins as a record."""
    diagram = Reliability.of("", statistics)
    return Bins(diagram.count, diagram.confidence, diagram.accuracy, diagram.gap, diagram.error)


def describe(point: Mapping[str, float]) -> str:
    """A point of the search space in words."""
    return ", ".join(f"{name} = {value:.6g}" for name, value in point.items())
