"""ConfidenceDrop: the same examples as two models see them, such as one trained with ε = 0 and one with
more.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lscal.diagrams import style
from lscal.diagrams.style import Theme, ThemeName

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lscal.predictions import Predictions

POINTS = 2000
FALLS = 8
HEIGHT, ROW, GAP = 270, 19, 74
LABELS, CLASSES = 124, 104
"""Pixels left and right of the largest falls, for the labels and for what is predicted."""

State = Literal["both", "first", "second", "neither"]
"""Which of the two models are right."""


@dataclass(frozen=True)
class Point:
    """An example of the scatter: its place among those given, both models' confidence in it, and which of
    them are right.
    """

    index: int
    before: float
    after: float
    state: State


@dataclass(frozen=True)
class Instance:
    """An example as both models see it.

    Attributes:
        index: its place among the examples given.
        before: confidence of the first model, in [0, 1].
        after: confidence of the second.
        state: which of them are right.
        label: its class.
        predicted_before: the class that the first model predicts.
        predicted_after: the class that the second model predicts.
    """

    index: int
    before: float
    after: float
    state: State
    label: str
    predicted_before: str
    predicted_after: str


@dataclass(frozen=True)
class ConfidenceDrop:
    """Confidence in the same examples before and after.

    Attributes:
        title: what is shown.
        names: of the two models.
        examples: how many are compared.
        states: how many of them both models have right, only the first, only the second, neither.
        mean: mean confidence of the two models.
        points: a sample of at most 2000 examples, in their order.
        falls: the examples whose confidence falls most, the largest fall first; none that rises.
    """

    title: str
    names: tuple[str, str]
    examples: int
    states: tuple[int, int, int, int]
    mean: tuple[float, float]
    points: tuple[Point, ...]
    falls: tuple[Instance, ...]

    @classmethod
    def of(
        cls,
        title: str,
        names: tuple[str, str],
        before: "Predictions",
        after: "Predictions",
        classes: Sequence[str] | None = None,
        falls: int = FALLS,
        random_state: int = 0,
    ) -> "ConfidenceDrop":
        """Compare two models on the same examples. Classes without names go by their number.

        The sample is drawn evenly, the same for the same `random_state`. Equal falls are in the examples'
        order. Errors: ValueError where the predictions are of populations, or not of the same examples.
        """
        import torch

        if before.member or after.member:
            raise ValueError(
                f"{title}: predictions of {before.member} and {after.member} members; wanted one model each"
            )
        index, same = (
            list(range(one.examples)) if one.keep is None else one.keep.tolist() for one in (before, after)
        )
        if index != same or not torch.equal(before.labels, after.labels):
            raise ValueError(
                f"{title}: the labels differ; wanted predictions of the same examples in the same order"
            )
        name = [str(k) for k in range(before.classes)] if classes is None else classes
        first, second = before.confidence.tolist(), after.confidence.tolist()
        states = [state(*pair) for pair in zip(before.correct.tolist(), after.correct.tolist(), strict=True)]
        sample: Sequence[int] = range(before.examples)
        if len(sample) > POINTS:
            sample = sorted(random.Random(random_state).sample(sample, POINTS))  # noqa: S311  a picture, no secret
        order = torch.argsort(before.confidence - after.confidence, descending=True, stable=True)[
            :falls
        ].tolist()
        return cls(
            title=title,
            names=names,
            examples=before.examples,
            states=(
                states.count("both"),
                states.count("first"),
                states.count("second"),
                states.count("neither"),
            ),
            mean=(float(before.confidence.mean()), float(after.confidence.mean())),
            points=tuple(Point(index[i], first[i], second[i], states[i]) for i in sample),
            falls=tuple(
                Instance(
                    index=index[i],
                    before=first[i],
                    after=second[i],
                    state=states[i],
                    label=name[int(before.labels[i])],
                    predicted_before=name[int(before.predicted[i])],
                    predicted_after=name[int(after.predicted[i])],
                )
                for i in order
                if first[i] > second[i]
            ),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """The numbers below the title."""
        part = f"{len(self.points):,} of " if len(self.points) < self.examples else ""
        return (
            f"mean confidence {self.mean[0]:.1%} → {self.mean[1]:.1%} · {part}{self.examples:,} examples",
        )

    def draw(self, theme: ThemeName = "light", width: int = 400) -> "Figure":
        """Draw for print, `width` pixels wide at 100 per inch.

        Above: a point per example, its confidence after against before; below the diagonal it fell. Ringed
        are the examples that fall most; below they are listed with index, label, both confidences and what
        both models predict. The scatter is made of pixels in a vector file: two thousand outlines would be
        slow to show.
        """
        from matplotlib.lines import Line2D

        colours = style.theme_of(theme)
        signs = self.signs(colours)
        entries = [style.Entry(sign.label, (Line2D([], [], markersize=5, **sign.look),)) for sign in signs]
        heights = [HEIGHT, ROW * len(self.falls)] if self.falls else [HEIGHT]
        figure, [[scatter, *rest]] = style.sheet(
            colours, width, [(self.title, self.notes)], heights, entries, gap=GAP
        )
        scatter.plot((0, 1), (0, 1), color=colours.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for sign in signs:
            points = [point for point in self.points if point.state == sign.state]
            scatter.plot(
                [p.before for p in points],
                [p.after for p in points],
                markersize=sign.size,
                clip_on=False,
                rasterized=True,
                zorder=sign.size,
                **sign.look,
            )
        scatter.plot(
            [fall.before for fall in self.falls],
            [fall.after for fall in self.falls],
            linestyle="none",
            marker="o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=colours.ink,
            clip_on=False,
            zorder=9,
        )
        scatter.set(xlim=(0, 1), ylim=(0, 1), xticks=style.TICKS, yticks=style.TICKS)
        style.label(scatter, colours, x=f"confidence, {self.names[0]}", y=f"confidence, {self.names[1]}")
        for axes in rest:
            self._list(figure, axes, colours, signs)
        return figure

    def _list(self, figure: "Figure", axes: "Axes", theme: Theme, signs: Sequence["Sign"]) -> None:
        """The largest falls, a line each: from the confidence before, a ring, to that after, the sign of the
        example's state.
        """
        width, height = figure.get_size_inches() * style.DPI
        box = axes.get_position()
        left, right = max(LABELS, width / 6), max(CLASSES, width / 6)
        axes.set_position((left / width, box.y0, 1 - (left + right) / width, box.height))
        looks = {sign.state: sign.look for sign in signs}
        for row, fall in enumerate(self.falls):
            axes.plot((fall.before, fall.after), (row, row), color=theme.muted, linewidth=1.2, zorder=2)
            axes.plot(
                fall.before,
                row,
                linestyle="none",
                marker="o",
                markersize=5,
                markerfacecolor=theme.paper,
                markeredgecolor=theme.ink,
                zorder=3,
                clip_on=False,
            )
            axes.plot(
                fall.after, row, markersize=5.5, zorder=3, clip_on=False, **{**looks[fall.state], "alpha": 1}
            )
            top = (1 - box.y1) * height + ROW * row + 4
            style.write(
                figure,
                theme,
                style.EDGE,
                top,
                style.shortened(f"{fall.index}: {fall.label}", left - style.EDGE - 10),
            )
            style.write(figure, theme, width - right + 10, top, style.shortened(predicted(fall), right - 18))
        for place, text in (
            (style.EDGE, "index: label"),
            (left, "largest falls"),
            (width - right + 10, "predicted"),
        ):
            style.write(figure, theme, place, (1 - box.y1) * height - 18, text, bold=True)
        axes.set(xlim=(0, 1), ylim=(len(self.falls) - 0.5, -0.5), xticks=style.TICKS, yticks=())
        axes.spines["left"].set_visible(False)
        style.label(axes, theme, x="confidence: ring before, sign after")

    def signs(self, theme: Theme) -> tuple["Sign", ...]:
        """How each state is drawn; those with more examples first."""
        before, after = self.names
        both, first, second, neither = self.states
        return (
            Sign("both", f"right in both ({both:,})", theme.under, "o", 3),
            Sign("neither", f"wrong in both ({neither:,})", theme.muted, "x", 4),
            Sign("first", f"only {before} right ({first:,})", theme.over, "v", 5),
            Sign("second", f"only {after} right ({second:,})", theme.lines[2], "^", 5),
        )


@dataclass(frozen=True)
class Sign:
    """How the examples of a state are drawn; `size` is that of their markers, in points."""

    state: State
    label: str
    colour: str
    shape: str
    size: int

    @property
    def look(self) -> dict[str, Any]:
        """For Matplotlib."""
        edge = self.colour if self.shape == "x" else "none"
        alpha = 0.5 if self.state == "both" else 0.9
        return {
            "linestyle": "none",
            "marker": self.shape,
            "color": self.colour,
            "markeredgecolor": edge,
            "alpha": alpha,
        }


def state(first: bool, second: bool) -> State:
    """Which of the models are right."""
    if first:
        return "both" if second else "first"
    return "second" if second else "neither"


def predicted(fall: Instance) -> str:
    """What the models predict: one class where they agree."""
    if fall.predicted_before == fall.predicted_after:
        return fall.predicted_before
    return f"{fall.predicted_before} → {fall.predicted_after}"
