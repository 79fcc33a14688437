"""Diff: `python -m tracking.diff TASK OLD NEW` says what changed between two published versions; or between
two JSON files.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracking.exits import Exit
from tracking.mlflow import versions
from tracking.mlflow.client import DEFAULT_URI, TrackingUnavailable, WrongAddress
from tracking.mlflow.versions import NotPublished
from tracking.names import WrongName
from tracking.numbers import epsilon, number, significant
from tracking.recommend import resolved
from tracking.records.evidence import Evidence
from tracking.records.outcome import Interval
from tracking.records.recommendation import Recommendation
from tracking.records.schema import WrongRecord
from tracking.report.answer import smoothing

INTERVALS = ("accuracy", "delta_accuracy", "ece", "ece_calibrated", "aurc")
COUNTS = ("seeds", "examples", "openings")


class WrongFile(ValueError):
    """A file holds no recommendation."""


@dataclass(frozen=True)
class Side:
    """One of the two that are compared: a recommendation, and what is known of the sweep behind it, by
    name.
    """

    name: str
    recommendation: Recommendation
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """A row of the table: what changed, from what, to what; "" where there was none."""

    what: str
    before: str
    after: str


def sentences(old: Side, new: Side) -> list[str]:
    """What changed, in words, the weightiest first."""
    before, after = old.recommendation, new.recommendation
    said = []
    if before.task != after.task:
        said.append(f"The tasks differ: {before.task} and {after.task}.")
    if before.epsilon == after.epsilon:
        said.append(f"The recommended ε is the same, {epsilon(after.epsilon)}.")
    else:
        move = "rises" if after.epsilon > before.epsilon else "falls"
        said.append(f"The recommended ε {move} from {epsilon(before.epsilon)} to {epsilon(after.epsilon)}.")
    if before.policy != after.policy:
        said.append(
            f"The policy was {before.policy!r} and is {after.policy!r}, so the conditions are not the same."
        )
    if before.candidate != after.candidate:
        said.append(
            f"The candidate put to the conditions was ε = {epsilon(before.candidate)} and is ε ="
            f" {epsilon(after.candidate)}."
        )
    if before.verdict and after.verdict and before.verdict != after.verdict:
        said.append(f"The verdict on it was {before.verdict!r} and is {after.verdict!r}.")
    earlier = {condition.name: condition for condition in before.conditions}
    for condition in after.conditions:
        former = earlier.get(condition.name)
        if former is not None and former.met != condition.met:
            verdict = "is now met" if condition.met else "is no longer met"
            said.append(
                f"The condition {condition.name!r} {verdict}. Before: {former.sentence} Now:"
                f" {condition.sentence}"
            )
    if before.study != after.study:
        said.append(f"It rests on another study: {after.study} instead of {before.study}.")
    elif before.seeds != after.seeds:
        said.append(f"It is the same study with {after.seeds} confirmation seeds instead of {before.seeds}.")
    return said


def changes(old: Side, new: Side) -> list[Change]:
    """What changed, row by row: numbers, conditions, tuned values, then the facts of the sweeps."""
    before, after = old.recommendation, new.recommendation
    pairs = [
        ("task", before.task, after.task),
        ("recommended ε", epsilon(before.epsilon), epsilon(after.epsilon)),
        ("ε of wrong classes", epsilon(before.epsilon_wrong_classes), epsilon(after.epsilon_wrong_classes)),
        ("temperature", known(before.temperature), known(after.temperature)),
        ("fitted on, examples", known(before.calibrate_examples, 0), known(after.calibrate_examples, 0)),
        ("ε not told apart", range_of(before), range_of(after)),
        ("no best T, seeds", str(before.at_bound), str(after.at_bound)),
        ("claimed", before.claimed, after.claimed),
        ("verdict", before.verdict or "", after.verdict or ""),
        ("what would settle it", before.settles, after.settles),
        ("published before", known(before.incumbent), known(after.incumbent)),
        ("data and recipe", before.training, after.training),
        ("effect of interest", known(before.effect, 4), known(after.effect, 4)),
        ("policy", before.policy, after.policy),
        ("noise distribution", before.smoothing, after.smoothing),
        ("candidate ε", epsilon(before.candidate), epsilon(after.candidate)),
        ("ε falls to 0 after", known(before.drop), known(after.drop)),
        ("candidate falls after", known(before.candidate_drop), known(after.candidate_drop)),
        ("recalibrator", before.recalibrator, after.recalibrator),
        ("chance of being better", chance(before), chance(after)),
        ("invalid", before.invalid, after.invalid),
        ("recommended schedule", before.preferred, after.preferred),
        ("ε of the other schedule", dropped(before), dropped(after)),
        ("dropped less constant", apart(before), apart(after)),
        *((name, in_words(getattr(before, name)), in_words(getattr(after, name))) for name in INTERVALS),
        *by_metric("at ε = 0", before.control, after.control),
        *by_metric("at the recommended ε", before.estimates, after.estimates),
        *by_metric("the candidate's difference", before.differences, after.differences),
        ("coverage", f"{before.coverage:.3g}", f"{after.coverage:.3g}"),
        *((name, str(getattr(before, name)), str(getattr(after, name))) for name in COUNTS),
    ]
    conditions = [
        {f"condition {one.name}": verdict(one.met) for one in side.conditions} for side in (before, after)
    ]
    bounds = [
        {
            f"condition {one.name}, bound": f"{one.bound:+.4g} against {one.threshold:+.4g}".replace("-", "−")
            for one in side.conditions
        }
        for side in (before, after)
    ]
    points = [
        {f"trained with {name}": f"{value:.4g}" for name, value in side.point.items()}
        for side in (before, after)
    ]
    for first, second in (conditions, bounds, points, (old.facts, new.facts)):
        pairs += paired(first, second)
    pairs += [("study", before.study, after.study), ("created", before.created, after.created)]
    return [Change(*pair) for pair in pairs if pair[1] != pair[2]]


def paired(before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[tuple[str, str, str]]:
    """Each name of either with its two values, in the order of the later one."""
    return [(name, before.get(name, ""), after.get(name, "")) for name in dict.fromkeys([*after, *before])]


def known(value: float | None, decimals: int = 3) -> str:
    """A number, "" where a record is older than it."""
    return "" if value is None else number(value, decimals)


def dropped(record: Recommendation) -> str:
    """The ε that falls to 0, as a person reads it; "" where none was tried."""
    return "" if record.dropped is None else smoothing(record.dropped)


def chance(record: Recommendation) -> str:
    """The chance that the candidate is better, and the expected loss; "" where they are not known."""
    found = record.chance
    return "" if found is None else f"{found.better:.4g}, loses {found.loss:.3g}"


def apart(record: Recommendation) -> str:
    """The difference of the dropped ε to the constant one; "" where it was not needed."""
    return "" if record.apart is None else in_words(record.apart)


def range_of(record: Recommendation) -> str:
    """The ε that the screening cannot tell apart, "" where that is not known."""
    return f"{epsilon(record.tied[0])} to {epsilon(record.tied[1])}" if record.tied else ""


def by_metric(
    what: str, before: Mapping[str, Interval], after: Mapping[str, Interval]
) -> Iterable[tuple[str, str, str]]:
    """A row per metric that is no row of its own; where one of the two records holds none, a single row says
    so.
    """
    if bool(before) != bool(after):
        first, second = (f"{len(side)} metrics" if side else "" for side in (before, after))
        return [(what, first, second)]
    first_rows, second_rows = (
        {f"{what}, {name}": in_words(found) for name, found in side.items()} for side in (before, after)
    )
    return paired(first_rows, second_rows)


def in_words(interval: Interval) -> str:
    """A value with its interval."""
    return f"{significant(interval.value)} ({significant(interval.low)} to {significant(interval.high)})"


def verdict(met: bool) -> str:
    """A condition's verdict."""
    return "met" if met else "not met"


def text(old: Side, new: Side) -> str:
    """The sentences and the table, for a terminal."""
    rows = changes(old, new)
    if not rows:
        return f"{old.name} and {new.name} say the same."
    table = [("", old.name, new.name), *((row.what, row.before or "-", row.after or "-") for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(2)]
    lines = [f"{what:<{widths[0]}}  {before:<{widths[1]}}  {after}" for what, before, after in table]
    return "\n".join([*sentences(old, new), "", *(line.rstrip() for line in lines)])


def published(uri: str, task: str, number: int, policy: str | None) -> Side:
    """A published version, with the parameters of its run. Errors: those of
    `tracking.recommend.recommendation`.
    """
    found = versions.version(uri, task, number)
    return Side(f"version {number}", found.recommendation(policy), versions.params(uri, found.run_id))


def read(path: str, policy: str | None) -> Side:
    """What a file holds: a Recommendation, as `--json` and the HTTP API give it, or an Evidence. Errors:
    WrongFile.
    """
    try:
        content = Path(path).read_text()
        if '"recommendations"' not in content:
            return Side(Path(path).name, Recommendation.from_json(content, repr(path)), {})
        evidence = Evidence.from_json(content, repr(path))
    except (OSError, ValueError) as error:
        raise WrongFile(
            f"{path!r} holds no recommendation ({error}). Wanted the output of"
            " `python -m tracking.recommend TASK --json`, or the artifact evidence.json of a run."
        ) from error
    name = policy or evidence.policy
    if name not in evidence.recommendations:
        raise WrongFile(f"{path!r} has no policy {name!r}; there are: {', '.join(evidence.recommendations)}.")
    plans = {
        f"{group} {key}": f"{value:g}"
        for group in ("tolerances", "prices")
        for key, value in getattr(evidence, group).items()
    }
    return Side(Path(path).name, evidence.recommendations[name], {**evidence.facts, **plans})


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="python -m tracking.diff", description="What changed between two recommendations."
    )
    flags.add_argument(
        "what",
        nargs="+",
        metavar="TASK OLD NEW | OLD.json NEW.json",
        help="a task and two versions, or two files",
    )
    flags.add_argument("--policy", help="by default the one which each sweep was run with")
    flags.add_argument("--tracking-uri", help=f"by default MLFLOW_TRACKING_URI, or else {DEFAULT_URI}")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns its exit code, see `tracking.exits`."""
    options = parser().parse_args(arguments)
    what = options.what
    try:
        if len(what) == 2:
            old, new = (read(path, options.policy) for path in what)
        elif len(what) == 3 and all(number.isascii() and number.isdigit() for number in what[1:]):
            old, new = (
                published(resolved(options.tracking_uri), what[0], int(number), options.policy)
                for number in what[1:]
            )
        else:
            parser().error("wanted a task and two version numbers, or two JSON files.")
    except (WrongFile, WrongName, NotPublished, WrongAddress) as error:
        print(f"error: {error}", file=sys.stderr)
        return Exit.WRONG_INPUT
    except (WrongRecord, TrackingUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return Exit.FAILED
    print(text(old, new))
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
