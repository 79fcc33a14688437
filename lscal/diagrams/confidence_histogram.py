"""ConfidenceHistogram: how confident the right and the wrong predictions are."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lscal.diagrams import style
from lscal.diagrams.style import ThemeName

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lscal.binning import BinnedStatistics

HEIGHT = 220


@dataclass(frozen=True)
class ConfidenceHistogram:
    """Right and wrong predictions per confidence bin.

    Attributes:
        title: what is shown.
        edges: where the bins begin and end, one more than there are bins.
        right: right predictions per bin, summed over members.
        wrong: wrong ones.
    """

    title: str
    edges: tuple[float, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]

    @classmethod
    def of(cls, title: str, statistics: "BinnedStatistics") -> "ConfidenceHistogram":
        """Pool the members' bins. Errors: ValueError where every member has bins of its own."""
        pooled = statistics.pooled()
        right = tuple(round(n) for n in pooled.correct.tolist())
        return cls(
            title=title,
            edges=tuple(pooled.edges.tolist()),
            right=right,
            wrong=tuple(round(n) - r for n, r in zip(pooled.count.tolist(), right, strict=True)),
        )

    @property
    def notes(self) -> tuple[str]:
        """The numbers below the title."""
        right, wrong = sum(self.right), sum(self.wrong)
        return (f"{right:,} right, {wrong:,} wrong · accuracy {right / max(1, right + wrong):.1%}",)

    def draw(self, theme: ThemeName = "light", width: int = 400) -> "Figure":
        """Draw for print, `width` pixels wide at 100 per inch.

        Two outlines over each other, not a stack, on a logarithmic axis: wrong predictions are few beside
        right ones and most confidences crowd into one bin, so that a linear axis shows one bar. Confident
        errors, which matter most, are then the hatched part at the right. A bin without examples is empty.
        """
        from matplotlib.patches import Patch

        colours = style.theme_of(theme)
        kinds = (
            ("right", self.right, *style.layers(colours.under, ""), "-"),
            ("wrong", self.wrong, *style.layers(colours.over, "/"), (0, (4, 1.5))),
        )
        bold = [
            (name, counts, ({**veil, "linewidth": 1.6, "linestyle": dash}, hatching))
            for name, counts, veil, hatching, dash in kinds
        ]
        entries = [style.Entry(name, tuple(Patch(**layer) for layer in layers)) for name, _, layers in bold]
        figure, [[axes]] = style.sheet(colours, width, [(self.title, self.notes)], [HEIGHT], entries)
        for _, counts, layers in bold:
            for layer in layers:
                axes.stairs(
                    [n or math.nan for n in counts], self.edges, baseline=style.FLOOR, fill=True, **layer
                )
        axes.set(xlim=(0, 1), xticks=style.TICKS)
        style.logarithmic(axes, max(*self.right, *self.wrong))
        style.label(axes, colours, x="confidence", y="examples")
        return figure
