"""SmoothReliability: accuracy against confidence without bins."""

import math
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from lscal.diagrams import consistency, style
from lscal.diagrams.reliability import HEIGHTS, PERFECT, REGION, diagonal, sides
from lscal.diagrams.style import ThemeName

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from matplotlib.figure import Figure
    from torch import Tensor

MESH = 200
CELLS = 2000
"""Confidences are first shared out to the two nearest of this many cells: the cost of smoothing does not grow
with the examples.
"""
NARROWEST, WIDEST = 0.01, 0.05
"""Bandwidths: two steps of the mesh; and what still shows the shape of a model far from calibrated, which
half its error would hide.
"""
REACH = style.FLOOR
"""A point of the mesh is empty where the examples near it weigh less than this together; one right there
weighs 1.
"""


@dataclass(frozen=True)
class Point:
    """A point of the mesh that is near some examples: their weight, confidence and accuracy, and where a
    calibrated model would be.
    """

    at: float
    weight: float
    confidence: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class SmoothReliability:
    """A reliability diagram smoothed by a kernel, after Błasiok and Nakkiran 2024, "Smooth ECE: principled
    reliability diagrams".

    At each point t of a mesh over [0, 1], examples weigh by a Gaussian reflected at 0 and 1; confidence and
    accuracy are their weighted means (Nadaraya and Watson). Accuracy is drawn against that mean confidence,
    not against t. So both stay in [0, 1], a calibrated model lies on the diagonal whatever the bandwidth, and
    the gap is the smoothed residual, whose mean over the density is the smooth ECE.

    Attributes:
        title: what is shown.
        mesh: the points t.
        confidence: weighted mean confidence at t, None where no example is near.
        accuracy: weighted share of right predictions at t, None likewise.
        low: lower end of the region where 95 % of calibrated models fall at this point, None likewise; see
            `consistency.smooth`.
        high: its upper end.
        density: of the confidences at t; its integral over [0, 1] is 1.
        examples: how many, summed over members.
        members: how many models saw the examples.
        bandwidth: standard deviation of the Gaussian.
        gap: mean confidence - accuracy over all examples, in [-1, 1].
        error: mean smooth ECE of the members, in [0, 1].
    """

    title: str
    mesh: tuple[float, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    density: tuple[float, ...]
    examples: int
    members: int
    bandwidth: float
    gap: float
    error: float

    @classmethod
    def of(
        cls,
        title: str,
        confidence: 'Float[Tensor, "*member example"]',
        correct: 'Bool[Tensor, "*member example"]',
        error: float,
    ) -> "SmoothReliability":
        """Smooth the pooled examples of all members.

        `error` is the smooth ECE, the mean of the members'. It is the bandwidth too, as that measure defines
        it, within 0.01 and 0.05. The region takes members to be right on the same examples, as
        `consistency.binomial` does. Errors: ValueError where there are no examples.
        """
        import torch

        members = confidence.shape[:-1].numel()
        values = confidence.detach().flatten().to("cpu", torch.float64)
        right = correct.flatten().to("cpu", torch.float64)
        if not len(values):
            raise ValueError(f"{title}: there are no examples to draw; wanted at least 1")
        bandwidth = min(max(error, NARROWEST), WIDEST)
        mesh = torch.linspace(0, 1, MESH, dtype=torch.float64)
        kernel = reflected(mesh.unsqueeze(1), torch.linspace(0, 1, CELLS + 1, dtype=torch.float64), bandwidth)
        weight = kernel @ shared(values, torch.ones_like(values))
        middle = (kernel @ shared(values, values) / weight).clamp(0, 1)
        variance = members * (kernel.square() @ shared(values, values * (1 - values))) / weight.square()
        empty = (weight < REACH).tolist()

        def shown(column: "Tensor") -> tuple[float | None, ...]:
            return tuple(
                None if hidden else value for hidden, value in zip(empty, column.tolist(), strict=True)
            )

        low, high = consistency.smooth(shown(middle), shown(variance))
        return cls(
            title=title,
            mesh=tuple(mesh.tolist()),
            confidence=shown(middle),
            accuracy=shown((kernel @ shared(values, right) / weight).clamp(0, 1)),
            low=low,
            high=high,
            density=tuple((weight / (len(values) * bandwidth * math.sqrt(2 * math.pi))).tolist()),
            examples=len(values),
            members=members,
            bandwidth=bandwidth,
            gap=float((values - right).mean()),
            error=error,
        )

    @property
    def runs(self) -> tuple[tuple[Point, ...], ...]:
        """The points that are near some examples, in unbroken runs: all that is drawn."""
        each = self.examples * self.bandwidth * math.sqrt(2 * math.pi)
        columns = zip(
            self.mesh, self.density, self.confidence, self.accuracy, self.low, self.high, strict=True
        )
        points = [
            (
                None
                if c is None or a is None or low is None or high is None
                else Point(t, density * each, c, a, low, high)
            )
            for t, density, c, a, low, high in columns
        ]
        grouped = (
            tuple(point for point in run if point is not None)
            for _, run in groupby(points, lambda point: point is None)
        )
        return tuple(run for run in grouped if run)

    @property
    def notes(self) -> tuple[str, str]:
        """The numbers below the title."""
        return (
            f"smooth ECE {self.error:.1%} · confidence - accuracy {100 * self.gap:+.1f} pp",
            f"{style.seen(self.examples, self.members)} · bandwidth {self.bandwidth:.3f}",
        )

    def draw(self, theme: ThemeName = "light", width: int = 400) -> "Figure":
        """Draw for print, `width` pixels wide at 100 per inch: as `reliability.draw`, with a curve in place
        of the bins.

        The panel below shows the weight of the examples near each point; one right there weighs 1.
        """
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        colours = style.theme_of(theme)
        entries = [
            style.Entry("accuracy", (Line2D([], [], color=colours.ink, linewidth=1.8),)),
            style.Entry(REGION, (Patch(facecolor=colours.band),)),
            style.Entry(PERFECT, (Line2D([], [], **diagonal(colours)),)),
            *(style.hatched(f"gap: {side.name}", side.colour, side.hatch) for side in sides(colours)),
        ]
        figure, [[upper, lower]] = style.sheet(colours, width, [(self.title, self.notes)], HEIGHTS, entries)
        upper.plot((0, 1), (0, 1), zorder=2, **diagonal(colours))
        for run in self.runs:
            x, y = [point.confidence for point in run], [point.accuracy for point in run]
            upper.fill_between(
                x,
                [p.low for p in run],
                [p.high for p in run],
                facecolor=colours.band,
                edgecolor=colours.band,
                linewidth=1,
                zorder=1,
            )
            for side in sides(colours):
                part = [side.holds(point.confidence, point.accuracy) for point in run]
                for layer in style.layers(side.colour, side.hatch):
                    upper.fill_between(x, x, y, where=part, interpolate=True, zorder=3, **layer)
            upper.plot(x, y, color=colours.ink, linewidth=1.8, zorder=4)
            lower.fill_between(
                x,
                style.FLOOR,
                [p.weight for p in run],
                facecolor=colours.muted,
                edgecolor=colours.muted,
                zorder=2,
            )
        upper.set(xlim=(0, 1), ylim=(0, 1), xticks=style.TICKS, yticks=style.TICKS)
        upper.tick_params(labelbottom=False)
        lower.set(xlim=(0, 1), xticks=style.TICKS)
        style.logarithmic(lower, self.most)
        style.label(upper, colours, y="accuracy")
        style.label(lower, colours, x="confidence", y="near by")
        return figure

    @property
    def most(self) -> float:
        """The largest weight of the examples near a point."""
        return max((point.weight for run in self.runs for point in run), default=1.0)


def reflected(
    at: 'Float[Tensor, "mesh 1"]', cell: 'Float[Tensor, " cell"]', bandwidth: float
) -> 'Float[Tensor, "mesh cell"]':
    """A Gaussian of height 1 around each cell, reflected at 0 and at 1, seen from each point of the mesh."""
    import torch

    images = [image for k in (-2, 0, 2) for image in (cell + k, k - cell)]
    return torch.stack([(((at - image) / bandwidth).square() / -2).exp() for image in images]).sum(0)


def shared(
    confidence: 'Float[Tensor, " example"]', values: 'Float[Tensor, " example"]'
) -> 'Float[Tensor, " cell"]':
    """Σ values, each shared out to the two cells nearest to its confidence: the nearer cell takes the larger
    part.
    """
    import torch

    place = confidence.clamp(0, 1) * CELLS
    below = place.long().clamp(max=CELLS - 1)
    above = (place - below) * values
    total = torch.bincount(below, weights=values - above, minlength=CELLS + 1)
    return total + torch.bincount(below + 1, weights=above, minlength=CELLS + 1)
