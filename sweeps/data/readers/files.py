"""Files: tables as CSV, TSV, Parquet and ARFF, one file or a folder of them; and folders with one folder for
each class.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweeps.data.readers import arrays, images, sound, table
from sweeps.data.readers.examples import WORDS, Examples, Part, listed
from sweeps.data.readers.spec import Columns
from sweeps.errors import WrongInput

if TYPE_CHECKING:
    from pyarrow import Table

TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".arff", ".jsonl")
NOTHING = ["", "?", "NA", "N/A", "n/a", "nan", "NaN", "NULL", "null", "#N/A"]
"""What a table writes where it has no value."""
WHAT = (
    "a folder of images by class, a folder with train-*.parquet or train.csv, or a .csv, .tsv, .parquet,"
    " .jsonl, .arff or .npz file"
)


def examples_of(columns: Columns) -> Examples:
    """The examples of a file or a folder. Errors: WrongInput where it is neither, or is of a kind that is
    not understood.
    """
    path = columns.path
    if path.is_dir():
        return of_folder(path, columns)
    if path.name.lower().endswith(".npz"):
        return arrays.examples_of(arrays.read(path), str(path))
    if path.name.lower().endswith(TABLES):
        return table.examples_of({None: read(path)}, columns, str(path))
    raise WrongInput(f"{path} is of an unknown kind; wanted {WHAT}.")


def of_folder(folder: Path, columns: Columns) -> Examples:
    """The tables in a folder, or the files in its classes' folders."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and not hidden(path.relative_to(folder))
    )
    for ending in (".parquet", ".csv", ".tsv", ".csv.gz", ".jsonl"):
        if tables := [path for path in files if path.name.lower().endswith(ending)]:
            return of_tables(folder, tables, columns)
    for endings in (images.ENDINGS, sound.ENDINGS, (".txt",)):
        if chosen := [path for path in files if path.name.lower().endswith(endings)]:
            return of_classes(folder, chosen, len(files) - len(chosen), columns)
    npz = [path for path in files if path.suffix == ".npz"]
    hint = f" Give one of its files: {listed([str(path) for path in npz], 5)}." if npz else ""
    raise WrongInput(f"{folder} has {len(files)} files, none of a known kind; wanted {WHAT}.{hint}")


def hidden(path: Path) -> bool:
    """Whether a file is one that systems leave behind."""
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def part_of(path: Path) -> Part | None:
    """The part of the data that a path speaks of: `data/train-00000-of-00002.parquet`, `test/0000.parquet`,
    `dev.csv`.
    """
    for name in (
        path.name.lower().partition(".")[0],
        *reversed([part.lower() for part in path.parent.parts]),
    ):
        for word in re.split(r"[^a-z]+", name):
            if word in WORDS:
                return WORDS[word]
    return None


def of_tables(folder: Path, files: Sequence[Path], columns: Columns) -> Examples:
    """The tables of all parts. Errors: WrongInput where several folders have some: those are different data
    sets.
    """
    import pyarrow

    by_part: dict[Part | None, list[Path]] = {}
    homes: dict[Part | None, set[Path]] = {}
    for path in files:
        part = part_of(path.relative_to(folder))
        by_part.setdefault(part, []).append(path)
        homes.setdefault(part, set()).add(path.parent)
    left: list[Path] = []
    if set(by_part) != {None}:
        left = by_part.pop(None, [])
    if several := next((found for found in homes.values() if len(found) > 1), None):
        raise WrongInput(
            f"{folder} has tables in several folders; give one of them: {listed(sorted(map(str, several)))}."
        )
    if len(by_part) == 1:
        by_part = dict.fromkeys([None], *by_part.values())
    if "train" not in by_part and None not in by_part:
        raise WrongInput(
            f"{folder} has no training part; it has"
            f" {listed([str(path.relative_to(folder)) for path in files])}."
        )
    if columns.split_column and None not in by_part:
        raise WrongInput(f"{folder} has a file for each split, so that --split-column is not needed.")
    tables = {
        part: pyarrow.concat_tables([read(path) for path in own], promote_options="permissive")
        for part, own in by_part.items()
    }
    found = table.examples_of(tables, columns, str(folder))
    if not left:
        return found
    note = (
        "left out, as no split is in their names:"
        f" {listed([str(path.relative_to(folder)) for path in left], 5)}"
    )
    return replace(found, notes=(*found.notes, note))


def read(path: Path) -> "Table":
    """A table. Errors: WrongInput, naming the file."""
    import pyarrow
    from pyarrow import json, parquet

    try:
        if path.name.lower().endswith(".parquet"):
            return parquet.read_table(path)
        if path.name.lower().endswith(".arff"):
            return read_arff(path)
        if path.name.lower().endswith(".jsonl"):
            return json.read_json(path, json.ReadOptions(block_size=max(1 << 20, path.stat().st_size + 1)))
        return read_csv(path)
    except (pyarrow.ArrowException, OSError, EOFError, ValueError, NotImplementedError) as error:
        if isinstance(error, WrongInput):
            raise
        raise WrongInput(f"cannot read {path}: {error}") from error


def read_csv(path: Path) -> "Table":
    """A table of text: the separator is the one that the first line has most of, the first line is the header
    unless all of it are numbers.
    """
    import pyarrow
    from pyarrow import csv

    with pyarrow.input_stream(path) as stream:
        raw = stream.read()
    if not raw.strip():
        raise WrongInput(f"{path} is empty.")
    try:
        raw.decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = "latin-1"
    first = raw.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].decode(encoding)
    separator = max(
        ",;\t|", key=lambda mark: (first.count(mark), mark == ("\t" if ".tsv" in path.name.lower() else ","))
    )
    words = [word.strip().strip('"') for word in first.split(separator)]
    headless = all(re.fullmatch(table.NUMBER, word) or word in NOTHING for word in words)
    return csv.read_csv(
        pyarrow.BufferReader(raw),
        csv.ReadOptions(
            block_size=max(
                1 << 20, min(len(raw) + 1, 2**31 - 1)
            ),  # types are guessed by the first block: it is all
            encoding=encoding,
            column_names=[f"column_{index}" for index in range(1, len(words) + 1)] if headless else None,
        ),
        csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        csv.ConvertOptions(null_values=NOTHING, strings_can_be_null=True, quoted_strings_can_be_null=True),
    )


def read_arff(path: Path) -> "Table":
    """A file of numbers and categories as Weka and OpenML have it; missing values are ?."""
    import pyarrow
    from scipy.io import arff

    rows, about = arff.loadarff(path)
    plain = {}
    for name in about.names():
        values = rows[name]
        if values.dtype.kind == "S":
            plain[name] = pyarrow.array(
                [None if value == b"?" else value.decode() for value in values.tolist()]
            )
        else:
            plain[name] = pyarrow.array(values, from_pandas=True)
    return pyarrow.table(plain)


def of_classes(folder: Path, files: Sequence[Path], others: int, columns: Columns) -> Examples:
    """Files whose class is the folder they lie in, below train, validation and test where there are such
    folders.
    """
    relative = [path.relative_to(folder) for path in files]
    tops = {path.parts[0] for path in relative if len(path.parts) > 1}
    parted = bool(tops) and all(top.lower() in WORDS for top in tops)
    depth = 1 if parted else 0
    loose = [path for path in relative if len(path.parts) < depth + 2]
    if len(loose) == len(files):
        raise WrongInput(
            f"the files of {folder} lie in no folders; wanted one folder for each class, such as"
            f" {folder}/cat/1.png."
        )
    kept = [(path, own) for path, own in zip(files, relative, strict=True) if len(own.parts) >= depth + 2]
    parts: list[Part] = [WORDS[own.parts[0].lower()] if parted else "train" for _, own in kept]
    if "train" not in parts:
        raise WrongInput(f"{folder} has the folders {listed(sorted(tops))}, but none for training.")
    labels = [own.parts[depth] for _, own in kept]
    notes = [f"the class is the name of the folder: {len(set(labels))} classes"]
    if loose:
        notes.append(f"{len(loose)} files lie in no class's folder and are left out, such as {loose[0]}")
    if others:
        notes.append(f"{others} files of other kinds are left out")
    paths, names = [path for path, _ in kept], [str(own) for _, own in kept]
    ending = files[0].name.lower()
    if ending.endswith(".txt"):
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
        found = Examples(np.array(texts, object), (), (), str(folder))
    elif ending.endswith(sound.ENDINGS):
        found = sound.examples_of(paths, names, str(folder))
    else:
        found = images.examples_of(paths, names, str(folder), columns.image_size)
    return Examples(found.inputs, labels, parts, str(folder), notes=(*notes, *found.notes))
