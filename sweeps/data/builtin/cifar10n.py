"""CIFAR-10N: CIFAR-10 with the labels of crowd workers for the training images, who are wrong in 9 to 40 % of
them; the test split is clean.

Origin: Wei et al. 2022, "Learning with Noisy Labels Revisited", ICLR, http://noisylabels.com, CC BY-NC 4.0.
The images are those of `cifar10`.
"""

from dataclasses import replace
from pathlib import Path

from sweeps.data.builtin.cifar10 import CLASSES, cifar10
from sweeps.data.dataset import RawData
from sweeps.data.readers.parquet import folder_of, labels_of, read_table
from sweeps.data.registry import Yields, dataset
from sweeps.errors import WrongInput

FILE = "train-00000-of-00001.parquet"
HOW = (
    "Get the labels from https://github.com/UCSC-REAL/cifar-10-100n, write them in the order of CIFAR-10 to"
    f" {FILE} with the columns aggregate, random1 and worst, put it in DIR/cifar10/cifar10n, and pass"
    " --data-dir DIR or set LSCAL_DATA=DIR."
)


@dataset(Yields("images", side=32))
def cifar10n_aggregate(data_dir: Path | None) -> RawData:
    """The majority of three workers: 9 % of the labels are wrong."""
    return noisy(data_dir, "aggregate")


@dataset(Yields("images", side=32))
def cifar10n_random1(data_dir: Path | None) -> RawData:
    """The first of three workers: 17 % of the labels are wrong."""
    return noisy(data_dir, "random1")


@dataset(Yields("images", side=32))
def cifar10n_worst(data_dir: Path | None) -> RawData:
    """A wrong one of three workers where there is one: 40 % of the labels are wrong."""
    return noisy(data_dir, "worst")


def noisy(data_dir: Path | None, column: str) -> RawData:
    """CIFAR-10 with other training labels, hence with those in *train*, *select* and *calibrate*; *test* has
    the official ones.

    So ε and temperature are chosen as a team would that has nothing but such labels, and the confirmation
    describes the results.
    """
    source = cifar10(data_dir)
    path = folder_of(data_dir, "cifar10", (f"cifar10n/{FILE}",), (".",), HOW) / "cifar10n" / FILE
    labels, train = source.labels.copy(), len(source.labels) - source.test
    found = labels_of(read_table(path, (column,), HOW), path, len(CLASSES), HOW, column)
    if len(found) != train:
        raise WrongInput(
            f"{path} has {len(found)} rows; wanted {train}, one for each training image of CIFAR-10. {HOW}"
        )
    labels[:train] = found
    return replace(source, labels=labels)
