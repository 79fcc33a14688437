"""Style: one look for all diagrams, in Matplotlib and in Plotly, light and dark.

Colours are those of Okabe and Ito (2008), which the colour-blind tell apart, darkened or lightened to stand
out from the paper. Nothing depends on colour alone: lines differ in dash and marker, areas in hatching, so
that a grey print shows the same.
"""

import html
import io
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ThemeName = Literal["light", "dark"]
DPI = 100
"""Pixels per inch: widths and heights below are in these pixels."""
TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
TEXT, SMALL = 9.0, 8.0
"""Sizes in points: of titles, and of all else."""
HINTING = 1.06
"""On pixels a letter begins at a whole one, which makes a line this much longer at most."""
LINE = 16
"""Pixels from one line of text to the next."""
LEFT, RIGHT, BETWEEN, EDGE, SIGN = 52, 18, 28, 12, 46
"""Pixels left and right of the panels, between columns, around all, and for a sign of the legend."""
FLOOR = 0.5
"""Where the bars of a logarithmic axis of counts begin, so that a single example is seen."""
VEIL = 0.22
"""How much of a veil is seen."""


@dataclass(frozen=True)
class Theme:
    """The colours of a diagram.

    Attributes:
        paper: the background.
        ink: text and the data themselves.
        muted: axes, the diagonal, counts.
        grid: lines that guide the eye.
        band: the region in which a calibrated model would fall.
        over: overconfident, or wrong.
        under: underconfident, or right.
        lines: of models, one after the other.
    """

    paper: str
    ink: str
    muted: str
    grid: str
    band: str
    over: str
    under: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Stroke:
    """Dash of a line, by which it differs from the others without colour."""

    dash: Any
    marker: str


THEMES: dict[ThemeName, Theme] = {
    "light": Theme(
        paper="#ffffff",
        ink="#1b1b1b",
        muted="#666666",
        grid="#e4e4e4",
        band="#c9c9c9",
        over="#c65000",
        under="#0072b2",
        lines=("#0072b2", "#c65000", "#00835f", "#a8508a", "#7a6200", "#1b1b1b"),
    ),
    "dark": Theme(
        paper="#15171c",
        ink="#f2f2f2",
        muted="#a8a8a8",
        grid="#2c2f36",
        band="#50545e",
        over="#f08c3a",
        under="#56b4e9",
        lines=("#56b4e9", "#f08c3a", "#2fc79c", "#e39cc6", "#f0e442", "#f2f2f2"),
    ),
}
STROKES = (
    Stroke("-", "o"),
    Stroke((0, (5, 2)), "s"),
    Stroke((0, (5, 2, 1, 2)), "^"),
    Stroke((0, (1, 1.5)), "D"),
    Stroke((0, (9, 3)), "v"),
    Stroke((0, (9, 2, 1, 2, 1, 2)), "P"),
)


def theme_of(name: ThemeName) -> Theme:
    """The theme of a name. Errors: ValueError where there is none."""
    if name not in THEMES:
        raise ValueError(f"no theme named {name!r}; there are {', '.join(THEMES)}")
    return THEMES[name]


def line_of(theme: Theme, index: int) -> tuple[str, Stroke]:
    """Colour and stroke of the model in this place; after the sixth colour with another stroke."""
    colours = len(theme.lines)
    return theme.lines[index % colours], STROKES[(index + index // colours) % len(STROKES)]


def veil(colour: str) -> str:
    """A colour to be seen through, in CSS."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{VEIL})"


def seen(predictions: int, members: int) -> str:
    """How many examples, and how many members saw each."""
    return (
        f"{predictions:,} examples"
        if members == 1
        else f"{predictions // members:,} examples × {members} members"
    )


def percent(share: float, _: object = None) -> str:
    """A share as a percentage in few digits, as the ticks of an axis show it."""
    return f"{100 * share:.3g}%"


# ---- Matplotlib
# --------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """The text as Matplotlib shows it letter by letter: a dollar is no formula."""
    return text.replace("$", r"\$")


def text_width(text: str, bold: bool = False) -> float:
    """Pixels that a line of text takes, as a title where bold, else as a note."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=TEXT if bold else SMALL, weight="bold" if bold else "normal")
    points: float = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    return HINTING * points * DPI / 72


def wrapped(text: str, width: float, bold: bool = False) -> list[str]:
    """The text in lines that are at most `width` pixels wide."""
    lines = [""]
    for characters in range(max(1, len(text)), 0, -1):
        lines = textwrap.wrap(text, characters) or [""]
        if all(text_width(line, bold) <= width for line in lines):
            break
    return lines


def shortened(text: str, width: float, bold: bool = False) -> str:
    """The text, cut with an ellipsis where it is wider than `width` pixels."""
    text = " ".join(text.split())
    if text_width(text, bold) <= width:
        return text
    while text and text_width(f"{text}…", bold) > width:
        text = text[:-1]
    return f"{text}…"


def layers(colour: str, hatch: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A veil, and the hatching over it. In one, a vector file would have its hatching in the colour of the
    veil: not to be seen.
    """
    over: dict[str, Any] = {"facecolor": "none", "edgecolor": colour, "hatch": 4 * hatch, "linewidth": 0}
    return {"facecolor": (colour, VEIL), "edgecolor": colour, "linewidth": 0.6}, over


def hatched(label: str, colour: str, hatch: str) -> "Entry":
    """The same in a legend."""
    from matplotlib.patches import Patch

    return Entry(label, tuple(Patch(**layer) for layer in layers(colour, hatch)))


def compact(number: float, _: object = None) -> str:
    """A count in few letters: 950, 12k, 3M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def sheet(
    theme: Theme,
    width: int,
    headings: Sequence[tuple[str, Sequence[str]]],
    heights: Sequence[int],
    entries: Sequence["Entry"],
    gap: int = 12,
) -> tuple["Figure", list[list["Axes"]]]:
    """A figure of equal columns, each below its title and notes, with panels of these heights and the legend
    at the foot.

    Sizes are in pixels. Returns the figure, made outside of pyplot (it is in no global state and nothing
    needs closing), and the axes of each column from the top. Places are fixed: that takes half the time of a
    constrained layout.
    """
    from matplotlib.figure import Figure

    each = (width - LEFT - RIGHT - BETWEEN * (len(headings) - 1)) / len(headings)
    room = each if len(headings) > 1 else width - 2 * EDGE
    titles = [wrapped(title, room, bold=True) for title, _ in headings]
    notes = [[line for note in notes for line in wrapped(note, room)] for _, notes in headings]
    legend = Legend.of(width, entries)
    top = EDGE + LINE * max(len(title) + len(note) for title, note in zip(titles, notes, strict=True)) + 8
    height = top + sum(heights) + gap * (len(heights) - 1) + 42 + legend.height
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=theme.paper)
    columns = []
    for i, (title, note) in enumerate(zip(titles, notes, strict=True)):
        left = LEFT + i * (each + BETWEEN)
        for line, text in enumerate((*title, *note)):
            write(
                figure,
                theme,
                left if len(headings) > 1 else EDGE,
                EDGE + LINE * line,
                text,
                bold=line < len(title),
            )
        tops = [top + sum(heights[:k]) + gap * k for k in range(len(heights))]
        columns.append(
            [panel(figure, theme, left, at, each, high) for at, high in zip(tops, heights, strict=True)]
        )
    legend.draw(figure, theme)
    return figure, columns


def write(figure: "Figure", theme: Theme, left: float, top: float, text: str, bold: bool = False) -> None:
    """A line of text at this place, in pixels from the upper left corner: a title where bold, else a note."""
    width, height = figure.get_size_inches() * DPI
    figure.text(
        left / width,
        1 - top / height,
        plain(text),
        va="top",
        color=theme.ink if bold else theme.muted,
        fontsize=TEXT if bold else SMALL,
        fontweight="bold" if bold else "normal",
    )


def panel(figure: "Figure", theme: Theme, left: float, top: float, width: float, height: float) -> "Axes":
    """Axes at this place, in pixels from the upper left corner."""
    whole_width, whole_height = figure.get_size_inches() * DPI
    axes = figure.add_axes(
        (left / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height),
        facecolor=theme.paper,
    )
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=theme.grid, linewidth=0.8, linestyle="-", alpha=1)
    axes.tick_params(
        which="both", colors=theme.muted, labelcolor=theme.ink, labelsize=SMALL, length=3, width=0.8, pad=3
    )
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=theme.muted, linewidth=0.8)
    return axes


def label(axes: "Axes", theme: Theme, x: str = "", y: str = "") -> None:
    """Name the axes, as far as there is room."""
    box = axes.get_window_extent()
    axes.set_xlabel(plain(shortened(x, box.width + 40)), color=theme.ink, fontsize=SMALL, labelpad=3)
    axes.set_ylabel(plain(shortened(y, box.height + 10)), color=theme.ink, fontsize=SMALL, labelpad=4)


def logarithmic(axes: "Axes", largest: float) -> None:
    """A logarithmic axis for counts: at most four ticks, 1 and upwards, and room for the largest."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_yscale("log")
    axes.set_ylim(FLOOR, 2 * max(largest, 5))
    axes.yaxis.set_major_locator(FixedLocator(decades(largest)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(compact))


def decades(largest: float) -> list[float]:
    """At most four powers of ten from 1 to the largest count."""
    top = max(1, math.floor(math.log10(max(largest, 10))))
    step = -(-(top + 1) // 4)
    return [10.0**power for power in range(0, top + 1, step)]


@dataclass(frozen=True)
class Entry:
    """What a sign means: the layers of the sign, from below, and the words."""

    label: str
    layers: tuple["Artist", ...]


@dataclass(frozen=True)
class Legend:
    """The entries at the foot of a figure, where they hide no data."""

    entries: tuple[Entry, ...]
    columns: int

    @classmethod
    def of(cls, width: int, entries: Sequence[Entry]) -> "Legend":
        """In as many columns as fit."""
        short = tuple(Entry(shortened(entry.label, width - SIGN - 8), entry.layers) for entry in entries)
        widest = max((text_width(entry.label) for entry in short), default=1.0)
        return cls(short, max(1, min(4, int((width - 8) / (widest + SIGN)))))

    @property
    def height(self) -> int:
        """In pixels."""
        return 18 * -(-len(self.entries) // self.columns) + 6

    def draw(self, figure: "Figure", theme: Theme) -> None:
        """Put it there."""
        width, height = figure.get_size_inches() * DPI
        figure.legend(
            handles=[entry.layers for entry in self.entries],
            labels=[plain(entry.label) for entry in self.entries],
            loc="lower left",
            bbox_to_anchor=(4 / width, 6 / height),
            ncols=self.columns,
            frameon=False,
            fontsize=SMALL,
            labelcolor=theme.ink,
            labelspacing=0.4,
            handlelength=2.2,
            handletextpad=0.6,
            columnspacing=1.2,
            borderaxespad=0.0,
        )


def svg(figure: "Figure", title: str = "") -> str:
    """The figure as an <svg> element to be put into a page: letters are outlines, dense scatters are pixels.

    `title` is read by a screen reader. It scales: give it a width in CSS.
    """
    stream = io.StringIO()
    figure.savefig(
        stream,
        format="svg",
        dpi=2 * DPI,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    whole = stream.getvalue()
    element = whole[whole.index("<svg") :]
    spoken = f'role="img" aria-label="{html.escape(title)}"'
    return re.sub(r"<svg ", f"<svg {spoken} ", element, count=1)
