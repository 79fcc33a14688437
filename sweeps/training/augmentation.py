"""Augmentation: training images flipped, shifted and cut out, on the device, all images of a batch at once.

What is done to an example is decided by the seed, the epoch and the example's number alone: not by its batch,
the other seeds or the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int16
from torch import Tensor

from sweeps.errors import WrongInput, unknown
from sweeps.training.randomness import stream

KINDS = ("flip", "translate", "cutout")
CHOICES = 5
"""Random numbers an example takes, whichever kinds are asked for: so adding a kind leaves the others as they
were.
"""


@dataclass(frozen=True)
class Augmentation:
    """What is done to each training image, in this order. All of it comes after standardisation.

    Attributes:
        flip: mirror left and right, with probability 1/2.
        translate: shift by up to so many pixels in both directions, each shift as likely as another; 0 for
            none. What comes in from outside is the image reflected at its border, the border itself not
            repeated, as in cifar10-airbench.
        cutout: side in pixels of a square that is set to 0, the mean of *train*; 0 for none. It is centred
            on any pixel, so that a part may lie outside (DeVries and Taylor 2017, arXiv:1708.04552). An even
            side has one pixel more above and left.
    """

    height: int
    width: int
    flip: bool = False
    translate: int = 0
    cutout: int = 0

    @staticmethod
    def parse(names: Sequence[str], shape: tuple[int, ...]) -> "Augmentation":
        """The augmentation named by "flip", "translate:PIXELS" and "cutout:PIXELS", for inputs of `shape`
        (channel, height, width).

        Errors: WrongInput for other names, a name given twice, PIXELS that are no whole number or do not fit
        in the image, and inputs that are not images.
        """
        if len(shape) != 3:
            raise WrongInput(
                f"augment is {', '.join(names)}: for images (channel, height, width) only; the inputs have"
                f" shape {shape}."
            )
        _, height, width = shape
        largest = {
            "translate": min(height, width) - 1,
            "cutout": min(height, width),
        }  # a reflection is shorter than the image
        found: dict[str, int] = {}
        for name in names:
            kind, colon, pixels = name.partition(":")
            if kind not in KINDS:
                raise unknown("augmentation", kind, KINDS)
            if kind in found:
                raise WrongInput(f"augment names {kind!r} twice: {', '.join(names)}. Give it once.")
            if kind == "flip":
                if colon:
                    raise WrongInput(f"augment has {name!r}: 'flip' takes no pixels. Write 'flip'.")
                found[kind] = 1
                continue
            if not (pixels.isdecimal() and 1 <= int(pixels) <= largest[kind]):
                raise WrongInput(
                    f"augment has {name!r}: wanted '{kind}:PIXELS' with a whole number from 1 to"
                    f" {largest[kind]}, for images of {height}×{width} pixels."
                )
            found[kind] = int(pixels)
        return Augmentation(height, width, "flip" in found, found.get("translate", 0), found.get("cutout", 0))

    def draw(self, seeds: Sequence[int], epoch: int, examples: int) -> Int16[Tensor, "seed example choice"]:
        """What befalls each example in an epoch, on the CPU: whether it is flipped, the shift down and right,
        the row and column of the square's centre. Example i has the same choices however many examples there
        are.
        """
        ranges = torch.tensor([2, 2 * self.translate + 1, 2 * self.translate + 1, self.height, self.width])
        lowest = torch.tensor([0, -self.translate, -self.translate, 0, 0])
        raw = [
            torch.randint(2**31, (examples, CHOICES), generator=stream(seed, epoch, "augmentation"))
            for seed in seeds
        ]
        return torch.stack([(numbers % ranges + lowest).to(torch.int16) for numbers in raw])

    def __call__(
        self,
        images: Float[Tensor, "seed batch channel height width"],
        choices: Int[Tensor, "seed batch choice"],
    ) -> Float[Tensor, "seed batch channel height width"]:
        """Standardised images, augmented as chosen for each by `draw`.

        Shifted, y(r, c) = x(r + down, c + right), reflected at the borders. One gather: on a CPU a fifth of
        the time of indexing views of padded images, the cutout by a product a third of that of masked_fill.
        Nothing waits for the device, and shapes alone decide the kernels.
        """
        flipped, down, right, row, column = choices.long().unbind(-1)
        rows, columns = (torch.arange(size, device=images.device) for size in (self.height, self.width))
        moved = self.flip or self.translate > 0
        if moved:
            down_from = reflect(rows + down[..., None], self.height)
            across_from = reflect(columns + right[..., None], self.width)
            if self.flip:
                across_from = torch.where(flipped[..., None] == 1, self.width - 1 - across_from, across_from)
            pixels = (self.width * down_from[..., :, None] + across_from[..., None, :]).flatten(-2)
            flat = images.flatten(-2)
            images = flat.gather(-1, pixels[..., None, :].expand_as(flat)).view_as(images)
        if self.cutout:
            kept = torch.maximum(
                outside(rows, row, self.cutout)[..., :, None],
                outside(columns, column, self.cutout)[..., None, :],
            )
            images = torch.mul(images, kept[..., None, :, :], out=images if moved else None)
        return images


def reflect(places: Int[Tensor, "*batch size"], size: int) -> Int[Tensor, "*batch size"]:
    """Places from -(size - 1) to 2 (size - 1), mirrored at 0 and at size - 1 into that range."""
    last = size - 1
    return last - (last - places.abs()).abs()


def outside(
    places: Int[Tensor, " size"], centre: Int[Tensor, "*batch"], side: int
) -> Float[Tensor, "*batch size"]:
    """0 where a place lies in the stretch of length `side` about each centre, 1 elsewhere."""
    first = (centre - side // 2)[..., None]
    return ((places < first) | (places >= first + side)).float()
