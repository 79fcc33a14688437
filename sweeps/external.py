"""Catalogue: the data sets and networks that a plan can name, built in and user-supplied.

See docs/your-own-task.md. Registries stay as they are. The module of a user-supplied network is imported
when a task with it is resolved; data are read when they are loaded or looked at.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np

from sweeps.data.builtin import DATASETS, YIELDS
from sweeps.data.dataset import TEXTS
from sweeps.data.readers.spec import Columns, check_name
from sweeps.data.registry import Load, Yields
from sweeps.data.splits import split_rows
from sweeps.data.user_dataset import UserDataset
from sweeps.errors import WrongInput, unknown
from sweeps.models.builtin import ARCHITECTURES
from sweeps.models.external import architecture_of
from sweeps.models.registry import Architecture
from sweeps.task import Recipe

STEPS = 600
"""Fewest optimiser steps of a training whose recipe was not made for the data set."""
MOST_EPOCHS, LEAST_BATCH, BATCHES = 60, 16, 20
"""To that end: most epochs, smallest batch, and about how many batches an epoch has."""
USUAL = ("text_cnn", "cnn", "mlp", "translator")
"""Where no network is named, the first of these that reads what the data set yields."""


@final
class Catalogue:
    """Data sets and networks by name.

    Attributes:
        own_datasets: user-supplied data sets: where each comes from, and how it is read.
        own_networks: the spec of each user-supplied network, such as `my_models:net`.
        named: data sets and networks that were given, built-in ones included, in their order.
    """

    def __init__(self, datasets: object, architectures: object, data_dir: Path | None):
        """Check the entries of a plan. Errors: WrongInput."""
        self.data_dir = data_dir
        self.own_datasets, self.named_datasets = self.check_datasets(datasets)
        self.own_networks, self.named_networks = self.check_networks(architectures)
        self.loaders = {name: UserDataset(name, columns) for name, columns in self.own_datasets.items()}
        self.networks: dict[str, Architecture] = {}

    @staticmethod
    def check_datasets(entries: object) -> tuple[dict[str, Columns], tuple[str, ...]]:
        """The user-supplied data sets among the entries, and the names of all."""
        if not isinstance(entries, Mapping):
            raise WrongInput(
                f"datasets is {entries!r}; wanted a mapping from names to sources, such as {{pets: {{source:"
                " data/pets}}."
            )
        given = {
            check_name("a data set", name): one if isinstance(one, Columns) else Columns.of(str(name), one)
            for name, one in entries.items()
        }
        for name, columns in given.items():
            if name in DATASETS and (columns.source != name or columns.path.exists()):
                raise WrongInput(
                    f"there is a data set named {name!r} already; give yours another name: --name my_{name}."
                )
        return {name: columns for name, columns in given.items() if name not in DATASETS}, tuple(given)

    @staticmethod
    def check_networks(entries: object) -> tuple[dict[str, str], tuple[str, ...]]:
        """The specs of the user-supplied networks among the entries, and the names of all."""
        if not isinstance(entries, Mapping) or not all(
            isinstance(spec, str) and spec for spec in entries.values()
        ):
            raise WrongInput(
                f"architectures is {entries!r}; wanted a mapping from names to specs, such as {{net:"
                " 'my_models:net'}."
            )
        for name, spec in entries.items():
            check_name("an architecture", name)
            if spec == name and name not in ARCHITECTURES:
                raise unknown("architecture", name, ARCHITECTURES)
            if spec != name and name in ARCHITECTURES:
                raise WrongInput(
                    f"there is an architecture named {name!r} already; give yours another name:"
                    f" --architecture my_{name}={spec}."
                )
        return {name: spec for name, spec in entries.items() if spec != name}, tuple(entries)

    @cached_property
    def datasets(self) -> dict[str, Load]:
        """The loader of every data set."""
        return {**DATASETS, **self.loaders}

    @property
    def architectures(self) -> tuple[str, ...]:
        """The name of every network."""
        return tuple({**ARCHITECTURES, **self.own_networks})

    def own_network(self, name: str) -> Architecture | None:
        """A user-supplied network; None for a built-in one."""
        return self.architecture(name) if name in self.own_networks else None

    def architecture(self, name: str) -> Architecture:
        """A network; the module of a user-supplied one is imported. Errors: WrongInput."""
        if name not in self.own_networks:
            return ARCHITECTURES[name]
        if name not in self.networks:
            self.networks[name] = architecture_of(name, self.own_networks[name])
        return self.networks[name]

    def usual_tasks(self) -> list[str]:
        """The tasks where none is named: every given data set with every given network, or a suitable one."""
        if not self.named_datasets:
            return [f"digits/{name}" for name in self.named_networks or ("mlp",)]
        return [
            f"{name}/{one}"
            for name in self.named_datasets
            for one in self.named_networks or (self.suited(name),)
        ]

    def suited(self, name: str) -> str:
        """The network for the inputs of a data set: a text CNN, a CNN for images, a perceptron for the
        rest.
        """
        yields = self.yields(name) or self.seen(name)
        return next((one for one in USUAL if ARCHITECTURES[one].reads.takes(yields)), "mlp")

    def yields(self, name: str) -> Yields | None:
        """Declared kind of a data set; None where it has to be read first."""
        return self.loaders[name].yields if name in self.loaders else YIELDS.get(name)

    def seen(self, name: str) -> Yields:
        """Kind of a data set, by reading it. Errors: WrongInput where it cannot be read."""
        user = self.loaders.get(name)
        source = user.look(self.data_dir) if user else DATASETS[name](self.data_dir)
        if source.labels.ndim > 1:
            return Yields("sequences")
        if source.inputs.dtype.kind in TEXTS or source.vocabulary:
            return Yields("tokens")
        return (
            Yields("images", min(source.inputs.shape[2:])) if source.inputs.ndim == 4 else Yields("features")
        )

    def recipe(self, dataset: str, architecture: str) -> Recipe:
        """The recipe of a network for a data set."""
        return self.architecture(architecture).recipe(dataset)

    def sized(self, recipe: Recipe, dataset: str, architecture: str, train_examples: int | None) -> Recipe:
        """A recipe with as many steps as a small user-supplied data set needs: smaller batches, more epochs.

        Recipes for built-in data sets, and those that a user-supplied network has itself, stay as they are.
        """
        own = architecture in self.own_networks and self.architecture(architecture).recipes
        if dataset not in self.loaders or own:
            return recipe
        source = self.loaders[dataset].look(self.data_dir)
        labels = source.labels if source.labels.ndim == 1 else np.zeros(len(source.labels), np.int64)
        examples = min(len(split_rows(source, labels)["train"]), train_examples or len(labels))
        batch = min(recipe.batch_size, max(LEAST_BATCH, 2 ** int(np.log2(max(1, examples / BATCHES)))))
        epochs = max(recipe.epochs, min(MOST_EPOCHS, -(-STEPS // max(1, examples // batch))))
        return replace(recipe, batch_size=batch, epochs=epochs)
