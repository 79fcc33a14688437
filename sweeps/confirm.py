"""Confirmation: the finalists against ε = 0 with fresh seeds, on the *test* split, which nothing else opens."""

from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from lscal import METRICS, Estimate, Predictions, Temperature
from lscal.estimate import WEIGHTED, Resamples
from sweeps.engine import Engine, Progress
from sweeps.study import Study
from sweeps.worker import Finish, Logits, member_of, seeds_of, work
from tracking.records import Comparison, Interval, Outcome

Fetch = Callable[[Outcome], Logits | None]
"""The logits of a trial which was finished earlier, or None where they are gone."""


def confirm(study: Study, engine: Engine, finish: Finish, fetch: Fetch, progress: Progress, say: Callable[[str], None]) -> list[Comparison]:
    """Train what is queued in a confirmation study, and compare every trial of it with its ε = 0; none where that failed."""
    fresh: dict[str, Logits] = {}

    def keep(outcome: Outcome, logits: Logits) -> None:
        fresh[outcome.uid] = logits
        finish(outcome, logits)

    work(study, engine, keep, progress, say)
    outcomes = study.outcomes()
    logits = {outcome.uid: fresh.get(outcome.uid) or fetch(outcome) or again(study, engine, outcome, say) for outcome in outcomes}
    control = next((outcome for outcome in outcomes if outcome.epsilon == 0), None)
    if control is None:
        return []
    return compare(outcomes, logits, control, engine)


def again(study: Study, engine: Engine, outcome: Outcome, say: Callable[[str], None]) -> Logits:
    """The logits of a finished trial whose file is gone: train its members once more."""
    say(f"the logits of ε = {outcome.epsilon:g} are not in the tracking store; its {len(outcome.seeds)} members are trained again")
    trained = engine.train([member_of(engine.task, outcome.point, seed) for seed in seeds_of(study.plan, "confirm")], lambda _: None)
    return {"calibrate": engine.logits(trained, "calibrate"), "test": engine.logits(trained, "test")}


def compare(outcomes: Sequence[Outcome], logits: Mapping[str, Logits], control: Outcome, engine: Engine) -> list[Comparison]:
    """Estimates on *test*, and their paired differences to the control on the same resamples of seeds and examples."""
    labels = {split: engine.dataset.splits[split].labels.cpu() for split in ("calibrate", "test")}
    resamples = Resamples.draw(len(control.seeds), len(labels["test"]))
    values: dict[str, dict[str, float]] = {}
    replicates: dict[str, dict[str, Float[Tensor, " replicate"]]] = {}
    for outcome in outcomes:
        own = logits[outcome.uid]
        temperature = Temperature.fit(own["calibrate"], labels["calibrate"])
        values[outcome.uid], replicates[outcome.uid] = {}, {}
        for suffix, scored in (("", own["test"]), ("_calibrated", temperature(own["test"]))):
            predictions = Predictions.from_logits(scored, labels["test"])
            drawn = resamples.of(predictions)
            for name in WEIGHTED:
                values[outcome.uid][name + suffix] = float(METRICS[name].function(predictions).mean())
                replicates[outcome.uid][name + suffix] = drawn[name]
    base, base_replicates = values[control.uid], replicates[control.uid]
    comparisons = []
    for outcome in outcomes:
        mine, drawn = values[outcome.uid], replicates[outcome.uid]
        off = {name: (mine[name] - base[name], drawn[name] - base_replicates[name]) for name in mine}
        comparisons.append(
            Comparison(
                outcome=outcome,
                estimates={name: interval(name, mine[name], drawn[name]) for name in mine},
                differences={name: difference(value, spread) for name, (value, spread) in off.items()},
                relative={name: share(base[name], value, spread) for name, (value, spread) in off.items()},
            )
        )
    return comparisons


def interval(name: str, value: float, replicates: Float[Tensor, " replicate"]) -> Interval:
    """A value with its two-sided 95 % interval, cut at 0 for metrics which cannot be negative."""
    estimate = Estimate.of(value, replicates)
    signed = METRICS[name.removesuffix("_calibrated")].better == "nearer 0"
    return rounded(value, estimate.low if signed else max(0.0, estimate.low), estimate.high)


def difference(value: float, replicates: Float[Tensor, " replicate"]) -> Interval:
    """A difference with its two-sided 95 % interval."""
    estimate = Estimate.of(value, replicates)
    return rounded(value, estimate.low, estimate.high)


def share(base: float, value: float, replicates: Float[Tensor, " replicate"]) -> Interval:
    """A difference as a share of the control's value; the difference itself where that is 0, as AURC is without an error."""
    scale = base or 1.0
    return difference(value / scale, replicates / scale)


def rounded(value: float, low: float, high: float) -> Interval:
    """To nine decimals: the last bits depend on how many threads summed them, and a resumed sweep is to give the same record."""
    return Interval(round(value, 9), round(low, 9), round(high, 9))
