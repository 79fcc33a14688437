"""Dropout of a population: masks that a seed decides, whoever else is trained beside it."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from typing_extensions import override

GLOBAL_RANDOM = threading.Lock()
"""Held while torch's own generator is seeded and drawn from: shards are threads that share it."""

PER_CHANNEL: dict[Any, int | None] = {
    functional.dropout: None,
    functional.dropout1d: 2,
    functional.dropout2d: 2,
    functional.dropout3d: 2,
}
"""torch's functions, and how many leading dimensions their masks have: all, or example and channel."""


@dataclass(frozen=True)
class Call:
    """A call of dropout in a forward pass: the shape of its mask, and the share it drops."""

    shape: tuple[int, ...]
    share: float

    def mask(self, generator: torch.Generator) -> Float[Tensor, "*shape"]:
        """0 where dropped, 1/(1-share) elsewhere, so that the mean stays."""
        if self.share == 1:
            return torch.zeros(self.shape, device=generator.device)
        kept = torch.rand(self.shape, generator=generator, device=generator.device) >= self.share
        return kept / (1 - self.share)


class Masking(TorchFunctionMode, ABC):
    """While this mode is active, each call of dropout in training is given to `self.drop`, in place of
    torch's random numbers.
    """

    @abstractmethod
    def drop(self, values: Tensor, call: Call) -> Tensor:
        """Drop values as the call asks."""

    @override
    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func in PER_CHANNEL:
            return self.dropout(PER_CHANNEL[func], *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def dropout(
        self,
        dimensions: int | None,
        input: Tensor,  # noqa: A002
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,  # noqa: ARG002
    ) -> Tensor:
        """In the place of torch's function, with its arguments."""
        if not training or p == 0:
            return input
        shape = (
            tuple(input.shape)
            if dimensions is None
            else (*input.shape[:dimensions], *[1] * (input.ndim - dimensions))
        )
        return self.drop(input, Call(shape, p))


class Recording(Masking):
    """Notes the calls of a forward pass, and drops nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    @override
    def drop(self, values: Tensor, call: Call) -> Tensor:
        self.calls.append(call)
        return values


class Applying(Masking):
    """Multiplies by given masks, one for each call."""

    def __init__(self, masks: Sequence[Tensor]):
        super().__init__()
        self.masks: Iterator[Tensor] = iter(masks)

    @override
    def drop(self, values: Tensor, call: Call) -> Tensor:
        return values * next(self.masks)


def calls_of(module: nn.Module, inputs: Shaped[Tensor, "example *shape"]) -> tuple[list[Call], bool]:
    """The calls of dropout in a training step on such inputs, and whether the module draws other random
    numbers too.

    The module is left as it was, and the global random state. Only one thread may draw from that: hold
    `GLOBAL_RANDOM`.
    """
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    training = module.training
    with torch.random.fork_rng(devices=[]), torch.no_grad(), Recording() as recording:
        torch.manual_seed(0)
        before = torch.get_rng_state()
        module.train()(inputs)
        random = not torch.equal(before, torch.get_rng_state())
        module.train(training)
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])
    return recording.calls, random
