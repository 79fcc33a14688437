"""Datasets: real data in four splits. A file here adds one; see `digits.py`."""

import hashlib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from sweeps.errors import WrongInput, unknown

SplitName = Literal["train", "select", "calibrate", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Source:
    """What a data set's file returns: all examples, before they are split.

    Attributes:
        inputs: uint8 images (example, channel, height, width), or other numbers (example, …).
        labels: integers from 0, one per example.
        classes: the name of each class.
        test: how many examples at the end are the official test split; 0 when there is none.
        where: where the data came from, for a person.
    """

    inputs: Array
    labels: Array
    classes: tuple[str, ...]
    test: int
    where: str


@dataclass(frozen=True)
class Split:
    """Examples as they are stored; `Dataset.prepare` makes network inputs of them."""

    inputs: Shaped[Tensor, "example *shape"]
    labels: Int[Tensor, " example"]


@dataclass(frozen=True)
class Dataset:
    """Four disjoint splits: *train*, *select* (choose ε), *calibrate* (fit temperature), *test* (opened once, at the end)."""

    name: str
    splits: dict[SplitName, Split]
    classes: tuple[str, ...]
    mean: float
    deviation: float
    digest: str
    where: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.splits["train"].inputs.shape[1:])

    def prepare(self, inputs: Shaped[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Standardise stored inputs with the mean and standard deviation of *train*, float32."""
        return (inputs.float() - self.mean) / self.deviation

    def to(self, device: torch.device) -> "Dataset":
        """The same with every split on a device."""
        splits = {name: Split(split.inputs.to(device), split.labels.to(device)) for name, split in self.splits.items()}
        return Dataset(self.name, splits, self.classes, self.mean, self.deviation, self.digest, self.where)


Load = Callable[[Path | None], Source]
DATASETS: dict[str, Load] = {}


def dataset(load: Load) -> Load:
    """Register a loader under its function's name. It takes the data directory, or None when none was given."""
    DATASETS[load.__name__] = load
    return load


def load(name: str, data_dir: str | None = None, train_examples: int | None = None) -> Dataset:
    """Read a data set and split it, always in the same way: stratified by class, from a fixed seed.

    With an official test split, a twelfth of the rest is *select* and a twelfth *calibrate*; without, 35 % is *train*,
    15 % *select*, 15 % *calibrate* and 35 % *test*: telling a difference takes more examples than training a small model
    does. `train_examples` keeps only so many of *train*.
    Errors: WrongInput for an unknown name, missing or corrupt files, and a split with fewer than 2 examples of a class.
    """
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    source = DATASETS[name](None if data_dir is None else Path(data_dir))
    rows = split_rows(source)
    if train_examples is not None:
        available = len(rows["train"])
        if train_examples > available:
            raise WrongInput(f"train_examples is {train_examples}; {name} has {available} training examples.")
        shares = {"kept": train_examples / available, "left": 1 - train_examples / available}
        rows["train"] = stratify(rows["train"], source.labels, shares)["kept"]
    check_classes(name, rows, source)
    digest = hashlib.sha256()
    splits: dict[SplitName, Split] = {}
    for split in SPLITS:
        inputs, labels = source.inputs[rows[split]], source.labels[rows[split]].astype(np.int64)
        digest.update(np.ascontiguousarray(inputs).tobytes())
        digest.update(labels.tobytes())
        splits[split] = Split(torch.from_numpy(inputs), torch.from_numpy(labels))
    train = source.inputs[rows["train"]].astype(np.float64)
    return Dataset(
        name=name,
        splits=splits,
        classes=source.classes,
        mean=float(train.mean()),
        deviation=float(train.std()),
        digest=digest.hexdigest()[:16],
        where=source.where,
    )


def split_rows(source: Source) -> dict[SplitName, Array]:
    """The row numbers of each split."""
    examples = len(source.labels)
    rest = np.arange(examples - source.test)
    if source.test:
        rows = stratify(rest, source.labels, {"train": 10 / 12, "select": 1 / 12, "calibrate": 1 / 12})
        rows["test"] = np.arange(examples - source.test, examples)
    else:
        rows = stratify(rest, source.labels, {"train": 0.35, "select": 0.15, "calibrate": 0.15, "test": 0.35})
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
