"""Structured vector and matrix scaling: a temperature, then corrections that cost the more the more of them
there are (Berta, Holzmüller, Jordan and Bach 2026, "Structured matrix scaling for multi-class calibration",
arXiv 2511.03685).
"""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from typing_extensions import override

from lscal.calibrators.calibrator import Calibrator
from lscal.calibrators.softmax_regression import Diagonal, Full, Structure, flat, groups, minimise
from lscal.calibrators.temperature import HIGHEST, LOWEST, Temperature
from lscal.predictions import check


@final
@dataclass(frozen=True, eq=False)
class StructuredVectorScaling(Calibrator):
    """SVS: logits w_k·x_k + b_k of x = log((1-λ)·softmax(z/T) + λ/K), where w and b minimise Σ NLL + K·Σ_k
    ((w_k - 1)² + b_k²).

    T is that of temperature scaling, and λ = 1/(N+1): one example more, spread over all classes, so that x is
    at least about -log(K(N+1)). The ridge of each of the K scales and biases is K, so that many classes with
    few examples leave the temperature as it is. Penalties and mixture are those of probmetrics 1.3 (ridge,
    λ = 1, ρ = τ = 1), which divides the objective by N. A masked class counts as one of probability 0 in x,
    and stays masked. The objective is strictly convex.

    Attributes:
        temperature: T of each member, in [0.01, 1000].
        uniform: λ, in (0, 1).
        scale: w of each class. May be negative.
        bias: b of each class; these sum to 0.
        converged: whether this is the minimum (to 1e-12 nats, or a gradient of 1e-6 per example).
    """

    method: ClassVar[str] = "svs"
    temperature: Float[Tensor, "*member"]
    uniform: Float[Tensor, "*member"]
    scale: Float[Tensor, "*member class"]
    bias: Float[Tensor, "*member class"]
    converged: Bool[Tensor, "*member"]

    def __post_init__(self) -> None:
        verify(self, self.scale, "scale", 1)

    @override
    @classmethod
    def fit(
        cls, logits: Float[Tensor, "*member example class"], labels: Integer[Tensor, " example"]
    ) -> "StructuredVectorScaling":
        """All members at once. Some 10 passes over the logits, and the exact Hessian up to K = 512."""
        labels = labels.long()
        check(logits, labels)
        *members, _, classes = logits.shape
        ridge = torch.full((2, classes), 2.0 * classes, dtype=torch.float64, device=logits.device)
        temperature, uniform, theta, converged = solved(logits, labels, Diagonal(), ridge.flatten())
        scale, bias = theta.reshape(*members, 2, classes).unbind(-2)
        return cls(temperature, uniform, 1 + scale, bias.contiguous(), converged)

    @override
    def __call__(
        self, logits: Float[Tensor, "*member example class"]
    ) -> Float[Tensor, "*member example class"]:
        scale, bias = (part.to(logits.device).unsqueeze(-2) for part in (self.scale, self.bias))
        x = mixed(logits.to(torch.float64), self.temperature, self.uniform, -1)
        return (scale * x + bias).masked_fill(logits.isneginf(), -torch.inf)


@final
@dataclass(frozen=True, eq=False)
class StructuredMatrixScaling(Calibrator):
    """SMS: logits W·x + b of the x of `StructuredVectorScaling`, where W and b minimise Σ NLL + K·Σ_k
    ((W_kk - 1)² + b_k²) + K(K-1)·Σ_{j≠k} W_jk².

    It can also tell classes apart which the model confuses in a way that depends on a third one. Penalties
    are those of probmetrics 1.3, as there. Where examples are few beside K², it is SVS in effect.

    Attributes:
        temperature: T of each member, in [0.01, 1000].
        uniform: λ, in (0, 1).
        matrix: W; row j makes the logit of class j.
        bias: b of each class; these sum to 0.
        converged: whether this is the minimum (to 1e-12 nats, or a gradient of 1e-6 per example).
    """

    method: ClassVar[str] = "sms"
    temperature: Float[Tensor, "*member"]
    uniform: Float[Tensor, "*member"]
    matrix: Float[Tensor, "*member class class"]
    bias: Float[Tensor, "*member class"]
    converged: Bool[Tensor, "*member"]

    def __post_init__(self) -> None:
        verify(self, self.matrix, "matrix", 2)

    @override
    @classmethod
    def fit(
        cls, logits: Float[Tensor, "*member example class"], labels: Integer[Tensor, " example"]
    ) -> "StructuredMatrixScaling":
        """All members at once. Some 15 passes over the logits up to K = 300, up to 100 above, each of 2·N·K²
        multiplications: 4 to 10 s for N = 5000, K = 1000 on one core. Beside the logits, memory stays below
        1 GB up to K = 1000, and grows as 256·K² bytes above.
        """
        labels = labels.long()
        check(logits, labels)
        *members, _, classes = logits.shape
        ridge = torch.full((classes, classes + 1), 2.0 * classes, dtype=torch.float64, device=logits.device)
        ridge[:, :-1] *= (classes - 1) ** (1 - torch.eye(classes, dtype=torch.float64, device=logits.device))
        temperature, uniform, theta, converged = solved(logits, labels, Full(), ridge.flatten())
        rows = theta.reshape(*members, classes, classes + 1)
        matrix = rows[..., :-1] + torch.eye(classes, dtype=torch.float64, device=logits.device)
        return cls(temperature, uniform, matrix, rows[..., -1].contiguous(), converged)

    @override
    def __call__(
        self, logits: Float[Tensor, "*member example class"]
    ) -> Float[Tensor, "*member example class"]:
        matrix, bias = self.matrix.to(logits.device), self.bias.to(logits.device).unsqueeze(-2)
        x = mixed(logits.to(torch.float64), self.temperature, self.uniform, -1)
        return (x @ matrix.mT + bias).masked_fill(logits.isneginf(), -torch.inf)


def solved(
    logits: Float[Tensor, "*member example class"],
    labels: Integer[Tensor, " example"],
    structure: Structure,
    ridge: Float[Tensor, " parameter"],
) -> tuple[
    Float[Tensor, "*member"],
    Float[Tensor, "*member"],
    Float[Tensor, "*member parameter"],
    Bool[Tensor, "*member"],
]:
    """T, λ, the parameters θ and whether they are the minimum."""
    every = flat(logits)
    temperature = Temperature.fit(every, labels).value
    uniform = torch.full_like(temperature, 1 / (len(labels) + 1))
    found = [
        minimise(
            every[part],
            labels,
            lambda z, part=part: mixed(z, temperature[part], uniform[part], 1),  # type: ignore[misc]
            structure,
            ridge,
        )
        for part in groups(len(every), len(ridge))
    ]
    theta, converged = (torch.cat(column) for column in zip(*found, strict=True))
    members = logits.shape[:-2]
    return (
        temperature.reshape(members),
        uniform.reshape(members),
        theta.reshape(*members, len(ridge)),
        converged.reshape(members),
    )


def mixed(
    logits: Float[Tensor, "*row"],
    temperature: Float[Tensor, "*member"],
    uniform: Float[Tensor, "*member"],
    classes: int,
) -> Float[Tensor, "*row"]:
    """log((1-λ)·softmax(z/T) + λ/K), with the classes along a dimension; log(λ/K) where a class is masked."""
    temperature, uniform = (
        part.to(logits.device).unsqueeze(-1).unsqueeze(-1) for part in (temperature, uniform)
    )
    z = logits / temperature
    p = z.sub_(z.amax(classes, keepdim=True)).exp_()
    return p.mul_((1 - uniform) / p.sum(classes, keepdim=True)).add_(uniform / logits.shape[classes]).log_()


def verify(
    of: StructuredVectorScaling | StructuredMatrixScaling, weights: Tensor, name: str, dimensions: int
) -> None:
    """Refuse shapes and values that no fit gives."""
    shape = of.bias.shape
    parts = (of.temperature, of.uniform, weights, of.bias, of.converged)
    alike = of.temperature.shape == of.uniform.shape == of.converged.shape == shape[:-1]
    if len(shape) < 1 or not alike or weights.shape != shape + shape[-1:] * (dimensions - 1):
        names = ("temperature", "uniform", name, "bias", "converged")
        shapes = ", ".join(f"{what} {tuple(part.shape)}" for what, part in zip(names, parts, strict=True))
        wanted = ("(..., K)", "(..., K, K)")[dimensions - 1]
        raise ValueError(
            f"{of.method} has the shapes {shapes}; wanted {wanted} for {name}, (..., K) for bias, else (...)"
        )
    if of.converged.dtype != torch.bool:
        raise ValueError(f"{of.method} has numbers in converged; allowed are true and false")
    if not bool(weights.isfinite().all() & of.bias.isfinite().all()):
        raise ValueError(f"{of.method} has a {name} or a bias which is not finite")
    if not bool(((of.temperature >= LOWEST) & (of.temperature <= HIGHEST)).all()):
        raise ValueError(f"{of.method} has a temperature outside of {LOWEST} to {HIGHEST}")
    if not bool(((of.uniform > 0) & (of.uniform < 1)).all()):
        raise ValueError(f"{of.method} has a uniform outside of 0 to 1")
