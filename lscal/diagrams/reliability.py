"""Reliability: accuracy against confidence, bin by bin."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lscal.diagrams import consistency, style
from lscal.diagrams.style import Theme, ThemeName

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import PathPatch

    from lscal.binning import BinnedStatistics

Binning = Literal["equal width", "equal mass"]
HEIGHTS = (250, 66)
"""Heights of the two panels in pixels."""


@dataclass(frozen=True)
class Bin:
    """A bin that holds examples: its edges, how many, how confident, how often right, and where a calibrated
    model would be.
    """

    left: float
    right: float
    count: int
    confidence: float
    accuracy: float
    low: float
    high: float

    @property
    def outside(self) -> bool:
        """Whether a calibrated model would hardly be here."""
        return not self.low <= self.accuracy <= self.high


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: per confidence bin, how many examples, how confident and how often right.

    Attributes:
        title: what is shown.
        binning: how the bins were cut.
        edges: where they begin and end, one more than there are bins.
        count: examples per bin, summed over members.
        confidence: mean confidence per bin, None where the bin is empty.
        accuracy: share of right predictions per bin, None where the bin is empty.
        low: lower end of the region where 95 % of calibrated models fall, None where the bin is empty; see
            `consistency.binomial`.
        high: its upper end.
        gap: mean confidence - accuracy over all examples, in [-1, 1].
        error: mean ECE of the members over these bins, in [0, 1].
        members: how many models saw the examples.
    """

    title: str
    binning: Binning
    edges: tuple[float, ...]
    count: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    gap: float
    error: float
    members: int

    @classmethod
    def of(cls, title: str, statistics: "BinnedStatistics") -> "Reliability":
        """Pool the members' bins into one diagram; the error quoted is the mean of the members' own.

        Errors: ValueError where there are no examples, or where every member has bins of its own.
        """
        pooled = statistics.pooled()
        if not pooled.count.sum() > 0:
            raise ValueError(f"{title}: there are no examples to draw; wanted at least 1")
        rows = list(
            zip(pooled.count.tolist(), pooled.confidence.tolist(), pooled.correct.tolist(), strict=True)
        )
        return cls.of_bins(
            title,
            count=[int(n) for n, _, _ in rows],
            confidence=[c / n if n else None for n, c, _ in rows],
            accuracy=[r / n if n else None for n, _, r in rows],
            gap=float((pooled.confidence - pooled.correct).sum() / pooled.count.sum()),
            error=float(statistics.calibration_error().mean()),
            members=statistics.count.shape[:-1].numel(),
            edges=None if statistics.bounds is None else pooled.edges.tolist(),
        )

    @classmethod
    def of_bins(
        cls,
        title: str,
        *,
        count: Sequence[int],
        confidence: Sequence[float | None],
        accuracy: Sequence[float | None],
        gap: float,
        error: float,
        members: int,
        edges: Sequence[float] | None = None,
    ) -> "Reliability":
        """From what was kept of the bins of so many members. Without `edges` they are of equal width."""
        low, high = consistency.binomial(count, confidence, members)
        return cls(
            title=title,
            binning="equal width" if edges is None else "equal mass",
            edges=tuple(i / len(count) for i in range(len(count) + 1)) if edges is None else tuple(edges),
            count=tuple(count),
            confidence=tuple(confidence),
            accuracy=tuple(accuracy),
            low=low,
            high=high,
            gap=gap,
            error=error,
            members=members,
        )

    @property
    def filled(self) -> tuple[Bin, ...]:
        """The bins that hold examples: all that is drawn."""
        columns = zip(
            self.edges,
            self.edges[1:],
            self.count,
            self.confidence,
            self.accuracy,
            self.low,
            self.high,
            strict=False,
        )
        return tuple(
            Bin(left, right, count, confidence, accuracy, low, high)
            for left, right, count, confidence, accuracy, low, high in columns
            if confidence is not None and accuracy is not None and low is not None and high is not None
        )

    @property
    def notes(self) -> tuple[str, str]:
        """The numbers below the title."""
        bins = self.filled
        kind = "ECE" if self.binning == "equal width" else "equal-mass ECE"
        return (
            f"{kind} {self.error:.1%} · confidence - accuracy {100 * self.gap:+.1f} pp",
            (
                f"{style.seen(sum(self.count), self.members)} · {sum(b.outside for b in bins)} of {len(bins)}"
                " bins outside"
            ),
        )

    def draw(self, theme: ThemeName = "light", width: int = 400) -> "Figure":
        """Draw for print, `width` pixels wide at 100 per inch."""
        return draw([self], theme, width)


def draw(diagrams: Sequence[Reliability], theme: ThemeName = "light", width: int | None = None) -> "Figure":
    """Draw diagrams side by side, 360 pixels each by default: the same axes, so that the eye can compare.

    Above: a dot and a line per bin at its accuracy, the gap to its mean confidence hatched (which way tells
    over- from underconfidence), behind it the region where a calibrated model would fall. A full dot lies
    outside of it. Below: examples per bin on a logarithmic axis, for the small bins are those to be careful
    with, and a linear axis hides them. An empty bin is drawn empty.

    Returns a Figure outside of pyplot: nothing global is changed and nothing needs closing.
    """
    colours = style.theme_of(theme)
    width = width or (400 if len(diagrams) == 1 else 360 * len(diagrams))
    entries = list(signs(colours))
    figure, columns = style.sheet(
        colours, width, [(one.title, one.notes) for one in diagrams], HEIGHTS, entries
    )
    largest = max(max(diagram.count) for diagram in diagrams)
    for i, ((upper, lower), diagram) in enumerate(zip(columns, diagrams, strict=True)):
        draw_accuracy(upper, diagram.filled, colours)
        draw_counts(lower, diagram.filled, colours, largest)
        upper.tick_params(labelbottom=False)
        style.label(upper, colours, y="" if i else "accuracy")
        style.label(lower, colours, x="confidence", y="" if i else "examples")
        for axes in (upper, lower):
            axes.tick_params(labelleft=i == 0)
    return figure


def draw_accuracy(axes: "Axes", bins: Sequence[Bin], theme: Theme, size: float = 5) -> None:
    """The upper panel: region, gap and accuracy of each bin that holds examples."""
    from matplotlib.collections import LineCollection

    axes.add_patch(
        rectangles(
            [(b, b.low, b.high) for b in bins],
            facecolor=theme.band,
            edgecolor=theme.band,
            linewidth=1,
            zorder=1,
        )
    )
    axes.plot((0, 1), (0, 1), zorder=2, **diagonal(theme))
    for side in sides(theme):
        gaps = [(b, b.confidence, b.accuracy) for b in side.of(bins)]
        for layer in style.layers(side.colour, side.hatch) if gaps else ():
            axes.add_patch(rectangles(gaps, zorder=3, **layer))
    steps = [((b.left, b.accuracy), (b.right, b.accuracy)) for b in bins]
    axes.add_collection(LineCollection(steps, colors=theme.ink, linewidths=1.4, zorder=4))
    for outside in sorted({b.outside for b in bins}):
        shown = [b for b in bins if b.outside == outside]
        axes.plot(
            [b.confidence for b in shown],
            [b.accuracy for b in shown],
            **{**dot(theme, outside), "linestyle": "none", "markersize": size},
            clip_on=False,
            zorder=5,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=style.TICKS, yticks=style.TICKS)


def draw_counts(axes: "Axes", bins: Sequence[Bin], theme: Theme, largest: int) -> None:
    """The lower panel: examples per bin."""
    spans = [(b, style.FLOOR, float(b.count)) for b in bins]
    axes.add_patch(rectangles(spans, facecolor=theme.muted, edgecolor=theme.paper, linewidth=0.5, zorder=2))
    axes.set(xlim=(0, 1), xticks=style.TICKS)
    style.logarithmic(axes, largest)


@dataclass(frozen=True)
class Side:
    """One of the two ways to be wrong about oneself."""

    name: str
    colour: str
    hatch: str

    def holds(self, confidence: float, accuracy: float) -> bool:
        """Whether this pair is on this side."""
        return confidence > accuracy if self.name == "overconfident" else confidence < accuracy

    def of(self, bins: Sequence[Bin]) -> list[Bin]:
        """The bins on this side."""
        return [b for b in bins if self.holds(b.confidence, b.accuracy)]


def sides(theme: Theme) -> tuple[Side, Side]:
    """Over- and underconfidence; the hatching leans with the diagonal or against it."""
    return Side("overconfident", theme.over, "/"), Side("underconfident", theme.under, "\\")


def diagonal(theme: Theme) -> dict[str, Any]:
    """How the line of perfect calibration is drawn."""
    return {"color": theme.muted, "linewidth": 1, "linestyle": (0, (4, 3))}


def dot(theme: Theme, outside: bool) -> dict[str, Any]:
    """How the accuracy of a bin is drawn."""
    face = theme.ink if outside else theme.paper
    return {
        "color": theme.ink,
        "linewidth": 1.4,
        "marker": "o",
        "markersize": 5,
        "markeredgewidth": 1.2,
        "markeredgecolor": theme.ink,
        "markerfacecolor": face,
    }


def rectangles(spans: Sequence[tuple[Bin, float, float]], **look: Any) -> "PathPatch":
    """Rectangles as wide as their bins, from one height to another, as a single shape: that is fast, and
    short in a vector file.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners = [
        [(b.left, low), (b.right, low), (b.right, high), (b.left, high), (b.left, low)]
        for b, low, high in spans
    ]
    return PathPatch(Path.make_compound_path(*(Path(each, closed=True) for each in corners)), **look)


INSIDE, OUTSIDE, REGION, PERFECT = (
    "accuracy, as if calibrated",
    "accuracy, outside region",
    "95 % region if calibrated",
    "accuracy = confidence",
)


def signs(theme: Theme) -> Iterator[style.Entry]:
    """What the signs of a reliability diagram mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    yield style.Entry(INSIDE, (Line2D([], [], **dot(theme, False)),))
    yield style.Entry(OUTSIDE, (Line2D([], [], **dot(theme, True)),))
    yield style.Entry(REGION, (Patch(facecolor=theme.band),))
    yield style.Entry(PERFECT, (Line2D([], [], **diagonal(theme)),))
    for side in sides(theme):
        yield style.hatched(f"gap: {side.name}", side.colour, side.hatch)
