"""Made: a realistic `Evidence` from a seed, without training: what a sweep of a small task such as digits/mlp
leaves behind.

Right answers and confidences are simulated example by example, so that accuracy, bins, risks and AURC of a
trial agree with each other. Smoothing gains accuracy up to about ε = 0.2, lowers raw confidence, and blurs
the ranking a little.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from PIL import Image

from tracking.decision.prices import Prices
from tracking.decision.verdict import verdict as judge
from tracking.records.comparison import Claim, Comparison
from tracking.records.evidence import BANDED, Band, Evidence, Instance, Opening, Pilot
from tracking.records.outcome import HELD_OUT_ACCURACY, Bins, Interval, Outcome
from tracking.records.recommendation import ANSWERED, Condition, Recommendation

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
EXAMPLES = {"train": 629, "select": 269, "calibrate": 270, "test": 629}
EPSILONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
SEEDS = tuple(range(8))
FRESH = tuple(range(5000, 5016))
EPOCHS = 50
EFFECT = 0.003
PRICES = Prices(wrong=1.0, review=0.1, right=0.0)
COMPARED = ("accuracy", "worst_class_accuracy", "nll", "ece", "confidence_gap", "aurc")
CLAIMS = {
    "accuracy": "accuracy gain",
    "calibrated": "NLL after temperature falls",
    "utility": "expected cost falls",
}
CREATED = "2026-11-21T12:00:00+00:00"


@dataclass(frozen=True)
class Seen:
    """What members made of a split: (seed, example) right or wrong, and confidence raw, after temperature and
    after p-norm.
    """

    correct: np.ndarray
    raw: np.ndarray
    calibrated: np.ndarray
    p_norm: np.ndarray


def evidence(
    seed: int = 0,
    *,
    task: str = "digits/mlp",
    adopted: bool = True,
    gain: float = 0.016,
    seeds: Sequence[int] = FRESH,
    tuned: bool = False,
    pictures: bool = True,
    instances: bool = True,
    optional: bool = True,
    text: str = "",
) -> Evidence:
    """All that a sweep found, made up.

    Args:
        adopted: whether the plan's policy adopts its candidate; else it recommends ε = 0.
        gain: accuracy gained at the best ε. 0.016 is 1.6 percentage points.
        seeds: of the confirmation.
        tuned: whether weight decay is tuned beside ε.
        pictures: whether instances have one.
        instances: whether there are any.
        optional: whether there is what an older or a smaller sweep lacks: pilot, p-norm, risks, claims, cost,
            dropped trials.
        text: appended to every text field; a hostile one must change nothing.
    """
    random = np.random.default_rng(seed)
    worlds = {split: World.draw(random, EXAMPLES[split], gain) for split in ("select", "calibrate", "test")}
    study = f"{task}@1a2b3c4d{text}"
    points = [
        {"epsilon": e} | ({"weight_decay": float(10 ** random.uniform(-4, -2))} if tuned else {})
        for e in EPSILONS
    ]
    screened = [
        outcome(
            task + text, study, "screen", i, point, SEEDS, worlds, ("select", "calibrate"), random, optional
        )
        for i, point in enumerate(points)
    ]
    finalists = [points[EPSILONS.index(e)] for e in (0.0, 0.1, 0.25)]
    confirmed = [
        outcome(
            task + text,
            f"{study}/confirm-{len(seeds)}",
            "confirm",
            i,
            point,
            seeds,
            worlds,
            ("select", "test", "calibrate"),
            random,
            optional,
        )
        for i, point in enumerate(finalists)
    ]
    comparisons = tuple(compare(one, confirmed[0], optional) for one in confirmed)
    dropped = ()
    if optional:
        last = outcome(
            task + text,
            study,
            "screen",
            8,
            points[7] | {"epsilon": 0.35},
            SEEDS,
            worlds,
            ("select",),
            random,
            optional,
        )
        cut = {name: values[:20] for name, values in last.curves.items()}
        reason = "after 20 epochs it could change the recommendation in 0.4 % of the draws" + text
        dropped = (replace(last, metrics={}, temperature=(), bins={}, risks={}, curves=cut, dropped=reason),)
    banded = [metric for metric in BANDED if optional or metric != "cost"]
    found = Evidence(
        task=task + text,
        study=study,
        run_id="0f" * 16 + text,
        created=CREATED,
        plan=(
            f"tasks:\n- {{task: {task}, epochs: {EPOCHS}}}\nepsilon: [0.0, 0.4]\ntrials: 8\nseeds: 8\npolicy:"
            f" safe\n{text}"
        ),
        facts={
            "architecture": "mlp, 64-128-128-10" + text,
            "device": "cpu, 2 cores" + text,
            "epochs": str(EPOCHS),
            "optimiser": "adamw",
            "torch": "2.13.0",
            "git commit": "4cbc4aa",
            **({text: text} if text else {}),
        },
        classes=tuple(name + text for name in CLASSES),
        examples=EXAMPLES,
        policy="safe" + text,
        tolerances={
            "aurc_relative": 0.05,
            "nll_relative": 0.01,
            "worst_class_accuracy": 0.01,
            "confidence_gap": 0.01,
        },
        prices=asdict(PRICES),
        recommendations={},
        pilot=pilot(len(seeds)) if optional else None,
        outcomes=tuple(screened),
        dropped=dropped,
        bands={metric: band(screened, f"select/{metric}", optional) for metric in banded},
        comparisons=comparisons,
        openings=(
            Opening(
                "2026-11-21T11:58:00+00:00" + text,
                "0f" * 16 + text,
                study,
                tuple(finalists),
                tuple(seeds[:8]),
            ),
            Opening("2026-11-21T11:59:30+00:00" + text, None, study, tuple(finalists), tuple(seeds[8:])),
        )[: 2 if len(seeds) > 8 else 1],
        instances=tuple(instance(random, i, pictures) for i in range(24)) if instances else (),
    )
    return replace(found, recommendations=recommendations(found, adopted, text))


def instance(random: np.random.Generator, i: int, pictured: bool) -> Instance:
    """An example whose confidence falls from nearly 1 to what ε allows, and more where it is hard."""
    label = int(random.integers(len(CLASSES)))
    hard = float(random.uniform(0, 1)) if i < 16 else 0.02
    first = float(np.clip(random.normal(0.985, 0.01) - 0.2 * hard * (i % 5 == 4), 0.3, 0.9999))
    confidence = (first, first - 0.09 - 0.3 * hard, first - 0.225 - 0.35 * hard)
    other = (label + 3) % len(CLASSES)
    predicted = (other if i % 5 == 4 else label, label, other if i % 7 == 6 else label)
    return Instance(17 * i + 4, label, picture(random, label) if pictured else "", predicted, confidence)


def picture(random: np.random.Generator, label: int) -> str:
    """A small grey PNG as a data URL: strokes that differ by class."""
    pixels = random.integers(0, 40, (16, 16))
    for k in range(12):
        angle = 2 * np.pi * (k / 12 + label / 10)
        pixels[int(8 + (3 + label % 4) * np.sin(angle)), int(8 + 5 * np.cos(angle * (1 + label % 3)))] = 230
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8), "L").save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


# ---- members
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A split: how easy each example is, which no seed changes."""

    ease: np.ndarray
    gain: float

    @classmethod
    def draw(cls, random: np.random.Generator, examples: int, gain: float) -> "World":
        """So many examples, the easiest of them far from any doubt."""
        return cls(random.gamma(2.2, 1.5, examples) - 0.45, gain)

    def seen(self, epsilon: float, seeds: Sequence[int]) -> Seen:
        """What members with these seeds make of it. A seed's luck is its own, whatever ε is: trials are
        paired.
        """
        lift = self.gain * 11 * (epsilon / 0.2) * np.exp(1 - epsilon / 0.2)
        shared = np.stack(
            [np.random.default_rng([seed, 1]).normal(0, 0.55, len(self.ease)) for seed in seeds]
        )
        own = np.stack(
            [
                np.random.default_rng([seed, 2, round(1e6 * epsilon)]).normal(0, 0.25, len(self.ease))
                for seed in seeds
            ]
        )
        margin = self.ease + lift + shared + own
        correct = margin > 0
        blur = np.stack([np.random.default_rng([seed, 3]).normal(0, 1, len(self.ease)) for seed in seeds])
        sharp, blurred = (np.abs(margin) + width * blur for width in (0.3, 0.3 + 1.6 * epsilon))
        calibrated = honest(blurred, correct)
        odds = np.log(calibrated / (1 - calibrated)) * (1.6 - epsilon)
        raw = 0.1 + (1 / (1 + np.exp(-odds)) - 0.1) * (1 - epsilon)
        return Seen(correct, np.clip(raw, 0.1, 0.99999), calibrated, honest(sharp, correct))


def honest(margin: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Confidences that rise with the margin and are right on average: the slope is found by bisection."""
    low, high = 0.05, 20.0
    for _ in range(25):
        slope = (low * high) ** 0.5
        confidence = 0.35 + 0.6499 * np.tanh(slope * np.maximum(margin, 0) / 2)
        low, high = (slope, high) if confidence.mean() < correct.mean() else (low, slope)
    return np.clip(confidence, 0.35, 0.9999)


def outcome(
    task: str,
    study: str,
    stage: str,
    number: int,
    point: Mapping[str, float],
    seeds: Sequence[int],
    worlds: Mapping[str, World],
    splits: Sequence[str],
    random: np.random.Generator,
    optional: bool,
) -> Outcome:
    """A trial, scored on these splits; on *calibrate* only its risks are kept, and its accuracy together with
    that on *select*.
    """
    epsilon = point["epsilon"]
    metrics: dict[str, tuple[float, ...]] = {}
    bins: dict[str, Bins] = {}
    risks: dict[str, tuple[tuple[float, ...], ...]] = {}
    for split in splits:
        seen = worlds[split].seen(epsilon, seeds)
        if optional:
            risks[f"{split}_calibrated"] = each(risk, seen.correct, seen.calibrated)
        if split == "calibrate":
            continue
        for suffix, confidence in (("", seen.raw), ("_calibrated", seen.calibrated)):
            rows = each(scores, seen.correct, confidence)
            metrics |= {f"{split}/{name}{suffix}": tuple(row[name] for row in rows) for name in rows[0]}
            bins[split + suffix] = pooled(seen.correct, confidence)
        if optional:
            risks[split] = each(risk, seen.correct, seen.raw)
            metrics[f"{split}/cost"] = tuple(least_cost(row) for row in risks[f"{split}_calibrated"])
        if optional and split == "test":
            rows = each(scores, seen.correct, seen.p_norm)
            metrics |= {
                f"test/{name}_p_norm": tuple(row[name] for row in rows) for name in ("aurc", "ece", "nll")
            }
    if optional and stage == "screen":
        correct = [worlds[split].seen(epsilon, seeds).correct for split in ("select", "calibrate")]
        metrics[HELD_OUT_ACCURACY] = tuple(np.concatenate(correct, -1).mean(-1).tolist())
    final = float(np.mean(metrics["select/accuracy"]))
    epochs = np.arange(1, EPOCHS + 1)
    rise = 1 - np.exp(-epochs / (3 + 9 * epsilon))
    noise = random.normal(0, 0.002, EPOCHS)
    return Outcome(
        uid=f"{study}#{stage}-{number}",
        task=task,
        study=study,
        stage=stage,
        number=number,
        epsilon=epsilon,
        classes=len(CLASSES),
        point=dict(point),
        seeds=tuple(seeds),
        metrics=metrics,
        curves={
            "train_loss": tuple(2.3 * (1 - rise) + 0.02 + 1.9 * epsilon * rise),
            "select_accuracy": tuple(np.clip(0.1 + (final - 0.1) * rise + noise, 0, 1)),
            "select_nll": tuple(2.3 * (1 - rise) + float(np.mean(metrics["select/nll"])) * rise),
            "select_ece": tuple(0.3 * (1 - rise) + float(np.mean(metrics["select/ece"])) * rise),
        },
        temperature=tuple(1.6 - 2.2 * epsilon + random.normal(0, 0.03, len(seeds))),
        bins=bins,
        seconds=12.0 + number,
        finished=CREATED,
        risks=risks,
        calibrate_examples=EXAMPLES["calibrate"],
    )


def each(
    measure: Callable[[np.ndarray, np.ndarray], Any], correct: np.ndarray, confidence: np.ndarray
) -> tuple[Any, ...]:
    """What is measured, seed by seed."""
    return tuple(measure(right, sure) for right, sure in zip(correct, confidence, strict=True))


def scores(correct: np.ndarray, confidence: np.ndarray) -> dict[str, float]:
    """Every metric of one member, by its name."""
    held = pooled(correct[None], confidence[None])
    filled = [(n, c, a) for n, c, a in zip(held.count, held.confidence, held.accuracy, strict=True) if n]
    curve = np.array(risk(correct, confidence))
    loss = np.where(correct, -np.log(confidence), -np.log((1 - confidence) * 0.5))
    return {
        "accuracy": float(correct.mean()),
        "worst_class_accuracy": float(correct[: len(correct) // 10].mean()) - 0.02,
        "nll": float(loss.mean()),
        "brier": float(((confidence - correct) ** 2 * 1.2).mean()),
        "confidence_gap": float((confidence - correct).mean()),
        "ece": held.error,
        "debiased_ece": 0.9 * held.error,
        "equal_mass_ece": 0.97 * held.error,
        "classwise_ece": 0.3 * held.error,
        "smooth_ece": 0.95 * held.error,
        "mce": max(abs(c - a) for _, c, a in filled),
        "aurc": float(np.mean(curve)),
        "augrc": float(np.mean(curve * np.arange(1, 101) / 100)),
        "coverage_at_risk": float(np.max(np.arange(1, 101)[curve <= 0.01], initial=0) / 100),
    }


def pooled(correct: np.ndarray, confidence: np.ndarray) -> Bins:
    """15 bins of equal width over all members; the error is the mean of the members' own."""
    place = np.minimum((confidence * 15).astype(int), 14)
    count = np.bincount(place.ravel(), minlength=15)
    sure, right = (
        np.bincount(place.ravel(), values.ravel().astype(float), 15) for values in (confidence, correct)
    )
    errors = [
        np.abs(np.bincount(p, c, 15) - np.bincount(p, r.astype(float), 15)).sum() / len(p)
        for p, c, r in zip(place, confidence, correct, strict=True)
    ]
    mean = [
        tuple(float(s / n) if n else None for s, n in zip(sums, count, strict=True)) for sums in (sure, right)
    ]
    return Bins(
        tuple(count.tolist()), *mean, gap=float((confidence - correct).mean()), error=float(np.mean(errors))
    )


def risk(correct: np.ndarray, confidence: np.ndarray) -> tuple[float, ...]:
    """The error rate among the 1 %, 2 %, …, 100 % most confident examples."""
    wrong = np.cumsum(~correct[np.argsort(-confidence, kind="stable")])
    kept = np.maximum(1, np.round(np.arange(1, 101) / 100 * len(correct)).astype(int))
    return tuple((wrong[kept - 1] / kept).tolist())


def least_cost(curve: Sequence[float]) -> float:
    """The expected cost of an example at the cheapest coverage."""
    return PRICES.cost_at(curve, PRICES.best_coverage(curve))


# ---- bands, comparisons, recommendations
# -------------------------------------------------------------------------------


def band(outcomes: Sequence[Outcome], metric: str, optional: bool) -> Band:
    """A cubic through the trials, with a band as wide as their seeds scatter."""
    grid = np.linspace(0, 0.4, 41)
    epsilon = np.array([one.epsilon for one in outcomes])
    values = np.array([one.metrics[metric] for one in outcomes])
    mean = np.polyval(np.polyfit(epsilon, values.mean(1), 3), grid)
    half = 2.0 * values.std(1, ddof=1).mean() / len(SEEDS) ** 0.5
    paired = values - values[0]
    powers = np.stack([epsilon, epsilon**2, epsilon**3], 1)
    shift = np.stack([grid, grid**2, grid**3], 1) @ np.linalg.lstsq(powers, paired.mean(1), rcond=None)[0]
    width = 2.0 * paired[1:].std(1, ddof=1).mean() / len(SEEDS) ** 0.5 * np.minimum(1, grid / 0.05)
    rows = (grid, mean, mean - half, mean + half, shift, shift - width, shift + width)
    return Band(*(tuple(float(v) for v in row) for row in rows))


def compare(one: Outcome, control: Outcome, optional: bool) -> Comparison:
    """Estimates and paired differences on *test*, from the scatter of the seeds alone."""
    suffixes = ("", "_calibrated", "_p_norm")
    names = [
        name + suffix for name in COMPARED for suffix in suffixes if f"test/{name}{suffix}" in one.metrics
    ]
    names += ["cost"] if optional else []
    own = {name: np.array(one.metrics[f"test/{name}"]) for name in names}
    base = {name: np.array(control.metrics[f"test/{name}"]) for name in names}
    claims = {}
    if optional and one.epsilon > 0:
        looks = tuple(n for n in (8, 16) if n <= len(one.seeds)) or (len(one.seeds),)
        for name, sign in (("accuracy", 1), ("nll_calibrated", -1), ("cost", -1)):
            off = own[name] - base[name]
            found = interval(off)
            p = NormalDist().cdf(-sign * found.value / max((found.high - found.low) / 4, 1e-12))
            low, high = (1.2 * end - 0.2 * found.value for end in (found.low, found.high))
            claims[name] = Claim(
                min(1.0, 2 * p), low, high, looks, tuple(float(off[:n].mean()) for n in looks)
            )
    return Comparison(
        outcome=one,
        estimates={name: interval(values) for name, values in own.items()},
        differences={name: interval(own[name] - base[name]) for name in names},
        relative={
            name: interval(
                (own[name] - base[name]) / (base[name].mean() if abs(base[name].mean()) > 1e-6 else 1.0)
            )
            for name in names
        },
        claims=claims,
        coverage=0.93,
    )


def interval(values: np.ndarray) -> Interval:
    """A mean with a 95 % interval: seeds explain most of it, examples the rest."""
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    examples = 0.6 * deviation / len(values) ** 0.5
    half = 2.13 * (examples**2 + deviation**2 / len(values)) ** 0.5
    return Interval(mean, mean - half, mean + half, examples, deviation, len(values) - 1.0)


def recommendations(found: Evidence, adopted: bool, text: str) -> dict[str, Recommendation]:
    """One per policy: `accuracy` and `calibrated` adopt, `raw` does not, `safe` and `utility` as asked."""
    control, small, large = found.comparisons
    chosen = {
        "safe": (small, adopted),
        "raw": (small, False),
        "accuracy": (large, True),
        "calibrated": (large, True),
    }
    chosen["utility"] = (small, adopted)
    made = {}
    for name, (candidate, taken) in chosen.items():
        conditions = tuple(
            replace(
                one,
                name=one.name + text,
                sentence=one.sentence + text,
                remedy=one.remedy + text if one.remedy else "",
            )
            for one in judged(name, candidate, taken)
        )
        kept = candidate if taken else control
        verdict = "is adopted" if taken else "is not adopted"
        told = "; ".join(one.sentence for one in conditions if taken or not one.met)
        delta, claimed = (
            kept.difference("accuracy"),
            {"calibrated": "nll_calibrated", "utility": "cost"}.get(name, "accuracy"),
        )
        claimed = claimed if claimed in candidate.differences else "accuracy"
        said = judge(
            candidate.difference(claimed),
            1 if claimed == "accuracy" else -1,
            EFFECT if claimed == "accuracy" else 0.0,
        )
        made[name + text] = Recommendation(
            task=found.task,
            epsilon=kept.epsilon,
            epsilon_wrong_classes=kept.epsilon * 0.9,
            smoothing="uniform" + text,
            point=dict(kept.outcome.point),
            policy=name + text,
            reason=f"The candidate ε = {candidate.epsilon:g} {verdict}: {told}.",
            accuracy=kept.estimates["accuracy"],
            ece=kept.estimates["ece"],
            ece_calibrated=kept.estimates["ece_calibrated"],
            aurc=kept.estimates["aurc"],
            delta_accuracy=delta,
            candidate=candidate.epsilon,
            conditions=conditions,
            seeds=len(kept.outcome.seeds),
            examples=EXAMPLES["test"],
            coverage=kept.coverage,
            openings=len(found.openings),
            study=found.study,
            run_id=found.run_id,
            created=found.created,
            temperature=sum(kept.outcome.temperature) / len(kept.outcome.temperature),
            calibrate_examples=EXAMPLES["calibrate"],
            control={metric: control.estimates[metric] for metric in ANSWERED if metric in control.estimates},
            estimates={metric: kept.estimates[metric] for metric in ANSWERED if metric in kept.estimates},
            differences={
                metric: candidate.difference(metric) for metric in ANSWERED if metric in candidate.differences
            },
            tied=(0.05, 0.3),
            claimed=claimed,
            verdict=said,
            settles="12 more seeds would settle it" + text if said == "not known" else "",
            effect=EFFECT,
        )
    return made


def judged(policy: str, candidate: Comparison, taken: bool) -> tuple[Condition, ...]:
    """A policy's conditions on a candidate; where it is not taken, the last of them is not met."""
    gain, gap = candidate.differences["accuracy"], candidate.estimates["confidence_gap"]
    aurc, nll = candidate.relative["aurc_calibrated"], candidate.relative["nll_calibrated"]
    first = condition("accuracy gain", gain, gain.low, 0.0, gain.low > 0)
    kept = condition("ranking kept", aurc, aurc.high, 0.05, aurc.high < 0.05)
    if policy == "safe":
        return (
            first,
            kept,
            condition("probabilities kept", nll, nll.value, 0.01 if taken else nll.value - 0.004, taken),
        )
    if policy == "raw":
        return (first, kept, condition("confidence kept", gap, abs(gap.value), 0.01, taken))
    return (condition(CLAIMS[policy], gain, gain.low, 0.0, taken),)


def condition(name: str, found: Interval, bound: float, threshold: float, met: bool) -> Condition:
    """A condition in words."""
    sentence = (
        f"{name}: {100 * found.value:+.2f} % (95 % interval {100 * found.low:+.2f} to"
        f" {100 * found.high:+.2f})"
    )
    remedy = "" if met else "12 more seeds would settle it"
    return Condition(name, found.value, found.low, found.high, bound, threshold, met, sentence, remedy)


def pilot(confirm_seeds: int) -> Pilot:
    """A pilot that sees gains from 0.8 percentage points on."""
    return Pilot(
        epsilon=0.1,
        seeds=2,
        examples=539,
        discordance=0.031,
        disagreement=0.027,
        example_deviation=0.171,
        seed_deviation=0.0061,
        test_examples=EXAMPLES["test"],
        member_seconds=0.42,
        effect=0.003,
        confirm_seeds=confirm_seeds,
        detectable=0.0083,
        seeds_needed=None,
        examples_needed=25_400,
        members=112,
        hours=0.013,
        price=0.01,
        members_needed=None,
        hours_needed=None,
        price_needed=None,
    )
