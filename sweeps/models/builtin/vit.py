"""A small vision transformer (Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words").

Fashion-MNIST, ε = 0, 10 000 training examples, 4 epochs: 77.42 ± 0.06 % test accuracy (seeds 0 and 1), about
95 s of one core of an AMD EPYC (AVX2) a seed, torch 2.13. `python -m sweeps.train fashion_mnist/vit --epsilon
0 --seeds 2 --train-examples 10000 --epochs 4` Not run: its whole recipes, which take a core 15 minutes a seed
on Fashion-MNIST and 25 on CIFAR-10. On so few images `cnn` and `resnet8` are better and faster; this one is
here for teams whose model is a transformer.
"""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from sweeps.models.builtin.text_transformer import EncoderLayer
from sweeps.models.registry import Reads, architecture, check_image
from sweeps.task import Recipe

WIDTH, HEADS, LAYERS = 64, 4, 4
PATCH = 4
"""Pixels a side of a patch, the token of this transformer."""


@architecture(
    reads=Reads(("images",), side=PATCH),
    recipes={
        "fashion_mnist": Recipe(
            epochs=8, batch_size=128, learning_rate=2e-3, weight_decay=5e-2, augment=("flip",), clip=1.0
        ),
        "cifar10": Recipe(
            epochs=10,
            batch_size=128,
            learning_rate=2e-3,
            weight_decay=5e-2,
            augment=("flip", "translate:4"),
            clip=1.0,
        ),
        "*": Recipe(epochs=10, batch_size=128, learning_rate=2e-3, weight_decay=5e-2, clip=1.0),
    },
)
def vit(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Patches of 4×4 pixels, four layers of 64 numbers and four heads, the mean over patches; 0.2 M
    parameters.

    Images are (channel, height, width), at least 4 pixels a side; rows and columns that fill no patch are
    left out at the lower and right edge.
    """
    check_image(shape, smallest=PATCH)
    return VisionTransformer(shape, classes)


@final
class VisionTransformer(nn.Module):
    """A transformer encoder over the patches of an image, each with a vector for where it is. No dropout."""

    def __init__(self, shape: tuple[int, ...], classes: int):
        super().__init__()
        channels, height, width = shape
        self.patches = nn.Conv2d(channels, WIDTH, PATCH, PATCH)
        self.positions = nn.Parameter(0.02 * torch.randn(math.prod((height // PATCH, width // PATCH)), WIDTH))
        self.layers = nn.ModuleList(EncoderLayer(WIDTH, HEADS, dropout=0.0) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.output = nn.Linear(WIDTH, classes)

    @override
    def forward(
        self, images: Float[Tensor, "example channel height width"]
    ) -> Float[Tensor, "example class"]:
        values = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        for layer in self.layers:
            values = layer(values)
        logits: Tensor = self.output(self.norm(values).mean(1))
        return logits
