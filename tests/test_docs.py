"""The documentation: README commands run as a new user copies them, links and named files, line lengths."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
    if path.parent.name != "log"
)


def shell_lines(text):
    """The commands in a page's shell blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    return [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines() if line]


@pytest.mark.timeout(400)
def test_the_first_command_runs_the_main_job_and_the_epsilon_can_be_pulled(tmp_path):
    first = next(line for line in shell_lines(README) if "sweeps.run" in line)
    install, sweep = (part.strip() for part in first.split("&&"))
    assert install == "pip install -e ."
    unset = ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI", "LSCAL_DATA")
    environment = {key: value for key, value in os.environ.items() if key not in unset} | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # the python of this test
    }

    def run(line):
        return subprocess.run(
            line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    printed = run(sweep)
    progress, _, answer = printed.partition("Recommended ε for digits/mlp:")
    assert answer
    assert len(progress.splitlines()) <= 12
    pull = next(line for line in shell_lines(README) if "tracking.recommend" in line)
    assert pull in printed
    record = json.loads(run(f"{pull} --json"))
    assert float(run(pull)) == record["epsilon"]
    figures_are_those_of(record)
    assert "nothing to do; version 1 stands" in run(sweep)


def figures_are_those_of(record):
    """The README's figures agree with a record: ε exactly, the others within their intervals."""
    text = re.sub(r"\s+", " ", README)
    answer = re.search(
        r"Train with label_smoothing=([\d.]+) for the first (\d+) % of the steps, then 0, and divide"
        r" logits by"
        r" T = ([\d.]+) .*?accuracy \+([\d.]+) pp .*?ECE ([\d.]+) → ([\d.]+) %, ([\d.]+) %",
        text,
    )
    epsilon, percent, temperature, gain, before, raw, after = map(float, answer.groups())
    dropped = record["dropped"]
    assert record["preferred"] == "dropped"
    assert {"epsilon": epsilon, "drop": percent / 100} == dropped["point"]
    assert temperature == pytest.approx(dropped["temperature"], rel=0.05)
    constant = re.search(r"constant ε = ([\d.]+) \| ([\d.]+) % \| ([\d.]+) %, ([\d.]+) % after T", text)
    epsilon, accurate, bent, repaired = map(float, constant.groups())
    assert epsilon == record["epsilon"]
    for percent, interval in (
        (gain, dropped["delta_accuracy"]),
        (before, record["control"]["ece"]),
        (raw, dropped["ece"]),
        (after, dropped["ece_calibrated"]),
        (accurate, record["accuracy"]),
        (bent, record["ece"]),
        (repaired, record["ece_calibrated"]),
    ):
        assert 100 * interval["low"] - 0.05 <= percent <= 100 * interval["high"] + 0.05, (percent, interval)


def test_commands_of_the_readme_and_of_the_page_on_sweeps_have_flags_that_exist():
    from sweeps.cli.options import parser

    lines = [
        line.split("sweeps.run")[1]
        for line in shell_lines(README + (ROOT / "docs/sweeps.md").read_text())
        if "sweeps.run" in line
    ]
    assert len(lines) >= 10
    for line in lines:
        assert parser().parse_args([word.strip("'") for word in line.split()])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", page.read_text()):
        name, _, heading = link.partition("#")
        target = page.parent / name
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, (
                link
            )


@pytest.mark.parametrize("page", ["docs/design.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(page):
    named = re.findall(r"`([\w./-]+/[\w.-]*\w\.\w+|[\w./-]+/)`", (ROOT / page).read_text())
    assert len(named) >= 10
    missing = [name for name in named if not (ROOT / name).exists() and not name.startswith("lscal-state")]
    assert missing == []


def long_lines(text):
    """Numbers of the lines above 110 characters, but for code, tables, headings, images and links."""
    found, code = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif len(line) > 110 and not code and not line.startswith(("|", "    ", "![", "#")):
            words = re.sub(r"\]\([^)]*\)|`[^`]*`", "", line)
            if len(words) > 110:
                found.append(number)
    return found


def test_long_lines_are_found_in_prose_alone():
    prose = "word " * 30
    assert long_lines(f"{prose}\n\n| {prose} |\n\n```\n{prose}\n```\n{prose}") == [1, 8]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_has_lines_of_110(page):
    assert long_lines(page.read_text()) == []
