"""All that is looked at of a task: its data, and its network on them."""

from collections.abc import Iterator, Mapping
from typing import Any

from sweeps.data.load import load
from sweeps.external_flags import check_used
from sweeps.plan import Plan
from sweeps.preflight import data, network
from sweeps.preflight.finding import Finding
from sweeps.settings import merge, resolve
from sweeps.task import Task


def checked(options: Mapping[str, Any]) -> Iterator[tuple[Task, list[Finding]]]:
    """The tasks that the flags name, one after another, each with what is found. Errors: WrongInput."""
    plan = resolve(merge(options, {}))
    check_used(plan.datasets, plan.architectures, [task.name for task in plan.tasks])
    for task in plan.tasks:
        yield task, check(plan, task)


def check(plan: Plan, task: Task) -> list[Finding]:
    """All that is found on a task."""
    dataset = load(task.dataset, plan.data_dir, plan.train_examples)
    return [*data.findings(dataset, plan), *network.findings(plan, task, dataset)]
