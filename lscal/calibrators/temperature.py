"""Temperature scaling (Guo et al. 2017, section 4.2), every member at once."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from typing_extensions import override

from lscal.calibrators.calibrator import Calibrator
from lscal.predictions import check

LOWEST, HIGHEST = 0.01, 100.0
STEPS = 60
TOLERANCE = 1e-12
CHUNK = 65_536


@dataclass(frozen=True)
class Temperature(Calibrator):
    """Divides logits by T. T above 1 softens (the model was overconfident), below 1 sharpens.

    Attributes:
        value: T of each member, within [0.01, 100].
        converged: False where no temperature in that range is a minimum, such as when every example is right. The value is
            then the bound towards which the NLL falls.
    """

    value: Float[Tensor, "*member"]
    converged: Bool[Tensor, "*member"]

    @override
    @classmethod
    def fit(cls, logits: Float[Tensor, "*member example class"], labels: Int[Tensor, " example"]) -> "Temperature":
        """The T of least mean NLL, by Newton's method on s = log(1/T), safeguarded by bisection.

        The NLL is convex in 1/T, so its slope changes sign once. That root is kept bracketed; a Newton step that leaves
        the bracket is replaced by its midpoint. Works for over- and underconfident models alike, which the usual
        LBFGS recipe does not.
        """
        check(logits, labels)
        *member, examples, classes = logits.shape
        rows = logits.reshape(-1, examples, classes)
        low = torch.full((rows.shape[0],), -math.log(HIGHEST), dtype=torch.float64, device=logits.device)
        high = torch.full_like(low, -math.log(LOWEST))
        falls, rises = slopes(rows, labels, low.exp())[0] < 0, slopes(rows, labels, high.exp())[0] > 0
        inside = falls & rises
        s = torch.where(inside, 0.0, torch.where(falls, high, low))
        for _ in range(STEPS):
            beta = s.exp()
            slope, curvature = slopes(rows, labels, beta)
            low, high = torch.where(slope < 0, s, low), torch.where(slope < 0, high, s)
            step = -(slope * beta) / (curvature * beta.square() + slope * beta)
            proposal = s + step
            safe = ((proposal > low) & (proposal < high)) | (step.abs() < TOLERANCE)
            proposal = torch.where(safe, proposal, (low + high) / 2)
            proposal = torch.where(inside, proposal, s)
            moved, s = (proposal - s).abs(), proposal
            if bool((moved < TOLERANCE).all()):
                break
        return cls(value=(-s).exp().clamp(LOWEST, HIGHEST).reshape(member), converged=inside.reshape(member))

    @override
    def __call__(self, logits: Float[Tensor, "*member example class"]) -> Float[Tensor, "*member example class"]:
        return logits.to(torch.float64) / self.value.unsqueeze(-1).unsqueeze(-1)


def slopes(
    logits: Float[Tensor, "member example class"],
    labels: Int[Tensor, " example"],
    beta: Float[Tensor, " member"],
) -> tuple[Float[Tensor, " member"], Float[Tensor, " member"]]:
    """First and second derivative of the mean NLL of β·logits in β: mean(E_p[z] - z_label) and mean(Var_p[z])."""
    slope, curvature = torch.zeros_like(beta), torch.zeros_like(beta)
    scale = beta.unsqueeze(-1).unsqueeze(-1)
    for z, y in zip(torch.split(logits, CHUNK, 1), torch.split(labels, CHUNK), strict=True):
        z = z.to(torch.float64)
        z = z - z.amax(-1, keepdim=True)
        p = (scale * z).softmax(-1)
        z = z.clamp(min=-torch.finfo(torch.float32).max)  # a masked class has p = 0; 0 times a finite number is 0
        mean = (p * z).sum(-1, keepdim=True)
        at_label = z.gather(-1, y.expand(z.shape[:-1]).unsqueeze(-1))
        slope += (mean - at_label).sum((-1, -2))
        curvature += (p * (z - mean).square()).sum((-1, -2))
    return slope / labels.shape[0], curvature / labels.shape[0]
