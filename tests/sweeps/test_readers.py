import csv
import gzip
import hashlib
import io
import json
import sys
import wave
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from sweeps.cli.options import parser
from sweeps.data.builtin import DATASETS
from sweeps.data.dataset import SPLITS
from sweeps.data.load import load
from sweeps.data.readers.examples import Examples, source_of
from sweeps.data.readers.spec import Columns, name_of
from sweeps.errors import WrongInput
from sweeps.external import Catalogue
from sweeps.external_flags import absolute, supplied, words
from sweeps.models.builtin import ARCHITECTURES
from sweeps.settings import read_yaml, resolve, site_of
from sweeps.site import to_yaml
from sweeps.task import Recipe


@pytest.fixture(autouse=True)
def _as_before(monkeypatch, tmp_path):
    """Given an empty working directory; and the modules that a test imports are forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    known = dict(DATASETS), dict(ARCHITECTURES)
    yield
    assert known == (DATASETS, ARCHITECTURES)
    for name in set(sys.modules) - modules:
        if name.startswith("brought_"):
            del sys.modules[name]


def values_of(*words, data_dir=None):
    """The settings of a command line."""
    options = vars(parser().parse_args([str(word) for word in words]))
    return {**supplied(options), **options, "data_dir": data_dir}


def plan_of(*words, data_dir=None):
    """The plan of a command line."""
    return resolve(values_of(*words, data_dir=data_dir))


def data_of(task):
    """The data set of a task."""
    return load(task.dataset, loader=task.loader)


def loaded(*words):
    """The data set that a command line supplies."""
    return data_of(plan_of("--dataset", *words).tasks[0])


def refused(*words):
    """Why a command line is refused."""
    with pytest.raises(WrongInput) as caught:
        loaded(*words)
    return str(caught.value)


def rows(data):
    """All inputs and labels, split by split."""
    return torch.cat([data.splits[name].inputs for name in SPLITS]), torch.cat(
        [data.splits[name].labels for name in SPLITS]
    )


def write_csv(path, header, lines):
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows([header, *lines])


def patients(n=120, seed=3):
    """Rows of a table with all that a table may have."""
    draw = np.random.default_rng(seed)
    ages, colours = draw.integers(20, 80, n), draw.choice(["red", "green", "blue"], n, p=[0.5, 0.3, 0.2])
    sick = np.where((ages > 50) ^ (draw.random(n) < 0.1), "yes", "no")
    return [
        [f"P{row:04d}", "" if row % 10 == 0 else age, colour, f"seen on ward {row} today", label]
        for row, (age, colour, label) in enumerate(
            zip(ages.tolist(), colours.tolist(), sick.tolist(), strict=True)
        )
    ]


HEADER = ["patient_id", "age", "colour", "remarks", "class"]


def test_a_table_becomes_features_and_says_what_it_guessed():
    lines = patients()
    write_csv("patients.csv", HEADER, lines)
    data = loaded("patients.csv")
    assert data.name == "patients"
    assert data.classes == ("no", "yes")
    assert data.features == ("age", "age is missing", "colour = blue", "colour = green", "colour = red")
    inputs, labels = rows(data)
    train = data.splits["train"].inputs
    known = train[train[:, 1] == 0, 0]
    filled = inputs[inputs[:, 1] == 1, 0]
    assert len(filled) == 12
    assert set(filled.tolist()) == {float(np.median(known))}  # of the training examples alone
    expected = sorted((float(line[1] or filled[0]), line[2], line[4]) for line in lines)
    colour = [("blue", "green", "red")[int(place)] for place in inputs[:, 2:].argmax(1)]
    assert (
        sorted(zip(inputs[:, 0].tolist(), colour, [data.classes[label] for label in labels], strict=True))
        == expected
    )
    said = " / ".join(data.notes)
    for sentence in (
        "the label is the column 'class'",
        "the inputs are age, colour",
        "patient_id (all values differ",
        "age (12)",
        "remarks (free text",
    ):
        assert sentence in said


def test_columns_can_be_named():
    write_csv("patients.csv", HEADER, patients())
    data = loaded(
        "patients.csv", "--label-column", "colour", "--input-columns", "age,class", "--name", "colours"
    )
    assert data.name == "colours"
    assert data.classes == ("blue", "green", "red")
    assert data.features == ("age", "age is missing", "class = no", "class = yes")
    assert "there is no column" not in " ".join(data.notes)
    assert "--label-column: no column named 'colours'. Did you mean 'colour'" in refused(
        "patients.csv", "--label-column", "colours"
    )
    assert "it is the label or the split" in refused(
        "patients.csv", "--label-column", "class", "--input-columns", "class"
    )


def test_a_table_without_a_likely_label_lists_its_columns():
    write_csv("patients.csv", [*HEADER[:-1], "Ergebnis"], patients())
    told = refused("patients.csv")
    assert "--label-column NAME" in told
    assert "age (int64, " in told
    assert "Ergebnis (string, 2 different values)" in told


@pytest.mark.parametrize(
    ("separator", "packed", "encoding"),
    [(";", False, "utf-8"), ("\t", True, "utf-8-sig"), (",", False, "latin-1")],
)
def test_separators_encodings_and_compression(separator, packed, encoding):
    text = "\n".join(
        [
            separator.join(["größe", "label"]),
            *(separator.join([str(row / 7), "groß" if row % 2 else "klein"]) for row in range(60)),
        ]
    )
    raw = text.encode(encoding)
    name = "t.csv.gz" if packed else "t.csv"
    Path(name).write_bytes(gzip.compress(raw) if packed else raw)
    data = loaded(name)
    assert data.name == "t"
    assert data.classes == ("groß", "klein")
    assert data.features == ("größe",)
    assert sorted(rows(data)[0][:, 0].tolist()) == pytest.approx([row / 7 for row in range(60)])


def test_labels_are_counted_where_they_are_missing_and_quantities_are_refused():
    draw = np.random.default_rng(1)
    write_csv(
        "a.csv", ["x", "y"], [[draw.normal(), "" if row % 9 == 0 else row % 3 + 5] for row in range(180)]
    )
    data = loaded("a.csv")
    assert data.classes == ("5", "6", "7")
    assert "20 of 180 examples have no label and are left out (20 of train)" in data.notes
    assert len(rows(data)[1]) == 160
    write_csv("b.csv", ["x", "y"], [[draw.normal(), draw.normal()] for _ in range(180)])
    assert "180 different values among 180 examples" in refused("b.csv")
    assert "a regression" in refused("b.csv")
    write_csv("c.csv", ["x", "y"], [[draw.normal(), f"name {row}"] for row in range(180)])
    assert "those are no classes" in refused("c.csv")
    write_csv("d.csv", ["x", "y"], [[draw.normal(), "same"] for row in range(180)])
    assert "all 180 labels of d.csv are 'same'" in refused("d.csv")


def test_numbers_which_cannot_be_are_named():
    write_csv("a.csv", ["height", "y"], [["inf" if row == 17 else row, row % 2] for row in range(60)])
    assert (
        "the column 'height' has 1 values which are infinite or above 3e38, the first in row 17"
        in refused("a.csv")
    )


def test_dates_as_numbers_keep_their_differences():
    write_csv("a.csv", ["seconds", "y"], [[1_700_000_000 + row, row % 2] for row in range(60)])
    values = rows(loaded("a.csv"))[0][:, 0]
    assert len(set(values.tolist())) == 60


def test_a_column_divides_the_examples():
    lines = [[row, "abc"[row % 3], ("train", "train", "dev", "test")[row // 3 % 4]] for row in range(240)]
    write_csv("parted.csv", ["x", "y", "fold"], lines)
    data = loaded("parted.csv", "--input-columns", "x")
    assert {name: len(split.labels) for name, split in data.splits.items()} == {
        "train": 120,
        "select": 30,
        "calibrate": 30,
        "test": 60,
    }
    assert sorted(data.splits["test"].inputs[:, 0].tolist()) == [
        line[0] for line in lines if line[2] == "test"
    ]
    assert "'fold' says which examples" in " ".join(data.notes)
    assert "has the values 0, 1, 10, 100" in refused("parted.csv", "--split-column", "x")


def test_rare_classes_are_refused_by_name_or_left_out():
    lines = [
        [row, f"class {row % 4}" if row < 200 else "a rare one" if row < 203 else "class 1 alone"]
        for row in range(204)
    ]
    write_csv("rare.csv", ["x", "label"], lines)
    told = refused("rare.csv")
    assert "2 of 6 classes" in told
    assert "'a rare one' (3), 'class 1 alone' (1)" in told
    assert "--drop-rare-classes" in told
    data = loaded("rare.csv", "--drop-rare-classes")
    assert data.classes == ("class 0", "class 1", "class 2", "class 3")
    inputs, labels = rows(data)
    assert len(labels) == 200
    assert (inputs[:, 0] % 4 == labels).all()


def test_small_classes_with_a_test_of_their_own_get_larger_parts_to_select_on():
    examples = Examples(
        np.arange(30 * 18, dtype=np.float32)[:, None],
        [row % 18 for row in range(540)],
        ["train"] * 360 + ["test"] * 180,
        "here",
    )
    source = source_of(examples, drop_rare=False)
    assert (source.validation, source.test) == (108, 180)
    assert "classes are small: 30%" in source.notes[0]
    assert (source.inputs[:, 0] % 18 == source.labels).all()
    assert (source.inputs[-180:, 0] >= 360).all()


def write_texts(path, n=400):
    words = ["storm", "goal", "bank", "vote", "song"]
    draw = np.random.default_rng(5)
    texts = [
        " ".join([*draw.choice(["the", "a", "of", "in", "and"], 9), words[row % 5], f"no {row}"])
        for row in range(n)
    ]
    write_csv(path, ["no", "text", "topic"], [[row, text, words[row % 5]] for row, text in enumerate(texts)])
    return texts


def test_texts_become_tokens_and_get_a_network_for_them():
    texts = write_texts("news.csv")
    plan = plan_of("--dataset", "news.csv", "--label-column", "topic")
    assert [task.name for task in plan.tasks] == ["news/text_cnn"]
    data = data_of(plan.tasks[0])
    assert {"storm", "goal", "bank", "vote", "song"} <= set(data.vocabulary)
    assert sorted(text for split in data.splits.values() for text in split.shown) == sorted(texts)
    write_csv(
        "pairs.csv",
        ["first", "second", "label"],
        [[f"the cat {row}", f"a dog, not {row}", row % 2] for row in range(100)],
    )
    assert "several columns of texts" in refused("pairs.csv")
    shown = loaded("pairs.csv", "--input-columns", "first,second").splits["train"].shown
    assert all(" | a dog, not " in text for text in shown)


# ---- Images


def picture(row, size=(9, 7), mode="RGB"):
    """An image whose pixels say which one it is."""
    return Image.new("RGB", size, (row % 256, 40, 200)).convert(mode)


def write_pictures(folder, per_class=16, **of_test):
    for part, count in {"": per_class, **of_test}.items():
        for label in ("cat", "dog", "newt"):
            place = folder / (part or ("train" if of_test else ".")) / label
            place.mkdir(parents=True)
            for row in range(count):
                picture(row).save(place / f"{row}.png")


def test_a_folder_of_images_by_class(tmp_path):
    write_pictures(tmp_path / "pets")
    (tmp_path / "pets" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "pets" / "README").write_text("x")
    plan = plan_of("--dataset", "pets")
    assert [task.name for task in plan.tasks] == ["pets/cnn"]
    data = data_of(plan.tasks[0])
    assert data.classes == ("cat", "dog", "newt")
    assert data.shape == (3, 7, 9)
    inputs, _ = rows(data)
    assert sorted(inputs[:, 0, 3, 3].tolist()) == sorted([*range(16)] * 3)
    assert (inputs[:, 2] == 200).all()
    assert "1 files of other kinds are left out" in data.notes


def test_a_folder_with_its_own_splits(tmp_path):
    write_pictures(tmp_path / "pets", 20, val=10, test=8)
    data = loaded("pets")
    assert {name: len(split.labels) for name, split in data.splits.items()} == {
        "train": 60,
        "select": 15,
        "calibrate": 15,
        "test": 24,
    }


def test_images_of_all_kinds_come_to_one(tmp_path):
    write_pictures(tmp_path / "pets")
    picture(3, (18, 14)).save(tmp_path / "pets" / "cat" / "large.jpg")
    picture(3, mode="P").save(tmp_path / "pets" / "cat" / "palette.gif")
    clear = Image.new("RGBA", (9, 7), (0, 0, 0, 0))
    clear.save(tmp_path / "pets" / "dog" / "clear.png")
    Image.fromarray(np.full((7, 9), 40_000, np.uint16)).save(tmp_path / "pets" / "dog" / "deep.png")
    turned = picture(3, (7, 9))
    turned.paste((250, 250, 250), (0, 5, 7, 9))  # at its foot, which is left when it is the right way up
    turned.save(tmp_path / "pets" / "dog" / "turned.jpg", exif=b"Exif\x00\x00" + exif_of(6))
    data = loaded("pets")
    assert data.shape == (3, 7, 9)
    assert "images have 2 sizes, most often 9×7 pixels: 1 of 53 are scaled" in " ".join(data.notes)
    inputs, labels = rows(data)
    dogs = inputs[labels == 1]
    assert (dogs == 255).flatten(1).all(1).sum() == 1  # what is transparent is white
    assert (dogs == 40_000 >> 8).flatten(1).all(1).sum() == 1
    halves = inputs[labels == 1].float().mean((1, 2)) > 150
    assert [1] * 4 + [0] * 5 in halves.int().tolist()
    assert loaded("pets", "--image-size", "12").shape == (3, 12, 12)


def exif_of(orientation):
    """Metadata that turn an image."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes().removeprefix(b"Exif\x00\x00")


def test_grey_images_have_one_channel_and_large_ones_of_many_sizes_become_small(tmp_path):
    for label in "ab":
        (tmp_path / "scans" / label).mkdir(parents=True)
        for row in range(20):
            picture(row, (120 + row % 2, 130), "L").save(tmp_path / "scans" / label / f"{row}.png")
    data = loaded("scans")
    assert data.shape == (1, 64, 64)
    assert "scaled and cropped to 64×64; other sizes: --image-size N" in " ".join(data.notes)


def test_broken_images_are_named(tmp_path):
    write_pictures(tmp_path / "pets")
    good = (tmp_path / "pets" / "cat" / "1.png").read_bytes()
    (tmp_path / "pets" / "cat" / "cut.png").write_bytes(good[:-30])
    (tmp_path / "pets" / "dog" / "page.jpg").write_text("<html>404</html>")
    told = refused("pets")
    assert told.startswith("1 of 50 images of pets cannot be read")  # before any is decoded
    assert "dog/page.jpg: no image" in told
    (tmp_path / "pets" / "dog" / "page.jpg").unlink()
    assert "cat/cut.png: " in refused("pets")


def test_100_classes_of_50_images(tmp_path):
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (5000, 6, 6), np.uint8)
    np.savez("many.npz", images=pixels, labels=[f"kind {row % 100}" for row in range(5000)])
    data = loaded("many.npz")
    assert len(data.classes) == 100
    assert data.classes[:3] == ("kind 0", "kind 1", "kind 10")
    for split in data.splits.values():
        assert torch.bincount(split.labels).min() >= 7


# ---- Parquet, arrays, sound


def packed(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def write_parquet(path, count, names, first=0):
    features = {"label": {"names": names, "_type": "ClassLabel"}, "img": {"_type": "Image"}}
    table = pyarrow.table(
        {
            "img": [{"bytes": packed(picture(first + row)), "path": None} for row in range(count)],
            "label": [-1 if row == 7 else row % 3 for row in range(count)],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)


def test_the_layout_of_hugging_face(tmp_path):
    write_parquet(
        tmp_path / "birds" / "data" / "train-00000-of-00002.parquet", 60, ["tit", "owl", "auk", "emu"]
    )
    write_parquet(
        tmp_path / "birds" / "data" / "train-00001-of-00002.parquet", 40, ["tit", "owl", "auk", "emu"], 60
    )
    write_parquet(
        tmp_path / "birds" / "data" / "test-00000-of-00001.parquet", 30, ["tit", "owl", "auk", "emu"], 100
    )
    data = loaded("birds")
    assert data.classes == ("tit", "owl", "auk")  # there is no emu
    assert data.shape == (3, 7, 9)
    test = data.splits["test"]
    assert test.inputs[:, 0, 0, 0].tolist() == [100 + row for row in range(30) if row != 7]
    assert test.labels.tolist() == [row % 3 for row in range(30) if row != 7]
    assert "3 of 130 examples have no label and are left out (2 of train, 1 of test)" in data.notes
    write_parquet(tmp_path / "birds" / "other" / "train-0.parquet", 60, ["a", "b", "c"])
    assert "has tables in several folders" in refused("birds")


def test_lists_in_a_table_are_arrays(tmp_path):
    values = np.random.default_rng(2).normal(size=(60, 4, 3)).astype(np.float32)
    table = pyarrow.table({"signal": values.tolist(), "label": [row % 2 for row in range(60)]})
    parquet.write_table(table, "signals.parquet")
    plan = plan_of("--dataset", "signals.parquet")
    assert [task.name for task in plan.tasks] == ["signals/mlp"]
    inputs, labels = rows(data_of(plan.tasks[0]))
    assert sorted(inputs[labels == 1].flatten().tolist()) == pytest.approx(
        sorted(values[1::2].ravel().tolist())
    )
    ragged = pyarrow.table(
        {"signal": [[0.0] * (1 + row % 2) for row in range(60)], "label": [row % 2 for row in range(60)]}
    )
    parquet.write_table(ragged, "ragged.parquet")
    assert "different lengths (1, 2)" in refused("ragged.parquet")


def test_arrays_by_their_usual_names():
    draw = np.random.default_rng(4)
    pixels = draw.integers(0, 256, (90, 6, 5, 3), np.uint8)
    labels = draw.permutation(np.arange(90) % 2)
    np.savez(
        "a.npz",
        train_images=pixels[:60],
        train_labels=labels[:60, None],
        test_images=pixels[60:],
        test_labels=labels[60:, None],
    )
    data = loaded("a.npz")
    assert data.shape == (3, 6, 5)
    assert torch.equal(data.splits["test"].inputs, torch.from_numpy(pixels[60:]).permute(0, 3, 1, 2))
    assert data.splits["test"].labels.tolist() == labels[60:].tolist()
    soft = np.where(np.arange(3) == (np.arange(90) % 3)[:, None], 0.8, 0.1)
    np.savez("b.npz", X=draw.normal(size=(90, 5)), y=soft)
    data = loaded("b.npz")
    torch.testing.assert_close(data.splits["test"].human.argmax(1), data.splits["test"].labels)
    assert float(data.splits["test"].human.max()) == pytest.approx(0.8)
    assert loaded_onehot(draw).splits["train"].human is None


def loaded_onehot(draw):
    np.savez("c.npz", X=draw.normal(size=(90, 5)), Y=np.eye(3, dtype=int)[np.arange(90) % 3])
    return loaded("c.npz")


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        (
            {"a": np.zeros((9, 2)), "b": np.zeros(9)},
            "which arrays of x.npz are inputs and labels? It has a (9, 2) float64, b (9,) float64",
        ),
        ({"x": np.zeros((9, 2)), "y": np.zeros(8)}, "9 inputs in 'x' and 8 labels in 'y'"),
        (
            {"x": np.full((9, 2), np.nan), "y": np.arange(9) % 2},
            "18 numbers which are NaN or infinite, the first in row 0",
        ),
        ({"x": np.array([{"a": 1}] * 9, object), "y": np.arange(9)}, "holds Python objects"),
        ({"x": np.zeros((9, 2)), "y": np.full((9, 4), 0.3)}, "no distributions over classes"),
    ],
)
def test_arrays_which_cannot_be_used(arrays, why):
    np.savez("x.npz", **arrays)
    assert why in refused("x.npz")


def test_no_pickle_is_loaded(tmp_path):
    class Planted:
        def __reduce__(self):
            return (open, (str(tmp_path / "was run"), "w"))

    np.savez("x.npz", x=np.array([Planted()] * 4, object), y=np.arange(4) % 2)
    refused("x.npz")
    assert not (tmp_path / "was run").exists()


def test_recordings_become_spectrograms(tmp_path):
    for label, hertz in (("low", 300), ("high", 2500)):
        (tmp_path / "tones" / label).mkdir(parents=True)
        for row in range(16):
            samples = np.sin(2 * np.pi * hertz * np.arange(4000 + 20 * row) / 8000) * 2**14
            with wave.open(str(tmp_path / "tones" / label / f"{row}.wav"), "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes(samples.astype("<i2").tobytes())
    data = loaded("tones")
    inputs, labels = rows(data)
    assert inputs.shape[1:3] == (1, 32)
    loudest = inputs[:, 0, :, 5].argmax(1)
    assert (
        loudest[labels == data.classes.index("low")].max()
        < loudest[labels == data.classes.index("high")].min()
    )
    (tmp_path / "tones" / "low" / "x.wav").write_bytes(b"RIFF....")
    assert "low/x.wav" in refused("tones")


# ---- Functions


CODE = """
import numpy as np, torch
from torch import nn
from sweeps.models.registry import architecture
from sweeps.data.load import Source
from sweeps.task import Recipe

X = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)

def pair(): return X, Y
def mapping(data_dir):
    return {"x_train": torch.tensor(X[:60]), "y_train": Y[:60], "x_test": X[60:], "y_test": Y[60:]}
def source(): return Source(X, Y, ("no", "yes"), 20, "here")
def high(): return Source(X, Y + 1, ("no", "yes"), 20, "here")
def number(): return 3
def dataset(): return torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))

def net(shape, classes): return nn.Linear(shape[0], classes)
class Net(nn.Linear):
    def __init__(self, num_classes, in_features=6): super().__init__(in_features, num_classes)
def tokens(num_classes, vocab_size):
    return nn.Sequential(nn.EmbeddingBag(vocab_size, 8), nn.Linear(8, num_classes))
def strange(shape, classes, depth): return nn.Linear(shape[0], classes)
def nothing(shape, classes): return None
@architecture(recipes={"*": Recipe(epochs=3)})
def mlp(shape, classes): return nn.Linear(shape[0], classes)
value = 3
"""


@pytest.fixture
def module(tmp_path):
    (tmp_path / "brought_code.py").write_text(CODE)
    return "brought_code"


@pytest.mark.parametrize("function", ["pair", "mapping", "source", "dataset"])
def test_what_a_function_may_return(module, function):
    data = loaded(f"{module}:{function}")
    assert data.name == function
    inputs, labels = rows(data)
    assert ((inputs[:, 0] > 0) == labels.bool()).all()
    assert len(data.splits["test"].labels) == (20 if function in ("mapping", "source") else 29)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("number", "returned int; wanted a Source, a pair (inputs, labels)"),
        ("high", "returned labels from 1 to 2 and 2 classes; wanted labels from 0 to 1"),
        ("value", "brought_code has a int; wanted a function"),
        ("pear", "brought_code has nothing of that name; wanted a function or a class. It has: Net, dataset"),
    ],
)
def test_functions_which_cannot_be_used(module, function, why):
    assert why in refused(f"{module}:{function}")


def test_where_there_is_no_such_module_or_file(tmp_path):
    assert "there is no module 'brought_nowhere'" in refused("brought_nowhere:load")
    assert "there is no data set 'nowhere.csv': no such file or folder" in refused("nowhere.csv")
    (tmp_path / "brought_needs.py").write_text("import no_such_package\n")
    assert "needs no_such_package, which is not installed" in refused("brought_needs:load")
    (tmp_path / "notes.docx").write_text("x")
    assert "of a kind which is not understood; wanted a folder of images" in refused("notes.docx")
    (tmp_path / "empty").mkdir()
    assert "has 0 files, none of which is understood" in refused("empty")


def test_a_file_elsewhere_can_be_given(module, tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert loaded("../brought_code.py:pair").name == "pair"


def built(spec, shape=(6,), classes=2, **tokens):
    (task,) = plan_of(f"{'trec' if tokens else 'digits'}/net", "--architecture", f"net={spec}").tasks
    return task.network.build(shape, classes, **tokens)


def test_architectures_are_called_by_the_names_of_their_parameters(module):
    assert built(f"{module}:net", classes=5).out_features == 5
    assert built(f"{module}:Net", classes=4).out_features == 4
    assert built(f"{module}:tokens", classes=4, vocabulary=30)[0].num_embeddings == 30
    (task,) = plan_of("trec/net", "--architecture", f"net={module}:tokens").tasks
    assert task.network.reads_tokens


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("strange", "what is depth? Wanted a function (shape, classes)"),
        ("nothing", "returned NoneType; wanted a torch.nn.Module"),
    ],
)
def test_architectures_which_cannot_be_used(module, function, why):
    with pytest.raises(WrongInput) as caught:
        built(f"{module}:{function}")
    assert why in str(caught.value)


def test_a_decorated_architecture_has_its_recipe_and_does_not_take_the_place_of_ours(module):
    ours = ARCHITECTURES["mlp"]
    plan = plan_of("--architecture", f"{module}:mlp")
    assert [task.name for task in plan.tasks] == ["digits/own_mlp"]
    assert plan.tasks[0].recipe.epochs == 3
    assert ARCHITECTURES["mlp"] is ours


# ---- Plans and workers


def test_a_plan_with_what_is_brought_is_repeated_by_its_yaml(module, tmp_path):
    write_csv("patients.csv", HEADER, patients())
    words = [
        "--dataset",
        "patients.csv",
        "--label-column",
        "class",
        "--input-columns",
        "age",
        "--drop-rare-classes",
    ]
    values = values_of(*words, "--architecture", f"{module}:net", "--architecture", "mlp")
    plan, site = resolve(values), site_of(values)
    assert [task.name for task in plan.tasks] == ["patients/net", "patients/mlp"]
    (tmp_path / "plan.yaml").write_text(to_yaml(plan, site))
    again = resolve(read_yaml("plan.yaml"))
    assert (again, site_of(read_yaml("plan.yaml"))) == (plan, site)
    digest = data_of(again.tasks[0]).digest
    assert again.science(again.tasks[0], digest) == plan.science(plan.tasks[0], digest)


def test_the_file_of_a_network_is_part_of_the_science(module, tmp_path):
    plan = plan_of("digits/net", "--architecture", f"{module}:net")
    expected = hashlib.sha256((tmp_path / "brought_code.py").read_bytes()).hexdigest()[:8]
    assert plan.science(plan.tasks[0], "d")["code"] == expected
    ours = resolve({"tasks": ["digits/mlp"]})
    assert "code" not in ours.science(ours.tasks[0], "d")


def test_the_words_of_a_worker_bring_the_same(module, tmp_path, monkeypatch):
    from sweeps.cli.worker import parser as of_worker

    write_csv("patients.csv", HEADER, patients())
    flags = ["--dataset", "patients.csv", "--input-columns", "age,colour", "--name", "p", "--architecture"]
    values = values_of(*flags, f"{module}:net")
    plan, site = resolve(values), site_of(values)
    here = data_of(plan.tasks[0]).digest
    given = words(site.datasets, site.architectures, "p/net")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    own = supplied(
        {
            key: value
            for key, value in vars(of_worker().parse_args(given)).items()
            if key in ("dataset", "name", "input_columns", "architecture")
        }
    )
    again = resolve({**own, "tasks": ["p/net"]})
    assert data_of(again.tasks[0]).digest == here
    assert again.tasks == plan.tasks
    assert words(site.datasets, site.architectures, "digits/mlp") == []


def test_names_are_made_of_paths_and_give_way_to_ours(tmp_path):
    (tmp_path / "My Pets (2024)").mkdir()
    (tmp_path / "titanic").mkdir()
    (tmp_path / "titanic" / "train.csv").write_text("x")
    for source, name in {
        "My Pets (2024)": "my_pets_2024",
        "titanic/train.csv": "titanic",
        "hf:stanfordnlp/imdb": "imdb",
        "openml:Adult": "adult",
        "a.b:load": "load",
    }.items():
        assert name_of(source) == name
    with pytest.raises(WrongInput, match="--name"):
        name_of("???")
    write_csv("digits.csv", HEADER, patients())
    assert list(site_of(values_of("--dataset", "digits.csv")).datasets) == ["own_digits"]
    with pytest.raises(WrongInput, match="there is a data set named 'digits' already"):
        plan_of("--dataset", "digits.csv", "--name", "digits")
    assert plan_of("--dataset", "digits").tasks[0].name == "digits/cnn"
    for wrong in ("Upper", "a/b", "", "x" * 61, "a-b", "ü"):
        with pytest.raises(WrongInput, match="lower-case letters"):
            plan_of("--dataset", "digits.csv", "--name", wrong)


def test_what_a_study_needs_and_is_not_brought_says_how(tmp_path):
    with pytest.raises(
        WrongInput, match=r"no dataset named 'pets'.*on each worker too: --dataset PATH --name pets"
    ):
        resolve({"tasks": ["pets/mlp"]})
    with pytest.raises(
        WrongInput, match=r"no architecture named 'net'.*--architecture net=package.module:function"
    ):
        resolve({"tasks": ["digits/net"]})


@pytest.mark.parametrize(
    ("datasets", "why"),
    [
        (["a"], "wanted a mapping from names to sources"),
        ({"a": {}}, "wanted a mapping with the key 'source'"),
        ({"a": {"source": "a.csv", "labels": "x"}}, "no key of a data set named 'labels'"),
        ({"a": {"source": "a.csv", "image_size": 3}}, "from 4 to 1024"),
        ({"a": {"source": "a.csv", "input_columns": [1]}}, "wanted names such as"),
        ({"A": {"source": "a.csv"}}, "lower-case letters"),
    ],
)
def test_wrong_entries_of_a_plan_are_told(datasets, why):
    with pytest.raises(WrongInput, match=why):
        resolve({"datasets": datasets, "tasks": ["digits/mlp"]})


def test_small_data_get_a_recipe_with_enough_steps(module):
    write_csv("patients.csv", HEADER, patients())
    catalogue = Catalogue({"patients": "patients.csv"}, {}, None)
    recipe = catalogue.sized(Recipe(), "patients", "mlp", None)
    assert (recipe.batch_size, recipe.epochs) == (16, 60)  # 42 training examples
    assert catalogue.sized(Recipe(), "digits", "mlp", None) == Recipe()
    large = Examples(
        np.zeros((60_000, 1), np.float32), [row % 2 for row in range(60_000)], ["train"] * 60_000, "here"
    )
    catalogue.loaders["patients"].kept = source_of(large, drop_rare=False)
    assert catalogue.sized(Recipe(), "patients", "mlp", None) == Recipe()
    assert catalogue.suited("patients") == "mlp"


def test_openml_without_a_network_says_how_to_bring_the_file(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setenv("no_proxy", "")
    told = refused("openml:adult")
    assert "cannot be fetched" in told
    assert "--dataset adult.arff" in told


def test_a_file_of_openml(tmp_path):
    head = (
        "@relation pets\n@attribute weight numeric\n@attribute fur {long,short}\n"
        "@attribute class {cat,dog}\n@data\n"
    )
    lines = [
        f"{'?' if row == 5 else row / 4},{'?' if row == 6 else ('long', 'short')[row % 2]},"
        f"{('cat', 'dog')[row // 2 % 2]}"
        for row in range(80)
    ]
    (tmp_path / "pets.arff").write_text(head + "\n".join(lines))
    data = loaded("pets.arff")
    assert data.classes == ("cat", "dog")
    assert data.features[:2] == ("weight", "weight is missing")
    assert {"fur = long", "fur = short"} <= set(data.features)


def test_absolute_leaves_what_is_no_path(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    assert absolute("a.csv") == str(tmp_path / "a.csv")
    assert absolute("openml:adult") == "openml:adult"
    assert absolute("package.module:function") == "package.module:function"
    assert absolute("sub/m.py:net") == f"{tmp_path}/sub/m.py:net"


def test_columns_are_plain_values_and_back():
    columns = Columns("a.csv", "y", ("a", "b"), image_size=32, drop_rare_classes=True)
    assert Columns.of("a", columns.to_mapping()) == columns
    assert Columns("a.csv").to_mapping() == {"source": "a.csv"}
