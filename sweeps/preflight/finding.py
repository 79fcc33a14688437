"""Findings: faults of data and of a network, in plain words, before a sweep is paid for. `python -m
sweeps.check --dataset … --architecture …`.
"""

from dataclasses import dataclass
from typing import Literal

Level = Literal["fine", "note", "doubt", "wrong"]
MARKS: dict[Level, str] = {"fine": "✓", "note": "·", "doubt": "!", "wrong": "✗"}


@dataclass(frozen=True)
class Finding:
    """A sentence on one thing.

    Attributes:
        level: fine; a note; a doubt, to be judged by a person; or wrong: a sweep would
            fail or mislead.
        about: the subject, in a word or two.
    """

    level: Level
    about: str
    text: str

    def __str__(self) -> str:
        return f"{MARKS[self.level]} {self.about}: {self.text}"
