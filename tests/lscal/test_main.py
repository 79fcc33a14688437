"""The command `lscal`: every command under one name."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lscal
from lscal.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[2]


def test_the_overview_fits_a_screen(capsys):
    assert main([]) == main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) // 2 <= 24
    assert max(map(len, lines)) <= 80
    assert all(any(line.split()[:1] == [name] for line in lines) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_both_forms_of_a_command_have_one_parser(name, capsys):
    module = importlib.import_module(COMMANDS[name][0])
    helped = []
    for call in (lambda: main([name, "--help"]), lambda: module.main(["--help"])):
        with pytest.raises(SystemExit) as ended:
            call()
        assert ended.value.code == 0
        helped.append(capsys.readouterr().out)
    assert helped[0] == helped[1]
    assert helped[0].startswith("usage: python -m ")


def test_all_commands_are_our_own_modules():
    assert {module.partition(".")[0] for module, _ in COMMANDS.values()} == {"lscal", "sweeps", "tracking"}


def test_a_shell_completes_commands_and_flags(capsys, tmp_path):
    assert main(["--print-completion", "bash"]) == 0
    script = tmp_path / "lscal.bash"
    script.write_text(capsys.readouterr().out)
    ask = (
        f"source {script}; COMP_WORDS=(lscal {{}}); COMP_CWORD={{}}; _shtab_lscal; echo ${{{{COMPREPLY[@]}}}}"
    )
    for words, place, wanted in (("rec", 1, "recommend"), ("run --trai", 2, "--train-examples")):
        code = ask.format(words, place)
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False)
        assert wanted in done.stdout.split(), done.stderr
    assert main(["--print-completion", "sh"]) == 2
    assert "the shell of --print-completion is sh; allowed are bash, zsh" in capsys.readouterr().err


def test_a_wrong_name_is_told_with_the_nearest(capsys):
    assert main(["recomend", "digits/mlp"]) == 2
    assert "there is no command 'recomend'. Did you mean recommend?" in capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == lscal.__version__ == importlib.metadata.version("lscal")


def test_packages_of_other_projects_are_not_taken_for_ours(tmp_path):
    """Given a package `sweeps` of somebody else's that is found first, when a sweep is asked for, then it is
    said and nothing of it is imported.
    """
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "__init__.py").write_text("")
    (tmp_path / "sweeps" / "command.py").write_text("raise SystemExit(7)")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "lscal", "run"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "the package 'sweeps' is that of another project" in done.stderr
    assert "Install lscal into an environment of its own." in done.stderr


def test_help_waits_for_nothing_heavy():
    code = (
        "import sys; from lscal.__main__ import main; main([]); print(sorted({'torch', 'numpy', 'mlflow',"
        " 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
