"""Recipe: how one model of a task is trained, apart from ε and the seed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """AdamW with decoupled weight decay; the learning rate rises linearly over the first tenth of the steps, then falls
    to 0 along half a cosine. An epoch drops the last incomplete batch.

    Units: `epochs` passes over *train*, `batch_size` examples, `learning_rate` at its peak.
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
