"""Words: numbers as people read them, and the sentences of the report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lscal.display import Display, display
from tracking.decision.verdict import verdict
from tracking.numbers import epsilon, number
from tracking.records.comparison import ABOUT_DIFFERENCE, Comparison, Verdict
from tracking.records.evidence import Evidence
from tracking.records.outcome import Interval
from tracking.records.point import drop_of
from tracking.records.recommendation import Condition, Recommendation

NBSP = "\N{NO-BREAK SPACE}"
SHOWN = (
    *("bleu", "accuracy", "accuracy_recalibrated", "worst_class_accuracy"),
    *("ece", "ece_calibrated", "ece_recalibrated", "confidence_gap"),
    *("nll", "nll_calibrated", "nll_recalibrated", "aurc", "aurc_calibrated", "aurc_recalibrated"),
    *("soft_nll", "soft_nll_calibrated"),
    *("jensen_shannon", "jensen_shannon_calibrated", "human_ece", "human_ece_calibrated", "cost"),
)
"""Metrics on the page, in their order."""


def measure_of(name: str) -> Display:
    """How a metric is shown beside its recalibrated self."""
    found = display(name)
    raw = f"{name}_calibrated" in SHOWN or name == "confidence_gap"
    return replace(found, title=f"{found.title}, raw") if raw else found


MEASURES = {name: measure_of(name) for name in SHOWN}
SCREENED = ("accuracy", "ece", "ece_calibrated", "aurc", "aurc_calibrated", "nll", "nll_calibrated")
"""Metrics of the table of trials."""
WEIGHED = ("bleu", "accuracy", "ece", "ece_calibrated", "aurc_calibrated", "nll_calibrated")
"""Metrics that the first sentence weighs against each other."""


def at(value: float) -> str:
    """ε and its value, on one line."""
    return f"ε{NBSP}={NBSP}{epsilon(value)}"


def quantity(value: float | None, name: str, change: bool = False) -> str:
    """A metric's value, or a difference of two, with its unit: 96.72 %, +0.31 pp."""
    measure = MEASURES[name]
    unit = measure.change_unit if change else measure.unit
    scaled = None if value is None else measure.scale * value
    return joined(number(scaled, measure.decimals, change or measure.better == "nearer 0"), unit)


def span(interval: Interval, name: str, change: bool = False) -> str:
    """The interval of a metric or of a difference, in brackets, without its unit."""
    return between(interval.low, interval.high, name, change)


def between(low: float, high: float, name: str, change: bool = False) -> str:
    """Two ends in brackets, without their unit."""
    measure = MEASURES[name]
    first, last = (
        number(measure.scale * end, measure.decimals, change or measure.better == "nearer 0")
        for end in (low, high)
    )
    return f"[{first},{NBSP}{last}]"


def percent(value: float | None, decimals: int = 1, signed: bool = False) -> str:
    """A share or a relative change in per cent."""
    return joined(number(None if value is None else 100 * value, decimals, signed), "%")


def spoken(name: str) -> str:
    """The name of a tuned value as a person says it."""
    return name.replace("_", " ")


def joined(text: str, unit: str) -> str:
    """A number and its unit, which stay on one line."""
    return f"{text}{NBSP}{unit}" if unit and text != "–" else text


def plural(count: int, noun: str) -> str:
    """So many of something."""
    return f"{number(count, 0)}{NBSP}{noun}{'' if count == 1 else 's'}"


def listed(parts: Sequence[str]) -> str:
    """Parts as a sentence lists them."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


# ---- what an ε buys and costs
# ------------------------------------------------------------------------------------------

Told = Verdict | Literal["not told apart"]
"""The verdict on a metric with a smallest difference of interest; of others it is not told how much would be
of interest.
"""


@dataclass(frozen=True)
class Change:
    """A metric at ε = 0 and at another ε, both on *test*."""

    name: str
    title: str
    before: str
    before_span: str
    after: str
    after_span: str
    change: str
    change_span: str
    verdict: Told


def verdict_of(name: str, control: Comparison, other: Comparison, effect: float = 0.0) -> Told:
    """What the 95 % interval of the difference to ε = 0 says; `effect` is the smallest difference in accuracy
    or BLEU of interest.
    """
    difference, better = other.difference(name), MEASURES[name].better
    if better == "nearer 0":
        rises = abs(other.estimates[name].value) < abs(control.estimates[name].value)
        direction = 1 if (difference.value > 0) == rises else -1
    else:
        direction = 1 if better == "higher" else -1
    found = verdict(difference, direction, effect if name in OF_INTEREST else 0.0)  # type: ignore[arg-type]
    return "not told apart" if found == "not known" and name not in OF_INTEREST else found


OF_INTEREST = ("bleu", "accuracy")


def changes(control: Comparison, other: Comparison, effect: float = 0.0) -> list[Change]:
    """Every metric that both have, with its paired difference; `effect` as in `verdict_of`."""
    plain = {control.recalibrator, other.recalibrator} == {"temperature"}  # the same numbers again
    shared = [
        name
        for name in MEASURES
        if not (plain and name.endswith("_recalibrated"))
        and name in control.estimates
        and name in other.estimates
        and name in other.differences
    ]
    return [
        Change(
            name=name,
            title=MEASURES[name].title,
            before=quantity(control.estimates[name].value, name),
            before_span=span(control.estimates[name], name),
            after=quantity(other.estimates[name].value, name),
            after_span=span(other.estimates[name], name),
            change=quantity(other.differences[name].value, name, change=True),
            change_span=span(other.difference(name), name, change=True),
            verdict=verdict_of(name, control, other, effect),
        )
        for name in shared
    ]


def trade(found: Sequence[Change], policy: str) -> str:
    """What an ε buys and what it costs, as the end of a sentence that begins with "It"."""
    weighed = [
        change for change in found if change.name in WEIGHED or (change.name, policy) == ("cost", "utility")
    ]

    def said(change: Change) -> str:
        if change.name == "accuracy":
            ends = change.change_span[1:-1].replace(",", f"{NBSP}to")
            return f"{change.change} of accuracy (95{NBSP}% interval {ends})"
        title = f"raw {change.title[:-5]}" if change.title.endswith(", raw") else change.title
        lower = (change.verdict == "better") == (MEASURES[change.name].better == "lower")
        return f"a {'lower' if lower else 'higher'} {title} ({change.before} → {change.after})"

    buys = [said(change) for change in weighed if change.verdict == "better"]
    costs = [said(change) for change in weighed if change.verdict == "worse"]
    bought = f"buys {listed(buys)}" if buys else "buys nothing that can be told from chance"
    return (
        f"{bought}, and costs {listed(costs)}"
        if costs
        else f"{bought}, at no cost that can be told from chance"
    )


def candidate_of(evidence: Evidence, recommendation: Recommendation) -> Comparison | None:
    """The confirmation of a policy's candidate; None where that is ε = 0, or has no confirmation."""
    tried = recommendation.candidate, recommendation.candidate_drop
    found = [
        one
        for one in evidence.comparisons
        if (one.epsilon, drop_of(one.outcome.point)) == tried and recommendation.candidate != 0
    ]
    adopted = [one for one in found if one.outcome.point == recommendation.point]
    return next(iter(adopted or found), None)


# ---- conditions
# --------------------------------------------------------------------------------------------------

POINTS = ("accuracy gain", "worst class kept", "confidence kept")
RELATIVE = ("ranking kept", "probabilities kept")


def in_unit(condition: Condition, value: float) -> str:
    """A number of a condition: in percentage points, in per cent of ε = 0, or as it is, by the condition's
    name.
    """
    if condition.name in POINTS:
        return joined(number(100 * value, 2, signed=True), "pp")
    if condition.name in RELATIVE:
        return percent(value, 1, signed=True)
    return f"{value:+.3g}".replace("-", "−")


def two_sided(condition: Condition) -> bool:
    """Whether the value has to lie within ± the threshold."""
    return condition.bound == -condition.value and condition.bound > 0


def wanted_above(condition: Condition) -> bool:
    """Whether the bound has to lie above the threshold; otherwise below."""
    if condition.bound == condition.threshold:
        return condition.bound <= condition.value
    return condition.met == (condition.bound > condition.threshold)


def wanted(condition: Condition) -> str:
    """The threshold in words."""
    if two_sided(condition):
        return f"within ±{in_unit(condition, condition.threshold).lstrip('+')}"
    return f"{'above' if wanted_above(condition) else 'below'} {in_unit(condition, condition.threshold)}"


def bounded(condition: Condition) -> str:
    """Which number of the condition is compared with the threshold."""
    return {condition.low: "lower end", condition.high: "upper end"}.get(condition.bound, "value")


# ---- how sure
# --------------------------------------------------------------------------------------------------


def break_even(coverage: float) -> str:
    """The coverage above which an ε errs no more than ε = 0, in words."""
    if coverage == 0:
        return "none: at no coverage worse"
    return "none: worse at 100 %" if coverage >= 1 else f"{percent(coverage, 0)}, better above"


def p_value(p: float) -> str:
    """A p-value to two digits."""
    return "below 0.0001" if p < 1e-4 else f"{p:.2g}"


def claim_title(name: str) -> str:
    """What a claim is about."""
    return f"{MEASURES[name].title}, relative" if name not in ABOUT_DIFFERENCE else MEASURES[name].title


def claimed(value: float, name: str) -> str:
    """A number of a claim: a difference, or one relative to ε = 0."""
    return quantity(value, name, change=True) if name in ABOUT_DIFFERENCE else percent(value, 1, signed=True)


def certainty(evidence: Evidence) -> list[str]:
    """Sentences that say what the recommendation rests on, and what this sweep could not have seen."""
    recommendation = evidence.recommendations[evidence.policy].best
    said = list(evidence.notes) or [
        f"{plural(len(evidence.outcomes), 'trial')} were screened on select. The candidate was then trained"
        f" again with {plural(recommendation.seeds, 'fresh seed')} and judged on"
        f" {plural(recommendation.examples, 'test example')} that had no part in choosing it: so the luck of"
        " the winner is not in these numbers."
    ]
    if chance := recommendation.chance:
        loss = quantity(chance.loss, recommendation.claimed, change=True).lstrip("+")
        said.append(
            f"The chance that the candidate is better than {at(0)} in"
            f" {MEASURES[recommendation.claimed].title} is {percent(chance.better)}; were it chosen and"
            f" worse, the expected loss is {loss}. Both are shares of a bootstrap over seeds and examples,"
            " and are not corrected for looks or for other claims, as the verdict is."
        )
    if pilot := evidence.pilot:
        said.append(
            f"The pilot ({plural(pilot.seeds, 'pair')} at {at(0)} and {epsilon(pilot.epsilon)}) found"
            f" {percent(pilot.discordance)} of examples on which a pair differs in being right. With"
            f" {plural(pilot.confirm_seeds, 'fresh seed')} and {plural(pilot.test_examples, 'test example')}"
            f" a gain of {number(100 * pilot.detectable, 2)}{NBSP}pp is found four times in five; smaller"
            " ones are often missed."
        )
        wanted = f"The smallest gain of interest is {number(100 * pilot.effect, 2)}{NBSP}pp"
        if pilot.effect >= pilot.detectable:
            said.append(f"{wanted}: this sweep can see it.")
        elif pilot.seeds_needed is not None:
            hours = (
                ""
                if pilot.hours_needed is None
                else f", {number(pilot.hours_needed, 1)}{NBSP}hours for the whole sweep"
            )
            said.append(
                f"{wanted}: to see it as often would take {plural(pilot.seeds_needed, 'fresh seed')}{hours}."
            )
        else:
            more = (
                f"; it would take {plural(pilot.examples_needed, 'example')}"
                if pilot.examples_needed is not None
                else ""
            )
            said.append(f"{wanted}: no number of seeds can show it with these test examples{more}.")
    times = len(evidence.openings)
    if times:
        said.append(f"The test split was opened {'once' if times == 1 else f'{times} times'} for this plan.")
    if evidence.dropped:
        said.append(
            f"{plural(len(evidence.dropped), 'trial')} dropped on the way, as unlikely to change the"
            " recommendation."
        )
    return said


def repaired(evidence: Evidence) -> list[str]:
    """What temperature and p-norm did to the candidate, against ε = 0 after temperature; a sentence per
    metric.
    """
    found = candidate_of(evidence, evidence.recommendations[evidence.policy].best)
    if found is None:
        return []
    control = evidence.comparisons[0]
    said = []
    for metric, meaning in MEANINGS.items():
        name = f"{metric}_calibrated"
        if not (
            metric in found.estimates
            and name in found.estimates
            and name in found.differences
            and name in control.estimates
        ):
            continue
        raw, after, base = (
            quantity(one.estimates[key].value, metric)
            for one, key in ((found, metric), (found, name), (control, name))
        )
        told = {"better": "better than", "worse": "worse than", "not told apart": "not told apart from"}[
            verdict_of(name, control, found)
        ]
        normed = found.outcome.metrics.get(f"test/{metric}_p_norm")
        norm = f" p-norm makes it {quantity(sum(normed) / len(normed), metric)}." if normed else ""
        change = f"stays {after}" if raw == after else f"goes from {raw} to {after}"
        said.append(
            f"{metric.upper()} ({meaning}) {change} with temperature: {told} {at(0)} with temperature,"
            f" {base}.{norm}"
        )
    return said


MEANINGS = {
    "ece": "confidence against accuracy",
    "nll": "the probabilities as a whole",
    "aurc": "ranking of right above wrong",
}
POLICIES = {
    "safe": "A proven gain in accuracy that harms nothing beyond the repair of a recalibration",
    "raw": "A proven gain in accuracy with confidence that stays with it, for those who cannot recalibrate",
    "accuracy": "Accuracy alone",
    "honest": "The lowest NLL as it is, at an accuracy that is not told worse",
    "calibrated": "The lowest NLL after temperature",
    "utility": "The least expected cost at the plan's prices",
}
GLOSSARY = {
    "ε": (
        "Label smoothing trains with (1−ε) of the weight on the true class and ε spread over all K classes,"
        " as PyTorch counts it. Where it goes to the wrong classes only, the same smoothing is called"
        " ε(K−1)/K."
    ),
    "Accuracy": (
        "The share of examples whose most probable class is the true one. Differences are in percentage"
        " points (pp)."
    ),
    "ECE": (
        "Expected calibration error: how far confidence lies from accuracy, on average over 15 ranges of"
        " confidence. 0 is best."
    ),
    "NLL": "Negative log likelihood of the true class in nats, without smoothing. Lower is better.",
    "AURC": (
        "Area under the risk–coverage curve, in thousandths: how well confidence ranks right answers above"
        " wrong ones. Lower is better."
    ),
    "Temperature": (
        "One number by which all logits are divided, fitted on the split calibrate. It does not change the"
        " answers."
    ),
    "p-norm": (
        "Logits are divided by their p-norm before the temperature: it changes which answers are trusted"
        " most, but not the answers."
    ),
    "Break-even": "The coverage above which ε errs no more than ε = 0.",
    "95 % interval": (
        "Were the whole sweep repeated with other seeds and examples, 95 % of such intervals would hold the"
        " true value."
    ),
    "select, calibrate, test": (
        "Splits of the data: to choose ε, to fit temperature, and to judge, opened by the confirmation alone."
    ),
    "Seed": (
        "Decides initial weights and the order of examples. Every ε is trained with the same seeds, so that"
        " differences are paired."
    ),
}
