"""Calibrator: the interface of every recalibration."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from jaxtyping import Float, Integer
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Calibrator(ABC):
    """A fitted map from logits to logits. `fit` returns one, so an unfitted calibrator does not exist.

    Every field is a tensor with the members' dimensions first. A subclass checks them in `__post_init__`,
    whether they come from a fit or from JSON.
    """

    method: ClassVar[str]
    """The name by which `CALIBRATORS` and JSON know the class."""

    @classmethod
    @abstractmethod
    def fit(
        cls, logits: Float[Tensor, "*member example class"], labels: Integer[Tensor, " example"]
    ) -> "Calibrator":
        """Fit on held-out logits, every member by itself.

        Labels may be of any integer type, logits of any float type; -inf logits (masked classes) stay -inf.
        Errors: ValueError for what `lscal.predictions.check` refuses.
        """

    @abstractmethod
    def __call__(
        self, logits: Float[Tensor, "*member example class"]
    ) -> Float[Tensor, "*member example class"]:
        """Recalibrated logits in float64, of the same shape, on the same device."""

    def to_json(self) -> str:
        """The method's name and every field as plain numbers, exact to the last bit: `{"method":
        "temperature", "value": …}`.
        """
        values = {field.name: getattr(self, field.name).tolist() for field in fields(self)}
        return json.dumps({"method": self.method} | values, allow_nan=False)

    @classmethod
    def from_fields(cls, values: Mapping[str, object]) -> "Calibrator":
        """The calibrator whose fields were read from JSON. Errors: ValueError, naming the field."""
        wanted = {field.name for field in fields(cls)}
        if set(values) != wanted:
            raise ValueError(
                f"{cls.method} has the fields {', '.join(sorted(wanted))}; got"
                f" {', '.join(sorted(values)) or 'none'}"
            )
        return cls(**{name: tensor_of(name, value) for name, value in values.items()})


def tensor_of(name: str, value: object) -> Tensor:
    """A number, a boolean or nested lists of either as a tensor, float64 or bool."""
    kinds = {type(leaf) for leaf in leaves(value)}
    if not (kinds <= {int, float} or kinds == {bool}):
        raise ValueError(
            f"{name} holds {' and '.join(sorted(kind.__name__ for kind in kinds))}; allowed are numbers, or"
            " true and false"
        )
    try:
        return torch.tensor(value, dtype=torch.bool if kinds == {bool} else torch.float64)
    except ValueError as error:
        raise ValueError(f"the lists of {name} are not all of the same length") from error


def leaves(value: object) -> Iterator[object]:
    """What lists, nested to any depth, hold."""
    if isinstance(value, list):
        for part in value:
            yield from leaves(part)
    else:
        yield value
