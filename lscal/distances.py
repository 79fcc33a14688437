"""How far predicted probabilities p are from label distributions q, example by example."""

import torch
from jaxtyping import Float
from torch import Tensor

from lscal.predictions import Predictions


def agreements(predictions: Predictions) -> Float[Tensor, "*member example"]:
    """q(predicted class) of each example."""
    assert predictions.distribution is not None
    rows = torch.arange(predictions.examples, device=predictions.labels.device)
    return predictions.distribution[rows, predictions.predicted]


def distances(predictions: Predictions) -> list[Float[Tensor, "*member example"]]:
    """-Σ q log p, KL(q || p), Jensen-Shannon divergence and total variation of each example, in nats the
    first three.
    """
    q_all = predictions.distribution
    assert q_all is not None
    members = max(1, predictions.scores.shape[:-2].numel())
    columns = torch.empty(
        4, members, predictions.examples, dtype=torch.float64, device=predictions.labels.device
    )
    for part, rows, block in predictions.log_probability_blocks():
        log_p, q = block.to(torch.float64), q_all[rows]
        p = log_p.exp()
        log_q, middle = q.log(), (p + q) / 2
        log_m = middle.log()
        columns[0, part, rows] = -times(q, log_p).sum(-1)
        columns[1, part, rows] = (times(q, log_q) - times(q, log_p)).sum(-1).clamp(min=0)
        columns[2, part, rows] = (
            (times(q, log_q) - times(q, log_m) + times(p, log_p) - times(p, log_m)).sum(-1) / 2
        ).clamp(min=0)
        columns[3, part, rows] = (p - q).abs().sum(-1) / 2
    return [column.reshape(*predictions.member, predictions.examples) for column in columns]


def times(weight: Tensor, logarithm: Tensor) -> Tensor:
    """weight · logarithm, 0 where the weight is 0."""
    return torch.where(weight > 0, weight * logarithm, 0.0)
