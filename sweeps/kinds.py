"""Kinds: what a data set yields and what a network reads, said before the one is read and the other is built."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["images", "features", "tokens", "sequences"]
"""Pixels (channel, height, width); other numbers of any shape; token ids (position,); or examples with a label for each position."""


@dataclass(frozen=True)
class Yields:
    """What a data set yields. `side` is how many pixels the shorter side of its images has; None where that is not known."""

    kind: Kind
    side: int | None = None

    def __str__(self) -> str:
        return self.kind if self.side is None else f"{self.kind} of {self.side} or more pixels a side"


@dataclass(frozen=True)
class Reads:
    """What a network reads: the kinds, and how many pixels a side images have at least."""

    kinds: tuple[Kind, ...]
    side: int = 1

    def takes(self, yields: Yields | None) -> bool:
        """Whether it reads what a data set yields. What is not known is taken: it is found out when the network is built."""
        return yields is None or (
            yields.kind in self.kinds and (yields.kind != "images" or yields.side is None or yields.side >= self.side)
        )

    def __str__(self) -> str:
        each = (f"images of at least {self.side} pixels a side" if one == "images" and self.side > 1 else one for one in self.kinds)
        return " or ".join(each)


NUMBERS = Reads(("images", "features", "sequences"))
"""A network of which it is known only that its inputs are numbers."""
TOKENS = Reads(("tokens", "sequences"))
"""A network of which it is known only that its inputs are token ids."""
