"""The pictures of the Fashion-MNIST example: those of `lscal.diagrams`, and two of its own."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.findings import ABOUT, FALLEN, SMOOTHED, SURE, Card, Findings
from lscal import Predictions, Temperature
from lscal.diagrams import Reliability, RiskCoverage, draw, style
from lscal.diagrams.style import Theme
from lscal.summary import Whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PIXELS_PER_INCH = 130
"""Sharp on a dense screen."""
COLOURS = 256
TARGET = "smoothed target, 1 - ε(K-1)/K"
WIDTH, COLUMNS, GAP = 880, 5, 16
"""Pixels that a grid of images is wide, how many there are in a row, and pixels between them."""
WORDS, IMAGE, CHART, CARD = 52, 84, 90, 258
"""Pixels of a card: its words, the sides of its image, the height of its chart, and all with the room
below.
"""


def draw_all(findings: Findings, folder: Path) -> None:
    """Write every picture as a PNG."""
    networks = findings.networks
    pictures = {
        "reliability": reliability(networks.at(0.0), networks.at(SMOOTHED), ""),
        "reliability_calibrated": reliability(
            networks.at(0.0, Temperature), networks.at(SMOOTHED, Temperature), ", after temperature"
        ),
        "risk_coverage": (
            RiskCoverage.of("Error rate among the most confident", findings.risks, findings.break_even).draw(
                width=560
            )
        ),
        "fall": fall(findings),
        "sure": cards(
            findings,
            findings.sure,
            "One image of each class, the first that is rightly seen with 99 % or more at ε = 0",
        ),
        "confidence_drop": findings.drop.draw(width=880),
        "lost": cards(
            findings, findings.lost, f"The images which lose most confidence from ε = 0 to ε = {SMOOTHED:g}"
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures.items():
        save(figure, folder / f"{name}.png")


def save(figure: "Figure", path: Path) -> None:
    """As a PNG of so few colours that it takes a third of the space."""
    from PIL import Image

    stream = io.BytesIO()
    figure.savefig(stream, dpi=PIXELS_PER_INCH)
    with Image.open(stream) as picture:
        picture.convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
            path, optimize=True
        )


def reliability(plain: Predictions, smoothed: Predictions, after: str) -> "Figure":
    """The reliability diagrams of ε = 0 and of `SMOOTHED`, side by side."""
    return draw(
        [
            Reliability.of(f"ε = {epsilon:g}{after}", Whole(one).bins)
            for epsilon, one in ((0.0, plain), (SMOOTHED, smoothed))
        ],
        width=800,
    )


def fall(findings: Findings) -> "Figure":
    """Median confidence in the images of which the network was sure, against ε, with the target and the
    crossing of `FALLEN`.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    theme = style.theme_of("light")
    found, epsilons = findings.fall, findings.networks.epsilons
    rows: dict[str, Sequence[float]] = {
        f"median of {SURE:g} or more": found.sure.medians.mean(1).tolist(),
        f"median of {SURE - ABOUT:g} to {SURE + ABOUT:g}": found.about.medians.mean(1).tolist(),
        "first median after temperature": found.calibrated.medians.mean(1).tolist(),
        TARGET: found.target,
    }
    lines: list[dict[str, Any]] = []
    for place in range(3):
        colour, stroke = style.line_of(theme, place)
        lines.append(
            {
                "color": colour,
                "marker": stroke.marker,
                "linestyle": stroke.dash,
                "linewidth": 1.6,
                "markersize": 5,
            }
        )
    lines.append({"color": theme.ink, "linewidth": 1.1, "linestyle": (0, (4, 3))})
    entries = [style.Entry(label, (Line2D([], [], **line),)) for label, line in zip(rows, lines, strict=True)]
    entries.append(style.Entry(f"9 of 10 of {SURE:g} or more", (Patch(facecolor=theme.band),)))
    note = (
        f"{sum(found.sure.images):,} images in {len(found.sure.images)} networks; dotted: where a median is"
        f" {FALLEN:g}"
    )
    title = f"Images seen with a confidence of {SURE:g} at ε = 0"
    figure, [[axes]] = style.sheet(theme, 640, [(title, [note])], [300], entries)
    axes.fill_between(
        epsilons, found.low.tolist(), found.high.tolist(), color=theme.band, alpha=0.6, linewidth=0, zorder=1
    )
    for values, line in zip(rows.values(), lines, strict=True):
        axes.plot(epsilons, values, zorder=3, clip_on=False, **line)
    for where, line in ((found.sure.crossing, lines[0]), (found.about.crossing, lines[1])):
        axes.plot(
            (0, where, where),
            (FALLEN, FALLEN, 0),
            color=line["color"],
            linewidth=1.2,
            linestyle=(0, (1, 1.5)),
            zorder=2,
        )
    axes.set(xlim=(0, max(epsilons)), ylim=(0.4, 1.0))
    style.label(axes, theme, x="ε", y="confidence")
    return figure


def cards(findings: Findings, shown: Sequence[Card], title: str) -> "Figure":
    """Images in a grid, each above its confidence against ε."""
    from matplotlib.lines import Line2D

    theme = style.theme_of("light")
    entries = [style.Entry(label, (Line2D([], [], **look),)) for label, look in looks(theme).items()]
    note = (
        f"above each image its number, confidence at ε = 0 → {SMOOTHED:g}, and what is seen in it; below,"
        " confidence against ε"
    )
    figure, [[frame]] = style.sheet(
        theme, WIDTH, [(title, [note])], [-(-len(shown) // COLUMNS) * CARD], entries
    )
    frame.set(xticks=(), yticks=())
    frame.spines[:].set_visible(False)
    top = (1 - frame.get_position().y1) * figure.get_figheight() * style.DPI
    each = (WIDTH - style.LEFT - style.RIGHT - GAP * (COLUMNS - 1)) / COLUMNS
    for place, card in enumerate(shown):
        row, column = divmod(place, COLUMNS)
        axes = draw_card(
            figure, theme, findings, card, style.LEFT + column * (each + GAP), top + row * CARD, each
        )
        axes.tick_params(labelleft=column == 0, labelbottom=place + COLUMNS >= len(shown))
    style.label(frame, theme, x="ε")
    return figure


def draw_card(
    figure: "Figure", theme: Theme, findings: Findings, card: Card, left: float, top: float, width: float
) -> "Axes":
    """A card at this place; returns its chart."""
    epsilons = findings.networks.epsilons
    after = card.confidence[epsilons.index(SMOOTHED)]
    words = (
        findings.label(card),
        f"{card.index}: {card.confidence[0]:.3f} → {after:.3f}",
        f"as {findings.answer(card)}",
    )
    for line, text in enumerate(words):
        style.write(
            figure,
            theme,
            left,
            top + line * style.LINE,
            style.shortened(text, width, bold=not line),
            bold=not line,
        )
    image = style.panel(figure, theme, left, top + WORDS, IMAGE, IMAGE)
    image.imshow(findings.image(card).numpy(), cmap="gray_r", vmin=0, vmax=255)
    image.set(xticks=(), yticks=())
    image.spines[:].set_visible(False)
    image.grid(visible=False)
    axes = style.panel(figure, theme, left, top + WORDS + IMAGE + 8, width, CHART)
    axes.plot(epsilons, card.confidence, color=theme.muted, linewidth=1.1)
    right, wrong, target = looks(theme).values()
    axes.plot(epsilons, findings.fall.target, **target)
    for look, hit in ((right, True), (wrong, False)):
        points = [
            (x, y)
            for x, y, k in zip(epsilons, card.confidence, card.predicted, strict=True)
            if (k == card.label) == hit
        ]
        axes.plot([x for x, _ in points], [y for _, y in points], clip_on=False, zorder=4, **look)
    axes.set(xlim=(0, max(epsilons)), ylim=(0, 1), yticks=(0, 0.5, 1), yticklabels=("0", ".5", "1"))
    axes.set_xticks((0, 0.1, 0.2, 0.3, 0.4), labels=("0", ".1", ".2", ".3", ""))
    return axes


def looks(theme: Theme) -> dict[str, dict[str, Any]]:
    """How the signs of a card are drawn."""
    return {
        "the answer is right": {"linestyle": "none", "marker": "o", "markersize": 4.5, "color": theme.under},
        "the answer is wrong": {"linestyle": "none", "marker": "x", "markersize": 5, "color": theme.over},
        TARGET: {"color": theme.ink, "linewidth": 1, "linestyle": (0, (4, 3))},
    }
