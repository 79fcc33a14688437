"""Examples as a reader found them, before classes are numbered, missing labels dropped and the official
splits put last.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sweeps.data.dataset import Array, RawData
from sweeps.data.splits import split_rows, stratify
from sweeps.errors import WrongInput

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
WORDS: dict[str, Part] = {
    **dict.fromkeys(("train", "training", "learn"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""How files, folders and columns call the parts of a data set."""
LEAST = 2
"""Examples of a class that every split needs."""
MOST_CLASSES = 1000
MOST_REAL_CLASSES = 20
"""A label column with more values, where they are not whole numbers or hardly repeat, is a quantity."""
NAMED = 10
"""As many classes, columns or files are named in a sentence."""
TO_VALIDATE = 0.3
"""Of the training examples of each class, where a twelfth of them would be too few to select and to calibrate
with.
"""


@runtime_checkable
class Fitted(Protocol):
    """Inputs that are made after *train* is chosen: the values that fill gaps, and the categories, come from
    it alone.
    """

    def fitted(self, rows: Array, train: Array) -> tuple[Array, tuple[str, ...], tuple[str, ...]]:
        """The inputs of some rows, made by the rows of *train*; the name of each feature; and sentences on
        how.
        """


@dataclass(frozen=True)
class Examples:
    """All examples of a source, in its own order.

    Attributes:
        inputs: as in `RawData`, or the columns to make them of.
        labels: one per example: a text, a whole number, a number, true or false; None where it is missing.
        parts: of each example.
        names: of the classes that whole numbers stand for; empty where the numbers or texts are the names.
        notes: sentences for a person on guesses and changes.
    """

    inputs: Array | Fitted
    labels: Sequence[Any]
    parts: Sequence[Part]
    where: str
    names: tuple[str, ...] = ()
    human: Array | None = None
    shown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def listed(names: Sequence[str], most: int = NAMED) -> str:
    """Names in a sentence, the first of them where there are many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def source_of(examples: Examples, drop_rare: bool) -> RawData:
    """The examples as `sweeps.data.load.load` takes them: labels numbered from 0, official validation and
    test examples last.

    Errors: WrongInput for labels that are no classes, and classes with fewer examples than the four splits
    need, unless those are dropped.
    """
    notes = list(examples.notes)
    values = plain(examples)
    known = np.array([value is not None for value in values])
    if not known.any():
        raise WrongInput(
            f"no example of {examples.where} has a label. Name the column that has it: --label-column NAME."
        )
    if not known.all():
        notes.append(missing(known, examples))
    classes = classes_of([value for value in values if value is not None], examples)
    number = {value: index for index, value in enumerate(classes)}
    labels: Array = np.array([-1 if value is None else number[value] for value in values], np.int64)
    names = tuple(
        str(examples.names[value]) if examples.names and isinstance(value, int) else shown(value)
        for value in classes
    )
    parts = np.array(examples.parts)
    order: Array = np.concatenate([np.flatnonzero(known & (parts == part)) for part in PARTS])
    counts = Counter(parts[known].tolist())
    order, validation, names, labels, why = enough(
        order, labels, names, counts["validation"], counts["test"], drop_rare, examples.where
    )
    notes += why
    tests = int((parts[order] == "test").sum())
    whole = RawData(order, labels[order], names, tests, examples.where, validation)
    train = order[split_rows(whole, labels[order])["train"]]
    features: tuple[str, ...] = ()
    if isinstance(examples.inputs, np.ndarray):
        inputs = (
            examples.inputs
            if len(order) == len(values) and (np.diff(order) == 1).all()
            else examples.inputs[order]
        )
    else:
        inputs, features, how = examples.inputs.fitted(order, train)
        notes += how
    return replace(
        whole,
        inputs=inputs,
        human=None if examples.human is None else examples.human[order],
        shown=tuple(examples.shown[row] for row in order) if examples.shown else (),
        notes=tuple(notes),
        features=features,
    )


def plain(examples: Examples) -> list[Any]:
    """The labels as texts, whole numbers or truth values; None where one is missing: empty, NaN, or -1 where
    whole numbers stand for names.
    """

    def one(label: Any) -> Any:
        if isinstance(label, str):
            return label.strip() or None
        if label is None or isinstance(label, bool):
            return label
        if isinstance(label, float) and not math.isfinite(label):
            return None
        if float(label) == int(label):
            return None if examples.names and label < 0 else int(label)
        return float(label)

    values = [one(label) for label in examples.labels]
    found = {type(value) for value in values if value is not None}
    if str in found and len(found) > 1:
        values = [None if value is None else shown(value) for value in values]
    if (
        examples.names
        and int in found
        and (highest := max(value for value in values if isinstance(value, int))) >= len(examples.names)
    ):
        raise WrongInput(
            f"{examples.where} has the label {highest}, but names {len(examples.names)} classes:"
            f" {listed(examples.names)}."
        )
    return values


def shown(value: Any) -> str:
    """A label as a person reads it."""
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def missing(known: npt.NDArray[np.bool_], examples: Examples) -> str:
    """Sentence on the labels that are missing, by part."""
    lost = Counter(part for part, has in zip(examples.parts, known, strict=True) if not has)
    each = ", ".join(f"{lost[part]} of {part}" for part in PARTS if lost[part])
    return f"{sum(lost.values())} of {len(known)} examples have no label and are left out ({each})"


def classes_of(values: Sequence[Any], examples: Examples) -> list[Any]:
    """The values that occur, in order: numbers by size, texts by the alphabet, or by size where all are
    whole numbers.
    """
    counts = Counter(values)
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in counts)
    real = any(isinstance(value, float) for value in counts)
    often = len(values) / len(counts)
    if (
        numbers
        and not examples.names
        and len(counts) > MOST_REAL_CLASSES
        and (real or often < 5 or len(counts) > MOST_CLASSES)
    ):
        raise WrongInput(
            f"the labels of {examples.where} are numbers with {len(counts)} different values among"
            f" {len(values)} examples (from {min(counts):g} to {max(counts):g}): that is a quantity to"
            " predict, a regression, and label smoothing is for classes. Name another column with"
            " --label-column, or put the values into classes first."
        )
    if len(counts) > MOST_REAL_CLASSES and often < 2:
        few = listed([repr(str(value))[:40] for value in counts], 3)
        raise WrongInput(
            f"the labels of {examples.where} have {len(counts)} different values among {len(values)} examples"
            f" ({few}): those are no classes. Name the column with the classes: --label-column NAME."
        )
    if len(counts) < 2:
        raise WrongInput(
            f"all {len(values)} labels of {examples.where} are {next(iter(counts))!r}; wanted at least two"
            " classes."
        )
    if all(isinstance(value, str) and value.isdecimal() for value in counts):
        return sorted(counts, key=lambda value: (int(value), value))
    return sorted(counts)


def enough(
    order: Array, labels: Array, names: tuple[str, ...], validation: int, tests: int, drop: bool, where: str
) -> tuple[Array, int, tuple[str, ...], Array, list[str]]:
    """Arrange rows so that every split has LEAST examples of each class: order, validation examples, names
    and labels, and notes.

    Errors: WrongInput, naming the rare classes, unless they are dropped.
    """
    notes: list[str] = []
    if tests and not validation and rare_of(order, labels, len(names), 0, tests):
        rest = order[: len(order) - tests]
        parts = stratify(rest, labels, {"train": 1 - TO_VALIDATE, "validation": TO_VALIDATE})
        other = np.concatenate([parts["train"], parts["validation"], order[len(order) - tests :]])
        if len(rare_of(other, labels, len(names), len(parts["validation"]), tests)) < len(
            rare_of(order, labels, len(names), 0, tests)
        ):
            order, validation = other, len(parts["validation"])
            notes.append(
                f"classes are small: {TO_VALIDATE:.0%} of the training examples, instead of a sixth, are for"
                " selecting ε and calibrating"
            )
    while rare := rare_of(order, labels, len(names), validation, tests):
        counts = np.bincount(labels[order], minlength=len(names))
        named = listed([f"{names[one]!r} ({counts[one]})" for one in rare])
        if not drop:
            need = (
                "about 14 examples each"
                if not (tests or validation)
                else "2 or more of each in every official split, and about 14 to train"
            )
            raise WrongInput(
                f"{len(rare)} of {len(names)} classes of {where} have too few examples for the four splits"
                f" (train, select, calibrate, test): {named}. They need {need}. Add examples, merge"
                " classes, or leave these out with --drop-rare-classes."
            )
        if len(names) - len(rare) < 2:
            raise WrongInput(f"without its rare classes, {where} has fewer than two: {named}. Add examples.")
        notes.append(f"{len(rare)} classes have too few examples and are left out: {named}")
        stays = ~np.isin(labels[order], rare)
        ends = np.array([0, len(order) - tests - validation, len(order) - tests, len(order)])
        _, validation, tests = (int(stays[low:high].sum()) for low, high in pairwise(ends))
        order = order[stays]
        kept = [one for one in range(len(names)) if one not in rare]
        renumbered = np.full(len(names) + 1, -1)
        renumbered[kept] = np.arange(len(kept))
        labels, names = renumbered[labels], tuple(names[one] for one in kept)
    return order, validation, names, labels, notes


def rare_of(order: Array, labels: Array, classes: int, validation: int, tests: int) -> list[int]:
    """The classes of which some split would have fewer than LEAST examples."""
    own = labels[order]
    rows = split_rows(RawData(order, own, ("",) * classes, tests, "", validation), own)
    counts = np.stack([np.bincount(own[of_split], minlength=classes) for of_split in rows.values()])
    return np.flatnonzero(counts.min(0) < LEAST).tolist()
