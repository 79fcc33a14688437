"""RiskCoverage: how often a model errs on the part of the examples where it is most confident."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lscal.diagrams import style
from lscal.diagrams.style import ThemeName

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.figure import Figure
    from torch import Tensor

POINTS = 200
HEIGHT = 250
NAME = 200
"""Pixels for the name of a model."""
SETTLED = 0.05
"""The axis fits the curves from this coverage on: below it the risk of a handful of examples jumps between 0
and 1.
"""


@dataclass(frozen=True)
class Curve:
    """The curve of one model.

    Attributes:
        name: of the model.
        coverage: shares of the examples, the most confident ones, in (0, 1]; ascending, the last is 1.
        risk: error rate among them, in [0, 1].
        aurc: mean risk over all coverages 1/N … 1, not only those listed; lower is better.
    """

    name: str
    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    aurc: float


@dataclass(frozen=True)
class RiskCoverage:
    """Risk-coverage curves of several models.

    Attributes:
        title: what is shown.
        curves: one per model.
        break_even: the coverage from which on one of the first two models errs no more than the other, in (0,
            1), as `selective.break_even` returns it; None where nothing is marked.
    """

    title: str
    curves: tuple[Curve, ...]
    break_even: float | None

    @classmethod
    def of(
        cls,
        title: str,
        risks: 'Mapping[str, Float[Tensor, "*member example"]]',
        break_even: float | None = None,
    ) -> "RiskCoverage":
        """From each model's risk at coverage 1/N, 2/N, …, 1: what `selective.risk_coverage` returns, the mean
        of the members.

        At most 200 coverages are kept, unchanged: half of them evenly spaced, half by equal factors, for the
        left end is where a curve turns most. The first and the last are among them. A break-even of 0, 1 or
        NaN is no crossing, and not marked. Errors: ValueError where there is no model or a model has no
        examples.
        """
        if not risks:
            raise ValueError(f"{title}: there are no models to draw; wanted at least 1")
        crossing = break_even if break_even is not None and 0 < break_even < 1 else None
        return cls(title, tuple(thinned(name, risk) for name, risk in risks.items()), crossing)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is said below the title; a name is not broken at its spaces."""
        if self.break_even is None or len(self.curves) < 2:
            return ()
        first, second = self.curves[:2]
        excess = [risk_above(curve, self.break_even) for curve in (first, second)]
        better, worse = (
            curve.name.replace(" ", "\u00a0")
            for curve in ((first, second) if excess[0] <= excess[1] else (second, first))
        )
        return (f"break-even {self.break_even:.1%}: above it {better} errs no more than {worse}",)

    @property
    def ceiling(self) -> float:
        """The top of the risk axis."""
        settled = [
            risk
            for curve in self.curves
            for at, risk in zip(curve.coverage, curve.risk, strict=True)
            if at >= SETTLED
        ]
        return min(1.0, max(1.15 * max(settled), 0.01))

    def draw(self, theme: ThemeName = "light", width: int = 400) -> "Figure":
        """Draw for print, `width` pixels wide at 100 per inch.

        Models differ in colour, dash and marker. The left end is ranking alone, the right end the error rate;
        the break-even is a vertical line. A risk of the few most confident examples that is far above all
        others leaves the panel at the top.
        """
        from matplotlib.lines import Line2D

        colours = style.theme_of(theme)
        looks: list[dict[str, Any]] = []
        for i in range(len(self.curves)):
            colour, stroke = style.line_of(colours, i)
            looks.append(
                {
                    "color": colour,
                    "linewidth": 1.6,
                    "linestyle": stroke.dash,
                    "marker": stroke.marker,
                    "markersize": 4.5,
                }
            )
        entries = [
            style.Entry(f"{style.shortened(curve.name, NAME)} ({aurc(curve)})", (Line2D([], [], **look),))
            for curve, look in zip(self.curves, looks, strict=True)
        ]
        mark: dict[str, Any] = {"color": colours.muted, "linewidth": 1.2, "linestyle": (0, (2, 2))}
        if self.break_even is not None:
            entries.append(style.Entry(f"break-even, {self.break_even:.1%}", (Line2D([], [], **mark),)))
        figure, [[axes]] = style.sheet(colours, width, [(self.title, self.notes)], [HEIGHT], entries)
        for curve, look in zip(self.curves, looks, strict=True):
            axes.plot(curve.coverage, curve.risk, markevery=marked(curve), **look)
        if self.break_even is not None:
            axes.axvline(self.break_even, zorder=1, **mark)
        axes.set(xlim=(0, 1), ylim=(0, self.ceiling), xticks=style.TICKS)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(style.percent)
        style.label(
            axes, colours, x="coverage: share of examples, most confident first", y="error rate among them"
        )
        return figure


def thinned(name: str, risk: 'Float[Tensor, "*member example"]') -> Curve:
    """The mean curve of the members at no more than 200 of its coverages."""
    examples = risk.shape[-1]
    if not examples:
        raise ValueError(f"{name}: there are no examples to draw; wanted at least 1")
    mean = risk.reshape(-1, examples).mean(0)
    half = POINTS // 2
    even = {1 + round(i * (examples - 1) / (half - 1)) for i in range(half)}
    geometric = {round(examples ** (i / (half - 1))) for i in range(half)}
    places = sorted(even | geometric) if examples > POINTS else range(1, examples + 1)
    kept = mean[[place - 1 for place in places]].tolist()
    return Curve(name, tuple(place / examples for place in places), tuple(kept), float(mean.mean()))


def risk_above(curve: Curve, coverage: float) -> float:
    """Mean risk at the coverages listed from this one on."""
    above = [risk for at, risk in zip(curve.coverage, curve.risk, strict=True) if at >= coverage]
    return sum(above) / len(above)


def marked(curve: Curve) -> list[int]:
    """Where the markers are: the points nearest to ten coverages from 0.1 to 1."""
    wanted = [(i + 1) / 10 for i in range(10)]
    nearest = {
        min(range(len(curve.coverage)), key=lambda place: abs(curve.coverage[place] - at)) for at in wanted
    }
    return sorted(nearest)


def aurc(curve: Curve) -> str:
    """The area below a curve, in words."""
    return f"AURC {1000 * curve.aurc:.3g} ‰"
