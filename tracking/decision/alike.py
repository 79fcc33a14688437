"""Alike: an A/A check. Members at ε = 0 differ by their seeds alone, so two halves of them must not differ
more than by chance.
"""

import math

from tracking.records.outcome import Outcome

METRICS = ("test/nll", "test/brier")
"""Compared, as they are continuous: a few test examples would make equal accuracies likely."""
LEVEL = 0.001
"""How often a sound sweep may be called invalid, both metrics together."""
LEAST = 4
"""Seeds that are needed to tell."""


def unlike(control: Outcome) -> str:
    """Why the members at ε = 0 cannot have been trained alike; "" where nothing speaks against it.

    Student's two-sample t-test of the first half of the seeds against the second, by Bonferroni over the
    metrics. The halves are those of time: a later batch may have come from another worker, version or device.
    """
    from scipy.special import stdtr

    known = [metric for metric in METRICS if metric in control.metrics]
    half = len(control.seeds) // 2
    for metric in known if len(control.seeds) >= LEAST else ():
        first, second = control.metrics[metric][:half], control.metrics[metric][half:]
        freedom = len(first) + len(second) - 2
        means = [math.fsum(part) / len(part) for part in (first, second)]
        within = math.fsum(
            (value - mean) ** 2 for part, mean in zip((first, second), means, strict=True) for value in part
        )
        error = math.sqrt(within / freedom * (1 / len(first) + 1 / len(second)))
        apart = abs(means[0] - means[1])
        if not math.isfinite(apart) or apart <= 1e-12 * max(map(abs, means)):
            continue
        p = 2 * float(stdtr(freedom, -apart / error)) if error > 0 else 0.0
        if p < LEVEL / len(known):
            name = {"test/nll": "NLL", "test/brier": "Brier score"}[metric]
            return (
                f"at ε = 0 the first {len(first)} seeds have a mean {name} of {means[0]:.4g}, the others of"
                f" {means[1]:.4g} (p = {p:.1g}), and they should differ by chance alone: were all workers of"
                " the same version, device and precision?"
            )
    return ""
