"""Hubs: data sets of OpenML and of Hugging Face by their names. They are fetched where the command line names
them, and nothing else is.
"""

import importlib
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from sweeps.data.dataset import Array
from sweeps.data.readers import table
from sweeps.data.readers.examples import WORDS, Examples, Part
from sweeps.data.readers.spec import Columns
from sweeps.errors import WrongInput


def of_openml(columns: Columns, data_dir: Path | None) -> Examples:
    """A table of openml.org by its name or number; kept in `data_dir/openml`, or else where scikit-learn
    keeps its data.

    Errors: WrongInput where it cannot be reached, with the way to bring the file instead.
    """
    import pyarrow
    from sklearn.datasets import fetch_openml

    wanted = columns.source.removeprefix("openml:")
    which = {"data_id": int(wanted)} if wanted.isdigit() else {"name": wanted}
    home = None if data_dir is None else str(data_dir / "openml")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of several versions: the active one is taken
            bunch = fetch_openml(**which, as_frame=True, data_home=home, parser="auto", n_retries=1)
    except (OSError, ValueError, ImportError) as error:
        raise WrongInput(
            f"{columns.source} cannot be fetched: {error}. Where this machine reaches no openml.org, download"
            " the table elsewhere (https://www.openml.org/search?type=data, ARFF, CSV or Parquet), copy the"
            f" file here and give it: --dataset {wanted}.arff --label-column NAME."
        ) from error
    found = pyarrow.Table.from_pandas(bunch.frame, preserve_index=False)
    target = bunch.target.name if bunch.target is not None else ""
    given = Columns(
        columns.source, columns.label_column or target, columns.input_columns, columns.split_column
    )
    return table.examples_of({None: found}, given, columns.source)


def of_hugging_face(columns: Columns) -> Examples:
    """A data set of huggingface.co, `hf:OWNER/NAME`, with `@CONFIGURATION` where it has several; no code of
    it is run.

    Errors: WrongInput where `datasets` is not installed or the data set cannot be had.
    """
    datasets = extra("datasets", "--dataset hf:NAME")
    name, _, configuration = columns.source.removeprefix("hf:").partition("@")
    try:
        found = datasets.load_dataset(name, configuration or None)
    except (OSError, ValueError, RuntimeError) as error:
        raise WrongInput(
            f"{columns.source} cannot be had: {error} Where this machine reaches no huggingface.co, copy the"
            " data set's parquet files to a folder and give that: --dataset FOLDER."
        ) from error
    tables: dict[Part | None, Any] = {}
    for split, one in found.items():
        part = WORDS.get(split.lower())
        if part is not None or len(found) == 1:
            tables[part] = one.with_format("arrow")[:]
    return table.examples_of(tables, columns, columns.source)


def tokenised(texts: Array, tokenizer: str, longest: int) -> tuple[Array, tuple[str, ...]]:
    """Token ids (text, position) by the tokenizer of a Hugging Face model, `hf:NAME` or a folder, and its
    vocabulary; 0 is padding.

    Where its own padding has another id, the two change places. Errors: WrongInput where it cannot be had.
    """
    encoder = tokenizer_of(tokenizer)
    rows = encoder(
        [str(text) for text in texts], truncation=True, max_length=min(longest, encoder.model_max_length)
    )["input_ids"]
    ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
    padding = encoder.pad_token_id or 0
    for row, own in zip(ids, rows, strict=True):
        values = np.array(own, np.int32)
        row[: len(own)] = np.where(values == 0, padding, np.where(values == padding, 0, values))
    words = encoder.convert_ids_to_tokens(list(range(len(encoder))))
    words[0], words[padding] = words[padding], words[0]
    return ids, tuple(str(word) for word in words)


def tokenizer_of(name: str) -> Any:
    """A tokenizer of `transformers`. Errors: WrongInput where it cannot be had."""
    transformers = extra("transformers", "--tokenizer")
    try:
        return transformers.AutoTokenizer.from_pretrained(name.removeprefix("hf:"))
    except (OSError, ValueError) as error:
        raise WrongInput(
            f"the tokenizer {name} cannot be had: {error} Give hf:NAME, or the folder of a model with its"
            " tokenizer.json."
        ) from error


def extra(package: str, what: str) -> ModuleType:
    """A package that only some need. Errors: WrongInput where it is not installed."""
    try:
        return (
            importlib.import_module("datasets")
            if package == "datasets"
            else importlib.import_module("transformers")
        )
    except ImportError as error:
        raise WrongInput(
            f"{what} needs {package}, which is not installed here: pip install 'lscal[hf]'."
        ) from error
