"""Slow, obvious NumPy versions of what lscal computes. One model at a time: logits (N, K), labels (N,) or
distributions (N, K).
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom

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


def smoothed_cross_entropy(
    logits: Array, labels: Labels, epsilon: float, noise: Array | None = None
) -> Array:
    """-Σ_k target_k·log p_k with the soft target written out."""
    classes = logits.shape[1]
    spread = np.full(classes, 1 / classes) if noise is None else noise
    target = (1 - epsilon) * onehot(labels, classes) + epsilon * spread
    return -(target * log_softmax(logits)).sum(1)


# ---- one number per example
# ----------------------------------------------------------------------------------------------


def confidence(logits: Array) -> Array:
    """The largest probability of each row."""
    return np.array([row.max() for row in softmax(logits)])


def log_confidence(logits: Array) -> Array:
    """log of the largest probability, -log(1 + Σ of the others), exact where the others are tiny."""
    values = []
    for row in logits.astype(np.float64):
        others = np.delete(row, row.argmax()) - row.max()
        values.append(-math.log1p(np.exp(others).sum()))
    return np.array(values)


def ranking(logits: Array) -> Array:
    """log(p / (1 - p)) of the largest probability, to ten digits so that the order of a sum does not matter;
    never saturated.
    """
    values = []
    for row in logits.astype(np.float64):
        others = np.delete(row, row.argmax())
        top = others.max()
        values.append(
            round(row.max() - top - math.log(np.exp(others - top).sum()), 10) if top > -np.inf else math.inf
        )
    return np.array(values)


def correct(logits: Array, labels: Labels) -> Flags:
    """Whether the largest logit is the label's; of equal ones the first is meant."""
    return np.array([row.argmax() == label for row, label in zip(logits, labels, strict=True)])


def nlls(logits: Array, labels: Labels) -> Array:
    """-log p(label) of each row."""
    return np.array([-row[label] for row, label in zip(log_softmax(logits), labels, strict=True)])


def briers(logits: Array, labels: Labels) -> Array:
    """Squared distance of the probabilities to the one-hot label of each row."""
    return ((softmax(logits) - onehot(labels, logits.shape[1])) ** 2).sum(1)


def sphericals(logits: Array, labels: Labels) -> Array:
    """p(label) / |p| of each row."""
    return np.array(
        [row[label] / math.sqrt((row**2).sum()) for row, label in zip(softmax(logits), labels, strict=True)]
    )


def ranks(logits: Array, labels: Labels) -> NDArray[np.int64]:
    """How many logits are above the label's, of each row."""
    return np.array([(row > row[label]).sum() for row, label in zip(logits, labels, strict=True)])


# ---- accuracy and proper scores
# ------------------------------------------------------------------------------------------


def accuracy(logits: Array, labels: Labels) -> float:
    """Share of rows whose largest logit is the label's."""
    return sum(correct(logits, labels)) / len(labels)


def worst_class_accuracy(logits: Array, labels: Labels) -> float:
    """The lowest accuracy among the labels that occur."""
    right = correct(logits, labels)
    return min(right[labels == label].mean() for label in set(labels.tolist()))


def nll(logits: Array, labels: Labels) -> float:
    """Mean of -log p(label)."""
    return nlls(logits, labels).sum() / len(labels)


def brier(logits: Array, labels: Labels) -> float:
    """Mean squared distance of the probabilities to the one-hot label."""
    return float(briers(logits, labels).sum() / len(labels))


def folds(examples: int) -> list[tuple[Labels, Labels]]:
    """Held-out positions and the others: five random parts, always the same; none of a single example."""
    order = torch.randperm(examples, generator=torch.Generator().manual_seed(0)).numpy()
    if examples == 1:
        return []
    return [(part, np.setdiff1d(order, part)) for part in np.array_split(order, min(5, examples))]


def inverse_temperature(logits: Array, labels: Labels) -> float:
    """β in [1/1000, 100] at which the NLL of βz is least: where the expected logit is the label's. Labels at
    -inf say nothing.

    Where all of N are right, 1/(N + 2) of each target is given to all classes alike.
    """
    possible = logits[np.arange(len(labels)), labels] > -np.inf
    logits, labels = logits[possible], labels[possible]
    less = logits - logits[np.arange(len(labels)), labels][:, None]
    finite = np.where(np.isfinite(less), less, 0)
    right = len(labels) > 0 and (less <= 0).all() and (finite < 0).any()
    share = 1 / (len(labels) + 2) if right else 0.0
    wanted = share * float((finite.sum(1) / np.isfinite(less).sum(1)).sum()) if right else 0.0

    def slope(beta: float) -> float:
        p = np.exp(beta * (logits - logits.max(1, keepdims=True, initial=-np.inf)))
        expected = np.where(p > 0, p * np.where(p > 0, less, 0), 0).sum(1) / p.sum(1)
        return float(expected.sum()) - wanted

    low, high = 1e-3, 100.0
    if slope(low) >= 0:
        return low
    return high if slope(high) <= 0 else brentq(slope, low, high, xtol=1e-13, rtol=1e-13)


def recalibrated(logits: Array, labels: Labels) -> Array:
    """Logits times the β of the other folds."""
    scaled = logits.astype(np.float64).copy()
    for held, others in folds(len(labels)):
        scaled[held] *= inverse_temperature(logits[others].astype(np.float64), labels[others])
    return scaled


# ---- calibration
# --------------------------------------------------------------------------------------------------


def binned(confidences: Array, right: Array | Flags, bins: int = 15) -> list[tuple[int, float, float]]:
    """Count, Σconfidence and Σcorrect of each bin [i/B, (i+1)/B); 1.0 is in the last."""
    rows = []
    for i in range(bins):
        inside = (confidences >= i / bins) & ((confidences < (i + 1) / bins) | (i == bins - 1))
        rows.append((int(inside.sum()), float(confidences[inside].sum()), float(right[inside].sum())))
    return rows


def gaps(confidences: Array, right: Array | Flags) -> list[tuple[int, float]]:
    """Count and mean confidence - accuracy of each filled bin."""
    return [
        (count, total / count - hits / count) for count, total, hits in binned(confidences, right) if count
    ]


def ece(confidences: Array, right: Array | Flags, bins: int = 15) -> float:
    """Σ over the bins of their share times |mean confidence - accuracy|."""
    total = 0.0
    for count, confidence_sum, correct_sum in binned(confidences, right, bins):
        if count:
            total += count / len(right) * abs(confidence_sum / count - correct_sum / count)
    return total


def calibrated_ece(confidences: Array, right: Flags) -> float:
    """Σ over the bins of E|X - nc| / N, X binomial, all its values added up."""
    total = 0.0
    for count, confidence_sum, _ in binned(confidences, right):
        if count:
            hits = np.arange(count + 1)
            total += (
                binom.pmf(hits, count, min(1.0, confidence_sum / count)) * abs(hits - confidence_sum)
            ).sum()
    return total / len(right)


def folded_normal(mean: float, deviation: float) -> float:
    """E|X| of a normal variable."""
    if deviation == 0:
        return abs(mean)
    ratio = mean / deviation
    return deviation * math.sqrt(2 / math.pi) * math.exp(-(ratio**2) / 2) + mean * math.erf(
        ratio / math.sqrt(2)
    )


def debiased_ece(confidences: Array, right: Flags) -> float:
    """Σ of the gaps that make the ECE observed the one to expect, all moved by t standard errors and none by
    more than t times itself.
    """
    observed, parts = 0.0, []
    for count, confidence_sum, correct_sum in binned(confidences, right):
        if count:
            gap, rate = (
                abs(confidence_sum - correct_sum) / len(right),
                (correct_sum + confidence_sum / count) / (count + 1),
            )
            observed += gap
            parts.append((gap, math.sqrt(max(0.0, count * rate * (1 - rate))) / len(right)))

    def moved(steps: float) -> list[float]:
        return [max(0.0, gap + steps * min(gap, error)) for gap, error in parts]

    def excess(steps: float) -> float:
        return (
            sum(folded_normal(own, error) for own, (_, error) in zip(moved(steps), parts, strict=True))
            - observed
        )

    if excess(-200) >= 0:
        return sum(moved(-200))
    return sum(moved(brentq(excess, -200, 1, xtol=1e-13)))


def equal_mass_bounds(confidences: Array, bins: int = 15) -> list[float]:
    """The i·N/B-th lowest confidences, between 0 and 1."""
    ordered = sorted(confidences.tolist())
    return [0.0, *(ordered[i * len(ordered) // bins] for i in range(1, bins)), 1.0]


def equal_mass_ece(confidences: Array, right: Flags, bins: int = 15) -> float:
    """As `ece`, in bins between the i·N/B-th lowest confidences."""
    inner = equal_mass_bounds(confidences, bins)[1:-1]
    place = np.array([sum(edge <= value for edge in inner) for value in confidences])
    return sum(abs(confidences[place == i].sum() - right[place == i].sum()) for i in range(bins)) / len(right)


def classwise_ece(logits: Array, labels: Labels) -> float:
    """Mean over the classes of the calibration error of their probability."""
    p = softmax(logits)
    return float(np.mean([ece(p[:, k], labels == k) for k in range(p.shape[1])]))


def mce(confidences: Array, right: Flags) -> float:
    """The largest |mean confidence - accuracy| of a filled bin."""
    return max(abs(gap) for _, gap in gaps(confidences, right))


def rmsce(confidences: Array, right: Flags) -> float:
    """√ of Σ over the bins of their share times the squared gap."""
    return math.sqrt(sum(count * gap**2 for count, gap in gaps(confidences, right)) / len(right))


def debiased_rmsce(confidences: Array, right: Flags) -> float:
    """As `rmsce`, each squared gap less the variance of the accuracy; nothing of bins with one example."""
    total = 0.0
    for count, confidence_sum, correct_sum in binned(confidences, right):
        if count > 1:
            rate = correct_sum / count
            total += count * ((confidence_sum / count - rate) ** 2 - rate * (1 - rate) / (count - 1))
    return math.sqrt(max(0.0, total / len(right)))


def one_sided(confidences: Array, right: Flags, sign: int) -> float:
    """The part of the ECE whose gaps have this sign."""
    return sum(count * max(0.0, sign * gap) for count, gap in gaps(confidences, right)) / len(right)


def spread_on_grid(places: Array, weights: Array, points: int) -> Array:
    """Each weight divided linearly between the two grid points beside its place in [0, 1]."""
    position = places * (points - 1)
    left = np.clip(position.astype(int), 0, points - 2)
    share = position - left
    return np.bincount(left, (1 - share) * weights, points) + np.bincount(left + 1, share * weights, points)


def reflected(values: Array, sigma: float) -> Array:
    """A circular convolution of the grid and its mirror image with a Gaussian cut at ±1/2."""
    points = len(values)
    even = np.concatenate([values, values[-2:0:-1]])
    kernel = np.exp(-0.5 * ((np.arange(points) / (points - 1) - 0.5) / sigma) ** 2) / (
        math.sqrt(2 * math.pi) * sigma
    )
    taps = np.zeros(2 * (points - 1))
    np.add.at(taps, (np.arange(points) - points // 2) % len(taps), kernel)
    return np.fft.irfft(np.fft.rfft(even) * np.fft.rfft(taps), len(taps))[:points]


def smooth_ece_at(confidences: Array, right: Flags, sigma: float) -> float:
    """Smooth ECE at a bandwidth, with the grids of relplot 1.0.3."""
    points = max(2000, round(20 / sigma)) // 2 + 1
    mesh, grid = np.linspace(0, 1, max(200, round(10 / sigma))), np.linspace(0, 1, points)
    residual = np.interp(
        mesh, grid, reflected(spread_on_grid(confidences, confidences - right, points), sigma)
    )
    density = (
        np.interp(
            mesh, grid, reflected(spread_on_grid(confidences, np.ones_like(confidences), points), sigma)
        )
        + 1e-4
    )
    return float(np.abs(residual).sum() / density.sum())


def smooth_ece(confidences: Array, right: Flags) -> float:
    """relplot 1.0.3's smECE, to 1e-15: the value at the σ that equals it, found by halving [0, 1] ten
    times.
    """
    high, low = 1.0, 0.0
    if smooth_ece_at(confidences, right, 1.0) > 1:
        return smooth_ece_at(confidences, right, 1.0)
    for _ in range(10):
        middle = (high + low) / 2
        if middle < 1e-3 or middle < smooth_ece_at(confidences, right, middle):
            low = middle
        else:
            high = middle
    return smooth_ece_at(confidences, right, high)


def ks_error(confidences: Array, right: Flags, by: Array) -> float:
    """The largest |Σ(confidence - correct)| / N of those up to any threshold of `by`."""
    return max(abs((confidences[by <= value] - right[by <= value]).sum()) for value in by) / len(right)


def spiegelhalter(logits: Array, labels: Labels) -> float:
    """Σ(correct - c)(1 - 2c) over its standard deviation."""
    above = below = 0.0
    for c, log_c, hit in zip(
        confidence(logits), log_confidence(logits), correct(logits, labels), strict=True
    ):
        above += (hit - c) * (1 - 2 * c)
        below += (1 - 2 * c) ** 2 * c * -math.expm1(log_c)
    return above / math.sqrt(below) if below else math.nan if above == 0 else math.copysign(math.inf, above)


# ---- ranking
# --------------------------------------------------------------------------------------------------


def risks(confidences: Array, right: Flags) -> list[float]:
    """Error rate among the k most confident, k = 1 … N; a group of equals errs at its mean rate
    throughout.
    """
    covered, errors, found = 0, 0.0, []
    for value in sorted(set(confidences.tolist()), reverse=True):
        group = ~right[confidences == value]
        for _ in group:
            covered += 1
            errors += group.mean()
            found.append(errors / covered)
    return found


def aurc(confidences: Array, right: Flags) -> float:
    """Mean error rate among the k most confident."""
    return sum(risks(confidences, right)) / len(right)


def e_aurc(confidences: Array, right: Flags) -> float:
    """AURC less that of the same errors ranked last."""
    return aurc(confidences, right) - aurc(right.astype(np.float64), right)


def augrc(confidences: Array, right: Flags) -> float:
    """Trapezoids under errors / N over coverage, from (0, 0), at the ends of groups of equals."""
    places, errors = [0.0], [0.0]
    for value in sorted(set(confidences.tolist()), reverse=True):
        above = confidences >= value
        places.append(above.mean())
        errors.append((above & ~right).mean())
    return float(np.trapezoid(errors, places))


def auroc(confidences: Array, right: Flags) -> float:
    """Share of pairs of a right and a wrong one in which the right one is more confident; equals are half."""
    pairs = [(a > b) + (a == b) / 2 for a in confidences[right] for b in confidences[~right]]
    return float(np.mean(pairs)) if pairs else math.nan


def risk_at(confidences: Array, right: Flags, coverage: float) -> float:
    """The error rate among the least number that makes up the coverage."""
    found = risks(confidences, right)
    return next(risk for k, risk in enumerate(found, 1) if k >= coverage * len(found) - 1e-9)


def coverage_at(confidences: Array, right: Flags, risk: float) -> float:
    """The largest share with at most this risk."""
    found = risks(confidences, right)
    return max([k for k, own in enumerate(found, 1) if own <= risk + 1e-12], default=0) / len(found)


def isotonic(x: Array, y: Array) -> Array:
    """The rising values nearest to y, each the mean of a run of equal x or of neighbours that would fall; x
    sorted.
    """
    runs = [[y[x == value].mean(), (x == value).sum(), 1] for value in sorted(set(x.tolist()))]
    merged: list[list[float]] = []
    for run in runs:
        merged.append(list(run))
        while len(merged) > 1 and merged[-2][0] >= merged[-1][0]:
            (a, n, i), (b, m, j) = merged[-2:]
            merged[-2:] = [[(a * n + b * m) / (n + m), n + m, i + j]]
    return np.repeat([value for value, _, _ in merged], [int(count) for _, _, count in merged])


def fidelity(confidences: Array, right: Flags) -> float:
    """Var(g) / (a(1-a)), g the isotonic regression of the other folds on the rank of the confidence."""
    if right.all() or not right.any():
        return math.nan
    order = sorted(set(confidences.tolist()))
    place = np.array([order.index(value) for value in confidences], dtype=np.float64)
    expected = np.zeros(len(right))
    for held, others in folds(len(right)):
        x, y = place[others], right[others].astype(np.float64)
        expected[held] = np.interp(place[held], sorted(set(x.tolist())), isotonic(x, y))
    return float(expected.var() / (right.mean() * (1 - right.mean())))


# ---- label distributions
# -------------------------------------------------------------------------------------------------


def agreement(logits: Array, q: Array) -> float:
    """Mean probability that a random annotator names the predicted class."""
    return float(np.mean([own[row.argmax()] for own, row in zip(q, logits, strict=True)]))


def divergence(q: Array, log_q: Array, log_p: Array) -> float:
    """Σ q (log q - log p) of one row, nothing where q is 0."""
    return sum(own * (first - second) for own, first, second in zip(q, log_q, log_p, strict=True) if own > 0)


def log(values: Array) -> Array:
    """log, -inf at 0."""
    return np.array([math.log(value) if value > 0 else -math.inf for value in values])


def soft_nll(logits: Array, q: Array) -> float:
    """Mean -Σ q log p."""
    return float(
        np.mean(
            [
                divergence(own, np.zeros(len(own)), row)
                for own, row in zip(q, log_softmax(logits), strict=True)
            ]
        )
    )


def kl(logits: Array, q: Array) -> float:
    """Mean KL(q || p)."""
    return float(
        np.mean([divergence(own, log(own), row) for own, row in zip(q, log_softmax(logits), strict=True)])
    )


def jensen_shannon(logits: Array, q: Array) -> float:
    """Mean of KL(q || m) and KL(p || m), m their middle."""
    values = []
    for own, p in zip(q, softmax(logits), strict=True):
        middle = log((own + p) / 2)
        values.append((divergence(own, log(own), middle) + divergence(p, log(p), middle)) / 2)
    return float(np.mean(values))


def total_variation(logits: Array, q: Array) -> float:
    """Mean of half the sum of |p - q|."""
    return float(np.mean([abs(own - p).sum() / 2 for own, p in zip(q, softmax(logits), strict=True)]))


def human_ece(logits: Array, q: Array) -> float:
    """As `ece`, towards the share of annotators who name the predicted class."""
    return ece(confidence(logits), np.array([own[row.argmax()] for own, row in zip(q, logits, strict=True)]))


METRICS = {
    "accuracy": accuracy,
    "top_k_accuracy": lambda logits, labels: (ranks(logits, labels) < 5).mean(),
    "worst_class_accuracy": worst_class_accuracy,
    "nll": nll,
    "nll_refinement": lambda logits, labels: nll(recalibrated(logits, labels), labels),
    "nll_calibration": lambda logits, labels: nll(logits, labels) - nll(recalibrated(logits, labels), labels),
    "brier": brier,
    "brier_refinement": lambda logits, labels: brier(recalibrated(logits, labels), labels),
    "brier_calibration": lambda logits, labels: (
        brier(logits, labels) - brier(recalibrated(logits, labels), labels)
    ),
    "spherical": lambda logits, labels: sphericals(logits, labels).mean(),
    "confidence_gap": lambda logits, labels: confidence(logits).mean() - accuracy(logits, labels),
    "ece": lambda logits, labels: ece(confidence(logits), correct(logits, labels)),
    "calibrated_ece": lambda logits, labels: calibrated_ece(confidence(logits), correct(logits, labels)),
    "debiased_ece": lambda logits, labels: debiased_ece(confidence(logits), correct(logits, labels)),
    "equal_mass_ece": lambda logits, labels: equal_mass_ece(confidence(logits), correct(logits, labels)),
    "classwise_ece": classwise_ece,
    "mce": lambda logits, labels: mce(confidence(logits), correct(logits, labels)),
    "rmsce": lambda logits, labels: rmsce(confidence(logits), correct(logits, labels)),
    "debiased_rmsce": lambda logits, labels: debiased_rmsce(confidence(logits), correct(logits, labels)),
    "overconfidence": lambda logits, labels: one_sided(confidence(logits), correct(logits, labels), 1),
    "underconfidence": lambda logits, labels: one_sided(confidence(logits), correct(logits, labels), -1),
    "smooth_ece": lambda logits, labels: smooth_ece(confidence(logits), correct(logits, labels)),
    "ks_error": lambda logits, labels: ks_error(
        confidence(logits), correct(logits, labels), by=ranking(logits)
    ),
    "spiegelhalter": spiegelhalter,
    "aurc": lambda logits, labels: aurc(ranking(logits), correct(logits, labels)),
    "e_aurc": lambda logits, labels: e_aurc(ranking(logits), correct(logits, labels)),
    "augrc": lambda logits, labels: augrc(ranking(logits), correct(logits, labels)),
    "misclassification_auroc": lambda logits, labels: auroc(ranking(logits), correct(logits, labels)),
    "risk_at_coverage": lambda logits, labels: risk_at(ranking(logits), correct(logits, labels), 0.8),
    "coverage_at_risk": lambda logits, labels: coverage_at(ranking(logits), correct(logits, labels), 0.01),
    "fidelity": lambda logits, labels: fidelity(ranking(logits), correct(logits, labels)),
    "agreement": agreement,
    "soft_nll": soft_nll,
    "kl": kl,
    "jensen_shannon": jensen_shannon,
    "total_variation": total_variation,
    "human_ece": human_ece,
}
"""Each metric by name: of logits and labels, the last six of logits and distributions."""

TOLERANCES = {"smooth_ece": 1e-3, "debiased_ece": 1e-9} | dict.fromkeys(
    ["nll_refinement", "nll_calibration", "brier_refinement", "brier_calibration"], 1e-7
)
"""Where lscal iterates to less than rounding, or smooths on a coarser grid."""
