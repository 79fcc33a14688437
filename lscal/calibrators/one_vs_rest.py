"""OneVsRest: each class's probability goes through a curve of its own, then each row is normalised."""

from abc import abstractmethod
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Float, Integer
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from lscal.calibrators.calibrator import Calibrator
from lscal.predictions import check

Array = NDArray[np.float64]
Answers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OneVsRest(Calibrator):
    """q_k = curve_k(p_k) with p = softmax(z), then q / Σq, then a little of the uniform distribution
    (Zadrozny and Elkan 2002).

    Where a curve is flat at 0, a label of that class would cost an infinite NLL. N examples cannot tell 0
    from less than about 1/N, so the result is (1-λ)·q + λ/K with λ = 1/(N+1), which is one example more,
    spread over all classes: the NLL of an example is at most log(K(N+1)). A row whose curves are all 0 keeps
    its p. Masked classes (-inf) have q = 0 and no share of λ. A class that none or all of the examples have
    gives no curve: the identity is used.

    Attributes:
        knots: probabilities between which each curve is linear, ascending; left and right of them it is
            constant. A step at e is two knots: e and the next float64. The last knot is repeated to fill the
            row.
        values: the curve at the knots, in [0, 1].
        uniform: λ of each member.
    """

    knots: Float[Tensor, "*member class knot"]
    values: Float[Tensor, "*member class knot"]
    uniform: Float[Tensor, "*member"]

    def __post_init__(self) -> None:
        if (
            self.knots.ndim < 2
            or self.knots.shape != self.values.shape
            or self.knots.shape[:-2] != self.uniform.shape
        ):
            shapes = ", ".join(
                f"{name} {tuple(getattr(self, name).shape)}" for name in ("knots", "values", "uniform")
            )
            raise ValueError(
                f"{self.method} has the shapes {shapes}; wanted (..., K, J), (..., K, J) and (...)"
            )
        if not bool((self.knots.diff(dim=-1) >= 0).all()):
            raise ValueError(f"{self.method} has knots which do not ascend")
        for name in ("knots", "values", "uniform"):
            if not bool(((getattr(self, name) >= 0) & (getattr(self, name) <= 1)).all()):
                raise ValueError(f"{self.method} has {name} outside of 0 to 1")

    @classmethod
    @abstractmethod
    def curve(cls, probability: Array, occurs: Answers) -> tuple[Array, Array]:
        """Knots and values of one class, given its probability in each example and whether it is the label
        (1) or not (0).
        """

    @override
    @classmethod
    def fit(
        cls, logits: Float[Tensor, "*member example class"], labels: Integer[Tensor, " example"]
    ) -> "OneVsRest":
        labels = labels.long()
        check(logits, labels)
        *members, examples, classes = logits.shape
        answers = labels.cpu().numpy()
        curves = []
        for index in product(*map(range, members)):
            probabilities = logits[index].detach().cpu().to(torch.float64).softmax(-1).numpy()
            for k in range(classes):
                occurs = (answers == k).astype(np.int64)
                known = 0 < occurs.sum() < examples
                curves.append(
                    cls.curve(probabilities[:, k], occurs)
                    if known
                    else (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
                )
        longest = max(len(knots) for knots, _ in curves)
        tables = [
            torch.from_numpy(np.stack([np.pad(row, (0, longest - len(row)), "edge") for row in side]))
            for side in zip(*curves, strict=True)
        ]
        knots, values = (table.to(logits.device).reshape(*members, classes, longest) for table in tables)
        uniform = torch.full(members, 1 / (examples + 1), dtype=torch.float64, device=logits.device)
        return cls(knots, values.clamp(0, 1), uniform)

    @override
    def __call__(
        self, logits: Float[Tensor, "*member example class"]
    ) -> Float[Tensor, "*member example class"]:
        knots, values, uniform = (part.to(logits.device) for part in (self.knots, self.values, self.uniform))
        if logits.shape[:-2] != uniform.shape or logits.shape[-1] != knots.shape[-2]:
            raise ValueError(
                f"{self.method} was fitted on (..., N, K) of {(*uniform.shape, 'N', knots.shape[-2])}; got"
                f" {tuple(logits.shape)}"
            )
        allowed = ~logits.isneginf()
        probabilities = logits.to(torch.float64).softmax(-1)
        raised = interpolate(knots, values, probabilities.mT.contiguous()).mT * allowed
        total = raised.sum(-1, keepdim=True)
        calibrated = torch.where(total > 0, raised / total, probabilities)
        share = uniform.unsqueeze(-1).unsqueeze(-1)
        return ((1 - share) * calibrated + share * allowed / allowed.sum(-1, keepdim=True)).log()


def interpolate(
    knots: Float[Tensor, "*curve knot"],
    values: Float[Tensor, "*curve knot"],
    at: Float[Tensor, "*curve example"],
) -> Float[Tensor, "*curve example"]:
    """Piecewise linear curves at some points; constant outside the knots, and where knots are repeated."""
    right = torch.searchsorted(knots, at, right=True).clamp(1, knots.shape[-1] - 1)
    x0, x1, y0, y1 = (table.gather(-1, index) for table in (knots, values) for index in (right - 1, right))
    share = ((at - x0) / (x1 - x0).clamp(min=torch.finfo(torch.float64).tiny)).clamp(0, 1)
    return y0 + share * (y1 - y0)
