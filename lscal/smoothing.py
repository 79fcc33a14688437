"""Smoothing: the mass ε taken from the label, and the distribution that receives it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor

Noise = Float[Tensor, " class"] | Float[Tensor, "class class"]
Distribution = Callable[[Integer[Tensor, " example"], int], Noise]
DISTRIBUTIONS: dict[str, Distribution] = {}
"""Noise distributions u by name. Each takes the training labels and K, and returns u(k), shape (K,), or a u
for each label, shape (K, K) with the label's in its row. Each u sums to 1."""

SUM_TOLERANCE = 1e-5  # a softmax over 50,000 classes in float32 is off by less


def distribution(function: Distribution) -> Distribution:
    """Register a noise distribution under the function's name."""
    DISTRIBUTIONS[function.__name__] = function
    return function


@distribution
def uniform(labels: Integer[Tensor, " example"], classes: int) -> Float[Tensor, " class"]:
    """u(k) = 1/K (Szegedy et al. 2016, section 7). Shape (K,), float64."""
    return torch.full((classes,), 1 / classes, dtype=torch.float64, device=labels.device)


@distribution
def class_prior(labels: Integer[Tensor, " example"], classes: int) -> Float[Tensor, " class"]:
    """u(k) = share of class k among the training labels ("unigram", Pereyra et al. 2017). Shape (K,),
    float64.

    Errors: ValueError where there are no labels, or one is outside [0, K); drop those of ignored tokens
    first.
    """
    if not len(labels):
        raise ValueError("there are no labels; a class prior is counted on at least one")
    check_labels(labels, classes)
    counts = torch.bincount(labels, minlength=classes).to(torch.float64)
    return counts / counts.sum()


def similarity(
    similarities: Float[Tensor, "class class"], temperature: float
) -> Float[Tensor, "class class"]:
    """u(k | y) = softmax_k(S[y, k] / τ): the label's mass goes to the classes that are like it. Shape (K,
    K), float64.

    S is for example minus the distance in a taxonomy (Bertinetto et al. 2020, "Making Better Mistakes",
    section 3.2), or the logarithm of a confusion matrix: at τ = 1 that gives its rows. The diagonal counts:
    with a small τ most of ε returns to the label, unless the loss spreads it over "wrong_classes". -inf is a
    probability of 0. τ → ∞ is uniform.

    Errors: ValueError unless τ > 0, S is square, NaN and +inf nowhere, and some entry of each row is finite.
    """
    if not 0 < temperature < torch.inf:
        raise ValueError(f"temperature is {temperature}; allowed is 0 < temperature < inf")
    if similarities.ndim != 2 or similarities.shape[0] != similarities.shape[1]:
        raise ValueError(f"similarities have shape {tuple(similarities.shape)}; wanted (K, K)")
    if not (similarities < torch.inf).all() or similarities.amax(-1).isneginf().any():
        raise ValueError(
            "similarities hold NaN or inf, or a row of -inf; allowed are numbers and -inf, with a number in"
            " each row"
        )
    return (similarities.to(torch.float64) / temperature).softmax(-1)


def table(rows: Noise) -> Noise:
    """The given u, shape (K,), or one for each label, shape (K, K) with the label's in its row: checked, as
    float64.

    Errors: ValueError unless every entry is at least 0 and every row sums to 1 within 1e-5.
    """
    if rows.ndim not in (1, 2) or rows.shape[0] != rows.shape[-1]:
        raise ValueError(
            f"the table has shape {tuple(rows.shape)}; wanted (K,), or (K, K) with a row for each label"
        )
    rows = rows.to(torch.float64)
    if not (rows >= 0).all():
        raise ValueError(f"the table holds {float(rows[~(rows >= 0)][0])}; allowed is 0 to 1")
    sums = rows.sum(-1).reshape(-1)
    wrong = sums[~((sums - 1).abs() <= SUM_TOLERANCE)]
    if len(wrong):
        raise ValueError(
            f"a row of the table sums to {float(wrong[0]):.6g}; wanted 1. Divide each row by its sum if that"
            " is what is meant"
        )
    return rows


@dataclass(frozen=True)
class Smoothing:
    """The target (1-ε)·onehot(y) + ε·u.

    `epsilon` is the ε/K convention of torch and Szegedy et al.: ε is spread over all K classes, the label's
    included. Range [0, 1), and below 0 with `negative_epsilon`. `distribution` names
    u, a key of `DISTRIBUTIONS`.
    """

    epsilon: float
    distribution: str = "uniform"
    negative_epsilon: bool = False

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon, negative_epsilon=self.negative_epsilon)
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(
                f"no noise distribution named {self.distribution!r}; there are"
                f" {', '.join(sorted(DISTRIBUTIONS))}"
            )

    def noise(self, labels: Integer[Tensor, " example"], classes: int) -> Noise:
        """u over the K classes, shape (K,) or (K, K), float64, estimated from the training labels where it
        depends on them.

        Errors: ValueError where the distribution gives no u over K classes, see `table`.
        """
        noise = table(DISTRIBUTIONS[self.distribution](labels, classes))
        if noise.shape[-1] != classes:
            raise ValueError(
                f"distribution {self.distribution!r} is over {noise.shape[-1]} classes; there are {classes}"
            )
        return noise


def check_epsilon(epsilon: float | Float[Tensor, "*any"], *, negative_epsilon: bool = False) -> None:
    """Raise ValueError unless every ε is in [0, 1), or in (-inf, 1) with `negative_epsilon`. A tensor's
    device is waited for.
    """
    for value in epsilon.flatten().tolist() if isinstance(epsilon, Tensor) else (epsilon,):
        if not (0 <= value < 1 or (negative_epsilon and -torch.inf < value < 0)):
            raise ValueError(
                f"epsilon is {value}; allowed is"
                f" {'-inf < epsilon' if negative_epsilon else '0 <= epsilon'} < 1"
            )


def check_labels(labels: Integer[Tensor, "*any"], classes: int, *, ignore_index: int | None = None) -> None:
    """Raise ValueError, naming the first one, unless every label is in [0, K) or is `ignore_index`. The
    device is waited for.

    The losses trust their labels, since to look at them would make every training step wait. Call this once,
    on the labels of a whole data set.
    """
    labels = labels.long()  # in uint8, 156 equals -100
    outside = (labels < 0) | (labels >= classes)
    if ignore_index is not None:
        outside &= labels != ignore_index
    if outside.any():
        place = tuple(outside.nonzero()[0].tolist())
        raise ValueError(
            f"the label at {place[0] if len(place) == 1 else place} is {int(labels[place])}; allowed is 0 to"
            f" {classes - 1}, the number of classes less"
            f" one{'' if ignore_index is None else f', and {ignore_index} for those to ignore'}"
        )


def epsilon_wrong_classes(epsilon: float, classes: int) -> float:
    """The same uniform smoothing in the other convention, where only the wrong classes share the mass:
    ε(K-1)/K.
    """
    return epsilon * (classes - 1) / classes


def epsilon_all_classes(epsilon: float, classes: int) -> float:
    """The inverse of `epsilon_wrong_classes`: from the mass that the wrong classes share to the ε of torch,
    ε'K/(K-1).
    """
    return epsilon * classes / (classes - 1)
