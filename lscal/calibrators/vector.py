"""Vector scaling (Guo et al. 2017, section 4.2): a scale and a bias for each class."""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from lscal.calibrators.calibrator import Calibrator
from lscal.calibrators.p_norm import centred
from lscal.calibrators.temperature import Temperature
from lscal.predictions import check

ELEMENTS = 1 << 20
"""Logits per chunk of a pass: 8 MB in float64."""
STEPS = 500
TOLERANCE = 1e-6


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
        converged: whether the gradient vanished (to 1e-6 per example).
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
        """By L-BFGS on the exact gradient in float64, from temperature scaling, one member after another."""
        labels = labels.long()
        check(logits, labels)
        members = logits.shape[:-2]
        found = [minimise(logits[index].detach(), labels) for index in product(*map(range, members))]
        scale, bias, converged = (
            torch.stack(column).to(logits.device) for column in zip(*found, strict=True)
        )
        classes = logits.shape[-1]
        return cls(
            scale.reshape(*members, classes), bias.reshape(*members, classes), converged.reshape(members)
        )

    @override
    def __call__(
        self, logits: Float[Tensor, "*member example class"]
    ) -> Float[Tensor, "*member example class"]:
        scale, bias = (part.to(logits.device).unsqueeze(-2) for part in (self.scale, self.bias))
        return (scale * centred(logits.to(torch.float64)) + bias).masked_fill(logits.isneginf(), -torch.inf)


def minimise(
    logits: Float[Tensor, "example class"], labels: Integer[Tensor, " example"]
) -> tuple[Tensor, Tensor, Tensor]:
    """w, b and whether the gradient vanished, for one member. The parameters searched are T·w and b, both of
    the scale of 1.
    """
    from scipy.optimize import minimize

    examples, classes = logits.shape
    fitted = Temperature.fit(logits, labels)
    temperature = float(fitted.value) if bool(fitted.converged) else 1.0
    chunk = max(1, ELEMENTS // classes)

    def objective(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w, b = torch.from_numpy(parameters).to(logits.device).reshape(2, classes)
        total = ((w - 1).square().sum() + b.square().sum()) / 2
        gradient = torch.stack([w - 1, b])
        for rows, answers in zip(torch.split(logits, chunk), torch.split(labels, chunk), strict=True):
            z = centred(rows.to(torch.float64)) / temperature
            masked = z.isneginf()
            z = z.masked_fill(masked, 0)
            log_p = (w * z + b).masked_fill(masked, -torch.inf).log_softmax(-1)
            at = answers.unsqueeze(-1)
            possible = ~masked.gather(-1, at)
            total -= log_p.gather(-1, at).masked_fill(~possible, 0).sum()
            residual = log_p.exp().scatter_add(-1, at, torch.full_like(z[:, :1], -1)) * possible
            gradient += torch.stack([(residual * z).sum(0), residual.sum(0)])
        return float(total) / examples, (gradient / examples).cpu().numpy().ravel()

    start = np.concatenate([np.ones(classes), np.zeros(classes)])
    options = {"maxiter": STEPS, "maxcor": 20, "gtol": TOLERANCE, "ftol": 0.0}
    solution = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    w, b = torch.from_numpy(solution.x).reshape(2, classes)
    converged = torch.tensor(bool(np.abs(solution.jac).max() <= TOLERANCE))
    return w / temperature, b, converged
