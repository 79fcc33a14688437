"""Handwritten digits, bundled with scikit-learn: 1797 images of 8×8 pixels, 10 classes, no official test
split.

Origin: Alpaydin and Kaynak 1998, UCI "Optical Recognition of Handwritten Digits", test part, CC BY 4.0.
"""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sweeps.data.dataset import RawData
from sweeps.data.registry import Yields, dataset
from sweeps.errors import WrongInput


@dataset(Yields("images", side=8))
def digits(_: Path | None) -> RawData:
    """Pixels from 0 to 16 as uint8.

    Reads the file of `sklearn.datasets.load_digits` itself: importing that function takes seconds, the file a
    tenth of one.
    """
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise WrongInput(
            "the digits come with scikit-learn, which is not installed. Install it: pip install scikit-learn"
        )
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as stream:
        table = np.loadtxt(stream, delimiter=",", dtype=np.float64)
    return RawData(
        inputs=table[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8),
        labels=table[:, -1].astype(np.int64),
        classes=tuple("0123456789"),
        test=0,
        where="bundled with scikit-learn",
    )
