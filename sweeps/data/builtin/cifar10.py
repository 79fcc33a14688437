"""CIFAR-10: 60 000 colour images of 32×32 pixels, 10 classes, the last 10 000 the official test split.

Origin: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images",
https://www.cs.toronto.edu/~kriz/cifar.html. No explicit license; free for research, citation asked.
CIFAR-10H: Peterson et al. 2019, "Human uncertainty makes classification more robust", ICCV,
https://github.com/jcpeterson/cifar-10h, CC BY-NC-SA 4.0.
"""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from sweeps.data.dataset import Array, RawData
from sweeps.data.readers.parquet import folder_of, labels_of, read_table
from sweeps.data.registry import Yields, dataset
from sweeps.errors import WrongInput

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)
FILES = ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet")
FOLDERS = ("data", "plain_text", ".")
PEOPLE = Path("cifar10h", "test-00000-of-00001.parquet")
PART = 500
"""Images that a thread decodes at a time."""
HOW = (
    f"Get {' and '.join(FILES)} from https://huggingface.co/datasets/uoft-cs/cifar10 (folder plain_text), put"
    " them in DIR/cifar10, and pass --data-dir DIR or set LSCAL_DATA=DIR."
)


@dataset(Yields("images", side=32))
def cifar10(data_dir: Path | None) -> RawData:
    """The two parquet files in the layout of Hugging Face's datasets: images as JPEG or PNG in `image` or
    `img`, and `label`.

    They lie in `data_dir/cifar10` or in `data_dir` itself, there in `data`, `plain_text` or the folder
    itself. Rows stay in the order of the files. Pillow decodes them in threads, which takes about 0.2 ms an
    image and core. Where CIFAR-10H is beside them, in `cifar10h`, it has the labels that people give the test
    images.
    """
    folder = folder_of(data_dir, "cifar10", FILES, FOLDERS, HOW)
    (train_inputs, train_labels), (test_inputs, test_labels) = (read_parquet(folder / name) for name in FILES)
    labels = np.concatenate([train_labels, test_labels])
    people = next((path for place in (folder, folder.parent) if (path := place / PEOPLE).exists()), None)
    return RawData(
        inputs=np.concatenate([train_inputs, test_inputs]),
        labels=labels,
        classes=CLASSES,
        test=len(test_labels),
        where=str(folder),
        human=None if people is None else read_people(people, len(train_labels), len(test_labels)),
    )


def read_parquet(path: Path) -> tuple[Array, Array]:
    """Images (example, channel, height, width) uint8 and labels of one file. Errors: WrongInput when it is
    missing or not CIFAR-10.
    """
    table = read_table(path, ("label",), HOW)
    column = next((name for name in ("image", "img") if name in table.column_names), "image")
    if column not in table.column_names:
        raise WrongInput(
            f"{path} has columns {', '.join(table.column_names)}; wanted image (or img) and label. {HOW}"
        )
    labels = labels_of(table, path, len(CLASSES), HOW)
    packed = [row["bytes"] for row in table[column].to_pylist()]
    with ThreadPoolExecutor() as threads:
        parts = list(threads.map(partial(decode, path, packed), range(0, len(packed), PART)))
    return np.concatenate(parts), labels


def read_people(path: Path, train: int, test: int) -> Array:
    """How people label each image (example, class): the shares of about 50 of them for test images, NaN for
    training images.

    Errors: WrongInput when the file is not CIFAR-10H.
    """
    counts = np.array(read_table(path, ("counts",), HOW)["counts"].to_pylist(), np.float64)
    if counts.shape != (test, len(CLASSES)) or counts.min() < 0 or counts.sum(1).min() <= 0:
        raise WrongInput(
            f"{path} has counts of shape {counts.shape}; wanted those of {len(CLASSES)} classes for {test}"
            f" test images. {HOW}"
        )
    return np.concatenate([np.full((train, len(CLASSES)), np.nan), counts / counts.sum(1, keepdims=True)])


def decode(path: Path, packed: Sequence[bytes], first: int) -> Array:
    """The pixels of `PART` images from `first`. Errors: WrongInput unless each is an image of 32×32 RGB
    pixels.
    """
    from PIL import Image

    _, height, width = SHAPE
    part = packed[first : first + PART]
    pixels = np.empty((len(part), height, width, 3), np.uint8)
    for row, data in enumerate(part):
        try:
            image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
            raw = image.tobytes()
        except OSError as error:
            raise WrongInput(f"{path} is corrupt: row {first + row} is no image: {error} {HOW}") from error
        if image.mode != "RGB" or image.size != (width, height):
            raise WrongInput(
                f"row {first + row} of {path} is an image of {image.size[0]}×{image.size[1]} pixels in"
                f" {image.mode}; wanted {width}×{height} in RGB. {HOW}"
            )
        pixels[row] = np.frombuffer(raw, np.uint8).reshape(height, width, 3)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
