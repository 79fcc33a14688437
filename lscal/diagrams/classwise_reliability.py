"""ClasswiseReliability: one reliability diagram per class, the class against the rest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lscal.diagrams import reliability, style
from lscal.diagrams.reliability import Reliability
from lscal.diagrams.style import ThemeName

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lscal.binning import BinnedStatistics

MOST = 20
"""Classes drawn."""
SIDE = 92
"""Height of a panel in pixels."""
HEADING = 38
"""Pixels above a panel for the name and the error of its class."""


@dataclass(frozen=True)
class ClasswiseReliability:
    """A grid of reliability diagrams: the probability p_k of class k against the share of examples whose
    label is k.

    Attributes:
        title: what is shown.
        diagrams: one per class shown, each with the class for a title and the calibration error of p_k: in
            the classes' order where all are shown, else the worst first.
        classes: how many there are; at most 20 are shown.
        error: classwise ECE, the mean of all classes' errors, in [0, 1].
    """

    title: str
    diagrams: tuple[Reliability, ...]
    classes: int
    error: float

    @classmethod
    def of(
        cls, title: str, statistics: "BinnedStatistics", names: Sequence[str] | None = None
    ) -> "ClasswiseReliability":
        """From p_k and [label = k], binned: statistics of shape (*member, class, bin). Classes without names
        go by their number.

        Errors: ValueError where there are no examples or not as many names as classes.
        """
        classes = statistics.count.shape[-2]
        names = [str(k) for k in range(classes)] if names is None else names
        if len(names) != classes:
            raise ValueError(f"{title}: there are {len(names)} names for {classes} classes; wanted one each")
        diagrams = [Reliability.of(name, of_class(statistics, k)) for k, name in enumerate(names)]
        worst = sorted(diagrams, key=lambda diagram: -diagram.error)[:MOST]
        return cls(
            title=title,
            diagrams=tuple(diagrams if classes <= MOST else worst),
            classes=classes,
            error=sum(diagram.error for diagram in diagrams) / classes,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """The numbers below the title."""
        shown = len(self.diagrams)
        rest = f"the {shown} worst of {self.classes} classes" if shown < self.classes else f"{shown} classes"
        return (f"classwise ECE {self.error:.2%} · {rest}",)

    def draw(self, theme: ThemeName = "light", width: int = 400) -> "Figure":
        """Draw for print, `width` pixels wide at 100 per inch; the signs are those of `reliability.draw`."""
        colours = style.theme_of(theme)
        entries = list(reliability.signs(colours))
        columns = min(len(self.diagrams), max(1, (width - style.LEFT - style.RIGHT) // 100))
        rows = -(-len(self.diagrams) // columns)
        figure, [[frame]] = style.sheet(
            colours, width, [(self.title, self.notes)], [rows * (SIDE + HEADING)], entries
        )
        frame.set(xticks=(), yticks=())
        frame.spines[:].set_visible(False)
        box = frame.get_position()
        high = figure.get_figheight() * style.DPI
        each = (width - style.LEFT - style.RIGHT - 14 * (columns - 1)) / columns
        for i, diagram in enumerate(self.diagrams):
            row, column = divmod(i, columns)
            left = style.LEFT + column * (each + 14)
            top = (1 - box.y1) * high + row * (SIDE + HEADING)
            axes = style.panel(figure, colours, left, top + HEADING, each, SIDE)
            reliability.draw_accuracy(axes, diagram.filled, colours, size=3)
            axes.set(
                xticks=(0, 0.5, 1),
                xticklabels=("0", ".5", "1"),
                yticks=(0, 0.5, 1),
                yticklabels=("0", ".5", "1"),
            )
            last = i + columns >= len(self.diagrams)
            axes.tick_params(labelbottom=last, labelleft=column == 0)
            name = style.shortened(diagram.title, each, bold=True)
            heading: dict[str, Any] = {"transform": axes.transAxes, "fontsize": style.SMALL, "va": "bottom"}
            axes.text(0, 1 + 17 / SIDE, style.plain(name), color=colours.ink, fontweight="bold", **heading)
            axes.text(0, 1 + 3 / SIDE, f"ECE {diagram.error:.2%}", color=colours.muted, **heading)
        style.label(frame, colours, x="probability of the class", y="share of the class")
        frame.xaxis.labelpad, frame.yaxis.labelpad = 17, 24
        return figure


def of_class(statistics: "BinnedStatistics", k: int) -> "BinnedStatistics":
    """The statistics of one class: shape (*member, bin)."""
    bounds = statistics.bounds
    return replace(
        statistics,
        count=statistics.count[..., k, :],
        confidence=statistics.confidence[..., k, :],
        correct=statistics.correct[..., k, :],
        bounds=bounds if bounds is None or bounds.ndim < 2 else bounds[..., k, :],
    )
