"""The page of the Fashion-MNIST example, in Markdown: every number and every verdict in it comes from the
findings.
"""

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from examples.findings import ABOUT, FALLEN, SMOOTHED, SURE, TRUSTED, Contrast, Findings, Followed
from lscal import Estimate
from lscal.audit.audit import told_from_zero

ROWS = (
    ("accuracy, %", "accuracy", 100, 2),
    ("NLL", "nll", 1, 4),
    ("NLL after temperature", "nll_calibrated", 1, 4),
    ("confidence less accuracy, points", "confidence_gap", 100, 2),
    ("confidence less accuracy after temperature, points", "confidence_gap_calibrated", 100, 2),
    ("ECE, %", "ece", 100, 2),
    ("ECE after temperature, %", "ece_calibrated", 100, 2),
    ("AURC, ‰", "aurc", 1000, 2),
    ("AURC after temperature, ‰", "aurc_calibrated", 1000, 2),
    ("AURC after p-norm, ‰", "aurc_p_norm", 1000, 2),
)
"""What the table shows: in words, which contrast, times what, and with how many decimals."""


@dataclass(frozen=True)
class Setting:
    """How the numbers came about.

    Attributes:
        command: which writes the same page again.
        task: its name.
        recipe: of the training, in words.
        examples: of *train*, *calibrate* and *test*.
        seeds: how many.
        seconds: wall time of the training.
        processor_seconds: processor time of the whole command.
        machine: what it ran on, and with which versions.
        date: when.
    """

    command: str
    task: str
    recipe: str
    examples: tuple[int, int, int]
    seeds: int
    seconds: float
    processor_seconds: float
    machine: str
    date: str


def markdown(findings: Findings, setting: Setting) -> str:
    """The page. Pictures are those of `pictures.draw_all`, in images/."""
    sections = (question, answer, numbers, reliability, images, ranking, repair, decision, next_steps, method)
    lines = (line for section in sections for line in (*section(findings, setting), ""))
    return "\n".join(wrapped(line) for line in lines)


def wrapped(line: str) -> str:
    """A paragraph in lines of 110; tables, headings, code and pictures as they are."""
    if line.startswith(("|", "#", "!", "`", "    ")):
        return line
    hang = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, 110, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False)


def question(findings: Findings, setting: Setting) -> Iterator[str]:
    """What was asked, and the one command."""
    classes = findings.networks.raw.classes
    yield "# Fashion-MNIST with and without label smoothing"
    yield ""
    yield "<!-- written by examples/fashion_mnist.py: do not edit -->"
    yield ""
    yield (
        "Two networks start from the same weights and see the same batches; one is trained with hard labels,"
    )
    yield (
        f"the other with label smoothing of ε = {SMOOTHED:g} ({wrong_classes(SMOOTHED, classes):g} where ε"
        " counts the wrong classes only)."
    )
    yield (
        "What happens to accuracy, to how far confidence can be relied on, and to the confidence of single"
        " images:"
    )
    yield f"at which ε does a {SURE:g} become {FALLEN:g}?"
    yield ""
    yield "```sh"
    yield setting.command
    yield "```"
    yield ""
    yield (
        f"It trains, measures and draws everything below in about {minutes(setting.processor_seconds)} of"
        " processor time, and writes this page."
    )
    yield (
        "DIR is where the four files of Fashion-MNIST lie, in a folder fashion-mnist; without them the"
        " command says where to get them."
    )


def answer(findings: Findings, _: Setting) -> Iterator[str]:
    """Three sentences."""
    accuracy, ece, aurc = (
        findings.contrasts[name] for name in ("accuracy", "ece_calibrated", "aurc_calibrated")
    )
    fall, raw = findings.fall, findings.contrasts["ece"]
    plain, smoothed = list(findings.risks.values())[:2]
    order = told(
        aurc,
        "but right and wrong answers are told apart less well",
        "and right and wrong answers are told apart better",
        "and no change is seen in how well right and wrong answers are told apart",
    )
    yield "## The answer"
    yield ""
    yield (
        f"1. **Accuracy** goes from {percent(accuracy.plain)} to {percent(accuracy.smoothed)} with ε ="
        f" {SMOOTHED:g}: {points(accuracy.difference)} points,"
        f" {told(accuracy, 'a gain', 'a loss', 'which cannot be told from no change')}."
    )
    yield (
        f"2. **A {SURE:g} becomes {FALLEN:g} at {crossed(fall.about.crossing)}**, the median of the test"
        f" images which a network without smoothing sees with {band()}; all with {SURE:g} or more (median"
        f" {fall.sure.median(0.0):.6f}) have it at {crossed(fall.sure.crossing)}, and"
        f" {fall.sure.median(SMOOTHED):.2f} at ε = {SMOOTHED:g}."
    )
    yield (
        f"3. **Confidence** is then {gap(findings.contrasts['confidence_gap'].smoothed)} accuracy; a"
        f" temperature takes the ECE from {percent(raw.smoothed)} to {percent(ece.smoothed)} (at ε = 0 from"
        f" {percent(raw.plain)} to {percent(ece.plain)}), {order} (of the half of the images with the highest"
        f" confidence, {half(plain)} are wrong at ε = 0 and {half(smoothed)} at ε = {SMOOTHED:g})."
    )


def numbers(findings: Findings, setting: Setting) -> Iterator[str]:
    """The table."""
    yield "## The numbers"
    yield ""
    yield f"Mean of {setting.seeds} pairs of networks (seeds) on the {setting.examples[2]:,} test images."
    yield (
        "Differences are paired, with 95 % intervals over seeds and images; **bold** where the interval"
        " leaves out 0."
    )
    yield ""
    yield f"| | ε = 0 | ε = {SMOOTHED:g} | difference |"
    yield "|---|---:|---:|---:|"
    for words, name, scale, digits in ROWS:
        yield row(words, findings.contrasts[name], scale, digits)
    yield ""
    yield (
        "NLL, ECE and AURC are better when lower. AURC is the error rate among the most confident images,"
        " averaged over all shares of"
    )
    yield "them: it asks whether errors are among the least confident."


def reliability(findings: Findings, _: Setting) -> Iterator[str]:
    """Reliability diagrams."""
    plain, smoothed = (
        float(findings.temperature[findings.networks.epsilons.index(epsilon)]) for epsilon in (0.0, SMOOTHED)
    )
    gaps = findings.contrasts["confidence_gap"]
    yield "## Can confidence be taken at its word?"
    yield ""
    yield (
        f"Without smoothing confidence is {gap(gaps.plain)} accuracy, with ε = {SMOOTHED:g} it is"
        f" {gap(gaps.smoothed)} accuracy."
    )
    yield ""
    yield "![Reliability diagrams of ε = 0 and of the smoothed network, as they are](images/reliability.png)"
    yield ""
    yield "After a temperature, fitted on other images, one number per network:"
    yield (
        f"{plain:.2f} at ε = 0 ({direction(plain)}), {smoothed:.2f} at ε = {SMOOTHED:g}"
        f" ({direction(smoothed)})."
    )
    yield ""
    yield "![The same after temperature scaling](images/reliability_calibrated.png)"


def images(findings: Findings, _: Setting) -> Iterator[str]:
    """The fall of confidence."""
    fall = findings.fall
    yield f"## When does a {SURE:g} become {FALLEN:g}?"
    yield ""
    yield (
        "The images of which a network without smoothing is sure are followed, as the network of the same"
        " seed is trained with more and more."
    )
    yield (
        f"Those with {SURE:g} or more ({by_number(fall.sure.images)} images, by seed) have a median of"
        f" {FALLEN:g} at {each(fall.sure)}."
    )
    yield (
        f"At ε = 0 it is {fall.sure.median(0.0):.6f}. Those with {band()} ({by_number(fall.about.images)})"
        f" have {FALLEN:g} at {each(fall.about)}."
    )
    yield "Crossings are on straight lines between the values of ε tried."
    yield (
        f"The target of the training gives 1 - ε(K-1)/K to the right class, which is {FALLEN:g} at ε ="
        f" {fall.target_crossing:.3f}:"
    )
    yield (
        "a network which fits its targets says about that of an image it knows well, however well it"
        " knows it."
    )
    yield ""
    yield "![Median confidence against ε, beside the smoothed target](images/fall.png)"
    yield ""
    yield (
        f"| ε | ε, wrong classes | target | median of {SURE:g} or more | 9 of 10 of them | median after"
        f" temperature | median of {band()} |"
    )
    yield "|---:|---:|---:|---:|---:|---:|---:|"
    for place, epsilon in enumerate(findings.networks.epsilons):
        yield (
            f"| {epsilon:g} | {wrong_classes(epsilon, findings.networks.raw.classes):.3g} |"
            f" {fall.target[place]:.3f} | {fall.sure.median(epsilon):.3f} |"
            f" {fall.low[place]:.3f}–{fall.high[place]:.3f} | {fall.calibrated.median(epsilon):.3f} |"
            f" {fall.about.median(epsilon):.3f} |"
        )
    yield ""
    yield "Single images, by the networks of the first seed:"
    yield ""
    yield "![An image of each class with its confidence against ε](images/sure.png)"
    yield ""
    yield f"Confidence does not fall evenly. These lose most from ε = 0 to ε = {SMOOTHED:g}:"
    yield ""
    yield "![The images which lose most confidence](images/lost.png)"
    yield ""
    yield "A sample of all images, with the same ones ringed:"
    yield ""
    yield "![Confidence of each image without and with smoothing](images/confidence_drop.png)"


def ranking(findings: Findings, _: Setting) -> Iterator[str]:
    """Risk against coverage."""
    yield "## Are the errors where confidence is low?"
    yield ""
    yield (
        "Whoever answers only where the network is sure enough reads this curve: of the most confident share"
        " of the images (coverage),"
    )
    yield "how many are wrong? Its right end is the error rate, its left end is ranking alone."
    yield break_even(findings)
    yield ""
    yield "![Error rate against coverage](images/risk_coverage.png)"


def repair(findings: Findings, _: Setting) -> Iterator[str]:
    """What recalibration repairs."""
    before, raw, after = (f"{100 * part:.1f} %" for part in findings.trusted)
    contrasts = findings.contrasts
    level = told(contrasts["ece_calibrated"], "for the most part", "yes", "yes")
    judged = ("worse", "better", "not told from 0")
    yield "## What a temperature repairs, and what not"
    yield ""
    yield (
        f"- **The level of confidence: {level}.** {TRUSTED:g} or more is said of {before} of the images at ε"
        f" = 0, of {raw} at ε = {SMOOTHED:g},"
    )
    yield (
        f"  and of {after} there after a temperature; the images followed above are back at a median of"
        f" {findings.fall.calibrated.median(SMOOTHED):.3f}."
    )
    yield (
        f"  What remains of the ECE is {percent(contrasts['ece_calibrated'].smoothed)}, at ε = 0"
        f" {percent(contrasts['ece_calibrated'].plain)}."
    )
    yield (
        "- **The order of right and wrong answers: no**, as one factor for all images hardly changes it. From"
        " ε = 0, treated alike, the AURC differs"
    )
    for words, name in (("as it is", "aurc"), ("after temperature", "aurc_calibrated")):
        yield (
            f"  by {interval(contrasts[name].difference, 1000, 2)} ‰ {words}"
            f" ({told(contrasts[name], *judged)}),"
        )
    yield (
        f"  and by {interval(contrasts['aurc_p_norm'].difference, 1000, 2)} ‰ after p-norm"
        f" ({told(contrasts['aurc_p_norm'], *judged)}), which scales the logits of each image by their norm."
    )
    yield (
        "- **The NLL, which weighs every probability:"
        f" {told(contrasts['nll_calibrated'], 'not all', 'all', 'all that can be told')}.** After temperature"
        f" it differs by {interval(contrasts['nll_calibrated'].difference, 1, 4)}"
        f" ({told(contrasts['nll_calibrated'], *judged)})."
    )


def decision(findings: Findings, _: Setting) -> Iterator[str]:
    """What it means for somebody who has to decide."""
    accuracy, aurc = findings.contrasts["accuracy"], findings.contrasts["aurc_calibrated"]
    remedy = told(
        findings.contrasts["aurc_p_norm"],
        "",
        ", or a p-norm, which repairs it here",
        ", or a p-norm, after which no harm is seen",
    )
    before, raw, _after = (f"{100 * part:.0f} %" for part in findings.trusted)
    yield "## If you have to decide"
    yield ""
    yield "- **Only the answer counts.** " + told(
        accuracy,
        f"ε = {SMOOTHED:g} pays here, by {points(accuracy.difference)} points.",
        f"ε = {SMOOTHED:g} costs {points(accuracy.difference)} points here.",
        "Here is no gain to be seen: there is no reason to smooth, unless a sweep with more seeds finds one.",
    )
    yield (
        f"- **A threshold decides**, such as {TRUSTED:g}. It does not mean the same after smoothing: {raw} of"
        f" the images pass it, not {before}."
    )
    yield "  Fit a temperature on held-out images, and set the threshold after that."
    yield "- **A person sees the least confident.** " + told(
        aurc,
        "After a temperature, smoothing lets more errors pass at the same amount of work: prefer ε ="
        f" 0{remedy}.",
        "Smoothing lets fewer errors pass at the same amount of work.",
        "It makes no difference that could be seen here.",
    )
    yield (
        f"- **Nothing above is a choice of ε.** {SMOOTHED:g} was given, and the test split is spent on"
        " showing what it does."
    )
    yield "  To choose one, sweep it."


def next_steps(_: Findings, setting: Setting) -> Iterator[str]:
    """How to go on."""
    yield "## How to go on"
    yield ""
    yield "```sh"
    yield f"python -m sweeps.run {setting.task} --data-dir DIR --dry-run   # the plan, and what it costs"
    yield (
        f"python -m sweeps.run {setting.task} --data-dir DIR             # tries values of ε, confirms the"
        " best with fresh seeds"
    )
    yield f"python -m tracking.recommend {setting.task}                    # prints the recommended ε"
    yield "python -m sweeps.run fashion_mnist/cnn --data-dir DIR             # another network"
    yield "```"
    yield ""
    yield (
        "What the numbers mean and how their intervals are made: [docs/statistics.md](../docs/statistics.md)."
    )


def method(findings: Findings, setting: Setting) -> Iterator[str]:
    """How it was measured."""
    train, calibrate, test = setting.examples
    yield "## How it was measured"
    yield ""
    yield f"- `{setting.task}`: {setting.recipe}; the weights after the last epoch."
    yield (
        f"- {train:,} images to train, {calibrate:,} to fit temperature and p-norm (*calibrate*), {test:,} to"
        " measure (the official test split)."
    )
    yield (
        f"- Seeds 0 to {setting.seeds - 1}, each with ε ="
        f" {', '.join(f'{epsilon:g}' for epsilon in findings.networks.epsilons)}:"
    )
    yield "  one seed means the same initial weights and the same order of the images for every ε."
    yield (
        f"- Nothing was tuned on the test split: ε = {SMOOTHED:g} and the confidences asked about were given,"
        " the row of ε is even, the recipe is"
    )
    yield (
        "  the task's, the seeds are the first ones. The page was laid out with results in sight. Images"
        " which lose most are extremes, and"
    )
    yield "  tell nothing of the others."
    yield (
        "- Confidence is the largest of the softmax probabilities. Medians and crossings have no interval;"
        " their spread over seeds is given."
    )
    yield (
        f"- {setting.machine}; {setting.processor_seconds:.0f} s of processor time in all,"
        f" {setting.seconds:.0f} s of training by the clock; {setting.date}."
    )


# ---- words
# --------------------------------------------------------------------------------------------------


def told(contrast: Contrast, up: str, down: str, same: str) -> str:
    """What to say of a difference: that it is above 0, below 0, or cannot be told from it."""
    if not told_from_zero(contrast.difference):
        return same
    return up if float(contrast.difference.value) > 0 else down


def row(words: str, contrast: Contrast, scale: float, digits: int) -> str:
    """A line of the table."""
    difference = interval(contrast.difference, scale, digits)
    mark = "**" if told_from_zero(contrast.difference) else ""
    plain, smoothed = (
        f"{scale * float(one.value):.{digits}f}" for one in (contrast.plain, contrast.smoothed)
    )
    return f"| {words} | {plain} | {smoothed} | {mark}{difference}{mark} |"


def interval(estimate: Estimate, scale: float, digits: int) -> str:
    """A difference and its interval, with signs."""
    value, low, high = (
        f"{scale * float(part):+.{digits}f}" for part in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]"


def percent(estimate: Estimate) -> str:
    """A share."""
    return f"{100 * float(estimate.value):.2f} %"


def half(risk: Float[Tensor, " example"]) -> str:
    """The error rate among the half with the highest confidence."""
    return f"{100 * float(risk[len(risk) // 2 - 1]):.2f} %"


def points(estimate: Estimate) -> str:
    """A difference of shares, with its interval."""
    return interval(estimate, 100, 2)


def gap(estimate: Estimate) -> str:
    """How far confidence is from accuracy."""
    value = 100 * float(estimate.value)
    return f"{abs(value):.1f} points {'above' if value > 0 else 'below'}"


def direction(temperature: float) -> str:
    """What a temperature does."""
    return "confidence is lowered" if temperature > 1 else "confidence is raised"


def crossed(epsilon: float) -> str:
    """Where a row of medians crosses."""
    return f"ε = {epsilon:.2f}" if math.isfinite(epsilon) else "none of these ε"


def each(followed: Followed) -> str:
    """Where the medians cross, on the mean and by seed."""
    by_seed = ", ".join(f"{value:.3f}" if math.isfinite(value) else "none" for value in followed.crossings)
    return f"{crossed(followed.crossing)} (by seed: {by_seed})"


def band() -> str:
    """The confidence of the images that are about sure."""
    return f"{SURE - ABOUT:g} to {SURE + ABOUT:g}"


def wrong_classes(epsilon: float, classes: int) -> float:
    """ε in the convention that gives it to the wrong classes alone: ε(K-1)/K."""
    return epsilon * (classes - 1) / classes


def by_number(images: tuple[int, ...]) -> str:
    """Counts by seed."""
    return ", ".join(f"{count:,}" for count in images)


def minutes(seconds: float) -> str:
    """A time in words."""
    return f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} seconds"


def break_even(findings: Findings) -> str:
    """Where the curves meet."""
    plain, smoothed = list(findings.risks.values())[:2]
    if not any(
        told_from_zero(findings.contrasts[name].difference) for name in ("accuracy", "aurc_calibrated")
    ):
        return f"Chance explains how the curves of ε = 0 and ε = {SMOOTHED:g} differ."
    if findings.break_even is not None:
        coverage = f"{100 * findings.break_even:.0f} %"
        return (
            f"From a coverage of {coverage} on, ε = {SMOOTHED:g} errs no more than ε = 0; among fewer images"
            " ε = 0 can be the safer one."
        )
    if float(smoothed[-1]) > float(plain[-1]):
        return f"There is no break-even: ε = {SMOOTHED:g} errs more even where all images are answered."
    return f"There is no break-even: ε = {SMOOTHED:g} errs no more at any coverage."
