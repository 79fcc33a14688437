"""User-supplied data set: a file, a folder, a function or a hub's data set, read as RawData."""

from dataclasses import replace
from pathlib import Path
from typing import final

from sweeps.data.builtin import DATASETS
from sweeps.data.dataset import TEXTS, RawData
from sweeps.data.readers import files, hub, python_source
from sweeps.data.readers.examples import Examples, source_of
from sweeps.data.readers.spec import Columns
from sweeps.data.registry import Yields
from sweeps.data.tokens import LONGEST
from sweeps.errors import WrongInput


@final
class UserDataset:
    """Loader of a user-supplied data set. `look` reads ahead: the next call returns the same examples."""

    def __init__(self, name: str, columns: Columns):
        self.name, self.columns = name, columns
        self.kept: RawData | None = None

    @property
    def yields(self) -> Yields | None:
        """Kind that its user declares; None where it has to be read first."""
        if self.columns.tokenizer:
            return Yields("tokens")
        return Yields("images", self.columns.image_size) if self.columns.image_size else None

    def __call__(self, data_dir: Path | None) -> RawData:
        """The examples. Errors: WrongInput, in words for its user."""
        source, self.kept = self.kept or self.read(data_dir), None
        return source

    def look(self, data_dir: Path | None) -> RawData:
        """The examples, kept for the next call."""
        self.kept = self.kept or self.read(data_dir)
        return self.kept

    def read(self, data_dir: Path | None) -> RawData:
        """Read the source, of whatever kind it is."""
        columns = self.columns
        found: Examples | RawData
        if columns.source.startswith("openml:"):
            found = hub.of_openml(columns, data_dir)
        elif columns.source.startswith("hf:"):
            found = hub.of_hugging_face(columns)
        elif columns.path.exists():
            found = files.examples_of(columns)
        elif python_source.names_code(columns.source):
            found = python_source.examples_of(columns.source, data_dir)
        else:
            raise WrongInput(
                f"there is no data set {columns.source!r}: no such file or folder here, and no name of"
                " openml:NAME, hf:NAME or package.module:function. Ours are"
                f" {', '.join(sorted(DATASETS))}."
            )
        source = found if isinstance(found, RawData) else source_of(found, columns.drop_rare_classes)
        if columns.tokenizer and source.inputs.dtype.kind in TEXTS:
            ids, vocabulary = hub.tokenised(source.inputs, columns.tokenizer, LONGEST)
            texts = tuple(map(str, source.inputs))
            source = replace(source, inputs=ids, vocabulary=vocabulary, shown=texts)
        return source
