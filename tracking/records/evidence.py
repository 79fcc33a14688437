"""Evidence: all that a decision rests on, as one record; the page, the API and `tracking.diff` are made from
its JSON alone.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from tracking.records.comparison import Comparison
from tracking.records.outcome import Outcome
from tracking.records.point import Point
from tracking.records.recommendation import Recommendation
from tracking.records.schema import Count, Epsilon, Number, Share, WrongRecord, read, write

BANDED = (
    "accuracy",
    "nll_calibrated",
    "aurc_calibrated",
    "ece",
    "ece_calibrated",
    "confidence_gap",
    "aurc",
    "cost",
)
"""Metrics whose smooth fit over ε is kept."""


@dataclass(frozen=True)
class Band:
    """A metric of the screening as a smooth function of ε, with a 95 % band for other seeds;
    `tracking.decision.fit` says how.

    The band is that of the mean over seeds on these examples. `shift`, `shift_low` and `shift_high` are the
    difference to ε = 0.
    """

    epsilon: tuple[Number, ...]
    mean: tuple[Number, ...]
    low: tuple[Number, ...]
    high: tuple[Number, ...]
    shift: tuple[Number, ...]
    shift_low: tuple[Number, ...]
    shift_high: tuple[Number, ...]


@dataclass(frozen=True)
class Surface:
    """Accuracy in the screening as a smooth function of ε and of another tuned number;
    `tracking.decision.fit` says how.

    Attributes:
        epsilon, values: the ε, and the values of the other number.
        mean: for each value a row over ε.
        others: what else was tuned, with the values of the most accurate point, at which it is held.
    """

    epsilon: tuple[Number, ...]
    values: tuple[Number, ...]
    mean: tuple[tuple[Number, ...], ...]
    others: Point


@dataclass(frozen=True)
class Pilot:
    """What the first four members say about the sweep that is to come; `tracking.decision.power` says how.

    Attributes:
        epsilon: the ε that was compared with 0.
        seeds, examples: pairs of members, and held-out examples, that it rests on.
        discordance: ψ, the share of examples on which a pair differs in being right.
        disagreement: ψ₀, the same between two seeds at ε = 0.
        example_deviation: σ_x, of one example's difference in being right, mean over seeds.
        seed_deviation: σ_d of one seed's difference in accuracy on as many examples as *test* has, beyond
            σ_x.
        test_examples: how many examples *test* has.
        member_seconds: time to train and score one member, in its population.
        effect: the smallest effect of interest.
        confirm_seeds: fresh seeds that the confirmation may use.
        detectable: the smallest gain that is found with a probability of 0.8 with these.
        seeds_needed: seeds that `effect` would need; None where no number of seeds is enough with these
            examples.
        examples_needed: test examples that `effect` would need with `confirm_seeds`; None where no number is
            enough.
        members, hours, price: of the whole sweep as planned, and, with `_needed`, of one that resolves
            `effect`; None where none does.
    """

    epsilon: Epsilon
    seeds: Count
    examples: Count
    discordance: Number
    disagreement: Number
    example_deviation: Number
    seed_deviation: Number
    test_examples: Count
    member_seconds: Number
    effect: Number
    confirm_seeds: int
    detectable: Number
    seeds_needed: int | None
    examples_needed: int | None
    members: int
    hours: Number
    price: float | None
    members_needed: int | None
    hours_needed: float | None
    price_needed: float | None

    def to_json(self) -> str:
        """The record as one line of JSON."""
        return write(self)


@dataclass(frozen=True)
class Opening:
    """One opening of the test split: when (ISO 8601, UTC), by which MLflow run and study, for which members,
    and on what terms.

    `terms` are the plan's policy, tolerances and prices, in words.
    """

    when: str
    run_id: str | None
    study: str
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    terms: str = ""


@dataclass(frozen=True)
class Instance:
    """A test example, as the confirmed ε see it. Tuples are in the order of `Evidence.comparisons`.

    Attributes:
        index: its place in the test split.
        label: index of its class.
        picture: a PNG as a data URL; "" where inputs are no images.
        predicted: index of the class of highest mean probability over seeds.
        confidence: mean over seeds of the highest probability, raw.
        text: the example as a person reads it, "" where there is none; of a sequence up to the position that
            is predicted.
    """

    index: int
    label: int
    picture: str
    predicted: tuple[int, ...]
    confidence: tuple[Share, ...]
    text: str = ""


@dataclass(frozen=True)
class Evidence:
    """All that a sweep of one task found.

    Attributes:
        facts: recipe, device, library versions and the like, by name, for a reader.
        classes: the class names.
        examples: how many examples each split has.
        policy: the plan's.
        tolerances, prices: the plan's, by name.
        recommendations: by policy.
        outcomes: screening trials that were trained to their end, by ascending ε.
        dropped: screening trials that were dropped at a rung.
        bands: metric of `BANDED` -> its smooth fit over ε.
        comparisons: the confirmed ε on *test*, ε = 0 first.
        openings: of the test split, the first one first.
        surfaces: by the name of a number that was tuned beside ε, how the two act together.
        instances: test examples whose confidence fell most from ε = 0 to the plan's policy's candidate, and
            some typical ones.
        notes: how a decision on members that were trained elsewhere was reached; none for a sweep.
    """

    task: str
    study: str
    run_id: str | None
    created: str
    plan: str
    facts: Mapping[str, str]
    classes: tuple[str, ...]
    examples: Mapping[str, int]
    policy: str
    tolerances: Mapping[str, float]
    prices: Mapping[str, float]
    recommendations: Mapping[str, Recommendation]
    pilot: Pilot | None
    outcomes: tuple[Outcome, ...]
    dropped: tuple[Outcome, ...]
    bands: Mapping[str, Band]
    comparisons: tuple[Comparison, ...]
    openings: tuple[Opening, ...]
    instances: tuple[Instance, ...]
    surfaces: Mapping[str, Surface] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The record as one line of JSON; what JSON has no number for is null."""
        return write(self)

    @classmethod
    def from_json(cls, text: str, where: str = "the evidence") -> Self:
        """The record that `to_json` wrote. Errors: WrongRecord."""
        found = read(cls, text, where)
        low, high = found.span
        tried = {f"trial {one.number}": one.epsilon for one in found.outcomes + found.dropped}
        named = {name: one.epsilon for name, one in found.recommendations.items()}
        for name, epsilon in {**tried, **named}.items():
            if epsilon != 0 and not low <= epsilon <= high:
                raise WrongRecord(
                    f"{where}: ε of {name} is {epsilon:g}; wanted 0, or {low:g} to {high:g} as in the plan."
                )
        return found

    @property
    def span(self) -> tuple[float, float]:
        """The range of ε in the plan; -∞ to 1 where it does not say."""
        found = re.search(r"^epsilon: \[([-+.\de]+), ([-+.\de]+)\]$", self.plan, re.MULTILINE)
        return (float(found[1]), float(found[2])) if found else (-math.inf, 1.0)
