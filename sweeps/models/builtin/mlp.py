"""A perceptron with two hidden layers.

At ε = 0, seeds 0 to 2, two cores of an AMD EPYC (AVX2), torch 2.13: Fashion-MNIST 89.74 ± 0.08 % test
accuracy (50 000 training examples, 20 epochs, 112 s for the three); digits 96.49 ± 0.16 % (629 training
examples, 50 epochs, 6 s). `python -m sweeps.train fashion_mnist/mlp --epsilon 0 --seeds 3`
"""

import math

from torch import nn

from sweeps.models.registry import Reads, architecture
from sweeps.task import Recipe


@architecture(
    reads=Reads(("images", "features")),
    recipes={
        "digits": Recipe(epochs=50, batch_size=64, learning_rate=3e-3, weight_decay=1e-2),
        "fashion_mnist": Recipe(epochs=20, batch_size=128, learning_rate=2e-3, weight_decay=1e-2),
        "*": Recipe(epochs=20, batch_size=128, learning_rate=2e-3, weight_decay=1e-2),
    },
)
def mlp(shape: tuple[int, ...], classes: int) -> nn.Module:
    """inputs - h - h - classes with ReLU; h is 128 below 256 inputs (26 k parameters on digits), otherwise
    256 (270 k).
    """
    inputs = math.prod(shape)
    width = 128 if inputs < 256 else 256
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )
