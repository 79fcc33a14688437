"""Example table: test examples as the confirmed ε see them, with pictures; the largest losses of confidence
first.
"""

import base64
import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from sweeps.data.dataset import IGNORED, Dataset
from sweeps.protocol.confirm import Run
from sweeps.training.beam_search import text_of as spelled
from tracking.records.evidence import Instance

LONGEST_TEXT = 300
MOST, TYPICAL = 12, 12
"""Number of examples with the largest fall of confidence, and at even steps through all falls."""


def instances_of(dataset: Dataset, runs: Sequence[Run], candidate: int) -> tuple[Instance, ...]:
    """Examples of *test* by the fall of mean confidence from the first of the runs, ε = 0, to the one at
    index `candidate`.
    """
    seen = [
        (run.probabilities, run.confidence)
        for run in runs
        if run.probabilities is not None and run.confidence is not None
    ]
    split = dataset.splits["test"]
    falls = seen[0][1] - seen[candidate][1]
    order = falls.argsort(descending=True, stable=True)
    steps = torch.linspace(0, len(order) - 1, TYPICAL + 2)[1:-1].round().long()
    chosen = list(dict.fromkeys([*order[:MOST].tolist(), *order[steps].tolist()]))
    targets, places = split.targets, (split.labels != IGNORED).nonzero()
    rows = places[chosen, 0]
    stored = split.take(rows)
    return tuple(
        Instance(
            index=index,
            label=int(targets[index]),
            picture=picture(own, float(stored.max())),
            predicted=tuple(int(probabilities[index].argmax()) for probabilities, _ in seen),
            confidence=tuple(round(float(confidence[index]), 4) for _, confidence in seen),
            text=text_of(
                dataset, int(places[index, 0]), int(places[index, -1]) if dataset.sequences else None
            ),
        )
        for index, own in zip(chosen, stored, strict=True)
    )


def text_of(dataset: Dataset, row: int, position: int | None) -> str:
    """Text of an example of *test*, "" where there is none; of a sequence, the part before the position to
    predict.
    """
    split = dataset.splits["test"]
    if position is None:
        return shortened(split.shown[row]) if split.shown else ""
    before = split.take(torch.tensor([row], device=split.labels.device))[0, -1, 1 : position + 1].tolist()
    return shortened(spelled([dataset.vocabulary[piece] for piece in before]) + " …")


def shortened(text: str) -> str:
    """A text of at most LONGEST_TEXT characters."""
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def picture(stored: Tensor, peak: float) -> str:
    """A stored uint8 image (channel, height, width) as a PNG in a data URL, scaled so that `peak` is white;
    "" for anything else.
    """
    if stored.dtype != torch.uint8 or stored.ndim != 3 or stored.shape[0] not in (1, 3) or not peak:
        return ""
    scaled = (stored.float() * 255 / peak).round().to(torch.uint8).cpu()
    array = scaled[0].numpy() if len(scaled) == 1 else scaled.permute(1, 2, 0).contiguous().numpy()
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
