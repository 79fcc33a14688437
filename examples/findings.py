"""Findings: what the networks of an experiment show on *test*, as numbers. Temperature and p-norm are fitted
on *calibrate*.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from lscal import Estimate, PNorm, Predictions, Resamples, Temperature
from lscal.audit.audit import Scored, break_even, risk_coverage
from lscal.calibrators import Calibrator
from lscal.diagrams import ConfidenceDrop
from sweeps.data.dataset import Dataset, SplitName
from sweeps.errors import WrongInput

SMOOTHED = 0.1
"""The ε that is compared with 0."""
SURE, FALLEN = 0.99, 0.74
"""The confidence without smoothing of the images that are followed, and the one to which it is asked when
they fall.
"""
ABOUT = 0.005
"""How far from `SURE` a confidence may be that is about as high."""
TRUSTED = 0.9
"""A threshold as a user may have set one: answers above it are taken without a second look."""
LOST = 10
"""How many of the largest falls are shown."""
RANKED = ("accuracy", "nll", "ece", "confidence_gap", "aurc")
"""The metrics compared, as they are and after temperature; after p-norm AURC alone."""


@dataclass(frozen=True, eq=False)
class Networks:
    """Networks of one architecture: each seed trained with each ε, from the same initial weights.

    Attributes:
        epsilons: ascending from 0; `SMOOTHED` is among them.
        logits: of *calibrate* and *test*.
    """

    dataset: Dataset
    epsilons: tuple[float, ...]
    logits: Mapping[SplitName, Float[Tensor, "epsilon seed example class"]]

    @cached_property
    def raw(self) -> Predictions:
        """Of *test*, as they are."""
        return Predictions.from_logits(self.logits["test"], self.dataset.splits["test"].labels)

    @cached_property
    def temperature(self) -> Temperature:
        """Of each network."""
        return Temperature.fit(self.logits["calibrate"], self.dataset.splits["calibrate"].labels)

    def at(self, epsilon: float, calibrator: type[Calibrator] | None = None) -> Predictions:
        """Of *test* by the networks of one ε, a member per seed: as they are, or after a calibrator."""
        place = self.epsilons.index(epsilon)
        predictions = Predictions.from_logits(self.logits["test"][place], self.raw.labels)
        if calibrator is None:
            return predictions
        return predictions.calibrated(
            calibrator.fit(self.logits["calibrate"][place], self.dataset.splits["calibrate"].labels)
        )


@dataclass(frozen=True, eq=False)
class Contrast:
    """A metric at ε = 0 and at `SMOOTHED`, and how much the second is above the first; 95 % intervals over
    seeds and examples.
    """

    plain: Estimate
    smoothed: Estimate
    difference: Estimate


@dataclass(frozen=True, eq=False)
class Followed:
    """Images that the network without smoothing sees in some way, as the network of the same seed sees them
    with more and more of it.

    Attributes:
        images: how many there are, by seed.
        medians: their median confidence.
        crossings: the ε at which the median of each seed is `FALLEN`; NaN where it is not in the row.
    """

    epsilons: tuple[float, ...]
    images: tuple[int, ...]
    medians: Float[Tensor, "epsilon seed"]
    crossings: tuple[float, ...]

    @classmethod
    def of(
        cls,
        epsilons: tuple[float, ...],
        confidence: Float[Tensor, "epsilon seed example"],
        chosen: Bool[Tensor, "seed example"],
    ) -> "Followed":
        """Follow the images that are chosen for each seed. Errors: WrongInput where there are none."""
        if not bool(chosen.any(1).all()):
            raise WrongInput(
                f"without smoothing, a network sees no image with a confidence of {SURE:g}. Train for longer:"
                " --epochs."
            )
        seeds = range(len(chosen))
        medians = torch.stack([confidence[:, seed, chosen[seed]].quantile(0.5, dim=1) for seed in seeds], 1)
        crossings = tuple(crossing(epsilons, medians[:, seed].tolist(), FALLEN) for seed in seeds)
        return cls(epsilons, tuple(chosen.sum(1).tolist()), medians, crossings)

    @property
    def crossing(self) -> float:
        """The mean of the seeds' crossings; NaN where one is not in the row."""
        return sum(self.crossings) / len(self.crossings)

    def median(self, epsilon: float) -> float:
        """At an ε, the mean over seeds."""
        return float(self.medians[self.epsilons.index(epsilon)].mean())


@dataclass(frozen=True, eq=False)
class Fall:
    """How confidence falls with ε.

    Attributes:
        sure: the images seen with a confidence of at least `SURE`.
        calibrated: the same after the temperature of each network.
        about: those seen with about `SURE`, within `ABOUT`.
        low: confidence that 5 % of the first are below, all seeds together.
        high: which 95 % of them are below.
        target: 1 - ε(K-1)/K, what the smoothed target gives to the right class.
        target_crossing: the ε at which that is `FALLEN`.
    """

    sure: Followed
    calibrated: Followed
    about: Followed
    low: Float[Tensor, " epsilon"]
    high: Float[Tensor, " epsilon"]
    target: tuple[float, ...]
    target_crossing: float

    @classmethod
    def of(cls, networks: Networks) -> "Fall":
        """Follow the images of which each seed's network is sure at ε = 0. Errors: WrongInput where there are
        none.
        """
        epsilons, confidence = networks.epsilons, networks.raw.confidence
        calibrated = networks.raw.calibrated(networks.temperature).confidence
        sure = confidence[0] >= SURE
        followed = Followed.of(epsilons, confidence, sure)
        low, high = confidence[:, sure].quantile(torch.tensor([0.05, 0.95], dtype=torch.float64), dim=1)
        target = tuple(1 - epsilon * (1 - 1 / networks.raw.classes) for epsilon in epsilons)
        return cls(
            sure=followed,
            calibrated=Followed.of(epsilons, calibrated, sure),
            about=Followed.of(epsilons, confidence, (confidence[0] - SURE).abs() <= ABOUT),
            low=low,
            high=high,
            target=target,
            target_crossing=crossing(epsilons, target, FALLEN),
        )


@dataclass(frozen=True, eq=False)
class Card:
    """A test image, and what the networks of the first seed make of it, ε by ε."""

    index: int
    label: int
    confidence: tuple[float, ...]
    predicted: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that the page tells and the pictures show.

    Attributes:
        contrasts: by metric, `_calibrated` after temperature, `_p_norm` after p-norm.
        temperature: of the networks, the mean over seeds, by ε.
        trusted: the share of images with a confidence of at least `TRUSTED`: at 0, at `SMOOTHED`, and there
            after temperature.
        risks: error rates by coverage, after temperature, the mean over seeds.
        break_even: the coverage from which on the smoothed network errs no more; None where there is none.
        sure: an image of each class, the first that is right and at least `SURE` without smoothing.
        lost: images whose confidence falls most from 0 to `SMOOTHED`.
    """

    networks: Networks
    contrasts: Mapping[str, Contrast]
    temperature: Float[Tensor, " epsilon"]
    trusted: tuple[float, float, float]
    fall: Fall
    risks: Mapping[str, Float[Tensor, " example"]]
    break_even: float | None
    drop: ConfidenceDrop
    sure: tuple[Card, ...]
    lost: tuple[Card, ...]

    @classmethod
    def of(cls, networks: Networks) -> "Findings":
        """Measure. Errors: WrongInput where a network without smoothing is sure of no image: it has hardly
        been trained.
        """
        plain, smoothed = networks.at(0.0), networks.at(SMOOTHED)
        after_plain, after = networks.at(0.0, Temperature), networks.at(SMOOTHED, Temperature)
        risks = {
            "ε = 0": risk_coverage(after_plain),
            f"ε = {SMOOTHED:g}": risk_coverage(after),
            f"ε = {SMOOTHED:g}, p-norm": risk_coverage(networks.at(SMOOTHED, PNorm)),
        }
        drop = ConfidenceDrop.of(
            "The same images without and with smoothing",
            ("ε = 0", f"ε = {SMOOTHED:g}"),
            Predictions.from_logits(plain.scores[0], plain.labels),
            Predictions.from_logits(smoothed.scores[0], smoothed.labels),
            classes=networks.dataset.classes,
            falls=LOST,
        )
        return cls(
            networks=networks,
            contrasts=contrasts(networks),
            temperature=networks.temperature.value.mean(1),
            trusted=(share(plain), share(smoothed), share(after)),
            fall=Fall.of(networks),
            risks=risks,
            break_even=break_even(risks["ε = 0"], risks[f"ε = {SMOOTHED:g}"]),
            drop=drop,
            sure=tuple(card(networks, index) for index in first_of_each_class(networks)),
            lost=tuple(card(networks, instance.index) for instance in drop.falls),
        )

    def label(self, card: Card) -> str:
        """The name of an image's class."""
        return self.networks.dataset.classes[card.label]

    def answer(self, card: Card) -> str:
        """What the network answers at 0 and, where that is another class, at `SMOOTHED`."""
        before, after = (
            self.networks.dataset.classes[card.predicted[place]]
            for place in (0, self.networks.epsilons.index(SMOOTHED))
        )
        return before if before == after else f"{before} → {after}"

    def image(self, card: Card) -> Shaped[Tensor, "height width"]:
        """Its pixels, 0 to 255."""
        return self.networks.dataset.splits["test"].inputs[card.index, 0]


def contrasts(networks: Networks) -> dict[str, Contrast]:
    """Every metric at ε = 0 and at `SMOOTHED`, on the same resamples of the images."""
    resamples = Resamples.draw(networks.raw.examples)
    found = {}
    for suffix, calibrator, names in (
        ("", None, RANKED),
        ("_calibrated", Temperature, RANKED),
        ("_p_norm", PNorm, ("aurc",)),
    ):
        plain, smoothed = (
            Scored.of(networks.at(epsilon, calibrator), names, resamples) for epsilon in (0.0, SMOOTHED)
        )
        for name in names:
            found[name + suffix] = Contrast(
                plain.estimates[name], smoothed.estimates[name], smoothed.less(plain, name)
            )
    return found


def share(predictions: Predictions) -> float:
    """The share of answers above the threshold."""
    return float((predictions.confidence >= TRUSTED).double().mean())


def crossing(epsilons: Sequence[float], values: Sequence[float], level: float) -> float:
    """The ε at which values, one for each ε, first fall below a level: on the straight line between
    neighbours. NaN if never.
    """
    for (left, above), (right, below) in pairwise(zip(epsilons, values, strict=True)):
        if above >= level > below:
            return left + (right - left) * (above - level) / (above - below)
    return math.nan


def first_of_each_class(networks: Networks) -> list[int]:
    """The first test image of each class of which the first network without smoothing is rightly sure; of
    some classes there may be none.
    """
    sure = (networks.raw.confidence[0, 0] >= SURE) & networks.raw.correct[0, 0]
    places: list[Int[Tensor, " place"]] = [
        (sure & (networks.raw.labels == k)).nonzero().flatten() for k in range(networks.raw.classes)
    ]
    return [int(found[0]) for found in places if len(found)]


def card(networks: Networks, index: int) -> Card:
    """What the networks of the first seed make of an image."""
    raw = networks.raw
    return Card(
        index,
        int(raw.labels[index]),
        tuple(raw.confidence[:, 0, index].tolist()),
        tuple(raw.predicted[:, 0, index].tolist()),
    )
