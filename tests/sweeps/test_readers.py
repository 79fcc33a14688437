"""User-supplied data and networks: what is read of every kind of file, and what is refused."""

import csv
import gzip
import hashlib
import io
import json
import math
import sys
import wave
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from properties import EXAMPLES
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
def _surroundings(monkeypatch, tmp_path):
    """An empty working directory; the modules that a test imports are forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules, known = set(sys.modules), (dict(DATASETS), dict(ARCHITECTURES))
    yield
    assert known == (DATASETS, ARCHITECTURES)
    for name in set(sys.modules) - modules:
        if name.startswith("supplied_"):
            del sys.modules[name]


def values_of(line):
    """The settings of a command line."""
    options = vars(parser().parse_args(line.split()))
    return {**supplied(options), **options, "data_dir": None}


def plan_of(line):
    """The plan of a command line."""
    return resolve(values_of(line))


def data_of(task):
    """The data set of a task."""
    return load(task.dataset, loader=task.loader)


def loaded(line):
    """The data set that a command line supplies."""
    return data_of(plan_of(f"--dataset {line}").tasks[0])


def refused(line):
    """Why a command line is refused."""
    with pytest.raises(WrongInput) as caught:
        loaded(line)
    return str(caught.value)


def rows(data):
    """All inputs and labels, split by split."""
    return (torch.cat([getattr(data.splits[name], part) for name in SPLITS]) for part in ("inputs", "labels"))


def sizes(data):
    """Examples of each split."""
    return tuple(len(data.splits[name].labels) for name in SPLITS)


def write_csv(path, header, lines):
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows([header.split(","), *lines])


def patients(path="patients.csv", header="patient_id,age,colour,remarks,class", n=120):
    """Write a table with all that a table may have, and return its rows."""
    draw = np.random.default_rng(3)
    ages, colours = draw.integers(20, 80, n), draw.choice(["red", "green", "blue"], n, p=[0.5, 0.3, 0.2])
    sick = np.where((ages > 50) ^ (draw.random(n) < 0.1), "yes", "no")
    lines = [
        [f"P{row:04d}", age if row % 10 else "", colour, f"seen on ward {row} today", label]
        for row, (age, colour, label) in enumerate(
            zip(ages.tolist(), colours.tolist(), sick.tolist(), strict=True)
        )
    ]
    write_csv(path, header, lines)
    return lines


FORMATS = {
    "t.csv": ",;|",
    "t.tsv": "\t",
    "t.csv.gz": ";,",
    "t.tsv.gz": "\t",
    "t.parquet": " ",
    "t.jsonl": " ",
}
PART = ("train", "train", "dev", "test")


def write_table(name, mark, encoding, columns):
    """A table in the format of its name."""
    table = pyarrow.table(columns)
    if name == "t.parquet":
        return parquet.write_table(table, name)
    if name == "t.jsonl":
        return Path(name).write_text("\n".join(map(json.dumps, table.to_pylist())))
    lines = [columns, *zip(*(column.to_pylist() for column in table.columns), strict=True)]
    raw = "\n".join(mark.join(map(str, line)) for line in lines).encode(encoding)
    return Path(name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)


@EXAMPLES
@given(
    st.sampled_from([(name, mark) for name, marks in FORMATS.items() for mark in marks]),
    st.sampled_from(["utf-8", "utf-8-sig", "latin-1"]),
    st.sampled_from(["int16", "int64", "float32", "float64"]),
    st.sampled_from([("groß", "klein"), (5, 6, 7), ("10", "9"), (False, True), ("a b", "c", "d, e")]),
    st.booleans(),
    st.integers(100, 140),
)
def test_a_table_is_read_back_as_it_was_written(form, encoding, dtype, classes, parted, count):
    """Inputs, labels and splits of each row, in every format, separator, encoding and type of number."""
    (name, mark), places = form, np.arange(count)
    mark = ";" if mark == "," and "d, e" in classes else mark
    numbers = (places if "int" in dtype else places / 7).astype(dtype)
    labels, colours = (
        [classes[row % len(classes)] for row in places],
        [("grün", "rot")[row % 2] for row in places],
    )
    columns = {"größe": numbers, "colour": colours, "label": labels}
    columns |= {"fold": [PART[row // 3 % 4] for row in places]} if parted else {}
    write_table(name, mark, encoding, columns)
    data = loaded(name)
    assert data.name == name_of(name)
    assert data.features == ("größe", "colour = grün", "colour = rot")
    assert set(data.classes) == {str(one).lower() for one in classes}
    seen = []
    for split in data.splits.values():
        own = [int(np.abs(numbers - value).argmin()) for value in split.inputs[:, 0].tolist()]
        assert split.inputs[:, 0].tolist() == numbers[own].astype(np.float32).tolist()
        assert [data.classes[label] for label in split.labels] == [str(labels[row]).lower() for row in own]
        assert split.inputs[:, 2].tolist() == [row % 2 for row in own]
        seen += own
    assert sorted(seen) == places.tolist()
    assert not parted or {PART[row // 3 % 4] for row in own} == {"test"}
    assert parted == ("'fold' divides the examples" in " ".join(data.notes))


def test_gaps_are_filled_from_train_and_each_guess_is_noted():
    lines = patients()
    data = loaded("patients.csv")
    assert (data.name, data.classes) == ("patients", ("no", "yes"))
    assert data.features == ("age", "age is missing", "colour = blue", "colour = green", "colour = red")
    inputs, labels = rows(data)
    train = data.splits["train"].inputs
    filled = inputs[inputs[:, 1] == 1, 0]
    assert len(filled) == 12
    assert set(filled.tolist()) == {float(np.median(train[train[:, 1] == 0, 0]))}
    expected = sorted((float(line[1] or filled[0]), line[2], line[4]) for line in lines)
    colour = [("blue", "green", "red")[int(place)] for place in inputs[:, 2:].argmax(1)]
    found = zip(inputs[:, 0].tolist(), colour, [data.classes[label] for label in labels], strict=True)
    assert sorted(found) == expected
    notes = " / ".join(data.notes)
    for sentence in ("the label is the column 'class'", "the inputs are age, colour", "age (12)"):
        assert sentence in notes
    assert "patient_id (all values differ" in notes
    assert "remarks (free text" in notes


def test_columns_can_be_named():
    patients()
    data = loaded("patients.csv --label-column colour --input-columns age,class --name colours")
    assert (data.name, data.classes) == ("colours", ("blue", "green", "red"))
    assert data.features == ("age", "age is missing", "class = no", "class = yes")
    assert "there is no column" not in " ".join(data.notes)
    wrong = "--label-column: no column named 'colours'. Did you mean 'colour'"
    assert wrong in refused("patients.csv --label-column colours")
    assert "it is the label or the split" in refused(
        "patients.csv --label-column class --input-columns class"
    )
    patients("patients.csv", "patient_id,age,colour,remarks,Ergebnis")
    error = refused("patients.csv")
    for part in ("--label-column NAME", "age (int64, ", "Ergebnis (string, 2 different values)"):
        assert part in error


@pytest.mark.parametrize(
    ("header", "line", "flags", "messages"),
    [
        (
            "x,y",
            lambda row: (row, math.sin(row)),
            "",
            ("180 different values among 180 examples", "a regression"),
        ),
        ("x,y", lambda row: (row, f"name {row}"), "", ("those are no classes",)),
        ("x,y", lambda row: (row, "same"), "", ("all 180 labels of t.csv are 'same'",)),
        (
            "height,y",
            lambda row: ("inf" if row == 17 else row, row % 2),
            "",
            ("the column 'height' has 1 values that are infinite or above 3e38, the first in row 17",),
        ),
        ("x,y", lambda row: (row, row % 2), "--split-column x", ("has the values 0, 1, 10, 100",)),
        (
            "first,second,label",
            lambda row: (f"the cat {row}", f"a dog, not {row}", row % 2),
            "",
            ("several columns of texts",),
        ),
    ],
)
def test_tables_that_cannot_be_used_are_refused(header, line, flags, messages):
    write_csv("t.csv", header, map(line, range(180)))
    error = refused(f"t.csv {flags}")
    for message in messages:
        assert message in error


def test_examples_without_a_label_are_left_out_and_counted():
    write_csv("a.csv", "x,y", [[row, "" if row % 9 == 0 else row % 3 + 5] for row in range(180)])
    data = loaded("a.csv")
    assert data.classes == ("5", "6", "7")
    assert "20 of 180 examples have no label and are left out (20 of train)" in data.notes
    assert sum(sizes(data)) == 160


def test_dates_as_numbers_keep_their_differences():
    write_csv("a.csv", "seconds,y", [[1_700_000_000 + row, row % 2] for row in range(60)])
    inputs, _ = rows(loaded("a.csv"))
    assert len(set(inputs[:, 0].tolist())) == 60


def test_rare_classes_are_refused_by_name_or_left_out():
    names = [f"class {row % 4}" for row in range(200)] + ["a rare one"] * 3 + ["class 1 alone"]
    write_csv("rare.csv", "x,label", enumerate(names))
    error = refused("rare.csv")
    for part in ("2 of 6 classes", "'a rare one' (3), 'class 1 alone' (1)", "--drop-rare-classes"):
        assert part in error
    data = loaded("rare.csv --drop-rare-classes")
    assert data.classes == ("class 0", "class 1", "class 2", "class 3")
    inputs, labels = rows(data)
    assert len(labels) == 200
    assert (inputs[:, 0] % 4 == labels).all()


def test_small_classes_with_a_test_of_their_own_get_larger_parts_to_select_on():
    numbers, parts = np.arange(540, dtype=np.float32)[:, None], ["train"] * 360 + ["test"] * 180
    source = source_of(Examples(numbers, [row % 18 for row in range(540)], parts, "here"), drop_rare=False)
    assert (source.validation, source.test) == (108, 180)
    assert "classes are small: 30%" in source.notes[0]
    assert (source.inputs[:, 0] % 18 == source.labels).all()
    assert (source.inputs[-180:, 0] >= 360).all()


def test_texts_become_tokens_and_get_a_network_for_them():
    topics, draw = ["storm", "goal", "bank", "vote", "song"], np.random.default_rng(5)
    texts = [
        " ".join([*draw.choice(["the", "a", "of", "in", "and"], 9), topics[row % 5], f"no {row}"])
        for row in range(400)
    ]
    write_csv("news.csv", "no,text,topic", [[row, text, topics[row % 5]] for row, text in enumerate(texts)])
    plan = plan_of("--dataset news.csv --label-column topic")
    assert [task.name for task in plan.tasks] == ["news/text_cnn"]
    data = data_of(plan.tasks[0])
    assert set(topics) <= set(data.vocabulary)
    assert sorted(text for split in data.splits.values() for text in split.shown) == sorted(texts)
    pairs = [[f"the cat {row}", f"a dog, not {row}", row % 2] for row in range(100)]
    write_csv("pairs.csv", "first,second,label", pairs)
    shown = loaded("pairs.csv --input-columns first,second").splits["train"].shown
    assert all(" | a dog, not " in text for text in shown)


# ---- Images


def picture(row, size=(9, 7), mode="RGB"):
    """An image whose pixels have the number of its row."""
    return Image.new("RGB", size, (row % 256, 40, 200)).convert(mode)


def write_pictures(folder, per_class=16, labels=("cat", "dog", "newt"), image=picture, **of_test):
    for part, count in {"train" if of_test else ".": per_class, **of_test}.items():
        for label in labels:
            (place := Path(folder, part, label)).mkdir(parents=True)
            for row in range(count):
                image(row).save(place / f"{row}.png")
    return Path(folder)


def test_a_folder_of_images_by_class_is_read():
    pets = write_pictures("pets")
    (pets / ".DS_Store").write_bytes(b"x")
    (pets / "README").write_text("x")
    plan = plan_of("--dataset pets")
    assert [task.name for task in plan.tasks] == ["pets/cnn"]
    data = data_of(plan.tasks[0])
    assert (data.classes, data.shape) == (("cat", "dog", "newt"), (3, 7, 9))
    inputs, _ = rows(data)
    assert sorted(inputs[:, 0, 3, 3].tolist()) == sorted([*range(16)] * 3)
    assert (inputs[:, 2] == 200).all()
    assert "1 files of other kinds are left out" in data.notes
    write_pictures("parted", 20, val=10, test=8)
    assert sizes(loaded("parted")) == (60, 15, 15, 24)


def test_images_of_all_kinds_come_to_one():
    pets = write_pictures("pets")
    picture(3, (18, 14)).save(pets / "cat" / "large.jpg")
    picture(3, mode="P").save(pets / "cat" / "palette.gif")
    Image.new("RGBA", (9, 7), (0, 0, 0, 0)).save(pets / "dog" / "clear.png")
    Image.fromarray(np.full((7, 9), 40_000, np.uint16)).save(pets / "dog" / "deep.png")
    turned, exif = picture(3, (7, 9)), Image.Exif()
    turned.paste((250, 250, 250), (0, 5, 7, 9))  # at its foot, which is left once the image is turned upright
    exif[0x0112] = 6
    turned.save(pets / "dog" / "turned.jpg", exif=exif)
    data = loaded("pets")
    assert data.shape == (3, 7, 9)
    assert "images have 2 sizes, most often 9×7 pixels: 1 of 53 are scaled" in " ".join(data.notes)
    inputs, labels = rows(data)
    dogs = inputs[labels == 1]
    assert (dogs == 255).flatten(1).all(1).sum() == 1  # what is transparent is white
    assert (dogs == 40_000 >> 8).flatten(1).all(1).sum() == 1
    assert [1] * 4 + [0] * 5 in (dogs.float().mean((1, 2)) > 150).int().tolist()
    assert loaded("pets --image-size 12").shape == (3, 12, 12)


def test_grey_images_have_one_channel_and_large_ones_of_many_sizes_become_small():
    write_pictures("scans", 20, "ab", lambda row: picture(row, (120 + row % 2, 130), "L"))
    data = loaded("scans")
    assert data.shape == (1, 64, 64)
    assert "scaled and cropped to 64×64; other sizes: --image-size N" in " ".join(data.notes)


def test_broken_images_are_named():
    pets = write_pictures("pets")
    (pets / "cat" / "cut.png").write_bytes((pets / "cat" / "1.png").read_bytes()[:-30])
    (pets / "dog" / "page.jpg").write_text("<html>404</html>")
    error = refused("pets")
    assert error.startswith("1 of 50 images of pets cannot be read")  # before any is decoded
    assert "dog/page.jpg: no image" in error
    (pets / "dog" / "page.jpg").unlink()
    assert "cat/cut.png: " in refused("pets")


def test_each_of_100_classes_of_50_images_is_in_every_split():
    pixels = np.random.default_rng(0).integers(0, 256, (5000, 6, 6), np.uint8)
    np.savez("many.npz", images=pixels, labels=[f"kind {row % 100}" for row in range(5000)])
    data = loaded("many.npz")
    assert len(data.classes) == 100
    assert data.classes[:3] == ("kind 0", "kind 1", "kind 10")
    assert min(int(torch.bincount(split.labels, minlength=100).min()) for split in data.splits.values()) >= 7


# ---- Parquet, arrays, sound


def packed(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def write_parquet(path, count, names, first=0):
    features = {"label": {"names": names, "_type": "ClassLabel"}, "img": {"_type": "Image"}}
    images = [{"bytes": packed(picture(first + row)), "path": None} for row in range(count)]
    labels = [-1 if row == 7 else row % 3 for row in range(count)]
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(
        pyarrow.table({"img": images, "label": labels}).replace_schema_metadata(metadata), path
    )


def test_the_layout_of_hugging_face_is_read():
    names, birds = ["tit", "owl", "auk", "emu"], Path("birds/data")
    for part, count, first in (
        ("train-00000-of-00002", 60, 0),
        ("train-00001-of-00002", 40, 60),
        ("test-0", 30, 100),
    ):
        write_parquet(birds / f"{part}.parquet", count, names, first)
    data = loaded("birds")
    assert data.classes == ("tit", "owl", "auk")  # there is no emu
    assert data.shape == (3, 7, 9)
    test, left = data.splits["test"], [row for row in range(30) if row != 7]
    assert test.inputs[:, 0, 0, 0].tolist() == [100 + row for row in left]
    assert test.labels.tolist() == [row % 3 for row in left]
    assert "3 of 130 examples have no label and are left out (2 of train, 1 of test)" in data.notes
    write_parquet(Path("birds/other/train-0.parquet"), 60, ["a", "b", "c"])
    assert "has tables in several folders" in refused("birds")


def test_lists_in_a_table_are_arrays():
    values = np.random.default_rng(2).normal(size=(60, 4, 3)).astype(np.float32)
    labels = [row % 2 for row in range(60)]
    parquet.write_table(pyarrow.table({"signal": values.tolist(), "label": labels}), "signals.parquet")
    plan = plan_of("--dataset signals.parquet")
    assert [task.name for task in plan.tasks] == ["signals/mlp"]
    inputs, found = rows(data_of(plan.tasks[0]))
    assert sorted(inputs[found == 1].flatten().tolist()) == pytest.approx(
        sorted(values[1::2].ravel().tolist())
    )
    ragged = pyarrow.table({"signal": [[0.0] * (1 + label) for label in labels], "label": labels})
    parquet.write_table(ragged, "ragged.parquet")
    assert "different lengths (1, 2)" in refused("ragged.parquet")


def test_arrays_are_found_by_their_usual_names():
    draw = np.random.default_rng(4)
    pixels, labels = draw.integers(0, 256, (90, 6, 5, 3), np.uint8), draw.permutation(np.arange(90) % 2)
    train = {"train_images": pixels[:60], "train_labels": labels[:60, None]}
    np.savez("a.npz", **train, test_images=pixels[60:], test_labels=labels[60:, None])
    data = loaded("a.npz")
    assert data.shape == (3, 6, 5)
    assert torch.equal(data.splits["test"].inputs, torch.from_numpy(pixels[60:]).permute(0, 3, 1, 2))
    assert data.splits["test"].labels.tolist() == labels[60:].tolist()
    one_hot = np.eye(3, dtype=int)[np.arange(90) % 3]
    np.savez("b.npz", X=draw.normal(size=(90, 5)), y=0.7 * one_hot + 0.1)
    test = loaded("b.npz").splits["test"]
    torch.testing.assert_close(test.human.argmax(1), test.labels)
    assert float(test.human.max()) == pytest.approx(0.8)
    np.savez("c.npz", X=draw.normal(size=(90, 5)), Y=one_hot)
    assert loaded("c.npz").splits["train"].human is None


ZEROS, WHICH = (
    np.zeros((9, 2)),
    "which arrays of x.npz are inputs and labels? It has a (9, 2) float64, b (9,) float64",
)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": ZEROS, "b": np.zeros(9)}, WHICH),
        ({"x": ZEROS, "y": np.zeros(8)}, "9 inputs in 'x' and 8 labels in 'y'"),
        (
            {"x": ZEROS + np.nan, "y": np.arange(9) % 2},
            "18 numbers that are NaN or infinite, the first in row 0",
        ),
        ({"x": np.array([{"a": 1}] * 9, object), "y": np.arange(9)}, "holds Python objects"),
        ({"x": ZEROS, "y": np.full((9, 4), 0.3)}, "no distributions over classes"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(arrays, message):
    np.savez("x.npz", **arrays)
    assert message in refused("x.npz")


def test_no_pickle_is_loaded(tmp_path):
    class Planted:
        def __reduce__(self):
            return (open, (str(tmp_path / "was run"), "w"))

    np.savez("x.npz", x=np.array([Planted()] * 4, object), y=np.arange(4) % 2)
    refused("x.npz")
    assert not (tmp_path / "was run").exists()


def test_recordings_become_spectrograms():
    for label, hertz in (("low", 300), ("high", 2500)):
        Path("tones", label).mkdir(parents=True)
        for row in range(16):
            samples = np.sin(2 * np.pi * hertz * np.arange(4000 + 20 * row) / 8000) * 2**14
            with wave.open(f"tones/{label}/{row}.wav", "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes(samples.astype("<i2").tobytes())
    data = loaded("tones")
    inputs, labels = rows(data)
    assert inputs.shape[1:3] == (1, 32)
    low, high = (inputs[labels == data.classes.index(name), 0, :, 5].argmax(1) for name in ("low", "high"))
    assert low.max() < high.min()
    Path("tones/low/x.wav").write_bytes(b"RIFF....")
    assert "low/x.wav" in refused("tones")


# ---- Functions


CODE = """
import numpy as np, torch
from torch import nn
from sweeps.models.registry import architecture
from sweeps.data.load import RawData
from sweeps.task import Recipe

X = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)

def pair(): return X, Y
def mapping(data_dir):
    return {"x_train": torch.tensor(X[:60]), "y_train": Y[:60], "x_test": X[60:], "y_test": Y[60:]}
def source(): return RawData(X, Y, ("no", "yes"), 20, "here")
def high(): return RawData(X, Y + 1, ("no", "yes"), 20, "here")
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
MODULE = "supplied_code"


@pytest.fixture(autouse=True)
def _module(_surroundings):
    Path(f"{MODULE}.py").write_text(CODE)


@pytest.mark.parametrize("function", ["pair", "mapping", "source", "dataset"])
def test_a_function_may_return_examples_in_any_usual_form(function):
    data = loaded(f"{MODULE}:{function}")
    assert data.name == function
    inputs, labels = rows(data)
    assert ((inputs[:, 0] > 0) == labels.bool()).all()
    assert sizes(data)[-1] == (20 if function in ("mapping", "source") else 29)


HAS = f"{MODULE} has nothing of that name; wanted a function or a class. It has: Net, dataset"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (f"{MODULE}:number", "returned int; wanted RawData, a pair (inputs, labels)"),
        (f"{MODULE}:high", "returned labels from 1 to 2 and 2 classes; wanted labels from 0 to 1"),
        (f"{MODULE}:value", f"{MODULE} has a int; wanted a function"),
        (f"{MODULE}:pear", HAS),
        ("supplied_nowhere:load", "there is no module 'supplied_nowhere'"),
        ("nowhere.csv", "there is no data set 'nowhere.csv': no such file or folder"),
        ("supplied_needs:load", "needs no_such_package, which is not installed"),
        ("notes.docx", "of an unknown kind; wanted a folder of images"),
        ("empty", "has 0 files, none of a known kind"),
    ],
)
def test_sources_that_cannot_be_used_are_refused(spec, message):
    Path("supplied_needs.py").write_text("import no_such_package\n")
    Path("notes.docx").write_text("x")
    Path("empty").mkdir()
    assert message in refused(spec)


def test_a_file_elsewhere_can_be_given(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert loaded(f"../{MODULE}.py:pair").name == "pair"


def built(function, classes=2, dataset="digits", **tokens):
    (task,) = plan_of(f"{dataset}/net --architecture net={MODULE}:{function}").tasks
    assert task.network.reads_tokens == (dataset == "trec")
    return task.network.build((6,), classes, **tokens)


def test_architectures_are_called_by_the_names_of_their_parameters():
    assert built("net", classes=5).out_features == 5
    assert built("Net", classes=4).out_features == 4
    assert built("tokens", classes=4, dataset="trec", vocabulary=30)[0].num_embeddings == 30
    for function, message in (
        ("strange", "unknown parameters depth. Wanted a function (shape, classes)"),
        ("nothing", "returned NoneType; wanted a torch.nn.Module"),
    ):
        with pytest.raises(WrongInput) as caught:
            built(function)
        assert message in str(caught.value)


def test_a_decorated_architecture_has_its_recipe_and_does_not_take_the_place_of_ours():
    ours = ARCHITECTURES["mlp"]
    plan = plan_of(f"--architecture {MODULE}:mlp")
    assert [task.name for task in plan.tasks] == ["digits/own_mlp"]
    assert plan.tasks[0].recipe.epochs == 3
    assert ARCHITECTURES["mlp"] is ours


# ---- Plans and workers


def test_a_plan_with_user_supplied_data_and_networks_is_repeated_by_its_yaml():
    patients()
    flags = "--dataset patients.csv --label-column class --input-columns age --drop-rare-classes"
    values = values_of(f"{flags} --architecture {MODULE}:net --architecture mlp")
    plan, site = resolve(values), site_of(values)
    assert [task.name for task in plan.tasks] == ["patients/net", "patients/mlp"]
    Path("plan.yaml").write_text(to_yaml(plan, site))
    again = resolve(read_yaml("plan.yaml"))
    assert (again, site_of(read_yaml("plan.yaml"))) == (plan, site)
    digest = data_of(again.tasks[0]).digest
    assert again.science(again.tasks[0], digest) == plan.science(plan.tasks[0], digest)
    expected = hashlib.sha256(Path(f"{MODULE}.py").read_bytes()).hexdigest()[:8]
    assert plan.science(plan.tasks[0], "d")["code"] == expected
    ours = resolve({"tasks": ["digits/mlp"]})
    assert "code" not in ours.science(ours.tasks[0], "d")


def test_the_command_of_a_worker_supplies_the_same(tmp_path, monkeypatch):
    from sweeps.cli.worker import parser as of_worker

    patients()
    flags = "--dataset patients.csv --input-columns age,colour --name p"
    values = values_of(f"{flags} --architecture {MODULE}:net")
    plan, site = resolve(values), site_of(values)
    here = data_of(plan.tasks[0]).digest
    given = vars(of_worker().parse_args(words(site.datasets, site.architectures, "p/net")))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    own = supplied(
        {key: given[key] for key in ("dataset", "name", "input_columns", "architecture") if key in given}
    )
    again = resolve({**own, "tasks": ["p/net"]})
    assert data_of(again.tasks[0]).digest == here
    assert again.tasks == plan.tasks
    assert words(site.datasets, site.architectures, "digits/mlp") == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("My Pets (2024)", "my_pets_2024"),
        ("titanic/train.csv", "titanic"),
        ("hf:stanfordnlp/imdb", "imdb"),
        ("openml:Adult", "adult"),
        ("a.b:load", "load"),
    ],
)
def test_a_name_is_made_of_its_source(source, name):
    Path("My Pets (2024)").mkdir()
    Path("titanic").mkdir()
    Path("titanic/train.csv").write_text("x")
    assert name_of(source) == name


def test_a_name_that_is_taken_or_malformed_is_refused():
    with pytest.raises(WrongInput, match="--name"):
        name_of("???")
    patients("digits.csv")
    assert list(site_of(values_of("--dataset digits.csv")).datasets) == ["own_digits"]
    with pytest.raises(WrongInput, match="there is a data set named 'digits' already"):
        plan_of("--dataset digits.csv --name digits")
    assert plan_of("--dataset digits").tasks[0].name == "digits/cnn"
    for wrong in ("Upper", "a/b", "", "x" * 61, "a-b", "ü"):
        with pytest.raises(WrongInput, match="lower-case letters"):
            plan_of(f"--dataset digits.csv --name={wrong}")


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        (["a"], "wanted a mapping from names to sources"),
        ({"a": {}}, "wanted a mapping with the key 'source'"),
        ({"a": {"source": "a.csv", "labels": "x"}}, "no key of a data set named 'labels'"),
        ({"a": {"source": "a.csv", "image_size": 3}}, "from 4 to 1024"),
        ({"a": {"source": "a.csv", "input_columns": [1]}}, "wanted names such as"),
        ({"A": {"source": "a.csv"}}, "lower-case letters"),
    ],
)
def test_wrong_entries_of_a_plan_are_refused(datasets, message):
    with pytest.raises(WrongInput, match=message):
        resolve({"datasets": datasets, "tasks": ["digits/mlp"]})


def test_an_unknown_name_of_a_study_is_refused_with_the_flag_to_give():
    for task, message in (
        ("pets/mlp", r"no dataset named 'pets'.*on each worker too: --dataset PATH --name pets"),
        ("digits/net", r"no architecture named 'net'.*--architecture net=package.module:function"),
    ):
        with pytest.raises(WrongInput, match=message):
            resolve({"tasks": [task]})


def test_small_data_get_a_recipe_with_enough_steps():
    patients()
    catalogue = Catalogue({"patients": "patients.csv"}, {}, None)
    recipe = catalogue.sized(Recipe(), "patients", "mlp", None)
    assert (recipe.batch_size, recipe.epochs) == (16, 60)  # 42 training examples
    assert catalogue.sized(Recipe(), "digits", "mlp", None) == Recipe()
    labels = [row % 2 for row in range(60_000)]
    large = Examples(np.zeros((60_000, 1), np.float32), labels, ["train"] * 60_000, "here")
    catalogue.loaders["patients"].kept = source_of(large, drop_rare=False)
    assert catalogue.sized(Recipe(), "patients", "mlp", None) == Recipe()
    assert catalogue.suited("patients") == "mlp"


def test_openml_without_a_network_is_refused_with_the_way_to_supply_the_file(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing answers there
    monkeypatch.setenv("no_proxy", "")
    error = refused("openml:adult")
    assert "cannot be fetched" in error
    assert "--dataset adult.arff" in error


def test_a_file_of_openml_is_read():
    head = (
        "@relation pets\n@attribute weight numeric\n@attribute fur {long,short}\n@attribute class {cat,dog}"
    )
    furs = ["?" if row == 6 else ("long", "short")[row % 2] for row in range(80)]
    lines = [
        f"{'?' if row == 5 else row / 4},{furs[row]},{('cat', 'dog')[row // 2 % 2]}" for row in range(80)
    ]
    Path("pets.arff").write_text("\n".join([head, "@data", *lines]))
    data = loaded("pets.arff")
    assert data.classes == ("cat", "dog")
    assert data.features[:2] == ("weight", "weight is missing")
    assert {"fur = long", "fur = short"} <= set(data.features)


def test_absolute_changes_paths_alone(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    assert absolute("a.csv") == str(tmp_path / "a.csv")
    assert absolute("sub/m.py:net") == f"{tmp_path}/sub/m.py:net"
    for spec in ("openml:adult", "package.module:function"):
        assert absolute(spec) == spec


NAMES = st.text(min_size=1).filter(str.strip).map(str.strip)


@EXAMPLES
@given(NAMES, st.text(), st.lists(NAMES), st.text(), st.sampled_from([0, 4, 1024]), st.booleans())
def test_columns_are_plain_values_and_back(source, label, inputs, split, size, drop):
    columns = Columns(source, label, tuple(inputs), split, size, drop)
    assert Columns.of("a", columns.to_mapping()) == columns
