"""Residual networks for images (He et al. 2016, "Deep Residual Learning for Image Recognition").

Measured at ε = 0 on one core of an AMD EPYC (AVX2), torch 2.13: resnet8 on Fashion-MNIST, 50 000 training
examples, 5 epochs: 91.91 % test accuracy, 92.52 % on *select* (seed 0 alone), in 330 s. `python -m
sweeps.train fashion_mnist/resnet8 --epsilon 0 --seeds 1` resnet8 on CIFAR-10, 41 667 training examples, 4
epochs of its recipe's 20: 71.66 ± 0.02 % test accuracy (seeds 0 and 1), 349 s on two cores. `python -m
sweeps.train cifar10/resnet8 --epsilon 0 --seeds 2 --epochs 4`

Not run: resnet20, resnet18, and whole recipes on CIFAR-10, for which a GPU is wanted (a core takes about 46
minutes for an epoch of resnet18). Their recipes follow the published ones: SGD with Nesterov's momentum,
learning rate 0.1, weight decay 5e-4, batches of 128, images flipped and shifted by up to 4 pixels (Zagoruyko
and Komodakis 2016, arXiv:1605.07146). Published on CIFAR-10: 91.25 % for ResNet-20 in 64 000 steps (He et
al., table 6). resnet18 is meant to reach 94 % in its 50.
"""

from dataclasses import replace
from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from sweeps.models.registry import Reads, architecture, check_image
from sweeps.task import Recipe

IMAGES = Reads(("images",), side=8)
SGD = Recipe(epochs=20, batch_size=128, learning_rate=0.1, weight_decay=5e-4, optimiser="sgd")
SGD_CIFAR10 = replace(SGD, augment=("flip", "translate:4"))


@architecture(
    reads=IMAGES,
    recipes={"fashion_mnist": replace(SGD, epochs=5, augment=("flip",)), "cifar10": SGD_CIFAR10, "*": SGD},
)
def resnet8(shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of section 4.2 with one block in each of three stages of 16, 32 and 64 channels; 78 k
    parameters.
    """
    return resnet(shape, classes, blocks=1, widths=(16, 32, 64))


@architecture(
    reads=IMAGES,
    recipes={
        "fashion_mnist": replace(SGD, epochs=15, augment=("flip",)),
        "cifar10": replace(SGD_CIFAR10, epochs=60),
        "*": SGD,
    },
)
def resnet20(shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of section 4.2 with three blocks in each stage; 0.27 M parameters."""
    return resnet(shape, classes, blocks=3, widths=(16, 32, 64))


@architecture(reads=IMAGES, recipes={"cifar10": replace(SGD_CIFAR10, epochs=50), "*": SGD})
def resnet18(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two blocks in each of four stages of 64 to 512 channels; 11.17 M parameters.

    The network of section 4.1, but for small images: its stem is one 3×3 convolution, and nothing is pooled
    before the first block.
    """
    return resnet(shape, classes, blocks=2, widths=(64, 128, 256, 512))


def resnet(shape: tuple[int, ...], classes: int, blocks: int, widths: tuple[int, ...]) -> nn.Module:
    """A 3×3 stem, `blocks` residual blocks of each width, the mean over pixels, and a linear layer.

    Every stage but the first halves the image in its first block. Images are (channel, height, width), at
    least 8 pixels a side.
    """
    check_image(shape, smallest=IMAGES.side)
    layers: list[nn.Module] = [convolution(shape[0], widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    inputs = widths[0]
    for stage, outputs in enumerate(widths):
        for block in range(blocks):
            layers.append(Residual(inputs, outputs, stride=2 if stage > 0 and block == 0 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


@final
class Residual(nn.Module):
    """relu(shortcut(x) + residual(x)), the residual two 3×3 convolutions with BatchNorm and a ReLU between
    them.

    The shortcut is x itself, or a 1×1 convolution of it with BatchNorm where the shape changes (option B of
    the paper).
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.residual = nn.Sequential(
            convolution(inputs, outputs, stride=stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            convolution(outputs, outputs),
            nn.BatchNorm2d(outputs),
        )
        changes = stride > 1 or inputs != outputs
        self.shortcut = (
            nn.Sequential(convolution(inputs, outputs, side=1, stride=stride), nn.BatchNorm2d(outputs))
            if changes
            else nn.Identity()
        )
        self.activation = nn.ReLU()

    @override
    def forward(
        self, images: Float[Tensor, "example inputs height width"]
    ) -> Float[Tensor, "example outputs height2 width2"]:
        summed: Tensor = self.activation(self.shortcut(images) + self.residual(images))
        return summed


def convolution(inputs: int, outputs: int, side: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size of the image, but for its stride; no bias, as BatchNorm follows."""
    return nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False)
