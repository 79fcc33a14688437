"""Plots for MLflow: reliability diagrams of trials, and what a sweep found."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lscal.diagrams import Reliability, draw, style
from tracking.outbox.outbox import Record
from tracking.records.evidence import Evidence
from tracking.records.outcome import Outcome, Stage, screened

DIAGRAMS: dict[Stage, tuple[str, ...]] = {
    "pilot": ("select",),
    "screen": ("select",),
    "confirm": ("test", "test_calibrated"),
}
"""Which of an outcome's bins are drawn."""
Look = dict[str, Any]
"""Keywords of Matplotlib's lines."""
DOT: Look = {"linestyle": "", "marker": ".", "markersize": 6}
TESTED: Look = {"linestyle": "", "marker": "D", "markersize": 4.5, "capsize": 3, "linewidth": 1.2}

WIDTH, HEIGHT = 1000, 230
"""Pixels, of the figure and of its panels."""


@dataclass(frozen=True)
class Panel:
    """A metric over ε, as it is and after temperature scaling, in units of `scale`."""

    title: str
    unit: str
    metrics: tuple[str, ...]
    scale: float


PANELS = (
    Panel("Accuracy", "%", ("accuracy",), 100),
    Panel("Calibration error (ECE)", "%", ("ece", "ece_calibrated"), 100),
    Panel("AURC, lower ranks errors better", "‰", ("aurc",), 1000),
)


class TrialPictures:
    """Reliability diagrams of trials, each beside that of its study's control."""

    def __init__(self) -> None:
        self.controls: dict[str, Outcome] = {}

    def note_controls(self, outcomes: Iterable[Outcome]) -> None:
        """Keep the outcomes at ε = 0."""
        self.controls |= {outcome.study: outcome for outcome in outcomes if outcome.epsilon == 0}

    def of(self, record: Record) -> dict[str, bytes]:
        """Pictures of a trial by path, its control beside it where that is known; none for findings, whose
        entries have them.
        """
        if (outcome := record.outcome) is None:
            return {}
        self.note_controls([outcome])
        control = self.controls.get(outcome.study)
        shown = [outcome] if control is None or outcome.epsilon == 0 else [control, outcome]
        return {picture_path(key): reliability(shown, key) for key in DIAGRAMS[outcome.stage] if outcome.bins}


def picture_path(key: str) -> str:
    """The path of the diagram of some bins among the artifacts."""
    return f"reliability/{key.replace('_calibrated', '_after_temperature')}.png"


def reliability(outcomes: Sequence[Outcome], key: str) -> bytes:
    """Reliability diagrams side by side as PNG, of the bins under `key` of each outcome."""
    split, _, calibrated = key.partition("_")
    after = " after temperature" if calibrated else ""
    return png(
        draw(
            [
                Reliability.of_bins(
                    f"{one.task} at ε = {one.epsilon:.4g}, {split}{after}",
                    count=one.bins[key].count,
                    confidence=one.bins[key].confidence,
                    accuracy=one.bins[key].accuracy,
                    gap=one.bins[key].gap,
                    error=one.bins[key].error,
                    members=len(one.seeds),
                )
                for one in outcomes
            ]
        )
    )


def pictures_of(evidence: Evidence) -> dict[str, bytes]:
    """Pictures of what a sweep found, by path."""
    chosen = evidence.recommendations[evidence.policy]
    control, *others = (one.outcome for one in evidence.comparisons)
    shown = [control, *(one for one in others if one.epsilon == chosen.candidate)][:2]
    return {"overview.png": overview(evidence), "reliability.png": reliability(shown, "test")}


def overview(evidence: Evidence) -> bytes:
    """A PNG: for each metric the smooth fit of the screening with its 95 % band, the trials, and what was
    confirmed on *test*.
    """
    theme = style.theme_of("light")
    chosen = evidence.recommendations[evidence.policy].epsilon
    looks: list[Look] = []
    for index in range(2):
        colour, stroke = style.line_of(theme, index)
        looks.append({"color": colour, "linestyle": stroke.dash, "linewidth": 1.6})
    mark: Look = {"color": theme.ink, "linewidth": 1.0, "linestyle": (0, (2, 2))}
    figure, columns = style.sheet(
        theme,
        WIDTH,
        [(f"{panel.title}, {panel.unit}", ()) for panel in PANELS],
        [HEIGHT],
        legend(theme, looks, mark, chosen),
    )
    for panel, [axes] in zip(PANELS, columns, strict=True):
        for metric, look in zip(panel.metrics, looks, strict=False):
            draw_metric(axes, evidence, panel, metric, look, theme)
        axes.axvline(chosen, zorder=1, **mark)
        style.label(axes, theme, x="ε")
    return png(figure)


def legend(theme: style.Theme, looks: Sequence[Look], mark: Look, chosen: float) -> list[style.Entry]:
    """Entries of the overview's legend."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    tested = Line2D([], [], color=theme.ink, linestyle="", marker="D", markersize=4.5)
    fits = [
        style.Entry(
            f"screened: fit with 95 % band, {name}",
            (Patch(color=look["color"], alpha=style.VEIL), Line2D([], [], **look)),
        )
        for name, look in zip(("as trained", "after temperature"), looks, strict=True)
    ]
    return [
        *fits,
        style.Entry("trial of the screening", (Line2D([], [], color=theme.ink, **DOT),)),
        style.Entry("confirmed on test, 95 % interval", (tested,)),
        style.Entry(f"recommended ε = {chosen:g}", (Line2D([], [], **mark),)),
    ]


def draw_metric(
    axes: Any, evidence: Evidence, panel: Panel, metric: str, look: Look, theme: style.Theme
) -> None:
    """Draw the band, the trials and the confirmed points of a metric."""
    if band := evidence.bands.get(metric):
        low, mean, high = ([panel.scale * value for value in row] for row in (band.low, band.mean, band.high))
        axes.fill_between(band.epsilon, low, high, color=look["color"], alpha=style.VEIL, linewidth=0)
        axes.plot(band.epsilon, mean, **look)
    trials = [
        (one.epsilon, panel.scale * one.mean(screened(metric, *evidence.outcomes)))
        for one in evidence.outcomes
    ]
    axes.plot(*zip(*trials, strict=True), color=look["color"], **DOT)
    for one in evidence.comparisons:
        found = one.estimates[metric]
        axes.errorbar(
            [one.epsilon],
            [panel.scale * found.value],
            yerr=[[panel.scale * (found.value - found.low)], [panel.scale * (found.high - found.value)]],
            color=look["color"],
            mec=theme.ink,
            **TESTED,
        )


def png(figure: Any) -> bytes:
    """A figure as PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
