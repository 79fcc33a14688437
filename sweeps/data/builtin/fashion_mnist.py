"""Fashion-MNIST: 70 000 grey images of 28×28 pixels, 10 classes, the last 10 000 the official test split.

Origin: Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747, MIT License.
"""

import gzip
import hashlib
from pathlib import Path

import numpy as np

from sweeps.data.dataset import Array, RawData
from sweeps.data.registry import Yields, dataset
from sweeps.errors import WrongInput

MD5 = {  # as published by Zalando Research
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
HOW = (
    f"Get the four files {', '.join(MD5)} from https://github.com/zalandoresearch/fashion-mnist (folder"
    " data/fashion), put them in DIR/fashion-mnist, and pass --data-dir DIR or set LSCAL_DATA=DIR."
)


@dataset(Yields("images", side=28))
def fashion_mnist(data_dir: Path | None) -> RawData:
    """The four original IDX files, each checked against its published MD5.

    They lie in `data_dir/fashion-mnist`, in torchvision's `data_dir/FashionMNIST/raw`, or in `data_dir`
    itself.
    """
    if data_dir is None:
        raise WrongInput(f"fashion_mnist needs its files, and no data directory was given. {HOW}")
    folders = (data_dir / "fashion-mnist", data_dir / "FashionMNIST" / "raw", data_dir)
    folder = next((folder for folder in folders if any((folder / name).exists() for name in MD5)), folders[0])
    train_inputs, train_labels, test_inputs, test_labels = (
        read_idx(folder / name, md5) for name, md5 in MD5.items()
    )
    return RawData(
        inputs=np.concatenate([train_inputs, test_inputs])[:, None],
        labels=np.concatenate([train_labels, test_labels]).astype(np.int64),
        classes=CLASSES,
        test=len(test_labels),
        where=str(folder),
    )


def read_idx(path: Path, md5: str) -> Array:
    """The uint8 array in a gzipped IDX file whose MD5 is `md5`. Errors: WrongInput when it is missing or
    another file.
    """
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise WrongInput(f"cannot read {path}: {error.strerror}. {HOW}") from error
    found = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    if found != md5:
        raise WrongInput(f"{path} is corrupt: its MD5 is {found}, expected {md5}. {HOW}")
    raw = gzip.decompress(packed)
    dimensions = raw[3]
    shape = np.frombuffer(raw, dtype=">u4", count=dimensions, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
