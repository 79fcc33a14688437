"""Softmax regression with a ridge towards the identity, of many members at once: the solver of vector scaling
and of structured scaling.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from typing_extensions import override

from lscal.calibrators.temperature import SERIAL

KEPT = 1 << 25
"""Features that are kept from one pass to the next: 256 MB. More of them are made anew by each pass."""
STORED = 1 << 26
"""Numbers that the solver may hold beside the features, of all members in one go: 512 MB."""
NEWTON, BLOCKS = 1024, 300
"""Up to so many parameters of a member the first curvature is the whole Hessian; up to so many classes the
block of each row of the matrix; else the diagonal.
"""
SAMPLE = 2048
"""Examples of which the first curvature is taken, or twice the parameters where those are more."""
STEPS, PAIRS, HALVINGS = 500, 12, 40
RENEWED = 25
"""Steps after which the curvature is taken anew, where the first one was of no use."""
TOLERANCE = 1e-6
"""Gradient per example at which a fit counts as converged, too."""
DECREMENT = 1e-12
"""The solver goes on to a predicted decrease of the objective this small, in nats: with a ridge of 1 or more,
parameters are then off by 1e-6 at most.
"""


class Chunk(NamedTuple):
    """Some examples of all members, classes before examples since sums over few classes are faster so.

    Attributes:
        x: the features, finite everywhere, and below them a row of ones.
        open: 0 where a class is allowed, -inf where it is masked; None where none is masked.
        labels: the class of each example.
        counted: 0 where the label itself is masked, which has the same NLL everywhere; None where none is.
    """

    x: Float[Tensor, "member class+1 example"]
    open: Float[Tensor, "member class example"] | None
    labels: Integer[Tensor, " example"]
    counted: Float[Tensor, "member 1 example"] | None


Features = Callable[[Float[Tensor, "member class example"]], Float[Tensor, "member class example"]]
"""From logits to the features of the regression. What it gives for masked logits must be finite."""


@dataclass(frozen=True)
class Chunks:
    """The examples in chunks, again and again: kept where they are few, made anew by each pass else."""

    logits: Float[Tensor, "member example class"]
    labels: Integer[Tensor, " example"]
    features: Features

    def __iter__(self) -> Iterator[Chunk]:
        members, examples, classes = self.logits.shape
        rows = max(classes, SERIAL // (members * classes))  # a K × K matrix pays from K examples on
        for start in range(0, examples, rows):
            yield self.chunk(slice(start, start + rows))

    def chunk(self, rows: slice) -> Chunk:
        """One of them."""
        z, labels = self.logits[:, rows].mT.to(torch.float64).contiguous(), self.labels[rows]
        x = F.pad(self.features(z), (0, 0, 0, 1), value=1.0)
        if float(z.amin()) > -torch.inf:
            return Chunk(x, None, labels, None)
        wall = torch.zeros_like(z).masked_fill_(z.isneginf(), -torch.inf)
        index = labels.expand(len(z), 1, -1)
        return Chunk(x, wall, labels, 1.0 - wall.gather(1, index).isneginf().to(torch.float64))

    def kept(self) -> Iterable[Chunk]:
        """The chunks for many passes."""
        return list(self) if self.logits.numel() <= KEPT else self


class Structure(ABC):
    """Which entries of the matrix and the bias are free, as one row of parameters θ per member, all 0 at the
    identity.
    """

    @abstractmethod
    def size(self, classes: int) -> int:
        """How many parameters there are."""

    @abstractmethod
    def logits(
        self, theta: Float[Tensor, "member parameter"], x: Float[Tensor, "member class+1 example"]
    ) -> Float[Tensor, "member class example"]:
        """x + A·x + b."""

    @abstractmethod
    def pull(
        self, residual: Float[Tensor, "member class example"], x: Float[Tensor, "member class+1 example"]
    ) -> Float[Tensor, "member parameter"]:
        """The gradient in θ of Σ residual · logits."""

    @abstractmethod
    def curvature(
        self, p: Float[Tensor, "member class example"], x: Float[Tensor, "member class+1 example"]
    ) -> Float[Tensor, "member block size size"]:
        """The second derivatives of Σ NLL where the probabilities are p; those of blocks of parameters with
        each other, where all are too many.
        """


@final
class Diagonal(Structure):
    """A = diag(v): θ = (v, b)."""

    @override
    def size(self, classes: int) -> int:
        return 2 * classes

    @override
    def logits(self, theta: Tensor, x: Tensor) -> Tensor:
        v, b = theta.unsqueeze(-1).chunk(2, 1)
        return (x[:, :-1] * (1 + v)).add_(b)

    @override
    def pull(self, residual: Tensor, x: Tensor) -> Tensor:
        return torch.cat([(residual * x[:, :-1]).sum(-1), residual.sum(-1)], 1)

    @override
    def curvature(self, p: Tensor, x: Tensor) -> Tensor:
        x = x[:, :-1]
        weighted = p * x
        if self.size(p.shape[1]) > NEWTON:
            q = p - p.square()
            return torch.cat([(q * x * x).sum(-1), q.sum(-1)], 1).unsqueeze(-1).unsqueeze(-1)
        corner, side, rest = (part.sum(-1).diag_embed() for part in (weighted * x, weighted, p))
        own = torch.cat([torch.cat([corner, side], 2), torch.cat([side, rest], 2)], 1)
        both = torch.cat([weighted, p], 1)
        return (own - both @ both.mT).unsqueeze(1)


@final
class Full(Structure):
    """Every entry of A is free: θ = the rows of (A b), one after another."""

    @override
    def size(self, classes: int) -> int:
        return classes * (classes + 1)

    @override
    def logits(self, theta: Tensor, x: Tensor) -> Tensor:
        classes = x.shape[1] - 1
        matrix = theta.reshape(len(theta), classes, classes + 1)
        return (matrix + torch.eye(classes, classes + 1, dtype=x.dtype, device=x.device)) @ x

    @override
    def pull(self, residual: Tensor, x: Tensor) -> Tensor:
        return (residual @ x.mT).flatten(1)

    @override
    def curvature(self, p: Tensor, x: Tensor) -> Tensor:
        members, classes, examples = p.shape
        if self.size(classes) <= NEWTON:
            both = p.unsqueeze(2) * x.unsqueeze(1)
            own = both @ x.mT.unsqueeze(1)
            both = both.reshape(members, -1, examples)
            total = (both @ both.mT).neg_().reshape(members, classes, classes + 1, classes, classes + 1)
            total.diagonal(dim1=1, dim2=3).add_(own.movedim(1, -1))
            return total.reshape(members, 1, both.shape[1], -1)
        q = p - p.square()
        if classes > BLOCKS:
            return (q @ x.square().mT).flatten(1).unsqueeze(-1).unsqueeze(-1)
        return torch.stack([(x * q[:, k : k + 1]) @ x.mT for k in range(classes)], 1)


class Point(NamedTuple):
    """A place of the search: the parameters, the objective in nats and its gradient."""

    theta: Float[Tensor, "member parameter"]
    value: Float[Tensor, " member"]
    gradient: Float[Tensor, "member parameter"]


@dataclass(frozen=True)
class Objective:
    """Σ NLL(softmax(x + A·x + b)) + ½·Σ ridge·θ², over examples and over parameters."""

    structure: Structure
    chunks: Iterable[Chunk]
    ridge: Float[Tensor, " parameter"]

    def at(self, theta: Float[Tensor, "member parameter"]) -> Point:
        """The objective and its gradient: one pass over the examples."""
        value = (self.ridge * theta.square()).sum(-1) / 2
        gradient = self.ridge * theta
        for x, wall, labels, counted in self.chunks:
            index = labels.expand(len(x), 1, -1)
            scores = self.scores(theta, x, wall)
            own = scores.gather(1, index)
            p = scores.exp_()
            total = p.sum(1, keepdim=True)
            residual = p.mul_(total.reciprocal()).scatter_add_(
                1, index, own.new_full((1,), -1.0).expand(index.shape)
            )
            own = total.log_().sub_(own)
            if counted is not None:
                own, residual = own.masked_fill(counted == 0, 0.0), residual * counted
            value = value + own.sum((1, 2))
            gradient = gradient + self.structure.pull(residual, x)
        return Point(theta, value, gradient)

    def scores(self, theta: Tensor, x: Tensor, wall: Tensor | None) -> Tensor:
        """Logits less the largest of each example."""
        scores = self.structure.logits(theta, x)
        if wall is not None:
            scores += wall
        return scores.sub_(scores.amax(1, keepdim=True))

    def curvature(
        self, theta: Float[Tensor, "member parameter"], examples: int
    ) -> Float[Tensor, "member block size size"]:
        """Cholesky factors of the Hessian or of blocks along its diagonal, from evenly spaced examples.

        Where rounding leaves a block that is not positive definite, as logits of many magnitudes do, of its
        diagonal alone: the factors only shape the search.
        """
        stride = max(1, examples // max(SAMPLE, 2 * theta.shape[1] * (theta.shape[1] <= NEWTON)))
        seen = 0
        parts: list[tuple[Tensor, Tensor]] = []
        for x, wall, _, counted in self.chunks:
            places = slice(-seen % stride, None, stride)
            seen += x.shape[-1]
            p = self.scores(theta, x[..., places], None if wall is None else wall[..., places]).exp_()
            p *= (1 if counted is None else counted[..., places]) / p.sum(1, keepdim=True)
            parts.append((p, x[..., places]))
        p, x = (torch.cat(columns, -1) for columns in zip(*parts, strict=True))
        total: Tensor = self.structure.curvature(p, x) * (examples / x.shape[-1])
        total.diagonal(dim1=-2, dim2=-1).add_(self.ridge.reshape(total.shape[1:-1]))
        factor: Tensor
        factor, wrong = torch.linalg.cholesky_ex(total)
        if bool((wrong != 0).any()):
            least = self.ridge.reshape(total.shape[1:-1])
            diagonal = total.diagonal(dim1=-2, dim2=-1).nan_to_num(nan=0.0).maximum(least)
            factor = torch.where((wrong != 0)[..., None, None], diagonal.sqrt().diag_embed(), factor)
        return factor


def minimise(
    logits: Float[Tensor, "member example class"],
    labels: Integer[Tensor, " example"],
    features: Features,
    structure: Structure,
    ridge: Float[Tensor, " parameter"],
) -> tuple[Float[Tensor, "member parameter"], Bool[Tensor, " member"]]:
    """θ of each member, and whether it is the minimum (to 1e-12 nats, or a gradient of 1e-6 per example).

    L-BFGS on the exact gradient in float64, all members at once, from the identity. Its first curvature is
    the Hessian there, of some of the examples, so that ten to twenty passes do (Nocedal and Wright 2006,
    section 7.2, with this H₀). `features` gets the float64 logits of some examples, classes before examples;
    `ridge` is the curvature of each parameter's penalty in nats, above 0, so that the objective is strictly
    convex.
    """
    objective = Objective(structure, Chunks(logits, labels, features).kept(), ridge)
    here = objective.at(ridge.new_zeros(len(logits), len(ridge)))
    factor = objective.curvature(here.theta, len(labels))
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    found = done = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    for step in range(1, STEPS):
        if step % RENEWED == 0:
            factor, pairs = objective.curvature(here.theta, len(labels)), []
        direction = -descent(here.gradient, pairs, factor)
        slope = (direction * here.gradient).sum(-1)
        found = found | (~done & (-slope <= DECREMENT))
        done = done | found
        if bool(done.all()):
            break
        there = searched(objective, here, direction.masked_fill(done.unsqueeze(-1), 0.0), slope)
        change, bend = there.theta - here.theta, there.gradient - here.gradient
        product = (change * bend).sum(-1)
        stuck = product <= 0
        done = done | stuck
        pairs.append((change, bend, torch.where(stuck, 0.0, 1 / product)))
        pairs, here = pairs[-PAIRS:], there
    return here.theta, found | (here.gradient.abs().amax(-1) <= TOLERANCE * len(labels))


def inverse(gradient: Tensor, factor: Tensor) -> Tensor:
    """The first curvature's inverse times a gradient."""
    parts = gradient.reshape(*factor.shape[:-1], 1)
    parts = parts / factor.square() if factor.shape[-1] == 1 else torch.cholesky_solve(parts, factor)
    return parts.reshape(gradient.shape)


def descent(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]], factor: Tensor) -> Tensor:
    """The inverse curvature times the gradient, by the two loops of L-BFGS. A pair of weight 0 counts
    nothing.
    """
    shares = []
    for change, bend, weight in reversed(pairs):
        share = (weight * (change * gradient).sum(-1)).unsqueeze(-1)
        gradient = gradient - share * bend
        shares.append(share)
    result = inverse(gradient, factor)
    for (change, bend, weight), share in zip(pairs, reversed(shares), strict=True):
        result = result + change * (share - (weight * (bend * result).sum(-1)).unsqueeze(-1))
    return result


def searched(objective: Objective, here: Point, direction: Tensor, slope: Tensor) -> Point:
    """The point after a step which lowers the objective enough (Armijo), 1 or halved as often as it takes."""
    step = torch.ones_like(slope)
    slack = 1e-12 * here.value.abs() + 1e-12
    for _ in range(HALVINGS):
        there = objective.at(here.theta + step.unsqueeze(-1) * direction)
        enough = there.value <= here.value + 1e-4 * step * slope + slack
        if bool(enough.all()):
            break
        step = torch.where(enough, step, step / 2)
    return there


def groups(members: int, parameters: int) -> list[slice]:
    """Members that are fitted together, so that what the solver holds of them stays within `STORED`."""
    each = parameters * (2 * PAIRS + 8) + (parameters**2 * 3 if parameters <= NEWTON else 0)
    size = max(1, STORED // each)
    return [slice(start, start + size) for start in range(0, members, size)]


def flat(logits: Float[Tensor, "*member example class"]) -> Float[Tensor, "member example class"]:
    """All members in one dimension."""
    return logits.detach().reshape(math.prod(logits.shape[:-2]), *logits.shape[-2:])
