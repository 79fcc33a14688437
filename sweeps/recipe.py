"""Recipe: how one model of a task is trained, apart from ε and the seed."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Optimiser = Literal["adamw", "sgd"]
OPTIMISERS: tuple[Optimiser, ...] = get_args(Optimiser)


@dataclass(frozen=True)
class Recipe:
    """The learning rate rises linearly over the first tenth of the steps, then falls to 0 along half a cosine. An epoch
    drops the last incomplete batch.

    Attributes:
        epochs: passes over *train*.
        batch_size: examples in a step.
        learning_rate: at its peak.
        weight_decay: decoupled from the gradient for AdamW (Loshchilov and Hutter 2019), added to it for SGD, as torch does.
        optimiser: "adamw" with betas 0.9 and 0.999, or "sgd" with Nesterov's momentum of 0.9.
        augment: transformations of training images, see `sweeps.augmentation`: "flip", "translate:PIXELS", "cutout:PIXELS".
        clip: the largest gradient norm of a member, longer gradients are shortened to it; None for any length.
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
