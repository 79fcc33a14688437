"""Lookup of a task's network: the user-supplied one that it carries, or a built-in one."""

from sweeps.models.builtin import ARCHITECTURES
from sweeps.task import Network, Task


def architecture_of(task: Task) -> Network:
    """The network of a task. Errors: KeyError where it carries none and none of that name is built in."""
    return task.network or ARCHITECTURES[task.architecture]
