"""Streams of random numbers that a seed, an epoch and a purpose decide, and nothing else: a resumed training
draws what it would have drawn.
"""

from typing import Literal

import numpy as np
import torch

Purpose = Literal["order", "augmentation", "dropout", "module"]
PURPOSES: tuple[Purpose, ...] = ("order", "augmentation", "dropout", "module")


def stream(seed: int, epoch: int, purpose: Purpose, device: torch.device | None = None) -> torch.Generator:
    """A generator; on the CPU unless told, where devices of every kind draw the same."""
    words = np.random.SeedSequence((seed, epoch, PURPOSES.index(purpose))).generate_state(1, np.uint64)
    return torch.Generator(device or "cpu").manual_seed(int(words[0]) & (2**63 - 1))
