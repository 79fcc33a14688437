"""Parquet: tables of examples in the layout of Hugging Face's datasets, as the data sets read them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sweeps.errors import WrongInput

if TYPE_CHECKING:
    from pyarrow import Table


def folder_of(
    data_dir: Path | None, name: str, files: Sequence[str], folders: Sequence[str], how: str
) -> Path:
    """The folder that has one of the files: `data_dir/name` or `data_dir` itself, there one of `folders`.
    `how` is how to get the files.

    Errors: WrongInput without a data directory. Where no folder has a file, it is `data_dir/name`, so that
    an error of reading names what is missing.
    """
    if data_dir is None:
        raise WrongInput(f"{name} needs its files, and no data directory was given. {how}")
    places = [place / folder for place in (data_dir / name, data_dir) for folder in folders]
    return next(
        (place for place in places if any((place / file).exists() for file in files)), data_dir / name
    )


def read_table(path: Path, columns: Sequence[str], how: str) -> "Table":
    """A file that has these columns. Errors: WrongInput when it is missing, unreadable or has others."""
    import pyarrow.parquet as parquet  # takes a tenth of a second; other data sets need not wait for it
    from pyarrow import ArrowException

    try:
        table = parquet.read_table(path)
    except FileNotFoundError as error:
        raise WrongInput(f"cannot read {path}: no such file. {how}") from error
    except (ArrowException, OSError) as error:
        raise WrongInput(f"cannot read {path}: {error} {how}") from error
    if not set(columns) <= set(table.column_names):
        raise WrongInput(
            f"{path} has columns {', '.join(table.column_names)}; wanted {' and '.join(columns)}. {how}"
        )
    return table


def labels_of(
    table: "Table", path: Path, classes: int, how: str, column: str = "label"
) -> npt.NDArray[np.int64]:
    """The labels (example,) of a table. Errors: WrongInput for labels outside [0, classes)."""
    labels: npt.NDArray[np.int64] = table[column].to_numpy().astype(np.int64)
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= classes:
        found = f"labels from {labels.min()} to {labels.max()}" if len(labels) else "no rows"
        raise WrongInput(f"{path} has {found}; wanted 0 to {classes - 1}. {how}")
    return labels
