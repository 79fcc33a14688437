"""Page: one self-contained HTML file about a task, and an index of several. They load nothing, and run no
script but their own.

`python -m tracking.page EVIDENCE.json … --out DIR` writes them from evidence files.
"""

import argparse
import base64
import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tracking.exits import Exit
from tracking.names import model_of
from tracking.records.comparison import Comparison
from tracking.records.evidence import Evidence
from tracking.records.outcome import Interval, Outcome, screened
from tracking.records.point import until
from tracking.records.recommendation import Condition
from tracking.report import figures, words
from tracking.report.answer import degrees, sentences
from tracking.report.summary import where

PARTS = Path(__file__).parent
REPAIRED = ("ece", "nll", "aurc")
"""Metrics that a recalibration may change."""
REPAIRS = (("raw", ""), ("after temperature", "_calibrated"), ("after p-norm", "_p_norm"))
COVERAGES = (50, 80, 90, 100)
"""Coverages in per cent at which the table of risks stands."""
SLOPE = (120, 56)
"""Width and height of the small picture of an instance's confidences."""
WHISKER = 160
"""Width of the picture of an interval."""
MARGIN = 0.12
"""How much wider than its numbers the axis of an interval is, on either side."""


def page(evidence: Evidence) -> str:
    """The page about one task: a whole HTML file that loads nothing and can be opened from a disk.

    Everything in the evidence is escaped; the page's own Content-Security-Policy allows its own scripts and
    styles, by their hashes, and pictures that are part of it, but nothing else. Without scripts it still has
    the answer and all tables.
    """
    return rendered(
        "page.html",
        style=("style.css",),
        script=("chart.js", "page.js"),
        evidence=evidence,
        recommendation=evidence.recommendations[evidence.policy].best,
        answer=sentences(evidence.recommendations, evidence.policy),
        trade=trade(evidence),
        weighed=weighed(evidence),
        repairs=repairs(evidence),
        risks=risks(evidence),
        levels=figures.levels(evidence.outcomes),
        doubt=doubt(evidence),
        drawn=figures.figures(evidence),
    )


def index(evidences: Sequence[Evidence], link: Callable[[str], str]) -> str:
    """The page that compares tasks, in the order given; `link` is the address of a task's page by the task's
    name.
    """
    rows = [listed(evidence, link(evidence.task)) for evidence in evidences]
    known = [row["delta"] for row in rows if row["delta"]]
    domain = (min([0.0, *(delta.low for delta in known)]), max([0.0, *(delta.high for delta in known)]))
    for row in rows:
        row["whisker"] = forest(row["delta"], domain) if row["delta"] else None
    return rendered("index.html", style=("style.css",), script=("index.js",), rows=rows)


def rendered(template: str, style: Sequence[str], script: Sequence[str], **values: Any) -> str:
    """A template with its styles and scripts, and a policy that allows these alone."""
    environment = Environment(
        loader=FileSystemLoader(PARTS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        words=words,
        degrees=degrees,
        figures=figures,
        until=until,
        whisker=whisker,
        slope=SLOPE,
        coverages=COVERAGES,
        screened=screened,
        where=where,
    )
    environment.filters["name_of"] = figures.name_of
    css, js = (
        "\n".join((PARTS / name).read_text(encoding="utf-8") for name in names) for names in (style, script)
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src '{digest(css)}'; script-src '{digest(js)}'; base-uri"
        " 'none'; form-action 'none'"
    )
    return environment.get_template(template).render(policy=policy, css=Markup(css), js=Markup(js), **values)  # noqa: S704 ours


def digest(text: str) -> str:
    """The hash by which a Content-Security-Policy names an inline script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


# ---- tables
# --------------------------------------------------------------------------------------------------


def weighed(evidence: Evidence) -> list[tuple[Comparison, list[words.Change]]]:
    """Each other confirmed ε with its changes, that of the plan's policy first."""
    first = words.candidate_of(evidence, evidence.recommendations[evidence.policy].best)
    others = sorted(evidence.comparisons[1:], key=lambda one: (one is not first, one.epsilon))
    effect = evidence.recommendations[evidence.policy].effect or 0.0
    return [(one, words.changes(evidence.comparisons[0], one, effect)) for one in others]


def trade(evidence: Evidence) -> str:
    """What the candidate of the plan's policy buys and costs, as a sentence; "" where no other ε was
    confirmed.
    """
    recommendation = evidence.recommendations[evidence.policy].best
    tried = words.candidate_of(evidence, recommendation)
    if tried is None:
        return ""
    found = words.changes(evidence.comparisons[0], tried, recommendation.effect or 0.0)
    return (
        f"With {words.plural(recommendation.seeds, 'fresh seed')}, {figures.name_of(tried.outcome)}"
        f" {words.trade(found, recommendation.policy)}."
    )


def listed(evidence: Evidence, link: str) -> dict[str, Any]:
    """A task as the index lists it: what its policy recommends, and how that, or the candidate it refused,
    differs from ε = 0.
    """
    recommendation = evidence.recommendations[evidence.policy].best
    tried = words.candidate_of(evidence, recommendation)
    return {
        "recommendation": recommendation,
        "link": link,
        "delta": tried.difference("accuracy") if tried else None,
        "changes": (
            {
                change.name: change
                for change in words.changes(evidence.comparisons[0], tried, recommendation.effect or 0.0)
            }
            if tried
            else {}
        ),
        "relative_aurc": tried.relative.get("aurc_calibrated") if tried else None,
    }


def forest(delta: Interval, domain: tuple[float, float]) -> dict[str, float]:
    """Where an interval and 0 lie in a picture of this domain."""
    low, high = domain
    reach = (high - low) or 1.0

    def place(value: float) -> float:
        return round(4 + (WHISKER - 8) * (value - low) / reach, 1)

    return {
        "low": place(delta.low),
        "value": place(delta.value),
        "high": place(delta.high),
        "zero": place(0.0),
    }


def repairs(evidence: Evidence) -> list[dict[str, Any]]:
    """Per metric and confirmed ε: raw, after temperature, after p-norm; each with its interval where there is
    one.
    """
    rows = []
    for metric in REPAIRED:
        for one in evidence.comparisons:
            cells = []
            for _, suffix in REPAIRS:
                estimate = one.estimates.get(metric + suffix)
                mean = estimate.value if estimate else average(one.outcome, f"test/{metric}{suffix}")
                cells.append((words.quantity(mean, metric), words.span(estimate, metric) if estimate else ""))
            rows.append(
                {
                    "metric": metric,
                    "epsilon": one.epsilon,
                    "name": figures.name_of(one.outcome),
                    "cells": cells,
                }
            )
    return rows


def average(outcome: Outcome, metric: str) -> float | None:
    """The mean over seeds, None where the metric was not kept."""
    return outcome.mean(metric) if metric in outcome.metrics else None


def risks(evidence: Evidence) -> list[dict[str, Any]]:
    """Per confirmed ε: the error rate at some coverages after temperature, and the break-even with ε = 0."""
    rows = []
    for one in evidence.comparisons:
        at = [figures.risk_at(one, coverage) for coverage in COVERAGES]
        if at[0] is None:
            continue
        mine, control = (
            figures.mean_risk(c.outcome, f"test{figures.CALIBRATED}") for c in (one, evidence.comparisons[0])
        )
        crossing = (
            figures.break_even([v or 0.0 for v in mine], [v or 0.0 for v in control])
            if mine and control
            else None
        )
        rows.append({"comparison": one, "at": at, "break_even": crossing})
    return rows


def doubt(evidence: Evidence) -> dict[str, Any] | None:
    """What the uncertainty of the candidate's accuracy difference is made of; None where no other ε was
    confirmed.
    """
    found = words.candidate_of(evidence, evidence.recommendations[evidence.policy].best)
    if found is None:
        return None
    delta, seeds = found.differences["accuracy"], len(found.outcome.seeds)
    whole = delta.error(seeds) ** 2
    return {
        "comparison": found,
        "seeds": seeds,
        "error": delta.error(seeds),
        "floor": delta.examples,
        "share_of_examples": delta.examples**2 / whole if whole else 0.0,
    }


def whisker(condition: Condition) -> dict[str, Any]:
    """Where a condition's interval, value and threshold lie in its picture, and where its good side is."""
    marks = (
        [-condition.threshold, condition.threshold] if words.two_sided(condition) else [condition.threshold]
    )
    found = [condition.low, condition.value, condition.high, *marks]
    left, right = min(found), max(found)
    reach = (right - left) or 1.0
    left, right = left - MARGIN * reach, right + MARGIN * reach

    def place(value: float) -> float:
        return round(WHISKER * (value - left) / (right - left), 1)

    if len(marks) == 2:
        good = (place(marks[0]), place(marks[1]))
    else:
        good = (place(marks[0]), float(WHISKER)) if words.wanted_above(condition) else (0.0, place(marks[0]))
    return {
        "low": place(condition.low),
        "value": place(condition.value),
        "high": place(condition.high),
        "marks": [place(mark) for mark in marks],
        "good": good,
    }


# ---- command line
# --------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="python -m tracking.page", description="Write a page per task, and index.html."
    )
    flags.add_argument(
        "evidence",
        nargs="+",
        type=Path,
        help="files written by Evidence.to_json, such as the artifact evidence.json",
    )
    flags.add_argument(
        "--out",
        type=Path,
        default=Path("pages"),
        help="folder to write to; made where it is not there (default: pages)",
    )
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns its exit code, see `tracking.exits`: 2 for files that hold no evidence, 1
    where a page cannot be written.
    """
    given = parser().parse_args(arguments)
    try:
        evidences = [Evidence.from_json(path.read_text("utf-8"), repr(str(path))) for path in given.evidence]
        names = {evidence.task: f"{model_of(evidence.task)}.html" for evidence in evidences}
    except (OSError, ValueError) as error:  # WrongRecord and WrongName among them
        print(f"no page was written: {error}", file=sys.stderr)
        return Exit.WRONG_INPUT
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        for evidence in evidences:
            (given.out / names[evidence.task]).write_text(page(evidence), encoding="utf-8")
        (given.out / "index.html").write_text(index(evidences, names.__getitem__), encoding="utf-8")
    except OSError as error:
        print(f"no page was written: {error}", file=sys.stderr)
        return Exit.FAILED
    print(given.out / "index.html")
    return Exit.DONE
