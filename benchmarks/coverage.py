"""How often lscal's 95 % intervals hold the truth, on simulated data sets whose truth is known.

    python -m benchmarks.coverage [--data-sets 1000] [--examples 1000 10000] [--spread 12] [--random-state 0]
    python -m benchmarks.coverage --one-bin [--data-sets 1000] [--examples 30 100 300 1000] [--random-state 0]

True class probabilities π are softmax(spread · z), z normal over 10 classes; labels are drawn from them. A
spread of 6, 12 or 40 gives models of 80, 90 or 97 % accuracy. Three models see π through noise of their own:

- `calibrated` knows π;
- `ε = 0` is overconfident: logits 1.25 (log π + 0.7 noise);
- `ε = 0.1` is smoothed, and so underconfident: 0.9 softmax(log π + 0.7 noise) + 0.01, its noise correlated
0.95 with that of ε = 0.

The truth is of 4 million examples, with π in place of drawn labels. `low` and `high` are how often the truth
lies below and above the interval, in %. At 95 % and 1000 data sets a coverage is itself known to ± 1.4 %.

`--one-bin` asks the same of `debiased_ece` alone where few examples decide, for every mixture of a confidence
and a gap of `CONFIDENCES` and `GAPS`: all examples have the same confidence, so that coverage is a sum over
the binomial distribution, without simulation, and the half-width can be compared with that of the exact
interval (Clopper and Pearson 1934); or a part of them lies in a second bin; or they are spread as above.
"""

import argparse
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

import numpy as np
import torch
from scipy.special import betaincinv
from scipy.stats import binom
from torch import Tensor

from lscal import BinnedStatistics, Estimate, Predictions, Resamples, differences, estimates
from lscal.debiased import debiased_error

CLASSES = 10
BINS = 15
TRUTH_EXAMPLES = 4_000_000
EXAMPLES_AT_ONCE = 200_000
DATA_SETS_AT_ONCE = 10
NAMES = ("accuracy", "nll", "brier", "confidence_gap", "debiased_ece", "aurc", "augrc")
CALIBRATED, FIRST, SECOND = "calibrated", "ε = 0.1", "ε = 0"
DIFFERENCE = f"{FIRST} less {SECOND}"
WANTED = 93, 97
LEVEL = 0.95
CONFIDENCES = 0.5, 0.7, 0.9, 0.95, 0.98, 0.995
GAPS = -0.1, -0.05, -0.02, -0.005, 0.0, 0.005, 0.02, 0.05, 0.1, 0.3
SECOND_BINS = (0.55, 0.1, 0.0), (0.55, 0.1, -0.1), (0.8, 0.5, 0.1)
"""Confidence, share of the examples and gap of a second bin."""
SPREADS = 6.0, 12.0, 40.0


def draw(examples: int, spread: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """log π (examples, CLASSES), float32, and the logits of each model."""

    def normal() -> Tensor:
        return torch.randn(examples, CLASSES, generator=generator)

    log_pi = (spread * normal()).log_softmax(-1)
    noise, own = normal(), normal()
    other = 0.95 * noise + math.sqrt(1 - 0.95**2) * own
    smoothed = 0.9 * (log_pi + 0.7 * other).softmax(-1) + 0.1 / CLASSES
    return log_pi, {CALIBRATED: log_pi, SECOND: 1.25 * (log_pi + 0.7 * noise), FIRST: smoothed.log()}


def true_values(examples: int, spread: float, generator: torch.Generator) -> dict[tuple[str, str], float]:
    """Each metric of each model, and the difference, by (name, model), from so many examples."""
    columns: dict[str, list[Tensor]] = {}
    for start in range(0, examples, EXAMPLES_AT_ONCE):
        log_pi, models = draw(min(EXAMPLES_AT_ONCE, examples - start), spread, generator)
        pi = log_pi.double().softmax(-1)
        for model, logits in models.items():
            log_p = logits.double().log_softmax(-1)
            p = log_p.exp()
            confidence, predicted = p.max(-1)
            right = pi.gather(-1, predicted.unsqueeze(-1)).squeeze(-1)
            nll = -(pi * log_p).sum(-1)
            brier = p.square().sum(-1) - 2 * (pi * p).sum(-1) + 1
            rank = log_p.amax(-1)
            columns.setdefault(model, []).append(torch.stack([confidence, right, nll, brier, rank]))
    truth = {
        (name, model): value
        for model, parts in columns.items()
        for name, value in of_population(torch.cat(parts, -1)).items()
    }
    return truth | {(name, DIFFERENCE): truth[name, FIRST] - truth[name, SECOND] for name in NAMES}


def of_population(columns: Tensor) -> dict[str, float]:
    """The metrics of so many examples that they are the population: confidence, P(right), expected NLL and
    Brier, and log-confidence.
    """
    confidence, right, nll, brier, rank = columns
    examples = len(confidence)
    gap = torch.bincount((confidence * BINS).long().clamp(max=BINS - 1), confidence - right, minlength=BINS)
    errors = (1 - right)[rank.argsort(descending=True)].cumsum(0)
    values = {
        "accuracy": right.mean(),
        "nll": nll.mean(),
        "brier": brier.mean(),
        "confidence_gap": (confidence - right).mean(),
        "debiased_ece": gap.abs().sum() / examples,
        "aurc": (errors / torch.arange(1, examples + 1)).mean(),
        "augrc": errors.mean() / examples,
    }
    return {name: float(value) for name, value in values.items()}


def data_sets(
    number: int, examples: int, spread: float, generator: torch.Generator
) -> dict[str, Predictions]:
    """Independent data sets as the members of one Predictions for each model.

    Members share their labels. The population treats all classes alike, so the classes of an example may be
    rotated until its label is the shared one; no metric here can tell.
    """
    labels = torch.arange(examples) % CLASSES
    log_pi, models = draw(number * examples, spread, generator)
    drawn = torch.multinomial(log_pi.exp(), 1, generator=generator)
    order = (torch.arange(CLASSES) + drawn - labels.repeat(number).unsqueeze(-1)) % CLASSES
    return {
        model: Predictions.from_logits(logits.gather(-1, order).reshape(number, examples, CLASSES), labels)
        for model, logits in models.items()
    }


def simulate(
    number: int, examples: int, names: Sequence[str], spread: float, random_state: int
) -> dict[tuple[str, str], Estimate]:
    """Estimates of all data sets by (name, model); paired differences under the name of both."""
    generator = torch.Generator().manual_seed(random_state + examples)
    parts: dict[tuple[str, str], list[Estimate]] = {}
    for start in range(0, number, DATA_SETS_AT_ONCE):
        models = data_sets(min(DATA_SETS_AT_ONCE, number - start), examples, spread, generator)
        resamples = Resamples.draw(examples, random_state=random_state + start)
        found = {
            model: estimates(predictions, names, resamples=resamples) for model, predictions in models.items()
        }
        found[DIFFERENCE] = differences(models[FIRST], models[SECOND], names, resamples=resamples)
        for model, by_name in found.items():
            for name, estimate in by_name.items():
                parts.setdefault((name, model), []).append(estimate)
    order = sorted(parts, key=lambda key: names.index(key[0]))
    return {key: joined(parts[key]) for key in order}


def joined(parts: list[Estimate]) -> Estimate:
    """The estimates of several calls as one."""

    def cat(of: Callable[[Estimate], Tensor]) -> Tensor:
        return torch.cat([of(part) for part in parts])

    return Estimate(
        cat(lambda part: part.value), cat(lambda part: part.low), cat(lambda part: part.high), parts[0].level
    )


def misses(estimate: Estimate, truth: float) -> tuple[float, float]:
    """How often the truth is below the interval, and above it, in %."""
    rounding = 1e-9  # a calibrated model's gaps are 0 but for the rounding of π
    below, above = estimate.low - rounding > truth, estimate.high + rounding < truth
    return 100 * float(below.double().mean()), 100 * float(above.double().mean())


def table(
    truth: Mapping[tuple[str, str], float], found: Mapping[int, Mapping[tuple[str, str], Estimate]]
) -> str:
    """Coverage as Markdown: one row per metric and model, a group of columns for each number of examples."""
    lines = [
        "| metric | of | truth |"
        + "".join(f" N = {n}: covers % | low / high % | mean half-width |" for n in found)
    ]
    lines.append("|---|---|---|" + "---|---|---|" * len(found))
    for name, model in next(iter(found.values())):
        cells = [name, model, f"{truth[name, model]:.4f}"]
        for by_key in found.values():
            estimate = by_key[name, model]
            low, high = misses(estimate, truth[name, model])
            cells += [
                f"{100 - low - high:.1f}",
                f"{low:.1f} / {high:.1f}",
                f"{float((estimate.high - estimate.low).mean() / 2):.4f}",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def one_bin(examples: int, confidence: float, accuracy: float) -> tuple[BinnedStatistics, Tensor]:
    """Everything that so many examples of one confidence can show, one member for each count of right ones,
    and how probable each is.
    """
    right = np.arange(examples + 1)
    probability = binom.pmf(right, examples, accuracy)
    right, probability = right[probability > 1e-9], probability[probability > 1e-9]
    return binned([confidence], np.full((len(right), 1), examples), right[:, None]), torch.from_numpy(
        probability / probability.sum()
    )


def two_bins(
    number: int, examples: int, parts: Sequence[tuple[float, float, float]], random: np.random.Generator
) -> BinnedStatistics:
    """Data sets whose examples have one of two confidences; `parts` are confidence, share and accuracy."""
    confidences, shares, accuracies = zip(*parts, strict=True)
    counts = random.multinomial(examples, shares, size=number)
    return binned(confidences, counts, random.binomial(counts, accuracies))


def binned(confidences: Sequence[float], counts: np.ndarray, right: np.ndarray) -> BinnedStatistics:
    """So many examples, and so many right ones, of each confidence, a bin of its own: arrays (data set,
    confidence).
    """
    found = np.zeros((3, len(counts), BINS))
    for place, confidence in enumerate(confidences):
        found[:, :, min(int(confidence * BINS), BINS - 1)] = (
            counts[:, place],
            counts[:, place] * confidence,
            right[:, place],
        )
    return BinnedStatistics(*torch.from_numpy(found))


def exact_half_widths(statistics: BinnedStatistics) -> Tensor:
    """Half the length of |confidence - accuracy| over the accuracies between Clopper's and Pearson's limits,
    where one bin has all examples.
    """
    count, confidence, right = (
        part.sum(-1).numpy() for part in (statistics.count, statistics.confidence, statistics.correct)
    )
    mean, tail = confidence / count, (1 - LEVEL) / 2
    low = np.where(right > 0, betaincinv(np.maximum(right, 1), count - right + 1, tail), 0)
    high = np.where(right < count, betaincinv(right + 1, np.maximum(count - right, 1), 1 - tail), 1)
    least = np.maximum(0, np.maximum(low - mean, mean - high))
    return torch.from_numpy(np.maximum(mean - low, high - mean) - least) / 2


def covering(statistics: BinnedStatistics, truth: float, probability: Tensor | None = None) -> float:
    """How often the interval of `debiased_ece` holds the truth, in %; all data sets count alike where their
    probability is not given.
    """
    low, high = debiased_error(statistics, LEVEL)
    held = ((low - 1e-9 <= truth) & (truth <= high + 1e-9)).double()
    return 100 * float(held.mean() if probability is None else (held * probability).sum())


def few_examples(
    number: int, examples: int, random_state: int
) -> list[tuple[str, list[float], float | None]]:
    """Coverages of `debiased_ece` in each setting of each kind; and, where there is one bin, the mean
    half-width as a share of the exact one.
    """
    random = np.random.default_rng([random_state, examples])
    alone, beside, ratios = [], [], []
    for confidence in CONFIDENCES:
        for gap in (gap for gap in GAPS if confidence - gap <= 1):
            statistics, probability = one_bin(examples, confidence, confidence - gap)
            alone.append(covering(statistics, abs(gap), probability))
            low, high = debiased_error(statistics, LEVEL)
            ratios.append(
                float(
                    ((high - low) / 2 * probability).sum()
                    / (exact_half_widths(statistics) * probability).sum()
                )
            )
            for other, share, off in SECOND_BINS:
                if int(other * BINS) != int(confidence * BINS):
                    parts = (confidence, 1 - share, confidence - gap), (other, share, other - off)
                    truth = (1 - share) * abs(gap) + share * abs(off)
                    beside.append(covering(two_bins(number, examples, parts, random), truth))
    spread = []
    for width in SPREADS:
        generator = torch.Generator().manual_seed(random_state + examples)
        known = true_values(TRUTH_EXAMPLES // 10, width, generator)
        for model, drawn in data_sets(number, examples, width, generator).items():
            spread.append(
                covering(BinnedStatistics.of(drawn.confidence, drawn.correct), known["debiased_ece", model])
            )
    return [
        ("one bin", alone, sum(ratios) / len(ratios)),
        ("two bins", beside, None),
        ("spread", spread, None),
    ]


def run_few_examples(data_sets: int, examples: Sequence[int], random_state: int) -> None:
    """Print the table of `--one-bin`."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    print(
        f"debiased_ece, {data_sets} data sets, random state {random_state}, torch {version('torch')},"
        f" {platform.machine()}\n"
    )
    print(
        "| N | examples in | settings | least % | mean % | settings below 93 % | half-width / exact"
        " |\n|---|---|---|---|---|---|---|"
    )
    for number in examples:
        for kind, covered, ratio in few_examples(data_sets, number, random_state):
            below = sum(value < WANTED[0] for value in covered)
            cells = [
                number,
                kind,
                len(covered),
                f"{min(covered):.1f}",
                f"{sum(covered) / len(covered):.1f}",
                below,
            ]
            print(
                "| " + " | ".join(map(str, [*cells, "" if ratio is None else f"{ratio:.2f}"])) + " |",
                flush=True,
            )
    print(f"\n{time.perf_counter() - started:.0f} s")


def run(data_sets: int, examples: list[int], spread: float, random_state: int) -> None:
    """Simulate and print the table."""
    torch.set_num_threads(1)  # the matrices are small: a second thread costs more than it does
    started = time.perf_counter()
    print(
        f"{data_sets} data sets, spread {spread:g}, random state {random_state}, torch {version('torch')},"
        f" {platform.machine()}\n"
    )
    truth = true_values(TRUTH_EXAMPLES, spread, torch.Generator().manual_seed(random_state))
    found = {number: simulate(data_sets, number, NAMES, spread, random_state) for number in examples}
    print(table(truth, found))
    covered = [
        100 - sum(misses(estimate, truth[key]))
        for by_key in found.values()
        for key, estimate in by_key.items()
    ]
    inside = sum(WANTED[0] <= value <= WANTED[1] for value in covered)
    print(
        f"\n{inside} of {len(covered)} cover {WANTED[0]} to {WANTED[1]} %; the least {min(covered):.1f}, the"
        f" most {max(covered):.1f}"
    )
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--data-sets", type=int, default=1000)
    flags.add_argument("--examples", type=int, nargs="+")
    flags.add_argument("--one-bin", action="store_true", help="debiased_ece alone, where few examples decide")
    flags.add_argument("--spread", type=float, default=12.0)
    flags.add_argument("--random-state", type=int, default=0)
    options = flags.parse_args()
    if options.one_bin:
        run_few_examples(options.data_sets, options.examples or [30, 100, 300, 1000], options.random_state)
    else:
        run(options.data_sets, options.examples or [1000, 10000], options.spread, options.random_state)
