"""Export: one member's weights as safetensors, and the network with its recalibration as a program that needs
no code of ours.
"""

import io
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import safetensors.torch
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from typing_extensions import override

from lscal import Calibrator
from sweeps.data.dataset import Dataset
from sweeps.models.lookup import architecture_of
from sweeps.task import Task
from sweeps.training.engine import Trained
from sweeps.training.population import initialised
from tracking.mlflow.model import ExportedModel

Weights = Mapping[str, Tensor]
"""Parameters and buffers of one network, by name."""


class NotExportable(Exception):
    """torch cannot export a network: what it computes depends on its inputs' values, for instance."""


class Calibrated(nn.Module):
    """A trained network that takes inputs as they are stored and returns calibrated probabilities: the
    softmax of its logits after a calibrator of lscal.

    `mean` and `deviation` have the shape of a channel or a feature; None for token ids, which are taken as
    they are.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, network: nn.Module, mean: Tensor | None, deviation: Tensor | None, calibrator: Calibrator
    ):
        super().__init__()
        self.network = network
        self.tokens = mean is None
        if not self.tokens:  # torch.export takes no buffer that is None
            self.register_buffer("mean", mean)
            self.register_buffer("deviation", deviation)
        # as copies: torch.export would store the whole of a tensor that is a view of another
        own = {name: value.clone() for name, value in vars(calibrator).items() if isinstance(value, Tensor)}
        self.calibrator = replace(calibrator, **own)
        self.eval().requires_grad_(False)

    @override
    def forward(self, inputs: Shaped[Tensor, "example *shape"]) -> Float[Tensor, "example class"]:
        return self.calibrator(self.logits(inputs)).softmax(-1).to(torch.float32)

    def logits(self, inputs: Shaped[Tensor, "example *shape"]) -> Float[Tensor, "example class"]:
        """The network's own logits."""
        prepared = inputs.long() if self.tokens else (inputs.to(torch.float32) - self.mean) / self.deviation
        logits: Tensor = self.network(prepared)
        return logits


def weights_of(trained: Trained, row: int) -> dict[str, Tensor]:
    """The parameters and buffers of one trained member, on the CPU.

    Errors: ValueError where the member was dropped.
    """
    for shard in trained.shards:
        if row in shard.rows:
            place = shard.rows.index(row)
            own = {
                name: value[place].cpu().contiguous().clone()
                for name, value in shard.population.state().items()
                if "/" in name
            }
            kinds = {name: name.partition("/")[::2] for name in own}
            return {
                rest: own[name] for name, (kind, rest) in kinds.items() if kind in ("parameter", "buffer")
            }
    raise ValueError(f"member {row} was not trained to its end")


def pack(weights: Weights) -> bytes:
    """Weights as a safetensors file."""
    return safetensors.torch.save(dict(weights))


def unpack(content: bytes) -> dict[str, Tensor]:
    """The weights that `pack` wrote."""
    return safetensors.torch.load(content)


def network_of(task: Task, dataset: Dataset, weights: Weights) -> nn.Module:
    """A task's network with given weights. Errors: ValueError where they are those of another
    architecture.
    """
    with torch.random.fork_rng(devices=[]):
        network = initialised(partial(architecture_of(task).module, dataset), 0)
    own = dict(network.named_parameters()) | dict(network.named_buffers())
    if own.keys() != weights.keys():
        raise ValueError(
            f"weights of {sorted(weights)} do not fit {task.architecture}, which has {sorted(own)}"
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(weights[name])
    return network


def calibrated_model(task: Task, dataset: Dataset, weights: Weights, calibrator: Calibrator) -> Calibrated:
    """A member's network with the standardisation of its data before it and its recalibration behind it.

    Errors: ValueError where the weights are those of another architecture.
    """
    network = network_of(task, dataset, weights)
    if dataset.vocabulary:
        return Calibrated(network, None, None, calibrator)
    shape = () if len(dataset.mean) == 1 else (-1,) if len(dataset.shape) == 1 else (-1, 1, 1)
    mean, deviation = (torch.tensor(values).reshape(shape) for values in (dataset.mean, dataset.deviation))
    return Calibrated(network, mean, deviation, calibrator)


def exported(model: Calibrated, dataset: Dataset, about: Mapping[str, str]) -> ExportedModel:
    """A model as a program for batches of any size, with what a reader should know about it. Errors:
    NotExportable.
    """
    stored = dataset.splits["select"].stored
    example = (
        dataset.splits["select"].take(torch.arange(2)).cpu()
    )  # of a batch of one, torch would make a constant
    try:
        program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    except (RuntimeError, TypeError, ValueError) as error:  # what torch.export's many errors are derived from
        raise NotExportable(
            f"torch cannot export the network: {str(error).strip().splitlines()[0]}"
        ) from error
    stream = io.BytesIO()
    torch.export.save(program, stream)
    dtype = str(stored.dtype).removeprefix("torch.")
    return ExportedModel(
        dtype, tuple(dataset.shape), dataset.classes, str(torch.__version__), dict(about), stream.getvalue()
    )
