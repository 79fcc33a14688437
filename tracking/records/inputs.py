"""Inputs: the data of a sweep, as MLflow shows them: a data set for each split, with what it is used for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracking.records.outcome import Facts, Stage

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

CONTEXTS = {"train": "training", "select": "validation", "calibrate": "calibration", "test": "test"}
"""What each split is used for, in the words of MLflow's users."""
USED: Mapping[Stage, Sequence[str]] = {
    "pilot": ("train", "select", "calibrate"),
    "screen": ("train", "select", "calibrate"),
    "confirm": ("train", "select", "calibrate", "test"),
}
"""The splits that a trial of each stage reads."""


@dataclass(frozen=True)
class Inputs:
    """The examples of a data set.

    Attributes:
        examples: how many each split has.
        classes: the class names.
        dtype, shape: of one stored input, such as uint8 (1, 28, 28).
    """

    examples: Mapping[str, int]
    classes: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]

    def of(self, facts: Facts, splits: Sequence[str]) -> "list[DatasetInput]":
        """MLflow's entities for some splits: schema and profile are those that `mlflow.data` would write for
        arrays.
        """
        from mlflow.entities import (
            Dataset,
            DatasetInput,
            InputTag,
        )  # takes seconds, and who trains does not write

        features = [{"type": "tensor", "tensor-spec": {"dtype": self.dtype, "shape": [-1, *self.shape]}}]
        targets = [{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]
        schema = {"mlflow_tensorspec": {"features": json.dumps(features), "targets": json.dumps(targets)}}
        found = []
        for split in splits:
            profile = {
                "num_rows": self.examples[split],
                "features_shape": [self.examples[split], *self.shape],
                "targets_shape": [self.examples[split]],
                "classes": list(self.classes),
            }
            entity = Dataset(
                name=f"{facts.dataset} {split}",
                digest=facts.digest,
                source_type="local",
                source=json.dumps({"uri": facts.where}),
                schema=json.dumps(schema),
                profile=json.dumps(profile),
            )
            found.append(DatasetInput(entity, [InputTag("mlflow.data.context", CONTEXTS[split])]))
        return found
