"""Diagrams: the data of a picture first, then its drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lscal.binning import BinnedStatistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#2a6f97", "#e76f51", "#6c757d"


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: per confidence bin, how many examples, how confident and how often right.

    Attributes:
        title: what is shown.
        count: examples per bin, summed over members.
        confidence: mean confidence per bin, None where the bin is empty.
        accuracy: share of right predictions per bin, None where the bin is empty.
        gap: mean confidence - accuracy over all examples, in [-1, 1].
        error: mean ECE of the members, in [0, 1].
    """

    title: str
    count: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]
    gap: float
    error: float

    @classmethod
    def of(cls, title: str, statistics: BinnedStatistics) -> "Reliability":
        """Pool the members' bins into one diagram; the error quoted is the mean of the members' own."""
        pooled = statistics.pooled()
        rows = list(zip(pooled.count.tolist(), pooled.confidence.tolist(), pooled.correct.tolist(), strict=True))
        return cls(
            title=title,
            count=tuple(int(n) for n, _, _ in rows),
            confidence=tuple(c / n if n else None for n, c, _ in rows),
            accuracy=tuple(r / n if n else None for n, _, r in rows),
            gap=float((pooled.confidence - pooled.correct).sum() / pooled.count.sum()),
            error=float(statistics.calibration_error().mean()),
        )


def draw(diagrams: Sequence[Reliability]) -> "Figure":
    """Draw diagrams side by side: accuracy against confidence with the gap shaded, over a histogram of confidence.

    Returns a Figure outside of pyplot: nothing global is changed and nothing needs closing. An empty bin is drawn empty.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(diagrams), 5.2), layout="constrained", dpi=110)
    axes = figure.subplots(2, len(diagrams), sharex=True, sharey="row", squeeze=False, gridspec_kw={"height_ratios": (3, 1)})
    for (upper, lower), diagram in zip(axes.T, diagrams, strict=True):
        draw_reliability(upper, diagram)
        draw_histogram(lower, diagram)
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("share of examples")
    axes[0, 0].legend(loc="upper left", fontsize=8, frameon=False)
    return figure


def draw_reliability(axes: "Axes", diagram: Reliability) -> None:
    """The upper panel: a bar per filled bin up to its accuracy, the gap to its mean confidence hatched, n on top."""
    width = 1 / len(diagram.count)
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle="--", label="perfect calibration")
    labelled = False
    for i, (n, confidence, accuracy) in enumerate(zip(diagram.count, diagram.confidence, diagram.accuracy, strict=True)):
        if confidence is None or accuracy is None:
            continue
        middle = (i + 0.5) * width
        axes.bar(middle, accuracy, width * 0.94, color=BLUE, label=None if labelled else "accuracy in the bin")
        bottom, height = min(confidence, accuracy), abs(confidence - accuracy)
        style = {"color": ORANGE, "alpha": 0.45, "hatch": "///", "linewidth": 0}
        axes.bar(middle, height, width * 0.94, bottom, label=None if labelled else "gap to mean confidence", **style)
        axes.text(middle, max(confidence, accuracy) + 0.012, f"{n}", ha="center", va="bottom", fontsize=5.5, color=GREY)
        labelled = True
    axes.set(xlim=(0, 1), ylim=(0, 1.08))
    axes.set_title(f"{diagram.title}\nECE {diagram.error:.1%} · confidence - accuracy {diagram.gap:+.1%}", fontsize=9)


def draw_histogram(axes: "Axes", diagram: Reliability) -> None:
    """The lower panel: the share of examples in each confidence bin."""
    bins, total = len(diagram.count), sum(diagram.count)
    middles = [(i + 0.5) / bins for i in range(bins)]
    axes.bar(middles, [n / total for n in diagram.count], 0.94 / bins, color=GREY)
    axes.set_xlabel("confidence")
