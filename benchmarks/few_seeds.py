"""What three paired seeds can show: power and false claims, by seeds × examples and by seeds alone.

    python -m benchmarks.few_seeds [--sweeps 400] [--seeds 3] [--random-state 0]

A simulated comparison has a true gain, and each seed one of its own around it (standard deviation 0.3 pp). A
share of the test examples has another verdict with ε than without; on half of their variance the seeds agree,
as they see the same examples. Ten classes and 95 % accuracy stand behind it, but only right or wrong counts.

Both methods claim a gain where their two-sided 95 % interval lies above 0: ours is that of the confirmation
(`tracking.decision.sequential.claim` at its one look), the other Student's t over the seeds' differences.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from scipy.stats import norm, ttest_1samp

from lscal.estimate import Resamples
from sweeps.protocol.confirm import BySeed
from tracking.decision.sequential import claim

SPREAD = 0.003
SHARED = 0.5
REPLICATES = 300


def differences(
    examples: int, seeds: int, disagreement: float, gain: float, random: np.random.Generator
) -> np.ndarray:
    """Right with ε less right without, (seed, example): -1, 0 or 1."""
    common = random.standard_normal(examples)
    own = random.standard_normal((seeds, examples))
    places = norm.cdf(SHARED**0.5 * common + (1 - SHARED) ** 0.5 * own)
    gains = gain + SPREAD * random.standard_normal((seeds, 1))
    worse, better = (disagreement - gains) / 2, (disagreement + gains) / 2
    return (places > 1 - better).astype(float) - (places < worse)


def both(values: np.ndarray, resamples: Resamples) -> tuple[bool, bool]:
    """Whether a gain is claimed: by seeds × examples, and by seeds alone."""
    rows = torch.from_numpy(values)
    count = resamples.weights.shape[1]
    blocks = torch.zeros(len(rows), count, dtype=rows.dtype).index_add_(1, resamples.block, rows)
    drawn = resamples.weights.double() @ blocks.T
    sizes = resamples.weights.double() @ torch.bincount(resamples.block, minlength=count).double()
    found = BySeed(rows.mean(1), drawn / sizes[:, None]).interval()
    seeds = len(rows)
    ours = claim({seeds: found}, seeds, 1).low > 0
    test = ttest_1samp(values.mean(1), 0.0)
    return ours, bool(test.pvalue < 0.05 and test.statistic > 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweeps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--random-state", type=int, default=0)
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    print(
        f"{options.seeds} paired seeds, {options.sweeps} comparisons each; share in which a gain is claimed\n"
    )
    print("| examples | disagreement | true gain | seeds × examples | seeds alone |\n|---|---|---|---|---|")
    for examples, disagreement in product((2000, 10_000), (0.05, 0.10)):
        resamples = Resamples.draw(examples, replicates=REPLICATES)
        for gain in (0.0, 0.01, 0.02):
            random = np.random.default_rng(options.random_state)
            found = [
                both(differences(examples, options.seeds, disagreement, gain, random), resamples)
                for _ in range(options.sweeps)
            ]
            ours, alone = (f"{100 * float(np.mean(column)):.1f} %" for column in zip(*found, strict=True))
            print(f"| {examples} | {disagreement:.0%} | {100 * gain:.0f} pp | {ours} | {alone} |", flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
