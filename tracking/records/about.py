"""About: which sweep a record belongs to."""

from dataclasses import dataclass

from tracking.records.inputs import Inputs
from tracking.records.outcome import Facts


@dataclass(frozen=True)
class About:
    """The sweep that an entry belongs to.

    Attributes:
        study: the screening's, which the parent run stands for.
        server: the tracking store, without secrets.
    """

    task: str
    study: str
    server: str
    facts: Facts
    inputs: Inputs
