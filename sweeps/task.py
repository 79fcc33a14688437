"""Task: a data set, an architecture and a recipe, fixed while ε varies; and how members are executed."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

from sweeps.errors import WrongInput

ExecutionKind = Literal["fused", "looped"]
KINDS: tuple[ExecutionKind, ...] = get_args(ExecutionKind)
Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
EXECUTION = re.compile(r"(?P<kind>fused|looped)(:(?P<members>[1-9]\d{0,5})(:(?P<shards>[1-9]\d{0,2}))?)?")


Optimiser = Literal["adamw", "sgd"]
OPTIMISERS: tuple[Optimiser, ...] = get_args(Optimiser)


@dataclass(frozen=True)
class Recipe:
    """The learning rate rises linearly over the first tenth of the steps, then falls to 0 along half a
    cosine. An epoch drops the last incomplete batch.

    Attributes:
        epochs: passes over *train*.
        batch_size: examples in a step.
        learning_rate: at its peak.
        weight_decay: decoupled from the gradient for AdamW (Loshchilov and Hutter 2019), added to it for SGD,
            as torch does.
        optimiser: "adamw" with betas 0.9 and 0.999, or "sgd" with Nesterov's momentum of 0.9.
        augment: transformations of training images, see `sweeps.training.augmentation`: "flip",
            "translate:PIXELS", "cutout:PIXELS".
        clip: the largest gradient norm of a member, longer gradients are shortened to it; None for any
            length.
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    optimiser: Optimiser = "adamw"
    augment: tuple[str, ...] = ()
    clip: float | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, as a plan's YAML has them; what is not in use is left out."""
        mapping = asdict(self) | {"augment": list(self.augment)}
        return {key: value for key, value in mapping.items() if value not in (None, [])}


class PinnedExecution(NamedTuple):
    """What `--execution` pins: `auto`, or `fused` or `looped`, then how many members are trained at a time,
    then in how many shards.

    The kind decides which numeric kernels are used, members and shards do not change a bit. None is left to
    `sweeps.training.autotune`.
    """

    kind: ExecutionKind | None = None
    members: int | None = None
    shards: int | None = None

    @classmethod
    def of(cls, text: str) -> "PinnedExecution":
        """Read `auto`, `fused`, `looped:16` or `fused:64:2`. Errors: WrongInput."""
        if text == "auto":
            return cls()
        if not (match := EXECUTION.fullmatch(text)):
            raise WrongInput(
                f"execution is {text!r}; allowed are auto, and fused or looped, as fused, fused:MEMBERS or"
                " fused:MEMBERS:SHARDS."
            )
        kind: ExecutionKind = "fused" if match["kind"] == "fused" else "looped"
        members, shards = (int(match[name]) if match[name] else None for name in ("members", "shards"))
        return cls(kind, members, shards)


@runtime_checkable
class Network(Protocol):
    """A network that can be built for a data set: a `sweeps.models.registry.Architecture`."""

    @property
    def version(self) -> str:
        """A digest of its code; "" where it is built in."""

    def module(self, dataset: Any) -> Any:
        """A freshly initialised `torch.nn.Module`."""


@dataclass(frozen=True)
class Task:
    """Data, architecture and recipe, fixed while ε varies.

    Attributes:
        start_from: a file of initial weights, see `sweeps.models.initial_weights`; each machine has its own.
        loader: reads a user-supplied data set, given the data directory; None for a built-in one.
        network: a user-supplied network; None for a built-in one.
    """

    dataset: str
    architecture: str
    recipe: Recipe
    start_from: str | None = field(default=None, repr=False)
    loader: Callable[[Path | None], Any] | None = field(default=None, repr=False, compare=False)
    network: Network | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """`dataset/architecture`."""
        return f"{self.dataset}/{self.architecture}"
