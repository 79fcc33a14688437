"""Choice of a launcher for the workers of a site."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sweeps.external_flags import words
from sweeps.site import Launch, Site
from sweeps.terminal import LogFormat
from sweeps.workers.launcher import Elsewhere, Launcher, Reporter
from sweeps.workers.processes import Processes, places

LaunchKind = Launch | Literal["elsewhere"]


def kind_of(site: Site) -> LaunchKind:
    """Kind of launch of a site. By default a single worker is this process itself."""
    if site.workers == 0:
        return "elsewhere"
    return site.launch or ("inline" if len(places(site.workers, site.device)) == 1 else "processes")


def launcher(site: Site, study: str, say: Callable[[str], None], log_format: LogFormat = "text") -> Launcher:
    """Launcher of a site's workers, which train the trials of a study; with `inline`, this process trains.

    Errors: WrongInput for a missing device, where Ray is missing, and for stores that other machines cannot
    reach.
    """
    kind = kind_of(site)
    if kind in ("elsewhere", "inline"):
        return Elsewhere()
    stores = {"OPTUNA_STORAGE": site.storage, "MLFLOW_TRACKING_URI": site.tracking_uri}
    arguments = ["-m", "sweeps.worker", "--study", study, "--log-format", log_format]
    for flag, folder in (
        ("--state-dir", site.state_dir),
        ("--data-dir", site.data_dir),
        ("--start-from", site.start_from),
    ):
        if folder:
            arguments += [flag, str(Path(folder).absolute())]
    arguments += words(site.datasets, site.architectures, study.partition("@")[0])
    reporter = Reporter(say, json=log_format == "json")
    if kind == "processes":
        return Processes(places(site.workers, site.device), arguments, stores, reporter)
    from sweeps.workers.ray import Ray

    return Ray(site.ray_address, site.workers, site.device, site.gpus_per_worker, arguments, stores, reporter)
