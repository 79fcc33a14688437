"""The audit: one page with the library's figures, and nothing that loads or runs."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from populations import population

from lscal import (
    METRICS,
    Estimate,
    PNorm,
    Predictions,
    Resamples,
    Temperature,
    differences,
    estimate_epsilon,
    estimates,
    one_class,
    selective,
)
from lscal.audit import terminal, verdict
from lscal.audit.audit import Audit, Comparison, Scored, break_even, by_class, crossfitted, risk_coverage
from lscal.audit.command import main, names_of
from lscal.audit.figures import drawable, inline
from lscal.audit.files import Saved, read
from lscal.audit.markup import Markup, element
from lscal.audit.page import page
from lscal.audit.words import change, figures, number
from lscal.calibrators import CALIBRATORS
from lscal.crossfit import folds, temperature
from lscal.diagrams import ConfidenceHistogram

ROOT = Path(__file__).parents[2]
REPLICATES = 40
NAMES = ["cat", "dog", "<i>", "$x$"]
EXAMPLES, CLASSES = 130, 4


def logits_of(model):
    """Of an underconfident (0), a calibrated (1) or an overconfident (2) model."""
    logits, labels = population(seed=31, examples=EXAMPLES, classes=CLASSES)
    return logits[model].numpy(), labels.numpy()


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.source = source
        self.tags, self.attributes, self.words, self.rows, self.stack = [], [], [], [], []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.stack.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self.stack and self.stack.pop() != tag:
            pass

    def handle_data(self, data):
        if "svg" in self.stack or "style" in self.stack:
            return
        self.words.append(data)
        if "td" in self.stack or "th" in self.stack:
            self.rows[-1][-1] += data

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.words))

    def row(self, name, table=0):
        """The cells of the row of this name, in this one of the tables that have it."""
        return [row for row in self.rows if re.sub(r"\s+[↑↓→].*", "", row[0]) == name][table]

    def values(self, attribute):
        return [value for _, name, value in self.attributes if name == attribute]


def run(folder, *words, replicates=REPLICATES):
    """Run the command line in a folder."""
    with contextlib.chdir(folder):
        return main([*words, "--replicates", str(replicates)])


def page_of(path):
    return Page(path.read_text(encoding="utf-8"))


def numbers_of(cell):
    """The signed numbers with decimals in a cell."""
    return [float(text.replace("−", "-")) for text in re.findall(r"[−+]?\d+\.\d+", cell)]


def shown_as(factor, *values):
    """Values as a table shows them, rounded."""
    wanted = [factor * float(value) for value in values]
    return pytest.approx(wanted, abs=0.0501 if factor > 1 else 0.00501)


def ends(found):
    return found.value, found.low, found.high


def undrawn_figure(diagram, number, title):
    return Markup("<svg></svg>")


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Drawing takes most of the time: it is done for the two pages below, once."""
    monkeypatch.setattr("lscal.audit.page.inline", undrawn_figure)


@pytest.fixture(autouse=True, scope="module")
def serial():
    """One thread from the first fixture on, as `one_thread` has it for the tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models' predictions."""
    folder = tmp_path_factory.mktemp("audit")
    for name, model in (("over", 2), ("under", 0)):
        logits, labels = logits_of(model)
        np.savez(folder / f"{name}.npz", logits=logits, labels=labels, classes=np.array(NAMES))
    return folder


@pytest.fixture(scope="module")
def resamples():
    return Resamples.draw(EXAMPLES, replicates=REPLICATES)


@pytest.fixture(scope="module")
def audits(folder, resamples):
    return [Audit.of(name, read(folder / f"{name}.npz"), resamples) for name in ("over", "under")]


@pytest.fixture(scope="module")
def single(audits):
    """The page of one file, with its diagrams."""
    return Page(page([replace(audits[0], name="over.npz")], None))


@pytest.fixture(scope="module")
def double(audits):
    """The page of two files, with the two diagrams about both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "lscal.audit.page.inline",
            lambda diagram, number, title: (inline if number < 3 else undrawn_figure)(diagram, number, title),
        )
        return Page(page(audits, Comparison(*audits)))


def predictions_of(model):
    logits, labels = logits_of(model)
    return Predictions.from_logits(torch.from_numpy(logits), torch.from_numpy(labels))


# ---- the content of the page


def test_the_first_sentence_is_the_answer(single):
    z, y = logits_of(2)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    accuracy, confidence = (p.argmax(-1) == y).mean(), p.max(-1).mean()
    wanted = (
        rf"Right {100 * accuracy:.1f} % of the time \[[\d.]+, [\d.]+\], says {100 * confidence:.1f} %:"
        rf" overconfident by {100 * (confidence - accuracy):.1f} points \["
    )
    assert confidence - accuracy > 0.1
    assert re.search(wanted, single.text)


def test_every_metric_stands_with_its_interval_as_the_library_gives_it(single, resamples):
    found = estimates(predictions_of(2), resamples=resamples)
    for title in ("accuracy", "NLL", "ECE", "smooth ECE", "AURC", "fidelity"):
        name = title.lower().replace(" ", "_")
        factor = {"aurc": 1000, "nll": 1, "fidelity": 1}.get(name, 100)
        cell = [float(number) for number in re.findall(r"[\d.]+", single.row(title, table=-1)[1])[:3]]
        assert cell == shown_as(factor, *ends(found[name])), name
    shown = {name for name in single.values("id") if name in METRICS}
    assert shown == set(found) - {"top_k_accuracy"}  # of four classes it is always 1
    linked = {target[1:] for target in single.values("href") if target[1:] in METRICS}
    assert linked == shown - {"calibrated_ece"}
    assert (
        f"{100 * float(found['calibrated_ece'].value):.1f} % if calibrated" in single.row("ECE", table=-1)[1]
    )


def test_what_a_temperature_would_repair_is_cross_fitted(single, resamples):
    predictions = predictions_of(2)
    scaled = temperature(predictions)
    for title, name, factor in (("ECE", "ece", 100), ("NLL", "nll", 1)):
        after = float(estimates(scaled, [name], resamples=resamples)[name].value)
        difference = differences(scaled, predictions, [name], resamples=resamples)[name]
        cell = single.row(title)[2]
        assert numbers_of(cell) == shown_as(factor, after, *ends(difference))
        assert cell.endswith("better ")
    best = float(Temperature.fit(predictions.scores, predictions.labels).value)
    assert f"divide the logits by {best:.2f};" in single.text
    assert best > 1.5


def test_a_comparison_is_that_of_the_library(double, resamples):
    over, under = predictions_of(2), predictions_of(0)
    wanted = differences(under, over, resamples=resamples)
    scaled = differences(temperature(under), temperature(over), ["nll", "ece"], resamples=resamples)
    for title, factor in (("accuracy", 100), ("NLL", 1), ("ECE", 100), ("AURC", 1000)):
        name, cells = title.lower(), double.row(title)
        assert numbers_of(cells[2]) == shown_as(factor, *ends(wanted[name]))
        assert name not in scaled or numbers_of(cells[3]) == shown_as(factor, *ends(scaled[name]))
    assert "under against over" in double.text


def test_classes_go_by_their_names(single):
    logits, y = logits_of(2)
    rates = [(logits.argmax(-1) == y)[y == k].mean() for k in range(CLASSES)]
    worst = int(np.argmin(rates))
    sentence = f"least often is “{NAMES[worst]}”: {100 * rates[worst]:.1f} % of {(y == worst).sum()}."
    assert sentence in single.text


# ---- the form of the page


@pytest.fixture(params=["single", "double"])
def any_page(request):
    return request.getfixturevalue(request.param)


def test_a_page_is_small_loads_nothing_and_runs_nothing(any_page):
    assert not set("script link img iframe object embed form base image".split()) & set(any_page.tags)
    names = {name for _, name, _ in any_page.attributes}
    assert not [name for name in names if name.startswith("on") or name in ("src", "srcset", "action")]
    assert not re.search(r"https?:|//[a-z]|@import|javascript:", any_page.source)
    (policy,) = [value for value in any_page.values("content") if "default-src" in value]
    assert policy.startswith("default-src 'none';")
    assert "script" not in policy
    assert len(any_page.source.encode()) < 1_500_000


def test_every_reference_is_to_one_element_of_the_page(any_page):
    ids, links = any_page.values("id"), any_page.values("href") + any_page.values("xlink:href")
    wanted = {*links, *re.findall(r"url\(([^)]*)\)", any_page.source)}
    assert len(ids) == len(set(ids))
    assert wanted
    assert wanted <= {f"#{one}" for one in ids}


def test_the_colours_of_a_page_are_light_or_dark_as_its_reader_prefers(any_page):
    body = any_page.source.split("</style>")[1]
    assert "var(--ink)" in body
    drawn = re.sub(r'<path d="M [\d.]+ [\d.]+\s*"[^>]*>', "", body)  # a path of one point draws nothing
    assert not re.search(r"(?:fill|stroke): ?#", drawn)
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", any_page.source))
    for block in re.findall(r":root \{([^}]*)\}", any_page.source):
        assert used <= set(re.findall(r"(--[a-z0-9-]+):", block))
    assert "prefers-color-scheme: dark" in any_page.source


def test_each_diagram_has_a_caption_and_a_label_for_screen_readers(single, double):
    for found, diagrams, drawn in ((single, 6, 6), (double, 14, 2)):
        assert found.tags.count("svg") == found.tags.count("figcaption") == diagrams
        labels = found.values("aria-label")
        assert len(labels) == drawn
        assert all(labels)


def test_the_command_writes_that_page_and_prints_a_plain_table(folder, single, capsys):
    assert run(folder, "over.npz") == 0
    without = re.sub(r"<svg.*?</svg>", "<svg></svg>", single.source, flags=re.DOTALL)
    assert page_of(folder / "over.audit.html").source == without
    out = capsys.readouterr().out
    assert "\x1b" not in out
    lines = [line.split("  ")[0].strip() for line in out.splitlines()]
    assert {"accuracy", "NLL", "ECE", "ECE if calibrated", "fidelity"} <= set(lines)
    assert "overconfident by" in out
    assert out.endswith("page: over.audit.html\n")


def test_two_files_are_printed_as_a_plain_table(audits, capsys):
    terminal.show(audits, Comparison(*audits))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "…" not in out
    assert "under against over" in out
    (line,) = [line for line in out.splitlines() if line.startswith("ECE if calibrated")]
    assert len(re.split(r"\s{2,}", line)) == 7


def test_a_diagram_is_drawn_the_same_each_time_with_ids_of_its_own():
    diagram = ConfidenceHistogram("<b>&\"'--> $x$", (0.0, 0.4, 1.0), (3, 17), (2, 0))
    texts = [inline(diagram, number, diagram.title).text for number in (4, 4, 5)]
    assert texts[0] == texts[1]
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in texts]
    assert ids[0]
    assert not ids[0] & ids[2]
    assert not re.search(r"<(?:b|script|metadata|style)\b|<!--|http", texts[0])
    assert 'aria-label="&lt;b&gt;&amp;&quot;&#x27;--&gt; $x$"' in texts[0]
    assert drawable("ε→1 ü猫\n.npz") == "ε→1 ü??.npz"  # letters that no font has are question marks


def test_names_from_outside_are_text(tmp_path, audits):
    name = "<script>alert(1)<∕script>&--><b>.csv"
    rows = "\n".join(f"{a},{b},{y}" for a, b, y in [(1.5, 0.2, 0), (0.3, 2, 1), (1, 0, 1), (0.5, 0.9, 1)])
    (tmp_path / name).write_text(f"logit_0,logit_1,label\n{rows}\n")
    assert run(tmp_path, name, "--out", "page.html") == 0
    found = page_of(tmp_path / "page.html")
    assert "script" not in found.tags
    assert f"Audit of {name}" in found.text
    other = "猫 $x^2$ \n <img src=x>.csv"
    both = [replace(audits[0], name=other), replace(audits[1], name=name)]
    found = Page(page(both, Comparison(*both)))
    assert not {"script", "img", "b", "i"} & set(found.tags)
    assert f"{name} against 猫 $x^2$ <img src=x>.csv" in found.text


def test_text_and_attributes_are_escaped_and_markup_is_not():
    made = element("a", "1 < 2 & ", element("b", "\"'"), href='"><script>', aria_label="&")
    assert made == Markup(
        '<a href="&quot;&gt;&lt;script&gt;" aria-label="&amp;">1 &lt; 2 &amp; <b>&quot;&#x27;</b></a>'
    )


# ---- the numbers


def test_an_example_is_recalibrated_by_the_others():
    predictions = predictions_of(2)
    for method in (Temperature, PNorm):
        changed = crossfitted(predictions, method).logits(torch.arange(EXAMPLES))
        for held, others in folds(EXAMPLES):
            fitted = method.fit(predictions.scores[others], predictions.labels[others])
            assert torch.allclose(changed[held], fitted(predictions.scores[held]), atol=1e-12)
        if method is Temperature:
            assert torch.allclose(changed, temperature(predictions).logits(torch.arange(EXAMPLES)))
    assert torch.equal(predictions.scores, predictions_of(2).scores)


def test_the_classes_are_each_one_class_against_the_rest():
    logits, labels = population(seed=8, examples=90, classes=5)
    for scores in (logits, logits[1]):
        predictions = Predictions.from_logits(scores, labels)
        found = by_class(predictions)
        for k in range(5):
            one = one_class(predictions, k)
            for name in ("count", "confidence", "correct"):
                assert torch.allclose(getattr(found, name)[..., k, :], getattr(one, name), atol=1e-9)


def test_a_population_is_scored_by_its_mean_crossed():
    logits, labels = population(seed=8, examples=90, classes=5)
    first, second = Predictions.from_logits(logits, labels), Predictions.from_logits(logits.flip(-1), labels)
    resamples = Resamples.draw(90, replicates=REPLICATES)
    one, two = (Scored.of(predictions, ["accuracy", "ece"], resamples) for predictions in (first, second))
    drawn = [resamples.of(predictions, ["ece"])["ece"] for predictions in (first, second)]
    values = [METRICS["ece"].function(predictions) for predictions in (first, second)]
    same(one.estimates["ece"], Estimate.crossed(values[0], drawn[0], bounds=(0, 1)))
    assert float(one.estimates["ece"].value) == pytest.approx(float(values[0].mean()))
    same(one.less(two, "ece"), Estimate.crossed(values[0] - values[1], drawn[0] - drawn[1]))


def same(one, two):
    for name in ("value", "low", "high"):
        assert torch.equal(getattr(one, name), getattr(two, name))


def test_break_even_is_that_of_the_library():
    seen = []
    for a, b in [(a, b) for a in range(3) for b in range(3)]:
        first, second = predictions_of(a), predictions_of(b)
        wanted = float(selective.break_even(second, first))
        seen.append(break_even(risk_coverage(first), risk_coverage(second)))
        assert seen[-1] == (pytest.approx(wanted) if 0 < wanted < 1 else None)
    assert any(share is not None for share in seen)
    assert float(risk_coverage(predictions_of(1))[-1]) == pytest.approx(
        1 - float(METRICS["accuracy"].function(predictions_of(1)))
    )


def test_the_seeds_of_a_sweep_are_one_page(tmp_path):
    logits, labels = population(seed=8, examples=90, classes=5)
    named = {"seeds": np.array([5, 6, 7]), "epsilon": np.array(0.1)}
    np.savez(tmp_path / "test.npz", logits=logits.float().numpy(), labels=labels.numpy(), **named)
    assert run(tmp_path, "test.npz") == 0
    found = page_of(tmp_path / "test.audit.html")
    assert "trained with ε = 0.1 according to the file" in found.text
    assert "The file holds 3 models (5, 6, 7)" in found.text
    accuracy = METRICS["accuracy"].function(Predictions.from_logits(logits, labels))
    for seed, value in zip(("5", "6", "7"), accuracy.tolist(), strict=True):
        assert found.row(seed)[1] == f"{100 * value:.1f} %"
    assert f"{100 * float(accuracy.mean()):.1f} %" in found.row("accuracy")[1]


def test_epsilon_is_estimated_from_training_predictions_alone(tmp_path, folder, single, audits):
    assert "The ε of its label smoothing is not estimated" in single.text
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, 400)
    logits = 0.02 * random.normal(size=(400, CLASSES))
    logits[np.arange(400), labels] += np.log(1 + CLASSES * 0.9 / 0.1)  # the smoothed loss is least at ε = 0.1
    np.savez(tmp_path / "train.npz", logits=logits, labels=labels)
    assert run(folder, *f"over.npz --train {tmp_path}/train.npz --out {tmp_path}/page.html".split()) == 0
    wanted = estimate_epsilon(torch.from_numpy(logits), torch.from_numpy(labels))
    assert abs(float(wanted.value) - 0.1) < 0.02
    epsilon = "{:.2f} [{:.2f}, {:.2f}]".format(*map(float, ends(wanted)))
    sentence = f"Its 400 training predictions are those of label smoothing with ε = {epsilon}"
    assert sentence in page_of(tmp_path / "page.html").text
    none = replace(wanted, low=-wanted.value, misfit=wanted.value)
    said = verdict.smoothing(replace(audits[0], trained=read(tmp_path / "train.npz"), epsilon=none))
    assert said.startswith("No label smoothing is visible in its 400 training predictions")
    assert said.endswith("take this with care.")


def test_the_verdict_names_what_a_p_norm_repairs():
    random = np.random.default_rng(2)
    evidence = 2.2 * random.normal(size=(700, 5))
    p = np.exp(evidence) / np.exp(evidence).sum(-1, keepdims=True)
    labels = (p.cumsum(-1) > random.random((700, 1))).argmax(-1)
    # The size of a row's logits means nothing.
    scores = torch.from_numpy(evidence * np.exp(random.normal(size=(700, 1))))
    predictions = Predictions.from_logits(scores, torch.from_numpy(labels))
    audit = Audit.of("", Saved(Path(), predictions, (), (), None), Resamples.draw(700, replicates=REPLICATES))
    said = " ".join(verdict.of_audit(audit))
    assert re.search(r"A p-norm repairs more: ECE [\d.]+ % → [\d.]+ %\.", said)
    assert re.search(
        r"A p-norm of the logits would rank its errors better: AURC [\d.]+ ‰ → [\d.]+ ‰, change −", said
    )


# ---- edges

Z = 2 * np.random.default_rng(1).normal(size=(40, 3))
SOFT = np.exp(Z / 3) / np.exp(Z / 3).sum(-1, keepdims=True)
RULED_OUT = np.where(np.eye(3)[Z.argmin(-1)] > 0, -np.inf, Z)
EDGES = {
    "one row": ("logits", Z[:1], Z[:1].argmax(-1), "There is no error among 1 example"),
    "all right": ("logits", Z, Z.argmax(-1), "No temperature is best: the lower it is, the lower the loss"),
    "two classes, saturated": ("logits", 1e4 * Z[:, :2], Z.argmax(-1) % 2, "overconfident"),
    "all the same": ("logits", np.zeros((40, 3)), np.arange(40) % 3, "there is nothing to repair"),
    "certain": ("probabilities", np.eye(3)[Z.argmax(-1)], np.arange(40) % 3, "says 100.0 %"),
    "annotators, a class ruled out": ("logits", RULED_OUT, SOFT, "labels are distributions"),
}


@pytest.mark.parametrize("case", EDGES)
def test_extreme_predictions_are_audited(tmp_path, case):
    kind, scores, labels, sentence = EDGES[case]
    np.savez(tmp_path / "p.npz", **{kind: scores, "labels": labels})
    assert run(tmp_path, "p.npz", replicates=5) == 0
    found = page_of(tmp_path / "p.audit.html")
    assert sentence in found.text
    assert not re.search(r"\b(nan|inf)\b", "".join(cell for row in found.rows for cell in row))
    assert ("Against the annotators" in found.text) == case.startswith("annotators")


# ---- words


def estimate(value, low, high):
    return Estimate(*(torch.tensor(float(end), dtype=torch.float64) for end in (value, low, high)))


@pytest.mark.parametrize(
    ("name", "ends", "said", "changed"),
    [
        ("accuracy", (0.91234, 0.906, 0.918), "91.2 % [90.6, 91.8]", "+91.2 pp [+90.6, +91.8]"),
        ("accuracy", (0.91234, 0.9119, 0.9127), "91.23 % [91.19, 91.27]", "+91.23 pp [+91.19, +91.27]"),
        ("accuracy", (1, 1, 1), "100.0 % [100.0, 100.0]", "+100.0 pp [+100.0, +100.0]"),
        ("confidence_gap", (-0.068, -0.089, 0.0001), "−6.8 pp [−8.9, 0.0]", "−6.80 pp [−8.90, +0.01]"),
        ("nll", (0.2814, 0.2754, 0.2874), "0.281 [0.275, 0.287]", "+0.281 [+0.275, +0.287]"),
        ("nll", (float("inf"), float("inf"), float("inf")), "∞", "∞"),
        ("nll", (1.2345e7,) * 3, "1.23e+07 [1.23e+07, 1.23e+07]", "+1.23e+07 [+1.23e+07, +1.23e+07]"),
        ("aurc", (0.0200, 0.0181, 0.0222), "20.0 ‰ [18.1, 22.2]", "+20.0 ‰ [+18.1, +22.2]"),
        ("fidelity", (float("nan"),) * 3, "not defined", "not defined"),
    ],
)
def test_numbers_have_the_digits_their_interval_needs(name, ends, said, changed):
    assert str(figures(estimate(*ends), name)) == said
    assert str(change(estimate(*ends), name)) == changed
    assert number(-0.0001, 1, 100) == number(0.0004, 1, 100, signed=True) == "0.0"  # zero has no sign


# ---- the command line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("bad.csv", "row 1 (rows count from 0): column logit_1 is nan"),
        ("absent.npz", "absent.npz: there is no such file"),
        ("over.npz over.npz over.npz", "3 files were given; one is audited, two are compared"),
        ("over.npz --train a.npz --train b.npz", "--train was given 2 times for 1 files"),
        ("over.npz --out absent/page.html", "there is no folder absent"),
        ("over.npz --out .", "is a folder; give the name of a page in it"),
        ("over.npz --out notes.html", "notes.html exists and is no audit page"),
        ("over.npz --out over.npz", "over.npz exists and is no audit page"),
        ("over.npz --train bad.npz", "hold 1 models of 4 classes and 1 models of 2 classes"),
        ("over.npz --train soft.npz", "holds probabilities; ε is estimated from logits"),
        ("over.npz --train flat.npz", "flat.npz: no logit differs from another of its row"),
        ("over.npz other.npz", "differ in the label of row 3 (rows count from 0)"),
    ],
)
def test_wrong_input_is_an_error_and_changes_nothing(folder, capsys, words, message):
    (folder / "bad.csv").write_text("logit_0,logit_1,label\n1,2,0\n1,nan,1\n")
    (folder / "notes.html").write_text("<p>mine</p>")
    np.savez(folder / "bad.npz", logits=np.eye(2), labels=np.arange(2))
    np.savez(folder / "soft.npz", probabilities=np.eye(4), labels=np.arange(4))
    np.savez(folder / "flat.npz", logits=np.zeros((4, 4)), labels=np.arange(4))
    logits, labels = logits_of(1)
    changed = np.where(np.arange(EXAMPLES) == 3, (labels + 1) % CLASSES, labels)
    np.savez(folder / "other.npz", logits=logits, labels=changed)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert run(folder, *words.split()) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("error: ")
    assert message in out.err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/test.npz"], ["test.npz"]),
        (["a/over.npz", "a/under.npz"], ["over", "under"]),
        (["a/p.npz", "a/p.csv"], ["p.npz", "p.csv"]),
        (["a/test.npz", "b/test.npz"], [f"a{os.sep}test.npz", f"b{os.sep}test.npz"]),
        (["a/test.npz", "a/test.npz"], ["test.npz (first)", "test.npz (second)"]),
        ([b"a/\xff.npz".decode(errors="surrogateescape")], ["?.npz"]),
    ],
)
def test_files_are_named_by_the_part_of_their_path_that_differs(files, names):
    assert names_of([Path(file) for file in files]) == names


def test_help_names_the_columns_without_loading_torch():
    code = (
        "import sys; from lscal.audit.command import main\ntry: main(['--help'])\n"
        "except SystemExit: print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    for word in ("logits", "labels", "logit_0", "label_0", "probability_0", "seeds", "Exit codes"):
        assert word in done.stdout


def test_the_example_of_the_documentation_runs(tmp_path, capsys):
    text = (ROOT / "docs/audit.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (commands,) = re.findall(r"```sh\n(.*?)```", text, re.S)
    with contextlib.chdir(tmp_path):
        exec(compile(script, "docs/audit.md", "exec"), {})
    for line in commands.splitlines():
        words, _, comment = line.partition("#")
        assert words.startswith("python -m lscal.audit ")
        assert run(tmp_path, *shlex.split(words)[3:], replicates=5) == 0
        assert (tmp_path / re.findall(r"\S+\.html", comment)[0]).exists()
    assert read(tmp_path / "strength_1.npz").predictions.examples == 1197
    assert "overconfident" in capsys.readouterr().out


def test_further_calibrators_get_a_column_each(tmp_path, capsys):
    draw = np.random.default_rng(3)
    labels = draw.integers(0, 3, 300)
    logits = 4 * draw.normal(size=(300, 3)) + 3 * np.eye(3)[labels]
    np.savez(tmp_path / "a.npz", logits=logits, labels=labels)
    assert run(tmp_path, *"a.npz --calibrator isotonic --calibrator bbq".split(), replicates=20) == 0
    out = capsys.readouterr().out
    (heading,) = [line for line in out.splitlines() if line.startswith("metric")]
    assert heading.split()[-2:] == ["isotonic", "bbq"]
    (ece,) = [line.split() for line in out.splitlines() if line.startswith("ECE  ")]
    saved = Predictions.from_logits(torch.tensor(logits), torch.tensor(labels))
    expected = 100 * float(METRICS["ece"].function(crossfitted(saved, CALIBRATORS["bbq"])))
    assert float(ece[-2]) == pytest.approx(expected, abs=0.06)
    assert ">bbq<" in (tmp_path / "a.audit.html").read_text()
    assert run(tmp_path, *"a.npz --calibrator platt".split()) == 2
    allowed = "--calibrator is 'platt'; allowed are bbq, beta, ets, histogram, isotonic, sms, svs, vector"
    assert allowed in capsys.readouterr().err
