"""The pilot: what a sweep will be able to tell, from its first two pairs of members.

A pair is trained from one seed at ε = 0 and at ε > 0. On an example, d is +1 where only the second is right,
-1 where only the first is, else 0. With a_i what all seeds share on example i, b_s what seed s does
everywhere, and e_si the rest, d_si = gain + a_i + b_s + e_si, and the mean over S seeds and n test examples
has the variance

    σ_x²/n + σ_d²/S,    σ_d² = σ_b² + σ_e²/n,

of which more seeds never remove the first part. d² has mean ψ, the discordance of McNemar's test (Connor
1987); σ_x² = ρψ and σ_e² = (1-ρ)ψ, where ρ is the share of it that two seeds have in common. Two seeds on
some hundred examples leave a handful of discordant ones, and one degree of freedom for σ_b. So ρ and σ_b² are
drawn towards what was measured on whole tasks (docs/statistics.md), the more the fewer there are.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tracking.decision.sequential import (
    BATCH,
    LEVEL,
    MOST_SEEDS,
    cautious_freedom,
    cautious_shares,
    critical,
    crossing,
    first,
    looks,
)
from tracking.records.evidence import Pilot
from tracking.records.outcome import Interval

POWER = 0.8
"""The probability with which a gain that is called detectable is found."""

NEAR = 1.1
"""Where examples are the limit, seeds are added until the detectable gain is within this factor of what
infinitely many would reach.
"""

COMMON, WORTH = 0.3, 3.0
"""ρ before anything is seen, and how many discordant examples that is worth."""

BEYOND, SPREAD = 6e-5, 1.2
"""σ_b²/ψ before anything is seen: its median, and the standard deviation of its logarithm."""

USUAL = (0.007, 0.08)
"""ψ before anything is seen, its two ends: pilots of tasks with errors of 2 to 18 % found .65 to 2.7 %, and
more where most is wrong, as on cifar10n (docs/statistics.md)."""

USUAL_COMMON = (0.1, 0.5)
"""ρ at these ends; σ_b²/ψ is there one standard deviation below and above its median."""

FINE = 64
MOST_SHARES = 1 << 16


@dataclass(frozen=True)
class Parts:
    """What the variance of a difference in accuracy is made of.

    Attributes:
        shared: σ_x², the variance over examples that all seeds share.
        own: σ_e², the variance over examples of each seed.
        beyond: σ_b², the variance over seeds with infinitely many examples.
    """

    shared: float
    own: float
    beyond: float

    @classmethod
    def of(cls, differences: NDArray[np.float64]) -> "Parts":
        """From d, of shape (2, example).

        ψ = (discordant examples, mean over seeds, + 1/2)/(n + 1/2). ρ = (Σ d₁d₂ + 3·0.3)/(Σ (d₁² + d₂²)/2 +
        3), cut at 0. σ_b is the posterior mean, given that D₁ - D₂, the means over examples, is normal with
        variance 2(σ_b² + σ_e²/n), and that σ_b² is log-normal with median 6·10⁻⁵ψ.
        """
        one, two = differences
        discordant = float(one @ one + two @ two) / 2
        discordance = (discordant + 0.5) / (len(one) + 0.5)
        common = max(float(one @ two) + WORTH * COMMON, 0.0) / (discordant + WORTH)
        own = (1 - common) * discordance
        deviates = np.linspace(-4, 4, 81)
        possible = BEYOND * discordance * np.exp(SPREAD * deviates)
        variance = 2 * (possible + own / len(one))
        likely = np.exp(-(deviates**2) / 2 - (one.mean() - two.mean()) ** 2 / (2 * variance)) / np.sqrt(
            variance
        )
        return cls(common * discordance, own, float(likely @ np.sqrt(possible) / likely.sum()) ** 2)

    @classmethod
    def usual(cls) -> tuple["Parts", "Parts"]:
        """The two ends of what they are before anything is seen: little noise, and much."""
        little, much = (
            cls(
                common * discordance,
                (1 - common) * discordance,
                BEYOND * discordance * math.exp(deviate * SPREAD),
            )
            for discordance, common, deviate in zip(USUAL, USUAL_COMMON, (-1, 1), strict=True)
        )
        return little, much

    def on(self, examples: float) -> Interval:
        """A difference with both parts of its error on so many test examples."""
        return Interval(
            0.0, 0.0, 0.0, math.sqrt(self.shared / examples), math.sqrt(self.beyond + self.own / examples)
        )


@dataclass(frozen=True)
class Design:
    """A confirmation with the looks of `tracking.decision.sequential`: `error` has the two parts of its
    error, `seeds` is how many are planned.
    """

    error: Interval
    seeds: int

    @cached_property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """At each look, Student's t that proves a gain, and the degrees of freedom."""
        from scipy.special import ndtr, stdtrit

        found = []
        planned = looks(self.seeds)
        for place, seeds in enumerate(planned):
            shares = cautious_shares(self.error, planned[: place + 1], self.seeds)
            bound = -float(stdtrit(cautious_freedom(self.error, seeds), ndtr(-critical(shares, LEVEL)[-1])))
            part = self.error.seeds**2 / seeds
            found.append(
                (
                    bound,
                    (
                        min((seeds - 1) * (1 + self.error.examples**2 / part) ** 2, 1e6)
                        if part > 0 and seeds > 1
                        else 1e6
                    ),
                )
            )
        return tuple(found)

    def power(self, gain: float) -> float:
        """The probability that this true gain is proven at some look.

        Each look's own probability is that of the noncentral t distribution; their joint distribution is
        taken as that of normal deviates.
        """
        from scipy.special import nctdtr, ndtri

        planned = looks(self.seeds)
        deviates = []
        for seeds, (bound, freedom) in zip(planned, self.bounds, strict=True):
            expected = gain / self.error.error(seeds)
            missed = max(
                float(nctdtr(freedom, min(expected, 30.0), bound)), 1e-12
            )  # above 35 nctdtr may be NaN; a later look then finds it
            deviates.append(expected + float(ndtri(missed)))
        final = self.error.error(self.seeds)
        return crossing([(final / self.error.error(seeds)) ** 2 for seeds in planned], deviates, gain / final)

    def detectable(self) -> float:
        """The gain that is proven with probability 0.8, to a thousandth of it."""
        last = self.error.error(self.seeds)
        low, high = (
            max(limit(self.error), last / 64),
            64 * last,
        )  # a gain of a 64th of the last error is hardly ever proven
        while high > 1.001 * low:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if self.power(middle) >= POWER else (middle, high)
        return high


def limit(error: Interval) -> float:
    """The gain that infinitely many seeds prove with probability 0.8 in one look: (z₀.₉₇₅ + z₀.₈)·σ_x/√n."""
    from scipy.special import ndtri

    return float(ndtri(1 - LEVEL) + ndtri(POWER)) * error.examples


def seeds_for(error: Interval, gain: float) -> int | None:
    """The least multiple of 4 of seeds with which this gain is proven with probability 0.8; None where no
    number is enough.
    """
    if limit(error) >= gain:
        return None
    batches = first(lambda batches: Design(error, BATCH * batches).power(gain) >= POWER, MOST_SEEDS // BATCH)
    return None if batches is None else BATCH * batches


def examples_for(parts: Parts, seeds: int, gain: float) -> int | None:
    """How many test examples prove this gain with probability 0.8 with so many seeds, to 2 %; None where no
    number does.
    """
    least = (limit(Interval(0.0, 0.0, 0.0, math.sqrt(parts.shared + parts.own / seeds))) / gain) ** 2
    shares = first(
        lambda shares: Design(parts.on(least * shares / FINE), seeds).power(gain) >= POWER, MOST_SHARES
    )
    return None if shares is None else math.ceil(least * shares / FINE)


def seeds_planned(error: Interval, effect: float, confirm_seeds: int | None, most_confirm_seeds: int) -> int:
    """How many fresh seeds a finalist is to get: as many as were asked for; or the fewest that find a gain
    of `effect` or come within 10 % of what any number of them could find, a multiple of 4, at most
    `most_confirm_seeds`.
    """
    return confirm_seeds or min(
        seeds_for(error, max(effect, NEAR * limit(error))) or most_confirm_seeds, most_confirm_seeds
    )


@dataclass(frozen=True)
class Expected:
    """What a sweep will be able to tell, before its pilot: the two ends of what is usual, with the
    calculation of the pilot.

    Attributes:
        detectable: the smallest gain in accuracy that is found four times in five.
        seeds: fresh seeds of a finalist at the two ends.
        examples_needed: test examples for a gain of `effect` where there is little noise; None where no
            number is enough.
    """

    detectable: tuple[float, float]
    seeds: tuple[int, int]
    test_examples: int
    effect: float
    examples_needed: int | None

    @classmethod
    def of(
        cls, test_examples: int, effect: float, confirm_seeds: int | None, most_confirm_seeds: int
    ) -> "Expected":
        """By the size of *test* and the plan alone."""
        parts = Parts.usual()
        errors = [one.on(test_examples) for one in parts]
        seeds = [seeds_planned(error, effect, confirm_seeds, most_confirm_seeds) for error in errors]
        low, high = sorted(Design(error, own).detectable() for error, own in zip(errors, seeds, strict=True))
        needed = None if low <= effect else examples_for(parts[0], max(seeds), effect)
        return cls((low, high), (seeds[0], seeds[1]), test_examples, effect, needed)

    @property
    def sentence(self) -> str:
        """What it says, and what it assumes."""
        low, high = (f"{100 * one:.2f}" for one in self.detectable)
        seeds = f"{'' if len(set(self.seeds)) == 1 else 'up to '}{max(self.seeds)} seeds"
        return (
            f"a gain in accuracy of {low} to {high} pp or more is found four times in five ({seeds},"
            f" {count(self.test_examples)} test examples), if ε changes the verdict on {100 * USUAL[0]:g} to"
            f" {100 * USUAL[1]:g} % of examples, as is usual; the sweep's pilot narrows it"
        )


def pilot_of(
    right0: NDArray[np.bool_],
    right1: NDArray[np.bool_],
    *,
    epsilon: float,
    test_examples: int,
    member_seconds: float,
    effect: float,
    price_per_hour: float | None,
    screening_members: int,
    finalists: int,
    confirm_seeds: int | None,
    most_confirm_seeds: int,
) -> Pilot:
    """What two pairs of members say about the sweep that is to come.

    `right0` and `right1` hold whether each held-out example is classified correctly at ε = 0 and at
    `epsilon`, by (seed, example), seeds paired. `finalists` is how many candidates will be confirmed beside ε
    = 0. `confirm_seeds` and `most_confirm_seeds` are those of `seeds_planned`. `discordance` and
    `disagreement` are as counted; the deviations are drawn towards what is usual (`Parts.of`). Members are
    those of all stages. Errors: ValueError where there are not two seeds of the same examples.
    """
    check_pairs(right0, right1)
    differences = right1.astype(np.float64) - right0
    parts = Parts.of(differences)
    error = parts.on(test_examples)
    chosen = seeds_planned(error, effect, confirm_seeds, most_confirm_seeds)
    needed = seeds_for(error, effect)

    def members(seeds: int) -> int:
        return 2 * len(right0) + screening_members + (finalists + 1) * seeds

    def hours(count: int) -> float:
        return count * member_seconds / 3600

    def price(count: int) -> float | None:
        return None if price_per_hour is None else hours(count) * price_per_hour

    return Pilot(
        epsilon=epsilon,
        seeds=right0.shape[0],
        examples=right0.shape[1],
        discordance=float(np.abs(differences).mean()),
        disagreement=float((right0[0] != right0[1]).mean()),
        example_deviation=math.sqrt(parts.shared),
        seed_deviation=error.seeds,
        test_examples=test_examples,
        member_seconds=member_seconds,
        effect=effect,
        confirm_seeds=chosen,
        detectable=Design(error, chosen).detectable(),
        seeds_needed=needed,
        examples_needed=examples_for(parts, chosen, effect),
        members=members(chosen),
        hours=hours(members(chosen)),
        price=price(members(chosen)),
        members_needed=None if needed is None else members(needed),
        hours_needed=None if needed is None else hours(members(needed)),
        price_needed=None if needed is None else price(members(needed)),
    )


def check_pairs(right0: NDArray[np.bool_], right1: NDArray[np.bool_]) -> None:
    """Errors: ValueError where there are not two seeds of the same examples."""
    if right0.shape != right1.shape or right0.ndim != 2 or right0.shape[0] != 2 or right0.shape[1] < 2:
        raise ValueError(
            f"the pilot's members are of shapes {right0.shape} and {right1.shape}; wanted twice (2 seeds,"
            " examples)"
        )


def sentences(pilot: Pilot) -> tuple[str, ...]:
    """What the pilot found, three lines for a terminal: what the sweep can decide, what the smallest gain of
    interest would take, and the cost.
    """
    effect = f"the smallest gain of interest, {points(pilot.effect)}"
    reached = pilot.detectable <= pilot.effect
    return (
        (
            f"This sweep finds a gain in accuracy of {points(pilot.detectable)} or more four times in five"
            f" ({count(pilot.confirm_seeds)} seeds, {count(pilot.test_examples)} test examples)."
        ),
        f"That covers {effect}." if reached else f"T{effect[1:]}, would take {remedy(pilot)}.",
        (
            f"At most {cost(pilot.members, pilot.hours, pilot.price)}. Seen on {pilot.seeds} pairs: ε ="
            f" {pilot.epsilon:g} changes the verdict on {100 * pilot.discordance:.1f} % of"
            f" {count(pilot.examples)} held-out examples."
        ),
    )


def remedy(pilot: Pilot) -> str:
    """What the smallest gain of interest would take."""
    examples = (
        ""
        if pilot.examples_needed is None
        else f"about {count(rounded(pilot.examples_needed))} test examples"
    )
    if pilot.seeds_needed is not None and pilot.members_needed is not None and pilot.hours_needed is not None:
        seeds = (
            f"{count(pilot.seeds_needed)} seeds"
            f" ({cost(pilot.members_needed, pilot.hours_needed, pilot.price_needed)})"
        )
        return f"{seeds}, or {examples}" if examples else seeds
    return (
        f"{examples}, with {count(pilot.confirm_seeds)} seeds"
        if examples
        else "more than further seeds and test examples can give"
    )


def rounded(number: int) -> int:
    """A whole number to two digits: it is known no better."""
    return int(float(f"{number:.2g}"))


def cost(members: int, hours: float, price: float | None) -> str:
    """Members, hours and price in words."""
    took = (
        f"{hours:.1f} hours"
        if hours >= 1
        else f"{60 * hours:.0f} minutes"
        if hours >= 1 / 60
        else "less than a minute"
    )
    return f"{count(members)} members, {took}" + ("" if price is None else f", at a price of {price:.2f}")


def points(share: float) -> str:
    """A share in percentage points."""
    return f"{100 * share:.2f} pp"


def count(number: int) -> str:
    """A whole number, thousands apart."""
    return f"{number:,}".replace(",", " ")
