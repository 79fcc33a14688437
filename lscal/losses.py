"""Label-smoothed cross entropy, for one model or for a population, in closed form."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def smoothed_cross_entropy(
    logits: Float[Tensor, "*member example class"],
    labels: Int[Tensor, "*#member example"],
    epsilon: float | Float[Tensor, "*#member"],
    noise: Float[Tensor, " class"] | None = None,
) -> Float[Tensor, "*member example"]:
    """Cross entropy of softmax(logits) against (1-ε)·onehot(label) + ε·u, one value per example, in nats.

    L = -(1-ε)·log p_label - ε·Σ_k u_k log p_k. It is linear in ε, so a vector of ε costs one log-softmax and no tensor
    of soft targets. Half-precision logits are computed in float32.

    Args:
        logits: z with p = softmax(z); any leading member dimensions.
        labels: class indices in [0, K), shared by the members or one row for each.
        epsilon: the smoothing mass in [0, 1), one number or one per member. At 0 this is cross entropy.
        noise: u over the classes, summing to 1; uniform when None.

    Range: at least the entropy of the target. Direction: lower is better.
    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    log_probabilities = logits.log_softmax(-1)
    spread = log_probabilities.mean(-1) if noise is None else log_probabilities @ noise.to(logits.dtype)
    labels = labels.expand(logits.shape[:-1]).unsqueeze(-1)
    at_label = log_probabilities.gather(-1, labels).squeeze(-1)
    if isinstance(epsilon, Tensor):
        epsilon = epsilon.to(logits.dtype).unsqueeze(-1)
    return -(1 - epsilon) * at_label - epsilon * spread
