"""Choice of a launcher for the workers of a plan."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sweeps.external_flags import words
from sweeps.plan import Launch, Plan
from sweeps.terminal import LogFormat
from sweeps.workers.launcher import Elsewhere, Launcher, Reporter
from sweeps.workers.processes import Processes, places

LaunchKind = Launch | Literal["elsewhere"]


def kind_of(plan: Plan) -> LaunchKind:
    """Kind of launch of a plan. By default a single worker is this process itself."""
    if plan.workers == 0:
        return "elsewhere"
    return plan.launch or ("inline" if len(places(plan.workers, plan.device)) == 1 else "processes")


def launcher(plan: Plan, study: str, say: Callable[[str], None], log_format: LogFormat = "text") -> Launcher:
    """Launcher of a plan's workers, which train the trials of a study; with `inline`, this process trains.

    Errors: WrongInput for a missing device, where Ray is missing, and for stores that other machines cannot
    reach.
    """
    kind = kind_of(plan)
    if kind in ("elsewhere", "inline"):
        return Elsewhere()
    stores = {"OPTUNA_STORAGE": plan.storage, "MLFLOW_TRACKING_URI": plan.tracking_uri}
    arguments = ["-m", "sweeps.worker", "--study", study, "--log-format", log_format]
    for flag, folder in (
        ("--state-dir", plan.state_dir),
        ("--data-dir", plan.data_dir),
        ("--start-from", plan.start_from),
    ):
        if folder:
            arguments += [flag, str(Path(folder).absolute())]
    arguments += words(plan.datasets, plan.architectures, study.partition("@")[0])
    reporter = Reporter(say, json=log_format == "json")
    if kind == "processes":
        return Processes(places(plan.workers, plan.device), arguments, stores, reporter)
    from sweeps.workers.ray import Ray

    return Ray(plan.ray_address, plan.workers, plan.device, plan.gpus_per_worker, arguments, stores, reporter)
