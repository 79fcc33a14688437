"""All that is looked at of a task: its data, and its network on them."""

from collections.abc import Iterator, Mapping
from typing import Any

from sweeps.data.load import load
from sweeps.external_flags import check_used
from sweeps.plan import Plan
from sweeps.preflight import data, network
from sweeps.preflight.finding import Finding
from sweeps.settings import merge, resolve, site_of
from sweeps.site import Site
from sweeps.task import Task


def checked(options: Mapping[str, Any]) -> Iterator[tuple[Task, list[Finding]]]:
    """The tasks that the flags name, one after another, each with its findings. Errors: WrongInput."""
    values = merge(options, {})
    plan, site = resolve(values), site_of(values)
    check_used(site.datasets, site.architectures, [task.name for task in plan.tasks])
    for task in plan.tasks:
        yield task, check(plan, site, task)


def check(plan: Plan, site: Site, task: Task) -> list[Finding]:
    """All that is found on a task."""
    dataset = load(task.dataset, site.data_dir, plan.train_examples, task.loader)
    return [*data.findings(dataset, plan), *network.findings(plan, site, task, dataset)]
