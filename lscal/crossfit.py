"""Cross-fitting: what a recalibration would achieve, each example recalibrated by a map fitted on the other
folds.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lscal.predictions import Predictions

FOLDS = 5
ROWS_TIMES_CLASSES = 1 << 23
"""Numbers a temperature is fitted on at most, of all members together: 32 MB of float32 are copied for it."""


def folds(examples: int) -> list[tuple[Int[Tensor, " held"], Int[Tensor, " others"]]]:
    """Positions held out and the others, five times; the folds are random and always the same. None for a
    single example.
    """
    order = torch.randperm(examples, generator=torch.Generator().manual_seed(0))
    parts = torch.tensor_split(order, min(FOLDS, examples)) if examples > 1 else ()
    return [(part, torch.cat([other for other in parts if other is not part])) for part in parts]


def temperature(predictions: Predictions) -> Predictions:
    """The predictions after temperature scaling, fitted for each example on the folds without it."""
    from lscal.calibrators.temperature import Temperature

    device = predictions.labels.device
    beta = torch.ones(*predictions.member, predictions.examples, dtype=torch.float64, device=device)
    row = predictions.classes * max(1, predictions.scores.shape[:-2].numel())
    for held, others in folds(predictions.examples):
        few = others[: max(FOLDS, ROWS_TIMES_CLASSES // row)].to(device)
        fitted = Temperature.fit(predictions.logits(few), predictions.labels[few])
        beta[..., held.to(device)] = 1 / fitted.value.unsqueeze(-1)
    before = predictions.through

    def scaled(logits: Tensor, rows: slice | Tensor) -> Tensor:
        logits = logits if before is None else before(logits, rows)
        return logits.to(torch.float64) * beta[..., rows].unsqueeze(-1)

    return predictions.mapped(scaled)


def isotonic(predictions: Predictions) -> Float[Tensor, "*member example"]:
    """g(confidence): isotonic regression of right or wrong on the rank of the confidence, fitted for each
    example on the folds without it.

    The rank, and not the confidence, so that no increasing map of it changes anything, interpolation and
    saturation included. A single example has nothing to be fitted on: its own confidence is returned.
    """
    from sklearn.isotonic import IsotonicRegression

    ranking = predictions.ranking.reshape(-1, predictions.examples).cpu().numpy()
    ranks = [np.unique(row, return_inverse=True)[1].astype(np.float64) for row in ranking]
    correct = predictions.correct.reshape(-1, predictions.examples).cpu().numpy().astype(np.float64)
    expected = predictions.confidence.reshape(-1, predictions.examples).cpu().numpy().copy()
    for held, others in ((part.numpy(), rest.numpy()) for part, rest in folds(predictions.examples)):
        for row, x, y in zip(expected, ranks, correct, strict=True):
            row[held] = IsotonicRegression(out_of_bounds="clip").fit(x[others], y[others]).predict(x[held])
    return torch.from_numpy(expected).reshape(predictions.confidence.shape).to(predictions.labels.device)
