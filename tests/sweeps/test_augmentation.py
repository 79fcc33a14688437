import numpy as np
import pytest
import torch

from sweeps.errors import WrongInput
from sweeps.training.augmentation import Augmentation, reflect
from sweeps.training.randomness import stream

SHAPE = (3, 7, 9)
ALL = ("flip", "translate:3", "cutout:4")


def oracle(image, choice, translate, cutout):
    """One image, one pixel at a time: mirrored, padded by NumPy's reflection, cropped, a square blackened."""
    flip, down, right, row, column = choice
    _, height, width = image.shape
    if flip:
        image = image[:, :, ::-1]
    padded = np.pad(image, ((0, 0), (translate, translate), (translate, translate)), mode="reflect")
    image = padded[
        :, translate + down : translate + down + height, translate + right : translate + right + width
    ].copy()
    for r in range(row - cutout // 2, row - cutout // 2 + cutout):
        for c in range(column - cutout // 2, column - cutout // 2 + cutout):
            if 0 <= r < height and 0 <= c < width:
                image[:, r, c] = 0
    return image


@pytest.mark.parametrize(
    "names", [("flip",), ("translate:6",), ("cutout:3",), ("cutout:7",), ALL, ("translate:1", "flip")]
)
def test_as_one_image_after_the_other(names):
    augmentation = Augmentation.parse(names, SHAPE)
    images = torch.randn(2, 40, *SHAPE, generator=torch.Generator().manual_seed(5))
    choices = augmentation.draw([11, 4], 3, 40)
    ours = augmentation(images, choices)
    for seed in range(2):
        for example in range(40):
            choice = choices[seed, example].tolist()
            if not augmentation.flip:
                choice[0] = 0
            theirs = oracle(
                images[seed, example].numpy(), choice, augmentation.translate, augmentation.cutout
            )
            assert (ours[seed, example].numpy() == theirs).all()


def test_choices_are_decided_by_seed_epoch_and_example_alone():
    augmentation = Augmentation.parse(ALL, SHAPE)
    together = augmentation.draw([7, 2, 9], 4, 50)
    assert (augmentation.draw([2], 4, 50)[0] == together[1]).all()
    assert (augmentation.draw([9], 4, 23)[0] == together[2, :23]).all()
    assert (together[0] != together[1]).any()
    assert (augmentation.draw([2], 5, 50)[0] != together[1]).any()


def test_a_kind_leaves_the_choices_of_the_others_as_they_were():
    both = Augmentation.parse(("flip", "translate:2"), SHAPE).draw([3], 0, 60)
    assert (Augmentation.parse(("flip",), SHAPE).draw([3], 0, 60)[..., 0] == both[..., 0]).all()
    more = Augmentation.parse(("flip", "translate:2", "cutout:5"), SHAPE).draw([3], 0, 60)
    assert (more == both).all()


def test_choices_come_from_the_stream_for_augmentation():
    raw = torch.randint(2**31, (30, 5), generator=stream(6, 2, "augmentation"))
    drawn = Augmentation.parse(ALL, SHAPE).draw([6], 2, 30)[0]
    for numbers, (flip, down, right, row, column) in zip(raw.tolist(), drawn.tolist(), strict=True):
        assert (flip, down + 3, right + 3, row, column) == (
            numbers[0] % 2,
            numbers[1] % 7,
            numbers[2] % 7,
            numbers[3] % 7,
            numbers[4] % 9,
        )


def test_every_choice_is_as_likely_as_another():
    choices = Augmentation.parse(ALL, SHAPE).draw([0], 0, 20_000)[0]
    for column, values in enumerate((range(2), range(-3, 4), range(-3, 4), range(7), range(9))):
        counts = np.array([(choices[:, column] == value).sum() for value in values])
        assert counts.sum() == 20_000
        expected = 20_000 / len(values)
        assert (
            (counts - expected) ** 2 / expected
        ).sum() < 26.1  # 0.1 % of chi-squared with 8 degrees of freedom


def test_an_image_is_augmented_alike_in_every_batch():
    augmentation = Augmentation.parse(ALL, SHAPE)
    images = torch.randn(1, 30, *SHAPE, generator=torch.Generator().manual_seed(1))
    choices = augmentation.draw([8], 0, 30)
    whole = augmentation(images, choices)
    some = torch.tensor([17, 3, 28])
    assert (augmentation(images[:, some], choices[:, some]) == whole[:, some]).all()


@pytest.mark.parametrize("names", [("flip",), ("cutout:4",), ALL])
def test_the_images_given_stay_as_they_are(names):
    augmentation = Augmentation.parse(names, SHAPE)
    images = torch.randn(1, 30, *SHAPE, generator=torch.Generator().manual_seed(1))
    before = images.clone()
    augmentation(images, augmentation.draw([8], 0, 30))
    assert (images == before).all()


def test_reflection_does_not_repeat_the_border():
    assert reflect(torch.arange(-3, 7), 4).tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("flop",),
            r"no augmentation named 'flop'. Did you mean 'flip'\? There are: cutout, flip, translate.",
        ),
        (("flip:2",), "'flip:2': 'flip' takes no pixels"),
        (("flip:",), "'flip:': 'flip' takes no pixels"),
        (
            ("translate",),
            (
                "'translate': wanted 'translate:PIXELS' with a whole number from 1 to 6, for images of 7×9"
                " pixels"
            ),
        ),
        (("translate:x",), "'translate:x': wanted"),
        (("translate:-1",), "'translate:-1': wanted"),
        (("translate:0",), "'translate:0': wanted"),
        (("translate:7",), "'translate:7': wanted .* from 1 to 6"),
        (("cutout:8",), "'cutout:8': wanted 'cutout:PIXELS' with a whole number from 1 to 7"),
        (("cutout:2.5",), "'cutout:2.5': wanted"),
        (("cutout:²",), "'cutout:²': wanted"),
        (("cutout:2", "flip", "cutout:3"), "names 'cutout' twice: cutout:2, flip, cutout:3"),
    ],
)
def test_wrong_names_are_told(names, message):
    with pytest.raises(WrongInput, match=message):
        Augmentation.parse(names, SHAPE)


def test_inputs_that_are_no_images_are_told():
    with pytest.raises(WrongInput, match=r"augment is flip: for images .* the inputs have shape \(64,\)"):
        Augmentation.parse(("flip",), (64,))
