"""Evidence: all that a decision rests on, as one record; the page, the API and `tracking.diff` are made from
its JSON alone.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from tracking.records.comparison import Claim, Comparison
from tracking.records.outcome import Outcome
from tracking.records.point import Point
from tracking.records.recommendation import Recommendation, interval_of, without_infinity

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

    epsilon: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    shift: tuple[float, ...]
    shift_low: tuple[float, ...]
    shift_high: tuple[float, ...]


@dataclass(frozen=True)
class Surface:
    """Accuracy in the screening as a smooth function of ε and of another tuned number;
    `tracking.decision.fit` says how.

    Attributes:
        epsilon, values: the ε, and the values of the other number.
        mean: for each value a row over ε.
        others: what else was tuned, with the values of the most accurate point, at which it is held.
    """

    epsilon: tuple[float, ...]
    values: tuple[float, ...]
    mean: tuple[tuple[float, ...], ...]
    others: Point


@dataclass(frozen=True)
class Pilot:
    """What the first four members say about the sweep that is to come; `tracking.decision.power` says how.

    Attributes:
        epsilon: the ε which was compared with 0.
        seeds, examples: pairs of members, and held-out examples, that it rests on.
        discordance: ψ, the share of examples on which a pair differs in being right.
        disagreement: ψ₀, the same between two seeds at ε = 0.
        example_deviation: σ_x, of one example's difference in being right, mean over seeds.
        seed_deviation: σ_d of one seed's difference in accuracy on as many examples as *test* has, beyond
            σ_x.
        test_examples: how many examples *test* has.
        member_seconds: time to train and score one member, in its population.
        effect: the smallest effect of interest.
        confirm_seeds: fresh seeds which the confirmation may use.
        detectable: the smallest gain which is found with a probability of 0.8 with these.
        seeds_needed: seeds which `effect` would need; None where no number of seeds is enough with these
            examples.
        examples_needed: test examples which `effect` would need with `confirm_seeds`; None where no number is
            enough.
        members, hours, price: of the whole sweep as planned, and, with `_needed`, of one which resolves
            `effect`; None where none does.
    """

    epsilon: float
    seeds: int
    examples: int
    discordance: float
    disagreement: float
    example_deviation: float
    seed_deviation: float
    test_examples: int
    member_seconds: float
    effect: float
    confirm_seeds: int
    detectable: float
    seeds_needed: int | None
    examples_needed: int | None
    members: int
    hours: float
    price: float | None
    members_needed: int | None
    hours_needed: float | None
    price_needed: float | None

    def to_json(self) -> str:
        """The record as one line of JSON."""
        return json.dumps(asdict(self))


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
    confidence: tuple[float, ...]
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
        outcomes: screening trials which were trained to their end, by ascending ε.
        dropped: screening trials which were dropped at a rung.
        bands: metric of `BANDED` -> its smooth fit over ε.
        comparisons: the confirmed ε on *test*, ε = 0 first.
        openings: of the test split, the first one first.
        surfaces: by the name of a number which was tuned beside ε, how the two act together.
        instances: test examples whose confidence fell most from ε = 0 to the plan's policy's candidate, and
            some typical ones.
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

    def to_json(self) -> str:
        """The record as one line of JSON; what JSON has no number for is null."""
        return json.dumps(without_infinity(asdict(self)), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record which `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        values["classes"] = tuple(values["classes"])
        values["recommendations"] = {
            name: Recommendation.from_json(json.dumps(entry))
            for name, entry in values["recommendations"].items()
        }
        values["pilot"] = None if values["pilot"] is None else Pilot(**values["pilot"])
        for name in ("outcomes", "dropped"):
            values[name] = tuple(Outcome.from_json(json.dumps(entry)) for entry in values[name])
        values["bands"] = {
            name: Band(**{key: tuple(row) for key, row in band.items()})
            for name, band in values["bands"].items()
        }
        values["surfaces"] = {name: surface_of(entry) for name, entry in values.get("surfaces", {}).items()}
        values["comparisons"] = tuple(comparison_of(entry) for entry in values["comparisons"])
        values["openings"] = tuple(
            Opening(**{**entry, "points": tuple(entry["points"]), "seeds": tuple(entry["seeds"])})
            for entry in values["openings"]
        )
        values["instances"] = tuple(
            Instance(
                **{**entry, "predicted": tuple(entry["predicted"]), "confidence": tuple(entry["confidence"])}
            )
            for entry in values["instances"]
        )
        return cls(**values)


def surface_of(values: Mapping[str, Any]) -> Surface:
    """A Surface from plain values."""
    return Surface(
        tuple(values["epsilon"]),
        tuple(values["values"]),
        tuple(tuple(row) for row in values["mean"]),
        values["others"],
    )


def comparison_of(values: Mapping[str, Any]) -> Comparison:
    """A Comparison from plain values."""
    intervals = {
        name: {metric: interval_of(entry) for metric, entry in values[name].items()}
        for name in ("estimates", "differences", "relative")
    }
    claims = {
        metric: Claim(**{**entry, "seeds": tuple(entry["seeds"]), "values": tuple(entry["values"])})
        for metric, entry in values["claims"].items()
    }
    return Comparison(
        Outcome.from_json(json.dumps(values["outcome"])),
        **intervals,
        claims=claims,
        coverage=values["coverage"],
    )
