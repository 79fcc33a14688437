import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sweeps.datasets import SPLITS, Source, check_classes, load, stratify
from sweeps.errors import WrongInput

SHARED = Path(os.environ.get("LSCAL_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_digits_are_those_of_scikit_learn():
    digits = load("digits")
    bunch = load_digits()
    ours = torch.cat([digits.splits[name].inputs for name in SPLITS]).reshape(-1, 64).numpy()
    theirs = bunch.data.astype(np.uint8)
    assert sorted(map(bytes, ours)) == sorted(map(bytes, theirs))
    labels = torch.cat([digits.splits[name].labels for name in SPLITS]).numpy()
    assert (np.bincount(labels) == np.bincount(bunch.target)).all()


def test_splits_are_disjoint_stratified_and_always_the_same():
    first, second = load("digits"), load("digits")
    assert first.digest == second.digest
    sizes = {name: len(first.splits[name].labels) for name in SPLITS}
    assert sum(sizes.values()) == 1797
    for name, share in zip(SPLITS, (0.35, 0.15, 0.15, 0.35), strict=True):
        counts = np.bincount(first.splits[name].labels.numpy())
        assert sizes[name] == pytest.approx(share * 1797, abs=6)
        assert counts.max() - counts.min() < 0.1 * sizes[name]


def test_stratify_loses_and_doubles_nothing():
    labels = np.random.default_rng(3).integers(0, 7, 500)
    rows = np.arange(20, 480)
    parts = stratify(rows, labels, {"a": 0.5, "b": 0.2, "c": 0.3})
    assert sorted(np.concatenate(list(parts.values()))) == list(rows)


def test_train_examples_keeps_a_part_of_train_only():
    whole, part = load("digits"), load("digits", train_examples=100)
    assert len(part.splits["train"].labels) == pytest.approx(100, abs=2)
    assert (part.splits["test"].inputs == whole.splits["test"].inputs).all()
    assert part.digest != whole.digest
    with pytest.raises(WrongInput, match="has 629 training examples"):
        load("digits", train_examples=5000)


def test_prepare_standardises_by_train():
    digits = load("digits")
    prepared = digits.prepare(digits.splits["train"].inputs)
    assert prepared.mean().abs() < 1e-5
    assert prepared.std().item() == pytest.approx(1, abs=1e-3)


def test_a_rare_class_is_named():
    source = Source(np.zeros((5, 2)), np.array([0, 0, 1, 1, 1]), ("cat", "dog"), 0, "here")
    with pytest.raises(WrongInput, match="the select split of pets has 1 examples of class 'cat'"):
        check_classes("pets", {"select": np.array([0, 2, 3])}, source)


def test_fashion_mnist_tells_how_to_get_it(tmp_path):
    with pytest.raises(WrongInput, match="github.com/zalandoresearch/fashion-mnist"):
        load("fashion_mnist")
    with pytest.raises(WrongInput, match=r"train-images-idx3-ubyte.gz: No such file"):
        load("fashion_mnist", str(tmp_path))


def test_a_corrupt_file_is_told_with_both_checksums(tmp_path):
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"not what it should be"))
    with pytest.raises(WrongInput, match="is corrupt: its MD5 is [0-9a-f]{32}, expected 8d4fb7e6c68d591d4c3dfef9ec88bf0d"):
        load("fashion_mnist", str(tmp_path))


@pytest.mark.skipif(not (SHARED / "fashion-mnist").exists(), reason="Fashion-MNIST is not there: set LSCAL_DATA")
def test_fashion_mnist_from_its_four_files():
    data = load("fashion_mnist", str(SHARED))
    assert {name: len(split.labels) for name, split in data.splits.items()} == {
        "train": 50000,
        "select": 5000,
        "calibrate": 5000,
        "test": 10000,
    }
    assert data.shape == (1, 28, 28)
    assert (torch.bincount(data.splits["test"].labels) == 1000).all()
    assert data.mean / 255 == pytest.approx(0.2860, abs=1e-3)
