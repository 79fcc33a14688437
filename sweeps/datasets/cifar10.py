"""CIFAR-10: 60 000 colour images of 32×32 pixels, 10 classes, the last 10 000 the official test split.

Origin: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", https://www.cs.toronto.edu/~kriz/cifar.html. No
explicit license; free for research, citation asked.
"""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from sweeps.datasets import Array, Source, dataset
from sweeps.errors import WrongInput

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)
FILES = ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet")
FOLDERS = ("data", "plain_text", ".")
PART = 500
"""Images that a thread decodes at a time."""
HOW = (
    f"Get {' and '.join(FILES)} from https://huggingface.co/datasets/uoft-cs/cifar10 (folder plain_text), put them in DIR/cifar10, and "
    "pass --data-dir DIR or set LSCAL_DATA=DIR."
)


@dataset
def cifar10(data_dir: Path | None) -> Source:
    """The two parquet files in the layout of Hugging Face's datasets: images as JPEG or PNG in `image` or `img`, and `label`.

    They lie in `data_dir/cifar10` or in `data_dir` itself, there in `data`, `plain_text` or the folder itself. Rows stay in the order of
    the files. Pillow decodes them in threads, which takes about 0.2 ms an image and core.
    """
    if data_dir is None:
        raise WrongInput(f"cifar10 needs its files, and no data directory was given. {HOW}")
    folders = [place / folder for place in (data_dir / "cifar10", data_dir) for folder in FOLDERS]
    folder = next((folder for folder in folders if any((folder / name).exists() for name in FILES)), data_dir / "cifar10")
    (train_inputs, train_labels), (test_inputs, test_labels) = (read_parquet(folder / name) for name in FILES)
    return Source(
        inputs=np.concatenate([train_inputs, test_inputs]),
        labels=np.concatenate([train_labels, test_labels]),
        classes=CLASSES,
        test=len(test_labels),
        where=str(folder),
    )


def read_parquet(path: Path) -> tuple[Array, Array]:
    """Images (example, channel, height, width) uint8 and labels of one file. Errors: WrongInput when it is missing or not CIFAR-10."""
    import pyarrow.parquet as parquet  # takes a tenth of a second, which other data sets need not wait for
    from pyarrow import ArrowException

    try:
        table = parquet.read_table(path)
    except FileNotFoundError as error:
        raise WrongInput(f"cannot read {path}: no such file. {HOW}") from error
    except (ArrowException, OSError) as error:
        raise WrongInput(f"cannot read {path}: {error} {HOW}") from error
    column = next((name for name in ("image", "img") if name in table.column_names), None)
    if column is None or "label" not in table.column_names:
        raise WrongInput(f"{path} has columns {', '.join(table.column_names)}; wanted image (or img) and label. {HOW}")
    labels = table["label"].to_numpy()
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise WrongInput(f"{path} has labels from {labels.min()} to {labels.max()}; wanted 0 to {len(CLASSES) - 1}. {HOW}")
    packed = [row["bytes"] for row in table[column].to_pylist()]
    with ThreadPoolExecutor() as threads:
        parts = list(threads.map(partial(decode, path, packed), range(0, len(packed), PART)))
    return np.concatenate(parts), labels.astype(np.int64)


def decode(path: Path, packed: Sequence[bytes], first: int) -> Array:
    """The pixels of `PART` images from `first`. Errors: WrongInput for what is no image of 32×32 RGB pixels."""
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
                f"row {first + row} of {path} is an image of {image.size[0]}×{image.size[1]} pixels in {image.mode}; wanted "
                f"{width}×{height} in RGB. {HOW}"
            )
        pixels[row] = np.frombuffer(raw, np.uint8).reshape(height, width, 3)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
