"""The population that most tests score."""

from collections.abc import Iterator

import pytest
import torch
from populations import population
from torch import Tensor


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors as small as these are scored several times faster where no second thread waits for its
    share.
    """
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
