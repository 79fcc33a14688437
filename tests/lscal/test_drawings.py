"""Drawings of diagrams: what is drawn are the data, nothing is cut, and nothing global changes."""

import io
import math
from functools import cache
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, StepPatch
from populations import population

from lscal import selective
from lscal.binning import BinnedStatistics
from lscal.diagrams import (
    ClasswiseReliability,
    ConfidenceDrop,
    ConfidenceHistogram,
    Reliability,
    RiskCoverage,
    SmoothReliability,
    draw,
    style,
    svg,
)
from lscal.predictions import Predictions

TITLE = "results/<b>digits & co</b>/a_network_with_a_rather_long_name at ε = 0.25, test, paid $5 to $9"


@cache
def gappy() -> Reliability:
    """Two filled bins of fifteen: the fifth, underconfident, and the fourteenth, overconfident."""
    confidence = torch.tensor([0.31, 0.32] + 30 * [0.88] + 10 * [0.90], dtype=torch.float64)
    return Reliability.of(TITLE, BinnedStatistics.of(confidence, torch.arange(42) % 2 == 0))


@cache
def holed() -> SmoothReliability:
    """A curve of two parts, below the diagonal and above it."""
    confidence = torch.tensor([0.7, 0.72, 0.74, 0.2, 0.22], dtype=torch.float64)
    return SmoothReliability.of(
        TITLE, confidence, torch.tensor([False, False, True, True, True]), error=0.021
    )


@cache
def predictions(classes: int = 7) -> list[Predictions]:
    logits, labels = population(seed=20, classes=classes)
    return [Predictions.from_logits(z, labels) for z in logits]


@cache
def histogram() -> ConfidenceHistogram:
    confidence = torch.tensor([0.31, 0.32, 0.88, 0.90, 0.91], dtype=torch.float64)
    return ConfidenceHistogram.of(
        TITLE, BinnedStatistics.of(confidence, torch.tensor([True, False, False, False, False]))
    )


@cache
def curves() -> RiskCoverage:
    risks = [selective.risk_coverage(one.log_confidence, one.correct) for one in predictions()]
    return RiskCoverage.of(
        TITLE,
        {"ε = 0": risks[0], "<a> & $b$ with a name too long for the legend of a narrow figure": risks[2]},
        0.61,
    )


@cache
def grid(classes: int = 7) -> ClasswiseReliability:
    logits, labels = population(seed=20, classes=classes)
    own = labels == torch.arange(classes).unsqueeze(-1)
    names = [f"class {k} of a long name" if k % 2 else f"<{k}> $a$" for k in range(classes)]
    return ClasswiseReliability.of(TITLE, BinnedStatistics.of(logits[0].softmax(-1).T, own), names)


@cache
def drop() -> ConfidenceDrop:
    under, _, over = predictions()
    names = ["cat", "<dog>", "a class of a long name", "$e$", "f", "g & h", "i"]
    return ConfidenceDrop.of(
        TITLE, ("ε = 0", "a_file_of_a_very_long_name_for_ε=0.1_and_seed=3.parquet"), over, under, names
    )


DIAGRAMS = [gappy, holed, histogram, curves, grid, drop]


def patches(axes: Axes) -> list[np.ndarray]:
    """The rectangles of each filled shape as rows (left, bottom, right, top), from the lowest layer up."""
    shapes = sorted(
        (patch for patch in axes.patches if isinstance(patch, PathPatch)), key=lambda patch: patch.zorder
    )
    corners = [patch.get_path().vertices.reshape(-1, 5, 2) for patch in shapes]
    for each in corners:  # by the shoelace formula, the area is that of a rectangle
        x, y = each[..., 0], each[..., 1]
        area = ((x[:, :-1] * y[:, 1:]) - (x[:, 1:] * y[:, :-1])).sum(1) / 2
        np.testing.assert_allclose(abs(area), np.prod(each.max(1) - each.min(1), -1), atol=1e-12)
    return [np.concatenate([each.min(1), each.max(1)], -1) for each in corners]


# ---- Matplotlib: the data
# --------------------------------------------------------------------------------------------


def test_regions_gaps_and_counts_are_those_of_the_filled_bins():
    diagram = gappy()
    upper, lower = diagram.draw().axes
    first, second = diagram.filled
    region, *gaps = patches(upper)
    np.testing.assert_allclose(
        region, [(4 / 15, first.low, 5 / 15, first.high), (13 / 15, second.low, 14 / 15, second.high)]
    )
    over, over_hatch, under, under_hatch = gaps
    np.testing.assert_allclose(over, [(13 / 15, 0.5, 14 / 15, (30 * 0.88 + 10 * 0.9) / 40)])
    np.testing.assert_allclose(under, [(4 / 15, 0.315, 5 / 15, 0.5)])
    np.testing.assert_array_equal(over, over_hatch)
    np.testing.assert_array_equal(under, under_hatch)
    (counts,) = patches(lower)
    np.testing.assert_allclose(counts, [(4 / 15, 0.5, 5 / 15, 2), (13 / 15, 0.5, 14 / 15, 40)])
    assert lower.get_yscale() == "log"


def test_the_accuracy_is_a_line_and_a_dot_full_where_outside_the_region():
    diagram = gappy()
    upper, _ = diagram.draw().axes
    (steps,) = (collection for collection in upper.collections if isinstance(collection, LineCollection))
    np.testing.assert_allclose(
        steps.get_segments(), [[(4 / 15, 0.5), (5 / 15, 0.5)], [(13 / 15, 0.5), (14 / 15, 0.5)]]
    )
    ends, inside, outside = upper.lines
    assert ends.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert inside.get_xydata() == pytest.approx(np.array([[0.315, 0.5]]))
    assert outside.get_xydata() == pytest.approx(np.array([[(30 * 0.88 + 10 * 0.9) / 40, 0.5]]))
    assert to_rgb(inside.get_markerfacecolor()) == to_rgb(style.THEMES["light"].paper)
    assert to_rgb(outside.get_markerfacecolor()) == to_rgb(style.THEMES["light"].ink)


def test_the_notes_say_how_far_and_how_many():
    error = (abs(0.63 - 1) + abs(30 * 0.88 + 10 * 0.9 - 20)) / 42
    gap = (0.63 + 30 * 0.88 + 10 * 0.9 - 21) / 42
    texts = [text.get_text() for text in gappy().draw().texts]
    assert f"ECE {error:.1%} · confidence - accuracy {100 * gap:+.1f} pp" in texts
    assert "42 examples · 1 of 2 bins outside" in texts


@pytest.mark.parametrize("count", [1, 3])
def test_diagrams_are_drawn_side_by_side(count: int):
    figure = draw([gappy() for _ in range(count)])
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 2 * count
    assert figure.get_figwidth() * figure.dpi == (400 if count == 1 else 360 * count)
    limits = {(axes.get_ylim(), axes.get_position().height) for axes in figure.axes[1::2]}
    assert len(limits) == 1


def test_the_smooth_curve_is_broken_where_no_example_is_near():
    diagram = holed()
    upper, lower = diagram.draw().axes
    _, *lines = upper.lines
    assert len(lines) == len(diagram.runs) == 2
    for line, run in zip(lines, diagram.runs, strict=True):
        np.testing.assert_array_equal(
            line.get_xydata(), [(point.confidence, point.accuracy) for point in run]
        )
    region, *_ = upper.collections
    outline = {tuple(vertex) for vertex in region.get_paths()[0].vertices}
    assert {(point.confidence, point.low) for point in diagram.runs[0]} <= outline
    assert {(point.confidence, point.high) for point in diagram.runs[0]} <= outline
    weights = {tuple(vertex) for vertex in lower.collections[0].get_paths()[0].vertices}
    assert {(point.confidence, point.weight) for point in diagram.runs[0]} <= weights


def test_the_histogram_draws_nothing_where_there_is_nothing():
    (axes,) = histogram().draw().axes
    right, _, wrong, hatching = (patch for patch in axes.patches if isinstance(patch, StepPatch))
    rights, wrongs = np.full(15, math.nan), np.full(15, math.nan)
    rights[4], wrongs[4], wrongs[13] = 1, 1, 3
    np.testing.assert_array_equal(right.get_data().values, rights)
    np.testing.assert_array_equal(wrong.get_data().values, wrongs)
    np.testing.assert_array_equal(hatching.get_data().values, wrongs)
    np.testing.assert_allclose(right.get_data().edges, np.linspace(0, 1, 16), atol=1e-15)
    assert len(right.get_path().vertices) == 4


def test_curves_and_break_even_are_where_the_data_are():
    diagram = curves()
    (axes,) = diagram.draw().axes
    *lines, mark = axes.lines
    for line, curve in zip(lines, diagram.curves, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.transpose([curve.coverage, curve.risk]))
    assert list(mark.get_xdata()) == [0.61, 0.61]
    assert axes.get_xlim() == (0, 1)
    assert axes.get_ylim()[1] == pytest.approx(
        1.15 * max(r for c in diagram.curves for at, r in zip(c.coverage, c.risk, strict=True) if at >= 0.05)
    )


def test_models_are_told_apart_without_colour():
    risk = torch.linspace(0.01, 0.3, 30, dtype=torch.float64)
    (axes,) = RiskCoverage.of("", {str(i): risk * (i + 1) / 13 for i in range(12)}).draw().axes
    looks = [(line.get_marker(), str(line._unscaled_dash_pattern), line.get_color()) for line in axes.lines]
    assert len({look[:2] for look in looks[:6]}) == 6
    assert len({look[0] for look in looks[:6]}) == 6
    assert len(set(looks)) == 12


def test_each_class_has_a_panel():
    diagram = grid()
    figure = diagram.draw()
    _, *panels = figure.axes
    assert len(panels) == 7
    for panel, one in zip(panels, diagram.diagrams, strict=True):
        assert panel.texts[1].get_text() == f"ECE {one.error:.2%}"
        region, *_ = patches(panel)
        np.testing.assert_allclose(region, [(b.left, b.low, b.right, b.high) for b in one.filled])


def test_examples_are_points_and_falls_are_listed():
    diagram = drop()
    figure = diagram.draw()
    scatter, listed = figure.axes
    _, *states, rings = scatter.lines
    drawn = sorted(tuple(pair) for state in states for pair in state.get_xydata().tolist())
    assert drawn == sorted((point.before, point.after) for point in diagram.points)
    assert len({state.get_marker() for state in states}) == 4
    assert rings.get_xydata().tolist() == [[fall.before, fall.after] for fall in diagram.falls]
    assert [tuple(line.get_xdata()) for line in listed.lines[::3]] == [
        (fall.before, fall.after) for fall in diagram.falls
    ]
    texts = " ".join(text.get_text() for text in figure.texts)
    assert all(f"{fall.index}: " in texts for fall in diagram.falls)
    one, two = predictions()[:2]
    assert len(ConfidenceDrop.of("rise", ("a", "b"), one, two).draw().axes) == 2
    assert len(ConfidenceDrop.of("same", ("a", "b"), one, one).draw().axes) == 1


# ---- Matplotlib: the look
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "width"),
    [(make, width) for make in DIAGRAMS for width in (400, 900)] + [(lambda: grid(23), 400)],
)
def test_nothing_is_cut_and_no_text_covers_another(make, width):
    figure = make().draw("light", width)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    whole = figure.bbox
    assert whole.width == width
    tight = figure.get_tightbbox(renderer).transformed(mpl.transforms.Affine2D().scale(figure.dpi))
    assert tight.x0 >= 0
    assert tight.y0 >= 0
    assert tight.x1 <= whole.x1
    assert tight.y1 <= whole.y1
    (legend,) = figure.legends
    texts = [text for axes in figure.axes for text in shown_texts(axes)] + figure.texts + legend.get_texts()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]
    assert len(boxes) > 10
    for i, (one, box) in enumerate(boxes):
        assert box.x0 >= 0, one
        assert box.x1 <= whole.x1, one
        for other, another in boxes[:i]:
            assert not box.padded(-1).overlaps(another.padded(-1)), (one, other)


def shown_texts(axes):
    """Labels of ticks within the axes, names of the axes, and texts in them."""
    found = [axes.xaxis.label, axes.yaxis.label, *axes.texts]
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        for tick, place in zip(axis.get_major_ticks(), axis.get_majorticklocs(), strict=True):
            if min(low, high) <= place <= max(low, high) and tick.label1.get_visible():
                found.append(tick.label1)
    return found


@pytest.mark.parametrize("make", DIAGRAMS)
def test_nothing_global_is_changed(make):
    figures, parameters, backend = pyplot.get_fignums(), dict(mpl.rcParams), mpl.get_backend()
    picture = io.BytesIO()
    make().draw("dark").savefig(picture, format="png")
    assert picture.getvalue().startswith(b"\x89PNG\r\n\x1a\n")
    assert pyplot.get_fignums() == figures
    assert dict(mpl.rcParams) == parameters
    assert mpl.get_backend() == backend


@pytest.mark.parametrize("make", DIAGRAMS)
def test_an_svg_is_one_small_element_in_which_hatching_is_seen(make):
    content = svg(make().draw("dark"), "a <picture> & more")
    root = ElementTree.fromstring(content)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.attrib["aria-label"] == "a <picture> & more"
    assert len(content) < 200_000
    for pattern in root.iter("{http://www.w3.org/2000/svg}pattern"):
        behind, lines = (
            next(pattern.iter(f"{{http://www.w3.org/2000/svg}}{tag}")) for tag in ("rect", "path")
        )
        assert behind.attrib["fill"] not in lines.attrib["style"]


def test_many_points_make_no_large_svg():
    logits, labels = population(seed=9, examples=3001, classes=3)
    under, over = (Predictions.from_logits(z, labels) for z in (logits[0], logits[2]))
    diagram = ConfidenceDrop.of("drop", ("a", "b"), over, under)
    assert len(diagram.points) == 2000
    assert len(svg(diagram.draw())) < 300_000


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", ["light", "dark"])
def test_colours_stand_out_from_the_paper(name):
    theme = style.theme_of(name)

    def contrast(colour):
        low, high = sorted((luminance(colour), luminance(theme.paper)))
        return (high + 0.05) / (low + 0.05)

    assert contrast(theme.ink) > 12
    assert contrast(theme.muted) > 4.5
    assert min(contrast(colour) for colour in (theme.over, theme.under, *theme.lines)) > 3
    assert to_rgba(gappy().draw(name).get_facecolor()) == to_rgba(theme.paper)


def test_an_unknown_theme_is_refused(unchecked):
    with pytest.raises(ValueError, match="no theme named 'blue'; there are light, dark"):
        gappy().draw("blue")


def test_texts_are_wrapped_and_shortened_to_their_room():
    lines = style.wrapped(TITLE, 200, bold=True)
    assert " ".join(lines).replace(" ", "") == TITLE.replace(" ", "")
    assert max(style.text_width(line, bold=True) for line in lines) <= 200
    assert style.shortened("short", 200) == "short"
    cut = style.shortened(TITLE, 100)
    assert cut.endswith("…")
    assert TITLE.startswith(cut[:-1])
    assert 85 < style.text_width(cut) <= 100
    assert [style.compact(n) for n in (1, 950, 1200, 30_000, 2_000_000, 3e9)] == [
        "1",
        "950",
        "1.2k",
        "30k",
        "2M",
        "3G",
    ]


def test_dollars_are_no_formula():
    figure = RiskCoverage.of("$a$ and $b$", {"$c$": torch.tensor([0.1, 0.2])}).draw()
    renderer = FigureCanvasAgg(figure).get_renderer()
    plain = (
        Figure(dpi=100)
        .text(0, 0, "\\$a\\$ and \\$b\\$", fontsize=9, fontweight="bold")
        .get_window_extent(renderer)
    )
    assert figure.texts[0].get_window_extent(renderer).width == plain.width
    assert figure.legends[0].get_texts()[0].get_text().startswith("\\$c\\$")
