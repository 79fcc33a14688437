"""User-supplied data sets and architectures, named by the command line or a plan. See docs/your-own-task.md.

A reader of a kind of file returns `Examples`; `examples.source_of` makes a `Source` of them, and from there
on they are like any other data set.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np

from sweeps.data.builtin import DATASETS, YIELDS
from sweeps.data.dataset import TEXTS, Source
from sweeps.data.readers import files, hub, python_source
from sweeps.data.readers.examples import Examples, source_of
from sweeps.data.readers.spec import Columns, check_name
from sweeps.data.registry import Yields
from sweeps.data.splits import split_rows
from sweeps.data.tokens import LONGEST
from sweeps.errors import WrongInput, unknown
from sweeps.models.builtin import ARCHITECTURES
from sweeps.models.external import architecture_of
from sweeps.task import Recipe

STEPS = 600
"""Optimiser steps in a training, at least, where a recipe was not made for the data set."""
MOST_EPOCHS, LEAST_BATCH, BATCHES = 60, 16, 20
"""To that end a small data set is seen so often at most, in batches of so many at least, about so many to an
epoch.
"""
OWN_ARCHITECTURES: dict[str, str] = {}
"""The spec of each architecture which was brought."""
USUAL = ("text_cnn", "cnn", "mlp", "translator")
"""The first of them which reads what a data set yields is its network where none is named."""


@final
class Brought:
    """The loader of a data set that was brought. What it has read to look at, it gives away at its next call
    and does not keep.
    """

    def __init__(self, name: str, columns: Columns):
        self.name, self.columns = name, columns
        self.kept: Source | None = None

    @property
    def yields(self) -> Yields | None:
        """What its user says it yields; None where that is known only once it is read."""
        if self.columns.tokenizer:
            return Yields("tokens")
        return Yields("images", self.columns.image_size) if self.columns.image_size else None

    def __call__(self, data_dir: Path | None) -> Source:
        """The examples. Errors: WrongInput, in words for the person who brought them."""
        source, self.kept = self.kept or self.read(data_dir), None
        return source

    def look(self, data_dir: Path | None) -> Source:
        """The examples, kept for the next call."""
        self.kept = self.kept or self.read(data_dir)
        return self.kept

    def read(self, data_dir: Path | None) -> Source:
        """Read the source, of whatever kind it is."""
        columns = self.columns
        found: Examples | Source
        if columns.source.startswith("openml:"):
            found = hub.of_openml(columns, data_dir)
        elif columns.source.startswith("hf:"):
            found = hub.of_hugging_face(columns)
        elif columns.path.exists():
            found = files.examples_of(columns)
        elif python_source.names_code(columns.source):
            found = python_source.examples_of(columns.source, data_dir)
        else:
            ours = sorted(name for name, one in DATASETS.items() if not isinstance(one, Brought))
            raise WrongInput(
                f"there is no data set {columns.source!r}: no such file or folder here, and no name of"
                " openml:NAME, hf:NAME or package.module:function. Ours are"
                f" {', '.join(ours)}."
            )
        source = found if isinstance(found, Source) else source_of(found, columns.drop_rare_classes)
        if columns.tokenizer and source.inputs.dtype.kind in TEXTS:
            ids, vocabulary = hub.tokenised(source.inputs, columns.tokenizer, LONGEST)
            source = replace(source, inputs=ids, vocabulary=vocabulary, shown=tuple(map(str, source.inputs)))
        return source


def bring_datasets(entries: object) -> dict[str, Columns]:
    """Make the data sets of a plan known by their names; of ours, nothing is to be done. Errors:
    WrongInput.
    """
    if not isinstance(entries, Mapping):
        raise WrongInput(
            f"datasets is {entries!r}; wanted a mapping from names to sources, such as {{pets: {{source:"
            " data/pets}}."
        )
    brought = {
        check_name("a data set", name): one if isinstance(one, Columns) else Columns.of(str(name), one)
        for name, one in entries.items()
    }
    for name, columns in brought.items():
        known = DATASETS.get(name)
        if (
            known is not None
            and not isinstance(known, Brought)
            and (columns.source != name or columns.path.exists())
        ):
            raise WrongInput(
                f"there is a data set named {name!r} already; give yours another name: --name my_{name}."
            )
        if (known is None or isinstance(known, Brought)) and not (known and known.columns == columns):
            DATASETS[name] = Brought(name, columns)
    return brought


def bring_architectures(entries: object) -> dict[str, str]:
    """Make the architectures of a plan known by their names; of ours, nothing is to be done. Their modules
    are imported. Errors: WrongInput.
    """
    if not isinstance(entries, Mapping) or not all(
        isinstance(spec, str) and spec for spec in entries.values()
    ):
        raise WrongInput(
            f"architectures is {entries!r}; wanted a mapping from names to specs, such as {{net:"
            " 'my_models:net'}."
        )
    for name, spec in entries.items():
        check_name("an architecture", name)
        if spec == name and name not in OWN_ARCHITECTURES:
            if name not in ARCHITECTURES:
                raise unknown("architecture", name, ARCHITECTURES)
        elif name in ARCHITECTURES and name not in OWN_ARCHITECTURES:
            raise WrongInput(
                f"there is an architecture named {name!r} already; give yours another name: --architecture"
                f" my_{name}={spec}."
            )
        elif OWN_ARCHITECTURES.get(name) != spec:
            ARCHITECTURES[name] = architecture_of(name, spec)
            OWN_ARCHITECTURES[name] = spec
    return dict(entries)


def usual_tasks(
    datasets: Mapping[str, Columns], architectures: Mapping[str, str], data_dir: Path | None
) -> list[str]:
    """The tasks where none is named: every data set which was brought with every architecture, or with one
    which suits its inputs.
    """
    if not datasets:
        return [f"digits/{architecture}" for architecture in architectures or ("mlp",)]
    return [f"{name}/{one}" for name in datasets for one in architectures or (suited(name, data_dir),)]


def suited(name: str, data_dir: Path | None) -> str:
    """The architecture for a data set's inputs: a text CNN, a CNN for images, a perceptron for the rest."""
    yields = yields_of(name) or seen(name, data_dir)
    return next((one for one in USUAL if ARCHITECTURES[one].reads.takes(yields)), "mlp")


def yields_of(name: str) -> Yields | None:
    """What a data set is known to yield before it is read; None where that is not known."""
    loader = DATASETS[name]
    return loader.yields if isinstance(loader, Brought) else YIELDS.get(name)


def seen(name: str, data_dir: Path | None) -> Yields:
    """What a data set yields, by reading it. Errors: WrongInput where it cannot be read."""
    loader = DATASETS[name]
    source = loader.look(data_dir) if isinstance(loader, Brought) else loader(data_dir)
    if source.labels.ndim > 1:
        return Yields("sequences")
    if source.inputs.dtype.kind in TEXTS or source.vocabulary:
        return Yields("tokens")
    return Yields("images", min(source.inputs.shape[2:])) if source.inputs.ndim == 4 else Yields("features")


def recipe_for(
    recipe: Recipe, dataset: str, architecture: str, data_dir: Path | None, train_examples: int | None
) -> Recipe:
    """A recipe that was not made for a data set which was brought, with as many steps as a small one needs:
    smaller batches, more epochs.

    Other recipes are as they were: those which an architecture that was brought has itself.
    """
    loader = DATASETS[dataset]
    if not isinstance(loader, Brought) or (
        architecture in OWN_ARCHITECTURES and ARCHITECTURES[architecture].recipes
    ):
        return recipe
    source = loader.look(data_dir)
    labels = source.labels if source.labels.ndim == 1 else np.zeros(len(source.labels), np.int64)
    examples = min(len(split_rows(source, labels)["train"]), train_examples or len(labels))
    batch = min(recipe.batch_size, max(LEAST_BATCH, 2 ** int(np.log2(max(1, examples / BATCHES)))))
    epochs = max(recipe.epochs, min(MOST_EPOCHS, -(-STEPS // max(1, examples // batch))))
    return replace(recipe, batch_size=batch, epochs=epochs)
