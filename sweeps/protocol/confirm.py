"""Confirmation: the finalists against ε = 0 with fresh seeds, on the *test* split, which nothing else opens.

Seeds are added a few at a time. The claims are tested after each batch; finalists whose question is settled
get no more.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from lscal import CALIBRATORS, METRICS, Calibrator, Predictions, Temperature
from lscal.estimate import REPLICATES, Crossed, Resamples
from lscal.selective import risk_at
from lscal.summary import Summary, Whole
from sweeps import recalibration
from sweeps.data.dataset import Dataset
from sweeps.scoring import SENTENCES, TOWARDS_PEOPLE, Logits, towards_people
from sweeps.training.beam_search import bleu
from tracking.decision.policies import by
from tracking.decision.prices import Prices
from tracking.decision.sequential import Better, claim, looks
from tracking.decision.settled import levels, settled
from tracking.decision.targets import TARGETS, Target
from tracking.decision.terms import Terms
from tracking.records.comparison import Chance, Claim, Comparison
from tracking.records.outcome import Interval, Outcome

COMPARED = ("accuracy", "worst_class_accuracy", "nll", "brier", "ece", "confidence_gap", "aurc")
"""Metrics compared with those of ε = 0."""
Train = Callable[[Sequence[int], Sequence[str]], Mapping[str, tuple[Outcome, Logits]]]
"""Trains points, given by key, with some of the planned seeds, given by index. Returns the finished ones by
key.
"""


def batches(seeds: int) -> list[tuple[int, int]]:
    """First seed and size of each batch of `seeds` planned seeds: the claims are tested after each."""
    stops = looks(seeds)
    return [(before, stop - before) for before, stop in zip((0, *stops), stops, strict=False)]


@dataclass
class Confirmation:
    """Measurements of the finalists so far.

    Attributes:
        planned: most seeds.
        control: the key of ε = 0.
        runs: by point, the measurements of every batch of seeds.
        stops: number of seeds at each test of the claims.
        replicates: of the bootstrap over examples.
    """

    dataset: Dataset
    terms: Terms
    planned: int
    control: str
    runs: dict[str, "Run"] = field(default_factory=dict)
    stops: list[int] = field(default_factory=list)
    replicates: int = REPLICATES

    def __post_init__(self) -> None:
        self.labels = {split: self.dataset.splits[split].targets.cpu() for split in ("calibrate", "test")}
        groups = self.dataset.splits["test"].groups
        self.resamples = Resamples.draw(len(self.labels["test"]), groups=groups, replicates=self.replicates)

    def add(self, found: Mapping[str, tuple[Outcome, Logits]]) -> None:
        """Add a batch of seeds."""
        for key, (outcome, logits) in found.items():
            if key not in self.runs:
                self.runs[key] = self.begun(outcome, logits)
            run = self.runs[key]
            run.add(outcome, self.measure(logits, run), logits["test"].softmax(-1))
        if self.control in self.runs:
            self.stops.append(len(self.runs[self.control].outcome.seeds))

    def begun(self, outcome: Outcome, logits: Logits) -> "Run":
        """A point with its first batch: its coverage and its recalibration are chosen, on *calibrate*."""
        held_out = logits["calibrate"], self.labels["calibrate"]
        method = recalibration.choose(*held_out, self.dataset.splits["calibrate"].groups)
        calibrator = CALIBRATORS[method].fit(logits["calibrate"][0], self.labels["calibrate"])
        return Run(self.terms.prices.coverage_of(outcome), calibrator)

    def measure(self, logits: Logits, run: "Run") -> dict[str, "BySeed"]:
        """Compared metrics on *test*: raw, after the temperature and after the point's recalibration, both
        fitted on *calibrate*; and the cost at its coverage.

        Where some examples of *test* have people's label distributions, also the metrics towards them, on
        those examples.
        """
        raw = Predictions.from_logits(logits["test"], self.labels["test"])
        temperature = Temperature.fit(logits["calibrate"], self.labels["calibrate"])
        calibrated = raw.calibrated(temperature)
        metrics = {name: METRICS[name].function for name in COMPARED}
        found = drawn(raw, metrics, self.resamples)
        with_cost = metrics | {"cost": lambda summary: cost(summary, run.coverage, self.terms.prices)}
        if SENTENCES in logits:
            found["bleu"] = bleu_by_seed(logits[SENTENCES], self.replicates)
        if (people := towards_people(self.dataset, logits)) is not None:
            resamples = Resamples.draw(people.examples, replicates=self.replicates)
            human = {name: METRICS[name].function for name in TOWARDS_PEOPLE}
            found |= drawn(people, human, resamples)
            found |= {
                f"{name}_calibrated": values
                for name, values in drawn(people.calibrated(temperature), human, resamples).items()
            }
        found |= {
            name if name == "cost" else f"{name}_calibrated": values
            for name, values in drawn(calibrated, with_cost, self.resamples).items()
        }
        return found | self.recalibrated(raw, logits, run.calibrator.method, found)

    def recalibrated(
        self, raw: Predictions, logits: Logits, method: str, found: Mapping[str, "BySeed"]
    ) -> dict[str, "BySeed"]:
        """Metrics on *test* after a point's recalibration, fitted on *calibrate*."""
        if method == recalibration.TEMPERATURE:
            return {f"{name}_recalibrated": found[f"{name}_calibrated"] for name in recalibration.MEASURED}
        calibrator = CALIBRATORS[method].fit(logits["calibrate"], self.labels["calibrate"])
        metrics = {name: METRICS[name].function for name in recalibration.MEASURED}
        after = drawn(raw.calibrated(calibrator), metrics, self.resamples)
        return {f"{name}_recalibrated": values for name, values in after.items()}

    def comparisons(self) -> dict[str, Comparison]:
        """Every point against ε = 0, by key; none where ε = 0 has diverged."""
        return {key: self.compare(key) for key in self.runs} if self.control in self.runs else {}

    def compare(self, key: str) -> Comparison:
        """One point: estimates on *test*, and differences paired by seeds and resamples of examples."""
        mine, base = self.runs[key], self.runs[self.control]
        seeds = len(mine.outcome.seeds)
        control = {name: values.first(seeds) for name, values in base.values.items()}
        off = {name: mine.values[name].less(control[name]) for name in mine.values}
        share = {name: off[name].share(control[name]) for name in off}
        counts = [stop for stop in self.stops if stop <= seeds]
        return Comparison(
            outcome=mine.outcome,
            estimates={name: values.interval(bounds(name)) for name, values in mine.values.items()},
            differences={name: values.interval() for name, values in off.items()},
            relative={name: values.interval() for name, values in share.items()},
            claims=(
                {}
                if key == self.control
                else {
                    target.metric: self.claimed(target, share if target.relative else off, counts)
                    for target in TARGETS
                    if target.metric in off
                }
            ),
            coverage=mine.coverage,
            recalibrator=mine.calibrator.method,
            chances=(
                {}
                if key == self.control
                else {
                    target.metric: off[target.metric].chance(target.sign)
                    for target in TARGETS
                    if target.metric in off
                }
            ),
        )

    def claimed(self, target: Target, differences: Mapping[str, "BySeed"], counts: Sequence[int]) -> Claim:
        """The claim that a metric is better than at ε = 0, at all tests so far."""
        values = differences[target.metric]
        return claim({seeds: values.first(seeds).interval() for seeds in counts}, self.planned, target.sign)

    def between(self, key: str, other: str, metric: str) -> Interval | None:
        """The paired difference of one point less another in a metric, over the seeds that both have."""
        mine, theirs = self.runs[key].values[metric], self.runs[other].values[metric]
        seeds = min(len(mine.values), len(theirs.values))
        return mine.first(seeds).less(theirs.first(seeds)).interval()

    def unsettled(self, going: Sequence[str], finalists: Mapping[str, Sequence[str]]) -> list[str]:
        """Those of some points that need more seeds; `finalists` holds the candidates' names of each."""
        control = self.compare(self.control)
        claims = {
            name: (key, by(name, self.terms).aim(control).metric)
            for key, names in finalists.items()
            for name in names
            if key in self.runs
        }
        accepted = levels(claims, self.terms)
        return [
            key
            for key in going
            if key in self.runs
            and not settled(finalists[key], self.compare(key), control, self.terms, accepted)
        ]


def confirm(confirmation: Confirmation, finalists: Mapping[str, Sequence[str]], train: Train) -> None:
    """Train the finalists and ε = 0, a batch of seeds at a time, until every question is settled or the
    planned seeds are used up.

    `finalists` holds, for each point, the names of the candidates that it is. Without finalists ε = 0 alone
    gets its first batch. A point whose training diverges is given up.
    """
    going = list(finalists)
    for first, count in batches(confirmation.planned):
        wanted = [confirmation.control, *going]
        found = train(range(first, first + count), wanted)
        for diverged in set(wanted) - set(found):
            confirmation.runs.pop(diverged, None)
        confirmation.add(found)
        if confirmation.control not in confirmation.runs:
            return
        going = confirmation.unsettled(going, finalists)
        if not going:
            return


@dataclass
class Run:
    """A point under confirmation: the outcome and the values of all its seeds so far.

    Attributes:
        coverage: the share of examples to decide without a review, chosen on *calibrate* with the first
            batch.
        calibrator: the best recalibration of the point, of its first seed.
        values: metric -> its values on *test*.
        probabilities, confidence: of each example of *test*, raw, mean over seeds; confidence is the highest
            probability of each seed.
    """

    coverage: float
    calibrator: Calibrator
    outcomes: list[Outcome] = field(default_factory=list)
    values: dict[str, "BySeed"] = field(default_factory=dict)
    probabilities: Float[Tensor, "example class"] | None = None
    confidence: Float[Tensor, " example"] | None = None

    def add(
        self,
        outcome: Outcome,
        values: Mapping[str, "BySeed"],
        probabilities: Float[Tensor, "seed example class"],
    ) -> None:
        """Add a batch."""
        before = sum(len(one.seeds) for one in self.outcomes)
        now = before + len(outcome.seeds)
        self.outcomes.append(outcome)
        self.values = {
            name: self.values[name].with_more(more) if self.values else more for name, more in values.items()
        }
        sums = probabilities.sum(0), probabilities.amax(-1).sum(0)
        if self.probabilities is None or self.confidence is None:
            self.probabilities, self.confidence = sums[0] / now, sums[1] / now
        else:
            self.probabilities = (self.probabilities * before + sums[0]) / now
            self.confidence = (self.confidence * before + sums[1]) / now

    @property
    def outcome(self) -> Outcome:
        """All batches as one outcome."""
        return Outcome.joined(self.outcomes)


def cost(summary: Summary, coverage: float, prices: Prices) -> Float[Tensor, "*lead"]:
    """Expected cost of an example, where the most confident share `coverage` is decided and the rest
    reviewed.
    """
    if coverage == 0:
        return torch.full_like(summary.mean(summary.predictions.nll), prices.review)
    risk = risk_at(summary.groups, coverage)
    return coverage * (risk * prices.wrong + (1 - risk) * prices.right) + (1 - coverage) * prices.review


def drawn(
    predictions: Predictions, metrics: Mapping[str, Callable[[Summary], Tensor]], resamples: Resamples
) -> dict[str, "BySeed"]:
    """Metrics of each seed, on the data and on the resamples."""
    whole = Whole(predictions)
    replicates: dict[str, list[Tensor]] = {name: [] for name in metrics}
    for resampled in resamples.summaries(whole):
        for name, metric in metrics.items():
            replicates[name].append(metric(resampled))
    return {name: BySeed(metric(whole), torch.cat(replicates[name])) for name, metric in metrics.items()}


@dataclass(frozen=True, eq=False)
class BySeed:
    """A metric of each seed, on the data and on resamples of the examples."""

    values: Float[Tensor, " seed"]
    replicates: Float[Tensor, "replicate seed"]

    def less(self, other: "BySeed") -> "BySeed":
        """Difference, seed by seed and resample by resample."""
        return BySeed(self.values - other.values, self.replicates - other.replicates)

    def share(self, base: "BySeed") -> "BySeed":
        """Share of the control's mean; unchanged where that is 0, as AURC is without an error."""
        scale = float(base.values.mean()) or 1.0
        return BySeed(self.values / scale, self.replicates / scale)

    def with_more(self, more: "BySeed") -> "BySeed":
        """With another batch of seeds."""
        return BySeed(torch.cat([self.values, more.values]), torch.cat([self.replicates, more.replicates], 1))

    def first(self, seeds: int) -> "BySeed":
        """The first `seeds` seeds."""
        return BySeed(self.values[:seeds], self.replicates[:, :seeds])

    def chance(self, sign: Better) -> Chance:
        """How likely the mean over seeds is better than 0 (`sign` 1: above it), and the expected loss: over a
        bootstrap of the seeds crossed with that of the examples.
        """
        count, seeds = self.replicates.shape
        rows = torch.randint(seeds, (count, seeds), generator=torch.Generator().manual_seed(0))
        means = sign * self.replicates.gather(1, rows).double().mean(1)
        means = means[means.isfinite()]
        if not len(means):
            return Chance(0.5, 0.0)
        better = (means > 0).double().mean() + (means == 0).double().mean() / 2
        return Chance(round(float(better), 6), round(float((-means).clamp(min=0).mean()), 9))

    def interval(self, bounds: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
        """Mean over seeds with its two-sided 95 % interval and the parts of its variance.

        To nine decimals: the last bits depend on the number of threads, and a resumed sweep has to give the
        same record.
        """
        crossed = Crossed.of(self.values, self.replicates)
        estimate = crossed.interval(bounds=bounds)
        value, low, high, examples, seeds = (
            round(float(part), 9)
            for part in (estimate.value, estimate.low, estimate.high, crossed.examples, crossed.seeds)
        )
        return Interval(value, low, high, examples, seeds, round(crossed.freedom, 6))


def bleu_by_seed(statistics: Float[Tensor, "seed sentence statistic"], replicates: int) -> BySeed:
    """BLEU of each seed, on the data and on resamples of the sentences, the same for every point."""
    resamples = Resamples.draw(statistics.shape[1], replicates=replicates)
    blocks = statistics.new_zeros(len(statistics), resamples.weights.shape[1], statistics.shape[2]).index_add(
        1, resamples.block, statistics
    )
    drawn = torch.einsum("rb,sbk->rsk", resamples.weights, blocks)
    return BySeed(bleu(statistics.sum(1)), bleu(drawn))


def bounds(name: str) -> tuple[float, float]:
    """Range of a metric."""
    if name == "cost":
        return -math.inf, math.inf
    if name == "bleu":
        return 0.0, 1.0
    metric = METRICS[name.removesuffix("_calibrated").removesuffix("_recalibrated")]
    return metric.low, metric.high
