"""Population: members trained together on one device; they differ in ε, seed, learning rate and weight decay."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from typing_extensions import override

from lscal import smoothed_cross_entropy

EVALUATION_CHUNK = 512
Batch = Float[Tensor, "seed example *shape"]
Labels = Int[Tensor, "seed example"]


@dataclass(frozen=True)
class Member:
    """One point of the search space with one seed. The seed decides the initialisation and the order of the data."""

    epsilon: float
    seed: int
    learning_rate: float
    weight_decay: float


class Population(ABC):
    """Members under training. A step takes one batch per seed: members which share a seed share their batches.

    `seeds` are the distinct seeds, ascending; row i of a batch belongs to `seeds[i]`. The `member` dimension of every
    result follows `members`.
    """

    def __init__(self, members: Sequence[Member], build: Callable[[], nn.Module], noise: Float[Tensor, " class"], device: torch.device):
        self.members = tuple(members)
        self.seeds = tuple(sorted({member.seed for member in members}))
        self.seed_row = torch.tensor([self.seeds.index(member.seed) for member in members], device=device)
        self.epsilon = torch.tensor([member.epsilon for member in members], dtype=torch.float32, device=device)
        self.noise = None if torch.allclose(noise, noise.mean()) else noise.to(device, torch.float32)
        self.device = device
        with torch.random.fork_rng(devices=[]):
            self.initial = {seed: initialised(build, seed) for seed in self.seeds}

    @abstractmethod
    def step(self, inputs: Batch, labels: Labels, rate: float) -> Float[Tensor, " member"]:
        """One optimiser step on each member at `rate` times its learning rate. Returns the mean smoothed loss before it."""

    @abstractmethod
    def logits(self, inputs: Float[Tensor, "example *shape"]) -> Float[Tensor, "member example class"]:
        """Every member's logits of the same inputs, in evaluation mode, float32."""


def initialised(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A module as its architecture initialises it under `seed`, on the CPU, so that devices start alike."""
    torch.manual_seed(seed)
    return build()


@final
class FusedPopulation(Population):
    """All members in one forward and one backward pass: their parameters stacked, the module mapped over them by vmap.

    The members' losses are summed. As no parameter is shared, the gradient of the sum holds each member's own.
    """

    def __init__(self, members: Sequence[Member], build: Callable[[], nn.Module], noise: Float[Tensor, " class"], device: torch.device):
        super().__init__(members, build, noise, device)
        modules = [self.initial[member.seed] for member in self.members]
        parameters, buffers = stack_module_state(modules)
        self.parameters = {name: value.detach().to(device).clone().requires_grad_() for name, value in parameters.items()}
        self.buffers = {name: value.detach().to(device).clone() for name, value in buffers.items()}
        self.module = self.initial[self.seeds[0]].to(device)
        self.optimiser = StackedAdamW(list(self.parameters.values()), self.members)

        def forward(parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor) -> Tensor:
            logits: Tensor = functional_call(self.module, (parameters, buffers), (inputs,))
            return logits

        self.on_own_inputs = vmap(forward, in_dims=(0, 0, 0), randomness="different")
        self.on_same_inputs = vmap(forward, in_dims=(0, 0, None), randomness="different")

    @override
    def step(self, inputs: Batch, labels: Labels, rate: float) -> Float[Tensor, " member"]:
        self.module.train()
        logits = self.on_own_inputs(self.parameters, self.buffers, inputs[self.seed_row])
        loss = smoothed_cross_entropy(logits, labels[self.seed_row], self.epsilon, self.noise, masked=False).mean(-1)
        torch.autograd.backward(loss.sum())
        self.optimiser.step(rate)
        return loss.detach()

    @override
    @torch.no_grad()
    def logits(self, inputs: Float[Tensor, "example *shape"]) -> Float[Tensor, "member example class"]:
        self.module.eval()
        chunks = torch.split(inputs, EVALUATION_CHUNK)
        return torch.cat([self.on_same_inputs(self.parameters, self.buffers, chunk) for chunk in chunks], dim=1)


@final
class LoopedPopulation(Population):
    """One member after another, each an ordinary module; convolutions see channels_last inputs."""

    def __init__(self, members: Sequence[Member], build: Callable[[], nn.Module], noise: Float[Tensor, " class"], device: torch.device):
        super().__init__(members, build, noise, device)
        with torch.random.fork_rng(devices=[]):
            self.modules = [initialised(build, member.seed).to(device) for member in self.members]
        for module in self.modules:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimisers = [
            StackedAdamW(list(module.parameters()), [member]) for module, member in zip(self.modules, self.members, strict=True)
        ]

    @override
    def step(self, inputs: Batch, labels: Labels, rate: float) -> Float[Tensor, " member"]:
        losses = []
        rows = self.seed_row.tolist()
        epsilons = [member.epsilon for member in self.members]
        batches = [channels_last(batch) for batch in inputs]
        for module, optimiser, row, epsilon in zip(self.modules, self.optimisers, rows, epsilons, strict=True):
            module.train()
            loss = smoothed_cross_entropy(module(batches[row]), labels[row], epsilon, self.noise, masked=False).mean()
            torch.autograd.backward(loss)
            optimiser.step(rate)
            losses.append(loss.detach())
        return torch.stack(losses)

    @override
    @torch.no_grad()
    def logits(self, inputs: Float[Tensor, "example *shape"]) -> Float[Tensor, "member example class"]:
        chunks = [channels_last(chunk) for chunk in torch.split(inputs, EVALUATION_CHUNK)]
        for module in self.modules:
            module.eval()
        return torch.stack([torch.cat([module(chunk) for chunk in chunks]) for module in self.modules])


def channels_last(batch: Tensor) -> Tensor:
    """Images in the memory order which CPU and GPU convolutions prefer; other inputs as they are."""
    return batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch


class StackedAdamW:
    """AdamW (Loshchilov and Hutter 2019) on stacked parameters, with each member's own learning rate and weight decay.

    Where all members agree, torch's fused kernel does the step. Where they do not, the kernel takes a step of rate 1,
    and each member keeps its own fraction of it: the update is linear in the learning rate. The kernel is called
    directly, since making a `torch.optim` optimiser imports torch's compiler: two seconds of every start.
    """

    def __init__(self, parameters: Sequence[Tensor], members: Sequence[Member]):
        self.parameters = list(parameters)
        self.first = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.second = [torch.zeros_like(parameter) for parameter in self.parameters]
        device = self.parameters[0].device
        self.steps = [torch.zeros((), device=device) for _ in self.parameters]
        self.alike = len({(member.learning_rate, member.weight_decay) for member in members}) == 1
        self.member = members[0]
        self.rates = torch.tensor([member.learning_rate for member in members], device=device)
        self.decays = torch.tensor([member.weight_decay for member in members], device=device)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Apply the gradients at `rate` times each member's learning rate, and clear them."""
        if self.alike:
            self.fused(rate * self.member.learning_rate, self.member.weight_decay)
        else:
            before = [parameter.clone() for parameter in self.parameters]
            self.fused(1.0, 0.0)
            for parameter, old in zip(self.parameters, before, strict=True):
                rates = (rate * self.rates).reshape(-1, *[1] * (old.ndim - 1))
                decays = self.decays.reshape(rates.shape)
                parameter.sub_(old).mul_(rates).add_(old * (1 - rates * decays))
        for parameter in self.parameters:
            parameter.grad = None

    def fused(self, learning_rate: float, weight_decay: float) -> None:
        """One step of torch's fused AdamW kernel with the defaults of `torch.optim.AdamW`."""
        gradients = [parameter.grad for parameter in self.parameters]
        torch._foreach_add_(self.steps, 1.0)
        torch._fused_adamw_(
            self.parameters,
            gradients,  # type: ignore[arg-type]  # every parameter took part in the loss
            self.first,
            self.second,
            [],
            self.steps,
            lr=learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=weight_decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )


def learning_rate_at(step: int, steps: int) -> float:
    """Share of the peak learning rate at a step: a linear rise over the first tenth, then half a cosine to 0."""
    warmup = max(1, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
