"""Architectures: plain `nn.Module`s for one model. A file here adds one; see `mlp.py`."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from sweeps.data.dataset import Dataset
from sweeps.data.registry import DataKind, Yields
from sweeps.task import Recipe


@dataclass(frozen=True)
class Reads:
    """Kinds of inputs that a network reads, and the least pixels a side of images."""

    kinds: tuple[DataKind, ...]
    side: int = 1

    def takes(self, yields: Yields | None) -> bool:
        """Whether it reads inputs of this kind. An unknown kind is accepted: building the network decides."""
        return yields is None or (
            yields.kind in self.kinds
            and (yields.kind != "images" or yields.side is None or yields.side >= self.side)
        )

    def __str__(self) -> str:
        each = (
            f"images of at least {self.side} pixels a side" if one == "images" and self.side > 1 else one
            for one in self.kinds
        )
        return " or ".join(each)


Build = Callable[..., nn.Module]


NUMBERS = Reads(("images", "features", "sequences"))
"""A network with numbers of any kind as inputs."""
TOKENS = Reads(("tokens", "sequences"))
"""A network with token ids of any kind as inputs."""


@dataclass(frozen=True)
class Architecture:
    """A builder and its recipes.

    `build(shape, classes)` returns a freshly initialised module that maps inputs (example, *shape) to logits
    (example, class), or (example, position, class) for sequences. Where it has a parameter `vocabulary`, its
    inputs are token ids, and it is given how many there are. Recipes are per data set; the key "*" holds for
    those not named. `declared` is the kinds it reads, where its file declares them.
    """

    name: str
    build: Build
    recipes: Mapping[str, Recipe]
    version: str = ""
    """A digest of the user's file; "" for a built-in network."""
    declared: Reads | None = None

    @property
    def reads(self) -> Reads:
        """The kinds it reads; where none is declared, numbers or token ids of any kind."""
        return self.declared or (TOKENS if self.reads_tokens else NUMBERS)

    def recipe(self, dataset: str) -> Recipe:
        """The recipe for a data set."""
        return self.recipes.get(dataset, self.recipes.get("*", Recipe()))

    @property
    def reads_tokens(self) -> bool:
        """Whether its inputs are token ids."""
        return "vocabulary" in inspect.signature(self.build).parameters

    def module(self, dataset: Dataset) -> nn.Module:
        """A freshly initialised module for a data set. Errors: ValueError where it cannot take its inputs."""
        shape, classes = dataset.shape, len(dataset.classes)
        if self.reads_tokens != bool(dataset.vocabulary):
            kinds = {True: "token ids", False: "numbers"}
            raise ValueError(
                f"{self.name} takes {kinds[self.reads_tokens]}; the inputs of {dataset.name} are"
                f" {kinds[bool(dataset.vocabulary)]}"
            )
        return (
            self.build(shape, classes, vocabulary=len(dataset.vocabulary))
            if self.reads_tokens
            else self.build(shape, classes)
        )


ARCHITECTURES: dict[str, Architecture] = {}


def architecture(recipes: Mapping[str, Recipe], reads: Reads | None = None) -> Callable[[Build], Build]:
    """Register a builder under its function's name, with the kinds it reads: by them, patterns such as
    `digits/*` find the tasks that are possible.
    """

    def register(build: Build) -> Build:
        found = Architecture(build.__name__, build, recipes, declared=reads)
        if build.__module__.startswith("sweeps.models.builtin."):
            ARCHITECTURES[found.name] = found
        else:  # user-supplied: it must not take the place of a built-in one
            setattr(build, "architecture", found)  # noqa: B010
        return build

    return register


def check_image(shape: tuple[int, ...], smallest: int) -> None:
    """Raise ValueError unless a shape is (channel, height, width) with at least `smallest` pixels a side."""
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise ValueError(
            f"inputs have shape {shape}; wanted images (channel, height, width) of at least {smallest} pixels"
            " a side"
        )
