"""Summary: the tables that a person reads, as text cells; for the terminal and for MLflow's notes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lscal.display import display
from tracking.numbers import epsilon, number
from tracking.records.comparison import Comparison
from tracking.records.outcome import HELD_OUT_ACCURACY, Interval, Outcome, screened, spread
from tracking.records.point import beside
from tracking.records.recommendation import Recommendation

if TYPE_CHECKING:  # it needs NumPy
    from tracking.decision.fit import Fit


@dataclass(frozen=True)
class Table:
    """A title, a header and rows of text cells; `sentences` are set flush left, numbers flush right."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sentences: bool = False

    def to_markdown(self) -> str:
        """A Markdown table under its title in bold."""
        lines = [
            f"**{self.title}**",
            "",
            "| " + " | ".join(self.header) + " |",
            "|" + (" --- |" if self.sentences else " ---: |") * len(self.header),
        ]
        return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in self.rows])


COLUMNS = ("accuracy", "ece", "ece_calibrated", "confidence_gap", "nll", "nll_calibrated", "aurc")
TOWARDS_PEOPLE = tuple(
    f"{name}{repair}"
    for name in ("soft_nll", "jensen_shannon", "human_ece")
    for repair in ("", "_calibrated")
)
LEGEND = (
    "ECE: 15-bin calibration error. +T: after temperature scaling, fitted on the calibrate split. gap: mean"
    " confidence − accuracy, below 0 is underconfident. NLL in nats, unsmoothed. AURC: area under the"
    " risk-coverage curve, lower ranks errors better."
)


def screening(outcomes: Sequence[Outcome]) -> Table:
    """A row per trial by ascending ε: each metric as candidates are chosen by it, mean ± standard deviation
    over the seeds.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.epsilon)
    seeds = len(ordered[0].seeds)
    names = [screened(metric, *outcomes) for metric in COLUMNS]
    rows = []
    for outcome in ordered:
        spreads = [outcome.spread(metric) if seeds > 1 else None for metric in names]
        cells = [
            plus_minus(outcome.mean(metric), deviation, column)
            for metric, deviation, column in zip(names, spreads, COLUMNS, strict=True)
        ]
        rows.append((name(outcome), *cells))
    return Table(
        f"On {where(outcomes)}: mean ± standard deviation over {count(seeds)}",
        ("ε", *(display(metric).heading for metric in COLUMNS)),
        tuple(rows),
    )


def where(outcomes: Sequence[Outcome]) -> str:
    """The splits that candidates are chosen on, in words."""
    return (
        "select, accuracy on select and calibrate"
        if screened("accuracy", *outcomes) == HELD_OUT_ACCURACY
        else "select"
    )


def differences(outcomes: Sequence[Outcome], control: Outcome, fit: "Fit | None" = None) -> Table:
    """A row per trial by ascending ε: paired differences to ε = 0 of what candidates are chosen by, mean ±
    standard error over the seeds.

    `fit` is that of accuracy: its own difference and standard error, by which candidates are chosen, stand in
    a column beside those of the trials.
    """
    ordered = [
        outcome
        for outcome in sorted(outcomes, key=lambda outcome: outcome.epsilon)
        if outcome.uid != control.uid
    ]
    fitted = fit.shift([outcome.point for outcome in ordered], control.point) if fit and ordered else None
    rows = []
    for place, outcome in enumerate(ordered):
        cells = []
        for column in COLUMNS:
            paired = outcome.differences(screened(column, *outcomes, control), control)
            mean = sum(paired) / len(paired)
            error = spread(paired) / len(paired) ** 0.5 if len(paired) > 1 else None
            cells.append(plus_minus(mean, error, column, signed=True))
        if fitted:
            cells.insert(
                1, plus_minus(float(fitted.value[place]), float(fitted.error[place]), COLUMNS[0], signed=True)
            )
        rows.append((name(outcome), *cells))
    headings = [f"Δ {display(metric).heading}" for metric in COLUMNS]
    if fitted:
        headings.insert(1, "by the fit")
    title = "Difference to ε = 0, same seeds: mean ± standard error of that trial alone, over its seeds"
    chosen = (
        "; by the fit: through all trials, ± its own standard error, which candidates are chosen by"
        if fitted
        else ""
    )
    return Table(title + chosen, ("ε", *headings), tuple(rows))


def dropped(outcomes: Sequence[Outcome], policy: str) -> Table:
    """A row per trial that was dropped at a rung, by ascending ε: how far it came, and its accuracy then."""
    rows = []
    for outcome in sorted(outcomes, key=lambda outcome: outcome.epsilon):
        accuracy = outcome.curves["select_accuracy"]
        rows.append((name(outcome), str(len(accuracy)), f"{100 * accuracy[-1]:.2f}"))
    title = f"Dropped at a rung, as they can no longer change the recommendation of policy {policy}"
    return Table(title, ("ε", "epochs", "accuracy % then"), tuple(rows))


def confirmation(comparisons: Sequence[Comparison]) -> Table:
    """A row per confirmed ε: estimates on *test* with their 95 % intervals, and the paired difference in
    accuracy; in BLEU, of translations.

    The interval of the difference is the repeated one, which holds at whatever number of seeds was enough.
    """
    columns = [metric for metric in COLUMNS if not metric.startswith("nll")]
    if any("bleu" in comparison.estimates for comparison in comparisons):
        columns = ["bleu", *columns]
    compared = columns[0]
    rows = []
    for comparison in sorted(comparisons, key=lambda comparison: comparison.epsilon):
        cells = [bracketed(comparison.estimates[metric], metric) for metric in columns]
        shown = (
            ""
            if comparison.epsilon == 0
            else bracketed(comparison.difference(compared), compared, 2, signed=True)
        )
        rows.append((name(comparison.outcome), str(len(comparison.outcome.seeds)), *cells, shown))
    header = (
        "ε",
        "fresh seeds",
        *(display(metric).heading for metric in columns),
        "Δ BLEU" if compared == "bleu" else "Δ accuracy pp",
    )
    return Table("Confirmed on test: value [95 % interval]", header, tuple(rows))


def people(comparisons: Sequence[Comparison]) -> Table:
    """A row per confirmed ε: distances on *test* to the label distributions of people. No rows where those
    are not known.
    """
    rows = [
        (name(comparison.outcome), *(bracketed(comparison.estimates[one], one) for one in TOWARDS_PEOPLE))
        for comparison in sorted(comparisons, key=lambda comparison: comparison.epsilon)
        if all(one in comparison.estimates for one in TOWARDS_PEOPLE)
    ]
    title = "Towards people's labels, on test: value [95 % interval]"
    return Table(title, ("ε", *(display(one).heading for one in TOWARDS_PEOPLE)), tuple(rows))


def conditions(recommendation: Recommendation) -> Table:
    """A row per condition of a recommendation: verdict, what was found, and what would change it. No rows
    where the candidate is 0.
    """
    rows = [
        ("met" if one.met else "NOT met", one.name, one.sentence, one.remedy)
        for one in recommendation.conditions
    ]
    title = (
        f"Conditions of policy {recommendation.policy} on its candidate ε ="
        f" {epsilon(recommendation.candidate)}"
    )
    return Table(title, ("", "condition", "found", "what would change it"), tuple(rows), sentences=True)


def count(seeds: int, kind: str = "") -> str:
    """So many seeds."""
    return f"{seeds} {kind}seed{'' if seeds == 1 else 's'}"


def name(outcome: Outcome) -> str:
    """ε, and any other tuned value, in short."""
    return " ".join([epsilon(outcome.epsilon), *beside(outcome.point)])


def plus_minus(value: float, deviation: float | None, metric: str, signed: bool = False) -> str:
    """A value and its spread as a metric is shown; None where one seed has none."""
    shown = display(metric)
    text = number(shown.scale * value, shown.decimals, signed or shown.better == "nearer 0")
    return text if deviation is None else f"{text} ±{number(shown.scale * deviation, shown.decimals)}"


def bracketed(interval: Interval, metric: str, decimals: int | None = None, signed: bool = False) -> str:
    """A value and its interval as a metric is shown, to one decimal fewer than in the screening."""
    shown = display(metric)
    places = shown.decimals - 1 if decimals is None else decimals
    signed = signed or shown.better == "nearer 0"
    ends = (interval.value, interval.low, interval.high)
    value, low, high = (number(shown.scale * one, places, signed) for one in ends)
    return f"{value} [{low}, {high}]"
