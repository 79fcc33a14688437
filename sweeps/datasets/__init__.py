"""Datasets: real data in four splits. A file here adds one; see `digits.py`."""

import hashlib
import importlib
import math
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from sweeps.errors import WrongInput, unknown
from sweeps.kinds import Yields
from sweeps.tokens import encode, longest, vocabulary_of

SplitName = Literal["train", "select", "calibrate", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
Array = npt.NDArray[np.generic]
POSITIONS = 4000
"""Labelled positions of sequences which *select*, *calibrate* and *test* keep each, drawn at random: the logits of all would fill the memory."""
TEXTS = "UOT"
"""Kinds of arrays which hold texts."""
CHUNK = 2048
"""Examples read at a time from data which may lie in a file."""
IGNORED = -100
"""The label of a position which has none, where each example is a sequence. Losses and metrics leave it out."""


@dataclass(frozen=True)
class Source:
    """What a data set's file returns: all examples, before they are split.

    Attributes:
        inputs: images (example, channel, height, width), features (example, feature), other numbers (example, …), or texts (example,), which
            are made into token ids, see `sweeps.tokens`. A `numpy.memmap` stays in its file.
        labels: integers from 0, one per example; or (example, position) where each is a sequence, IGNORED where a position has none.
        classes: the name of each class.
        test: how many examples at the end are the official test split; 0 when there is none.
        where: where the data came from, for a person.
        validation: how many examples before those are an official validation split: half of it is *select*, half *calibrate*.
        vocabulary: the word behind each token id; empty where inputs are no token ids. Id 0 is padding.
        human: label distributions (example, class) where people disagree, NaN in the rows of examples that have none.
        shown: a text for each example, as a person reads it; empty where its picture or its text tells.
        notes: sentences for a person on what was guessed and done when it was read.
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
        rows: which row of `stored` is each example.
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
        """The labels that predictions are compared with: one per example, or one per labelled position of each in turn."""
        return self.labels if self.labels.ndim == 1 else self.labels[self.labels != IGNORED]

    @property
    def groups(self) -> Int[Tensor, " prediction"] | None:
        """The example which each labelled position belongs to; None where an example has one label, and is a group of its own."""
        return None if self.labels.ndim == 1 else (self.labels != IGNORED).nonzero()[:, 0]

    @property
    def inputs(self) -> Shaped[Tensor, "example *shape"]:
        """All inputs at once. From a memory-mapped split they are read and copied; `take` reads a part."""
        return self.stored if self.rows is None else self.stored[self.rows]

    def take(self, examples: Int[Tensor, "*batch"], out: Tensor | None = None) -> Shaped[Tensor, "..."]:
        """The inputs of some examples (*batch, *shape), written to `out` if given."""
        rows = examples if self.rows is None else self.rows[examples]
        flat = torch.index_select(self.stored, 0, rows.flatten(), out=None if out is None else out.view(-1, *self.stored.shape[1:]))
        return flat.view(*rows.shape, *self.stored.shape[1:])


@dataclass(frozen=True)
class Dataset:
    """Four disjoint splits: *train*, *select* (choose ε), *calibrate* (fit temperature), *test* (opened once, at the end).

    `mean` and `deviation` (standard, 1 where it would be 0) are those of *train*: one of each per channel of images or per feature, one
    for all else, none for token ids. `vocabulary` is the word behind each token id; empty where inputs are no token ids.
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
        """Standardise stored inputs with the mean and standard deviation of *train*, float32. Token ids become int64."""
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
            name: Split(split.inputs.to(device), split.labels.to(device), human=split.human, shown=split.shown)
            for name, split in self.splits.items()
        }
        return replace(self, splits=splits)


Load = Callable[[Path | None], Source]
DATASETS: dict[str, Load] = {}
YIELDS: dict[str, Yields] = {}
"""What each data set yields that says so."""


def dataset(yields: Yields) -> Callable[[Load], Load]:
    """Register a loader under its function's name. It takes the data directory, or None when none was given.

    `yields` is what is known of its inputs before they are read: by that, patterns such as `*/mlp` find the tasks which are possible.
    """

    def register(load: Load) -> Load:
        DATASETS[load.__name__], YIELDS[load.__name__] = load, yields
        return load

    return register


def load(name: str, data_dir: str | None = None, train_examples: int | None = None) -> Dataset:
    """Read a data set and split it, always in the same way: stratified by class, from a fixed seed.

    With an official test split, a twelfth of the rest is *select* and a twelfth *calibrate*, unless there is an official validation split,
    which is halved; without, 35 % is *train*,
    15 % *select*, 15 % *calibrate* and 35 % *test*: telling a difference takes more examples than training a small model
    does. `train_examples` keeps only so many of *train*.
    Errors: WrongInput for an unknown name, missing or corrupt files, and a split with fewer than 2 examples of a class.
    """
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    source = DATASETS[name](None if data_dir is None else Path(data_dir))
    strata = source.labels if source.labels.ndim == 1 else np.zeros(len(source.labels), np.int64)
    rows = split_rows(source, strata)
    if train_examples is not None:
        available = len(rows["train"])
        if train_examples > available:
            raise WrongInput(f"train_examples is {train_examples}; {name} has {available} training examples.")
        shares = {"kept": train_examples / available, "left": 1 - train_examples / available}
        rows["train"] = stratify(rows["train"], strata, shares)["kept"]
    if source.labels.ndim == 1:
        check_classes(name, rows, source)
    if source.inputs.dtype.kind in TEXTS:
        source = tokenised(source, rows["train"])
    digest = hashlib.sha256()
    splits: dict[SplitName, Split] = {}
    for split in SPLITS:
        labels = source.labels[rows[split]].astype(np.int64)
        if labels.ndim > 1 and split != "train":
            labels = thinned(labels)
        for chunk in chunks(source.inputs, rows[split]):
            digest.update(np.ascontiguousarray(chunk).data)
        digest.update(labels.tobytes())
        in_file = isinstance(source.inputs, np.memmap)
        splits[split] = Split(
            stored=mapped(source.inputs) if in_file else torch.from_numpy(source.inputs[rows[split]]),
            labels=torch.from_numpy(labels),
            rows=torch.from_numpy(rows[split]) if in_file else None,
            human=None if source.human is None else torch.from_numpy(source.human[rows[split]]),
            shown=tuple(source.shown[row] for row in rows[split]) if source.shown else (),
        )
    mean, deviation = ((), ()) if source.vocabulary else moments(source.inputs, rows["train"])
    return Dataset(
        name=name,
        splits=splits,
        classes=source.classes,
        mean=mean,
        deviation=deviation,
        digest=digest.hexdigest()[:16],
        where=source.where,
        vocabulary=source.vocabulary,
        notes=source.notes,
        features=source.features,
    )


def thinned(labels: Array) -> Array:
    """Labels (example, position) of which POSITIONS are kept, the others IGNORED. Always the same ones."""
    places = np.flatnonzero(labels != IGNORED)
    left_out = np.random.default_rng(0).permutation(places)[POSITIONS:]
    kept = labels.copy()
    kept.flat[left_out] = IGNORED
    return kept


def tokenised(source: Source, train: Array) -> Source:
    """A source of texts as one of token ids; its vocabulary is made of the texts of *train* alone."""
    texts = [str(text) for text in source.inputs]
    vocabulary = vocabulary_of([texts[row] for row in train])
    return replace(
        source, inputs=encode(texts, vocabulary, longest(texts[row] for row in train)), vocabulary=vocabulary, shown=tuple(texts)
    )


def chunks(inputs: Array, rows: Array) -> Iterator[Array]:
    """Some rows of an array which may be larger than the memory, CHUNK at a time."""
    for first in range(0, len(rows), CHUNK):
        yield inputs[rows[first : first + CHUNK]]


def mapped(inputs: Array) -> Tensor:
    """A memory-mapped array as a tensor of the same memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to it
        return torch.from_numpy(inputs)


def moments(inputs: Array, rows: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (1 where it is 0) of some rows: per channel of images (example, channel, height, width), per
    feature of (example, feature), otherwise one of all numbers. In float64, read twice in chunks.
    """
    per_column: dict[int, tuple[int, ...]] = {4: (0, 2, 3), 2: (0,)}
    axes = per_column.get(inputs.ndim)
    count = len(rows) * math.prod(inputs.shape[1:]) // (inputs.shape[1] if axes is not None else 1)
    mean = sum(chunk.sum(axes, np.float64, keepdims=True) for chunk in chunks(inputs, rows)) / count
    variance = sum(((chunk - mean) ** 2).sum(axes) for chunk in chunks(inputs, rows)) / count
    deviation = np.sqrt(variance)
    return tuple(np.ravel(mean).tolist()), tuple(np.ravel(np.where(deviation > 0, deviation, 1.0)).tolist())


def split_rows(source: Source, strata: Array) -> dict[SplitName, Array]:
    """The row numbers of each split, with the strata in equal shares."""
    examples = len(source.labels)
    end = examples - source.test - source.validation
    rest = np.arange(end)
    if source.validation:
        rows = {"train": rest} if source.test else stratify(rest, strata, {"train": 0.7, "test": 0.3})
        rows |= stratify(np.arange(end, end + source.validation), strata, {"select": 0.5, "calibrate": 0.5})
    elif source.test:
        rows = stratify(rest, strata, {"train": 10 / 12, "select": 1 / 12, "calibrate": 1 / 12})
    else:
        rows = stratify(rest, strata, {"train": 0.35, "select": 0.15, "calibrate": 0.15, "test": 0.35})
    if source.test:
        rows["test"] = np.arange(examples - source.test, examples)
    return {name: rows[name] for name in SPLITS}


def stratify(rows: Array, labels: Array, shares: dict[str, float]) -> dict[str, Array]:
    """Divide rows by shares which sum to 1, in each class alike, seeded. Row numbers come back in ascending order."""
    generator = np.random.default_rng(0)
    parts: dict[str, list[Array]] = {name: [] for name in shares}
    ends = np.cumsum(list(shares.values()))
    carry = generator.random()  # spreads the rounding over the classes, so that totals come out right
    for label in np.unique(labels[rows]):
        of_class = generator.permutation(rows[labels[rows] == label])
        cuts = np.floor(ends * len(of_class) + carry).astype(int).clip(0, len(of_class))
        carry = (carry + ends[0] * len(of_class)) % 1
        for name, part in zip(shares, np.split(of_class, cuts[:-1]), strict=True):
            parts[name].append(part)
    return {name: np.sort(np.concatenate(part)) for name, part in parts.items()}


def check_classes(name: str, rows: dict[SplitName, Array], source: Source) -> None:
    """Raise WrongInput where a split has fewer than 2 examples of a class."""
    for split, of_split in rows.items():
        counts = np.bincount(source.labels[of_split], minlength=len(source.classes))
        if counts.min() < 2:
            rare = int(counts.argmin())
            raise WrongInput(
                f"the {split} split of {name} has {counts[rare]} examples of class {source.classes[rare]!r}; wanted at least 2 of "
                f"each. Give more data, or a larger --train-examples."
            )


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
