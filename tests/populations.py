"""Populations to score: seeded, off centre, no two dimensions equal."""

import torch
from torch import Tensor

SCALES = (0.4, 1.3, 3.1)


def population(seed: int, examples: int = 101, classes: int = 7) -> tuple[Tensor, Tensor]:
    """Three models that see the same evidence with noise of their own: underconfident, about right,
    overconfident.
    """
    generator = torch.Generator().manual_seed(seed)
    prior = torch.linspace(0.2, 1.4, classes, dtype=torch.float64)
    evidence = prior + 1.7 * torch.randn(examples, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(evidence.softmax(-1), 1, generator=generator).squeeze(-1)
    own = 0.6 * torch.randn(len(SCALES), examples, classes, generator=generator, dtype=torch.float64)
    return torch.tensor(SCALES, dtype=torch.float64).reshape(-1, 1, 1) * (evidence + own) + 0.7, labels
