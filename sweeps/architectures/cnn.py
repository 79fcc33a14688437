"""A small convolutional network for images."""

from torch import nn

from sweeps.architectures import architecture
from sweeps.recipe import Recipe


@architecture(recipes={"*": Recipe(epochs=10, batch_size=128, learning_rate=2e-3, weight_decay=1e-2)})
def cnn(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two 3×3 convolutions (32 and 64 channels), each with ReLU and 2×2 pooling, then 128 hidden units.

    0.42 M parameters on 1×28×28 images. Images are (channel, height, width), at least 4 pixels a side.
    """
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )
