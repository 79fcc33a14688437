"""A league of recalibrators: lscal's, netcal's, scikit-learn's and probmetrics', on logits of our networks.

    python -m benchmarks.recalibrators [--data-dir DIR] [--rounds 5] [--seeds 4] [--tasks trec/text_cnn]
    python -m benchmarks.recalibrators --speed [--rounds 5]

digits/mlp is always there; with `--data-dir`, fashion_mnist/mlp (10 000 examples, 8 epochs) and `--tasks`,
each trained at ε = 0 and 0.2. Every method is fitted on *calibrate* and scored on *test*, by the same
functions, one network after another where it knows no members. Log loss, Brier score, smooth ECE and AURC
are means over the networks; "over T" compares the log loss with lscal's temperature. Seconds: fitting all
networks and applying to *test*, the median of the rounds; no round begins after `PATIENCE` seconds. Methods
of packages that are not installed are left out, with a line that says so.

--speed   16 networks, N = 5000, K = 10 (simulated): one call of `svs` and `sms` against 16 of probmetrics',
          in turn, the median ratio, and by how much the log loss on 5000 fresh rows is higher.
"""

import argparse
import importlib.util
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from lscal import CALIBRATORS, METRICS, Predictions
from sweeps.data.load import load
from sweeps.devices import pick_device
from sweeps.settings import resolve
from sweeps.training.autotune import choose
from sweeps.workers.worker import member_of

Array = npt.NDArray[np.float64]
EPSILONS = (0.0, 0.2)
PATIENCE = 20.0
SIZES: dict[str, dict[str, int]] = {"fashion_mnist/mlp": {"train_examples": 10_000, "epochs": 8}}
"""What is trained smaller than its recipe says."""
COLUMNS = (
    ("nll", 1.0, "log loss"),
    ("brier", 1.0, "Brier"),
    ("smooth_ece", 100.0, "smooth ECE %"),
    ("aurc", 1000.0, "AURC ‰"),
)
"""Metrics, each with its factor and its head."""
WIDTH = 110


@dataclass(frozen=True)
class Logits:
    """What the networks of a task say, float64: (member, example, class)."""

    title: str
    calibrate: Tensor
    calibrate_labels: Tensor
    test: Tensor
    test_labels: Tensor


Method = Callable[[Logits], Tensor]
"""Recalibrated logits or log probabilities of *test*."""


@dataclass(frozen=True)
class Entrant:
    """A method of a package."""

    package: str
    name: str
    method: Method


# --- networks ---


def trained(name: str, data_dir: str | None, seeds: int) -> Iterator[Logits]:
    """Logits of one task at every ε."""
    plan = resolve({"tasks": [name], "data_dir": data_dir} | SIZES.get(name, {}))
    task = plan.tasks[0]
    dataset = load(task.dataset, data_dir, plan.train_examples)
    engine = choose(task, dataset, plan.smoothing, pick_device("cpu"), seeds)
    labels = [dataset.splits[split].labels.cpu() for split in ("calibrate", "test")]
    for epsilon in EPSILONS:
        members = [member_of(task, plan.smoothing[0], {"epsilon": epsilon}, seed) for seed in range(seeds)]
        run = engine.train(members, lambda _: None)
        calibrate, test = (engine.logits(run, split).cpu().double() for split in ("calibrate", "test"))
        yield Logits(f"{name}, ε = {epsilon:g}", calibrate, labels[0], test, labels[1])


# --- entrants ---


def ours(name: str) -> Method:
    """One of lscal's, all networks in one call."""
    return lambda of: CALIBRATORS[name].fit(of.calibrate, of.calibrate_labels)(of.test)


def each(recalibrate: Callable[[Array, Array, Array], Array]) -> Method:
    """A method that takes logits, labels and fresh logits of one network, and gives probabilities."""

    def method(of: Logits) -> Tensor:
        found = [
            recalibrate(calibrate.numpy(), of.calibrate_labels.numpy(), test.numpy())
            for calibrate, test in zip(of.calibrate, of.test, strict=True)
        ]
        return torch.from_numpy(np.stack(found)).double().log()

    return method


def softmax(logits: Array) -> Array:
    """Probabilities in float64."""
    return torch.from_numpy(logits).softmax(-1).numpy()


def netcals(name: str) -> Method:
    """One of netcal's, on probabilities in float64."""

    def recalibrate(logits: Array, labels: Array, fresh: Array) -> Array:
        from netcal import binning, scaling

        fitted = getattr(scaling if hasattr(scaling, name) else binning, name)()
        fitted.fit(softmax(logits), labels)
        return np.asarray(fitted.transform(softmax(fresh)))

    return each(recalibrate)


def sklearns(name: str) -> Method:
    """One of scikit-learn's, around a classifier that is fitted already and whose decision function is its
    input.
    """

    def recalibrate(logits: Array, labels: Array, fresh: Array) -> Array:
        from sklearn.base import BaseEstimator, ClassifierMixin
        from sklearn.calibration import CalibratedClassifierCV
        from sklearn.frozen import FrozenEstimator

        class Saved(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
            def __init__(self) -> None:
                self.classes_, self.is_fitted_ = np.arange(logits.shape[1]), True

            def fit(self, *_: object) -> "Saved":
                return self

            def decision_function(self, inputs: Array) -> Array:
                return inputs

            def predict(self, inputs: Array) -> Array:
                return inputs.argmax(1)

        fitted = CalibratedClassifierCV(FrozenEstimator(Saved()), method=name).fit(logits, labels)
        return np.asarray(fitted.predict_proba(fresh))

    return each(recalibrate)


def probmetricss(name: str) -> Method:
    """One of probmetrics', on probabilities in float64."""

    def recalibrate(logits: Array, labels: Array, fresh: Array) -> Array:
        from probmetrics import calibrators

        fitted = calibrators.ETSCalibrator(loss="ce") if name == "ets" else calibrators.get_calibrator(name)
        fitted.fit(softmax(logits), labels)
        return np.asarray(fitted.predict_proba(softmax(fresh)))

    return each(recalibrate)


ENTRANTS = [
    Entrant("lscal", "none", lambda of: of.test),
    *(
        Entrant("lscal", name, ours(name))
        for name in ("temperature", "ets", "p_norm", "vector", "svs", "sms", "isotonic", "histogram", "bbq")
    ),
    Entrant("probmetrics", "ts-mix", probmetricss("ts-mix")),
    Entrant("probmetrics", "ets", probmetricss("ets")),
    Entrant("probmetrics", "svs", probmetricss("svs")),
    Entrant("probmetrics", "sms", probmetricss("sms")),
    Entrant("scikit-learn", "temperature", sklearns("temperature")),
    Entrant("scikit-learn", "sigmoid", sklearns("sigmoid")),
    Entrant("scikit-learn", "isotonic", sklearns("isotonic")),
    Entrant("netcal", "temperature", netcals("TemperatureScaling")),
    Entrant("netcal", "isotonic", netcals("IsotonicRegression")),
    Entrant("netcal", "histogram", netcals("HistogramBinning")),
    Entrant("netcal", "bbq", netcals("BBQ")),
    Entrant("netcal", "beta", netcals("BetaCalibration")),
]
MODULES = {"scikit-learn": "sklearn"}


def installed(package: str) -> bool:
    """Whether an entrant can take part. Nothing is imported to find out."""
    return importlib.util.find_spec(MODULES.get(package, package)) is not None


# --- the league ---


def league(of: Logits, rounds: int) -> None:
    """The table of one task at one ε."""
    members, examples, classes = of.calibrate.shape
    sizes = f"{classes} classes, {examples} to fit, {len(of.test_labels)} to score"
    print(f"\n{of.title}: {members} networks, {sizes}")
    heads = "".join(f"{head:>14}" for *_, head in COLUMNS)
    print(f"  {'package':14}{'method':14}{heads}{'over T, %':>12}{'seconds':>10}")
    reference = None
    for entrant in ENTRANTS:
        if not installed(entrant.package):
            continue
        try:
            values, seconds = scored(entrant, of, rounds)
        except Exception as error:  # whatever a peer raises, the others are scored
            print(f"  {entrant.package:14}{entrant.name:14}  {type(error).__name__}: {error}"[:WIDTH])
            continue
        if entrant.name == "temperature" and reference is None:
            reference = values[0]
        over = "" if reference is None else f"{100 * (values[0] / reference - 1):+.1f}"
        cells = "".join(
            f"{scale * value:14.4f}" for value, (_, scale, _) in zip(values, COLUMNS, strict=True)
        )
        print(f"  {entrant.package:14}{entrant.name:14}{cells}{over:>12}{seconds:10.3f}", flush=True)


def scored(entrant: Entrant, of: Logits, rounds: int) -> tuple[list[float], float]:
    """The columns, means over networks, and the median of the seconds."""
    times: list[float] = []
    while len(times) < rounds and sum(times) < PATIENCE:
        start = time.perf_counter()
        recalibrated = entrant.method(of)
        times.append(time.perf_counter() - start)
    predictions = Predictions.from_logits(recalibrated, of.test_labels)
    return [float(METRICS[name].function(predictions).mean()) for name, *_ in COLUMNS], statistics.median(
        times
    )


def speed(rounds: int) -> None:
    """One call for 16 networks against 16 calls."""
    generator = torch.Generator().manual_seed(3)
    evidence = 2.5 * torch.randn(10_000, 10, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(evidence.softmax(-1), 1, generator=generator).squeeze(-1)
    confused = torch.eye(10).double() + 0.15 * torch.randn(10, 10, generator=generator, dtype=torch.float64)
    noise = torch.randn(16, 10_000, 10, generator=generator, dtype=torch.float64)
    logits = 1.4 * evidence @ confused + 0.7 * noise
    of = Logits("simulated", logits[:, :5000], labels[:5000], logits[:, 5000:], labels[5000:])
    for name in ("svs", "sms"):
        found: list[tuple[float, float]] = []
        losses: list[float] = []
        for _ in range(rounds):
            start = time.perf_counter()
            fitted = CALIBRATORS[name].fit(of.calibrate, of.calibrate_labels)
            own = time.perf_counter() - start
            start = time.perf_counter()
            theirs = theirs_of(name, of)
            found.append((own, time.perf_counter() - start))
        calibrated = fitted(of.test)
        for mine, peer in zip(calibrated, theirs, strict=True):
            losses.append(float(F.cross_entropy(mine, of.test_labels) / log_loss(peer, of, len(losses)) - 1))
        ratio = statistics.median(peer / mine for mine, peer in found)
        mine, peer = (statistics.median(column) for column in zip(*found, strict=True))
        print(
            f"{name}: {mine:.3f} s in one call, {peer:.3f} s in 16 of probmetrics'; median ratio {ratio:.1f};"
            f" log loss on fresh rows at most {100 * max(losses):+.4f} % above"
        )


def theirs_of(name: str, of: Logits) -> list[Any]:
    """probmetrics' calibrators, fitted one network after another."""
    from probmetrics.calibrators import get_calibrator

    fitted = [get_calibrator(name) for _ in of.calibrate]
    for calibrator, logits in zip(fitted, of.calibrate, strict=True):
        calibrator.fit(logits.softmax(-1).numpy(), of.calibrate_labels.numpy())
    return fitted


def log_loss(calibrator: Any, of: Logits, member: int) -> float:
    """probmetrics' log loss on *test*."""
    p = torch.from_numpy(calibrator.predict_proba(of.test[member].softmax(-1).numpy())).double()
    return float(F.nll_loss(p.log(), of.test_labels))


def main() -> None:
    """Print the tables."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--data-dir")
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--seeds", type=int, default=4)
    flags.add_argument("--tasks", nargs="*", default=[])
    flags.add_argument("--speed", action="store_true")
    options = flags.parse_args()
    warnings.simplefilter("ignore")
    packages = dict.fromkeys(entrant.package for entrant in ENTRANTS)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", *packages) if installed(name))
    print(
        f"{os.cpu_count()} CPU cores ({platform.machine()}), {torch.get_num_threads()} threads, load"
        f" {os.getloadavg()[0]:.1f} at the start; Python {platform.python_version()}, {versions};"
        f" {options.rounds} rounds, {options.seeds} seeds"
    )
    for package in packages:
        if not installed(package):
            print(f"{package} is not installed: left out")
    if options.speed:
        speed(options.rounds)
        return
    own = ["fashion_mnist/mlp"] if options.data_dir else []
    for name in dict.fromkeys(("digits/mlp", *own, *options.tasks)):
        for of in trained(name, options.data_dir, options.seeds):
            league(of, options.rounds)


if __name__ == "__main__":
    main()
