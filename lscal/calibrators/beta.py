"""Beta calibration (Kull, Silva Filho and Flach 2017), by netcal."""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from typing_extensions import override

from lscal.calibrators import netcal
from lscal.calibrators.calibrator import Calibrator
from lscal.predictions import check

SMALLEST = torch.finfo(torch.float64).eps


@final
@dataclass(frozen=True, eq=False)
class Beta(Calibrator):
    """Logits a_k·log p_k - b_k·log(1-p_k) + c_k with p = softmax(z), a and b at least 0.

    netcal's extension to several classes: a multinomial regression on both logarithms, of p within [2e-16, 1
    - 2e-16]. What a saturated softmax has lost by then stays lost; temperature and vector scaling work on the
    logits themselves. A class without examples takes the mean of the others' weights and bias; with fewer
    than two classes present the calibrator is log p. netcal's time grows steeply with K, by a factor of five
    from K = 10 to 30.

    Attributes:
        weights: a_k and b_k of each class.
        bias: c_k.
    """

    method: ClassVar[str] = "beta"
    weights: Float[Tensor, "*member class 2"]
    bias: Float[Tensor, "*member class"]

    def __post_init__(self) -> None:
        if self.bias.ndim < 1 or self.weights.shape != (*self.bias.shape, 2):
            shapes = f"weights {tuple(self.weights.shape)} and bias {tuple(self.bias.shape)}"
            raise ValueError(f"beta has the shapes {shapes}; wanted (..., K, 2) and (..., K)")
        if not bool(self.weights.isfinite().all() & self.bias.isfinite().all()):
            raise ValueError("beta has weights or a bias which are not finite")

    @override
    @classmethod
    def fit(
        cls, logits: Float[Tensor, "*member example class"], labels: Integer[Tensor, " example"]
    ) -> "Beta":
        labels = labels.long()
        check(logits, labels)
        *members, _, classes = logits.shape
        answers = labels.cpu().numpy()
        present = np.bincount(answers, minlength=classes) > 0
        weights, bias = np.tile([1.0, 0.0], (*members, classes, 1)), np.zeros((*members, classes))
        if present.sum() > 1:
            for index in product(*map(range, members)):
                probabilities = logits[index].detach().cpu().to(torch.float64).softmax(-1).numpy()
                weights[index], bias[index] = netcal.beta_weights(probabilities, answers)
                weights[index][~present] = weights[index][present].mean(0)
                bias[index][~present] = bias[index][present].mean(0)
        return cls(torch.from_numpy(weights).to(logits.device), torch.from_numpy(bias).to(logits.device))

    @override
    def __call__(
        self, logits: Float[Tensor, "*member example class"]
    ) -> Float[Tensor, "*member example class"]:
        weights, bias = self.weights.to(logits.device), self.bias.to(logits.device)
        probabilities = logits.to(torch.float64).softmax(-1)
        up = probabilities.clamp(SMALLEST, 1 - SMALLEST).log()
        down = (1 - probabilities).clamp(SMALLEST, 1 - SMALLEST).log()
        a, b = (weights[..., i].unsqueeze(-2) for i in range(2))
        return (a * up - b * down + bias.unsqueeze(-2)).masked_fill(logits.isneginf(), -torch.inf)
