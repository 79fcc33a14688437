"""Targets: metrics that a policy claims to be better than at ε = 0."""

from dataclasses import dataclass

from tracking.decision.sequential import Better
from tracking.decision.terms import Terms


@dataclass(frozen=True)
class Target:
    """A metric that a policy claims to be better than at ε = 0: its name, as a person says it, 1 where more
    is better, and its scale.
    """

    metric: str
    noun: str
    sign: Better
    scale: float
    unit: str
    relative: bool = False


ACCURACY = Target("accuracy", "accuracy", 1, 100, " pp")


BLEU = Target("bleu", "BLEU", 1, 100, "")
"""Of translations, in the place of the accuracy of single tokens."""


NLL = Target("nll_calibrated", "NLL after temperature", -1, 1, "")


RAW_NLL = Target("nll", "NLL without recalibration", -1, 1, "")


COST = Target("cost", "expected cost", -1, 1, "")


RANKING = Target("aurc_calibrated", "AURC after temperature", -1, 100, " %", relative=True)


REPAIRED_RANKING = Target("aurc_recalibrated", "AURC after recalibration", -1, 100, " %", relative=True)


TARGETS = (ACCURACY, BLEU, NLL, RAW_NLL, COST, RANKING, REPAIRED_RANKING)
"""What is tested at every look of the confirmation."""


def effect_on(target: Target, terms: Terms) -> float:
    """The smallest difference of interest in what is claimed, in its unit; 0 where the plan names none."""
    return terms.effect if target in (ACCURACY, BLEU) else 0.0
