"""Populations to score: seeded, off centre, no two dimensions equal."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

SCALES = (0.4, 1.3, 3.1)


def population(seed: int, examples: int = 101, classes: int = 7) -> tuple[Tensor, Tensor]:
    """Three models which see the same evidence with noise of their own: underconfident, about right, overconfident."""
    generator = torch.Generator().manual_seed(seed)
    prior = torch.linspace(0.2, 1.4, classes, dtype=torch.float64)
    evidence = prior + 1.7 * torch.randn(examples, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(evidence.softmax(-1), 1, generator=generator).squeeze(-1)
    own = 0.6 * torch.randn(len(SCALES), examples, classes, generator=generator, dtype=torch.float64)
    return torch.tensor(SCALES, dtype=torch.float64).reshape(-1, 1, 1) * (evidence + own) + 0.7, labels


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors as small as these are scored several times faster where no second thread waits for its share."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def logits() -> Tensor:
    """Logits (member 3, example 101, class 7), float64."""
    return population(seed=20)[0]


@pytest.fixture
def labels() -> Tensor:
    """The labels (example 101) of `logits`."""
    return population(seed=20)[1]
