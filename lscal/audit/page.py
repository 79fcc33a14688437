"""Page: one self-contained HTML file about one audit or two. It has no script and loads nothing."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import count
from pathlib import Path
from string import Template

from lscal.audit import GENERATOR, verdict
from lscal.audit.audit import Audit, Comparison, Scored, risk_coverage, told_from_zero
from lscal.audit.figures import Diagram, colours, drawable, inline
from lscal.audit.markup import Markup, Part, element, joined
from lscal.audit.words import Figures, change, figures, number, title
from lscal.binning import BinnedStatistics
from lscal.diagrams import (
    ClasswiseReliability,
    ConfidenceDrop,
    ConfidenceHistogram,
    Reliability,
    RiskCoverage,
    SmoothReliability,
)
from lscal.diagrams.style import THEMES
from lscal.estimate import Estimate
from lscal.metrics import METRICS

TEMPLATE = Path(__file__).with_name("page.html")
REPAIRED = (
    "confidence_gap",
    "ece",
    "smooth_ece",
    "classwise_ece",
    "nll",
    "brier",
    "aurc",
    "coverage_at_risk",
)
"""Metrics that a recalibration may change, in short."""
OF_MODELS = ("accuracy", "confidence_gap", "ece", "nll", "aurc")
MODELS = 50
"""Models listed one by one."""
GROUPS = {
    "scores": "Right or wrong, and proper scores",
    "calibration": "Calibration",
    "ranking": "Ranking",
    "human": "Against the annotators",
}
"""Titles of the modules in which metrics live."""
ARROWS = {"higher": "↑", "lower": "↓", "nearer 0": "→0"}


def page(audits: Sequence[Audit], comparison: Comparison | None) -> str:
    """The page about one file, or about two and their differences."""
    numbers = count(1)
    if comparison is None:
        (audit,) = audits
        heading = f"Audit of {audit.name}"
        parts = [
            element("h1", heading),
            *about(audit),
            *sentences(verdict.of_audit(audit)),
            *sections(audit, numbers, "h2"),
        ]
    else:
        first, second = audits
        heading = f"{second.name} against {first.name}"
        parts = [
            element("h1", heading),
            *sentences(verdict.of_comparison(comparison)),
            *compared(comparison, numbers),
        ]
        for audit in audits:
            parts += [
                element("h2", audit.name),
                *about(audit),
                *sentences(verdict.of_audit(audit)),
                *sections(audit, numbers, "h3"),
            ]
    parts += [*glossary(audits[0].raw), footer()]
    light, dark = (
        "".join(f"{name}: {value}; " for name, value in colours(THEMES[theme]).items())
        for theme in ("light", "dark")
    )
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        generator=GENERATOR,
        title=element("title", heading).text[7:-8],
        light=light,
        dark=dark,
        body=joined(*parts).text,
    )


def about(audit: Audit) -> list[Markup]:
    """Header of the page: files, examples, classes, models."""
    predictions = audit.saved.predictions
    facts = [f"{predictions.scores.shape[-2]:,} rows", f"{predictions.classes} classes", predictions.kind]
    if audit.unscored:
        facts.append(f"{audit.unscored:,} rows are ignored")
    if predictions.distribution is not None:
        facts.append("labels are distributions; where one class is needed, the most probable one is taken")
    if audit.saved.epsilon is not None:
        facts.append(f"trained with ε = {audit.saved.epsilon:g} according to the file")
    parts = [element("p", " · ".join(facts), class_="facts")]
    if audit.saved.members:
        models = (
            f"The file holds {audit.models} models ({shortened(audit.saved.members)}). Every number is their"
            " mean; its interval covers new models as well as new examples."
        )
        parts.append(element("p", models, class_="facts"))
    return parts


def shortened(names: Sequence[str]) -> str:
    """A few names."""
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:3])}, … {names[-1]}"


def sentences(said: Sequence[str]) -> list[Markup]:
    """Sentences, a paragraph each; the first is the answer."""
    return [
        element("p", unbroken(sentence), class_="answer" if i == 0 else "said")
        for i, sentence in enumerate(said)
    ]


def unbroken(sentence: str) -> Markup:
    """A sentence whose intervals, and numbers with their units, stay on one line."""
    pieces = re.split(r"(\[[^\]]*\]|[−+]?[\d.,]+ (?:%|‰|points)|--\w+ FILE)", sentence)
    return joined(*(element("span", piece) if i % 2 else piece for i, piece in enumerate(pieces)))


def sections(audit: Audit, numbers: Iterator[int], heading: str) -> list[Markup]:
    """Tables and diagrams of one file."""
    parts = [
        element(heading, "What recalibration would repair"),
        repairs(audit),
        element("p", unbroken(how_to_repair(audit)), class_="note"),
    ]
    parts += [element(heading, "Diagrams"), pictures(audit, numbers)]
    parts += [
        element(heading, "All numbers"),
        element("p", unbroken(INTERVALS), class_="note"),
        element("div", *tables(audit), class_="tables"),
    ]
    if audit.saved.members:
        parts += [element(heading, "Each model by itself"), models(audit)]
    return parts


INTERVALS = (
    "Value and 95 % interval. ↑ higher is better, ↓ lower is better, →0 nearer 0 is better. An ECE is never 0"
    " on finitely many examples: “if calibrated” is what a perfectly calibrated model with the same"
    " confidences would show on average."
)


# ---- tables
# --------------------------------------------------------------------------------------------------


def table(caption: str, header: Sequence[Part], rows: Sequence[Sequence[Part]]) -> Markup:
    """A table whose first column names its rows."""
    head = element("tr", *(element("th", cell, scope="col") for cell in header))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:]))
        for row in rows
    ]
    top = [element("caption", caption)] if caption else []
    return element(
        "div", element("table", *top, element("thead", head), element("tbody", *body)), class_="scroll"
    )


def cell(of: Figures, *judgement: Markup) -> Markup:
    """A value above its interval."""
    return joined(of.value, small(of.interval, *judgement) if of.interval else "")


def small(*pieces: Part) -> Markup:
    """Small print below a value, in pieces that do not break."""
    return element(
        "small",
        *(joined(element("span", piece) if isinstance(piece, str) else piece, " ") for piece in pieces),
    )


def named(name: str) -> Markup:
    """A metric with its direction, linked to its definition."""
    return joined(
        element("a", title(name), href=f"#{name}"), f"\N{NO-BREAK SPACE}{ARROWS[METRICS[name].better]}"
    )


def judged(name: str, before: Estimate, after: Estimate, difference: Estimate) -> list[Markup]:
    """Whether a difference that chance does not explain is for the better."""
    if not told_from_zero(difference):
        return []
    better = METRICS[name].better
    nearer = abs(float(after.value)) < abs(float(before.value))
    improved = nearer if better == "nearer 0" else (float(difference.value) > 0) == (better == "higher")
    word = "better" if improved else "worse"
    return [element("span", word, class_=word)]


def repairs(audit: Audit) -> Markup:
    """Table of metrics after temperature and p-norm."""
    rows: list[list[Part]] = []
    for name in REPAIRED:
        raw = audit.raw.estimates[name]
        row: list[Part] = [named(name), cell(figures(raw, name))]
        for scored in (audit.scaled, audit.normalised):
            difference = scored.less(audit.raw, name)
            value = figures(scored.estimates[name], name, like=raw).value
            judgement = judged(name, raw, scored.estimates[name], difference)
            difference_in_words = change(difference, name)
            row.append(
                joined(value, small(difference_in_words.value, difference_in_words.interval, *judgement))
            )
        rows.append(row)
    header: list[Part] = [
        "",
        "as it is",
        joined("temperature", element("small", "value, change")),
        joined("p-norm", element("small", "value, change")),
    ]
    return table("", header, rows)


def how_to_repair(audit: Audit) -> str:
    """How the recalibrations were scored, and how to use them."""
    return (
        "Each example was recalibrated with a fit on the other four fifths of the file, so that"
        " no example is scored with its own fit. To use on new examples: divide the logits by"
        f" {verdict.temperatures(audit)}; p-norm, as lscal.PNorm: {verdict.norms(audit)}. Changes are paired:"
        " their intervals are of the same examples before and after."
    )


def tables(audit: Audit) -> list[Markup]:
    """Every metric, by the module it lives in."""
    groups: dict[str, list[str]] = {}
    for name in audit.raw.estimates:
        if name != "calibrated_ece":  # stands beside the ECE
            groups.setdefault(METRICS[name].function.__module__.rpartition(".")[2], []).append(name)
    header = ["", "as it is", "temperature", "p-norm", *audit.others]
    return [
        table(GROUPS.get(group, group), header, [row(audit, name) for name in names])
        for group, names in groups.items()
    ]


def row(audit: Audit, name: str) -> list[Part]:
    """A metric as it is and after the recalibrations."""
    cells: list[Part] = [named(name)]
    for scored in (audit.raw, audit.scaled, audit.normalised, *audit.others.values()):
        if name not in scored.estimates:
            cells.append("")
            continue
        like = audit.raw.estimates[name]
        own = cell(figures(scored.estimates[name], name, like=like))
        if name == "ece":
            own = joined(
                own,
                small(figures(scored.estimates["calibrated_ece"], name, like=like).value, "if calibrated"),
            )
        cells.append(own)
    return cells


def models(audit: Audit) -> Markup:
    """The models of a file, a row each."""
    rows: list[list[Part]] = []
    temperatures = audit.temperature.value.tolist()
    for i, model in enumerate(audit.saved.members[:MODELS]):
        values = [
            figures(single(float(audit.raw.by_model[name][i])), name, like=audit.raw.estimates[name]).value
            for name in OF_MODELS
        ]
        rows.append([model, *values, number(temperatures[i], 2)])
    left_out = len(audit.saved.members) - len(rows)
    caption = f"The first {MODELS}; {left_out} more are left out" if left_out else ""
    return table(caption, ["model", *(title(name) for name in OF_MODELS), "temperature"], rows)


def single(value: float) -> Estimate:
    """A value without an interval."""
    import torch

    only = torch.tensor(value, dtype=torch.float64)
    return Estimate(only, only, only)


# ---- two files
# --------------------------------------------------------------------------------------------------


def compared(comparison: Comparison, numbers: Iterator[int]) -> list[Markup]:
    """Pictures and differences of two files."""
    first, second = comparison.first, comparison.second
    rows: list[list[Part]] = []
    for name in comparison.names:
        if name == "calibrated_ece":
            continue
        before, after, difference = (
            first.raw.estimates[name],
            second.raw.estimates[name],
            comparison.difference(name),
        )
        row: list[Part] = [
            named(name),
            two(figures(before, name).value, figures(after, name, like=before).value),
        ]
        row.append(cell(change(difference, name), *judged(name, before, after, difference)))
        if name in first.scaled.estimates:
            scaled = comparison.scaled_difference(name)
            row.append(
                cell(
                    change(scaled, name),
                    *judged(name, first.scaled.estimates[name], second.scaled.estimates[name], scaled),
                )
            )
        else:
            row.append("")
        rows.append(row)
    header: list[Part] = [
        "",
        two(first.name, second.name),
        "difference",
        joined("difference", element("small", "after temperature")),
    ]
    note = (
        f"Differences are {second.name} less {first.name}, paired: taken on the same resamples of the same"
        " examples, with 95 % intervals; in the last column each was recalibrated by a temperature fitted on"
        f" the other four fifths of its file. Of {len(rows)} intervals one or two leave 0 out by chance"
        " alone."
    )
    return [
        element("h2", "Side by side"),
        element("div", *side_by_side(comparison, numbers), class_="figures"),
        element("h2", "Differences"),
        element("p", unbroken(note), class_="note"),
        element("div", table("", header, rows), class_="differences"),
    ]


def two(first: str, second: str) -> Markup:
    """One above the other."""
    return joined(element("span", first), element("br"), element("span", second))


def side_by_side(comparison: Comparison, numbers: Iterator[int]) -> list[Markup]:
    """Diagrams of both files."""
    audits = (comparison.first, comparison.second)
    names = (drawable(audits[0].name), drawable(audits[1].name))
    risks = dict(zip(distinct(names), comparison.risks, strict=True))
    parts = [
        figure(
            numbers,
            RiskCoverage.of(
                "Errors where it is most confident",
                risks,
                comparison.break_even if comparison.told_apart else None,
            ),
            RISK,
        )
    ]
    before, after = (audit.saved.predictions for audit in audits)
    title = "Confidence in the same examples"
    if before.member:
        before, after = (replace(one, scores=one.scores[0]) for one in (before, after))
        title += f", model {audits[0].saved.members[0]}"
    drop = ConfidenceDrop.of(
        title, distinct(names), before, after, [drawable(name) for name in audits[0].class_names]
    )
    parts.append(figure(numbers, drop, DROP))
    return parts


def distinct(names: tuple[str, str]) -> tuple[str, str]:
    """Distinct names: letters missing in the font may have made two the same."""
    return names if names[0] != names[1] else (f"A: {names[0]}", f"B: {names[1]}")


# ---- diagrams
# --------------------------------------------------------------------------------------------------

RELIABILITY = (
    "Where the dots lie on the dashed line, an answer given with 80 % confidence is right 80 % of the time."
    " Below the line it is overconfident, above it underconfident. A full dot lies outside the region where a"
    " calibrated model would fall by chance."
)
RISK = (
    "The further left, the fewer and the more confident the answers that are used. A curve that starts low"
    " ranks its errors last."
)
HISTOGRAM = (
    "How confident right and wrong answers are, on a logarithmic axis: confident errors are the hatched part"
    " at the right."
)
CLASSES = "The same for each class by itself: its probability against how often it is the label."
SMOOTH = "The reliability diagram without bins."
DROP = (
    "Each point is an example: its confidence in the first file and in the second. Below the dashed line it"
    " fell."
)


def pictures(audit: Audit, numbers: Iterator[int]) -> Markup:
    """The diagrams of one file."""
    predictions = audit.saved.predictions
    raw, scaled = (
        BinnedStatistics.of(one.predictions.confidence, one.predictions.correct)
        for one in (audit.raw, audit.scaled)
    )
    error = float(audit.raw.estimates["smooth_ece"].value)
    risks = {
        name: risk_coverage(scored.predictions)
        for name, scored in (
            ("as it is", audit.raw),
            ("after temperature", audit.scaled),
            ("after p-norm", audit.normalised),
        )
    }
    return element(
        "div",
        figure(numbers, Reliability.of("Reliability as it is", raw), RELIABILITY),
        figure(
            numbers,
            Reliability.of("Reliability after temperature scaling", scaled),
            "The same after cross-fitted temperature scaling.",
        ),
        figure(
            numbers,
            SmoothReliability.of(
                "Smooth reliability as it is", predictions.confidence, predictions.correct, error
            ),
            SMOOTH,
        ),
        figure(numbers, RiskCoverage.of("Errors where it is most confident", risks), RISK),
        figure(numbers, ConfidenceHistogram.of("Confidence, right and wrong", raw), HISTOGRAM),
        figure(
            numbers,
            ClasswiseReliability.of(
                "Classes", audit.by_class, [drawable(name) for name in audit.class_names]
            ),
            CLASSES,
        ),
        class_="figures",
    )


def figure(numbers: Iterator[int], diagram: Diagram, caption: str) -> Markup:
    """A diagram with a caption on how to read it."""
    return element("figure", inline(diagram, next(numbers), diagram.title), element("figcaption", caption))


# ---- definitions
# --------------------------------------------------------------------------------------------------


def glossary(scored: Scored) -> list[Markup]:
    """Definitions of all metrics on the page."""
    entries: list[Markup] = []
    for name in scored.estimates:
        lines = (METRICS[name].function.__doc__ or "").strip().splitlines()
        text = re.sub(
            r"`(?:lscal\.)?([^`]+)`", r"\1", " ".join(line.strip() for line in lines if line.strip())
        )
        entries += [element("dt", title(name), id=name), element("dd", text)]
    return [element("h2", "What the numbers are"), element("p", METHOD), element("dl", *entries)]


METHOD = (
    "Confidence is the largest probability of an answer; K is the number of classes, N that of examples."
    " Intervals cover 95 %: those of accuracies and of the debiased ECE have formulas of their own, all"
    " others come from resampling the examples. Temperature scaling divides all logits by one number; p-norm"
    " divides those of each example by their own p-norm, which changes the order of the examples too. Neither"
    " changes an answer."
)


def footer() -> Markup:
    """Footer: the program and its version."""
    return element(
        "footer",
        f"Written by lscal {version('lscal')}, python -m lscal.audit. The page has no script and loads"
        " nothing.",
        class_="facts",
    )
