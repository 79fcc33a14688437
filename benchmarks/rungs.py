"""What rungs save, and whether they change what a sweep finds: on curves with a known truth, and on recorded
real sweeps.

    python -m benchmarks.rungs [--sweeps 200] [CURVES.npz ...]
    python -m benchmarks.rungs --record digits/mlp CURVES.npz [--first-seed 0] [--seeds 8]

A sweep is replayed: trials in the order in which they would be tried, one or four at a time, with rungs at a
quarter, a half and three quarters of the epochs. It is compared with the same sweep without rungs. Beside
ours stand two usual rules, which compare accuracies at the same epoch: median stopping (Golovin et al. 2017)
and asynchronous successive halving by 2 (Li et al. 2020). ε = 0 is never dropped.

A file of curves holds `epsilons` (trial) in the order of the sweep, and for each metric (`accuracy`,
`nll_calibrated`) values on *select* (epoch, trial, seed). Each replay screens with a random half of its
seeds, and confirms with the other half.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor

from sweeps.data.load import load
from sweeps.devices import pick_device
from sweeps.early_stopping.pruner import FIRST_WAVE, RISK
from sweeps.early_stopping.rule import Criterion, Curve, candidate, criterion_of, survivors
from sweeps.settings import resolve
from sweeps.training.autotune import choose
from sweeps.workers.worker import member_of
from tracking.decision.terms import Tolerances

EPSILONS = (0.0, 0.2, 0.1, 0.3, 0.05, 0.25, 0.15, 0.35)
METRICS = ("accuracy", "nll_calibrated")
SHARES = (0.25, 0.5, 0.75)
BATCHES = (1, 4)

ERROR = 0.016
"""Standard error of a relative change of NLL on the 5000 examples of Fashion-MNIST's *select*; larger on
digits, where NLL falls.
"""

Rule = Callable[[Sequence[Curve], Sequence[Curve], int], list[bool]]
"""Running trials, finished ones, epochs of a whole training -> which go on."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """All curves of a sweep, as without rungs; and by metric the final values of every trial with fresh
    seeds.
    """

    curves: tuple[Curve, ...]
    fresh: dict[str, Float[Tensor, "trial seed"]]

    @property
    def epochs(self) -> int:
        """Length of every curve."""
        return int(self.curves[0].values["accuracy"].shape[0])

    def candidate(self, criterion: Criterion, kept: Sequence[int]) -> int:
        """The trial that the claim's policy would choose among the kept ones."""
        epsilons = torch.tensor([self.curves[index].epsilon for index in kept], dtype=torch.float64)
        finals = torch.stack([self.curves[index].values[criterion.metric][-1] for index in kept]).double()
        return kept[int(candidate(criterion.sign * finals[None], epsilons, criterion.near))]

    def recommended(self, criterion: Criterion, kept: Sequence[int]) -> int:
        """That trial where fresh seeds confirm it: the 95 % interval of a gain lies above 0, no veto's metric
        rises too much. Else ε = 0.
        """
        chosen = self.candidate(criterion, kept)
        gain = self.fresh[criterion.metric][chosen] - self.fresh[criterion.metric][0]
        bound = gain.mean() - student.ppf(0.975, len(gain) - 1) * gain.std() / len(gain) ** 0.5
        rises = [
            self.fresh[veto.metric][chosen].mean() / self.fresh[veto.metric][0].mean() - 1 < veto.tolerance
            for veto in criterion.vetoes
        ]
        return chosen if (bound > 0 or not criterion.proven) and all(rises) else 0


@dataclass(frozen=True)
class Replay:
    """A sweep with rungs: the trials that reached the end, and the share of member-epochs that was saved."""

    kept: tuple[int, ...]
    saved: float


def replay(sweep: Sweep, rule: Rule, batch: int) -> Replay:
    """Train the sweep's trials batch by batch, dropping by a rule."""
    epochs, spent = sweep.epochs, 0
    finished: list[int] = []
    for start in range(0, len(sweep.curves), batch):
        running = list(range(start, min(start + batch, len(sweep.curves))))
        done = 0
        for rung in [round(share * epochs) for share in SHARES]:
            spent += (rung - done) * len(running)
            done = rung
            goes_on = rule(
                [shortened(sweep.curves[index], rung) for index in running],
                [sweep.curves[index] for index in finished],
                epochs,
            )
            running = [index for index, on in zip(running, goes_on, strict=True) if on]
        spent += (epochs - done) * len(running)
        finished += running
    return Replay(tuple(finished), 1 - spent / (epochs * len(sweep.curves)))


def shortened(curve: Curve, epochs: int) -> Curve:
    """The first epochs of a curve."""
    return Curve(curve.epsilon, {metric: values[:epochs] for metric, values in curve.values.items()})


def ours(criteria: Sequence[Criterion]) -> Rule:
    """`survivors`, protecting some claims."""
    return lambda running, finished, epochs: [
        decision.keep for decision in survivors(running, finished, epochs, criteria)
    ]


def by_itself(criteria: Sequence[Criterion]) -> Rule:
    """As a sweep judges its trials (`sweeps.early_stopping.pruner`): each by itself, against what finished in
    earlier waves, with its share of the risk.
    """
    return lambda running, finished, epochs: [
        survivors([curve], finished, epochs, criteria, RISK / FIRST_WAVE)[0].keep for curve in running
    ]


def accuracies(curves: Sequence[Curve], epoch: int) -> Float[np.ndarray, " trial"]:
    """Mean accuracy after an epoch."""
    return np.array([float(curve.values["accuracy"][epoch - 1].mean()) for curve in curves])


def median_stopping(running: Sequence[Curve], finished: Sequence[Curve], _: int) -> list[bool]:
    """On unless the accuracy now is below the median of the finished trials' at this epoch; three have to be
    finished.
    """
    rung = len(running[0].values["accuracy"]) if running else 1
    bar = float(np.median(accuracies(finished, rung))) if len(finished) >= 3 else -1.0
    return [
        curve.epsilon == 0 or value >= bar
        for curve, value in zip(running, accuracies(running, rung), strict=True)
    ]


def halving(running: Sequence[Curve], finished: Sequence[Curve], _: int) -> list[bool]:
    """On where the accuracy now is in the upper half of all that reached this epoch and are still in."""
    rung = len(running[0].values["accuracy"]) if running else 1
    now = accuracies(running, rung)
    bar = float(np.median(np.concatenate([now, accuracies(finished, rung)]))) if running else 0.0
    return [curve.epsilon == 0 or value >= bar for curve, value in zip(running, now, strict=True)]


POLICIES = ("safe", "accuracy", "calibrated")
CLAIMS = {
    policy: criterion for policy in POLICIES if (criterion := criterion_of(policy, Tolerances(), ERROR))
}
RULES: dict[str, tuple[Rule, tuple[str, ...]]] = {
    **{f"ours, for {policy}": (ours((criterion,)), (policy,)) for policy, criterion in CLAIMS.items()},
    **{
        f"by itself, for {policy}": (by_itself((criterion,)), (policy,))
        for policy, criterion in CLAIMS.items()
    },
    "ours, for all": (ours(tuple(CLAIMS.values())), POLICIES),
    "median stopping": (median_stopping, POLICIES),
    "successive halving": (halving, POLICIES),
}


def report(name: str, sweeps: Sequence[Sweep]) -> None:
    """Replay sweeps by every rule and print a line for each."""
    print(
        f"\n{name}: {len(sweeps)} sweeps, {len(sweeps[0].curves)} trials ×"
        f" {sweeps[0].curves[0].values['accuracy'].shape[1]} seeds × {sweeps[0].epochs} epochs"
    )
    print(
        "| rule | trials at a time | saved % | recommendation changed %: safe | accuracy | calibrated |"
        " candidate changed %: safe | accuracy |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for label, (rule, protected) in RULES.items():
        for batch in BATCHES:
            replays = [replay(sweep, rule, batch) for sweep in sweeps]
            cells = [
                changed(sweeps, replays, found, CLAIMS[policy]) if policy in protected else "–"
                for found, policies in ((Sweep.recommended, POLICIES), (Sweep.candidate, POLICIES[:2]))
                for policy in policies
            ]
            saved = np.mean([one.saved for one in replays])
            print(f"| {label} | {batch} | {100 * saved:.1f} | {' | '.join(cells)} |", flush=True)


def changed(
    sweeps: Sequence[Sweep],
    replays: Sequence[Replay],
    found: Callable[[Sweep, Criterion, Sequence[int]], int],
    criterion: Criterion,
) -> str:
    """In how many per cent of the sweeps another trial is chosen among those that reached the end than among
    all.
    """
    cases = [
        found(sweep, criterion, range(len(sweep.curves))) != found(sweep, criterion, one.kept)
        for sweep, one in zip(sweeps, replays, strict=True)
    ]
    return f"{100 * np.mean(cases):.1f}"


@dataclass(frozen=True)
class Truth:
    """How simulated trials behave, as functions of e = ε / 0.35: final accuracy and NLL after temperature,
    and how slow they are.

    Attributes:
        accuracy: gain in accuracy over ε = 0, in shares.
        nll: the same of the NLL.
        slowness: how many times longer than ε = 0 the approach takes at e = 1, less one.
    """

    accuracy: Callable[[float], float]
    nll: Callable[[float], float]
    slowness: float


TRUTHS = {
    "large ε wins, slowly": Truth(lambda e: 0.012 * e, lambda e: -0.03 * e, 1.0),
    "ε = 0.15 is best": Truth(lambda e: 0.03 * e * (0.86 - e), lambda e: 0.04 * e, 1.0),
    "large ε harms": Truth(lambda e: -0.02 * e * e, lambda e: 0.06 * e, 1.0),
    "flat": Truth(lambda _: 0.0, lambda e: 0.03 * e, 1.0),
}


def simulated(truth: Truth, generator: np.random.Generator, epochs: int = 20, seeds: int = 8) -> Sweep:
    """One sweep. Values approach their end exponentially; noise between epochs falls with the learning rate,
    and half of the seeds' noise is shared.
    """
    progress = np.arange(1, epochs + 1)[:, None] / epochs
    rate = 0.5 * (1 + np.cos(np.pi * progress))
    spread = np.array([0.002, 0.004])[:, None, None]
    shared = generator.normal(size=(2, 1, seeds)) * spread
    ends = np.array(
        [[0.88 + truth.accuracy(epsilon / 0.35), 0.35 + truth.nll(epsilon / 0.35)] for epsilon in EPSILONS]
    ).T[:, :, None]
    drawn = torch.from_numpy(ends + generator.normal(size=(2, len(EPSILONS), seeds)) * spread)
    curves = []
    for end, epsilon in zip(ends.transpose(1, 0, 2), EPSILONS, strict=True):
        e = epsilon / 0.35
        left = np.exp(-progress * 5 / (1 + truth.slowness * e))
        left = left - left[-1]
        own = generator.normal(size=(2, 1, seeds)) * spread
        jumps = generator.normal(size=(2, epochs, seeds)) * np.array([0.006, 0.015])[:, None, None] * rate
        values = end[:, None] + np.array([-0.15, 0.5])[:, None, None] * left + shared + own + jumps
        curves.append(
            Curve(
                epsilon,
                {"accuracy": torch.from_numpy(values[0]), "nll_calibrated": torch.from_numpy(values[1])},
            )
        )
    return Sweep(tuple(curves), {"accuracy": drawn[0], "nll_calibrated": drawn[1]})


def recorded(paths: Sequence[Path], generator: np.random.Generator, sweeps: int) -> Iterator[Sweep]:
    """Sweeps of random halves of the seeds in files of one task."""
    files = [np.load(path) for path in paths]
    values: dict[str, Tensor] = {}
    for metric in METRICS:
        values[metric] = torch.from_numpy(np.concatenate([file[metric] for file in files], 2))
    seeds = values["accuracy"].shape[2]
    for _ in range(sweeps):
        rows, others = np.array_split(generator.permutation(seeds), 2)
        curves = [
            Curve(float(epsilon), {m: v[:, t, rows] for m, v in values.items()})
            for t, epsilon in enumerate(files[0]["epsilons"])
        ]
        yield Sweep(tuple(curves), {metric: value[-1][:, others] for metric, value in values.items()})


def record(task: str, path: Path, seeds: Sequence[int], train_examples: int | None) -> None:
    """Train every ε with every seed to the end and write the curves; data lie in the folder LSCAL_DATA."""
    data_dir = os.environ.get("LSCAL_DATA")
    plan = resolve(
        {"smoothing": "uniform", "tasks": [task], "train_examples": train_examples, "data_dir": data_dir}
    )
    dataset = load(plan.tasks[0].dataset, data_dir, plan.train_examples)
    engine = choose(plan.tasks[0], dataset, plan.smoothing, pick_device("auto"), len(seeds))
    found = []
    for epsilon in EPSILONS:
        members = [member_of(plan.tasks[0], plan.smoothing[0], {"epsilon": epsilon}, seed) for seed in seeds]
        trained = engine.train(
            members, lambda _: None, {1: lambda curves: [True] * curves["train_loss"].shape[1]}
        )  # a rung: all is scored
        found += Curve.of_members([epsilon], trained.curves)
    values = {metric: torch.stack([curve.values[metric] for curve in found], 1).numpy() for metric in METRICS}
    np.savez(path, epsilons=np.array(EPSILONS), **values)  # type: ignore[arg-type]  # its stub takes the values for allow_pickle


def main() -> None:
    """Print the tables."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--sweeps", type=int, default=200)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("curves", nargs="*", type=Path)
    flags.add_argument("--record", metavar="TASK", help="train a task and write its curves")
    flags.add_argument("--first-seed", type=int, default=0)
    flags.add_argument("--seeds", type=int, default=8)
    flags.add_argument("--train-examples", type=int)
    options = flags.parse_args()
    if options.record:
        (path,) = options.curves
        record(
            options.record,
            path,
            range(options.first_seed, options.first_seed + options.seeds),
            options.train_examples,
        )
        return
    torch.set_num_threads(1)
    started = time.perf_counter()
    print(
        f"{os.cpu_count()} CPU cores ({platform.machine()}), one used; Python {platform.python_version()},"
        f" torch {version('torch')}; seed {options.seed}"
    )
    if options.curves:
        report(
            ", ".join(path.stem for path in options.curves),
            list(recorded(options.curves, np.random.default_rng(options.seed), options.sweeps)),
        )
    else:
        for name, truth in TRUTHS.items():
            generator = np.random.default_rng(options.seed)
            report(name, [simulated(truth, generator) for _ in range(options.sweeps)])
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
