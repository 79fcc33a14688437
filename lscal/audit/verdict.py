"""Verdict of an audit in sentences. The first one is the answer."""

from lscal.audit.audit import Audit, Comparison, Scored, told_from_zero
from lscal.audit.words import Figures, change, figures, number

UNTRAINED = 0.03
"""The misfit above which a network was far from trained, see `lscal.estimate_epsilon`."""
FEW = 100
"""Examples below which a bootstrap's intervals are too narrow."""
NEARLY_ALL, MOST, SOME = 0.9, 0.5, 0.1
"""Shares of the ECE above that of a calibrated model, from which on a temperature repairs nearly all, most or
some of it.
"""


def of_audit(audit: Audit) -> list[str]:
    """Sentences on one file."""
    said = [
        answer(audit.raw),
        few(audit),
        calibration(audit),
        ranking(audit),
        worst_class(audit),
        smoothing(audit),
    ]
    return [sentence for sentence in said if sentence]


def answer(scored: Scored) -> str:
    """Accuracy and mean confidence."""
    accuracy, gap = scored.estimates["accuracy"], scored.estimates["confidence_gap"]
    right = figures(accuracy, "accuracy")
    says = number(float(accuracy.value + gap.value), 1, 100)
    start = f"Right {right.value} of the time {right.interval}, says {says} %:"
    if not told_from_zero(gap):
        return (
            f"{start} neither over- nor underconfident on average (off by"
            f" {said(change(gap, 'confidence_gap'))})."
        )
    way = "over" if float(gap.value) > 0 else "under"
    return f"{start} {way}confident by {unsigned(change(gap, 'confidence_gap'))}."


def few(audit: Audit) -> str:
    """Limits of the intervals."""
    count, accuracy = audit.saved.predictions.examples, float(audit.raw.estimates["accuracy"].value)
    if accuracy in (0.0, 1.0):
        other = "error" if accuracy else "right answer"
        return (
            f"There is no {other} among {examples(audit)}, so resampling shows none: intervals other than"
            " that of the accuracy are too narrow."
        )
    if count < FEW:
        return f"On {examples(audit)} intervals are rough, and rather too narrow."
    return ""


def said(of: Figures) -> str:
    """Figures in a sentence."""
    return str(of).replace(" pp", " points")


def unsigned(of: Figures) -> str:
    """A difference that excludes 0, without its sign, which is in the sentence: smaller end first."""
    value, low, high = (text.strip("[]").lstrip("+−") for text in (of.value, *of.interval.split(", ")))
    return said(Figures(value, f"[{high}, {low}]" if of.value.startswith("−") else f"[{low}, {high}]"))


def calibration(audit: Audit) -> str:
    """The ECE beside that of a calibrated model, and after a temperature and a p-norm."""
    raw = audit.raw.estimates["ece"]
    before, after, normed = (
        figures(one.estimates["ece"], "ece", like=raw).value
        for one in (audit.raw, audit.scaled, audit.normalised)
    )
    floor, floor_after = (
        figures(one.estimates["calibrated_ece"], "ece", like=raw).value for one in (audit.raw, audit.scaled)
    )
    start = (
        f"Its calibration error (ECE) is {before}; a perfectly calibrated model would show {floor} on"
        f" {examples(audit)}."
    )
    if float(audit.raw.estimates["debiased_ece"].low) <= 0 and not told_from_zero(
        audit.raw.estimates["confidence_gap"]
    ):
        return f"{start} That is no more than chance explains: there is nothing to repair."
    excess = [
        float(one.estimates["ece"].value - one.estimates["calibrated_ece"].value)
        for one in (audit.raw, audit.scaled, audit.normalised)
    ]
    share, with_norm = (1 - left / excess[0] if excess[0] > 0 else 0.0 for left in excess[1:])
    norm = f" A p-norm repairs more: ECE {before} → {normed}." if with_norm > share + SOME else ""
    if not bool(audit.temperature.converged.all()):
        return f"{start} No temperature is best: {unbounded(audit)}.{norm}"
    how_much = (
        "nearly all"
        if share >= NEARLY_ALL
        else "most"
        if share >= MOST
        else "some"
        if share >= SOME
        else "nothing"
    )
    return (
        f"{start} A temperature of {temperatures(audit)} repairs {how_much} of it: ECE {before} → {after}, "
        f"where a calibrated model would show {floor_after}.{norm}"
    )


def unbounded(audit: Audit) -> str:
    """Why a temperature has no best value."""
    if audit.models > 1:
        return "for some of the models the loss falls with it, or with its inverse, without end"
    if float(audit.temperature.value) < 1:
        return "the lower it is, the lower the loss, as where every answer is right"
    return "the higher it is, the lower the loss: these logits are no better than guesses"


def examples(audit: Audit) -> str:
    """How many examples were scored."""
    count = audit.saved.predictions.examples
    return f"{count:,} example{'' if count == 1 else 's'}"


def temperatures(audit: Audit) -> str:
    """The temperature, or the range of several models'."""
    low, high = (number(float(end), 2) for end in audit.temperature.value.aminmax())
    return low if low == high else f"{low} to {high}"


def norms(audit: Audit) -> str:
    """The order p and the temperature of p-norm normalisation."""
    orders, temperatures = (
        [number(float(end), 2).removesuffix(".00") for end in values.aminmax()]
        for values in (audit.norm.p, audit.norm.temperature)
    )
    p, scale = (low if low == high else f"{low} to {high}" for low, high in (orders, temperatures))
    return f"p = {p} and a temperature of {scale}" + (
        " (p = 0 is no norm: none ranked errors better)" if orders[0] == "0" else ""
    )


def ranking(audit: Audit) -> str:
    """Coverage at 1 % errors, and whether p-norm normalisation would rank better."""
    coverage = figures(audit.raw.estimates["coverage_at_risk"], "coverage_at_risk")
    start = (
        f"Answering only where it is most confident, it errs at most 1 % of the time on {coverage} of the"
        " examples."
    )
    if float(audit.raw.estimates["coverage_at_risk"].value) == 0:
        start = "However few of its most confident answers are taken, more than 1 % of them are wrong."
    before, after = audit.raw.estimates["aurc"], audit.normalised.estimates["aurc"]
    difference = audit.normalised.less(audit.raw, "aurc")
    values = f"AURC {figures(before, 'aurc').value} → {figures(after, 'aurc', like=before).value}"
    if not bool(audit.norm.p.any()):
        return f"{start} No p-norm of the logits ranks its errors better than they are."
    if not told_from_zero(difference):
        return (
            f"{start} A p-norm of the logits would rank its errors no better than chance explains ({values})."
        )
    way = "better" if float(difference.value) < 0 else "worse"
    return (
        f"{start} A p-norm of the logits would rank its errors {way}: {values}, change"
        f" {change(difference, 'aurc')}."
    )


def worst_class(audit: Audit) -> str:
    """The class that is right least often."""
    name, accuracy, count = audit.worst_class
    return f"The class it gets right least often is “{name}”: {number(accuracy, 1, 100)} % of {count:,}."


def smoothing(audit: Audit) -> str:
    """The ε it was trained with, estimated from training predictions alone."""
    found, train = audit.epsilon, audit.trained
    if found is None or train is None:
        return (
            "The ε of its label smoothing is not estimated: that takes its predictions of the training"
            " examples, --train FILE."
        )
    value, low, high, misfit = (
        float(part.mean()) for part in (found.value, found.low, found.high, found.misfit)
    )
    ends = f"{number(value, 2)} [{number(low, 2)}, {number(high, 2)}]"
    rows = f"{train.predictions.examples:,} training predictions"
    caution = " They look far from trained, so take this with care." if misfit > UNTRAINED else ""
    if low <= 0 <= high:
        return f"No label smoothing is visible in its {rows}: ε = {ends}.{caution}"
    classes = audit.saved.predictions.classes
    wrong = number(value * (classes - 1) / classes, 2)
    return (
        f"Its {rows} are those of label smoothing with ε = {ends} (in the ε/K convention; the wrong classes"
        f" together receive {wrong}).{caution}"
    )


def of_comparison(comparison: Comparison) -> list[str]:
    """Sentences on two files."""
    said = [accuracies(comparison), losses(comparison), orders(comparison), crossing(comparison)]
    return [sentence for sentence in said if sentence]


def accuracies(comparison: Comparison) -> str:
    """Which is right more often."""
    first, second = comparison.first, comparison.second
    difference = comparison.difference("accuracy")
    if not told_from_zero(difference):
        return (
            f"{examples(first)} cannot decide which is right more often: {second.name} less {first.name} is"
            f" {said(change(difference, 'accuracy'))}."
        )
    more = "more" if float(difference.value) > 0 else "less"
    return (
        f"{second.name} is right {more} often than {first.name}, by"
        f" {unsigned(change(difference, 'accuracy'))}."
    )


def losses(comparison: Comparison) -> str:
    """Calibration of each, and the NLL after a temperature each, for errors that no temperature repairs."""
    gaps = [figures(one.raw.estimates["ece"], "ece").value for one in (comparison.first, comparison.second)]
    difference = comparison.scaled_difference("nll")
    names = [one.name for one in (comparison.first, comparison.second)]
    start = (
        f"As they are, the ECE of {names[0]} is {gaps[0]} and that of {names[1]} {gaps[1]}. After a"
        " temperature for each,"
    )
    if not told_from_zero(difference):
        return f"{start} their NLL differs by no more than chance explains ({change(difference, 'nll')})."
    way = "higher (worse)" if float(difference.value) > 0 else "lower (better)"
    return (
        f"{start} the NLL of {comparison.second.name} is {way} by {unsigned(change(difference, 'nll'))}: no"
        " temperature removes that."
    )


def orders(comparison: Comparison) -> str:
    """Which ranks its errors better, as they are and after p-norm."""
    difference = comparison.difference("aurc")
    second = comparison.second.name
    if not told_from_zero(difference):
        less = f"{second} less {comparison.first.name}: {change(difference, 'aurc')}"
        return f"In ranking right above wrong answers no difference from chance is visible (AURC, {less})."
    way = "worse: its AURC is higher" if float(difference.value) > 0 else "better: its AURC is lower"
    return f"{second} ranks right above wrong answers {way} by {unsigned(change(difference, 'aurc'))}."


def crossing(comparison: Comparison) -> str:
    """Where the risk-coverage curves meet."""
    first, second, share = comparison.first.name, comparison.second.name, comparison.break_even
    if share is not None and not comparison.told_apart:
        return (
            f"Their risk-coverage curves meet last at coverage {number(share, 1, 100)} %, which may be"
            " chance."
        )
    if share is not None:
        return (
            f"Break-even at coverage {number(share, 1, 100)} %: where more of the answers are used than that,"
            f" {second} errs no more often than {first}."
        )
    if not comparison.told_apart:
        return ""
    if float(comparison.risks[1][-1]) > float(comparison.risks[0][-1]):
        return f"There is no break-even coverage: also where all answers are used, {first} errs less often."
    return f"There is no break-even coverage: at none does {second} err more often than {first}."
