"""Loading: reads a data set by its name and splits it, always in the same way."""

import hashlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sweeps.data.builtin import DATASETS
from sweeps.data.dataset import SPLITS, TEXTS, Array, Dataset, RawData, Split, SplitName
from sweeps.data.registry import Load
from sweeps.data.splits import check_classes, split_rows, stratify, thinned
from sweeps.data.tokens import encode, longest, vocabulary_of
from sweeps.errors import WrongInput, unknown

CHUNK = 2048
"""Examples read at a time from data that may lie in a file."""


def load(
    name: str,
    data_dir: str | None = None,
    train_examples: int | None = None,
    loader: Load | None = None,
) -> Dataset:
    """Read a data set and split it, always in the same way: stratified by class, from a fixed seed.

    With an official test split, a twelfth of the rest is *select* and a twelfth *calibrate*, unless there is
    an official validation split, which is halved; without, 35 % is *train*, 15 % *select*, 15 % *calibrate*
    and 35 % *test*: telling a difference takes more examples than training a small model does.
    `train_examples` keeps only so many of *train*; `loader` reads a user-supplied data set. Errors:
    WrongInput for an unknown name, missing or corrupt files, and a split with fewer than 2 examples of a
    class.
    """
    if loader is None and name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    source = (loader or DATASETS[name])(None if data_dir is None else Path(data_dir))
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


def tokenised(source: RawData, train: Array) -> RawData:
    """A source of texts as one of token ids; its vocabulary is made of the texts of *train* alone."""
    texts = [str(text) for text in source.inputs]
    vocabulary = vocabulary_of([texts[row] for row in train])
    return replace(
        source,
        inputs=encode(texts, vocabulary, longest(texts[row] for row in train)),
        vocabulary=vocabulary,
        shown=tuple(texts),
    )


def chunks(inputs: Array, rows: Array) -> Iterator[Array]:
    """Some rows of an array that may be larger than the memory, CHUNK at a time."""
    for first in range(0, len(rows), CHUNK):
        yield inputs[rows[first : first + CHUNK]]


def mapped(inputs: Array) -> Tensor:
    """A memory-mapped array as a tensor of the same memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # it is not written to
        return torch.from_numpy(inputs)


def moments(inputs: Array, rows: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (1 where it is 0) of some rows: per channel of images (example, channel,
    height, width), per feature of (example, feature), otherwise one of all numbers. In float64, read twice in
    chunks.
    """
    per_column: dict[int, tuple[int, ...]] = {4: (0, 2, 3), 2: (0,)}
    axes = per_column.get(inputs.ndim)
    count = len(rows) * math.prod(inputs.shape[1:]) // (inputs.shape[1] if axes is not None else 1)
    mean = sum(chunk.sum(axes, np.float64, keepdims=True) for chunk in chunks(inputs, rows)) / count
    variance = sum(((chunk - mean) ** 2).sum(axes) for chunk in chunks(inputs, rows)) / count
    deviation = np.sqrt(variance)
    return tuple(np.ravel(mean).tolist()), tuple(np.ravel(np.where(deviation > 0, deviation, 1.0)).tolist())
