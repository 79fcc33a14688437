"""Population: members trained together on one device. They differ in ε, seed, learning rate, weight decay and
more, see `Member`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import final

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from typing_extensions import override

from sweeps.task import Optimiser as OptimiserName
from sweeps.training.cuda_graph import CudaGraph, side_streams
from sweeps.training.dropout import GLOBAL_RANDOM, Applying, Call, calls_of
from sweeps.training.loss import Loss
from sweeps.training.member import Member
from sweeps.training.online_smoothing import RunningMeans
from sweeps.training.optimiser import KERNELS, Optimiser
from sweeps.training.randomness import stream
from sweeps.training.smoothing_kinds import SmoothingNoise
from sweeps.training.vmap_layers import VECTOR, PopulationLayers

EVALUATION_CHUNK = {"cpu": 512, "cuda": 8192}
"""Examples scored at a time: what a core's cache takes, what keeps a GPU busy."""

Batch = Shaped[Tensor, "seed example *shape"]
Labels = Int[Tensor, "seed example *position"]
Rows = Int[Tensor, "seed example"]
State = dict[str, Shaped[Tensor, "member ..."]]


class Population(ABC):
    """Members under training. A step takes one batch per seed: members that share a seed share their
    batches.

    `seeds` are the distinct seeds, ascending; row i of a batch belongs to `seeds[i]`. The `member` dimension
    of every result follows `members`. What becomes of a member depends on nobody else in the population, to
    the last bit.

    Args:
        build: makes a freshly initialised module.
        noises: what the smoothings that members may name come to.
        precision: bfloat16 trains under autocast; parameters stay float32, and evaluation is float32.
    """

    def __init__(
        self,
        members: Sequence[Member],
        build: Callable[[], nn.Module],
        noises: Mapping[str, SmoothingNoise],
        device: torch.device,
        optimiser: OptimiserName = "adamw",
        precision: torch.dtype = torch.float32,
    ):
        self.members = tuple(members)
        self.build, self.noises, self.device, self.optimiser_name, self.precision = (
            build,
            noises,
            device,
            optimiser,
            precision,
        )
        self.seeds = tuple(sorted({member.seed for member in members}))
        self.seed_rows = [self.seeds.index(member.seed) for member in members]
        with torch.random.fork_rng(devices=[]):
            self.initial = {seed: initialised(build, seed) for seed in self.seeds}
        self.calls: list[Call] | None = None
        self.random = False
        self.replay: CudaGraph | None = None
        self.means: RunningMeans | None = None
        self.begin(0)
        self.make()

    @abstractmethod
    def make(self) -> None:
        """Make fresh members of the initial modules."""

    def begin(self, epoch: int) -> None:
        """Start an epoch: dropout draws from streams of the seeds and the epoch, and what is online takes
        what the last one came to.
        """
        self.epoch, self.steps = epoch, 0
        self.streams = [stream(seed, epoch, "dropout", self.device) for seed in self.seeds]
        if self.means is not None:
            self.means.next_epoch()

    def step(
        self, inputs: Batch, labels: Labels, rate: float, share: float = 0.0, rows: Rows | None = None
    ) -> Float[Tensor, " member"]:
        """One optimiser step on each member at `rate` times its learning rate, when this `share` of the
        training is past.

        `rows` are the examples of *train*; a smoothing with a distribution for each needs them. Returns the
        mean smoothed loss before the step.
        """
        if rows is None:
            if any(noise.examples is not None for noise in self.noises.values()):
                raise ValueError(
                    "a smoothing has a distribution for each example; wanted the rows of the batch"
                )
            rows = labels.new_zeros(labels.shape[:2])
        if self.calls is None:
            with GLOBAL_RANDOM:
                self.calls, self.random = calls_of(self.initial[self.seeds[0]], inputs[0].to("cpu"))
        masks = [torch.stack([call.mask(stream) for stream in self.streams]) for call in self.calls]
        self.steps += 1
        if self.device.type == "cpu" or self.random:
            return self.update(inputs, labels, rows, rate, torch.full((), share, device=self.device), *masks)
        with torch.cuda.device(self.device):
            moving = torch.full((), rate, device=self.device), torch.full((), share, device=self.device)
            if self.replay is None:
                before = {name: value.clone() for name, value in self.state().items()}
                self.replay = CudaGraph(self.update, inputs, labels, rows, *moving, *masks)
                self.load(before)
            return self.replay(inputs, labels, rows, *moving, *masks).clone()

    @abstractmethod
    def update(
        self,
        inputs: Batch,
        labels: Labels,
        rows: Rows,
        rate: float | Float[Tensor, ""],
        share: Float[Tensor, ""],
        *masks: Tensor,
    ) -> Float[Tensor, " member"]:
        """The step itself: it waits for nothing on the device. `masks` have the seed as first dimension."""

    @abstractmethod
    def logits(
        self, inputs: Shaped[Tensor, "example *shape"]
    ) -> Float[Tensor, "member example *position class"]:
        """Every member's logits of the same inputs, in evaluation mode, float32."""

    @abstractmethod
    def state(self) -> State:
        """All that the next epoch depends on, beside the members: tensors whose first dimension is the
        member.

        Names are `parameter/…`, `buffer/…`, those of the optimiser, and `steps`: the same for every kind of
        population.
        """

    @abstractmethod
    def load(self, state: State) -> None:
        """Take over a state of the same members, whatever kind of population it comes from."""

    def kept(self, rows: Sequence[int]) -> "Population":
        """A population of some of the members, as they are now."""
        smaller = type(self)(
            [self.members[row] for row in rows],
            self.build,
            self.noises,
            self.device,
            self.optimiser_name,
            self.precision,
        )
        smaller.load({name: value[list(rows)] for name, value in self.state().items()})
        return smaller

    def running_means(self, members: Sequence[Member]) -> RunningMeans | None:
        """Fresh ones for each of the members, where any smoothing that they may name is online."""
        if not any(noise.online for noise in self.noises.values()):
            return None
        return RunningMeans(len(members), len(next(iter(self.noises.values())).table), self.device)


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast | nullcontext[None]:
    """The precision of forward passes."""
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)


def initialised(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A module as its architecture initialises it under `seed`, on the CPU, so that devices start alike."""
    torch.manual_seed(seed)
    return build()


@final
class FusedPopulation(Population):
    """All members in one forward and one backward pass: their parameters stacked, the module mapped over them
    by vmap.

    The members' losses are summed. As no parameter is shared, the gradient of the sum holds each member's
    own. A lone member is stacked with its double: kernels for a batch of one differ from the others.
    """

    @override
    def make(self) -> None:
        device = self.device
        self.stacked = self.members if len(self.members) > 1 else self.members * 2
        parameters, buffers = stack_module_state([self.initial[member.seed] for member in self.stacked])
        self.module = module = self.initial[self.seeds[0]]
        frozen = {
            name: parameters.pop(name) for name, value in module.named_parameters() if not value.requires_grad
        }
        self.shapes = {name: value.shape[1:] for name, value in parameters.items()}
        self.storage = {name: padded(value.detach().to(device)) for name, value in parameters.items()}
        self.parameters = {
            name: self.view(name, storage).requires_grad_() for name, storage in self.storage.items()
        }
        self.buffers = {name: value.detach().to(device).clone() for name, value in (buffers | frozen).items()}
        self.optimiser = KERNELS[self.optimiser_name](list(self.storage.values()), self.stacked)
        self.rows = torch.tensor([self.seeds.index(member.seed) for member in self.stacked], device=device)
        self.means = self.running_means(self.stacked)
        self.groups = [
            self.group(smoothing) for smoothing in dict.fromkeys(member.smoothing for member in self.stacked)
        ]

        def forward(
            parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor, masks: Sequence[Tensor]
        ) -> Tensor:
            layers = (
                PopulationLayers() if device.type == "cpu" else nullcontext()
            )  # on a GPU, vmap's own rules serve well
            with layers, Applying(masks) if masks else nullcontext():
                logits: Tensor = functional_call(module, (parameters, buffers), (inputs,))
            return logits

        self.on_own_inputs = vmap(forward, in_dims=(0, 0, 0, 0))
        self.on_same_inputs = vmap(forward, in_dims=(0, 0, None, None))

    def group(self, smoothing: str) -> tuple[Int[Tensor, " some"], Loss]:
        """The places of the members that name a smoothing, and their loss."""
        places = [row for row, member in enumerate(self.stacked) if member.smoothing == smoothing]
        loss = Loss(
            [self.stacked[row] for row in places], self.noises[smoothing], self.device, places, self.means
        )
        return torch.tensor(places, device=self.device), loss

    def view(self, name: str, storage: Float[Tensor, "member number"]) -> Float[Tensor, "member ..."]:
        """The numbers of a parameter in their shape, without the padding."""
        shape = self.shapes[name]
        return storage[:, : shape.numel()].view(-1, *shape)

    @override
    def update(
        self,
        inputs: Batch,
        labels: Labels,
        rows: Rows,
        rate: float | Float[Tensor, ""],
        share: Float[Tensor, ""],
        *masks: Tensor,
    ) -> Float[Tensor, " member"]:
        self.module.train()
        own = inputs[self.rows]
        with autocast(self.device, self.precision):
            logits = self.on_own_inputs(
                self.parameters, self.buffers, own, tuple(mask[self.rows] for mask in masks)
            )
        losses = self.losses(logits.float(), labels[self.rows], rows[self.rows], share)
        self.optimiser.step(
            torch.autograd.grad(losses.sum(), list(self.parameters.values()), materialize_grads=True), rate
        )
        return losses.detach()[: len(self.members)]

    def losses(
        self,
        logits: Float[Tensor, "member *place class"],
        labels: Int[Tensor, "member *place"],
        rows: Int[Tensor, "member example"],
        share: Float[Tensor, ""],
    ) -> Float[Tensor, " member"]:
        """The mean smoothed loss of each member."""
        if len(self.groups) == 1:
            return self.groups[0][1](logits, labels, rows, share)
        losses = logits.new_zeros(len(logits))
        for places, loss in self.groups:
            losses = losses.index_put((places,), loss(logits[places], labels[places], rows[places], share))
        return losses

    @override
    @torch.no_grad()
    def logits(
        self, inputs: Shaped[Tensor, "example *shape"]
    ) -> Float[Tensor, "member example *position class"]:
        self.module.eval()
        logits: Tensor = self.on_same_inputs(self.parameters, self.buffers, inputs, ())
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
        state |= {} if self.means is None else self.means.state()
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
            elif kind == "online" and self.means is not None:
                self.means.state()[name].copy_(value)
            else:
                index = list(self.shapes).index(rest)
                self.view(rest, self.optimiser.state()[kind][index]).copy_(value)


@final
class LoopedPopulation(Population):
    """One member after another, each an ordinary module; convolutions see channels_last inputs where the
    module takes them.
    """

    order = torch.channels_last

    @override
    def make(self) -> None:
        self.means = self.running_means(self.members)
        self.singles = [
            Single(
                deepcopy(self.initial[member.seed]),
                member,
                Loss([member], self.noises[member.smoothing], self.device, [row], self.means),
                self.device,
                self.optimiser_name,
                self.order,
            )
            for row, member in enumerate(self.members)
        ]

    @override
    def update(
        self,
        inputs: Batch,
        labels: Labels,
        rows: Rows,
        rate: float | Float[Tensor, ""],
        share: Float[Tensor, ""],
        *masks: Tensor,
    ) -> Float[Tensor, " member"]:
        try:
            return self.update_all(inputs, labels, rows, rate, share, *masks)
        except (
            RuntimeError
        ):  # a `view` after a convolution wants torch's own memory order: nothing has moved yet, try that
            if self.order == torch.contiguous_format or self.steps > 1:
                raise
        before, self.order = self.state(), torch.contiguous_format
        self.make()
        self.load(before)
        return self.update_all(inputs, labels, rows, rate, share, *masks)

    def update_all(
        self,
        inputs: Batch,
        labels: Labels,
        rows: Rows,
        rate: float | Float[Tensor, ""],
        share: Float[Tensor, ""],
        *masks: Tensor,
    ) -> Float[Tensor, " member"]:
        """One step of every member, in turn."""
        batches = [ordered(batch, self.order) for batch in inputs]
        losses: list[Tensor] = []
        for single, row, on in zip(
            self.singles, self.seed_rows, side_streams(self.device, len(self.singles)), strict=True
        ):
            with on, self.seeded(single.member), autocast(self.device, self.precision):
                losses.append(
                    single.update(
                        batches[row], labels[row], rows[row], rate, share, [mask[row] for mask in masks]
                    )
                )
        return torch.stack(losses)

    @contextmanager
    def seeded(self, member: Member) -> Iterator[None]:
        """For a module that draws random numbers itself: torch's generator, seeded by the member's seed and
        the step.
        """
        if not self.random:
            yield
            return
        seed = stream(member.seed, self.epoch, "module").initial_seed() + self.steps
        with GLOBAL_RANDOM, torch.random.fork_rng():
            torch.manual_seed(seed)
            yield

    @override
    @torch.no_grad()
    def logits(
        self, inputs: Shaped[Tensor, "example *shape"]
    ) -> Float[Tensor, "member example *position class"]:
        inputs = ordered(inputs, self.order)
        return torch.stack([single.module.eval()(inputs) for single in self.singles])

    @override
    def state(self) -> State:
        states = [single.state() for single in self.singles]
        state = {name: torch.stack([one[name] for one in states]) for name in states[0]}
        return state if self.means is None else state | self.means.state()

    @override
    @torch.no_grad()
    def load(self, state: State) -> None:
        for row, single in enumerate(self.singles):
            for name, value in single.state().items():
                value.copy_(state[name][row])
        if self.means is not None:
            for name, value in self.means.state().items():
                value.copy_(state[name])


@final
class Single:
    """A member of a looped population: a module with its optimiser. `order` is the memory order of its images
    and their kernels.
    """

    def __init__(
        self,
        module: nn.Module,
        member: Member,
        loss: Loss,
        device: torch.device,
        optimiser: OptimiserName,
        order: torch.memory_format,
    ):
        self.module, self.member, self.loss = module.to(device), member, loss
        for parameter in self.module.parameters():
            parameter.data = ordered(parameter.data, order)
        self.parameters = {
            name: parameter for name, parameter in self.module.named_parameters() if parameter.requires_grad
        }
        self.optimiser: Optimiser = KERNELS[optimiser](
            [parameter.detach().unsqueeze(0) for parameter in self.parameters.values()], [member]
        )

    def update(
        self,
        inputs: Tensor,
        labels: Tensor,
        rows: Tensor,
        rate: float | Tensor,
        share: Tensor,
        masks: Sequence[Tensor],
    ) -> Float[Tensor, ""]:
        """One step. Returns the loss before it."""
        self.module.train()
        with Applying(masks) if masks else nullcontext():
            logits = self.module(inputs)
        loss = self.loss(logits.float().unsqueeze(0), labels.unsqueeze(0), rows.unsqueeze(0), share).squeeze(
            0
        )
        gradients = torch.autograd.grad(loss, list(self.parameters.values()), materialize_grads=True)
        self.optimiser.step([gradient.unsqueeze(0) for gradient in gradients], rate)
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        """The tensors themselves, without a member dimension. Parameters that are not trained are among the
        buffers.
        """
        state = {f"parameter/{name}": value.detach() for name, value in self.parameters.items()}
        state |= {f"buffer/{name}": value for name, value in self.module.named_buffers()}
        state |= {
            f"buffer/{name}": value
            for name, value in self.module.named_parameters()
            if name not in self.parameters
        }
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


def ordered(values: Tensor, order: torch.memory_format) -> Tensor:
    """Images, and kernels of convolutions over them, in a memory order; other tensors as they are."""
    return values.contiguous(memory_format=order) if values.ndim == 4 else values


def learning_rate_at(step: int, steps: int) -> float:
    """Share of the peak learning rate at a step: a linear rise over the first tenth, then half a cosine to
    0.
    """
    warmup = max(1, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
