"""Provenance: plan, versions, device and commit of a sweep."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from sweeps.plan import Plan
from sweeps.site import Site, to_yaml
from sweeps.studies.opening import written
from sweeps.training.engine import Engine
from tracking.records.outcome import Facts

PACKAGES = ("torch", "optuna", "mlflow", "scikit-learn", "netcal", "numpy")


def facts(plan: Plan, site: Site, engine: Engine) -> Facts:
    """What a reader of a run needs to repeat it."""
    task, dataset = engine.task, engine.dataset
    recipe = {
        name: written(value) for name, value in task.recipe.to_mapping().items() if name not in plan.tune
    }
    versions = {f"version.{package}": importlib.metadata.version(package) for package in PACKAGES}
    commit = git_commit()
    return Facts(
        params={
            "dataset": task.dataset,
            "architecture": task.architecture,
            **({"smoothing": plan.smoothing[0]} if len(plan.smoothing) == 1 else {}),
            "train_examples": str(len(dataset.splits["train"].labels)),
            **recipe,
            "precision": plan.precision,
        },
        tags={
            **versions,
            "version.python": platform.python_version(),
            "device": str(engine.device),
            "execution": str(engine.way),
            **({"mlflow.source.git.commit": commit} if commit else {}),
        },
        dataset=dataset.name,
        digest=dataset.digest,
        where=dataset.where,
        plan=to_yaml(plan, site),
    )


def git_commit() -> str | None:
    """The commit of this code, None outside of a git checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
