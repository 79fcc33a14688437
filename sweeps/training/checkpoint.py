"""Checkpoint: members in the middle of their training, in a file from which the training goes on to the same
bits.
"""

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sweeps.errors import WrongInput
from sweeps.training.population import State

CURVE, STATE = "curve:", "state:"


@dataclass(frozen=True)
class Checkpoint:
    """What a training needs to go on. Random numbers are decided by seeds and epochs, so no generator is
    among it.

    Attributes:
        identity: what was trained, in words; another training may not go on from here.
        rows: which members are still trained.
        state: of these, in the order of `rows`.
        curves: measured so far, of all members.
        epochs: how many each member was trained.
    """

    identity: str
    rows: tuple[int, ...]
    state: State
    curves: dict[str, Float[Tensor, "epoch every"]]
    epochs: Int[Tensor, " every"]

    def write(self, path: Path) -> None:
        """Write a safetensors file; the one before it is replaced when the new one is complete on the
        disk.
        """
        tensors = {
            STATE + name: value.detach().cpu().contiguous().clone() for name, value in self.state.items()
        }
        tensors |= {CURVE + name: value.contiguous() for name, value in self.curves.items()}
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            save_file(
                tensors | {"epochs": self.epochs},
                partial,
                {"identity": self.identity, "rows": json.dumps(self.rows)},
            )
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    @staticmethod
    def read(path: Path) -> "Checkpoint":
        """Read what `write` wrote. Errors: WrongInput where the file is something else."""
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Checkpoint(
                identity=about["identity"],
                rows=tuple(json.loads(about["rows"])),
                state={
                    name.removeprefix(STATE): value
                    for name, value in tensors.items()
                    if name.startswith(STATE)
                },
                curves={
                    name.removeprefix(CURVE): value
                    for name, value in tensors.items()
                    if name.startswith(CURVE)
                },
                epochs=tensors["epochs"],
            )
        except (SafetensorError, KeyError, TypeError, OSError) as error:
            raise WrongInput(
                f"{path} is no checkpoint of a training: {error}. Delete it to train from the start."
            ) from error

    def check(self, identity: str, names: Collection[str]) -> None:
        """Raise WrongInput where the checkpoint belongs to another training, or lacks what a population's
        state is made of.
        """
        if identity != self.identity:
            raise WrongInput(
                f"the checkpoint is of another training: {self.identity}; this one is {identity}. Delete it"
                " to train from the start."
            )
        if self.state.keys() != set(names):
            odd = ", ".join(sorted(self.state.keys() ^ set(names)))
            raise WrongInput(
                f"the checkpoint and the training do not both have: {odd}. Delete it to train from the start."
            )
