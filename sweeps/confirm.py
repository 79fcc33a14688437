"""Confirmation: the finalists against ε = 0 with fresh seeds, on the *test* split, which nothing else opens."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from lscal import METRICS, Estimate, Predictions, Temperature
from lscal.estimate import Resamples
from sweeps.engine import Engine, Progress
from sweeps.study import Study
from sweeps.worker import Finish, Logits, member_of, seeds_of, work
from tracking.records import Comparison, Interval, Outcome

COMPARED = ("accuracy", "worst_class_accuracy", "nll", "ece", "confidence_gap", "aurc")
"""Metrics which are compared with those of ε = 0."""

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
    trained = engine.train(
        [member_of(engine.task, study.plan.smoothing, outcome.point, seed) for seed in seeds_of(study.plan, "confirm")], lambda _: None
    )
    return {"calibrate": engine.logits(trained, "calibrate"), "test": engine.logits(trained, "test")}


def compare(outcomes: Sequence[Outcome], logits: Mapping[str, Logits], control: Outcome, engine: Engine) -> list[Comparison]:
    """Estimates on *test*, and their paired differences to the control on the same resamples of seeds and examples."""
    labels = {split: engine.dataset.splits[split].labels.cpu() for split in ("calibrate", "test")}
    resamples = Resamples.draw(len(labels["test"]))
    own = {outcome.uid: by_seed(logits[outcome.uid], labels, resamples) for outcome in outcomes}
    control_values = own[control.uid]
    comparisons = []
    for outcome in outcomes:
        mine = own[outcome.uid]
        off = {name: mine[name].less(control_values[name]) for name in mine}
        comparisons.append(
            Comparison(
                outcome=outcome,
                estimates={name: values.interval(bounds(name)) for name, values in mine.items()},
                differences={name: values.interval() for name, values in off.items()},
                relative={name: off[name].share(control_values[name]).interval() for name in mine},
            )
        )
    return comparisons


def by_seed(logits: Logits, labels: Mapping[str, Int[Tensor, " example"]], resamples: Resamples) -> dict[str, "BySeed"]:
    """The compared metrics on *test*, raw and after the temperature fitted on *calibrate*."""
    raw = Predictions.from_logits(logits["test"], labels["test"])
    calibrated = raw.calibrated(Temperature.fit(logits["calibrate"], labels["calibrate"]))
    found = {}
    for suffix, predictions in (("", raw), ("_calibrated", calibrated)):
        for name, drawn in resamples.of(predictions, COMPARED).items():
            found[name + suffix] = BySeed(METRICS[name].function(predictions), drawn)
    return found


@dataclass(frozen=True, eq=False)
class BySeed:
    """A metric of each seed, on the data and on resamples of the examples."""

    values: Float[Tensor, " seed"]
    replicates: Float[Tensor, "replicate seed"]

    def less(self, other: "BySeed") -> "BySeed":
        """The difference, seed by seed and resample by resample."""
        return BySeed(self.values - other.values, self.replicates - other.replicates)

    def share(self, base: "BySeed") -> "BySeed":
        """As a share of the control's mean; unchanged where that is 0, as AURC is without an error."""
        scale = float(base.values.mean()) or 1.0
        return BySeed(self.values / scale, self.replicates / scale)

    def interval(self, bounds: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
        """The mean over seeds with its two-sided 95 % interval.

        To nine decimals: the last bits depend on how many threads summed them, and a resumed sweep is to give the same record.
        """
        estimate = Estimate.crossed(self.values, self.replicates, bounds=bounds)
        return Interval(*(round(float(part), 9) for part in (estimate.value, estimate.low, estimate.high)))


def bounds(name: str) -> tuple[float, float]:
    """The range of a metric."""
    metric = METRICS[name.removesuffix("_calibrated")]
    return metric.low, metric.high
