"""Slow, obvious NumPy versions of what lscal computes. One model at a time: logits (N, K), labels (N,)."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Flags = NDArray[np.bool_]


def softmax(logits: Array) -> Array:
    """exp(z) / Σ exp(z), row by row."""
    rows = []
    for row in logits.astype(np.float64):
        powers = np.exp(row - row.max())
        rows.append(powers / powers.sum())
    return np.array(rows)


def log_softmax(logits: Array) -> Array:
    """z - log Σ exp(z), row by row."""
    rows = []
    for row in logits.astype(np.float64):
        top = row.max()
        rows.append(row - top - math.log(np.exp(row - top).sum()))
    return np.array(rows)


def onehot(labels: Labels, classes: int) -> Array:
    """A one in the place of each label."""
    rows = np.zeros((len(labels), classes))
    for row, label in zip(rows, labels, strict=True):
        row[label] = 1.0
    return rows


def smoothed_cross_entropy(logits: Array, labels: Labels, epsilon: float, noise: Array | None = None) -> Array:
    """-Σ_k target_k·log p_k with the soft target written out."""
    classes = logits.shape[1]
    spread = np.full(classes, 1 / classes) if noise is None else noise
    target = (1 - epsilon) * onehot(labels, classes) + epsilon * spread
    return -(target * log_softmax(logits)).sum(1)


def confidence(logits: Array) -> Array:
    """The largest probability of each row."""
    return np.array([row.max() for row in softmax(logits)])


def correct(logits: Array, labels: Labels) -> Flags:
    """Whether the largest logit is the label's."""
    return np.array([row.argmax() == label for row, label in zip(logits, labels, strict=True)])


def accuracy(logits: Array, labels: Labels) -> float:
    """Share of rows whose largest logit is the label's."""
    return sum(correct(logits, labels)) / len(labels)


def worst_class_accuracy(logits: Array, labels: Labels) -> float:
    """The lowest accuracy among the labels which occur."""
    right = correct(logits, labels)
    return min(right[labels == label].mean() for label in set(labels.tolist()))


def nll(logits: Array, labels: Labels) -> float:
    """Mean of -log p(label)."""
    return -sum(row[label] for row, label in zip(log_softmax(logits), labels, strict=True)) / len(labels)


def brier(logits: Array, labels: Labels) -> float:
    """Mean squared distance of the probabilities to the one-hot label."""
    return float(((softmax(logits) - onehot(labels, logits.shape[1])) ** 2).sum() / len(labels))


def binned(confidences: Array, right: Flags, bins: int = 15) -> list[tuple[int, float, int]]:
    """Count, Σconfidence and Σcorrect of each bin [i/B, (i+1)/B); 1.0 is in the last."""
    rows = []
    for i in range(bins):
        inside = (confidences >= i / bins) & ((confidences < (i + 1) / bins) | (i == bins - 1))
        rows.append((int(inside.sum()), float(confidences[inside].sum()), int(right[inside].sum())))
    return rows


def ece(confidences: Array, right: Flags, bins: int = 15) -> float:
    """Σ over the bins of their share times |mean confidence - accuracy|."""
    total = 0.0
    for count, confidence_sum, correct_sum in binned(confidences, right, bins):
        if count:
            total += count / len(right) * abs(confidence_sum / count - correct_sum / count)
    return total


def aurc(confidences: Array, right: Flags) -> float:
    """Mean error rate among the k most confident, k = 1 … N; a group of equals errs at its mean rate throughout."""
    covered, errors, risks = 0, 0.0, []
    for value in sorted(set(confidences.tolist()), reverse=True):
        group = ~right[confidences == value]
        for _ in group:
            covered += 1
            errors += group.mean()
            risks.append(errors / covered)
    return sum(risks) / len(risks)


def weighted_aurc(confidences: Array, right: Flags, weights: Array) -> float:
    """As `aurc` without ties, where an example takes up its weight of the coverage."""
    covered = errors = area = 0.0
    for i in np.argsort(-confidences):
        if weights[i] > 0:
            covered += weights[i]
            errors += weights[i] * (not right[i])
            area += weights[i] * errors / covered
    return area


METRICS = {
    "accuracy": accuracy,
    "worst_class_accuracy": worst_class_accuracy,
    "nll": nll,
    "brier": brier,
    "ece": lambda logits, labels: ece(confidence(logits), correct(logits, labels)),
    "confidence_gap": lambda logits, labels: confidence(logits).mean() - accuracy(logits, labels),
    "aurc": lambda logits, labels: aurc(confidence(logits), correct(logits, labels)),
}
"""Each metric of a Report, by name."""
