"""Population: members trained together on one device. They differ in ε, seed, learning rate, weight decay and more, see `Member`."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import final

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from typing_extensions import override

from lscal import smoothed_cross_entropy
from sweeps.dropout import Applying, Call, calls_of
from sweeps.layers import VECTOR, PopulationLayers
from sweeps.member import Member
from sweeps.optimiser import KERNELS, Optimiser
from sweeps.randomness import stream
from sweeps.recipe import Optimiser as OptimiserName
from sweeps.replay import Replay, side_streams

EVALUATION_CHUNK = {"cpu": 512, "cuda": 8192}
"""Examples scored at a time: what a core's cache takes, what keeps a GPU busy."""

Batch = Float[Tensor, "seed example *shape"]
Labels = Int[Tensor, "seed example"]
State = dict[str, Shaped[Tensor, "member ..."]]


class Population(ABC):
    """Members under training. A step takes one batch per seed: members which share a seed share their batches.

    `seeds` are the distinct seeds, ascending; row i of a batch belongs to `seeds[i]`. The `member` dimension of every
    result follows `members`. What becomes of a member depends on nobody else in the population, to the last bit.

    Args:
        build: makes a freshly initialised module.
        noises: the distributions which the members name, each (class,) or (class, class).
        precision: bfloat16 trains under autocast; parameters stay float32, and evaluation is float32.
    """

    def __init__(
        self,
        members: Sequence[Member],
        build: Callable[[], nn.Module],
        noises: Mapping[str, Float[Tensor, " class"] | Float[Tensor, "class class"]],
        device: torch.device,
        optimiser: OptimiserName = "adamw",
        precision: torch.dtype = torch.float32,
    ):
        self.members = tuple(members)
        self.build, self.noises, self.device, self.optimiser_name, self.precision = build, noises, device, optimiser, precision
        self.seeds = tuple(sorted({member.seed for member in members}))
        self.seed_row = torch.tensor([self.seeds.index(member.seed) for member in members], device=device)
        with torch.random.fork_rng(devices=[]):
            self.initial = {seed: initialised(build, seed) for seed in self.seeds}
        self.calls: list[Call] | None = None
        self.random = False
        self.replay: Replay | None = None
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Start an epoch: dropout draws from streams of the seeds and the epoch."""
        self.epoch, self.steps = epoch, 0
        self.streams = [stream(seed, epoch, "dropout", self.device) for seed in self.seeds]

    def step(self, inputs: Batch, labels: Labels, rate: float) -> Float[Tensor, " member"]:
        """One optimiser step on each member at `rate` times its learning rate. Returns the mean smoothed loss before it."""
        if self.calls is None:
            self.calls, self.random = calls_of(self.initial[self.seeds[0]], inputs[0].to("cpu"))
        masks = [torch.stack([call.mask(stream) for stream in self.streams]) for call in self.calls]
        self.steps += 1
        if self.device.type == "cpu" or self.random:
            return self.update(inputs, labels, rate, *masks)
        rates = torch.full((), rate, device=self.device)
        if self.replay is None:
            before = {name: value.clone() for name, value in self.state().items()}
            self.replay = Replay(self.update, inputs, labels, rates, *masks)
            self.load(before)
        return self.replay(inputs, labels, rates, *masks).clone()

    @abstractmethod
    def update(self, inputs: Batch, labels: Labels, rate: float | Float[Tensor, ""], *masks: Tensor) -> Float[Tensor, " member"]:
        """The step itself: it waits for nothing on the device. `masks` have the seed as first dimension."""

    @abstractmethod
    def logits(self, inputs: Float[Tensor, "example *shape"]) -> Float[Tensor, "member example class"]:
        """Every member's logits of the same inputs, in evaluation mode, float32."""

    @abstractmethod
    def state(self) -> State:
        """All that the next epoch depends on, beside the members: tensors whose first dimension is the member.

        Names are `parameter/…`, `buffer/…`, those of the optimiser, and `steps`: the same for every kind of population.
        """

    @abstractmethod
    def load(self, state: State) -> None:
        """Take over a state of the same members, whatever kind of population it comes from."""

    def kept(self, rows: Sequence[int]) -> "Population":
        """A population of some of the members, as they are now."""
        smaller = type(self)([self.members[row] for row in rows], self.build, self.noises, self.device, self.optimiser_name, self.precision)
        smaller.load({name: value[list(rows)] for name, value in self.state().items()})
        return smaller

    def noise(self, smoothing: str) -> Tensor | None:
        """The distribution of that name on the device; None where it is uniform."""
        noise = self.noises[smoothing]
        return None if torch.allclose(noise, noise.mean()) else noise.to(self.device, torch.float32)

    def autocast(self) -> torch.autocast | nullcontext[None]:
        """The precision of the training."""
        return nullcontext() if self.precision == torch.float32 else torch.autocast(self.device.type, self.precision)


def initialised(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A module as its architecture initialises it under `seed`, on the CPU, so that devices start alike."""
    torch.manual_seed(seed)
    return build()


@final
class FusedPopulation(Population):
    """All members in one forward and one backward pass: their parameters stacked, the module mapped over them by vmap.

    The members' losses are summed. As no parameter is shared, the gradient of the sum holds each member's own. A lone
    member is stacked with its double: kernels for a batch of one differ from the others.
    """

    @override
    def __init__(
        self,
        members: Sequence[Member],
        build: Callable[[], nn.Module],
        noises: Mapping[str, Float[Tensor, " class"] | Float[Tensor, "class class"]],
        device: torch.device,
        optimiser: OptimiserName = "adamw",
        precision: torch.dtype = torch.float32,
    ):
        super().__init__(members, build, noises, device, optimiser, precision)
        self.stacked = self.members if len(members) > 1 else self.members * 2
        parameters, buffers = stack_module_state([self.initial[member.seed] for member in self.stacked])
        self.shapes = {name: value.shape[1:] for name, value in parameters.items()}
        self.storage = {name: padded(value.detach().to(device)) for name, value in parameters.items()}
        self.parameters = {name: self.view(name, storage).requires_grad_() for name, storage in self.storage.items()}
        self.buffers = {name: value.detach().to(device).clone() for name, value in buffers.items()}
        self.module = self.initial[self.seeds[0]]
        self.optimiser = KERNELS[optimiser](list(self.storage.values()), self.stacked)
        self.rows = torch.tensor([self.seeds.index(member.seed) for member in self.stacked], device=device)
        self.groups = [
            (
                torch.tensor([row for row, member in enumerate(self.stacked) if member.smoothing == smoothing], device=device),
                torch.tensor([member.epsilon for member in self.stacked if member.smoothing == smoothing], device=device),
                self.noise(smoothing),
            )
            for smoothing in dict.fromkeys(member.smoothing for member in self.stacked)
        ]

        def forward(parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor, masks: Sequence[Tensor]) -> Tensor:
            with self.layers(), Applying(masks) if masks else nullcontext():
                logits: Tensor = functional_call(self.module, (parameters, buffers), (inputs,))
            return logits

        self.on_own_inputs = vmap(forward, in_dims=(0, 0, 0, 0))
        self.on_same_inputs = vmap(forward, in_dims=(0, 0, None, None))

    def layers(self) -> PopulationLayers | nullcontext[None]:
        """What vmap makes of layers: on a GPU its own rules serve well."""
        return PopulationLayers() if self.device.type == "cpu" else nullcontext()

    def view(self, name: str, storage: Float[Tensor, "member number"]) -> Float[Tensor, "member ..."]:
        """The numbers of a parameter in their shape, without the padding."""
        shape = self.shapes[name]
        return storage[:, : shape.numel()].view(-1, *shape)

    @override
    def update(self, inputs: Batch, labels: Labels, rate: float | Float[Tensor, ""], *masks: Tensor) -> Float[Tensor, " member"]:
        self.module.train()
        own = inputs[self.rows]
        with self.autocast():
            logits = self.on_own_inputs(self.parameters, self.buffers, own, tuple(mask[self.rows] for mask in masks))
        losses = self.losses(logits.float(), labels[self.rows])
        self.optimiser.step(torch.autograd.grad(losses.sum(), list(self.parameters.values()), materialize_grads=True), rate)
        return losses.detach()[: len(self.members)]

    def losses(self, logits: Float[Tensor, "member example class"], labels: Int[Tensor, "member example"]) -> Float[Tensor, " member"]:
        """The mean smoothed loss of each member. Each noise distribution has its own formula, whoever else is there."""
        if len(self.groups) == 1:
            _, epsilon, noise = self.groups[0]
            return smoothed_cross_entropy(logits, labels, epsilon, noise, masked=False).mean(-1)
        losses = logits.new_zeros(len(logits))
        for rows, epsilon, noise in self.groups:
            own = smoothed_cross_entropy(logits[rows], labels[rows], epsilon, noise, masked=False).mean(-1)
            losses = losses.index_put((rows,), own)
        return losses

    @override
    @torch.no_grad()
    def logits(self, inputs: Float[Tensor, "example *shape"]) -> Float[Tensor, "member example class"]:
        self.module.eval()
        chunks = torch.split(inputs, EVALUATION_CHUNK[self.device.type])
        logits = torch.cat([self.on_same_inputs(self.parameters, self.buffers, chunk, ()) for chunk in chunks], dim=1)
        return logits[: len(self.members)]

    @override
    def state(self) -> State:
        optimiser = self.optimiser.state()
        state = {f"parameter/{name}": value.detach() for name, value in self.parameters.items()}
        state |= {f"buffer/{name}": value for name, value in self.buffers.items()}
        state |= {
            f"{kind}/{name}": self.view(name, value)
            for kind, values in optimiser.items()
            for name, value in zip(self.shapes, values, strict=True)
        }
        state["steps"] = self.optimiser.count.expand(len(self.stacked))
        return {name: value[: len(self.members)] for name, value in state.items()}

    @override
    @torch.no_grad()
    def load(self, state: State) -> None:
        for name, value in state.items():
            kind, _, rest = name.partition("/")
            if name == "steps":
                self.optimiser.count.copy_(value[0])
            elif kind == "parameter":
                self.parameters[rest].copy_(value)
            elif kind == "buffer":
                self.buffers[rest].copy_(value)
            else:
                index = list(self.shapes).index(rest)
                self.view(rest, self.optimiser.state()[kind][index]).copy_(value)


@final
class LoopedPopulation(Population):
    """One member after another, each an ordinary module; convolutions see channels_last inputs."""

    @override
    def __init__(
        self,
        members: Sequence[Member],
        build: Callable[[], nn.Module],
        noises: Mapping[str, Float[Tensor, " class"] | Float[Tensor, "class class"]],
        device: torch.device,
        optimiser: OptimiserName = "adamw",
        precision: torch.dtype = torch.float32,
    ):
        super().__init__(members, build, noises, device, optimiser, precision)
        self.singles = [Single(self, member) for member in self.members]

    @override
    def update(self, inputs: Batch, labels: Labels, rate: float | Float[Tensor, ""], *masks: Tensor) -> Float[Tensor, " member"]:
        batches = [channels_last(batch) for batch in inputs]
        losses: list[Tensor] = []
        for single, on in zip(self.singles, side_streams(self.device, len(self.singles)), strict=True):
            row = single.seed_row
            if self.random:
                torch.manual_seed(stream(single.member.seed, self.epoch * 10_000_000 + self.steps, "dropout").initial_seed())
            with on:
                losses.append(single.update(batches[row], labels[row], rate, [mask[row] for mask in masks]))
        return torch.stack(losses)

    @override
    @torch.no_grad()
    def logits(self, inputs: Float[Tensor, "example *shape"]) -> Float[Tensor, "member example class"]:
        chunks = [channels_last(chunk) for chunk in torch.split(inputs, EVALUATION_CHUNK[self.device.type])]
        return torch.stack([torch.cat([single.module.eval()(chunk) for chunk in chunks]) for single in self.singles])

    @override
    def state(self) -> State:
        states = [single.state() for single in self.singles]
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}

    @override
    @torch.no_grad()
    def load(self, state: State) -> None:
        for row, single in enumerate(self.singles):
            for name, value in single.state().items():
                value.copy_(state[name][row])


@final
class Single:
    """A member of a looped population: a module with its optimiser."""

    def __init__(self, population: Population, member: Member):
        self.member, self.population = member, population
        self.seed_row = population.seeds.index(member.seed)
        self.noise = population.noise(member.smoothing)
        with torch.random.fork_rng(devices=[]):
            self.module = initialised(population.build, member.seed).to(population.device)
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters = dict(self.module.named_parameters())
        self.optimiser: Optimiser = KERNELS[population.optimiser_name](
            [parameter.detach().unsqueeze(0) for parameter in self.parameters.values()], [member]
        )

    def update(self, inputs: Tensor, labels: Tensor, rate: float | Tensor, masks: Sequence[Tensor]) -> Float[Tensor, ""]:
        """One step. Returns the loss before it."""
        self.module.train()
        with self.population.autocast(), Applying(masks) if masks else nullcontext():
            logits = self.module(inputs)
        loss = smoothed_cross_entropy(logits.float(), labels, self.member.epsilon, self.noise, masked=False).mean()
        gradients = torch.autograd.grad(loss, list(self.parameters.values()), materialize_grads=True)
        self.optimiser.step([gradient.unsqueeze(0) for gradient in gradients], rate)
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        """The tensors themselves, without a member dimension."""
        state = {f"parameter/{name}": value.detach() for name, value in self.parameters.items()}
        state |= {f"buffer/{name}": value for name, value in self.module.named_buffers()}
        for kind, values in self.optimiser.state().items():
            state |= {f"{kind}/{name}": value[0] for name, value in zip(self.parameters, values, strict=True)}
        return state | {"steps": self.optimiser.count}


def padded(value: Float[Tensor, "member ..."]) -> Float[Tensor, "member number"]:
    """A stacked parameter as one row per member, filled with zeros up to a multiple of `VECTOR`.

    The loops of kernels then treat each member's numbers alike wherever they lie, to the last bit.
    """
    flat = value.flatten(1)
    storage = flat.new_zeros(len(flat), -(-flat.shape[1] // VECTOR) * VECTOR)
    storage[:, : flat.shape[1]] = flat
    return storage


def channels_last(batch: Tensor) -> Tensor:
    """Images in the memory order which CPU and GPU convolutions prefer; other inputs as they are."""
    return batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch


def learning_rate_at(step: int, steps: int) -> float:
    """Share of the peak learning rate at a step: a linear rise over the first tenth, then half a cosine to 0."""
    warmup = max(1, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
