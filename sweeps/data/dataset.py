"""Data sets: RawData as it is read, its four Splits, and the Dataset that training uses."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

SplitName = Literal["train", "select", "calibrate", "test"]


SPLITS: tuple[SplitName, ...] = get_args(SplitName)


Array = npt.NDArray[np.generic]


TEXTS = "UOT"
"""Kinds of arrays that hold texts."""


IGNORED = -100
"""The label of a position that has none, where each example is a sequence. Losses and metrics leave it
out.
"""


@dataclass(frozen=True)
class RawData:
    """All examples of a data set, before they are split.

    Attributes:
        inputs: images (example, channel, height, width), features (example, feature), other numbers (example,
            …), or texts (example,), which are made into token ids, see `sweeps.data.tokens`. A `numpy.memmap`
            stays in its file.
        labels: integers from 0, one per example; or (example, position) where each is a sequence, IGNORED
            where a position has none.
        classes: the name of each class.
        test: how many examples at the end are the official test split; 0 when there is none.
        where: where the data came from, for a person.
        validation: how many examples before those are an official validation split: half of it is *select*,
            half *calibrate*.
        vocabulary: the word behind each token id; empty where inputs are no token ids. Id 0 is padding.
        human: label distributions (example, class) where people disagree, NaN in the rows of examples that
            have none.
        shown: a text for each example, as a person reads it; empty where its picture or its text is shown.
        notes: sentences for a person on guesses and changes made when it was read.
        features: the name of each feature; empty where they have none.
    """

    inputs: Array
    labels: Array
    classes: tuple[str, ...]
    test: int
    where: str
    validation: int = 0
    vocabulary: tuple[str, ...] = ()
    human: Array | None = None
    shown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """Examples as they are stored; `Dataset.prepare` makes network inputs of them.

    Attributes:
        stored: the inputs of the examples; where `rows` are given, those of the whole source, memory-mapped.
        rows: the row of `stored` of each example.
        human: how people label each example, where that is known; NaN for examples where it is not.
        shown: a text for each example; empty where there is none.
    """

    stored: Shaped[Tensor, "row *shape"]
    labels: Int[Tensor, "example *position"]
    rows: Int[Tensor, " example"] | None = None
    human: Float[Tensor, "example class"] | None = None
    shown: tuple[str, ...] = ()

    @property
    def targets(self) -> Int[Tensor, " prediction"]:
        """The labels that predictions are compared with: one per example, or one per labelled position of
        each in turn.
        """
        return self.labels if self.labels.ndim == 1 else self.labels[self.labels != IGNORED]

    @property
    def groups(self) -> Int[Tensor, " prediction"] | None:
        """The example that each labelled position belongs to; None where an example has one label, and is a
        group of its own.
        """
        return None if self.labels.ndim == 1 else (self.labels != IGNORED).nonzero()[:, 0]

    @property
    def inputs(self) -> Shaped[Tensor, "example *shape"]:
        """All inputs at once. From a memory-mapped split they are read and copied; `take` reads a part."""
        return self.stored if self.rows is None else self.stored[self.rows]

    def take(self, examples: Int[Tensor, "*batch"], out: Tensor | None = None) -> Shaped[Tensor, "..."]:
        """The inputs of some examples (*batch, *shape), written to `out` if given."""
        rows = examples if self.rows is None else self.rows[examples]
        flat = torch.index_select(
            self.stored, 0, rows.flatten(), out=None if out is None else out.view(-1, *self.stored.shape[1:])
        )
        return flat.view(*rows.shape, *self.stored.shape[1:])


@dataclass(frozen=True)
class Dataset:
    """Four disjoint splits: *train*, *select* (choose ε), *calibrate* (fit temperature), *test* (opened once,
    at the end).

    `mean` and `deviation` (standard, 1 where it would be 0) are those of *train*: one of each per channel of
    images or per feature, one for all else, none for token ids. `vocabulary` is the word behind each token
    id; empty where inputs are no token ids.
    """

    name: str
    splits: dict[SplitName, Split]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    digest: str
    where: str
    vocabulary: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    @property
    def sequences(self) -> bool:
        """Whether there is a label for each position of an example, rather than one for the example."""
        return self.splits["train"].labels.ndim > 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.splits["train"].stored.shape[1:])

    def prepare(self, inputs: Shaped[Tensor, "*batch"]) -> Shaped[Tensor, "*batch"]:
        """Standardise stored inputs with the mean and standard deviation of *train*, float32. Token ids
        become int64.
        """
        if self.vocabulary:
            return inputs.long()
        prepared = inputs.to(torch.float32, copy=True)
        channels = (prepared,) if len(self.mean) == 1 else prepared.unbind(-1 if len(self.shape) == 1 else -3)
        for channel, mean, deviation in zip(channels, self.mean, self.deviation, strict=True):
            channel.sub_(mean).div_(deviation)
        return prepared

    def to(self, device: torch.device) -> "Dataset":
        """The same with every split on a device."""
        splits = {
            name: Split(
                split.inputs.to(device), split.labels.to(device), human=split.human, shown=split.shown
            )
            for name, split in self.splits.items()
        }
        return replace(self, splits=splits)
