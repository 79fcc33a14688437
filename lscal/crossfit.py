"""Cross-fitting: what a recalibration would achieve, each example recalibrated by a map fitted on the other
folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from lscal.predictions import Predictions, check

FOLDS = 5
EQUAL = 1e-5
"""Nats of mean NLL below which methods are the same: p-norm with p = 0 is a temperature, but for rounding."""
METHODS = ("temperature", "p_norm", "vector", "svs", "sms")
"""What `best_of` chooses from, by name (`lscal.CALIBRATORS`), the simplest first."""
ROWS_TIMES_CLASSES = 1 << 23
"""Numbers a temperature is fitted on at most, of all members together: 32 MB of float32 are copied for it."""


def folds(
    examples: int, count: int = FOLDS, groups: Integer[Tensor, " example"] | None = None
) -> list[tuple[Int[Tensor, " held"], Int[Tensor, " others"]]]:
    """Positions held out and the others, `count` times; the folds are random and always the same. None for a
    single example.

    With `groups` (whole numbers), all examples of a group are held out together: groups in random order, the
    largest first, each go to the fold with the fewest examples. There are at most as many folds as groups.
    """
    generator = torch.Generator().manual_seed(0)
    if groups is None:
        order = torch.randperm(examples, generator=generator)
        parts = torch.tensor_split(order, min(count, examples)) if examples > 1 else ()
    else:
        _, member, sizes = (
            torch.from_numpy(column)
            for column in np.unique(groups.cpu().numpy(), return_inverse=True, return_counts=True)
        )
        shuffled = torch.randperm(len(sizes), generator=generator)
        ordered = shuffled[sizes[shuffled].argsort(descending=True, stable=True)]
        filled, fold = [0] * min(count, len(sizes)), torch.zeros_like(sizes)
        for group in ordered.tolist():
            fold[group] = least = filled.index(min(filled))
            filled[least] += int(sizes[group])
        places = fold[member]
        parts = tuple(
            (places == k).nonzero().squeeze(-1) for k in range(len(filled) if len(sizes) > 1 else 0)
        )
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


@dataclass(frozen=True)
class Choice:
    """The recalibration that `best_of` chose.

    Attributes:
        method: its name in `lscal.CALIBRATORS`.
        nll: the cross-fitted NLL of each method tried, mean over members and examples, in nats; in the order
            given.
    """

    method: str
    nll: dict[str, float]


def best_of(
    logits: Float[Tensor, "*member example class"],
    labels: Integer[Tensor, " example"],
    methods: Sequence[str] = METHODS,
    folds: int = FOLDS,
    groups: Integer[Tensor, " example"] | None = None,
) -> Choice:
    """The recalibration to use for all members alike: that of least cross-fitted NLL, the simpler one where
    they are hardly told apart.

    Each example's NLL comes from maps fitted on the folds without it, of each member by itself, and is
    averaged over members. The methods are gone through in the order given: one replaces the best so far where
    its mean NLL is lower by more than one standard error of the paired difference per example (with `groups`,
    per group, whose examples are not independent), and than 1e-5 nats. So what is not told apart keeps the
    simpler one. The folds are always the same, so the choice is deterministic. Examples whose label is masked
    cost infinitely much with every method and are left out.

    Args:
        logits: of all members (seeds, say) on the same examples, which no member was trained on; any float
            type, -inf for masked classes.
        labels: the class of each example.
        methods: names in `lscal.CALIBRATORS`, the simplest first.
        folds: how many, at least 2.
        groups: whole numbers; examples with the same one (a speaker, say) are never in different folds.

    Errors: ValueError for what `lscal.predictions.check` refuses, unknown or no methods, fewer than 2 folds,
    examples or groups, and groups of another length than labels.
    """
    from lscal.calibrators import CALIBRATORS

    if unknown := [method for method in methods if method not in CALIBRATORS]:
        raise ValueError(f"no calibrator named {unknown[0]!r}; there are {', '.join(sorted(CALIBRATORS))}")
    if not methods or folds < 2:
        raise ValueError(f"{len(methods)} methods and {folds} folds; wanted at least 1 and 2")
    labels = labels.long()
    check(logits, labels)
    parts = parts_of(labels, folds, groups)
    index = labels.expand(logits.shape[:-1]).unsqueeze(-1)
    possible = logits.gather(-1, index).isfinite().reshape(-1, len(labels)).all(0)
    losses = {method: fresh_nll(method, logits, labels, parts) for method in methods}
    clusters = None if groups is None else groups[possible.to(groups.device)]
    chosen, *others = losses
    for method in others:
        if lower(losses[method][possible], losses[chosen][possible], clusters):
            chosen = method
    return Choice(chosen, {method: float(nll[possible].mean()) for method, nll in losses.items()})


def parts_of(
    labels: Integer[Tensor, " example"], count: int, groups: Integer[Tensor, " example"] | None
) -> list[tuple[Int[Tensor, " held"], Int[Tensor, " others"]]]:
    """`folds` on the device of the labels. Errors: see `best_of`."""
    if groups is not None and groups.shape != labels.shape:
        raise ValueError(f"{len(groups)} groups for {len(labels)} labels; wanted one for each example")
    device = labels.device
    parts = [(held.to(device), others.to(device)) for held, others in folds(len(labels), count, groups)]
    if not parts:
        raise ValueError("a single example or group; cross-fitting wants at least 2")
    return parts


def fresh_nll(
    method: str,
    logits: Float[Tensor, "*member example class"],
    labels: Integer[Tensor, " example"],
    parts: Sequence[tuple[Int[Tensor, "_"], Int[Tensor, "_"]]],
) -> Float[Tensor, " example"]:
    """The NLL of each example after a recalibration fitted on the other folds, mean over members."""
    from lscal.calibrators import CALIBRATORS

    nll = torch.zeros(len(labels), dtype=torch.float64, device=labels.device)
    for held, others in parts:
        calibrated = CALIBRATORS[method].fit(logits[..., others, :], labels[others])(logits[..., held, :])
        index = labels[held].expand(calibrated.shape[:-1]).unsqueeze(-1)
        own = calibrated.logsumexp(-1) - calibrated.gather(-1, index).squeeze(-1)
        nll[held] = own.reshape(-1, len(held)).mean(0)
    return nll


def lower(
    nll: Float[Tensor, " example"],
    other: Float[Tensor, " example"],
    groups: Integer[Tensor, " example"] | None,
) -> bool:
    """Whether a mean is lower than another by more than one standard error of the paired difference, and than
    `EQUAL`.
    """
    difference = nll - other
    if groups is not None:
        member = torch.from_numpy(np.unique(groups.cpu().numpy(), return_inverse=True)[1]).to(nll.device)
        apart = difference - difference.mean()
        sums = torch.zeros(int(member.max()) + 1, dtype=nll.dtype, device=nll.device).index_add_(
            0, member, apart
        )
        error = (sums.square().sum() * len(sums) / (len(sums) - 1)).sqrt() / len(nll)
    else:
        error = difference.std() / len(nll) ** 0.5
    return bool(difference.mean() < -error.clamp(min=EQUAL))
