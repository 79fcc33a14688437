"""Vector scaling (Guo et al. 2017, section 4.2): a scale and a bias for each class."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from typing_extensions import override

from lscal.calibrators.calibrator import Calibrator
from lscal.calibrators.p_norm import centred
from lscal.calibrators.softmax_regression import Diagonal, flat, groups, minimise
from lscal.calibrators.temperature import Temperature
from lscal.predictions import check


@final
@dataclass(frozen=True, eq=False)
class VectorScaling(Calibrator):
    """Logits w_k·(z_k - mean z) + b_k, where w and b minimise Σ NLL + ½·Σ_k ((T·w_k - 1)² + b_k²), T of
    temperature scaling (1 where that has no minimum).

    The ridge is worth one standard normal prior on each parameter, centred on temperature scaling: beside N
    examples it is small, and it leaves a finite answer where classes are separable or missing. The objective
    is convex. The mean is taken over the classes that are not masked, so that logits and log probabilities
    of the same model give the same calibrator.

    Attributes:
        scale: w of each class. May be negative.
        bias: b of each class; these sum to 0.
        converged: whether this is the minimum (to 1e-12 nats, or a gradient of 1e-6 per example).
    """

    method: ClassVar[str] = "vector"
    scale: Float[Tensor, "*member class"]
    bias: Float[Tensor, "*member class"]
    converged: Bool[Tensor, "*member"]

    def __post_init__(self) -> None:
        if (
            self.scale.ndim < 1
            or self.scale.shape != self.bias.shape
            or self.scale.shape[:-1] != self.converged.shape
        ):
            shapes = (
                f"scale {tuple(self.scale.shape)}, bias {tuple(self.bias.shape)}, converged"
                f" {tuple(self.converged.shape)}"
            )
            raise ValueError(f"vector has the shapes {shapes}; wanted (..., K), (..., K) and (...)")
        if self.converged.dtype != torch.bool:
            raise ValueError("vector has numbers in converged; allowed are true and false")
        if not bool(self.scale.isfinite().all() & self.bias.isfinite().all()):
            raise ValueError("vector has a scale or a bias which is not finite")

    @override
    @classmethod
    def fit(
        cls, logits: Float[Tensor, "*member example class"], labels: Integer[Tensor, " example"]
    ) -> "VectorScaling":
        """All members at once, from temperature scaling. The parameters searched are T·w and b, both of the
        scale of 1.
        """
        labels = labels.long()
        check(logits, labels)
        *members, _, classes = logits.shape
        every = flat(logits)
        fitted = Temperature.fit(every, labels)
        temperature = torch.where(fitted.converged, fitted.value, 1.0).unsqueeze(-1).unsqueeze(-1)
        ridge = torch.ones(2 * classes, dtype=torch.float64, device=logits.device)
        found = [
            minimise(
                every[part],
                labels,
                lambda z, part=part: features(z) / temperature[part],  # type: ignore[misc]
                Diagonal(),
                ridge,
            )
            for part in groups(len(every), len(ridge))
        ]
        theta, converged = (torch.cat(column) for column in zip(*found, strict=True))
        v, bias = theta.reshape(-1, 2, classes).unbind(1)
        return cls(
            ((1 + v) / temperature.squeeze(-1)).reshape(*members, classes),
            bias.reshape(*members, classes),
            converged.reshape(members),
        )

    @override
    def __call__(
        self, logits: Float[Tensor, "*member example class"]
    ) -> Float[Tensor, "*member example class"]:
        scale, bias = (part.to(logits.device).unsqueeze(-2) for part in (self.scale, self.bias))
        return (scale * centred(logits.to(torch.float64)) + bias).masked_fill(logits.isneginf(), -torch.inf)


def features(logits: Float[Tensor, "member class example"]) -> Float[Tensor, "member class example"]:
    """z - mean z, and 0 for masked classes."""
    return centred(logits.mT).masked_fill(logits.mT.isneginf(), 0.0).mT
