"""Site: where pages and stores lie on this machine."""

import re
from collections.abc import Sequence
from pathlib import Path

from sweeps.plan import Plan


def pages_of(state_dir: Path) -> Path:
    """The folder of all pages."""
    return state_dir / "pages"


def page_of(state_dir: Path, task: str) -> Path:
    """The page of a task such as `digits/mlp`."""
    return pages_of(state_dir) / f"{task.replace('/', '--')}.html"


def places(state_dir: Path, tracking_uri: str, tasks: Sequence[str]) -> tuple[str, str]:
    """Where what a sweep finds will be: the page, or the folder of several tasks' pages; and MLflow."""
    single = len(tasks) == 1 and re.fullmatch(r"\w+/\w+", tasks[0])
    page = page_of(state_dir, tasks[0]) if single else pages_of(state_dir)
    return f"Page, when it is done: {page.absolute().as_uri()}", f"MLflow: {browse(tracking_uri)}"


def browse(uri: str) -> str:
    """How a person opens what is in a tracking store."""
    if uri == Plan.tracking_uri:
        return "mlflow server, then http://127.0.0.1:5000"
    from tracking.mlflow.client import shown  # SQLAlchemy takes a quarter of a second

    return (
        shown(uri)
        if uri.startswith("http")
        else f"mlflow server --backend-store-uri {shown(uri)}, then http://127.0.0.1:5000"
    )
