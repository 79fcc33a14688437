"""docs/your-own-task.md is run: its files are written, its commands given in an empty directory."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "your-own-task.md").read_text()
BLOCKS = re.findall(r"```(python title=(\S+)|sh)\n(.*?)```", TEXT, re.S)


@pytest.mark.timeout(400)
def test_a_table_and_a_network_lead_to_an_epsilon(tmp_path):
    clean = {
        key: value
        for key, value in os.environ.items()
        if key not in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI", "LSCAL_DATA")
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    environment = {**clean, "PYTHONPATH": str(ROOT), "PATH": path}
    said = []
    for kind, name, content in BLOCKS:
        if kind != "sh":
            (tmp_path / name).write_text(content)
            continue
        for line in content.splitlines():
            done = subprocess.run(
                line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (line, done.stdout, done.stderr)
            said.append(done.stdout)
    made, checked, swept, recommended = said
    assert made == ""
    assert "the label is the column 'diagnosis'" in checked
    assert "✓ a sweep can be run" in checked
    assert "Recommended ε for tumours/net:" in swept
    assert 0 <= float(recommended) <= 0.4


def test_every_flag_of_the_tutorial_exists():
    from sweeps.cli.check import parser as check
    from sweeps.cli.options import parser as run
    from sweeps.cli.worker import parser as worker

    known = {
        option
        for parser in (check, run, worker)
        for action in parser()._actions
        for option in action.option_strings
    }
    assert set(re.findall(r"--[a-z][a-z-]+", TEXT)) <= known


def test_every_file_which_it_names_exists():
    for name in re.findall(r"\]\(([\w.-]+\.md)\)", TEXT):
        assert (ROOT / "docs" / name).exists(), name
