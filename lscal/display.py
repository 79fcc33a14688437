"""Display of metrics: title, unit, scale, decimals and direction of each, once for every table, page and
plot.

Light on purpose: it imports nothing, so that a table can be printed without torch.
"""

from dataclasses import dataclass, replace
from typing import Literal

Better = Literal["higher", "lower", "nearer 0"]
REPAIRS = {
    "_calibrated": (" after temperature", "+T"),
    "_recalibrated": (" after recalibration", "+R"),
    "_p_norm": (" after p-norm", "+p"),
}
"""Endings of the names of metrics after recalibration, with what title and abbreviation get."""


@dataclass(frozen=True)
class Display:
    """How a metric is shown.

    Attributes:
        title: as sentences and charts name it.
        unit, change_unit: of a value and of a difference, after `scale`; "" where there is none.
        scale: factor from the stored value to the shown one.
        decimals: of a shown value.
        better: its direction.
        abbreviation: in the head of a column.
        label: in a narrow table.
        sentence: what it measures.
    """

    title: str
    unit: str
    change_unit: str
    scale: float
    decimals: int
    better: Better
    sentence: str
    abbreviation: str = ""
    label: str = ""

    @property
    def heading(self) -> str:
        """Head of a column: abbreviation and unit, without nats."""
        return f"{self.abbreviation or self.title} {self.unit if self.scale != 1 else ''}".rstrip()

    @property
    def least_decimals(self) -> int:
        """Fewest decimals beside an interval, whose width may ask for more."""
        return min(self.decimals, 3) if self.scale == 1 else self.decimals - 1


def percent(title: str, better: Better, sentence: str, abbreviation: str = "", label: str = "") -> Display:
    """A share, shown in per cent; its differences in percentage points."""
    return Display(title, "%", "pp", 100, 2, better, sentence, abbreviation, label)


def plain(
    title: str, better: Better, sentence: str, unit: str = "", decimals: int = 3, **more: str
) -> Display:
    """A number shown as it is."""
    return Display(title, unit, unit, 1, decimals, better, sentence, **more)


def per_mille(title: str, sentence: str) -> Display:
    """An area under a risk-coverage curve, shown in per mille."""
    return Display(title, "‰", "‰", 1000, 2, "lower", sentence)


BINNED = "distance of confidence and accuracy over bins of confidence"
DISPLAY = {
    "bleu": Display("BLEU", "", "", 100, 2, "higher", "overlap of translations with the reference"),
    "accuracy": percent("accuracy", "higher", "share of examples classified rightly"),
    "top_k_accuracy": percent("top-5 accuracy", "higher", "share whose label is among the five most likely"),
    "worst_class_accuracy": percent(
        "accuracy of the worst class", "higher", "lowest accuracy of a class", label="worst class accuracy"
    ),
    "nll": plain("NLL", "lower", "negative log likelihood of the label", "nats"),
    "nll_refinement": plain("NLL refinement", "lower", "NLL left after perfect recalibration", "nats"),
    "nll_calibration": plain("NLL calibration", "nearer 0", "NLL that recalibration would save", "nats"),
    "brier": plain("Brier score", "lower", "squared distance of probabilities from the one-hot label"),
    "brier_refinement": plain("Brier refinement", "lower", "Brier score left after perfect recalibration"),
    "brier_calibration": plain("Brier calibration", "nearer 0", "Brier score that recalibration would save"),
    "spherical": plain("spherical", "higher", "spherical score"),
    "confidence_gap": replace(
        percent(
            "confidence − accuracy", "nearer 0", "mean confidence less accuracy", "gap", "confidence gap"
        ),
        unit="pp",
    ),
    "ece": percent("ECE", "lower", f"expected {BINNED}, 15 of equal width"),
    "calibrated_ece": percent("ECE if calibrated", "lower", "ECE that a calibrated classifier would show"),
    "debiased_ece": percent("debiased ECE", "lower", "ECE less its bias from few examples"),
    "equal_mass_ece": percent("equal mass ECE", "lower", f"expected {BINNED}, of equally many examples"),
    "classwise_ece": percent("classwise ECE", "lower", "ECE of each class's probability, mean over classes"),
    "mce": percent("MCE", "lower", f"largest {BINNED}"),
    "rmsce": percent("RMSCE", "lower", f"root mean square {BINNED}"),
    "debiased_rmsce": percent("debiased RMSCE", "lower", "RMSCE less its bias from few examples"),
    "overconfidence": percent("overconfidence", "lower", "ECE of bins that are too confident"),
    "underconfidence": percent("underconfidence", "lower", "ECE of bins that are not confident enough"),
    "smooth_ece": percent(
        "smooth ECE", "lower", "distance of confidence and accuracy, smoothed, without bins"
    ),
    "ks_error": percent("KS error", "lower", "largest cumulative distance of confidence and accuracy"),
    "spiegelhalter": plain("Spiegelhalter's Z", "nearer 0", "test statistic of calibration", decimals=1),
    "aurc": per_mille("AURC", "error rate over all coverages: area under the risk-coverage curve"),
    "e_aurc": per_mille("E-AURC", "AURC less that of a perfect ranking"),
    "augrc": per_mille("AUGRC", "area under the generalised risk-coverage curve"),
    "misclassification_auroc": plain(
        "AUROC right or wrong", "higher", "how well confidence finds the errors"
    ),
    "risk_at_coverage": percent("errors at 80 % coverage", "lower", "error rate of the 80 % most confident"),
    "coverage_at_risk": percent("coverage at 1 % errors", "higher", "share decided at an error rate of 1 %"),
    "fidelity": plain("fidelity", "higher", "inverse of AURC relative to a random ranking"),
    "agreement": percent("agreement", "higher", "share of annotators who agree with the prediction"),
    "soft_nll": plain(
        "NLL towards people's labels",
        *("lower", "cross entropy towards the labels of annotators", "nats", 4),
        abbreviation="NLL",
        label="soft NLL",
    ),
    "kl": plain("KL divergence", "lower", "divergence of predictions from annotators' labels", "nats"),
    "jensen_shannon": plain(
        "Jensen–Shannon divergence from people's labels",
        *("lower", "symmetric divergence from annotators' labels", "nats", 4),
        abbreviation="JS",
        label="Jensen-Shannon",
    ),
    "total_variation": percent("total variation", "lower", "half the L1 distance from annotators' labels"),
    "human_ece": percent(
        "ECE towards people's labels", "lower", f"{BINNED}", "ECE", "ECE towards annotators"
    ),
    "cost": plain("cost of an example", "lower", "expected cost of a decision at the plan's prices"),
}
"""Every metric that is shown, by name."""


def display(name: str) -> Display:
    """How a metric is shown, after a recalibration too (`ece_calibrated`, `aurc_p_norm`). Errors:
    KeyError.
    """
    for ending, (after, mark) in REPAIRS.items():
        if name.endswith(ending):
            raw = DISPLAY[name.removesuffix(ending)]
            abbreviation = f"{raw.abbreviation or raw.title}{mark}"
            return replace(raw, title=f"{raw.title}{after}", abbreviation=abbreviation, label="")
    return DISPLAY[name]


RECALIBRATORS = {
    "p_norm": "p-norm",
    "vector": "vector scaling",
    "svs": "structured vector scaling",
    "sms": "structured matrix scaling",
}


def recalibrator(name: str) -> str:
    """A calibrator as a sentence names it."""
    return RECALIBRATORS.get(name, name)
