"""Registry of data sets and the kind of their inputs: images, features, tokens or sequences."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sweeps.data.dataset import RawData

DataKind = Literal["images", "features", "tokens", "sequences"]
"""Pixels (channel, height, width); other numbers of any shape; token ids (position,); or examples with a
label for each position.
"""


@dataclass(frozen=True)
class Yields:
    """Kind of a data set's inputs. `side` is the number of pixels of the shorter side of its images; None
    where it is unknown.
    """

    kind: DataKind
    side: int | None = None

    def __str__(self) -> str:
        return self.kind if self.side is None else f"{self.kind} of {self.side} or more pixels a side"


Load = Callable[[Path | None], RawData]


DATASETS: dict[str, Load] = {}


YIELDS: dict[str, Yields] = {}
"""Declared kind of each data set."""


def dataset(yields: Yields) -> Callable[[Load], Load]:
    """Register a loader under its function's name. It takes the data directory, or None when none was given.

    `yields` is the kind of its inputs, before they are read: by that, patterns such as `*/mlp` find the tasks
    that are possible.
    """

    def register(load: Load) -> Load:
        if load.__module__.startswith("sweeps.data.builtin."):  # others are user-supplied, see `external`
            DATASETS[load.__name__], YIELDS[load.__name__] = load, yields
        return load

    return register
