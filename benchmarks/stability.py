"""Whether the same plan names the same ε when only the seeds are others, and what the rule costs that names
it.

    python -m benchmarks.stability [--real] [--shapes] [--policy safe accuracy] [--seeds 160] [--tasks 12]
    [--size small large] [--cache FILE]

--real    digits/mlp. Trains, once, so many seeds at the default plan's eight ε, and at a few more for the
truth; what they came to is kept in the file
          --cache. Disjoint groups of 8 seeds each choose a candidate. All groups see the same examples, as
          two sweeps of one task do.
--shapes  simulated tasks (benchmarks.decision) of known accuracy. Each is swept twice, with other seeds on
the same examples.

For each rule: same, the share of pairs of groups (of the two sweeps of a task) that name the same ε; lost,
the true accuracy of the named ε behind that of the best, in pp. Truth is, for --real, the mean over all seeds
on *test*, which no rule looks at, and on all held-out examples (select, calibrate, test), linear between the
trained ε. ± are 95 % intervals over tasks; "worst shapes" those where a rule loses most against the first.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import combinations
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.decision import GAIN, GRID, SIZES, SPAN, Task, Truth
from lscal import METRICS, Predictions, Temperature
from sweeps.data.dataset import SplitName
from sweeps.data.load import load
from sweeps.devices import pick_device
from sweeps.scoring import risks_of
from sweeps.settings import resolve
from sweeps.training.autotune import choose
from sweeps.training.engine import Engine
from sweeps.workers.worker import member_of
from tracking.decision.policies import POLICIES, ties
from tracking.decision.screening import SHORT, Screening
from tracking.decision.terms import Terms
from tracking.decision.tie import harmless
from tracking.records.outcome import HELD_OUT_ACCURACY, Outcome

Array = npt.NDArray[np.float64]

TASK = "digits/mlp"
TRIED = (0.0, 0.2, 0.1, 0.3, 0.05, 0.15, 0.25, 0.35)
SEEDS = 8
FOR_TRUTH = (0.01, 0.02, 0.03, 0.07, 0.12, 0.4)
"""Trained beside `TRIED`, since a rule may name them."""
SPLITS: tuple[SplitName, ...] = ("select", "calibrate", "test")
CALIBRATED = ("nll", "aurc")
CACHE = Path.home() / ".cache" / "lscal" / "stability-digits-mlp.npz"


# --- real seeds ---


def engine_of(name: str) -> tuple[Engine, Any, str]:
    """An engine for a task of the default plan, the task, and the smoothing; data lie in the folder
    LSCAL_DATA.
    """
    data_dir = os.environ.get("LSCAL_DATA")
    plan = resolve({"smoothing": "uniform", "tasks": [name], "data_dir": data_dir})
    task = plan.tasks[0]
    dataset = load(task.dataset, data_dir, plan.train_examples)
    return (
        choose(task, dataset, plan.smoothing, pick_device("cpu"), SEEDS, "auto", "float32"),
        task,
        plan.smoothing[0],
    )


def train(path: Path, seeds: int) -> None:
    """Train every ε with every seed, eight seeds at a time, and write (ε, seed) values of the metrics that
    policies choose by.
    """
    engine, task, smoothing = engine_of(TASK)
    found: dict[tuple[str, float], list[Array]] = {}
    epsilons = (*TRIED, *FOR_TRUTH)
    for first in range(0, seeds, SEEDS):
        for own in (epsilons[: len(TRIED)], epsilons[len(TRIED) :]):
            members = [
                member_of(task, smoothing, {"epsilon": epsilon}, seed)
                for epsilon in own
                for seed in range(first, first + SEEDS)
            ]
            trained = engine.train(members, lambda _: None)
            logits = {split: engine.logits(trained, split) for split in SPLITS}
            for name, values in measured(
                logits, {split: engine.dataset.splits[split].labels.cpu() for split in SPLITS}
            ).items():
                for epsilon, part in zip(own, values.reshape(len(own), SEEDS, -1), strict=True):
                    found.setdefault((name, epsilon), []).append(part)
        print(f"{first + SEEDS} of {seeds} seeds", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {name for name, _ in found}
    table = {name: np.stack([np.concatenate(found[name, epsilon]) for epsilon in epsilons]) for name in names}
    counts = np.array([len(engine.dataset.splits[split].labels) for split in SPLITS])
    np.savez_compressed(path, epsilons=np.array(epsilons), counts=counts, **table)  # type: ignore[arg-type]  # its stub takes them for allow_pickle


def measured(
    logits: Mapping[SplitName, torch.Tensor], labels: Mapping[SplitName, torch.Tensor]
) -> dict[str, Array]:
    """By metric, the value of each member; of risks, 100."""
    temperature = Temperature.fit(logits["calibrate"], labels["calibrate"])
    values: dict[str, Any] = {}
    for split in SPLITS:
        raw = Predictions.from_logits(logits[split], labels[split])
        values[f"{split}/accuracy"] = METRICS["accuracy"].function(raw)
        if split == "test":
            continue
        calibrated = raw.calibrated(temperature)
        values[f"{split}/confidence_gap"] = METRICS["confidence_gap"].function(raw)
        values |= {f"{split}/{name}_calibrated": METRICS[name].function(calibrated) for name in CALIBRATED}
        values[f"{split}/risks"] = risks_of(calibrated)
    return {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}


@dataclass(frozen=True, eq=False)
class Recorded:
    """What `train` wrote."""

    epsilons: tuple[float, ...]
    counts: Array
    values: Mapping[str, Array]

    @classmethod
    def read(cls, path: Path) -> "Recorded":
        """The file's content."""
        with np.load(path) as file:
            return cls(
                tuple(file["epsilons"].tolist()),
                file["counts"],
                {name: file[name] for name in file if "/" in name},
            )

    def held_out(self, splits: Sequence[str]) -> Array:
        """Accuracy (ε, seed) on several splits together."""
        share = np.array([self.counts[SPLITS.index(split)] for split in splits], dtype=np.float64)
        whole: Array = (
            sum(
                weight * self.values[f"{split}/accuracy"][..., 0]
                for weight, split in zip(share, splits, strict=True)
            )
            / share.sum()
        )
        return whole

    def truth(self, splits: Sequence[str]) -> Callable[[float], float]:
        """The accuracy at any ε by all seeds."""
        order = np.argsort(self.epsilons)
        return lambda epsilon: float(
            np.interp(epsilon, np.array(self.epsilons)[order], self.held_out(splits).mean(1)[order])
        )

    def screening(self, seeds: Sequence[int]) -> Screening:
        """The screening of a sweep with these seeds at the default plan's ε."""
        accuracy, rows = self.held_out(SPLITS[:2]), list(seeds)
        names = [name for name in self.values if name.startswith("select/") and not name.endswith("risks")]
        outcomes = []
        for number, epsilon in enumerate(TRIED):
            place = self.epsilons.index(epsilon)
            metrics = {name: tuple(self.values[name][place, rows, 0].tolist()) for name in names}
            metrics[HELD_OUT_ACCURACY] = tuple(accuracy[place, rows].tolist())
            risks = {
                f"{split}_calibrated": self.values[f"{split}/risks"][place, rows].tolist()
                for split in SPLITS[:2]
            }
            outcomes.append(
                Outcome(
                    f"u{epsilon}",
                    TASK,
                    "s",
                    "screen",
                    number,
                    epsilon,
                    10,
                    {"epsilon": epsilon},
                    tuple(rows),
                    metrics,
                    {},
                    (),
                    {},
                    1.0,
                    "",
                    risks=risks,
                )
            )
        return Screening(outcomes, outcomes[0], Terms().prices, SPAN)


# --- rules ---


@dataclass(frozen=True, eq=False)
class Seen:
    """What a rule sees: for ε in ascending order fitted accuracy, the error of its gain over ε = 0, and which
    may be chosen.
    """

    epsilons: Array
    values: Array
    errors: Array
    allowed: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, screening: Screening, policy: str) -> "Seen":
        """By the fit of the policy's metric, larger being better, and what the policy allows."""
        target, points = POLICIES[policy].target, screening.points
        points = sorted(points, key=lambda point: float(point["epsilon"]))
        shift = screening.fit(target.metric).shift(points, screening.control_point)
        epsilons = np.array([point["epsilon"] for point in points], dtype=np.float64)
        allowed = np.ones(len(points), bool)
        if policy == "safe":
            allowed = harmless(screening, points, Terms(policy), "calibrated") | (epsilons == 0)
        return cls(
            epsilons,
            (target.sign * shift.value).round(10),
            shift.error,
            allowed if allowed.sum() > 1 else np.ones_like(allowed),
        )

    def among(self, known: Sequence[float]) -> "Seen":
        """The same with a few ε alone."""
        few = np.isin(self.epsilons.round(9), known)
        return Seen(self.epsilons[few], self.values[few], self.errors[few], self.allowed[few])

    @property
    def best(self) -> int:
        """The place of the best allowed one; of equal ones the smallest."""
        return int(np.where(self.allowed, self.values, -np.inf).argmax())

    def near(self, errors: float, least: float) -> npt.NDArray[np.bool_]:
        """Which are within so many standard errors, or `least`, of the best."""
        reach = max(errors * self.errors[self.best], least)
        near: npt.NDArray[np.bool_] = self.allowed & (self.values >= self.values[self.best] - reach)
        return near


FINE = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4)
LONG = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
Rule = Callable[[Seen], float]


def smallest(seen: Seen) -> float:
    """The smallest ε within one standard error."""
    return float(seen.epsilons[int(seen.near(1, 0).argmax())])


def best(seen: Seen) -> float:
    """The best ε."""
    return float(seen.epsilons[seen.best])


def of_tie(
    where: Callable[[Array, Array, float], float],
    known: Sequence[float] | None,
    errors: float = 1.0,
    least: float = 0.0,
    zero: bool = True,
) -> Rule:
    """A value of the connected set within some standard errors of the best: `where` takes its ε, their values
    above the bar, and the best ε.

    It is moved to the nearest of the `known` values in the set. `zero`: ε = 0 wherever that is within one
    standard error; else only where it is the best.
    """

    def rule(seen: Seen) -> float:
        if seen.epsilons[seen.best] == 0 or (
            zero and seen.near(1, least)[int((seen.epsilons == 0).argmax())]
        ):
            return 0.0
        near = seen.near(errors, least) & (seen.epsilons > 0)
        part = np.cumsum(~near)
        own = near & (part == part[seen.best])
        low, high = seen.epsilons[own][[0, -1]]
        bar = seen.values[seen.best] - max(errors * seen.errors[seen.best], least)
        named = where(seen.epsilons[own], seen.values[own] - bar, best(seen))
        inside = [value for value in known or () if low <= value <= high]
        return min(inside, key=lambda value: round(abs(value - named), 9)) if inside else named

    return rule


def middle(epsilons: Array, _: Array, __: float) -> float:
    """The middle of the set."""
    return float(epsilons[0] + epsilons[-1]) / 2


def rooted(epsilons: Array, _: Array, __: float) -> float:
    """Its middle on the scale of √ε."""
    low, high = epsilons[[0, -1]] ** 0.5
    return float(((low + high) / 2) ** 2)


def weighted(epsilons: Array, above: Array, _: float) -> float:
    """The mean of its ε, weighted by how far their values are above the bar."""
    return float((epsilons * (above + 1e-12)).sum() / (above + 1e-12).sum())


def peak(_: Array, __: Array, best: float) -> float:
    """The best itself."""
    return best


RULES: dict[str, Rule] = {
    "smallest ε within one standard error (1 SE)": smallest,
    "the same, short list": lambda seen: smallest(seen.among((0.0, *SHORT))),
    "best": best,
    "best of a short list": lambda seen: best(seen.among((0.0, *SHORT))),
    "middle of the set within 1 SE": of_tie(middle, None),
    "middle, short list": of_tie(middle, SHORT),
    "middle within .5 SE, short list": of_tie(middle, SHORT, 0.5),
    "middle within max(1 SE, .3 pp), short list": of_tie(middle, SHORT, least=0.003),
    "middle, short list, 0 only where it is best": of_tie(middle, SHORT, zero=False),
    "middle, longer list": of_tie(middle, LONG),
    "middle on the scale of √ε, short list": of_tie(rooted, SHORT),
    "middle on the scale of √ε, longer list": of_tie(rooted, LONG),
    "weighted mean, short list": of_tie(weighted, SHORT),
    "weighted mean, longer list": of_tie(weighted, LONG),
    "best moved to the nearest of a short list in the set": of_tie(peak, SHORT),
    "the same, 0 only where it is best": of_tie(peak, SHORT, zero=False),
    "weighted mean within .5 SE, fine list, 0 only where it is best": of_tie(weighted, FINE, 0.5, zero=False),
    "weighted mean, longer list, 0 only where it is best": of_tie(weighted, LONG, zero=False),
}
IN_FORCE = "**in force**"


def named_by(screening: Screening, policy: str) -> dict[str, float]:
    """The ε that every rule names."""
    seen = Seen.of(screening, policy)
    named = {name: round(rule(seen), 6) for name, rule in RULES.items()}
    return named | {IN_FORCE: round(float(POLICIES[policy].tie(screening, Terms(policy)).epsilon), 6)}


def same(answers: Sequence[float]) -> float:
    """The share of pairs that are equal."""
    return float(np.mean([first == second for first, second in combinations(answers, 2)]))


# --- tables ---


def real(path: Path, seeds: int, policy: str) -> None:
    """The table for real seeds."""
    if not path.exists():
        train(path, seeds)
    recorded = Recorded.read(path)
    groups = [
        range(first, first + SEEDS)
        for first in range(0, recorded.held_out(SPLITS).shape[1] - SEEDS + 1, SEEDS)
    ]
    screenings = [recorded.screening(group) for group in groups]
    named = [named_by(screening, policy) for screening in screenings]
    truths = [recorded.truth(splits) for splits in (("test",), SPLITS)]
    fine = np.linspace(*SPAN, 401)
    print(
        f"\n{TASK}, {len(groups)} groups of {SEEDS} seeds, policy {policy}. True accuracy % on test / on all"
        " held-out examples: ",
        end="",
    )
    print(
        ", ".join(
            f"ε = {one:g}: {' / '.join(f'{100 * truth(one):.2f}' for truth in truths)}"
            for one in sorted(recorded.epsilons)
        )
    )
    sets = [ties(screening, Terms(policy), [policy])[policy] for screening in screenings]
    print(f"sets: {', '.join(f'{one.low:g} to {one.high:g}' for one in sets)}\n")
    print(
        "| rule | same | lost on test | worst | lost on all held-out | worst | answers"
        " |\n|---|---|---|---|---|---|---|"
    )
    for rule in named[0]:
        answers = [one[rule] for one in named]
        columns = []
        for truth in truths:
            lost = 100 * (max(map(truth, fine)) - np.array([truth(answer) for answer in answers]))
            columns += [f"{lost.mean():.3f}", f"{lost.max():.3f}"]
        told = ", ".join(f"{value:g}×{answers.count(value)}" for value in sorted(set(answers)))
        print(f"| {rule} | {same(answers):.2f} | {' | '.join(columns)} | {told} |")


SHAPES: dict[str, Callable[[float], float]] = {
    "nothing gained": lambda _: 0.0,
    "falling": lambda epsilon: -epsilon / 0.4,
    "level from .01": lambda epsilon: min(1, epsilon / 0.01),
    "level from .03": lambda epsilon: min(1, epsilon / 0.03),
    "level from .1": lambda epsilon: min(1, epsilon / 0.1),
    "a third of it, level from .03": lambda epsilon: min(1, epsilon / 0.03) / 3,
    "rising": lambda epsilon: epsilon / 0.4,
    "saturating": lambda epsilon: 1 - exp(-epsilon / 0.1),
    "level, then falling": lambda epsilon: min(1, epsilon / 0.03) - max(0, epsilon - 0.15) / 0.15,
    **{
        f"peak at {at:g}": lambda epsilon, at=at: epsilon / at * exp(1 - epsilon / at)
        for at in (0.02, 0.05, 0.1)
    },  # type: ignore[misc]
    **{
        f"narrow peak at {at:g}": lambda epsilon, at=at, width=width: exp(
            -(((epsilon - at) / width) ** 2) / 2
        )  # type: ignore[misc]
        for at, width in ((0.075, 0.015), (0.125, 0.02), (0.175, 0.025), (0.25, 0.025))
    },
}
"""Gains at an ε, as shares of the size's `GAIN`."""


Named = dict[str, list[tuple[dict[str, float], dict[str, float]]]]
"""By shape, for every task what the rules name in its two sweeps."""


def shapes(size: str, tasks: int, policies: Sequence[str], random_state: int) -> None:
    """The tables for simulated shapes."""
    named: dict[str, Named] = {policy: {shape: [] for shape in SHAPES} for policy in policies}
    for place, (shape, gain) in enumerate(SHAPES.items()):
        truth = Truth(tuple(GAIN[size] * gain(epsilon) for epsilon in GRID))
        for number in range(tasks):
            task = Task(SIZES[size], truth, 1_000_000 * random_state + 1000 * place + number)
            first, second = (screening_of(task, range(start, start + SEEDS)) for start in (0, SEEDS))
            for policy in policies:
                named[policy][shape].append((named_by(first, policy), named_by(second, policy)))
    for policy in policies:
        print(f"\n{size}: {len(SHAPES)} shapes × {tasks} tasks × 2 sweeps, policy {policy}\n")
        table(size, named[policy])


def screening_of(task: Task, seeds: Sequence[int]) -> Screening:
    """The screening of a simulated task."""
    outcomes = [task.trained({"epsilon": epsilon}, seeds, "screen", "select")[0] for epsilon in TRIED]
    return Screening(outcomes, outcomes[0], Terms().prices, SPAN)


def table(size: str, named: Named) -> None:
    """Print how often two sweeps name the same, and what is lost."""
    print("| rule | same | lost | worst shapes against the first rule |\n|---|---|---|---|")
    before = losses(size, named, next(iter(RULES)))
    for rule in (*RULES, IN_FORCE):
        equal = np.array([[one[rule] == other[rule] for one, other in pairs] for pairs in named.values()])
        lost = losses(size, named, rule)
        more, error = (lost - before).mean(1), 1.96 * (lost - before).std(1, ddof=1) / lost.shape[1] ** 0.5
        told = [
            f"{list(SHAPES)[shape]} {more[shape]:+.3f} ± {error[shape]:.3f}"
            for shape in (-more).argsort()[:3]
        ]
        print(
            f"| {rule} | {equal.mean():.2f} ± {half(equal):.2f} | {lost.mean():.3f} ± {half(lost):.3f} |"
            f" {'; '.join(told)} |",
            flush=True,
        )


def losses(size: str, named: Named, rule: str) -> Array:
    """What a rule loses on each (shape, task), mean over its two sweeps, in pp; between the ε of the grid
    gains are linear.
    """
    found = []
    for shape, pairs in named.items():
        gains = 100 * GAIN[size] * np.array([SHAPES[shape](epsilon) for epsilon in GRID])
        found.append(
            [gains.max() - np.interp([one[rule] for one in pair], GRID, gains).mean() for pair in pairs]
        )
    return np.array(found)


def half(values: Array | npt.NDArray[np.bool_]) -> float:
    """Half of the 95 % interval of a mean over (shape, task), the shapes being given."""
    return float(1.96 * (values.var(1, ddof=1).sum() / values.shape[1]) ** 0.5 / len(values))


def main() -> None:
    """Print the tables."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--real", action="store_true")
    flags.add_argument("--shapes", action="store_true")
    flags.add_argument("--policy", nargs="+", default=["safe", "accuracy"], choices=("safe", "accuracy"))
    flags.add_argument("--seeds", type=int, default=160)
    flags.add_argument("--cache", type=Path, default=CACHE)
    flags.add_argument("--tasks", type=int, default=12)
    flags.add_argument("--size", nargs="+", default=list(SIZES), choices=SIZES)
    flags.add_argument("--random-state", type=int, default=0)
    options = flags.parse_args()
    started = time.perf_counter()
    print(
        f"random state {options.random_state}, torch {version('torch')}, numpy {version('numpy')},"
        f" {os.cpu_count()} CPU cores, {platform.machine()}"
    )
    if options.real or not options.shapes:
        for policy in options.policy:
            real(options.cache, options.seeds, policy)
    torch.set_num_threads(1)
    if options.shapes or not options.real:
        for size in options.size:
            shapes(size, options.tasks, options.policy, options.random_state)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
