"""Instances: test examples as the confirmed ε see them, with their pictures; those which lost most confidence first."""

import base64
import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from sweeps.confirm import Run
from sweeps.datasets import Dataset
from tracking.evidence import Instance

MOST, TYPICAL = 12, 12
"""How many examples are taken for their fall of confidence, and how many at even steps through all falls."""


def instances_of(dataset: Dataset, runs: Sequence[Run], candidate: int) -> tuple[Instance, ...]:
    """Examples of *test* by the fall of mean confidence from the first of the runs, ε = 0, to the one at place `candidate`."""
    seen = [(run.probabilities, run.confidence) for run in runs if run.probabilities is not None and run.confidence is not None]
    split = dataset.splits["test"]
    falls = seen[0][1] - seen[candidate][1]
    order = falls.argsort(descending=True, stable=True)
    steps = torch.linspace(0, len(order) - 1, TYPICAL + 2)[1:-1].round().long()
    chosen = list(dict.fromkeys([*order[:MOST].tolist(), *order[steps].tolist()]))
    stored = split.take(torch.tensor(chosen, device=split.labels.device))
    return tuple(
        Instance(
            index=index,
            label=int(split.labels[index]),
            picture=picture(own, float(stored.max())),
            predicted=tuple(int(probabilities[index].argmax()) for probabilities, _ in seen),
            confidence=tuple(round(float(confidence[index]), 4) for _, confidence in seen),
        )
        for index, own in zip(chosen, stored, strict=True)
    )


def picture(stored: Tensor, peak: float) -> str:
    """A stored uint8 image (channel, height, width) as a PNG in a data URL, scaled so that `peak` is white; "" for anything else."""
    if stored.dtype != torch.uint8 or stored.ndim != 3 or stored.shape[0] not in (1, 3) or not peak:
        return ""
    scaled = (stored.float() * 255 / peak).round().to(torch.uint8).cpu()
    array = scaled[0].numpy() if len(scaled) == 1 else scaled.permute(1, 2, 0).contiguous().numpy()
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
