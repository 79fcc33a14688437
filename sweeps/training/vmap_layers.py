"""Layers of a population on a CPU: what vmap makes of linear layers and convolutions, and how their numbers
come to be independent.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from typing_extensions import override

warnings.filterwarnings(
    "ignore", "There is a performance drop because we have not yet implemented the batching rule"
)  # ways are timed

VECTOR = 16
"""Numbers in a cache line."""


class PopulationLayers(TorchFunctionMode):
    """While this mode is active, vmap maps linear layers to one batched product in each direction, and
    convolutions to a loop.

    vmap's own rule for linear layers yields weight gradients in transposed memory, which are copied before
    the optimiser can use them, and products that are five times slower where there are few classes: a fifth
    and a tenth of a step. Its rule for convolutions makes grouped ones, for which oneDNN is slower than for
    one after another, and chooses its kernel by the number of groups: a member's numbers would depend on the
    others.
    """

    @override
    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is functional.linear:
            return linear(*args, **(kwargs or {}))
        if func in (functional.conv1d, functional.conv2d):
            return convolution(func, *args, **(kwargs or {}))
        if func is functional.batch_norm and torch.is_autocast_enabled(
            "cpu"
        ):  # its statistics are float32, and vmap mixes no types
            return func(args[0].float(), *args[1:], **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def mapped(tensor: Tensor) -> bool:
    """Whether vmap maps over a tensor."""
    return torch._C._functorch.is_batchedtensor(tensor)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002
    """As `functional.linear`."""
    if not mapped(weight):
        return functional.linear(input, weight, bias)
    if torch.is_autocast_enabled("cpu"):
        precision = torch.get_autocast_dtype("cpu")
        input, weight, bias = (  # noqa: A001
            input.to(precision),
            weight.to(precision),
            None if bias is None else bias.to(precision),
        )
    result: Tensor = Linear.apply(input, weight, bias)  # type: ignore[no-untyped-call]
    return result


def convolution(
    func: Callable[..., Tensor],
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    *rest: Any,
    **named: Any,
) -> Tensor:
    """As `func`, which is `functional.conv1d` or `functional.conv2d`."""
    if not mapped(weight):
        return func(input, weight, bias, *rest, **named)
    result: Tensor = Convolution.apply(partial(func, **named), input, weight, bias, *rest)  # type: ignore[no-untyped-call]
    return result


def by_member(tensor: Tensor, dim: int | None, members: int) -> Tensor:
    """A tensor with the member as its first dimension; one that vmap does not map is the same for all."""
    return tensor.expand(members, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


class Linear(torch.autograd.Function):
    """input @ weightᵀ + bias, for weights that vmap maps over."""

    @staticmethod
    def forward(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        """Without vmap."""
        return functional.linear(input, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        """Nothing: `vmap` below takes the place of `forward`."""

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None,
    ) -> tuple[Tensor, int]:
        """With vmap: tensors have the member dimension at `in_dims`, the result has it first."""
        members = info.batch_size
        rows, weight = by_member(input, in_dims[0], members), by_member(weight, in_dims[1], members)
        bias = None if bias is None else by_member(bias, in_dims[2], members)
        product: Tensor = BatchedLinear.apply(rows.reshape(members, -1, rows.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
        return product.reshape(*rows.shape[:-1], product.shape[-1]), 0


class Convolution(torch.autograd.Function):
    """A convolution, for weights that vmap maps over: the members' own, one after another."""

    @staticmethod
    def forward(func: Callable[..., Tensor], *args: Any) -> Tensor:
        """Without vmap."""
        return func(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing: `vmap` below takes the place of `forward`."""

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[Any, ...],
        func: Callable[..., Tensor],
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None,
        *rest: Any,
    ) -> tuple[Tensor, int]:
        """With vmap: tensors have the member dimension at `in_dims`, the result has it first."""
        members = info.batch_size
        inputs, weights = by_member(input, in_dims[1], members), by_member(weight, in_dims[2], members)
        biases = [None] * members if bias is None else by_member(bias, in_dims[3], members)
        return torch.stack([func(*own, *rest) for own in zip(inputs, weights, biases, strict=True)]), 0


class BatchedLinear(torch.autograd.Function):
    """For each member m, input[m] @ weight[m]ᵀ + bias[m]."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Float[Tensor, "member row feature"],  # noqa: A002
        weight: Float[Tensor, "member unit feature"],
        bias: Float[Tensor, "member unit"] | None,
    ) -> Float[Tensor, "member row unit"]:
        """The layer's values."""
        ctx.save_for_backward(input, weight)
        ctx.biased = bias is not None
        result = product(input, weight.transpose(1, 2))
        return result if bias is None else result.add_(bias.unsqueeze(1))

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "member row unit"]) -> tuple[Tensor | None, ...]:
        """Gradients of what `forward` was given, from that of its result."""
        input, weight = ctx.saved_tensors  # noqa: A001
        to_input = product(gradient, weight) if ctx.needs_input_grad[0] else None
        to_weight = product(gradient.transpose(1, 2), input) if ctx.needs_input_grad[1] else None
        return to_input, to_weight, gradient.sum(1) if ctx.biased else None


def product(
    left: Float[Tensor, "member m k"], right: Float[Tensor, "member k n"]
) -> Float[Tensor, "member m n"]:
    """left[m] @ right[m] for each member, the same to the last bit wherever the member lies: a matrix product
    of odd size rounds otherwise where its operands begin at another place of a cache line.
    """
    result = room(len(left), left.shape[1], right.shape[2], left)
    return torch.bmm(aligned(left), aligned(right), out=result)


def aligned(matrices: Float[Tensor, "member m n"]) -> Float[Tensor, "member m n"]:
    """The same values, with each member's beginning at a multiple of `VECTOR` numbers."""
    if matrices.stride(0) % VECTOR == 0 and matrices.storage_offset() % VECTOR == 0:
        return matrices
    members, m, n = matrices.shape
    return room(members, m, n, matrices).copy_(matrices)


def room(members: int, m: int, n: int, like: Tensor) -> Float[Tensor, "member m n"]:
    """Memory for a matrix per member, each beginning at a multiple of `VECTOR` numbers."""
    return like.new_empty(members, -(-m * n // VECTOR) * VECTOR)[:, : m * n].view(members, m, n)
