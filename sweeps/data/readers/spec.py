"""Spec of a user-supplied data set: its source, and how it is to be read."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sweeps.errors import WrongInput, unknown

NAME = re.compile(r"[a-z0-9_]{1,60}")
"""What the name of a data set or an architecture looks like."""
ENDINGS = (".gz", ".csv", ".tsv", ".parquet", ".npz", ".arff")
SPLIT_STEMS = ("train", "data")


@dataclass(frozen=True)
class Columns:
    """A source, and how it is to be read. Fields that are not given are guessed from the schema.

    Attributes:
        source: a path, `openml:NAME`, `hf:NAME` or `package.module:function`.
        label_column: the column with the classes.
        input_columns: those that the network sees.
        split_column: the one with train, validation or test.
        image_size: pixels a side to which images are scaled.
        drop_rare_classes: whether classes with too few examples are left out instead of refused.
        tokenizer: `hf:NAME` or a folder, whose tokens texts are made into; "" for words of the training
            texts.
    """

    source: str
    label_column: str = ""
    input_columns: tuple[str, ...] = ()
    split_column: str = ""
    image_size: int = 0
    drop_rare_classes: bool = False
    tokenizer: str = ""

    @staticmethod
    def of(name: str, values: object) -> "Columns":
        """Read the entry of a plan. Errors: WrongInput for other keys and types."""
        given = {"source": values} if isinstance(values, str) else values
        if not isinstance(given, Mapping) or not isinstance(given.get("source"), str) or not given["source"]:
            raise WrongInput(
                f"the data set {name!r} is {values!r}; wanted a mapping with the key 'source', such as"
                " {source: data/pets}."
            )
        kinds = {entry.name: entry.default for entry in fields(Columns)}
        checked: dict[str, Any] = {}
        for key, value in given.items():
            if key not in kinds:
                raise unknown("key of a data set", str(key), kinds)
            if key == "input_columns":
                words = value.split(",") if isinstance(value, str) else value
                if not isinstance(words, (list, tuple)) or not all(
                    isinstance(word, str) and word.strip() for word in words
                ):
                    raise WrongInput(f"input_columns is {value!r}; wanted names such as [age, weight].")
                checked[key] = tuple(word.strip() for word in words)
            elif key == "drop_rare_classes":
                if not isinstance(value, bool):
                    raise WrongInput(f"{key} is {value!r}; wanted true or false.")
                checked[key] = value
            elif key == "image_size":
                if not isinstance(value, int) or isinstance(value, bool) or not 4 <= value <= 1024:
                    raise WrongInput(
                        f"{key} is {value!r}; allowed is a whole number of pixels from 4 to 1024."
                    )
                checked[key] = value
            elif not isinstance(value, str):
                raise WrongInput(f"{key} of the data set {name!r} is {value!r}; wanted some text.")
            else:
                checked[key] = value
        return Columns(**checked)

    def to_mapping(self) -> dict[str, Any]:
        """The fields that differ from the defaults, as plain values."""
        own = asdict(self) | {"input_columns": list(self.input_columns)}
        return {key: value for key, value in own.items() if value}

    @property
    def path(self) -> Path:
        """The source as a path."""
        return Path(self.source).expanduser()


def check_name(kind: str, name: object) -> str:
    """A name that can be part of a task's. Errors: WrongInput."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise WrongInput(
            f"the name of {kind} is {name!r}; allowed are lower-case letters, digits and _, such as my_pets."
        )
    return name


def name_of(source: str) -> str:
    """The name that a source goes by, unless it is given one: that of its file, folder, function or model,
    in lower case.

    A file `train.csv` or a folder `data` goes by the folder around it. Errors: WrongInput where no letter or
    digit is left.
    """
    last = re.split(r"[:/\\@]", source.rstrip("/\\"))[-1]
    path = Path(source).expanduser()
    if path.exists():
        whole = path.resolve()
        last = whole.name
        while last.lower().endswith(ENDINGS):
            last = last.rpartition(".")[0]
        if last.lower() in SPLIT_STEMS and whole.parent.name:
            last = whole.parent.name
    name = re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_")[:60].strip("_")
    if not name:
        raise WrongInput(f"no name can be made of {source!r}; give one: --name my_data.")
    return name
