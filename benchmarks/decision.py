"""Simulated tasks whose true answer is known show how good decisions are.

    python -m benchmarks.decision [--sweeps 120] [--size small large] [--question none gain peak harm power]
    [--constant] [--processes 2] [--random-state 0]

A simulated task draws, for every member and example, how far the right class is ahead:

    z = m(ε) + √a·u_i + √b·x_i(ε) + √c·v_si + √d·w_sεi,    a + b + c + d = 1, all standard normal,

and is right where z > 0; so accuracy is Φ(m(ε)) exactly. u is how hard an example is, x what ε changes on it
for all seeds (a Gaussian process in √ε), v what a seed makes of it at every ε, w the rest. The four shares
are those of real tasks, from their rates of disagreement between seeds and between ε (docs/statistics.md):
`small` is like digits/mlp, `large` like fashion_mnist/mlp. Logits are ±κz/2 in two classes, κ·z larger at ε =
0 than with smoothing; where a task is harmful, smoothing also scrambles the size of z, so that confidence
ranks errors worse.

As in a real sweep, half of the trials have an ε that falls to 0 after a share of the training (--constant:
none has). Such a trial at share s keeps 1 - exp(-s / 0.2) of the gain of a constant ε, disagrees with ε = 0
as a constant ε·s does, has the confidence of one near ε = 0, and scrambles nothing.

Each sweep is decided by the very functions that decide real ones: pilot, smooth fits, candidates,
confirmation with looks, Holm, conditions. Only Optuna, training and MLflow are left out.

Questions:
    none   the accuracy is the same at every ε. How often is an ε above 0 adopted? Wanted: at most 5 %.
    gain
    1 pp (small: 1.5 pp) from ε = 0.03 on. Does the interval of Δaccuracy hold the truth? Wanted: 93 to 97 %.
    peak   a gain with a peak somewhere. How much accuracy is lost by the recommended ε, against the best one?
    Wanted: at most a quarter of
           what is lost by the best of 64 single-member trials of Optuna (TPE) on *select*.
    harm   the same gain with a worse ranking: AURC rises by 57 % and more. `safe` has to refuse, `accuracy`
    to adopt. power  a gain of just what the pilot said is detectable. How often is it found? Wanted: 75 to 85
    %.
"""

import argparse
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from statistics import NormalDist, mean

import numpy as np
import optuna
import torch
from scipy.special import ndtr
from torch import Tensor

from lscal import METRICS, Predictions, Temperature
from sweeps.data.dataset import Dataset, Split
from sweeps.protocol.confirm import Confirmation, confirm
from sweeps.scoring import Logits, risks_of
from sweeps.settings import resolve
from sweeps.studies.design import planned
from tracking.decision.decide import decide
from tracking.decision.policies import constant_ahead, ties
from tracking.decision.power import pilot_of
from tracking.decision.recommend import Source
from tracking.decision.screening import Screening
from tracking.decision.terms import Terms
from tracking.records.outcome import HELD_OUT_ACCURACY, Bins, Interval, Outcome
from tracking.records.point import Point, drop_of, key_of
from tracking.records.recommendation import Recommendation

SPAN = 0.0, 0.4
GRID = [round(0.01 * step, 2) for step in range(41)]
MEMBERS = 64
KEPT = 0.2
"""The share of the training in which an ε wins all but 1/e of its gain in accuracy."""
FRESH = 5000
REPLICATES = 200
"""Of the bootstrap; a real sweep takes 1000. A standard deviation from 200 is itself known to 5 %."""
LENGTH = 0.46
"""Over this distance in √ε what ε changes on an example stays alike."""
METRIC_NAMES = ("accuracy", "nll", "ece", "confidence_gap", "aurc", "worst_class_accuracy")
NORMAL = NormalDist()


@dataclass(frozen=True)
class Size:
    """How many examples, how accurate at ε = 0, and the shares of what makes an example right: b (ε), c
    (seed), d (the rest).
    """

    select: int
    calibrate: int
    test: int
    accuracy: float
    by_epsilon: float
    by_seed: float
    rest: float


SIZES = {
    "small": Size(269, 270, 627, 0.967, 0.12, 0.010, 0.021),
    "large": Size(2500, 2500, 5000, 0.874, 0.003, 0.006, 0.005),
}


@dataclass(frozen=True)
class Truth:
    """The true curves of a task: the gain in accuracy at each ε of `GRID`, and how much smoothing scrambles
    confidence; `same`: confidence is that of ε = 0 at every ε, so that ε changes nothing at all.
    """

    gain: tuple[float, ...]
    harm: float = 0.0
    same: bool = False

    def at(self, epsilon: float, drop: float = 1.0) -> float:
        """The true gain at an ε that is 0 after the share `drop` of the training."""
        gain = self.gain[round(100 * epsilon)]
        return gain if drop == 1 else gain * (1 - math.exp(-drop / KEPT))


class Task:
    """A simulated task: any member's logits on any split, the same whenever they are asked for."""

    def __init__(self, size: Size, truth: Truth, seed: int):
        self.size, self.truth, self.seed = size, truth, seed
        self.examples = {"select": size.select, "calibrate": size.calibrate, "test": size.test}
        self.shared = cache(self.draw_shared)
        labels = {
            split: self.stream(split, "label").integers(0, 2, count) for split, count in self.examples.items()
        }
        splits = {
            split: Split(torch.zeros(len(own), 1), torch.from_numpy(own)) for split, own in labels.items()
        }
        self.dataset = Dataset("simulated", splits, ("no", "yes"), (0.0,), (1.0,), "simulated", "nowhere")

    def stream(self, *names: object) -> np.random.Generator:
        """Random numbers of their own for every name."""
        return np.random.default_rng(
            [self.seed, *(sum(ord(c) << (8 * i % 24) for i, c in enumerate(str(name))) for name in names)]
        )

    def draw_shared(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """u (example), and x (ε, example)."""
        stream, count = self.stream(split, "shared"), self.examples[split]
        places = np.sqrt(GRID)
        likeness = np.exp(-(((places[:, None] - places) / LENGTH) ** 2)) + 1e-9 * np.eye(len(GRID))
        return stream.standard_normal(count), np.linalg.cholesky(likeness) @ stream.standard_normal(
            (len(GRID), count)
        )

    def ahead(self, split: str, epsilon: float, seed: int, drop: float = 1.0) -> np.ndarray:
        """z of each example."""
        size, count = self.size, self.examples[split]
        common, by_epsilon = self.shared(split)
        own = self.stream(split, "seed", seed).standard_normal(count)
        names = (seed, round(1000 * epsilon)) + (() if drop == 1 else (round(1000 * drop),))
        rest = self.stream(split, "rest", *names).standard_normal(count)
        whole = 1 - size.by_epsilon - size.by_seed - size.rest
        parts = zip(
            (whole, size.by_epsilon, size.by_seed, size.rest),
            (common, by_epsilon[round(100 * epsilon * drop)], own, rest),
            strict=True,
        )
        return NORMAL.inv_cdf(size.accuracy + self.truth.at(epsilon, drop)) + sum(
            math.sqrt(share) * part for share, part in parts
        )

    def logits(self, split: str, point: Point, seeds: Sequence[int]) -> Tensor:
        """Logits (seed, example, 2), float32."""
        rows = []
        epsilon, drop = point["epsilon"], drop_of(point)
        harm = self.truth.harm if drop == 1 else 0.0
        for seed in seeds:
            z = self.ahead(split, epsilon, seed, drop)
            size = np.exp(
                harm
                * math.sqrt(epsilon)
                * self.stream(split, "scramble", seed, epsilon).standard_normal(len(z))
            )
            constant = 3.0 if epsilon == 0 or self.truth.same else 1.0 + 0.2 / (epsilon + 0.1)
            rows.append((constant if drop == 1 or self.truth.same else 3.0 - 0.5 * drop) * z * size)
        lead = torch.from_numpy(np.stack(rows)).float()
        sign = 2.0 * self.dataset.splits[split].labels - 1
        return torch.stack([-lead * sign / 2, lead * sign / 2], -1)

    def trained(self, point: Point, seeds: Sequence[int], stage: str, split: str) -> tuple[Outcome, Logits]:
        """A trial with its metrics on a split, and its logits there and on *calibrate*."""
        logits = {name: self.logits(name, point, seeds) for name in ("calibrate", split)}
        labels = {name: self.dataset.splits[name].labels for name in logits}
        temperature = Temperature.fit(logits["calibrate"], labels["calibrate"])
        raw = {name: Predictions.from_logits(values, labels[name]) for name, values in logits.items()}
        calibrated = {name: predictions.calibrated(temperature) for name, predictions in raw.items()}
        metrics = {
            f"{split}/{name}{suffix}": tuple(METRICS[name].function(predictions).tolist())
            for name in METRIC_NAMES
            for suffix, predictions in (("", raw[split]), ("_calibrated", calibrated[split]))
        }
        risks = {f"{name}_calibrated": risks_of(predictions) for name, predictions in calibrated.items()}
        if split == "select":
            right = torch.cat([predictions.correct for predictions in raw.values()], -1)
            metrics[HELD_OUT_ACCURACY] = tuple(right.double().mean(-1).tolist())
        count = (self.examples[split] * len(seeds),)
        bins = {split: Bins(count, (0.5,), (0.5,), 0.0, 0.0)}
        uid = f"{stage}#{key_of(point)}"
        outcome = Outcome(
            uid,
            "simulated/task",
            "simulated",
            stage,
            0,
            point["epsilon"],
            2,
            dict(point),
            tuple(seeds),
            metrics,
            {},
            (),
            bins,
            1.0,
            "",
            risks=risks,
        )
        return outcome, logits


@dataclass(frozen=True)
class Decided:
    """One simulated sweep.

    Attributes:
        recommendations: by policy.
        candidate: what policy `accuracy` put to the test.
        single: the 95 % interval of its Δaccuracy as if there had been one look; None where it is ε = 0.
        detectable: the pilot's promise.
        others: who else would choose -> ε, see `rivals`; empty where they were not asked for.
    """

    truth: Truth
    recommendations: Mapping[str, Recommendation]
    candidate: float
    single: Interval | None
    detectable: float
    others: Mapping[str, float]


def sweep(
    size: Size,
    truth: Truth,
    seed: int,
    policies: Sequence[str],
    *,
    compare: bool = False,
    as_detectable: bool = False,
    constant: bool = False,
) -> Decided:
    """Decide on a simulated task, as `sweeps.protocol.sweep` does, by some of the policies, the first of
    which is the plan's.

    `constant`: no ε falls to 0. `as_detectable`: its gain is what the pilot calls detectable. `compare`: with
    what others would choose.
    """
    torch.set_num_threads(1)
    task, terms = Task(size, truth, seed), Terms(policies[0])
    held_out = {
        epsilon: np.concatenate(
            [
                np.stack([task.ahead(split, epsilon, 4000 + s) > 0 for s in (0, 1)])
                for split in ("select", "calibrate")
            ],
            1,
        )
        for epsilon in (0.0, 0.1)
    }
    pilot = pilot_of(
        held_out[0.0],
        held_out[0.1],
        epsilon=0.1,
        test_examples=size.test,
        member_seconds=1.0,
        effect=terms.effect,
        price_per_hour=None,
        screening_members=MEMBERS,
        finalists=2,
        confirm_seeds=None,
        most_confirm_seeds=20,
    )
    if as_detectable:
        task = Task(size, plateau(pilot.detectable), seed)
    plan = resolve({"tasks": ["digits/mlp"], **({"smoothing": "uniform"} if constant else {})})
    tried = planned(plan, plan.tasks[0])
    outcomes = [task.trained(point, range(plan.seeds), "screen", "select")[0] for point in tried]
    screening = Screening(outcomes, outcomes[0], terms.prices, SPAN)
    found_ties = ties(screening, terms, policies)
    chosen = {name: screening.point_at(tie) for name, tie in found_ties.items()}
    points: dict[str, Point] = {key_of(point): point for point in (tried[0], *chosen.values())}
    control = key_of(tried[0])
    finalists = {
        key: [name for name in chosen if key_of(chosen[name]) == key] for key in points if key != control
    }
    confirmation = Confirmation(task.dataset, terms, pilot.confirm_seeds, control, replicates=REPLICATES)

    def train(places: Sequence[int], keys: Sequence[str]) -> Mapping[str, tuple[Outcome, Logits]]:
        return {
            key: task.trained(points[key], [FRESH + place for place in places], "confirm", "test")
            for key in keys
        }

    confirm(confirmation, finalists, train)
    found = confirmation.comparisons()
    recommendations = decide(
        chosen,
        found,
        control,
        terms,
        Source("simulated", None, "uniform", size.test, 1, ""),
        between=confirmation.between,
        constant_first=constant_ahead(found_ties),
    )
    candidate = float(chosen["accuracy"]["epsilon"])
    single = found[key_of(chosen["accuracy"])].differences["accuracy"] if candidate > 0 else None
    return Decided(
        task.truth, recommendations, candidate, single, pilot.detectable, rivals(task) if compare else {}
    )


OPTUNA = "Optuna's best of 64 trials"


def rivals(task: Task) -> dict[str, float]:
    """What others would choose; the last knows what no seed would change on the held-out examples: nobody who
    has only these can do better.
    """
    both = ("select", "calibrate")
    return {
        OPTUNA: optuna_best(task, both[:1]),
        f"{OPTUNA}, scored on calibrate too": optuna_best(task, both),
        "ε which is best on select, any number of seeds": best_known(task, both[:1]),
        "ε which is best on select and calibrate, any number of seeds": best_known(task, both),
    }


def best_known(task: Task, splits: Sequence[str]) -> float:
    """The ε of highest accuracy on the examples of some splits, were there infinitely many seeds."""
    size = task.size
    whole, own = 1 - size.by_epsilon - size.by_seed - size.rest, size.by_seed + size.rest
    right = np.zeros(len(GRID))
    for common, by_epsilon in map(task.shared, splits):
        ahead = math.sqrt(whole) * common + math.sqrt(size.by_epsilon) * by_epsilon
        margin = np.array([NORMAL.inv_cdf(size.accuracy + gain) for gain in task.truth.gain])
        right += ndtr((margin[:, None] + ahead) / math.sqrt(own)).sum(1)
    return GRID[int(right.argmax())]


def optuna_best(task: Task, splits: Sequence[str]) -> float:
    """What one would do instead: 64 trials of one member each, by Optuna's default sampler; the ε of its best
    trial.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=task.seed))
    for number in range(MEMBERS):
        trial = study.ask()
        epsilon = trial.suggest_float("epsilon", *SPAN, step=0.01)
        right = [task.ahead(split, round(epsilon, 2), number) > 0 for split in splits]
        study.tell(trial, float(np.concatenate(right).mean()))
    return round(float(study.best_params["epsilon"]), 2)


def plateau(gain: float) -> Truth:
    """The same gain from ε = 0.03 on, less below."""
    return Truth(tuple(gain * min(1.0, epsilon / 0.03) for epsilon in GRID))


def peaked(gain: float, at: float) -> Truth:
    """A gain that is largest at one ε: x·exp(1 - x), x = ε/at."""
    return Truth(tuple(gain * (epsilon / at) * math.exp(1 - epsilon / at) for epsilon in GRID))


@dataclass(frozen=True)
class Question:
    """What is asked: the true curves of the n-th task of a size, the policies, the plan's first."""

    truth: Callable[[str, np.random.Generator], Truth]
    policies: tuple[str, ...]
    compare: bool = False
    as_detectable: bool = False


GAIN = {"small": 0.015, "large": 0.01}
QUESTIONS = {
    "none": Question(lambda _, __: plateau(0.0), ("accuracy", "safe", "raw", "honest")),
    "gain": Question(lambda size, _: plateau(GAIN[size]), ("accuracy",)),
    "peak": Question(
        lambda size, random: peaked(GAIN[size], math.exp(random.uniform(math.log(0.03), math.log(0.35)))),
        ("accuracy", "safe"),
        compare=True,
    ),
    "null": Question(
        lambda _, __: replace(plateau(0.0), same=True), ("accuracy", "safe", "raw", "calibrated", "honest")
    ),
    "loss": Question(lambda size, _: plateau(-GAIN[size]), ("accuracy", "safe", "raw", "honest")),
    "harm": Question(lambda size, _: replace(plateau(GAIN[size]), harm=8.0), ("safe", "accuracy")),
    "power": Question(lambda _, __: plateau(0.0), ("accuracy",), as_detectable=True),
}


def one(size: str, question: str, number: int, random_state: int, constant: bool) -> Decided:
    """The n-th sweep of a question."""
    asked = QUESTIONS[question]
    seed = 1_000_000 * random_state + number
    truth = asked.truth(size, np.random.default_rng(seed))
    return sweep(
        SIZES[size],
        truth,
        seed,
        asked.policies,
        compare=asked.compare,
        as_detectable=asked.as_detectable,
        constant=constant,
    )


def summary(size: str, question: str, decided: Sequence[Decided]) -> list[tuple[str, str, str, str, str]]:
    """Rows (size, question, what, found, wanted)."""

    def share(of: Callable[[Decided], bool], among: Sequence[Decided] = decided) -> str:
        rate = mean(map(of, among)) if among else math.nan
        return (
            f"{100 * rate:.1f} % ± {196 * math.sqrt(rate * (1 - rate) / max(1, len(among))):.1f} of"
            f" {len(among)}"
        )

    own = QUESTIONS[question].policies[0]
    rows = []
    if question in ("none", "null"):
        rows.append(
            (
                f"adopted ε > 0, policy {own}",
                share(lambda one: one.recommendations[own].best.epsilon > 0),
                "at most 5 %",
            )
        )
        rows.append(
            (
                "adopted ε > 0, policy safe",
                share(lambda one: one.recommendations["safe"].best.epsilon > 0),
                "at most 5 %",
            )
        )
        for name, what in (("raw", "adopted ε > 0, policy raw"), ("honest", "adopted ε > 0, policy honest")):
            rows.append((what, share(lambda one, name=name: one.recommendations[name].best.epsilon > 0), ""))
        rows.append(
            (
                "any claim of accuracy adopted",
                share(
                    lambda one: any(
                        found.best.epsilon > 0
                        for name, found in one.recommendations.items()
                        if name != "honest"
                    )
                ),
                "at most 5 %",
            )
        )
    if question in ("none", "gain", "peak"):
        judged = [one for one in decided if one.recommendations[own].conditions]
        rows.append(
            (
                "repeated 95 % interval of Δaccuracy holds the truth",
                share(lambda one: holds(one, own), judged),
                "93 to 97 %",
            )
        )
        lone = [one for one in decided if one.single]
        rows.append(
            ("95 % interval of Δaccuracy, looks not counted, holds it", share(holds_single, lone), "")
        )
    rows.append(
        (
            "recommended, and truly worse than ε = 0 by more than the effect, any policy",
            share(
                lambda one: any(
                    one.truth.at(found.best.epsilon, found.best.drop) < -0.003
                    for found in one.recommendations.values()
                )
            ),
            "at most 1 %",
        )
    )
    if question == "harm":
        rows.append(("safe adopts", share(lambda one: one.recommendations["safe"].best.epsilon > 0), "few"))
        rows.append(
            ("accuracy adopts", share(lambda one: one.recommendations["accuracy"].epsilon > 0), "most")
        )
    if question in ("power", "gain"):
        rows.append(
            (
                "the gain is found",
                share(lambda one: one.recommendations[own].best.epsilon > 0),
                "75 to 85 %" if question == "power" else "",
            )
        )
        rows.append(
            (
                "what the pilot called detectable",
                f"{100 * mean(one.detectable for one in decided):.2f} pp on average",
                "",
            )
        )
        seeds = [one.recommendations[own].seeds for one in decided]
        rows.append(("fresh seeds used", f"{mean(seeds):.1f} on average", ""))
    if question == "peak":
        chosen = {
            "candidate of policy accuracy": [(one.candidate, 1.0) for one in decided],
            "recommendation of policy accuracy": [best(one, "accuracy") for one in decided],
            "recommendation of policy safe": [best(one, "safe") for one in decided],
            "ε = 0": [(0.0, 1.0)] * len(decided),
            **{name: [(one.others[name], 1.0) for one in decided] for name in decided[0].others},
        }
        lost = {
            name: [
                max(one.truth.gain) - one.truth.at(*place) for one, place in zip(decided, found, strict=True)
            ]
            for name, found in chosen.items()
        }
        for name, losses in lost.items():
            error = 100 * float(np.std(losses)) / math.sqrt(len(losses))
            found = (
                f"{100 * mean(losses):.4f} pp ± {2 * error:.4f}, {mean(losses) / mean(lost[OPTUNA]):.2f} of"
                " Optuna's"
            )
            rows.append((f"accuracy lost by: {name}", found, "at most 0.25" if "accuracy" in name else ""))
    return [(size, question, *row) for row in rows]


def best(one: Decided, policy: str) -> tuple[float, float]:
    """The ε and the drop that a policy recommends."""
    found = one.recommendations[policy].best
    return found.epsilon, found.drop


def holds(one: Decided, policy: str) -> bool:
    """Whether the interval of the candidate's gain, adopted or not, holds its true gain."""
    found = one.recommendations[policy]
    condition = found.conditions[0]
    return condition.low <= one.truth.at(found.candidate) <= condition.high


def holds_single(one: Decided) -> bool:
    """The same of the interval that takes no account of the looks."""
    return one.single is not None and one.single.low <= one.truth.at(one.candidate) <= one.single.high


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweeps", type=int, default=120)
    parser.add_argument("--size", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--question", nargs="+", default=list(QUESTIONS), choices=QUESTIONS)
    parser.add_argument("--constant", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--random-state", type=int, default=0)
    options = parser.parse_args(arguments)
    print(
        f"{options.sweeps} sweeps each, random state {options.random_state}, torch {version('torch')},"
        f" scikit-learn {version('scikit-learn')}, Optuna {version('optuna')}, {platform.machine()}\n"
    )
    print("| size | question | what | found | wanted |\n|---|---|---|---|---|", flush=True)
    started = time.perf_counter()
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        for size in options.size:
            for question in options.question:
                count = options.sweeps
                states = [options.random_state] * count
                decided = list(
                    pool.map(
                        one,
                        [size] * count,
                        [question] * count,
                        range(count),
                        states,
                        [options.constant] * count,
                        chunksize=4,
                    )
                )
                for row in summary(size, question, decided):
                    print("| " + " | ".join(row) + " |", flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
