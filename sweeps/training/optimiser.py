"""Optimisers of a population: one step moves every member, each at its own learning rate and weight decay."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import groupby
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from sweeps.task import Optimiser as Name
from sweeps.training.member import Member


class Optimiser(ABC):
    """Moves parameters whose first dimension is the member, in place.

    torch's fused kernels do the work: they are called directly, since a `torch.optim` optimiser imports
    torch's compiler, which takes two seconds, and allows one learning rate only. Adjacent members with equal
    rates share a call; a member's numbers do not depend on the call it is in. Members step together: `count`
    is the number of steps of each.
    """

    def __init__(self, parameters: Sequence[Float[Tensor, "member ..."]], members: Sequence[Member]):
        self.parameters = list(parameters)
        rates = [(member.learning_rate, member.weight_decay) for member in members]
        self.runs: list[tuple[slice, float, float]] = []
        for (learning_rate, weight_decay), run in groupby(range(len(rates)), key=lambda row: rates[row]):
            rows = list(run)
            self.runs.append((slice(rows[0], rows[-1] + 1), learning_rate, weight_decay))
        clips = [member.clip for member in members]
        self.count = torch.zeros((), device=self.parameters[0].device)
        self.clip = (
            None
            if max(clips) == float("inf") == min(clips)
            else torch.tensor(clips, device=self.parameters[0].device)
        )

    @torch.no_grad()
    def step(self, gradients: Sequence[Float[Tensor, "member ..."]], rate: float | Float[Tensor, ""]) -> None:
        """One step at `rate` times each member's learning rate; on a GPU the rate is a tensor, so that the
        step can be replayed.
        """
        self.count += 1
        gradients = [
            laid_out(gradient, parameter)
            for gradient, parameter in zip(gradients, self.parameters, strict=True)
        ]
        if self.clip is not None:
            gradients = clipped(gradients, self.clip)
        if len(self.runs) == 1:
            _, learning_rate, weight_decay = self.runs[0]
            self.move(slice(None), gradients, rate * learning_rate, weight_decay)
        else:
            for rows, learning_rate, weight_decay in self.runs:
                self.move(
                    rows, [gradient[rows] for gradient in gradients], rate * learning_rate, weight_decay
                )

    @abstractmethod
    def move(
        self, rows: slice, gradients: Sequence[Tensor], learning_rate: float | Tensor, weight_decay: float
    ) -> None:
        """Move the members in `rows`."""

    @abstractmethod
    def state(self) -> dict[str, list[Float[Tensor, "member ..."]]]:
        """What the next step depends on, a tensor per parameter under each name."""


@final
class AdamW(Optimiser):
    """AdamW with betas 0.9 and 0.999 and ε = 1e-8 (Loshchilov and Hutter 2019)."""

    def __init__(self, parameters: Sequence[Float[Tensor, "member ..."]], members: Sequence[Member]):
        super().__init__(parameters, members)
        self.first = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.second = [torch.zeros_like(parameter) for parameter in self.parameters]

    @override
    def move(
        self, rows: slice, gradients: Sequence[Tensor], learning_rate: float | Tensor, weight_decay: float
    ) -> None:
        torch._fused_adamw_(
            [parameter[rows] for parameter in self.parameters],
            list(gradients),
            [first[rows] for first in self.first],
            [second[rows] for second in self.second],
            [],
            [self.count] * len(self.parameters),
            lr=learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=weight_decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    @override
    def state(self) -> dict[str, list[Float[Tensor, "member ..."]]]:
        return {"first": self.first, "second": self.second}


@final
class SGD(Optimiser):
    """Stochastic gradient descent with Nesterov's momentum of 0.9, as torch.optim.SGD; the weight decay is
    added to the gradient.
    """

    def __init__(self, parameters: Sequence[Float[Tensor, "member ..."]], members: Sequence[Member]):
        super().__init__(parameters, members)
        self.momentum = [torch.zeros_like(parameter) for parameter in self.parameters]

    @override
    def move(
        self, rows: slice, gradients: Sequence[Tensor], learning_rate: float | Tensor, weight_decay: float
    ) -> None:
        torch._fused_sgd_(
            [parameter[rows] for parameter in self.parameters],
            list(gradients),
            [momentum[rows] for momentum in self.momentum],
            weight_decay=weight_decay,
            momentum=0.9,
            lr=learning_rate,
            dampening=0.0,
            nesterov=True,
            maximize=False,
            is_first_step=False,
        )

    @override
    def state(self) -> dict[str, list[Float[Tensor, "member ..."]]]:
        return {"momentum": self.momentum}


KERNELS: dict[Name, type[AdamW] | type[SGD]] = {"adamw": AdamW, "sgd": SGD}


def laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient in the memory order of its parameter: the fused kernels walk both side by side. Padding
    has gradient 0.
    """
    if gradient.stride() == parameter.stride() and gradient.shape == parameter.shape:
        return gradient
    if gradient.numel() == parameter.numel() and parameter.is_contiguous() and gradient.is_contiguous():
        return gradient.view(parameter.shape)
    ordered = torch.zeros_like(parameter)
    if gradient.shape == parameter.shape:
        return ordered.copy_(gradient)
    flat = gradient.flatten(1)
    ordered[:, : flat.shape[1]] = flat
    return ordered


def clipped(
    gradients: Sequence[Float[Tensor, "member ..."]], clip: Float[Tensor, " member"]
) -> list[Float[Tensor, "member ..."]]:
    """Gradients of which each member's norm, over all parameters, is at most `clip`."""
    squares = torch.zeros_like(clip)
    for gradient in (
        gradients
    ):  # one after another: a sum over a stacked dimension rounds otherwise in other places of it
        squares += gradient.flatten(1).square().sum(1)
    norm = squares.sqrt()
    share = (clip / (norm + 1e-6)).clamp(max=1)
    return [gradient * share.reshape(-1, *[1] * (gradient.ndim - 1)) for gradient in gradients]
