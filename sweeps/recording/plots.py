"""Plots of what a sweep found, for MLflow."""

import io
from dataclasses import dataclass
from typing import Any

from lscal.diagrams import style
from tracking.records.evidence import Evidence
from tracking.records.outcome import screened

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


def overview(evidence: Evidence) -> bytes:
    """A PNG: for each metric the smooth fit of the screening with its 95 % band, the trials, and what was
    confirmed on *test*.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    theme = style.theme_of("light")
    chosen = evidence.recommendations[evidence.policy].epsilon
    looks: list[dict[str, Any]] = []
    for index in range(2):
        colour, stroke = style.line_of(theme, index)
        looks.append({"color": colour, "linestyle": stroke.dash, "linewidth": 1.6})
    mark: dict[str, Any] = {"color": theme.ink, "linewidth": 1.0, "linestyle": (0, (2, 2))}
    dot: dict[str, Any] = {"linestyle": "", "marker": ".", "markersize": 6}
    tested: dict[str, Any] = {
        "linestyle": "",
        "marker": "D",
        "markersize": 4.5,
        "capsize": 3,
        "linewidth": 1.2,
    }
    entries = [
        style.Entry(
            f"screened: fit with 95 % band, {name}",
            (Patch(color=look["color"], alpha=style.VEIL), Line2D([], [], **look)),
        )
        for name, look in zip(("as trained", "after temperature"), looks, strict=True)
    ]
    entries.append(style.Entry("trial of the screening", (Line2D([], [], color=theme.ink, **dot),)))
    entries.append(
        style.Entry(
            "confirmed on test, 95 % interval",
            (Line2D([], [], color=theme.ink, linestyle="", marker="D", markersize=4.5),),
        )
    )
    entries.append(style.Entry(f"recommended ε = {chosen:g}", (Line2D([], [], **mark),)))
    figure, columns = style.sheet(
        theme, WIDTH, [(f"{panel.title}, {panel.unit}", ()) for panel in PANELS], [HEIGHT], entries
    )
    for panel, [axes] in zip(PANELS, columns, strict=True):
        for metric, look in zip(panel.metrics, looks, strict=False):
            if band := evidence.bands.get(metric):
                low, mean, high = (
                    [panel.scale * value for value in row] for row in (band.low, band.mean, band.high)
                )
                axes.fill_between(band.epsilon, low, high, color=look["color"], alpha=style.VEIL, linewidth=0)
                axes.plot(band.epsilon, mean, **look)
            trials = [
                (one.epsilon, panel.scale * one.mean(screened(metric, *evidence.outcomes)))
                for one in evidence.outcomes
            ]
            axes.plot(*zip(*trials, strict=True), color=look["color"], **dot)
            for one in evidence.comparisons:
                found = one.estimates[metric]
                spread = [
                    [panel.scale * (found.value - found.low)],
                    [panel.scale * (found.high - found.value)],
                ]
                axes.errorbar(
                    [one.epsilon],
                    [panel.scale * found.value],
                    yerr=spread,
                    color=look["color"],
                    mec=theme.ink,
                    **tested,
                )
        axes.axvline(chosen, zorder=1, **mark)
        style.label(axes, theme, x="ε")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
