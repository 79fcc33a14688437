"""Imports flow one way: every file stands in a room, rooms stand on levels, and no two files import each
other in a circle.
"""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = (
    ("lscal",),
    ("tracking.names", "tracking.numbers", "tracking.exits"),
    ("tracking.records",),
    ("tracking.decision",),
    ("tracking.report",),
    ("tracking.mlflow",),
    ("tracking.outbox",),
    ("tracking.api",),
    ("tracking.recommend",),
    ("tracking", "tracking.diff", "tracking.page", "tracking.replay", "tracking.serve"),
    ("sweeps", "sweeps.errors"),
    ("sweeps.devices", "sweeps.task", "sweeps.terminal", "sweeps.data"),
    ("sweeps.models",),
    ("sweeps.training", "sweeps.external"),
    ("sweeps.external_flags", "sweeps.plan"),
    ("sweeps.site", "sweeps.engines", "sweeps.task_patterns"),
    ("sweeps.settings",),
    ("sweeps.studies",),
    ("sweeps.early_stopping",),
    ("sweeps.recalibration", "sweeps.saved_members"),
    ("sweeps.scoring",),
    ("sweeps.recording",),
    ("sweeps.workers",),
    ("sweeps.protocol",),
    ("sweeps.preflight",),
    ("sweeps.cli",),
    ("sweeps.run", "sweeps.worker", "sweeps.check", "sweeps.decide", "sweeps.train", "sweeps.status"),
)
"""Rooms from the lowest level to the highest. A file imports files of its own room and of lower levels."""
FORBIDDEN = {
    "lscal": {"sweeps", "tracking", "optuna", "mlflow"},
    "tracking": {"sweeps", "torch", "optuna"},
    "sweeps/training": {"optuna", "mlflow", "netcal", "sqlalchemy"},
    "sweeps/models": {"optuna", "mlflow", "netcal", "sqlalchemy"},
    "sweeps/data/builtin": {"optuna", "mlflow", "netcal", "sqlalchemy"},
}
"""Packages that a folder imports nowhere. `lscal.__main__` finds the commands of the others by import string,
as text.
"""

LONG = {
    "lscal/losses.py:smoothed_cross_entropy": "half of it is the contract of its arguments",
    "lscal/diagrams/confidence_drop.py:of": "half of it is the contract of its arguments",
}
"""Functions of more than 60 lines, each with the reason."""


def module_of(path):
    """The dotted name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_of(path): path
    for package in ("lscal", "sweeps", "tracking")
    for path in (ROOT / package).rglob("*.py")
}


def imported(path):
    """The dotted names that a file imports, anywhere in it; of `from package import module`, the module."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {
                name if (name := f"{node.module}.{alias.name}") in MODULES else node.module
                for alias in node.names
            }
    return names


def room_of(module):
    """The room that a file stands in."""
    rooms = {room for level in LEVELS for room in level}
    first, *rest = module.split(".")
    return (
        first
        if first == "lscal" or not rest
        else f"{first}.{rest[0]}"
        if f"{first}.{rest[0]}" in rooms
        else None
    )


def test_every_file_stands_in_a_room():
    assert [module for module in MODULES if room_of(module) is None] == []
    assert {room for level in LEVELS for room in level} == {room_of(module) for module in MODULES}


def test_files_import_lower_levels_only():
    level = {room: index for index, rooms in enumerate(LEVELS) for room in rooms}
    wrong = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        for other in imported(path) & MODULES.keys()
        if (own := room_of(module)) != (theirs := room_of(other)) and level[own] <= level[theirs]
    ]
    assert wrong == []


def test_tracking_imports_nothing_of_lscal_but_how_metrics_are_shown():
    """That imports nothing, so pulling an ε needs no torch."""
    assert imported(ROOT / "lscal" / "display.py") <= {"dataclasses", "typing"}
    found = {
        name
        for module, path in MODULES.items()
        if room_of(module).startswith("tracking")
        for name in imported(path)
    }
    assert {name for name in found if name.partition(".")[0] == "lscal"} == {"lscal.display"}


def test_no_files_import_each_other_in_a_circle():
    graph = {module: imported(path) & MODULES.keys() - {module} for module, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_functions_have_at_most_60_lines():
    found = {
        f"{path.relative_to(ROOT)}:{node.name}"
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno - node.lineno >= 60
    }
    assert found == LONG.keys()


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_a_folder_imports_nothing_that_it_could_do_without(folder):
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    tops = {path: {name.partition(".")[0] for name in imported(path)} for path in files}
    assert {
        str(path.relative_to(ROOT)): found
        for path, names in tops.items()
        if (found := names & FORBIDDEN[folder])
    } == {}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("lscal", ("torch", "matplotlib")),
        ("lscal.metrics", ("matplotlib", "netcal", "mlflow", "optuna")),
        ("tracking.recommend", ("torch", "mlflow", "sweeps")),
        ("sweeps.recording.uploader_process", ("torch", "mlflow")),
        ("sweeps.recording.uploader", ("torch", "optuna")),
        ("sweeps.status", ("torch", "mlflow", "matplotlib")),
        ("sweeps.cli.run", ("torch", "optuna", "sqlalchemy", "mlflow", "matplotlib")),
        ("sweeps.cli.run_plan", ("mlflow", "matplotlib", "netcal", "torch.onnx")),
        ("sweeps.training.engine", ("mlflow", "optuna", "netcal")),
    ],
)
def test_what_an_import_brings_along(module, absent):
    code = f"import sys, {module}; print(sorted(set({absent!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
