"""Conditions: what a candidate has to meet, in numbers and in words, and what would change it."""

from collections.abc import Sequence

from tracking.decision.sequential import Better, examples_to_settle, seeds_to_settle
from tracking.decision.targets import Target
from tracking.numbers import number
from tracking.records.comparison import Comparison
from tracking.records.outcome import Interval
from tracking.records.recommendation import Condition

COUNTED = (
    "the claims of the other policies are counted with it: in a sweep for this policy half of the weight"
    " would be its own"
)


def claim_condition(target: Target, comparison: Comparison, taken: bool) -> Condition:
    """The condition that the candidate is better than ε = 0 in what the policy claims."""
    difference, claim = comparison.differences[target.metric], comparison.claims[target.metric]
    value, low, high = (target.scale * number for number in (difference.value, claim.low, claim.high))
    better, worse = (low > 0, high < 0) if target.sign > 0 else (high < 0, low > 0)
    word = {1: ("a gain", "a loss"), -1: ("a fall", "a rise")}[target.sign]
    told = f"is {word[0]}" if taken else f"is {word[1]}" if worse else "cannot be told from zero"
    if better and not taken:
        told += " when the claims of all policies are counted (Holm)"
    digits = 2 if target.scale == 100 else 4
    span = (
        f"{number(low, digits, signed=True)}{target.unit} to {number(high, digits, signed=True)}{target.unit}"
    )
    return Condition(
        name=f"{target.noun} {'gain' if target.sign > 0 else 'falls'}",
        value=difference.value,
        low=claim.low,
        high=claim.high,
        bound=claim.low if target.sign > 0 else claim.high,
        threshold=0.0,
        met=taken,
        sentence=(
            f"its {target.noun} difference of {number(value, digits, signed=True)}{target.unit} (95 %"
            f" interval {span}) {told}"
        ),
        remedy="" if taken else COUNTED if better else remedy(difference, comparison, 0.0, target.sign),
    )


def condition(
    name: str, found: Interval, bound: float, threshold: float, met: bool, sentence: str, remedy: str
) -> Condition:
    """A condition on a value with its interval; a remedy belongs to one that is not met only."""
    kept = "" if met else remedy
    return Condition(name, found.value, found.low, found.high, bound, threshold, met, sentence, kept)


def undecided(condition: Condition) -> bool:
    """Whether the interval of a condition holds its threshold; the threshold of a gap holds on both sides."""
    return any(
        condition.low <= edge <= condition.high for edge in (condition.threshold, -condition.threshold)
    )


def remedy(found: Interval, comparison: Comparison, threshold: float, sign: Better) -> str:
    """What would bring the bound of an interval to the right side of the threshold, if the estimate stays as
    it is.
    """
    if sign * (found.value - threshold) <= 0:
        return "more seeds would not: the estimate itself lies on the wrong side"
    return needed(found, comparison, [(threshold, sign)])


def needed(found: Interval, comparison: Comparison, ways: Sequence[tuple[float, Better]]) -> str:
    """The least that would bring an interval to the right side (1: above) of one of some thresholds, if the
    estimate stays as it is: seeds, or else test examples.
    """
    seeds = len(comparison.outcome.seeds)
    bins = comparison.outcome.bins.get("test")
    examples = sum(bins.count) // seeds if bins else 0
    if more := [count for way in ways if (count := seeds_to_settle(found, seeds, *way)) is not None]:
        return (
            f"{min(more)} more seeds would settle it, if the estimate stays (--confirm-seeds"
            f" {seeds + min(more)} --reopen-test)"
        )
    enough = [
        count
        for way in ways
        if examples and (count := examples_to_settle(found, seeds, examples, *way)) is not None
    ]
    if not enough:
        return "no number of seeds would settle it"
    return (
        f"no number of seeds would settle it; about {rounded(min(enough))} test examples (now {examples})"
        " would, if the estimate stays"
    )


def rounded(count: int) -> str:
    """A count to two digits."""
    return f"{int(float(f'{count:.1e}')):,}".replace(",", " ")


def tolerance_remedy(name: str, found: Interval) -> str:
    """What would change a condition that is judged by the value itself."""
    return f"a smaller ε; or, in a next sweep, a tolerance {name} above {abs(found.value) * 1.001:.3g}"
