"""Diagrams: the data of a picture first, then its drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lscal.binning import BinnedStatistics

BLUE, ORANGE, GREY = "#2a6f97", "#e76f51", "#6c757d"
TICKS = (0, 0.2, 0.4, 0.6, 0.8, 1)


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
    def of(cls, title: str, statistics: "BinnedStatistics") -> "Reliability":
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

    figure = Figure(figsize=(3.6 * len(diagrams), 4.8), dpi=100)
    axes = figure.subplots(2, len(diagrams), sharex=True, sharey="row", squeeze=False, gridspec_kw={"height_ratios": (3, 1)})
    figure.subplots_adjust(left=0.6 / figure.get_figwidth(), right=0.98, bottom=0.09, top=0.9, hspace=0.06, wspace=0.12)
    for (upper, lower), diagram in zip(axes.T, diagrams, strict=True):
        draw_reliability(upper, diagram)
        draw_histogram(lower, diagram)
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("share of examples")
    axes[0, 0].legend(loc="upper left", fontsize=8, frameon=False)
    return figure


def draw_reliability(axes: "Axes", diagram: Reliability) -> None:
    """The upper panel: a bar per filled bin up to its accuracy, the gap to its mean confidence hatched, n on top."""
    bins = len(diagram.count)
    edges = [i / bins for i in range(bins + 1)]
    pairs = [(c or 0.0, a or 0.0) for c, a in zip(diagram.confidence, diagram.accuracy, strict=True)]
    lows, highs = [min(pair) for pair in pairs], [max(pair) for pair in pairs]
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle="--", label="perfect calibration")
    axes.stairs([a for _, a in pairs], edges, fill=True, color=BLUE, label="accuracy in the bin")
    axes.stairs(
        highs, edges, baseline=lows, fill=True, facecolor=f"{ORANGE}70", hatch="///", edgecolor=ORANGE, label="gap to mean confidence"
    )
    for i, (high, count) in enumerate(zip(highs, diagram.count, strict=True)):
        if count:
            axes.text((i + 0.5) / bins, high + 0.012, f"{count}", ha="center", va="bottom", fontsize=5.5, color=GREY)
    axes.set(xlim=(0, 1), ylim=(0, 1.08), xticks=TICKS, yticks=TICKS)
    axes.set_title(f"{diagram.title}\nECE {diagram.error:.1%} · confidence - accuracy {diagram.gap:+.1%}", fontsize=9)


def draw_histogram(axes: "Axes", diagram: Reliability) -> None:
    """The lower panel: the share of examples in each confidence bin."""
    bins, total = len(diagram.count), sum(diagram.count)
    axes.stairs([n / total for n in diagram.count], [i / bins for i in range(bins + 1)], fill=True, color=GREY)
    axes.set(xlabel="confidence", xticks=TICKS)
