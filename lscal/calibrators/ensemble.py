"""Ensemble temperature scaling (Zhang, Kailkhura and Han 2020, "Mix-n-Match", section 4.2)."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from typing_extensions import override

from lscal.calibrators.calibrator import Calibrator
from lscal.calibrators.temperature import HIGHEST, LOWEST, Temperature
from lscal.predictions import check

PRIOR = 0.01
"""Examples that each weight has beforehand. A third would cost 5 % of the NLL of a good model on 270."""
STEPS, HALVINGS, DECREMENT = 100, 40, 1e-14


@final
@dataclass(frozen=True, eq=False)
class EnsembleTemperature(Calibrator):
    """ETS: log(w₁·softmax(z/T) + w₂·softmax(z) + w₃/K), T of temperature scaling, w of least NLL on the
    simplex.

    The paper offers squared error and NLL as the loss; here T and w minimise the NLL. Beside the N examples w
    has a hundredth of an example's worth of prior for each part (Σ NLL - .01·Σ log w). So w is unique where
    two parts are the same (T = 1), and no class has probability 0. Predictions stay the same; with masked
    classes the uniform distribution is that over the others.

    Attributes:
        temperature: T of each member, in [0.01, 1000].
        weights: w₁, w₂ and w₃: positive, with sum 1.
        converged: whether the weights are the minimum and T is one, see `Temperature`.
    """

    method: ClassVar[str] = "ets"
    temperature: Float[Tensor, "*member"]
    weights: Float[Tensor, "*member 3"]
    converged: Bool[Tensor, "*member"]

    def __post_init__(self) -> None:
        if not self.weights.shape == (*self.temperature.shape, 3) == (*self.converged.shape, 3):
            shapes = (
                f"temperature {tuple(self.temperature.shape)}, weights {tuple(self.weights.shape)}, converged"
                f" {tuple(self.converged.shape)}"
            )
            raise ValueError(f"ets has the shapes {shapes}; wanted (...), (..., 3) and (...)")
        if self.converged.dtype != torch.bool:
            raise ValueError("ets has numbers in converged; allowed are true and false")
        if not bool(((self.temperature >= LOWEST) & (self.temperature <= HIGHEST)).all()):
            raise ValueError(f"ets has a temperature outside of {LOWEST} to {HIGHEST}")
        if not bool((self.weights >= 0).all() & ((self.weights.sum(-1) - 1).abs() < 1e-6).all()):
            raise ValueError("ets has weights which are negative or do not sum to 1")

    @override
    @classmethod
    def fit(
        cls, logits: Float[Tensor, "*member example class"], labels: Integer[Tensor, " example"]
    ) -> "EnsembleTemperature":
        """The temperature, then the weights of all members at once, by Newton's method."""
        labels = labels.long()
        check(logits, labels)
        logits = logits.detach()
        fitted = Temperature.fit(logits, labels)
        index = labels.expand(logits.shape[:-1]).unsqueeze(-1)
        own = torch.stack([part.gather(-1, index).squeeze(-1) for part in parts(logits, fitted.value)], -1)
        weights, converged = simplex(own)
        return cls(fitted.value, weights, converged & fitted.converged)

    @override
    def __call__(
        self, logits: Float[Tensor, "*member example class"]
    ) -> Float[Tensor, "*member example class"]:
        weights = self.weights.to(logits.device).unsqueeze(-2).unsqueeze(-2).unbind(-1)
        scaled, raw, uniform = parts(logits, self.temperature)
        return (weights[0] * scaled + weights[1] * raw + weights[2] * uniform).log()


def parts(
    logits: Float[Tensor, "*member example class"], temperature: Float[Tensor, "*member"]
) -> tuple[Tensor, Tensor, Tensor]:
    """softmax(z/T), softmax(z) and the uniform distribution over the classes that are not masked."""
    z = logits.to(torch.float64)
    allowed = ~z.isneginf()
    uniform = allowed / allowed.sum(-1, keepdim=True)
    return (z / temperature.to(z.device).unsqueeze(-1).unsqueeze(-1)).softmax(-1), z.softmax(-1), uniform


def simplex(
    own: Float[Tensor, "*member example 3"],
) -> tuple[Float[Tensor, "*member 3"], Bool[Tensor, "*member"]]:
    """w of least Σ NLL - .01·Σ log w, of the probabilities that each part gives the labels; whether it was
    found.

    On the simplex it is the minimum of -Σ log w·p - .01·Σ log w + (n+.03)·Σ w over all positive w, whose sum
    is 1 there, since scaling w adds constants to logarithms. By Newton's method with a line search that stays
    positive. Examples whose label is masked are left out.
    """
    possible = own.amax(-1, keepdim=True) > 0
    p = torch.where(possible, own, 1.0)
    count = possible.sum(-2) + 3 * PRIOR

    def value(w: Tensor) -> Tensor:
        fit = (possible.squeeze(-1) * (p @ w.unsqueeze(-1)).squeeze(-1).log()).sum(-1)
        return (count * w - PRIOR * w.log()).sum(-1) - fit

    w = torch.full_like(own[..., 0, :], 1 / 3)
    decrement = torch.full_like(w[..., 0], torch.inf)
    for _ in range(STEPS):
        pull = possible * p / (p @ w.unsqueeze(-1))
        gradient = count - pull.sum(-2) - PRIOR / w
        step = torch.linalg.solve(pull.mT @ pull + (PRIOR / w.square()).diag_embed(), gradient)
        decrement = (step * gradient).sum(-1)
        if bool((decrement <= DECREMENT).all()):
            break
        share = torch.ones_like(decrement)
        before = value(w)
        for _ in range(HALVINGS):
            after = value(w - share.unsqueeze(-1) * step)
            # NaN, which is not less, where a weight is not positive
            enough = after <= before - share * decrement / 4 + 1e-13 * before.abs()
            if bool(enough.all()):
                break
            share = torch.where(enough, share, share / 2)
        w = w - share.unsqueeze(-1) * step
    return w / w.sum(-1, keepdim=True), decrement <= 1e-8
