"""Feature matrix of a table: numbers standardised later, categories one-hot, missing values filled in."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from sweeps.data.dataset import Array
from sweeps.data.readers.examples import NAMED, listed
from sweeps.errors import WrongInput

if TYPE_CHECKING:
    from pyarrow import ChunkedArray


MOST_CATEGORIES = 50
"""Of a column; the rarer ones share one place."""


FEW_DIGITS = 1e4


ColumnKind = Literal["number", "category", "text", "image", "sound", "array", "identifier", "other"]


@dataclass(frozen=True)
class Column:
    """A column of a table: its kind, its values and how many differ."""

    name: str
    kind: ColumnKind
    values: "ChunkedArray"
    distinct: int
    words: float
    """Words of an entry, on average; 0 where they are no texts."""

    def __str__(self) -> str:
        return (
            f"{self.name} ({self.values.type}, {self.distinct} different values)"
            if self.distinct
            else f"{self.name} ({self.values.type})"
        )


@dataclass(frozen=True)
class Features:
    """Numbers and categories as features (example, feature), float32.

    A missing number becomes the median of *train*, and one more feature marks it as missing. A category
    becomes one feature for each value in *train*, at most MOST_CATEGORIES for a column; a missing or unknown
    one is 0 in all of them.
    """

    columns: tuple[Column, ...]

    def fitted(self, rows: Array, train: Array) -> tuple[Array, tuple[str, ...], tuple[str, ...]]:
        """The features of some rows, their names, and notes on the columns. Errors: WrongInput for infinite
        numbers.
        """
        made: dict[str, Array] = {}
        encoded, filled = [], []
        for column in self.columns:
            if column.kind == "number":
                numbers = numbers_of(column)
                if gaps := int(np.isnan(numbers).sum()):
                    filled.append(f"{column.name} ({gaps})")
                made |= filled_in(column.name, numbers, train)
            else:
                encoded.append(f"{column.name} ({column.distinct})")
                made |= one_hot(column, train)
        if not made:
            raise WrongInput(f"no value is left in {listed([column.name for column in self.columns])}.")
        notes = [f"{len(made)} features of {len(self.columns)} columns"]
        if encoded:
            notes.append(f"one feature for each category of {listed(encoded, NAMED)}")
        if filled:
            notes.append(
                "missing numbers are the median of the training examples, and marked:"
                f" {listed(filled, NAMED)}"
            )
        return (
            np.stack([values[rows] for values in made.values()], 1).astype(np.float32),
            tuple(made),
            tuple(notes),
        )


def filled_in(name: str, numbers: Array, train: Array) -> dict[str, Array]:
    """Numbers with the median of *train* for NaN, and a mark where that is so; nothing where *train* has
    none.

    Numbers that hardly differ for their size, such as dates, count from the median: float32 has seven
    digits.
    """
    gaps = np.isnan(numbers)
    if gaps[train].all():
        return {}
    median = np.median(numbers[train][~gaps[train]])
    whole = np.where(gaps, median, numbers)
    if abs(median) > FEW_DIGITS * whole.std() > 0:
        whole = whole - median
    return {name: whole, f"{name} is missing": gaps} if gaps.any() else {name: whole}


def one_hot(column: Column, train: Array) -> dict[str, Array]:
    """A feature for each of the commonest categories in *train*; one for the others and one for missing
    values where *train* has such.
    """
    texts = np.array([entry or "" for entry in column.values.to_pylist()], object)
    values, counts = np.unique(texts[train], return_counts=True)
    often = sorted([value for value in values[np.argsort(-counts, kind="stable")] if value][:MOST_CATEGORIES])
    made = {f"{column.name} = {value}": texts == value for value in often}
    rest = {
        f"{column.name} is another": (texts != "") & ~np.isin(texts, often),
        f"{column.name} is missing": texts == "",
    }
    return made | {name: marks for name, marks in rest.items() if marks[train].any()}


def numbers_of(column: Column) -> Array:
    """The numbers of a column, NaN where one is missing. Errors: WrongInput for infinite ones, also in
    float32.
    """
    from pyarrow import types

    values = column.values.cast("uint8") if types.is_boolean(column.values.type) else column.values
    numbers = np.asarray(values.cast("float64", safe=False).to_numpy(), np.float64)
    with np.errstate(over="ignore"):
        infinite = np.isinf(numbers.astype(np.float32))
    if infinite.any():
        raise WrongInput(
            f"the column {column.name!r} has {infinite.sum()} values that are infinite or above 3e38, the"
            f" first in row {infinite.argmax()}: {numbers[infinite.argmax()]:g}. Repair them, or leave the"
            " column out: --input-columns A,B."
        )
    return numbers
