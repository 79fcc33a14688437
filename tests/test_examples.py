"""The Fashion-MNIST example: its command on a small setting against slow oracles, and the page that is kept
in the repository.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import accuracy, confidence, correct, ece, nll
from PIL import Image

from examples import fashion_mnist, page
from examples.findings import Contrast, Findings, crossing
from examples.page import markdown, told
from lscal import Estimate

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("LSCAL_DATA", ROOT.parent / "shared" / "data"))
SMALL = ["--seeds", "2", "--epochs", "2", "--train-examples", "1500"]
EPSILONS = (0.0, 0.1, 0.4)
PICTURES = (
    "reliability",
    "reliability_calibrated",
    "risk_coverage",
    "fall",
    "sure",
    "confidence_drop",
    "lost",
)


@dataclass(frozen=True)
class Run:
    """What the command wrote, and the networks that it trained."""

    page: str
    images: Path
    findings: Findings

    @property
    def networks(self):
        return self.findings.networks


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The command, once."""
    if not (SHARED / "fashion-mnist").is_dir():
        pytest.skip(f"Fashion-MNIST is not in {SHARED}; set LSCAL_DATA")
    out = tmp_path_factory.mktemp("example")
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fashion_mnist, "EPSILONS", EPSILONS)
        patch.setattr(
            page, "markdown", lambda findings, setting: kept.append(findings) or markdown(findings, setting)
        )
        assert fashion_mnist.main(["--data-dir", str(SHARED), "--out", str(out), *SMALL]) == 0
    return Run((out / "fashion_mnist.md").read_text(), out / "images", kept[0])


def cells(page, words):
    """The line of a table that begins with these words, but for marks."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {words} |"))
    return [cell.strip().strip("*") for cell in line.split("|")[2:-1]]


def aurc(confidences, wrong):
    """The error rate among the 1, 2, … most confident, on average, where no two are equally confident."""
    return np.mean(np.cumsum(wrong[np.argsort(-confidences)]) / np.arange(1, len(wrong) + 1))


@pytest.mark.parametrize(
    ("words", "scale", "metric"),
    [
        ("accuracy, %", 100, lambda logits, labels: accuracy(logits, labels)),
        ("NLL", 1, lambda logits, labels: nll(logits, labels)),
        ("ECE, %", 100, lambda logits, labels: ece(confidence(logits), correct(logits, labels))),
        ("AURC, ‰", 1000, lambda logits, labels: aurc(confidence(logits), ~correct(logits, labels))),
    ],
)
def test_the_table_has_what_oracles_compute(run, words, scale, metric):
    labels = run.networks.dataset.splits["test"].labels.numpy()
    values = [
        np.mean(
            [
                scale * metric(logits.double().numpy(), labels)
                for logits in run.networks.logits["test"][EPSILONS.index(epsilon)]
            ]
        )
        for epsilon in (0.0, 0.1)
    ]
    plain, smoothed, difference = cells(run.page, words)
    value, low, high = map(float, re.findall(r"[+-][\d.]+", difference))
    assert [float(plain), float(smoothed)] == pytest.approx(values, abs=0.006)
    assert value == pytest.approx(values[1] - values[0], abs=0.006)
    assert low < value < high


def test_the_fall_is_that_of_the_images_which_a_network_is_sure_of(run):
    probabilities = run.networks.logits["test"].double().softmax(-1).amax(-1).numpy()
    for place, epsilon in enumerate(EPSILONS):
        medians = [np.median(probabilities[place, seed, probabilities[0, seed] >= 0.99]) for seed in range(2)]
        _, target, median, *_ = cells(run.page, f"{epsilon:g}")
        assert float(median) == pytest.approx(np.mean(medians), abs=6e-4)
        assert float(target) == pytest.approx(1 - 0.9 * epsilon, abs=6e-4)


def test_the_images_shown_are_the_first_of_their_class_and_the_largest_falls(run):
    findings = run.findings
    labels = run.networks.dataset.splits["test"].labels.numpy()
    before, after = (
        run.networks.logits["test"][EPSILONS.index(epsilon), 0].double().softmax(-1).numpy()
        for epsilon in (0.0, 0.1)
    )
    sure = (before.max(1) >= 0.99) & (before.argmax(1) == labels)
    assert {card.index for card in findings.sure} == {
        int(np.flatnonzero(sure & (labels == k))[0]) for k in set(labels[sure])
    }
    falls = before.max(1) - after.max(1)
    assert [falls[card.index] for card in findings.lost] == pytest.approx(
        sorted(falls, reverse=True)[:10], abs=1e-6
    )
    pixels = run.networks.dataset.splits["test"].inputs.numpy()
    for card in findings.sure:
        assert card.confidence[0] == pytest.approx(before[card.index].max(), abs=1e-6)
        assert (findings.image(card).numpy() == pixels[card.index, 0]).all()


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_drawn(run, name):
    assert ink(run.images / f"{name}.png") > 0.05


def ink(path):
    """The share of a picture that is not its paper; its words alone are less than 5 %."""
    with Image.open(path) as picture:
        return (np.asarray(picture.convert("L")) < 240).mean()


def test_the_command_on_the_page_names_what_was_given(run):
    assert f"python -m examples.fashion_mnist --data-dir DIR {' '.join(SMALL)}\n" in run.page
    assert str(SHARED) not in run.page


def test_without_the_data_it_says_where_to_get_them(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LSCAL_DATA", raising=False)
    for arguments in ([], ["--data-dir", str(tmp_path)]):
        assert fashion_mnist.main(arguments) == 2
        assert "https://github.com/zalandoresearch/fashion-mnist" in capsys.readouterr().err


def test_a_crossing_is_on_the_line_between_neighbours():
    row = ([0.0, 0.1, 0.3, 0.4], [1.0, 0.9, 0.7, 0.2])
    assert crossing(*row, 0.74) == pytest.approx(0.26)
    assert crossing(*row, 0.7) == pytest.approx(0.3)
    assert np.isnan(crossing(*row, 0.1))


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.1, 0.5, "up"), (-0.5, -0.1, "down"), (-0.1, 0.5, "same")]
)
def test_a_verdict_follows_the_interval(low, high, said):
    value, low, high = (torch.tensor(number, dtype=torch.float64) for number in ((low + high) / 2, low, high))
    difference = Estimate(value, low, high)
    assert told(Contrast(difference, difference, difference), "up", "down", "same") == said


def test_the_page_in_the_repository_is_whole():
    kept = (ROOT / "examples" / "fashion_mnist.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", kept)
    assert {f"images/{name}.png" for name in PICTURES} <= set(links)
    for link in links:
        assert (ROOT / "examples" / link).exists(), link
    files = sorted((ROOT / "examples" / "images").iterdir())
    assert [file.stem for file in files] == sorted(PICTURES)
    assert sum(file.stat().st_size for file in files) < 600_000
    assert all(ink(file) > 0.05 for file in files)
    assert re.search(r"\bnan\b", kept) is None
    assert "python -m examples.fashion_mnist --data-dir DIR\n" in kept, (
        "written by a smaller setting than the default"
    )
