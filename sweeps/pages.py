"""Pages: where the page of a task lies on this machine, beside the copy in MLflow."""

from pathlib import Path


def pages_of(state_dir: Path) -> Path:
    """The folder of all pages."""
    return state_dir / "pages"


def page_of(state_dir: Path, task: str) -> Path:
    """The page of a task such as `digits/mlp`."""
    return pages_of(state_dir) / f"{task.replace('/', '--')}.html"
