"""Imports flow one way: lscal <- sweeps -> tracking."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "lscal": {"sweeps", "tracking", "optuna", "mlflow"},
    "tracking": {"sweeps", "lscal", "torch", "optuna"},
}
WITHOUT_SERVICES = ("sweeps/engine.py", "sweeps/population.py", "sweeps/datasets", "sweeps/architectures", "sweeps/recipe.py")


def imported(path):
    """Top-level names which a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_what_lies_before_it(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(path.relative_to(ROOT)): imported(path) & FORBIDDEN[package] for path in files if imported(path) & FORBIDDEN[package]}
    assert wrong == {}


def test_the_training_loop_needs_neither_optuna_nor_mlflow():
    paths = [ROOT / name for name in WITHOUT_SERVICES]
    files = [path for entry in paths for path in (entry.rglob("*.py") if entry.is_dir() else [entry])]
    wrong = {str(path.relative_to(ROOT)): imported(path) & {"optuna", "mlflow", "netcal"} for path in files}
    assert not any(wrong.values()), wrong


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("lscal", ("torch", "matplotlib")),
        ("lscal.metrics", ("matplotlib", "netcal", "mlflow", "optuna")),
        ("tracking.recommend", ("torch", "mlflow", "sweeps")),
        ("sweeps.line", ("torch", "mlflow")),
        ("sweeps.scribe", ("torch", "optuna")),
        ("sweeps.status", ("torch", "mlflow", "matplotlib")),
        ("sweeps.command", ("torch", "optuna", "sqlalchemy", "mlflow", "matplotlib")),
        ("sweeps.conductor", ("mlflow", "matplotlib", "netcal", "torch.onnx")),
        ("sweeps.engine", ("mlflow", "optuna", "netcal")),
    ],
)
def test_what_an_import_brings_along(module, absent):
    code = f"import sys, {module}; print(sorted(set({absent!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
