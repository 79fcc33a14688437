"""Answer: what a sweep recommends, in a few sentences; terminal, `tracking.recommend`, API, registry, note
and page take them from here.

The first is that of the policy that was asked for; then, where both were tried, the other schedule of ε
(constant, or falling to 0); the opposite case (who cannot recalibrate; for those who cannot: who can); policy
`honest` where that says something else; and which ε cannot be told apart, and where the reasons are. Pure
functions of the recommendations of one version, which may be older than some of their fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from lscal.display import display, recalibrator
from tracking.numbers import decimals, epsilon, number
from tracking.records.comparison import Verdict
from tracking.records.outcome import Interval
from tracking.records.point import Point, until
from tracking.records.recommendation import Recommendation
from tracking.records.schema import write

RAW, RECALIBRATED, HONEST = "raw", "safe", "honest"
UNCALIBRATED = (RAW, HONEST)
"""The policies for those who cannot recalibrate; `RECALIBRATED` is their opposite case."""
POINT_OF_NOTE = 0.01
"""How far, as a share, confidence lies from accuracy where that is the reason not to go without a
temperature.
"""


NOUNS = {
    "accuracy": "accuracy",
    "bleu": "BLEU",
    "nll_calibrated": "NLL after T",
    "nll": "NLL",
    "cost": "expected cost",
}
"""Metrics that can be claimed, as a sentence names them."""


@dataclass(frozen=True)
class Short:
    """What another policy of the same version recommends: the constant ε, and the smoothing with its drop."""

    epsilon: float
    smoothing: str
    temperature: float | None
    verdict: Verdict | None
    answer: str


@dataclass(frozen=True, kw_only=True)
class Whole(Recommendation):
    """A recommendation with its three sentences, and what the other policies say."""

    answer: tuple[str, ...] = ()
    policies: Mapping[str, Short] = field(default_factory=dict)

    @classmethod
    def of(cls, recommendations: Mapping[str, Recommendation], policy: str, links: Mapping[str, str]) -> Self:
        """That of a policy, among all of a version. Errors: KeyError where the policy is not among them."""
        others = {
            name: Short(one.epsilon, smoothing(one.best), one.temperature, one.verdict, first(one.best))
            for name, one in recommendations.items()
            if name != policy
        }
        said = tuple(sentences(recommendations, policy, links))
        return cls(**vars(recommendations[policy]), answer=said, policies=others)

    def to_json(self) -> str:
        """The record as one line of JSON, its sentences as a person reads them."""
        return write(self, ascii_only=False)


def sentences(
    recommendations: Mapping[str, Recommendation], policy: str, links: Mapping[str, str] | None = None
) -> list[str]:
    """The sentences, each without a line break.

    Args:
        recommendations: by policy, all of one version.
        policy: the plan's, or the one that is asked for.
        links: what a place knows of where the reasons are, by name: `{"page": "file://…", "MLflow":
            "http://…"}`.

    Errors: KeyError where the policy is not among them.
    """
    both = recommendations[policy]
    chosen = both.best
    other = recommendations.get(RECALIBRATED if policy in UNCALIBRATED else RAW)
    said = [
        f"INVALID: {chosen.invalid}" if chosen.invalid else "",
        first(chosen),
        other_schedule(both),
        opposite(chosen, other.best) if other else "",
        most_honest(chosen, recommendations.get(HONEST)),
        " ".join(filter(None, (range_of(chosen), why(links or {})))),
    ]
    return [sentence for sentence in said if sentence]


def why(links: Mapping[str, str]) -> str:
    """Where the reasons are; "" where no place is known."""
    return (
        f"Why, and what would change it: {' · '.join(f'{name} {place}' for name, place in links.items())}"
        if links
        else ""
    )


# ---- the first sentence
# ------------------------------------------------------------------------------------------------


def first(chosen: Recommendation) -> str:
    """What to do, and what it does to accuracy and ECE."""
    said = (
        f"{gain(chosen)}, {calibration(chosen)}"
        if chosen.epsilon != 0
        else f"{calibration(chosen)}; {refusal(chosen)}"
    )
    return f"{action(chosen)}: {said}."


def action(chosen: Recommendation) -> str:
    """What to train with, and what to do with logits and unsure decisions."""
    steps = [f"Train {how(chosen)}{tuned(chosen.point)}"]
    if chosen.policy not in UNCALIBRATED:
        steps.append(recalibrate(chosen))
    if chosen.policy == "utility":
        share = number(100 * chosen.coverage, 0)
        steps.append(
            f"decide the surest {share} % without a review"
            if 0 < chosen.coverage < 1
            else deciding(chosen.coverage)
        )
    comma = "" if chosen.drop == 1 else ","
    return f"{', '.join(steps[:-1])}{comma} and {steps[-1]}" if len(steps) > 1 else steps[0]


def deciding(coverage: float) -> str:
    """What to do where all examples are decided alike."""
    return "decide all without a review" if coverage else "review all"


def how(chosen: Recommendation) -> str:
    """The ε in the words of a training script, where torch has such a smoothing."""
    if chosen.epsilon == 0:
        return "without label smoothing (0)"
    kind, when = chosen.smoothing.partition("@drop")[0], falling(chosen)
    if kind == "uniform" and chosen.epsilon > 0:
        return f"with label_smoothing={epsilon(chosen.epsilon)}{when}"
    return f"with ε = {epsilon(chosen.epsilon)} of smoothing {kind}{when} (docs/smoothing.md of lscal)"


def falling(chosen: Recommendation) -> str:
    """When ε falls to 0, as a person trains with it; "" where it does not."""
    return "" if chosen.drop == 1 else f" for the first {number_of(100 * chosen.drop)} % of the steps, then 0"


def smoothing(chosen: Recommendation) -> str:
    """An ε and its drop in short: 0.3 until 30 %."""
    return " ".join(filter(None, (epsilon(chosen.epsilon), until(chosen.drop))))


def candidate(chosen: Recommendation) -> str:
    """The candidate and its drop in short."""
    return " ".join(filter(None, (epsilon(chosen.candidate), until(chosen.candidate_drop))))


def tuned(point: Point) -> str:
    """What was tuned beside ε, by name."""
    others = [
        f"{name}={number_of(value)}"
        for name, value in point.items()
        if name not in ("epsilon", "smoothing", "drop")
    ]
    return f", {', '.join(others)}" if others else ""


def number_of(value: float | str) -> str:
    """A tuned value."""
    return value if isinstance(value, str) else f"{value:.4g}"


def recalibrate(chosen: Recommendation) -> str:
    """What to do with the logits: divide them by T, or more where that repairs them better."""
    if chosen.recalibrator == "temperature":
        return f"divide logits by {temperature(chosen)}"
    known = "" if chosen.temperature is None else f" (or divide them by T = {degrees(chosen.temperature)})"
    return f"recalibrate logits by {recalibrator(chosen.recalibrator)}, as the published model does{known}"


def repaired(chosen: Recommendation) -> str:
    """ECE after the recalibration, in percent."""
    found = chosen.estimates.get("ece_recalibrated", chosen.ece_calibrated)
    return percent((found if chosen.recalibrator != "temperature" else chosen.ece_calibrated).value)


def temperature(chosen: Recommendation) -> str:
    """T, and what it was fitted on."""
    if chosen.temperature is None:
        return "a temperature fitted on held-out examples (this older version does not say which)"
    fitted = f"fitted on {number(chosen.calibrate_examples, 0)} examples" if chosen.calibrate_examples else ""
    if chosen.at_bound:
        fitted = f"{fitted}, which have no best T with {chosen.at_bound} of {chosen.seeds} seeds".lstrip(", ")
    return f"T = {degrees(chosen.temperature)}{f' ({fitted})' if fitted else ''}"


def degrees(value: float) -> str:
    """A temperature to two decimals, at least two digits."""
    return number(value, 2) if value >= 0.1 else f"{value:.2g}"


def gain(chosen: Recommendation) -> str:
    """What an adopted ε changes: what the policy claims, and accuracy."""
    differences = dict(chosen.differences) or {"accuracy": chosen.delta_accuracy}
    said = [
        metric
        for metric in dict.fromkeys((chosen.claimed, "accuracy"))
        if metric in differences and metric in NOUNS
    ]
    if chosen.claimed == "bleu":
        said = ["bleu"]
    told = ", ".join(change(metric, differences[metric]) for metric in said)
    return (
        f"{told} (practically the same: within ±{interest(chosen)})"
        if chosen.verdict == "practically the same"
        else told
    )


def refusal(chosen: Recommendation) -> str:
    """Why ε = 0: what the candidate did, and the verdict."""
    tried, claimed = candidate(chosen), chosen.differences.get(chosen.claimed)
    if chosen.invalid:
        return "no ε is recommended by an invalid sweep"
    if chosen.candidate == 0:
        return unpromising(chosen)
    if claimed is None or chosen.verdict is None:
        return told_before(chosen)
    found = change(chosen.claimed, claimed)
    if chosen.verdict == "worse":
        return f"{tried} is worse ({found})"
    if chosen.verdict == "practically the same":
        return f"{tried} is practically the same ({found}: within ±{interest(chosen)})"
    if chosen.verdict == "not known":
        return f"whether {tried} is better is not known ({found}; {chosen.settles})"
    failed = "; ".join(one.sentence for one in chosen.conditions if not one.met)
    return f"{tried} is better ({found}), but {failed}"


def unpromising(chosen: Recommendation) -> str:
    """Why the candidate is 0. It is chosen by the fit through all trials, whose error is not that of the
    trials in the tables.
    """
    noun = NOUNS[chosen.claimed]
    if chosen.policy in (RAW, RECALIBRATED):
        return (
            f"no other ε which keeps the tolerances is ahead in {noun} by more than one standard error of the"
            " fit through all trials"
        )
    return (
        "by the fit through all trials no other ε has"
        f" {'more ' if chosen.claimed in ('accuracy', 'bleu') else 'a lower '}{noun}"
    )


def told_before(chosen: Recommendation) -> str:
    """Why ε = 0, where the candidate diverged, or the record is older than its differences: the reason,
    within a sentence.
    """
    return chosen.reason[:1].lower() + chosen.reason[1:].rstrip(".")


def interest(chosen: Recommendation) -> str:
    """The smallest difference of interest."""
    shown = display(chosen.claimed)
    return f"{shown.scale * (chosen.effect or 0.0):.3g}{unit_of(chosen.claimed)}"


def calibration(chosen: Recommendation) -> str:
    """ECE at ε = 0 and at the recommended ε, and after the recalibration."""
    values = (
        [chosen.ece.value]
        if chosen.epsilon == 0 or "ece" not in chosen.control
        else [chosen.control["ece"].value, chosen.ece.value]
    )
    said = f"ECE {' → '.join(percent(value) for value in values)} %"
    after = "T" if chosen.recalibrator == "temperature" else "recalibration"
    return said if chosen.policy in UNCALIBRATED else f"{said}, {repaired(chosen)} % after {after}"


def percent(share: float) -> str:
    """A share in per cent, to one decimal, or as many as keep it from 0; the unit is left to the reader's
    sentence.
    """
    return number(100 * share, decimals([100 * share], most=2))


def change(metric: str, found: Interval) -> str:
    """A paired difference with its interval, to as many decimals as the interval is wide."""
    shown = display(metric)
    values = [shown.scale * value for value in (found.value, found.low, found.high)]
    width = values[2] - values[1]
    fine = next((count for count in range(shown.least_decimals, 5) if width * 10**count >= 5), 5)
    value, low, high = (number(v, decimals(values, fine, fine + 2), signed=True) for v in values)
    interval = "" if "–" in (low, high) else f" [{low}, {high}]"
    each = " an example" if metric == "cost" else ""
    return f"{NOUNS[metric]} {value}{unit_of(metric)}{interval}{each}"


def unit_of(metric: str) -> str:
    """What follows a difference: the unit of a scaled one."""
    unit = display(metric).change_unit
    return f" {unit}" if unit and display(metric).scale != 1 else ""


# ---- the other schedule, the opposite case, policy honest
# ----------------------------------------------------------------


def other_schedule(both: Recommendation) -> str:
    """What the policy says of the schedule that it does not recommend: of a constant ε, or of one that falls
    to 0; "" where only one was tried.
    """
    if both.dropped is None:
        return ""
    chosen = both.best
    other = both if chosen is both.dropped else both.dropped
    kind = "A constant ε" if other is both else "An ε that falls to 0"
    if other.epsilon == 0:
        if chosen.epsilon == 0 and other.candidate == 0:
            return ""
        return f"{kind}? 0: {refusal(other)}."
    if both.apart is not None and other is both.dropped:
        return f"{kind}, {smoothing(other)}, is worse than that: {change(other.claimed, both.apart)}."
    return f"{kind}? {smoothing(other)}: {gain(other)}, {calibration(other)}."


def most_honest(chosen: Recommendation, honest: Recommendation | None) -> str:
    """What policy `honest` recommends, where that is something else than what was chosen."""
    if honest is None or chosen.policy == HONEST or honest.best.epsilon == 0:
        return ""
    other = honest.best
    if other.point == chosen.point:
        return ""
    return (
        f"Is confidence as it is worth more than tenths of accuracy? Use {named(other)} (policy honest):"
        f" {gain(other)}, {calibration(other)}."
    )


def opposite(chosen: Recommendation, other: Recommendation) -> str:
    """What to do in the opposite case: where logits cannot be recalibrated, or, for policy `raw`, where they
    can.
    """
    same = (chosen.point, chosen.smoothing) == (other.point, other.smoothing)
    if other.policy == RAW:
        if same:
            return f"Cannot recalibrate? {smoothing(other)} as well: {confidence(other)}."
        return f"Cannot recalibrate? Use {named(other)}: {against(chosen, other)}."
    divided = recalibrate(other)
    after = f"ECE is {repaired(other)} % then"
    if same:
        return f"Can you recalibrate? {smoothing(other)} as well, and {divided}: {after}."
    told = gain(other) if other.epsilon != 0 else refusal(other)
    return f"Can you recalibrate? Use {named(other)} and {divided}: {told}, {after}."


def named(chosen: Recommendation) -> str:
    """An ε and what else to train with."""
    kind = chosen.smoothing.partition("@drop")[0]
    of = f" of smoothing {kind}" if chosen.epsilon != 0 and kind != "uniform" else ""
    return f"{smoothing(chosen)}{of}{tuned(chosen.point)}"


def against(chosen: Recommendation, raw: Recommendation) -> str:
    """Why not the chosen ε where logits stay as they are."""
    gap = chosen.estimates.get("confidence_gap")
    if chosen.epsilon != 0 and gap is None:
        return f"at {smoothing(chosen)} ECE is {percent(chosen.ece.value)} % without T"
    if chosen.epsilon != 0 and gap is not None and abs(gap.value) >= POINT_OF_NOTE:
        return f"at {smoothing(chosen)} {confidence(chosen)}"
    return f"{gain(raw)}, {calibration(raw)}" if raw.epsilon != 0 else refusal(raw)


def confidence(chosen: Recommendation) -> str:
    """How far the mean confidence lies from the accuracy, without a temperature."""
    gap = chosen.estimates.get("confidence_gap")
    if gap is None:
        return f"ECE is {percent(chosen.ece.value)} % without T"
    return f"confidence is {percent(abs(gap.value))} points too {'low' if gap.value < 0 else 'high'}"


# ---- the last sentence
# -------------------------------------------------------------------------------------------------


def range_of(chosen: Recommendation) -> str:
    """The ε that the screening cannot tell apart, and how the candidate lies among them; "" where that is
    not known.
    """
    if chosen.tied is None:
        return ""
    low, high = chosen.tied
    if low == high:
        kept = " and keeps the tolerances" if chosen.policy in (RAW, RECALIBRATED) else ""
        return f"No other ε ties with {candidate(chosen) if chosen.candidate else epsilon(low)}{kept}."
    until_then = f", {until(chosen.candidate_drop)}," if chosen.candidate_drop != 1 else ""
    said = f"{epsilon(low)} to {epsilon(high)}{until_then} cannot be told apart"
    stands = f"; {epsilon(chosen.candidate)} stands for them" if low <= chosen.candidate <= high else ""
    if stands and chosen.incumbent == chosen.candidate:
        return f"{said}; {epsilon(chosen.candidate)}, which is published already, stays."
    tested = ", and was put to the test" if stands and chosen.epsilon != chosen.candidate else ""
    return f"{said}{stands}{tested}."
