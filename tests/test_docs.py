"""The README is run: its commands, as a new user copies them, in an empty directory."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands(heading):
    """The lines of shell blocks below a heading."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [
        line.partition("#")[0].strip()
        for block in re.findall(r"```sh\n(.*?)```", section, re.S)
        for line in block.splitlines()
        if line
    ]


@pytest.mark.timeout(400)
def test_the_first_command_runs_the_main_job_and_the_epsilon_can_be_pulled(tmp_path):
    first = next(line for line in commands("Try it") if "sweeps.run" in line)
    install, sweep = (part.strip() for part in first.split("&&"))
    assert install == "pip install -e ."
    clean = {
        key: value
        for key, value in os.environ.items()
        if key not in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI", "LSCAL_DATA")
    }
    path = (  # `python` is the one which runs this test
        f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    )
    environment = {**clean, "PYTHONPATH": str(ROOT), "PATH": path}
    started = time.perf_counter()
    done = subprocess.run(
        sweep, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    print(f"{time.perf_counter() - started:.0f} s")
    assert "Recommended ε for digits/mlp:" in done.stdout
    assert len(done.stdout.partition("Recommended ε")[0].splitlines()) <= 12
    pull = next(line for line in commands("Try it") if "tracking.recommend" in line)
    assert pull in done.stdout
    pulled = subprocess.run(
        pull, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    record = subprocess.run(
        f"{pull} --json",
        shell=True,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(pulled.stdout) == json.loads(record.stdout)["epsilon"]
    figures_are_those_of(json.loads(record.stdout))
    again = subprocess.run(
        sweep, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "nothing to do; version 1 stands" in again.stdout


def figures_are_those_of(record):
    """The README's first figures against a record: ε exactly, the others within their intervals."""
    said = re.search(
        r"Train with label_smoothing=([\d.]+) and divide logits by T = ([\d.]+) .*?accuracy \+([\d.]+)"
        r" pp\s.*?ECE ([\d.]+) → ([\d.]+) %,\s+([\d.]+) %",
        README,
        re.S,
    )
    epsilon, temperature, gain, before, raw, after = map(float, said.groups())
    assert epsilon == record["epsilon"]
    assert temperature == pytest.approx(record["temperature"], rel=0.05)
    within(gain, record["delta_accuracy"])
    within(before, record["control"]["ece"])
    within(raw, record["ece"])
    within(after, record["ece_calibrated"])
    caption = re.search(
        r"At ε = ([\d.]+) accuracy is ([\d.]+) points higher, and confidence ([\d.]+) points too low", README
    )
    epsilon, gain, gap = map(float, caption.groups())
    assert epsilon == record["epsilon"]
    within(gain, record["delta_accuracy"])
    within(-gap, record["estimates"]["confidence_gap"])


def within(percent, interval):
    assert 100 * interval["low"] - 0.05 <= percent <= 100 * interval["high"] + 0.05, (percent, interval)


def test_the_other_commands_of_the_readme_have_flags_that_exist(tmp_path):
    from sweeps.cli.options import parser

    lines = [line for line in commands("What you get") if "sweeps.run" in line]
    assert len(lines) >= 4
    for line in lines:
        words = [word.strip("'") for word in line.split("sweeps.run")[1].split()]
        assert parser().parse_args(words)


def test_every_file_named_in_the_readme_exists():
    for name in re.findall(r"\]\(((?:docs|benchmarks)/[^)]+)\)", README):
        assert (ROOT / name).exists(), name
