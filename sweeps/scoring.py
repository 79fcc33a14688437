"""Scores a trial's members and returns its Outcome."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lscal import CALIBRATORS, METRICS, BinnedStatistics, PNorm, Predictions, Report, Temperature
from lscal.diagrams import Reliability
from lscal.selective import risk_coverage
from sweeps import recalibration
from sweeps.data.dataset import Dataset, SplitName
from sweeps.early_stopping.pruner import curves_of
from sweeps.studies.study import Study, Trial
from sweeps.training.beam_search import bleu
from sweeps.training.engine import CALIBRATED, Trained
from tracking.records.outcome import HELD_OUT_ACCURACY, Bins, Outcome, Stage

Part = SplitName | Literal["sentences"]
"""Parts of a trial's logits that are stored; for translations also the statistics of BLEU of each sentence of
*test*.
"""
SENTENCES: Literal["sentences"] = "sentences"
SCORED: dict[Stage, tuple[SplitName, ...]] = {
    "pilot": ("select",),
    "screen": ("select",),
    "confirm": ("select", "test"),
}
"""Splits scored in each stage. Only the confirmation opens *test*."""

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

TOWARDS_PEOPLE = ("soft_nll", "jensen_shannon", "human_ece")
"""Metrics of a confirmed trial where *test* has people's label distributions."""

STEPS = 100
"""Coverages at which the error rate of the most confident examples is stored."""

Logits = Mapping[Part, Float[Tensor, "seed _ _"]]
"""Logits (seed, prediction, class) of splits, and of SENTENCES the statistics (seed, sentence, statistic)."""


def splits_of(stage: Stage) -> tuple[SplitName, ...]:
    """Splits whose logits score a trial."""
    return ("calibrate", *SCORED[stage])


def parts_of(stage: Stage, dataset: Dataset) -> tuple[Part, ...]:
    """Parts of a finished trial's logits that are stored."""
    return (*splits_of(stage), *((SENTENCES,) if dataset.sequences and stage == "confirm" else ()))


class Measured(NamedTuple):
    """What logits of a trial come to; the attributes are those of `Outcome`, and the recalibrated loss of
    each example of *select*, mean over the seeds.
    """

    metrics: dict[str, tuple[float, ...]]
    temperature: tuple[float, ...]
    bins: dict[str, Bins]
    risks: dict[str, tuple[tuple[float, ...], ...]]
    losses: Float[Tensor, " row"]


def score(
    study: Study,
    trial: Trial,
    seeds: Sequence[int],
    dataset: Dataset,
    logits: Logits,
    trained: Trained,
    rows: slice,
) -> tuple[Outcome, Float[Tensor, " row"]]:
    """A trial's outcome, and the recalibrated loss of each example of *select*, see `measure`."""
    metrics, temperature, bins, risks, losses = measure(study.stage, dataset, logits)
    known = unscored(study, trial, seeds, dataset, trained, rows)
    return replace(known, metrics=metrics, temperature=temperature, bins=bins, risks=risks), losses


def measure(stage: Stage, dataset: Dataset, logits: Logits) -> Measured:
    """The temperature fitted on *calibrate*, then every metric on the stage's other splits."""
    labels = {split: dataset.splits[split].targets.cpu() for split in splits_of(stage)}
    temperature = Temperature.fit(logits["calibrate"], labels["calibrate"])
    metrics: dict[str, tuple[float, ...]] = {}
    bins: dict[str, Bins] = {}
    for split in SCORED[stage]:
        report = Report.of(logits[split], labels[split], temperature, names=REPORTED)
        for name in report.raw:
            metrics[f"{split}/{name}"] = tuple(report.raw[name].tolist())
            metrics[f"{split}/{name}_calibrated"] = tuple(report.calibrated[name].tolist())
        bins[split] = bins_of(report.statistics)
        bins[f"{split}_calibrated"] = bins_of(report.statistics_calibrated)
    if stage == "confirm":
        metrics |= after_p_norm(logits, labels)
    else:
        if stage == "screen":
            metrics |= after_the_best(logits, labels, dataset)
        right = [Predictions.from_logits(logits[split], labels[split]).correct for split in labels]
        metrics[HELD_OUT_ACCURACY] = tuple(torch.cat(right, -1).double().mean(-1).tolist())
    if SENTENCES in logits:
        metrics["test/bleu"] = tuple(bleu(logits[SENTENCES].sum(1)).tolist())
    if stage == "confirm" and (people := towards_people(dataset, logits)) is not None:
        for suffix, predictions in (("", people), ("_calibrated", people.calibrated(temperature))):
            metrics |= {
                f"test/{name}{suffix}": tuple(METRICS[name].function(predictions).tolist())
                for name in TOWARDS_PEOPLE
            }
    risks: dict[str, tuple[tuple[float, ...], ...]] = {}
    for split in ("calibrate", *SCORED[stage]):
        raw = Predictions.from_logits(logits[split], labels[split])
        calibrated = raw.calibrated(temperature)
        risks |= {split: risks_of(raw), f"{split}_calibrated": risks_of(calibrated)}
        if split == "select":
            losses = calibrated.nll.mean(0)
    return Measured(metrics, tuple(temperature.value.tolist()), bins, risks, losses)


def towards_people(dataset: Dataset, logits: Logits) -> Predictions | None:
    """Predictions of those examples of *test* with people's label distributions, against these; None where
    there are none.
    """
    human = dataset.splits["test"].human
    known = torch.zeros(0, dtype=torch.bool) if human is None else human.isfinite().all(-1).cpu()
    if human is None or not bool(known.any()):
        return None
    return Predictions.from_logits(logits["test"], human.cpu(), mask=known)


def after_the_best(
    logits: Logits, labels: Mapping[SplitName, Tensor], dataset: Dataset
) -> dict[str, tuple[float, ...]]:
    """Metrics on *select* after the best of some quick recalibrations, chosen and fitted on *calibrate*."""
    held_out = logits["calibrate"], labels["calibrate"]
    method = recalibration.choose(*held_out, dataset.splits["calibrate"].groups, quick=True)
    predictions = Predictions.from_logits(logits["select"], labels["select"])
    found = recalibration.metrics_after(predictions, CALIBRATORS[method].fit(*held_out))
    return {f"select/{name}": tuple(values.tolist()) for name, values in found.items()}


def after_p_norm(logits: Logits, labels: Mapping[SplitName, Tensor]) -> dict[str, tuple[float, ...]]:
    """Metrics on *test* after p-norm normalisation, fitted on *calibrate*."""
    predictions = Predictions.from_logits(logits["test"], labels["test"])
    repaired = predictions.calibrated(PNorm.fit(logits["calibrate"], labels["calibrate"]))
    return {
        f"test/{name}_p_norm": tuple(METRICS[name].function(repaired).tolist())
        for name in ("nll", "ece", "aurc")
    }


def risks_of(predictions: Predictions) -> tuple[tuple[float, ...], ...]:
    """Per seed, the error rate among the 1 %, 2 %, …, 100 % most confident examples, to five decimals."""
    curve = risk_coverage(predictions.ranking, predictions.correct)
    places = torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS * curve.shape[-1]
    values = curve[:, (places - 1e-9).ceil().long().clamp(min=1) - 1]
    return tuple(tuple(round(value, 5) for value in row) for row in values.tolist())


def unscored(
    study: Study, trial: Trial, seeds: Sequence[int], dataset: Dataset, trained: Trained, rows: slice
) -> Outcome:
    """A trial's outcome from its training alone."""
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
        by_seed=(
            {name: tuple(tuple(seeds) for seeds in values.tolist()) for name, values in compared.items()}
            if known
            else {}
        ),
        calibrate_examples=len(dataset.splits["calibrate"].labels),
    )


def bins_of(statistics: BinnedStatistics) -> Bins:
    """Pooled bins as a record."""
    diagram = Reliability.of("", statistics)
    return Bins(diagram.count, diagram.confidence, diagram.accuracy, diagram.gap, diagram.error)
