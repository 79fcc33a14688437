"""p-norm normalisation of the logits: a repair of the ranking of errors, which temperature scaling cannot
change much.
"""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from typing_extensions import override

from lscal.calibrators.calibrator import Calibrator
from lscal.calibrators.temperature import HIGHEST, LOWEST, Temperature
from lscal.predictions import check
from lscal.selective import aurc

ORDERS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
"""Orders p that are tried; 0 stands for no normalisation."""


@final
@dataclass(frozen=True, eq=False)
class PNorm(Calibrator):
    """softmax(z̃/T), where z̃ = K^(1/p)·(z - mean z)/‖z - mean z‖_p, or z - mean z where p is 0.

    Label smoothing presses the largest logit down most where an answer is likely right, so that right answers
    and errors come closer (Xia et al. 2025); the norm tells them apart again (Cattelan and Silva 2024, "How
    to fix a broken confidence estimator"). Means and norms are taken over the classes that are not masked.
    The factor K^(1/p) keeps z̃ on the scale of 1. Predictions stay the same; their order by confidence does
    not.

    Attributes:
        p: the order of the norm of each member, 0 for none.
        temperature: T of each member, in [0.01, 1000].
        converged: whether T is a minimum of the NLL, see `Temperature`.
    """

    method: ClassVar[str] = "p_norm"
    p: Float[Tensor, "*member"]
    temperature: Float[Tensor, "*member"]
    converged: Bool[Tensor, "*member"]

    def __post_init__(self) -> None:
        if not self.p.shape == self.temperature.shape == self.converged.shape:
            shapes = (
                f"p {tuple(self.p.shape)}, temperature {tuple(self.temperature.shape)}, converged"
                f" {tuple(self.converged.shape)}"
            )
            raise ValueError(f"p_norm has the shapes {shapes}; wanted the same for all")
        if self.converged.dtype != torch.bool:
            raise ValueError("p_norm has numbers in converged; allowed are true and false")
        if not bool(((self.p == 0) | (self.p >= 1)).all() & self.p.isfinite().all()):
            raise ValueError("p_norm has a p which is neither 0 nor a number of at least 1")
        if not bool(((self.temperature >= LOWEST) & (self.temperature <= HIGHEST)).all()):
            raise ValueError(f"p_norm has a temperature outside of {LOWEST} to {HIGHEST}")

    @override
    @classmethod
    def fit(
        cls, logits: Float[Tensor, "*member example class"], labels: Integer[Tensor, " example"]
    ) -> "PNorm":
        """Of each p in `ORDERS`, the T of least NLL; of these, the p of least AURC of the confidence, the
        first of equals.
        """
        labels = labels.long()
        check(logits, labels)
        members = logits.shape[:-2]
        found = [best_order(logits[index].detach(), labels) for index in product(*map(range, members))]
        p, temperature, converged = (
            torch.stack(column).reshape(members) for column in zip(*found, strict=True)
        )
        return cls(p, temperature, converged)

    @override
    def __call__(
        self, logits: Float[Tensor, "*member example class"]
    ) -> Float[Tensor, "*member example class"]:
        rows = centred(logits.to(torch.float64))
        p, temperature = (part.to(logits.device).unsqueeze(-1) for part in (self.p, self.temperature))
        return rows / (norm(rows, p) * temperature).unsqueeze(-1)


def best_order(
    logits: Float[Tensor, "example class"], labels: Integer[Tensor, " example"]
) -> tuple[Tensor, Tensor, Tensor]:
    """p, T and whether T is a minimum, for one member."""
    rows = centred(logits if logits.dtype == torch.float64 else logits.float())
    correct = rows.argmax(-1) == labels
    best = torch.inf
    for order in ORDERS:
        p = torch.tensor(order, dtype=torch.float64, device=logits.device)
        normalised = rows / norm(rows, p).unsqueeze(-1)
        fitted = Temperature.fit(normalised, labels)
        risk = float(aurc(log_confidence(fitted(normalised)), correct))
        if risk < best:
            best, chosen = risk, (p, fitted.value, fitted.converged)
    return chosen


def centred(logits: Float[Tensor, "*row class"]) -> Float[Tensor, "*row class"]:
    """Logits less their mean over the classes that are not masked. Adding a constant to a row of logits
    changes nothing.
    """
    masked = logits.isneginf()
    mean = logits.masked_fill(masked, 0).sum(-1, keepdim=True) / (~masked).sum(-1, keepdim=True)
    return logits - mean


def norm(rows: Float[Tensor, "*row class"], p: Float[Tensor, "*#row"]) -> Float[Tensor, "*row"]:
    """(Σ|z_k|^p / K)^(1/p) over the classes that are not masked; 1 for p = 0, and where all logits are
    equal.
    """
    size = rows.masked_fill(rows.isneginf(), 0).abs()
    largest = size.amax(-1)
    p = p.to(rows.dtype)
    length = largest * (size / largest.unsqueeze(-1)).pow(p.unsqueeze(-1)).mean(-1).pow(1 / p)
    return torch.where((p > 0) & (largest > 0), length, 1)


def log_confidence(logits: Float[Tensor, "example class"]) -> Float[Tensor, " example"]:
    """log max softmax, in float64, told apart also where the confidence rounds to 1."""
    logits = logits.to(torch.float64)
    top, predicted = logits.max(-1, keepdim=True)
    return -(logits - top).exp().scatter(-1, predicted, 0.0).sum(-1).log1p()
