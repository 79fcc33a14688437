"""Label-smoothed cross entropy, for one model or for a population, in closed form; and two alternatives to
it.

What the three losses have in common:

    logits: z with p = softmax(z), shape (*member, N, K). float16 and bfloat16 are computed in float32,
    float64 stays float64.
        A logit of -inf is a masked class: it has probability 0, and no target has mass on it. Tokens (…, T,
        K) are examples.
    labels: class indices in [0, K) of any integer type, a row for each member, or one row that the members
    share. They are
        trusted: look at them once, where they enter, by `lscal.smoothing.check_labels`.
    ε, λ, β: one number, which is checked, or a tensor with one dimension for each of the members', which is
    trusted. class_weights: w, shape (K,). The weight of an example's label multiplies its whole loss.
    ignore_index: examples with this label have loss 0 and gradient 0, whatever their logits hold. reduction:
    "none" is one value per example. "mean" is one value per member, Σ w·loss / Σ w over the examples that
    are
        not ignored, 0 where none is left. For the mean over all tokens of a batch, flatten its leading
        dimensions into one.

They work under torch.func.vmap and torch.compile, and never wait for the device. Shapes that do not fit and
numbers out of range are a ValueError.
"""

import itertools
from collections.abc import Callable
from typing import Any, Literal, final

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor, nn
from typing_extensions import override

from lscal.smoothing import check_epsilon


def smoothed_cross_entropy(
    logits: Float[Tensor, "*member example class"],
    labels: Integer[Tensor, "*#member example"],
    epsilon: float | Float[Tensor, "*#member"] | None = None,
    noise: Float[Tensor, " class"] | Float[Tensor, "class class"] | None = None,
    *,
    epsilon_per_class: Float[Tensor, " class"] | None = None,
    noise_per_example: Float[Tensor, "*#member example class"] | None = None,
    convention: Literal["all_classes", "wrong_classes"] = "all_classes",
    negative_epsilon: bool = False,
    masked: bool = True,
    class_weights: Float[Tensor, " class"] | None = None,
    ignore_index: int | None = None,
    reduction: Literal["none", "mean"] = "none",
) -> Float[Tensor, "*member example"] | Float[Tensor, "*member"]:
    """Cross entropy of softmax(logits) against (1-ε)·onehot(label) + ε·u, in nats.

    L = -(1-ε)·log p_label - ε·Σ_k u_k log p_k. It is linear in ε, so a vector of ε costs one log-softmax, and
    no tensor of soft targets is kept unless u itself differs between examples.

    Args, beside those that the module describes:
        epsilon: the smoothing mass ε in [0, 1), one number or one per member. At 0 this is cross entropy.
            `lscal.smoothing.check_epsilon` looks at a tensor, once, where it enters.
        noise: u over the classes, shape (K,), or a u for each label, shape (K, K) with the label's in its
        row. Each sums to 1.
            Uniform when None. `lscal.smoothing` makes and checks them.
        epsilon_per_class: the ε of each label, in place of `epsilon`. noise_per_example: the u of each
        example, such as a teacher's probabilities, in place of `noise`. convention: "all_classes" spreads ε
        over all classes, the label's included (uniform: ε/K each), as torch does.
            "wrong_classes" spreads it over the others only (uniform: ε/(K-1) each), in proportion to u.
        negative_epsilon: allows a number below 0 too, which pushes the wrong classes away (Wei et al. 2022).
        masked: False promises that no logit is -inf, and saves the search for them.

    u's mass on masked classes goes to the others in proportion to u. Where u has mass on no class that may
    have it, the label keeps ε. The loss of a masked label is inf.

    Range: at least the entropy of the target, for 0 <= ε. Direction: lower is better.
    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
    """
    check_shapes(logits, labels, class_weights, epsilon_per_class)
    check_noise(logits, noise, noise_per_example)
    logits, labels, ignored = examples(logits, labels, ignore_index)
    log_probabilities = log_softmax(logits)
    at_label = at(log_probabilities, labels)
    mass: float | Tensor
    if epsilon is not None and epsilon_per_class is None:
        if not isinstance(epsilon, Tensor):
            check_epsilon(epsilon, negative_epsilon=negative_epsilon)
        mass = per_example(epsilon, log_probabilities)
    elif epsilon_per_class is not None and epsilon is None:
        mass = epsilon_per_class.to(at_label.dtype)[labels]
    else:
        raise ValueError("wanted either epsilon or epsilon_per_class")
    excluded = logits.isneginf() if masked else None
    if convention == "wrong_classes":
        excluded = torch.zeros_like(logits, dtype=torch.bool) if excluded is None else excluded
        excluded = excluded.scatter(-1, labels.unsqueeze(-1), True)
    elif convention != "all_classes":
        raise ValueError(f"there is no convention {convention!r}; wanted 'all_classes' or 'wrong_classes'")
    u = noise_per_example if noise is None else noise if noise.ndim == 1 else noise[labels]
    at_noise = mean_log_probability(log_probabilities, u, excluded, at_label)
    return reduced((mass - 1) * at_label - mass * at_noise, labels, ignored, class_weights, reduction)


def margin_smoothed_cross_entropy(
    logits: Float[Tensor, "*member example class"],
    labels: Integer[Tensor, "*#member example"],
    penalty: float | Float[Tensor, "*#member"] = 0.1,
    margin: float = 10.0,
    *,
    class_weights: Float[Tensor, " class"] | None = None,
    ignore_index: int | None = None,
    reduction: Literal["none", "mean"] = "none",
) -> Float[Tensor, "*member example"] | Float[Tensor, "*member"]:
    """Cross entropy plus λ times the mean over the classes of max(0, max_j z_j - z_k - m), in nats.

    Margin-based label smoothing: only the logits more than m below the largest are pulled up. λ (`penalty`)
    and m (`margin`) are at least 0. Masked classes are left out of the mean. The mean and the defaults are
    those of the authors' code; the paper's equation has the sum over the classes, whose λ is ours divided by
    K.

    Range: [0, inf). Direction: lower is better. Source: Liu et al. 2022, "The Devil is in the Margin";
    github.com/by-liu/MbLS, calibrate/losses/logit_margin_l1.py, which leaves ignored examples in the penalty
    unless their label is at least 0.
    """
    check_shapes(logits, labels, class_weights)
    check_strength("penalty", penalty)
    check_strength("margin", margin)
    logits, labels, ignored = examples(logits, labels, ignore_index)
    log_probabilities = log_softmax(logits)
    masked = logits.isneginf()
    distance = (log_probabilities.amax(-1, keepdim=True) - log_probabilities).masked_fill(masked, 0)
    excess = (distance - margin).relu().sum(-1) / (~masked).sum(-1)
    loss = per_example(penalty, log_probabilities) * excess - at(log_probabilities, labels)
    return reduced(loss, labels, ignored, class_weights, reduction)


def confidence_penalised_cross_entropy(
    logits: Float[Tensor, "*member example class"],
    labels: Integer[Tensor, "*#member example"],
    penalty: float | Float[Tensor, "*#member"] = 0.1,
    *,
    class_weights: Float[Tensor, " class"] | None = None,
    ignore_index: int | None = None,
    reduction: Literal["none", "mean"] = "none",
) -> Float[Tensor, "*member example"] | Float[Tensor, "*member"]:
    """Cross entropy minus β times the entropy of the prediction, H(p) = -Σ_k p_k log p_k, in nats.

    β (`penalty`) is at least 0. Up to a constant it is cross entropy + β·KL(p, uniform); label smoothing has
    the divergence the other way round.

    Range: [-β log K, inf). Direction: lower is better. Source: Pereyra et al. 2017, "Regularizing Neural
    Networks by Penalizing Confident Output Distributions", section 3.
    """
    check_shapes(logits, labels, class_weights)
    check_strength("penalty", penalty)
    logits, labels, ignored = examples(logits, labels, ignore_index)
    log_probabilities = log_softmax(logits)
    # filled before the product: 0·(-inf) would be NaN
    entropy = -(log_probabilities.exp() * log_probabilities.masked_fill(logits.isneginf(), 0)).sum(-1)
    loss = -at(log_probabilities, labels) - per_example(penalty, log_probabilities) * entropy
    return reduced(loss, labels, ignored, class_weights, reduction)


@final
class SmoothedCrossEntropy(nn.Module):
    """Label-smoothed cross entropy as a module, with an ε that may fall to 0 while training goes on.

    With `drop` below 1, ε holds for the first `drop` of the optimiser steps and is 0 from there on, so that
    most of the gain in accuracy stays and confidence is learned without smoothing (docs/smoothing.md). The
    module has to be given the share of the training that is past: by `advance` before each step, or by the
    callback that `follow` returns after each step.

        loss = SmoothedCrossEntropy(0.3, drop=0.3)
        for step, (inputs, labels) in enumerate(batches):
            loss.advance(step / steps)
            loss(model(inputs), labels).backward()

    Args:
        epsilon: the smoothing mass in [0, 1), in the convention of torch: ε/K for each of K classes.
        drop: the share of the steps after which ε is 0, in (0, 1]; 1 keeps ε to the end.
        options: the keyword arguments of `smoothed_cross_entropy`; `reduction` is "mean" where none is given.

    Source: Xu et al. 2020, "Towards Understanding Label Smoothing" (arXiv 2006.11653), section 4 (TSLA).
    """

    def __init__(self, epsilon: float, drop: float = 1.0, **options: Any):
        """Errors: ValueError for a number that is not allowed."""
        super().__init__()
        check_epsilon(epsilon, negative_epsilon=bool(options.get("negative_epsilon", False)))
        if not 0 < drop <= 1:
            raise ValueError(
                f"drop is {drop}; allowed is 0 < drop <= 1, the share of the steps after which ε is 0"
            )
        self.epsilon, self.drop, self.options = epsilon, drop, {"reduction": "mean", **options}
        self.share: float | None = None if drop < 1 else 0.0

    @property
    def strength(self) -> float:
        """ε at this place of the training. Errors: RuntimeError where `drop` is below 1 and no share was
        given, as ε would never fall.
        """
        if self.share is None:
            raise RuntimeError(
                f"ε is to fall to 0 after {self.drop:g} of the steps, but how much of the training is past is"
                " not known. Call loss.advance(step / steps) before each step, or loss.follow(steps)."
            )
        return self.epsilon if self.share < self.drop or self.drop == 1 else 0.0

    def advance(self, share: float) -> None:
        """Set the share of the optimiser steps that is past, 0 to 1. Errors: ValueError."""
        if not 0 <= share <= 1:
            raise ValueError(f"the share that is past is {share}; allowed is 0 to 1, as step / steps is")
        self.share = share

    def follow(self, steps: int, done: int = 0) -> Callable[..., None]:
        """A callback that is called after each of `steps` optimiser steps, with whatever arguments; `done`
        are past already where a training is resumed. Steps beyond the last have no smoothing.
        """
        if not 0 <= done <= steps or steps < 1:
            raise ValueError(
                f"{done} of {steps} steps are done; wanted at least 1 step, 0 to all of them done"
            )
        count = itertools.count(done + 1)
        self.advance(done / steps)

        def after_step(*_: Any, **__: Any) -> None:
            self.advance(min(1.0, next(count) / steps))

        return after_step

    @override
    def forward(self, logits: Float[Tensor, "*member example class"], labels: Tensor) -> Tensor:
        """The loss of a batch, see `smoothed_cross_entropy`."""
        return smoothed_cross_entropy(logits, labels, self.strength, **self.options)

    @override
    def extra_repr(self) -> str:
        return f"epsilon={self.epsilon:g}, drop={self.drop:g}"


def examples(
    logits: Float[Tensor, "*member example class"],
    labels: Integer[Tensor, "*#member example"],
    ignore_index: int | None,
) -> tuple[
    Float[Tensor, "*member example class"],
    Int[Tensor, "*member example"],
    Bool[Tensor, "*member example"] | None,
]:
    """Logits, labels (int64, a row for each member), and which examples are ignored; their logits and labels
    are 0 from here on.
    """
    labels = labels.long().expand(logits.shape[:-1])
    if ignore_index is None:
        return logits, labels, None
    ignored = labels == ignore_index
    return logits.masked_fill(ignored.unsqueeze(-1), 0), labels.masked_fill(ignored, 0), ignored


def log_softmax(logits: Float[Tensor, "*member example class"]) -> Float[Tensor, "*member example class"]:
    """log p, in float32 or better: a sum over a large vocabulary would overflow float16, and lose the small
    terms in bfloat16.
    """
    return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def at(
    log_probabilities: Float[Tensor, "*member example class"], labels: Int[Tensor, "*member example"]
) -> Float[Tensor, "*member example"]:
    """log p of each example's label."""
    return log_probabilities.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def mean_log_probability(
    log_probabilities: Float[Tensor, "*member example class"],
    u: Float[Tensor, " class"] | Float[Tensor, "*#member example class"] | None,
    excluded: Bool[Tensor, "*member example class"] | None,
    at_label: Float[Tensor, "*member example"],
) -> Float[Tensor, "*member example"]:
    """Σ u_k log p_k / Σ u_k over the classes that are not excluded (u uniform when None), log p of the label
    where Σ u_k is 0.
    """
    if u is not None:
        u = u.to(log_probabilities.dtype)
    if excluded is None:
        return (
            log_probabilities.sum(-1) / log_probabilities.shape[-1]
            if u is None
            else dot(log_probabilities, u)
        )
    log_probabilities = log_probabilities.masked_fill(excluded, 0)
    if u is None:
        left = (~excluded).sum(-1, dtype=log_probabilities.dtype)
        return log_probabilities.sum(-1) / left.clamp(
            min=1
        )  # where none is left, the label is the only class, and its log p is 0
    left = torch.where(excluded, 0, u).sum(-1)
    return torch.where(left > 0, dot(log_probabilities, u) / torch.where(left > 0, left, 1), at_label)


def dot(
    log_probabilities: Float[Tensor, "*member example class"], u: Float[Tensor, "..."]
) -> Float[Tensor, "*member example"]:
    """Σ_k u_k log p_k. As a product of matrices, autocast would take it in half precision."""
    return (log_probabilities * u).sum(-1)


def per_example(
    strength: float | Float[Tensor, "*#member"], log_probabilities: Float[Tensor, "*member example class"]
) -> float | Float[Tensor, "*#member 1"]:
    """A number as it is; one number per member with a dimension for the examples."""
    if not isinstance(strength, Tensor):
        return strength
    if strength.ndim not in (0, log_probabilities.ndim - 2):
        raise ValueError(
            f"epsilon or penalty has shape {tuple(strength.shape)} for logits"
            f" {tuple(log_probabilities.shape)}; wanted a number, or one dimension for each dimension before"
            " the last two"
        )
    return strength.to(log_probabilities.dtype).unsqueeze(-1)


def reduced(
    loss: Float[Tensor, "*member example"],
    labels: Int[Tensor, "*member example"],
    ignored: Bool[Tensor, "*member example"] | None,
    class_weights: Float[Tensor, " class"] | None,
    reduction: Literal["none", "mean"],
) -> Float[Tensor, "*member example"] | Float[Tensor, "*member"]:
    """The weighted losses, 0 where ignored, or their weighted mean over the examples, 0 where no weight is
    left.
    """
    if reduction not in ("none", "mean"):
        raise ValueError(f"there is no reduction {reduction!r}; wanted 'none' or 'mean'")
    if ignored is None and class_weights is None:
        return loss if reduction == "none" else loss.mean(-1)
    weights = torch.ones_like(loss) if class_weights is None else class_weights.to(loss.dtype)[labels]
    if ignored is not None:
        weights = weights.masked_fill(ignored, 0)
    loss = weights * loss
    if reduction == "none":
        return loss
    total = weights.sum(-1)
    return loss.sum(-1) / torch.where(total == 0, 1, total)


def check_strength(name: str, strength: float | Float[Tensor, "*member"]) -> None:
    """Raise ValueError unless a number is finite and at least 0. Tensors are trusted."""
    if not isinstance(strength, Tensor) and not 0 <= strength < torch.inf:
        raise ValueError(f"{name} is {strength}; allowed is 0 <= {name} < inf")


def check_shapes(logits: Tensor, labels: Tensor, *per_class: Tensor | None) -> None:
    """Raise ValueError unless labels are (N,) or (*member, N) for logits (*member, N, K), and values per
    class (K,).
    """
    shape = logits.shape[:-1]
    if not shape or (labels.shape != shape and labels.shape != shape[-1:]):
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}; wanted (..., N, K),"
            " and (..., N) or (N,)"
        )
    for values in per_class:
        if values is not None and values.shape != logits.shape[-1:]:
            raise ValueError(
                f"values per class have shape {tuple(values.shape)}; wanted ({logits.shape[-1]},), as there"
                " are logits"
            )


def check_noise(logits: Tensor, noise: Tensor | None, noise_per_example: Tensor | None) -> None:
    """Raise ValueError unless one at most of them came, in its shape: (K,) or (K, K), and (..., N, K)."""
    classes = logits.shape[-1]
    if noise is not None and noise_per_example is not None:
        raise ValueError(
            "both noise and noise_per_example came; wanted one of them, or none for uniform noise"
        )
    if noise is not None and noise.shape not in ((classes,), (classes, classes)):
        raise ValueError(
            f"noise has shape {tuple(noise.shape)}; wanted ({classes},), or ({classes}, {classes}) with a row"
            " for each label"
        )
    if noise_per_example is not None and noise_per_example.shape[-2:] != logits.shape[-2:]:
        raise ValueError(
            f"noise_per_example has shape {tuple(noise_per_example.shape)}; wanted that of logits,"
            f" {tuple(logits.shape)}"
        )
