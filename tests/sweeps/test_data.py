import gzip
import hashlib
import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from sklearn.datasets import load_digits

from sweeps.data.builtin import DATASETS
from sweeps.data.dataset import SPLITS, RawData
from sweeps.data.load import load
from sweeps.data.splits import check_classes, stratify
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


def test_a_class_that_is_too_rare_is_named():
    source = RawData(np.zeros((5, 2)), np.array([0, 0, 1, 1, 1]), ("cat", "dog"), 0, "here")
    with pytest.raises(WrongInput, match="the select split of pets has 1 examples of class 'cat'"):
        check_classes("pets", {"select": np.array([0, 2, 3])}, source)


def refused(message, name, folder=None):
    with pytest.raises(WrongInput, match=message):
        load(name, None if folder is None else str(folder))


def test_fashion_mnist_that_is_missing_or_corrupt_is_refused_with_its_address_or_checksums(tmp_path):
    refused("github.com/zalandoresearch/fashion-mnist", "fashion_mnist")
    refused(r"train-images-idx3-ubyte.gz: No such file", "fashion_mnist", tmp_path)
    file = tmp_path / "fashion-mnist" / "train-images-idx3-ubyte.gz"
    file.parent.mkdir()
    file.write_bytes(gzip.compress(b"not what it should be"))
    sums = "is corrupt: its MD5 is [0-9a-f]{32}, expected 8d4fb7e6c68d591d4c3dfef9ec88bf0d"
    refused(sums, "fashion_mnist", tmp_path)


@pytest.mark.skipif(
    not (SHARED / "fashion-mnist").exists(), reason="Fashion-MNIST is not there: set LSCAL_DATA"
)
def test_fashion_mnist_from_its_four_files():
    data = load("fashion_mnist", str(SHARED))
    assert [len(data.splits[name].labels) for name in SPLITS] == [50000, 5000, 5000, 10000]
    assert data.shape == (1, 28, 28)
    assert (torch.bincount(data.splits["test"].labels) == 1000).all()
    assert data.mean[0] / 255 == pytest.approx(0.2860, abs=1e-3)


def test_the_digest_by_which_a_study_is_found_again_is_the_same_as_ever():
    """Means and deviations are those of NumPy over all pixels at once."""
    digits = load("digits")
    assert digits.digest == "0dd55efb15839e12"
    train = digits.splits["train"].inputs.double().numpy()
    assert digits.mean == pytest.approx((train.mean(),), rel=1e-12)
    assert digits.deviation == pytest.approx((train.std(),), rel=1e-12)


def colours(examples=900):
    """Channels whose means and deviations differ, the last one constant."""
    generator = np.random.default_rng(2)
    ranges = ((0, 90), (40, 250), (255, 256))
    inputs = np.stack([generator.integers(*own, (examples, 5, 4)) for own in ranges], 1).astype(np.uint8)
    return RawData(inputs, generator.integers(0, 3, examples), ("a", "b", "c"), 90, "drawn at random")


def test_each_channel_is_standardised(monkeypatch):
    monkeypatch.setitem(DATASETS, "colours", lambda _: colours())
    data = load("colours")
    train = data.splits["train"].inputs.double().numpy()
    assert data.mean == pytest.approx(train.mean((0, 2, 3)), rel=1e-12)
    assert data.deviation == pytest.approx((*train.std((0, 2, 3))[:2], 1.0), rel=1e-12)
    prepared = data.prepare(data.splits["train"].inputs)
    assert prepared.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert prepared.std((0, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 0], rel=1e-5)
    one = data.splits["train"].inputs[17]
    assert torch.equal(data.prepare(one), prepared[17])


def test_prepare_leaves_float_inputs_as_they_are(monkeypatch):
    source = colours()
    flat = replace(source, inputs=source.inputs.reshape(900, -1).astype(np.float32))
    monkeypatch.setitem(DATASETS, "rows", lambda _: flat)
    data = load("rows")
    stored = data.splits["train"].inputs
    before = stored.clone()
    prepared = data.prepare(stored)
    assert torch.equal(stored, before)
    assert len(data.mean) == 60
    torch.testing.assert_close(prepared.mean(0), torch.zeros(60), rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["r", "c"])
def test_a_mapped_file_gives_the_same_and_is_not_copied(monkeypatch, tmp_path, mode):
    source = colours(5000)  # more than are read at a time
    np.save(tmp_path / "inputs.npy", source.inputs)
    file = np.load(tmp_path / "inputs.npy", mmap_mode=mode)
    monkeypatch.setitem(DATASETS, "colours", lambda _: source)
    monkeypatch.setitem(DATASETS, "mapped", lambda _: replace(source, inputs=file))
    held, mapped = load("colours"), load("mapped")
    digest = hashlib.sha256()
    for name in SPLITS:
        digest.update(held.splits[name].inputs.numpy().tobytes() + held.splits[name].labels.numpy().tobytes())
    assert held.digest == digest.hexdigest()[:16]
    train = held.splits["train"].inputs.double().numpy()
    assert held.mean == pytest.approx(train.mean((0, 2, 3)), rel=1e-12)
    assert held.deviation[:2] == pytest.approx(train.std((0, 2, 3))[:2], rel=1e-12)
    for same in ("digest", "mean", "deviation", "shape"):
        assert getattr(mapped, same) == getattr(held, same)
    for name in SPLITS:
        ours, theirs = mapped.splits[name], held.splits[name]
        assert ours.stored.data_ptr() == file.ctypes.data
        some = torch.tensor([[5, 1, 5], [0, 9, 2]])
        assert torch.equal(ours.take(some), theirs.inputs[some])
        assert torch.equal(theirs.take(some), theirs.inputs[some])
        assert torch.equal(ours.inputs, theirs.inputs)
        assert torch.equal(ours.labels, theirs.labels)
    moved = mapped.to(torch.device("cpu")).splits["train"]
    assert moved.rows is None
    assert torch.equal(moved.inputs, held.splits["train"].inputs)


def pictures(examples, seed):
    """Images, and the same as PNG files."""
    pixels = np.random.default_rng(seed).integers(0, 256, (examples, 32, 32, 3), dtype=np.uint8)
    return pixels, [packed(Image.fromarray(image)) for image in pixels]


def packed(image, kind="PNG"):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def write(path, images, labels, image="image", label="label"):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": data, "path": None} for data in images]
    parquet.write_table(pyarrow.table({image: rows, label: pyarrow.array(labels, pyarrow.int64())}), path)


TRAIN, TEST = "train-00000-of-00001.parquet", "test-00000-of-00001.parquet"


@pytest.mark.parametrize(
    ("folder", "column"),
    [("cifar10/data", "image"), ("cifar10/plain_text", "img"), ("cifar10", "image"), ("data", "image")],
)
def test_cifar10_from_its_two_files(tmp_path, folder, column):
    pixels, images = pictures(1203, 0)  # more than a thread decodes at a time
    test_pixels, test_images = pictures(7, 1)
    labels = np.arange(1203) * 7 % 10
    write(tmp_path / folder / TRAIN, images, labels, column)
    write(tmp_path / folder / TEST, test_images, [9, 8, 7, 0, 1, 2, 3], column)
    source = DATASETS["cifar10"](tmp_path)
    assert (source.inputs == np.concatenate([pixels, test_pixels]).transpose(0, 3, 1, 2)).all()
    assert source.labels.tolist() == [*labels, 9, 8, 7, 0, 1, 2, 3]
    assert source.test == 7
    assert len(source.classes) == 10


def test_cifar10_that_is_missing_or_another_file_is_refused(tmp_path):
    refused("huggingface.co/datasets/uoft-cs/cifar10", "cifar10")
    where = r"cannot read .*cifar10/train-00000-of-00001.parquet: no such file. Get .* --data-dir DIR"
    refused(where, "cifar10", tmp_path)
    _, (one, two, three) = pictures(3, 0)
    train, test = tmp_path / "cifar10" / TRAIN, tmp_path / "cifar10" / TEST
    write(test, [one, two, three], [0, 1, 2])
    train.write_bytes(test.read_bytes()[:-100])
    refused(r"cannot read .*train-00000-of-00001.parquet: .* Get train", "cifar10", tmp_path)
    grey, narrow = packed(Image.new("L", (32, 32))), packed(Image.new("RGB", (28, 32)), "JPEG")
    for images, label, columns, message in (
        (
            [one, two, three],
            1,
            ("picture", "label"),
            r"picture, label; wanted image \(or img\) and label. Get",
        ),
        ([one, two, three], 1, ("image", "fine_label"), r"has columns image, fine_label; wanted"),
        ([one, two, three], 10, ("image", "label"), "has labels from 0 to 10; wanted 0 to 9"),
        ([one, two, b"no image"], 1, ("image", "label"), "is corrupt: row 2 is no image"),
        ([one, two[:-900], three], 1, ("image", "label"), "is corrupt: row 1 is no image"),
        ([one, two, grey], 1, ("image", "label"), "row 2 of .* of 32×32 pixels in L; wanted 32×32 in RGB"),
        ([narrow, two, three], 1, ("image", "label"), "row 0 of .* is an image of 28×32 pixels in RGB"),
    ):
        write(train, images, [0, label, 2], *columns)
        refused(message, "cifar10", tmp_path)


def small_cifar10(folder):
    _, images = pictures(9, 0)
    write(folder / "cifar10" / "data" / TRAIN, images[:6], [0, 1, 2, 3, 4, 5])
    write(folder / "cifar10" / "data" / TEST, images[6:], [7, 8, 9])


def write_columns(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path)


def test_people_label_the_test_images_of_cifar10(tmp_path):
    small_cifar10(tmp_path)
    assert DATASETS["cifar10"](tmp_path).human is None
    counts = np.eye(10, dtype=np.int16)[[7, 8, 9]] * 30 + 2
    people = tmp_path / "cifar10" / "cifar10h" / TEST
    write_columns(people, counts=list(counts))
    human = DATASETS["cifar10"](tmp_path).human
    assert np.isnan(human[:6]).all()
    np.testing.assert_allclose(human[6:], counts / 50)
    write_columns(people, counts=list(counts[:2]))
    refused(r"has counts of shape \(2, 10\); wanted those of 10 classes for 3 test", "cifar10", tmp_path)


def test_cifar10n_has_the_labels_of_workers_for_training_and_clean_ones_for_the_test(tmp_path):
    small_cifar10(tmp_path)
    where = (
        r"cifar10n/train-00000-of-00001.parquet: no such file. Get the labels from https://github.com/UCSC"
    )
    refused(where, "cifar10n_worst", tmp_path)
    wrong = {"aggregate": [0, 1, 2, 3, 4, 6], "random1": [0, 1, 2, 3, 5, 6], "worst": [9, 9, 9, 9, 9, 9]}
    path = tmp_path / "cifar10" / "cifar10n" / TRAIN
    write_columns(path, **wrong)
    clean = DATASETS["cifar10"](tmp_path)
    for name, expected in wrong.items():
        source = DATASETS[f"cifar10n_{name}"](tmp_path)
        assert source.labels.tolist() == [*expected, 7, 8, 9]
        assert (source.inputs == clean.inputs).all()
    write_columns(path, worst=[9, 9])
    refused("has 2 rows; wanted 6, one for each training image", "cifar10n_worst", tmp_path)
    refused("has columns worst; wanted random1", "cifar10n_random1", tmp_path)


@pytest.mark.skipif(not (SHARED / "cifar10").exists(), reason="CIFAR-10 is not there: set LSCAL_DATA")
def test_labels_of_workers_are_wrong_as_often_as_published():
    table = parquet.read_table(SHARED / "cifar10" / "cifar10n" / TRAIN)
    official = parquet.read_table(SHARED / "cifar10" / "data" / TRAIN, columns=["label"])["label"].to_numpy()
    for name, share in {"aggregate": 0.0903, "random1": 0.1723, "worst": 0.4021}.items():
        assert (table[name].to_numpy() != official).mean() == pytest.approx(share, abs=5e-4)


@pytest.mark.skipif(not (SHARED / "cifar10").exists(), reason="CIFAR-10 is not there: set LSCAL_DATA")
def test_a_part_of_the_real_cifar10(tmp_path):
    for name, examples in ((TRAIN, 50000), (TEST, 10000)):
        table = parquet.read_table(SHARED / "cifar10" / "data" / name)
        assert (np.bincount(table["label"]) == examples // 10).all()
        parquet.write_table(table.slice(0, 600), tmp_path / name)
    source = DATASETS["cifar10"](tmp_path)
    assert [source.classes[label] for label in source.labels[:3]] == ["frog", "truck", "truck"]
    assert [source.classes[label] for label in source.labels[600:604]] == ["cat", "ship", "ship", "airplane"]
    assert source.inputs.mean((0, 2, 3)) / 255 == pytest.approx([0.491, 0.482, 0.447], abs=0.02)


def test_an_official_test_split_stays_the_test_split(monkeypatch):
    inputs = np.arange(240, dtype=np.float32)[:, None]
    source = RawData(inputs, np.arange(240) % 2, ("a", "b"), 40, "here")
    monkeypatch.setitem(DATASETS, "official", lambda _: source)
    splits = load("official").splits
    assert splits["test"].inputs[:, 0].tolist() == list(range(200, 240))
    others = torch.cat([splits[name].inputs[:, 0] for name in SPLITS if name != "test"])
    assert sorted(others.tolist()) == list(range(200))
