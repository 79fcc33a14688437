"""Names of tasks and of registered models."""

import re

PART = r"[A-Za-z0-9](-?[A-Za-z0-9_.])*"
"""What a data set or an architecture may be called. A hyphen stands alone and not at an end, so that `--`
divides them in the registry.
"""


LONGEST = 100


NAMES = {
    "policy": r"[a-z][a-z_]{0,39}",
    "run_id": "[0-9a-f]{32}",
    "created": r"\d{4}-\d\d-\d\dT[0-9:.+-]{1,30}",
}
"""What tags of a version may be that become parts of addresses and paths: whoever writes to the registry can
edit them.
"""


class WrongName(ValueError):
    """A task's name is not of the form it must have."""


def model_of(task: str) -> str:
    """The name of a task's registered model: `digits/mlp` is `digits--mlp`. No two tasks share one.

    Errors: WrongName.
    """
    if not is_task(task):
        raise WrongName(
            f"the task is {task[:LONGEST]!r}; wanted dataset/architecture such as 'digits/mlp', each at most"
            f" {LONGEST} letters (a-z, A-Z), digits, '_', '.' and single hyphens between them, beginning with"
            " a letter or digit."
        )
    return task.replace("/", "--")


def is_task(task: str) -> bool:
    """Whether a text is of the form of a task's name."""
    parts = task.split("/")
    return len(parts) == 2 and all(re.fullmatch(PART, part) and len(part) <= LONGEST for part in parts)
