"""lscal against the libraries one would use instead, interleaved: time, memory and import.

    python -m benchmarks.calibration [--rounds 7] [--rows ece temperature] [--device cuda]

Each round runs every contestant of a row once, after one round that does not count. A ratio is a contestant's
time to lscal's in the same round: its median, and from where to where. Targets are for the ratio of CPU
times, which a busy machine disturbs least; on a GPU for that of wall times. Where only the wall time reaches
one (lscal works with all threads, some peers with one), it says so. `≈` marks contestants that did a part of
the work, their time multiplied. `one pass` adds up the input: what reading it costs. Peers that are not
installed show `-`; `pip install netcal torchmetrics relplot probmetrics numba scikit-learn` brings all of
them.

A machine with other work to do makes torch's second thread wait: `OMP_NUM_THREADS=1` then says more.
"""

# ruff: noqa: ARG001, ARG002, D103  contestants are named after what they do, and take what a row has

import argparse
import importlib.util
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lscal import Predictions, Report, Resamples, Temperature, estimates, metrics

SEED = 3
MEMORY_MB = 256
IMPORT_SECONDS = 0.3
REPLICATES = 1000
Work = Callable[[Tensor, Tensor], object]
"""Takes the scores (..., N, K) and the labels (N,) of a row."""


@dataclass(frozen=True)
class Contestant:
    """Someone who does the work of a row, or the `part` of it that can be waited for; `target` is the ratio
    to reach.
    """

    package: str
    work: Work
    target: float | None = None
    part: float = 1.0
    on_gpu: bool = False


@dataclass(frozen=True)
class Row:
    """A piece of work: what the scores are, their shape, and who does it."""

    name: str
    title: str
    shape: tuple[int, ...]
    probabilities: bool
    ours: Work
    peers: list[Contestant]

    def inputs(self, device: str) -> tuple[Tensor, Tensor]:
        """float32 scores of an overconfident model and the labels, seeded."""
        generator = torch.Generator().manual_seed(SEED)
        *_, examples, classes = self.shape
        evidence = 2.5 * torch.randn(examples, classes, generator=generator)
        labels = torch.multinomial(evidence.softmax(-1), 1, generator=generator).squeeze(-1)
        scores = torch.empty(self.shape)
        for member in scores.view(-1, examples, classes):
            member.copy_(1.4 * evidence)
            if len(self.shape) > 2:
                member += torch.randn(examples, classes, generator=generator)
        if self.probabilities:
            scores = scores.softmax(-1)
        return scores.to(device), labels.to(device)


# ---- ECE
# --------------------------------------------------------------------------------------------------


def lscal_ece(probabilities: Tensor, labels: Tensor) -> object:
    return metrics.ece(Predictions.from_probabilities(probabilities, labels))


def lscal_ece_logits(logits: Tensor, labels: Tensor) -> object:
    return metrics.ece(Predictions.from_logits(logits, labels))


def netcal_ece(probabilities: Tensor, labels: Tensor) -> object:
    from netcal.metrics import ECE

    return ECE(15).measure(probabilities.numpy(), labels.numpy())


def netcal_ece_logits(logits: Tensor, labels: Tensor) -> object:
    return netcal_ece(logits.softmax(-1), labels)


def netcal_ece_members(probabilities: Tensor, labels: Tensor) -> object:
    return [netcal_ece(member, labels) for member in probabilities]


def torchmetrics_ece(scores: Tensor, labels: Tensor) -> object:
    """Of probabilities or of logits: it decides by looking at their range."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    return multiclass_calibration_error(scores, labels, num_classes=scores.shape[-1], n_bins=15)


def torchmetrics_ece_members(scores: Tensor, labels: Tensor) -> object:
    return [torchmetrics_ece(member, labels) for member in scores]


def relplot_ece(scores: Tensor, labels: Tensor, probabilities: bool = True) -> object:
    import relplot

    return relplot.metrics.binnedECE(
        *relplot.multiclass_logits_to_confidences(scores.numpy(), labels.numpy(), probs=probabilities),
        nbins=15,
    )


def relplot_ece_logits(logits: Tensor, labels: Tensor) -> object:
    return relplot_ece(logits, labels, probabilities=False)


def probmetrics_ece(probabilities: Tensor, labels: Tensor) -> object:
    from probmetrics.metrics import Metrics

    return Metrics.from_names(["ece-15"]).compute_all_from_labels_probs(labels, probabilities)


def probmetrics_ece_logits(logits: Tensor, labels: Tensor) -> object:
    from probmetrics.metrics import Metrics

    return Metrics.from_names(["ece-15"]).compute_all_from_labels_logits(labels, logits)


# ---- classwise ECE, smooth ECE, proper scores
# --------------------------------------------------------------------------


def lscal_classwise(probabilities: Tensor, labels: Tensor) -> object:
    return metrics.classwise_ece(Predictions.from_probabilities(probabilities, labels))


def netcal_classwise(probabilities: Tensor, labels: Tensor) -> object:
    from netcal.metrics import ECE

    columns = zip(probabilities.numpy().T, range(probabilities.shape[-1]), strict=True)
    return np.mean([ECE(15).measure(column, (labels == k).long().numpy()) for column, k in columns])


def torchmetrics_classwise(probabilities: Tensor, labels: Tensor) -> object:
    from torchmetrics.functional.classification import binary_calibration_error

    columns = [
        binary_calibration_error(probabilities[:, k], (labels == k).long(), n_bins=15)
        for k in range(probabilities.shape[-1])
    ]
    return torch.stack(columns).mean()


def lscal_smooth(probabilities: Tensor, labels: Tensor) -> object:
    return metrics.smooth_ece(Predictions.from_probabilities(probabilities, labels))


def relplot_smooth(probabilities: Tensor, labels: Tensor) -> object:
    import relplot

    return relplot.smECE(
        *relplot.multiclass_logits_to_confidences(probabilities.numpy(), labels.numpy(), probs=True)
    )


def lscal_scores(logits: Tensor, labels: Tensor) -> object:
    predictions = Predictions.from_logits(logits, labels)
    return metrics.accuracy(predictions), metrics.nll(predictions), metrics.brier(predictions)


def sklearn_scores(logits: Tensor, labels: Tensor) -> object:
    from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

    probabilities, classes = logits.double().softmax(-1).numpy(), range(logits.shape[-1])
    accuracy = accuracy_score(labels.numpy(), probabilities.argmax(-1))
    return (
        accuracy,
        log_loss(labels.numpy(), probabilities, labels=classes),
        brier_score_loss(labels.numpy(), probabilities, labels=classes),
    )


# ---- temperature
# --------------------------------------------------------------------------------------------------


def lscal_temperature(logits: Tensor, labels: Tensor) -> object:
    return Temperature.fit(logits, labels)


def netcal_temperature(logits: Tensor, labels: Tensor) -> object:
    from netcal.scaling import TemperatureScaling

    scaling = TemperatureScaling()
    scaling.fit(logits.double().softmax(-1).numpy(), labels.numpy())  # float64: it does nothing to float32
    return scaling.temperature


def sklearn_temperature(logits: Tensor, labels: Tensor) -> object:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    class Logits(ClassifierMixin, BaseEstimator):
        """A classifier whose scores are its inputs."""

        classes_ = np.arange(logits.shape[-1])

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def fit(self, x: Any, y: Any) -> "Logits":
            return self

        def decision_function(self, x: Any) -> Any:
            return x

        predict = decision_function

    return CalibratedClassifierCV(FrozenEstimator(Logits()), method="temperature", cv=2, ensemble=False).fit(
        logits.numpy(), labels.numpy()
    )


def probmetrics_temperature(logits: Tensor, labels: Tensor) -> object:
    from probmetrics.calibrators import get_calibrator
    from probmetrics.distributions import CategoricalLogits

    return get_calibrator("temp-scaling").fit_torch(CategoricalLogits(logits), labels)


# ---- intervals
# --------------------------------------------------------------------------------------------------


def lscal_bootstrap(probabilities: Tensor, labels: Tensor) -> object:
    return estimates(Predictions.from_probabilities(probabilities, labels), ["ece"])["ece"]


def resampled(ece: Work, replicates: int) -> Work:
    """`ece` on as many resamples of the examples."""

    def work(probabilities: Tensor, labels: Tensor) -> object:
        generator = torch.Generator(labels.device).manual_seed(SEED)
        values = []
        for _ in range(replicates):
            drawn = torch.randint(len(labels), (len(labels),), generator=generator, device=labels.device)
            values.append(ece(probabilities[drawn], labels[drawn]))
        return values

    return work


def lscal_report(logits: Tensor, labels: Tensor) -> object:
    """Every metric with its interval, as it is and after a temperature."""
    return Report.of(
        logits,
        labels,
        Temperature.fit(logits, labels),
        resamples=Resamples.draw(len(labels), replicates=REPLICATES),
    )


def usual_metrics(probabilities: Any, labels: Any) -> list[float]:
    """The metrics of a Report as far as netcal, scikit-learn and short NumPy go.

    Left out, in their favour: smooth ECE, debiased errors, calibration and refinement parts, fidelity.
    """
    from netcal.metrics import ECE, MCE
    from sklearn.metrics import (
        accuracy_score,
        brier_score_loss,
        log_loss,
        recall_score,
        roc_auc_score,
        top_k_accuracy_score,
    )

    examples, classes = probabilities.shape
    confidence, predicted = probabilities.max(-1), probabilities.argmax(-1)
    right = predicted == labels
    order = np.argsort(-confidence)
    wrong_so_far = np.cumsum(~right[order])
    risk = wrong_so_far / np.arange(1, examples + 1)
    gaps = np.cumsum((confidence - right)[order[::-1]]) / examples
    slope = 1 - 2 * confidence
    return [
        accuracy_score(labels, predicted),
        top_k_accuracy_score(labels, probabilities, k=5, labels=range(classes)),
        recall_score(labels, predicted, average=None).min(),
        log_loss(labels, probabilities, labels=range(classes)),
        brier_score_loss(labels, probabilities, labels=range(classes)),
        np.mean(probabilities[np.arange(examples), labels] / np.linalg.norm(probabilities, axis=-1)),
        np.mean(confidence - right),
        ECE(15).measure(probabilities, labels),
        ECE(15, equal_intervals=False).measure(probabilities, labels),
        np.mean([ECE(15).measure(probabilities[:, k], (labels == k).astype(int)) for k in range(classes)]),
        MCE(15).measure(probabilities, labels),
        np.abs(gaps).max(),
        np.sum((right - confidence) * slope) / np.sqrt(np.sum(slope**2 * confidence * (1 - confidence))),
        risk.mean(),
        wrong_so_far.mean() / examples,
        roc_auc_score(right, confidence),
        risk[int(0.8 * examples) - 1],
        np.flatnonzero(risk <= 0.01).max(initial=0) / examples,
    ]


def usual_report(logits: Tensor, labels: Tensor) -> object:
    """One resample of one member."""
    drawn = np.random.default_rng(SEED).integers(len(labels), size=len(labels))
    return usual_metrics(logits[0].double().softmax(-1).numpy()[drawn], labels.numpy()[drawn])


def one_pass(scores: Tensor, labels: Tensor) -> object:
    return scores.sum()


# ---- the table
# --------------------------------------------------------------------------------------------------

PROBABILITIES = [
    Contestant("relplot", relplot_ece),
    Contestant("probmetrics", probmetrics_ece),
    Contestant("one pass", one_pass, on_gpu=True),
]
LOGITS = [
    Contestant("netcal", netcal_ece_logits),
    Contestant("torchmetrics", torchmetrics_ece, on_gpu=True),
    Contestant("relplot", relplot_ece_logits),
    Contestant("probmetrics", probmetrics_ece_logits),
    Contestant("one pass", one_pass, on_gpu=True),
]

ROWS = [
    Row(
        "ece",
        "ECE of probabilities",
        (1_000_000, 10),
        True,
        lscal_ece,
        [
            Contestant("netcal", netcal_ece, 10),
            Contestant("torchmetrics", torchmetrics_ece, 4, on_gpu=True),
            *PROBABILITIES,
        ],
    ),
    Row(
        "ece-wide",
        "ECE of probabilities",
        (100_000, 1000),
        True,
        lscal_ece,
        [
            Contestant("netcal", netcal_ece, 4),
            Contestant("torchmetrics", torchmetrics_ece, on_gpu=True),
            *PROBABILITIES,
        ],
    ),
    Row("ece-logits", "ECE of logits", (1_000_000, 10), False, lscal_ece_logits, LOGITS),
    Row("ece-logits-wide", "ECE of logits", (100_000, 1000), False, lscal_ece_logits, LOGITS),
    Row(
        "ece-members",
        "ECE of 32 members",
        (32, 10_000, 10),
        True,
        lscal_ece,
        [
            Contestant("netcal", netcal_ece_members),
            Contestant("torchmetrics", torchmetrics_ece_members, on_gpu=True),
            Contestant("one pass", one_pass, on_gpu=True),
        ],
    ),
    Row(
        "classwise",
        "classwise ECE",
        (100_000, 100),
        True,
        lscal_classwise,
        [
            Contestant("netcal", netcal_classwise, 40),
            Contestant("torchmetrics", torchmetrics_classwise, on_gpu=True),
            Contestant("one pass", one_pass, on_gpu=True),
        ],
    ),
    Row(
        "smooth",
        "smooth ECE",
        (100_000, 10),
        True,
        lscal_smooth,
        [Contestant("relplot", relplot_smooth), Contestant("one pass", one_pass, on_gpu=True)],
    ),
    Row(
        "scores",
        "accuracy, NLL and Brier of logits",
        (1_000_000, 10),
        False,
        lscal_scores,
        [Contestant("scikit-learn", sklearn_scores), Contestant("one pass", one_pass, on_gpu=True)],
    ),
    Row(
        "temperature",
        "temperature fit",
        (100_000, 100),
        False,
        lscal_temperature,
        [
            Contestant("netcal", netcal_temperature, 35),
            Contestant("scikit-learn", sklearn_temperature, 15),
            Contestant("probmetrics", probmetrics_temperature),
            Contestant("one pass", one_pass, on_gpu=True),
        ],
    ),
    Row(
        "bootstrap",
        f"{REPLICATES} bootstrap replicates of ECE",
        (100_000, 10),
        True,
        lscal_bootstrap,
        [
            Contestant("netcal", resampled(netcal_ece, 5), 130, part=5 / REPLICATES),
            Contestant("torchmetrics", resampled(torchmetrics_ece, 5), part=5 / REPLICATES, on_gpu=True),
            Contestant("one pass", one_pass, on_gpu=True),
        ],
    ),
    Row(
        "report",
        f"Report with intervals from {REPLICATES} replicates, raw and calibrated",
        (64, 10_000, 10),
        False,
        lscal_report,
        # beside the values themselves
        [
            Contestant("netcal", usual_report, 50, part=1 / (64 * 2 * (REPLICATES + 1))),
            Contestant("one pass", one_pass, on_gpu=True),
        ],
    ),
]

MODULES = {"scikit-learn": ["sklearn"], "probmetrics": ["probmetrics", "numba"], "one pass": []}
"""What a contestant imports, where that is not its name alone."""


def installed(package: str) -> bool:
    """Whether a contestant can take part. Nothing is imported to find out."""
    return all(importlib.util.find_spec(module) for module in MODULES.get(package, [package]))


@dataclass(frozen=True)
class Seconds:
    """Time of one run."""

    cpu: float
    wall: float


def timed(work: Work, scores: Tensor, labels: Tensor) -> Seconds:
    """One run, to the end of what it started on the device."""
    cpu, wall = time.process_time(), time.perf_counter()
    work(scores, labels)
    if scores.is_cuda:
        torch.cuda.synchronize()
    return Seconds(time.process_time() - cpu, time.perf_counter() - wall)


def compare(row: Row, rounds: int, device: str) -> None:
    """Run a row's contestants in turn and print their times and ratios."""
    print(f"\n{row.title}, {' × '.join(f'{size:,}' for size in row.shape)}   [--rows {row.name}]")
    print(
        f"  {'':14}{'CPU ms':>14}{'wall ms':>14}{'CPU ratio':>11}{'from – to':>22}"
        f"{'wall ratio':>12}{'target':>8}"
        "  reached"
    )
    scores, labels = row.inputs(device)
    peers = [peer for peer in row.peers if peer.on_gpu or not scores.is_cuda]
    field = [peer for peer in peers if installed(peer.package)]
    for work in (row.ours, *(peer.work for peer in field)):
        timed(work, scores, labels)
    ours: list[Seconds] = []
    theirs: dict[str, list[Seconds]] = {peer.package: [] for peer in field}
    for _ in range(rounds):
        ours.append(timed(row.ours, scores, labels))
        for peer in field:
            seconds = timed(peer.work, scores, labels)
            theirs[peer.package].append(Seconds(seconds.cpu / peer.part, seconds.wall / peer.part))
    print(f"  {'lscal':14}{medians(ours)}")
    for peer in peers:
        show(peer, theirs.get(peer.package), ours, scores.is_cuda)
    extra = peak_on_gpu(row, scores, labels) if scores.is_cuda else peak_in_child(row)
    print(
        f"  memory of lscal over the input {extra:.0f} MB, target {MEMORY_MB}:"
        f" {'yes' if extra <= MEMORY_MB else 'no'}",
        flush=True,
    )


def show(peer: Contestant, runs: list[Seconds] | None, ours: list[Seconds], by_wall: bool) -> None:
    """A peer's line of the table."""
    if runs is None:
        print(f"  {peer.package:14}{'-':>14}")
        return
    cpu, wall = (
        [getattr(a, clock) / getattr(b, clock) for a, b in zip(runs, ours, strict=True)]
        for clock in ("cpu", "wall")
    )
    middle = statistics.median(cpu), statistics.median(wall)
    approximately = "≈" if peer.part < 1 else ""
    verdict = ""
    if peer.target is not None:
        reached = (
            "yes" if middle[by_wall] >= peer.target else "in wall time" if middle[1] >= peer.target else "no"
        )
        verdict = f"{peer.target:8g}  {reached}"
    span = f"{min(cpu):.3g} – {max(cpu):.3g}"
    ratios = f"{approximately + f'{middle[0]:.3g}':>11}{span:>22}{approximately + f'{middle[1]:.3g}':>12}"
    print(f"  {peer.package:14}{medians(runs)}{ratios}{verdict}")


def medians(runs: list[Seconds]) -> str:
    """CPU and wall milliseconds."""
    return "".join(
        f"{1000 * statistics.median(getattr(run, clock) for run in runs):14,.1f}" for clock in ("cpu", "wall")
    )


# ---- memory and import
# -------------------------------------------------------------------------------------------------


def peak_on_gpu(row: Row, scores: Tensor, labels: Tensor) -> float:
    """Most memory allocated on the device beyond the input, MB."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    row.ours(scores, labels)
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def peak_in_child(row: Row) -> float:
    """Most resident memory beyond that of a fresh process that holds the input, MB."""
    command = [sys.executable, "-m", "benchmarks.calibration", "--peak", row.name]
    return float(
        subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]
        ).stdout
    )


def peak(row: Row) -> float:
    """What `peak_in_child` reports, measured in this process (Linux)."""
    scores, labels = row.inputs("cpu")
    row.ours(
        scores[..., :1000, :].clone(), labels[:1000].clone()
    )  # what is imported and allocated once is no part of the work
    status, refs = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    refs.write_text("5")  # the peak starts again from here
    before = re.search(r"VmRSS:\s+(\d+)", status.read_text())
    row.ours(scores, labels)
    after = re.search(r"VmHWM:\s+(\d+)", status.read_text())
    assert before is not None
    assert after is not None
    return (int(after[1]) - int(before[1])) * 1024 / 1e6


def imports(rounds: int) -> None:
    """CPU and wall time of importing torch, lscal, and all that does not need netcal or matplotlib."""
    statements = {
        "torch": "import torch",
        "lscal": "import lscal",
        "lscal, used": "from lscal import Predictions, Report, Resamples, Temperature, estimates, metrics",
    }
    times: dict[str, list[Seconds]] = {name: [] for name in statements}
    for _ in range(rounds):
        for name, statement in statements.items():
            before, wall = os.times(), time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True, cwd=Path(__file__).parents[1])
            after = os.times()
            cpu = after.children_user + after.children_system - before.children_user - before.children_system
            times[name].append(Seconds(cpu, time.perf_counter() - wall))
    print("\nimport, of a whole process   [--rows import]")
    print(f"  {'':14}{'CPU ms':>14}{'wall ms':>14}{'CPU s over torch':>18}{'target':>8}  reached")
    for name, runs in times.items():
        over = statistics.median(a.cpu - b.cpu for a, b in zip(runs, times["torch"], strict=True))
        verdict = (
            ""
            if name == "torch"
            else f"{over:18.2f}{IMPORT_SECONDS:8g}  {'yes' if over <= IMPORT_SECONDS else 'no'}"
        )
        print(f"  {name:14}{medians(runs)}{verdict}")


def header(rounds: int, device: str) -> None:
    """Where this was measured."""
    packages = ["torch", "numpy", *dict.fromkeys(peer.package for row in ROWS for peer in row.peers)]
    versions = ", ".join(
        f"{name} {version(name)}" for name in packages if name != "one pass" and installed(name)
    )
    threads = f"{torch.get_num_threads()} threads of torch"
    machine = (
        torch.cuda.get_device_name()
        if device.startswith("cuda")
        else f"{platform.processor() or platform.machine()}"
    )
    print(f"lscal's calibration metrics and their peers, {rounds} rounds, seed {SEED}")
    load = f"load {os.getloadavg()[0]:.1f} at the start"
    print(
        f"{machine}, {os.cpu_count()} CPU cores, {threads}, {load}, Python {platform.python_version()},"
        f" {versions}"
    )


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rounds", type=int, default=7)
    flags.add_argument(
        "--rows", nargs="+", choices=[*(row.name for row in ROWS), "import"], help="default: all of them"
    )
    flags.add_argument("--device", default="cpu", help="cpu or cuda")
    flags.add_argument("--peak", help=argparse.SUPPRESS)
    options = flags.parse_args()
    warnings.simplefilter("ignore")
    if options.peak:
        print(peak(next(row for row in ROWS if row.name == options.peak)))
        sys.exit()
    header(options.rounds, options.device)
    for chosen in ROWS:
        if options.rows is None or chosen.name in options.rows:
            compare(chosen, options.rounds, options.device)
    if (options.rows is None or "import" in options.rows) and options.device == "cpu":
        imports(options.rounds)
