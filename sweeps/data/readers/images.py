"""Images: files of any common kind as pixels (example, channel, height, width), uint8, all of one size."""

import io
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sweeps.data.dataset import Array
from sweeps.data.readers.examples import Examples, listed
from sweeps.errors import WrongInput

if TYPE_CHECKING:
    from PIL.Image import Image

File = bytes | Path
Found = TypeVar("Found")
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000")
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L")
LARGE, SMALLER = 96, 64
"""Pixels a side. Images of different sizes, most of them larger than LARGE, become SMALLER unless a size is
given.
"""


def examples_of(files: Sequence[File], names: Sequence[str], where: str, side: int = 0) -> Examples:
    """All images at one size: `side` pixels a side where it is given; their own where all have the same;
    otherwise the commonest.

    Grey images have one channel; where one has colours, all have three. Errors: WrongInput, naming the files
    that cannot be read.
    """
    looked = of_each(look, files, names, where)
    sizes = Counter(size for size, _ in looked)
    commonest = sizes.most_common(1)[0][0]
    target = (
        (side, side)
        if side
        else (SMALLER, SMALLER)
        if len(sizes) > 1 and max(commonest) > LARGE
        else commonest
    )
    notes = []
    if set(sizes) != {target}:
        kinds = f"{len(sizes)} sizes, most often" if len(sizes) > 1 else "a size of"
        scaled = len(files) - sizes[target]
        notes.append(
            f"images have {kinds} {written(commonest)} pixels: {scaled} of {len(files)} are scaled and"
            f" cropped to {written(target)}" + ("" if side else "; other sizes: --image-size N")
        )
    elif max(target) > LARGE and not side:
        fewer = target[0] * target[1] / SMALLER**2
        notes.append(
            f"images have {written(target)} pixels; with --image-size {SMALLER} they have {fewer:.0f} times"
            " fewer, and train faster"
        )
    mode = "L" if all(grey for _, grey in looked) else "RGB"
    needed, free = len(files) * len(mode) * target[0] * target[1], free_bytes()
    if needed > free:
        raise WrongInput(
            f"the images of {where} take {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} are free. Give a"
            " smaller --image-size."
        )
    if needed > free / 2:
        notes.append(
            f"the images take {needed / 2**30:.1f} GiB of the {free / 2**30:.1f} GiB of memory that are free"
        )
    pixels = np.stack(of_each(partial(decode, size=target, mode=mode), files, names, where))
    return Examples(pixels, (), (), where, notes=tuple(notes))


def written(size: tuple[int, int]) -> str:
    """Width×height."""
    return f"{size[0]}×{size[1]}"


def free_bytes() -> int:
    """Memory that can be had, as Linux estimates it; elsewhere all memory."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        return next(
            int(line.split()[1]) * 1024
            for line in meminfo.read_text().splitlines()
            if line.startswith("MemAvailable:")
        )
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def of_each(
    read: Callable[["Image"], Found], files: Sequence[File], names: Sequence[str], where: str
) -> list[Found]:
    """Results of `read` for all images, in threads. Errors: WrongInput, naming those that cannot be read."""
    from PIL import Image, UnidentifiedImageError

    broken: list[str] = []

    def one(row: int) -> Found | None:
        file = files[row]
        try:
            with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS) as image:
                return read(image)
        except (
            OSError,
            ValueError,
            SyntaxError,
            EOFError,
            Image.DecompressionBombError,
        ) as error:  # Pillow's errors for broken files
            broken.append(
                f"{names[row]}: {'no image' if isinstance(error, UnidentifiedImageError) else error}"
            )
            return None

    with ThreadPoolExecutor() as threads, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata
        found = list(threads.map(one, range(len(files))))
    if broken:
        raise WrongInput(
            f"{len(broken)} of {len(files)} images of {where} cannot be read: {listed(sorted(broken), 5)}."
            " Repair or remove them."
        )
    return [value for value in found if value is not None]


def look(image: "Image") -> tuple[tuple[int, int], bool]:
    """Width and height, and whether an image is grey; its pixels are not decoded."""
    turned = image.format != "PNG" and image.getexif().get(0x0112, 1) in (
        5,
        6,
        7,
        8,
    )  # for a PNG, Pillow would decode it all
    size = image.size[::-1] if turned else image.size
    grey = image.mode in GREY or (image.mode == "P" and greys(image.getpalette()))
    return size, grey


def greys(palette: Sequence[int] | None) -> bool:
    """Whether a palette (red, green, blue, red, …) has greys alone."""
    return palette is not None and palette[::3] == palette[1::3] == palette[2::3]


def decode(image: "Image", size: tuple[int, int], mode: str) -> Array:
    """The pixels (channel, height, width), the right way up; transparent ones lie on white. Other sizes are
    scaled, and cropped at the centre.
    """
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits
        upright = Image.fromarray((np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    elif upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
    flat = upright.convert(mode)
    if flat.size != size:
        flat = ImageOps.fit(flat, size, Image.Resampling.BILINEAR)
    pixels = np.asarray(flat)
    return pixels[None] if mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))
