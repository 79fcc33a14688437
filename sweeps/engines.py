"""The training engine of a plan's task."""

from sweeps.data.dataset import Dataset
from sweeps.devices import pick_device
from sweeps.plan import Plan
from sweeps.task import Task
from sweeps.training.autotune import Say, choose
from sweeps.training.engine import Engine


def engine_for(
    plan: Plan,
    task: Task,
    dataset: Dataset,
    device: str,
    *,
    most: int | None = None,
    say: Say = lambda _: None,
    remeasure: bool = False,
) -> Engine:
    """The engine of a plan's task, see `choose`; `most` is how many members there are to train, those of the
    screening where None.
    """
    return choose(
        task,
        dataset,
        plan.smoothing,
        pick_device(device),
        plan.seeds,
        plan.execution,
        plan.precision,
        most=most or plan.trials * plan.seeds,
        say=say,
        remeasure=remeasure,
    )
