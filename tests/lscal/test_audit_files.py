"""Saved predictions: every format reads the same, and a bad file is refused with its row."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv, parquet
from safetensors.torch import save_file

from lscal.audit.files import WrongFile, read, same_examples

N, K = 7, 3
RNG = np.random.default_rng(3)
LOGITS = (2 * RNG.normal(size=(N, K)) + 0.3).astype(np.float32)
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
LABELS = np.array([2, 0, 1, 1, 0, 2, 1])
SHARES = np.array(
    [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [1, 0, 0], [0, 0.5, 0.5], [0.3, 0.3, 0.4], [0, 0, 1], [0.6, 0.4, 0]]
)


def numbered(stem, values):
    return {f"{stem}_{k}": values[:, k] for k in range(values.shape[1])}


def lists(values):
    return pa.array(list(values))


def write(path, **columns):
    """Write arrays or columns in the format of the path."""
    if path.suffix == ".npz":
        np.savez(path, **columns)
    elif path.suffix == ".safetensors":
        save_file({name: torch.as_tensor(values) for name, values in columns.items()}, path)
    elif path.suffix == ".parquet":
        parquet.write_table(pa.table(columns), path)
    else:
        csv.write_csv(pa.table(columns), path)
    return path


LAYOUTS = {
    "npz": ("p.npz", lambda name, values: {name: values}, "labels"),
    "safetensors": ("p.safetensors", lambda name, values: {name: values}, "labels"),
    "parquet, numbered": (
        "p.parquet",
        lambda name, values: numbered({"logits": "logit", "probabilities": "probability"}[name], values),
        "label",
    ),
    "parquet, lists": ("p.parquet", lambda name, values: {name: lists(values)}, "label"),
    "csv": (
        "p.csv",
        lambda name, values: numbered({"logits": "logit", "probabilities": "probability"}[name], values),
        "label",
    ),
}


@pytest.mark.parametrize("name", ["logits", "probabilities"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_format_holds_the_same(tmp_path: Path, layout: str, name: str):
    file, columns, label = LAYOUTS[layout]
    values = {"logits": LOGITS, "probabilities": PROBABILITIES}[name]
    saved = read(write(tmp_path / file, other=np.arange(N), **columns(name, values), **{label: LABELS}))
    assert saved.predictions.kind == name
    assert saved.predictions.scores.shape == (N, K)
    assert np.array_equal(saved.predictions.scores.to(torch.float32).numpy(), values)
    assert saved.predictions.labels.tolist() == LABELS.tolist()
    assert (saved.members, saved.classes, saved.epsilon) == ((), (), None)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_label_distributions_in_every_format(tmp_path: Path, layout: str):
    file, columns, label = LAYOUTS[layout]
    shares = (
        {"labels": SHARES}
        if label == "labels"
        else {"label": lists(SHARES)}
        if "lists" in layout
        else numbered("label", SHARES)
    )
    saved = read(write(tmp_path / file, **columns("logits", LOGITS), **shares))
    assert saved.predictions.distribution is not None
    assert np.array_equal(saved.predictions.distribution.numpy(), SHARES)


def test_more_than_ten_numbered_columns_keep_their_order(tmp_path: Path):
    wide = RNG.normal(size=(4, 12))
    columns = dict(reversed(numbered("logit", wide).items()))
    saved = read(write(tmp_path / "p.parquet", **columns, label=np.array([11, 0, 3, 10])))
    assert np.array_equal(saved.predictions.scores.numpy(), wide)


def test_a_file_of_a_sweep_holds_its_seeds(tmp_path: Path):
    both = np.stack([LOGITS, LOGITS[::-1]])
    path = tmp_path / "test.npz"
    named = {
        "seeds": np.array([10, 11]),
        "classes": np.array(["a", "b", "<c>"]),
        "epsilon": np.array(0.1),
        "temperature": np.ones(2),
    }
    np.savez(path, logits=both, labels=LABELS, **named)
    saved = read(path)
    assert saved.predictions.member == (2,)
    assert saved.members == ("10", "11")
    assert saved.classes == ("a", "b", "<c>")
    assert saved.epsilon == pytest.approx(0.1)
    one = read(path, member=1)
    assert one.members == ()
    assert np.array_equal(one.predictions.scores.numpy(), both[1])


def test_a_single_model_may_have_a_dimension_for_models(tmp_path: Path):
    saved = read(write(tmp_path / "p.safetensors", logits=LOGITS[None].copy(), labels=LABELS))
    assert saved.predictions.member == ()
    assert np.array_equal(saved.predictions.scores.numpy(), LOGITS)


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", "<i2"])
def test_any_real_numbers_of_an_array(tmp_path: Path, dtype: str):
    values = (4 * LOGITS).astype(dtype)
    saved = read(write(tmp_path / "p.npz", logits=values, labels=LABELS.astype("u1")))
    assert np.array_equal(saved.predictions.scores.double().numpy(), values.astype(float))
    assert saved.predictions.labels.tolist() == LABELS.tolist()


def test_brain_floats_of_safetensors(tmp_path: Path):
    values = torch.as_tensor(LOGITS).bfloat16()
    saved = read(write(tmp_path / "p.safetensors", logits=values, labels=LABELS))
    assert torch.equal(saved.predictions.scores, values)


def test_whole_floats_are_labels(tmp_path: Path):
    (tmp_path / "p.csv").write_text("label,logit_0,logit_1\n1.0,0.5,-inf\n\n0,2,3e-1\n")
    saved = read(tmp_path / "p.csv")
    assert saved.predictions.labels.tolist() == [1, 0]
    assert saved.predictions.scores.tolist() == [[0.5, -np.inf], [2, 0.3]]


def test_ignored_rows_may_hold_anything(tmp_path: Path):
    labels, logits = LABELS.copy(), LOGITS.copy()
    labels[[1, 4]], logits[1] = -100, np.nan
    saved = read(write(tmp_path / "p.npz", logits=logits, labels=labels), ignore_index=-100)
    assert saved.predictions.labels.tolist() == [2, 1, 1, 2, 1]


def test_the_kind_is_chosen_where_a_file_holds_both(tmp_path: Path):
    path = write(tmp_path / "p.npz", logits=LOGITS, probabilities=PROBABILITIES, labels=LABELS)
    with pytest.raises(WrongFile, match=re.escape("holds both logits and probabilities; choose with --kind")):
        read(path)
    assert read(path, kind="probabilities").predictions.kind == "probabilities"
    assert read(path, kind="logits").predictions.kind == "logits"


def with_value(values, row, k, value):
    changed = values.astype(np.float64)
    changed[row, k] = value
    return changed


def with_label(row, label):
    changed = LABELS.copy()
    changed[row] = label
    return changed


MODELS = np.stack([LOGITS, LOGITS])
ARRAYS = {
    "nan": (
        {"logits": with_value(LOGITS, 4, 2, np.nan)},
        "row 4 (rows count from 0): array logits, class 2 is nan",
    ),
    "inf": (
        {"logits": with_value(LOGITS, 6, 0, np.inf)},
        "row 6 (rows count from 0): array logits, class 0 is inf",
    ),
    "nan in a model": (
        {"logits": np.stack([LOGITS, with_value(LOGITS, 3, 1, np.nan)])},
        "row 3 (rows count from 0), model 1: array logits, class 1",
    ),
    "no class possible": (
        {"logits": np.where(np.arange(N)[:, None] == 5, -np.inf, LOGITS)},
        "row 5 (rows count from 0): every logit is -inf",
    ),
    "label too high": (
        {"labels": with_label(3, 12)},
        "row 3 (rows count from 0): array labels is 12; allowed are 0 to 2",
    ),
    "label below 0": (
        {"labels": with_label(2, -100)},
        (
            "row 2 (rows count from 0): array labels is -100; allowed are 0 to 2. Do rows with this label not"
            " count? Then add --ignore-index -100"
        ),
    ),
    "label no whole number": (
        {"labels": LABELS + np.where(np.arange(N) == 5, 0.5, 0)},
        "row 5 (rows count from 0): array labels is 2.5; wanted whole numbers",
    ),
    "labels are words": ({"labels": np.array(list("abcabca"))}, "array labels holds <U1; wanted numbers"),
    "shares": (
        {"labels": with_value(SHARES, 3, 0, 0.5)},
        "row 3 (rows count from 0): array labels add up to 1.5",
    ),
    "share below 0": (
        {"labels": SHARES + np.where(np.arange(N) == 2, 1.0, 0.0)[:, None] * np.array([0.5, -0.5, 0])},
        "row 2 (rows count from 0): array labels add up to 1, the least is -0.5",
    ),
    "too few labels": ({"labels": LABELS[:-1]}, "array logits has shape (7, 3) and array labels (6,)"),
    "one logit": ({"logits": LOGITS[:, :1]}, "A single logit z is the two logits 0 and z"),
    "one dimension": ({"logits": LOGITS[:, 0]}, "array logits has shape (7,)"),
    "no rows": ({"logits": LOGITS[:0], "labels": LABELS[:0]}, "there are no rows"),
    "no models": ({"logits": MODELS[:0]}, "there are no models"),
    "complex": ({"logits": LOGITS + 1j}, "array logits holds complex"),
    "objects": (
        {"logits": LOGITS.astype(object)},
        "array logits cannot be read: Object arrays cannot be loaded",
    ),
    "class names": ({"classes": np.array(["a", "b"])}, "there are 2 names in classes for 3 classes"),
    "not probabilities": (
        {"logits": None, "probabilities": LOGITS},
        "row 0 (rows count from 0): array probabilities, class",
    ),
    "sum of probabilities": (
        {"logits": None, "probabilities": PROBABILITIES * np.where(np.arange(N) == 4, 0.5, 1)[:, None]},
        "row 4 (rows count from 0): array probabilities add up to 0.5 instead of 1",
    ),
    "no scores": (
        {"logits": None, "scores": LOGITS},
        (
            "there are neither logits nor probabilities; wanted an array logits or probabilities; it has"
            " labels, scores"
        ),
    ),
    "no labels": ({"labels": None, "label": LABELS}, "there is no array labels; it has logits, label"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_bad_arrays_are_refused(tmp_path: Path, case: str):
    changed, message = ARRAYS[case]
    arrays = {
        name: values
        for name, values in ({"logits": LOGITS, "labels": LABELS} | changed).items()
        if values is not None
    }
    path = write(tmp_path / "p.npz", **arrays)
    with pytest.raises(WrongFile, match=re.escape(message)) as error:
        read(path)
    assert str(error.value).startswith(str(path))


def with_none(values, row):
    return [None if i == row else value for i, value in enumerate(values.tolist())]


FEW = numbered("logit", LOGITS)
COLUMNS = {
    "empty cell": (
        FEW | {"logit_1": with_none(LOGITS[:, 1], 3)},
        "row 3 (rows count from 0): column logit_1 is empty",
    ),
    "empty label": (
        FEW | {"label": with_none(LABELS, 6)},
        "row 6 (rows count from 0): column label is empty",
    ),
    "nan": (
        FEW | {"logit_2": with_value(LOGITS, 5, 2, np.nan)[:, 2]},
        "row 5 (rows count from 0): column logit_2 is nan",
    ),
    "words": (FEW | {"label": list("abcabca")}, "column label holds string; wanted numbers"),
    "a gap": (
        {"logit_0": LOGITS[:, 0], "logit_2": LOGITS[:, 2]},
        "column logit_1 is missing; the columns go on to logit_2",
    ),
    "no label": (
        FEW | {"label": None, "target": LABELS},
        "there is no column label, and no label_0, label_1, …; it has logit_0, logit_1, logit_2, target",
    ),
    "no scores": ({"score_0": LABELS}, "wanted columns logit_0, logit_1, …"),
    "ragged": (
        {"logits": [[1.0, 2.0]] * 5 + [[1.0]] + [[1.0, 2.0]]},
        "row 5 (rows count from 0): column logits holds a list of 1, but row 0 one of 2",
    ),
    "empty list": ({"logits": with_none(LOGITS, 2)}, "row 2 (rows count from 0): column logits is empty"),
    "hole in a list": (
        {"logits": [[1.0, 2.0]] * 4 + [[1.0, None]] + [[1.0, 2.0]] * 2},
        "row 4 (rows count from 0): column logits, class 1 is empty",
    ),
    "lists of words": ({"logits": [["a", "b"]] * 7}, "column logits holds string; wanted numbers"),
    "lists of lists": ({"logits": [[[1.0], [2.0]]] * 7}, "column logits holds list<"),
    "lists and columns": (
        FEW | {"logits": list(LOGITS)},
        "there are logits and logit_0, …; leave out one of the two",
    ),
    "two forms of label": (
        FEW | numbered("label", SHARES),
        "there are label and label_0, …; leave out one of the two",
    ),
    "both kinds": (FEW | numbered("probability", PROBABILITIES), "holds both logits and probabilities"),
    "label too high": (
        FEW | {"label": with_label(3, 12)},
        "row 3 (rows count from 0): column label is 12; allowed are 0 to 2",
    ),
    "one column": ({"logit_0": LOGITS[:, 0]}, "A single logit z is the two logits 0 and z"),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_bad_columns_are_refused(tmp_path: Path, case: str):
    changed, message = COLUMNS[case]
    columns = {name: values for name, values in ({"label": LABELS} | changed).items() if values is not None}
    with pytest.raises(WrongFile, match=re.escape(message)):
        read(write(tmp_path / "p.parquet", **columns))


TEXTS = {
    "a word": (
        "logit_0,logit_1,label\n1,2,0\n\n1,abc,0\n",
        "row 1 (rows count from 0): In CSV column #1: CSV conversion error to double: invalid value 'abc'",
    ),
    "a short row": (
        "logit_0,logit_1,label\n1,2,0\n1,2,1\n1,2\n",
        "row 2 (rows count from 0): CSV parse error: Expected 3 columns, got 2: 1,2",
    ),
    "nothing between commas": (
        "logit_0,logit_1,label\n1,2,0\n1,,1\n",
        "row 1 (rows count from 0): column logit_1 is empty",
    ),
    "nan": ("logit_0,logit_1,label\n1,2,0\n1,nan,1\n", "row 1 (rows count from 0): column logit_1 is nan"),
    "nan label": (
        "logit_0,logit_1,label\n1,2,0\n1,2,nan\n",
        "row 1 (rows count from 0): column label is nan; wanted whole numbers",
    ),
    "empty": ("", "Empty CSV file"),
    "a header alone": ("logit_0,logit_1,label\n", "there are no rows"),
    "semicolons": ("logit_0;logit_1;label\n1;2;0\n", "it has logit_0;logit_1;label"),
    "two of a name": ("logit_0,logit_0,label\n1,2,0\n", "two columns are called logit_0"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_bad_csv_is_refused(tmp_path: Path, case: str):
    text, message = TEXTS[case]
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(WrongFile, match=re.escape(message)):
        read(tmp_path / "p.csv")


@pytest.mark.parametrize("name", ["p.npz", "p.parquet", "p.csv", "p.safetensors"])
def test_bytes_of_no_format_are_refused(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"\x80\x04\x95\x00\x01\xff" * 9)
    with pytest.raises(WrongFile, match=re.escape(str(tmp_path / name))):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["p.npz", "p.parquet", "p.safetensors"])
def test_half_a_file_is_refused(tmp_path: Path, name: str):
    path = write(
        tmp_path / name,
        **({"logits": LOGITS, "labels": LABELS} if name != "p.parquet" else {**FEW, "label": LABELS}),
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WrongFile, match=re.escape(str(path))):
        read(path)


def test_a_damaged_archive_is_refused(tmp_path: Path):
    path = tmp_path / "p.npz"
    np.savez_compressed(path, logits=LOGITS, labels=LABELS)
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    with pytest.raises(WrongFile, match="array logits cannot be read"):
        read(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.npz", "there is no such file"),
        ("folder.npz", "this is no file"),
        ("p.npy", "holds one array; save logits and labels together"),
        ("p.pt", "could run code"),
        ("p.txt", "files named *.txt are not read; .parquet, .npz, .csv, .safetensors are"),
    ],
)
def test_other_paths_are_refused(tmp_path: Path, name: str, message: str):
    (tmp_path / "folder.npz").mkdir()
    for other in ("p.npy", "p.pt", "p.txt"):
        (tmp_path / other).write_bytes(b"x")
    with pytest.raises(WrongFile, match=re.escape(message)):
        read(tmp_path / name)


def test_a_model_that_is_not_there(tmp_path: Path):
    path = write(tmp_path / "p.npz", logits=MODELS, labels=LABELS)
    with pytest.raises(WrongFile, match="there is no model 2; it holds 2, counted from 0"):
        read(path, member=2)


def test_nothing_counts(tmp_path: Path):
    with pytest.raises(WrongFile, match="no example counts"):
        read(write(tmp_path / "p.npz", logits=LOGITS, labels=np.full(N, 9)), ignore_index=9)


SAME = {"logits": LOGITS, "labels": LABELS}


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (SAME, {"labels": with_label(4, 1)}, "differ in the label of row 4 (rows count from 0): 0 and 1"),
        (
            SAME,
            {"logits": LOGITS[:-1], "labels": LABELS[:-1]},
            "hold 7 rows of 3 classes and 6 rows of 3 classes",
        ),
        (SAME, {"logits": np.stack([LOGITS, LOGITS])}, "hold 1 and 2 models"),
        (SAME, {"labels": SHARES}, "one has label distributions, the other single labels"),
        (
            {"labels": SHARES},
            {"labels": SHARES[[0, 1, 2, 3, 5, 4, 6]]},
            "differ in the label of row 4 (rows count from 0): [0.3, 0.3, 0.4] and [0.0, 0.0, 1.0]",
        ),
    ],
)
def test_other_examples_are_not_compared(tmp_path: Path, first: dict, second: dict, message: str):
    saved = [
        read(write(tmp_path / name, **(SAME | arrays)))
        for name, arrays in (("a.npz", first), ("b.npz", second))
    ]
    with pytest.raises(WrongFile, match=re.escape(message)):
        same_examples(*saved)


def test_rows_that_do_not_count_are_compared_by_their_place(tmp_path: Path):
    one = read(write(tmp_path / "a.npz", logits=LOGITS, labels=with_label(2, -1)), ignore_index=-1)
    same_examples(one, one)
    other = read(write(tmp_path / "b.npz", logits=LOGITS, labels=with_label(5, -1)), ignore_index=-1)
    with pytest.raises(WrongFile, match=re.escape("row 2 (rows count from 0): -1 and 1")):
        same_examples(one, other)


def test_label_distributions_rounded_to_float32_are_the_same(tmp_path: Path):
    saved = [
        read(write(tmp_path / f"{dtype}.npz", logits=LOGITS, labels=SHARES.astype(dtype)))
        for dtype in ("f4", "f8")
    ]
    same_examples(*saved)
