"""Estimate: a value with its interval, from a bootstrap over examples, or crossed over seeds × examples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lscal.metrics.metric import METRICS, applicable
from lscal.predictions import Predictions
from lscal.summary import GROUPS, Blocks, Resampled, Whole

REPLICATES = 1000
BLOCKS = 1024
"""Random blocks of examples that are drawn as one. A variance from 1024 of them is itself known to 4 %."""

AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class Estimate:
    """A value per member and the two-sided interval that covers the truth with probability `level`. All
    float64.
    """

    value: Float[Tensor, "*member"]
    low: Float[Tensor, "*member"]
    high: Float[Tensor, "*member"]
    level: float = 0.95

    @classmethod
    def of(
        cls,
        value: Float[Tensor, "*member"],
        replicates: Float[Tensor, "replicate *member"],
        level: float = 0.95,
        bounds: tuple[float, float] = (-torch.inf, torch.inf),
    ) -> "Estimate":
        """An interval from replicates, cut at the bounds of the metric.

        At each end the wider of two: the percentiles of the replicates, moved so that they centre on `value`,
        and `value` ± z standard deviations of them. The move removes the bootstrap's own bias: resampled data
        look less calibrated than the data themselves. The second holds where few examples decide and
        percentiles fall on a lattice. Resamples on which the metric is not defined are left out; a value
        that is not finite has no interval but itself.
        """
        tails = torch.tensor(
            [(1 - level) / 2, (1 + level) / 2], dtype=torch.float64, device=replicates.device
        )
        defined = replicates.where(torch.isfinite(replicates), torch.nan)
        centred = defined - defined.nanmean(0) + value
        spread = NormalDist().inv_cdf((1 + level) / 2) * (centred - value).square().nanmean(0).sqrt()
        low, high = torch.nanquantile(centred, tails, dim=0)
        low, high = (
            torch.minimum(low, value - spread).clamp(*bounds),
            torch.maximum(high, value + spread).clamp(*bounds),
        )
        finite = torch.isfinite(value)
        return cls(value, torch.where(finite, low, value), torch.where(finite, high, value), level)

    @classmethod
    def crossed(
        cls,
        by_seed: Float[Tensor, " seed"],
        replicates: Float[Tensor, "replicate seed"],
        level: float = 0.95,
        bounds: tuple[float, float] = (-torch.inf, torch.inf),
    ) -> "Estimate":
        """The mean over seeds, with an interval for other seeds and other examples, cut at the bounds of the
        metric; see `Crossed`.
        """
        return Crossed.of(by_seed, replicates).interval(level, bounds)

    def less(self, other: "Estimate", correlation: Float[Tensor, "*member"]) -> "Estimate":
        """The difference to another estimate, from both intervals and the correlation of their errors (Zou
        and Donner 2008, "MOVER").

        A lower limit of 0 has been cut off, so there the upper half of that interval stands for both.
        """
        up, other_up = self.high - self.value, other.high - other.value
        down, other_down = (
            torch.where(
                part.low > 0, part.value - part.low, torch.maximum(part.value, part.high - part.value)
            )
            for part in (self, other)
        )

        def half(one: Tensor, two: Tensor) -> Tensor:
            return (one.square() + two.square() - 2 * correlation * one * two).clamp(min=0).sqrt()

        value = self.value - other.value
        return Estimate(value, value - half(down, other_up), value + half(up, other_down), self.level)


@dataclass(frozen=True, eq=False)
class Crossed:
    """The mean of a metric over S seeds, and what its variance is made of: `examples`² + `seeds`² / S.
    Scalars, float64.

    Attributes:
        examples: standard deviation due to the examples alone, which any number of seeds leaves.
        seeds: standard deviation of one seed beyond that.
        error: the standard error of the mean.
        freedom: Satterthwaite's (1946) degrees of freedom of it.
    """

    mean: Float[Tensor, ""]
    examples: Float[Tensor, ""]
    seeds: Float[Tensor, ""]
    error: Float[Tensor, ""]
    freedom: float

    @classmethod
    def of(cls, by_seed: Float[Tensor, " seed"], replicates: Float[Tensor, "replicate seed"]) -> "Crossed":
        """From the value of each seed and its replicates, on the same resamples of the examples.

        The variance of the seeds' mean over resamples, plus what the seeds differ beyond what their examples
        explain, by analysis of variance. For a paired difference give the differences of both. One seed: the
        examples only. Two seeds hardly show how far seeds differ: the interval is wide and covers 85 to 96
        %. Resamples on which some seed is not defined are left out.
        """
        seeds = len(by_seed)
        mean = by_seed.mean()
        nothing = torch.zeros_like(mean)
        if not bool(torch.isfinite(mean)):
            return cls(mean, nothing, nothing, nothing, torch.inf)
        replicates = replicates[torch.isfinite(replicates).all(1)]
        examples = replicates.mean(1).var()
        among, own = nothing, nothing
        if seeds > 1:
            among = by_seed.var()
            own = (replicates.var(0).sum() - seeds * examples) / (seeds - 1)
        extra = (among - own).clamp(min=0) / seeds
        variance = examples + extra
        unsure = examples.square() / (BLOCKS - 1)
        if seeds > 1 and bool(extra > 0):
            unsure = unsure + (among / seeds).square() / (seeds - 1)
        freedom = float(variance.square() / unsure) if bool(unsure > 0) else torch.inf
        own = own.clamp(min=0).minimum(seeds * examples)
        return cls(
            mean,
            (examples - own / seeds).clamp(min=0).sqrt(),
            (own + seeds * extra).sqrt(),
            variance.sqrt(),
            freedom,
        )

    def interval(
        self, level: float = 0.95, bounds: tuple[float, float] = (-torch.inf, torch.inf)
    ) -> Estimate:
        """The two-sided interval by Student's t, cut at the bounds of the metric. A mean that is not finite
        has none but itself.
        """
        if not bool(torch.isfinite(self.mean)):
            return Estimate(self.mean, self.mean, self.mean, level)
        from scipy.special import stdtrit  # a fifth of a second to import

        half = float(stdtrit(self.freedom, (1 + level) / 2)) * self.error
        return Estimate(
            self.mean, (self.mean - half).clamp(*bounds), (self.mean + half).clamp(*bounds), level
        )


@dataclass(frozen=True, eq=False)
class Resamples:
    """Random weights over examples, the same for every model compared: that makes differences paired.

    Examples are put into blocks at random, once; up to 1024 examples each is a block of its own, which is the
    plain bootstrap. Examples that belong together, as the positions of a sentence do, are drawn together
    (the cluster bootstrap, Davison and Hinkley 1997, section 3.8).
    """

    block: Int[Tensor, " example"]
    weights: Float[Tensor, "replicate block"]

    @classmethod
    def draw(
        cls,
        examples: int,
        *,
        groups: Int[Tensor, " example"] | None = None,
        replicates: int = REPLICATES,
        random_state: int = 0,
    ) -> "Resamples":
        """Resamples of so many examples, reproducible from `random_state`. `groups` numbers what each example
        belongs to; None: each is alone.

        Errors: ValueError for fewer than 1 of anything, and for another number of groups than of examples.
        """
        if min(examples, replicates) < 1:
            raise ValueError(
                f"there are {examples} examples and {replicates} replicates; wanted at least 1 of each"
            )
        if groups is not None and len(groups) != examples:
            raise ValueError(
                f"there are {examples} examples and {len(groups)} group numbers; wanted one for each"
            )
        member = (
            torch.arange(examples) if groups is None else torch.unique(groups.cpu(), return_inverse=True)[1]
        )
        count = int(member.max()) + 1
        generator = torch.Generator().manual_seed(random_state)
        blocks = min(count, BLOCKS)
        block = torch.empty(count, dtype=torch.int64)
        block[torch.randperm(count, generator=generator)] = torch.arange(count) % blocks
        picks = torch.randint(blocks, (replicates, blocks), generator=generator)
        weights = torch.zeros(replicates, blocks, dtype=torch.float64)
        return cls(block[member], weights.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.float64)))

    def of(
        self, predictions: Predictions | Whole, names: Sequence[str] | None = None
    ) -> dict[str, Float[Tensor, "replicate *member"]]:
        """Each metric on every resample of the examples; a `Whole` keeps what was cross-fitted for its own
        values.
        """
        whole = Whole(predictions) if isinstance(predictions, Predictions) else predictions
        parts: dict[str, list[Tensor]] = {metric.name: [] for metric in applicable(whole.own, names)}
        for resampled in self.summaries(whole):
            for name, collected in parts.items():
                collected.append(METRICS[name].function(resampled))
        return {name: torch.cat(collected) for name, collected in parts.items()}

    def summaries(self, whole: Whole) -> Iterator[Resampled]:
        """The sums on all resamples, as many at a time as lie in memory well. Errors: ValueError for another
        number of examples.
        """
        if whole.own.examples != len(self.block):
            raise ValueError(
                f"there are {whole.own.examples} examples; these resamples are of {len(self.block)}"
            )
        device = whole.own.labels.device
        blocks = Blocks(whole, self.block.to(device), self.weights.shape[1])
        members = max(1, whole.own.scores.shape[:-2].numel())
        step = max(1, AT_ONCE // (3 * GROUPS * members))
        for weights in torch.split(self.weights.to(device), step):
            yield Resampled(blocks, weights)


def estimates(
    predictions: Predictions,
    names: Sequence[str] | None = None,
    *,
    resamples: Resamples | None = None,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Each metric with its interval over examples, for every member by itself.

    `names` are keys of `METRICS`, None for all that the labels allow. `resamples` are 1000 of these examples
    where None; give the same to other models on these examples. `level` is the probability to cover, in (0,
    1).

    Errors: ValueError for an unknown name.
    """
    resamples = Resamples.draw(predictions.examples) if resamples is None else resamples
    wholes = map(Whole, predictions.parts())
    parts = [found(whole, resamples.of(whole, names), level) for whole in wholes]
    return joined(parts, predictions.member)


def found(
    whole: Whole, replicates: Mapping[str, Float[Tensor, "replicate *member"]], level: float
) -> dict[str, Estimate]:
    """Estimates from replicates; from the metric's own limits where it has some."""
    estimates = {}
    for name, drawn in replicates.items():
        metric = METRICS[name]
        value = metric.function(whole)
        if metric.limits is None:
            estimates[name] = Estimate.of(value, drawn, level, (metric.low, metric.high))
        else:
            estimates[name] = Estimate(value, *metric.limits(whole, level), level)
    return estimates


def differences(
    first: Predictions,
    second: Predictions,
    names: Sequence[str] | None = None,
    *,
    resamples: Resamples | None = None,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Each metric of `first` less that of `second`, on the same resamples of the same examples.

    Members are paired; a dimension of 1 is compared with each of the other's.

    Errors: ValueError where the labels are not the same, in the same order, or the member dimensions do not
    fit.
    """
    if not torch.equal(first.labels, second.labels):
        raise ValueError(
            "the two have other labels; a paired difference is of the same examples in the same order"
        )
    pairs = list(zip(first.member, second.member, strict=False))
    if len(first.member) != len(second.member) or any(
        one != two and 1 not in (one, two) for one, two in pairs
    ):
        raise ValueError(
            f"the two have member dimensions {first.member} and {second.member}; wanted the same, or 1 for"
            " one against each"
        )
    resamples = Resamples.draw(first.examples) if resamples is None else resamples
    if names is None:
        names = [metric.name for metric in applicable(first) if metric in applicable(second)]
    groups = [(first, second)]
    if first.member == second.member and len(first.parts()) == len(second.parts()):
        groups = list(zip(first.parts(), second.parts(), strict=True))
    found = [paired(one, other, names, resamples, level) for one, other in groups]
    return found[0] if len(found) == 1 else joined(found, first.member)


def paired(
    first: Predictions, second: Predictions, names: Sequence[str], resamples: Resamples, level: float
) -> dict[str, Estimate]:
    """As `differences`, of members whose columns fit in memory."""
    wholes = Whole(first), Whole(second)
    replicates = [resamples.of(whole, names) for whole in wholes]
    estimates = [found(whole, drawn, level) for whole, drawn in zip(wholes, replicates, strict=True)]
    differences = {}
    for name in names:
        of_first, of_second = (drawn[name] for drawn in replicates)
        one, other = (own[name] for own in estimates)
        if METRICS[name].limits is None:
            differences[name] = Estimate.of(one.value - other.value, of_first - of_second, level)
        else:
            differences[name] = one.less(other, correlation(of_first, of_second))
    return differences


def joined(parts: Sequence[dict[str, Estimate]], member: tuple[int, ...]) -> dict[str, Estimate]:
    """Estimates of groups of members as those of all."""
    if len(parts) == 1:
        return parts[0]
    whole = {}
    for name, estimate in parts[0].items():
        columns = zip(*((part[name].value, part[name].low, part[name].high) for part in parts), strict=True)
        value, low, high = (torch.cat(column).reshape(member) for column in columns)
        whole[name] = Estimate(value, low, high, estimate.level)
    return whole


def correlation(
    first: Float[Tensor, "replicate *#member"], second: Float[Tensor, "replicate *#member"]
) -> Float[Tensor, "..."]:
    """The correlation of paired replicates, 0 where one of them does not vary."""
    a, b = first - first.mean(0), second - second.mean(0)
    scale = (a.square().sum(0) * b.square().sum(0)).sqrt()
    return torch.where(scale > 0, (a * b).sum(0) / scale, 0).clamp(-1, 1)
