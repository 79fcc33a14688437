"""Saved predictions: every format reads the same, and a bad file is refused with its row."""

import re

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import EXAMPLES
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
SAME = {"logits": LOGITS, "labels": LABELS}


def numbered(stem, values):
    return {f"{stem}_{k}": values[:, k] for k in range(values.shape[1])}


def write(path, **columns):
    """Write arrays or columns in the format of the path, but those that are None."""
    columns = {name: values for name, values in columns.items() if values is not None}
    if path.suffix == ".npz":
        np.savez(path, **columns)
    elif path.suffix == ".safetensors":
        save_file({name: torch.as_tensor(values) for name, values in columns.items()}, path)
    elif path.suffix == ".parquet":
        parquet.write_table(pa.table(columns), path)
    else:
        csv.write_csv(pa.table(columns), path)
    return path


def refused(path, message, **options):
    """The message of the error, which names the file."""
    with pytest.raises(WrongFile, match=re.escape(message)) as error:
        read(path, **options)
    assert str(error.value).startswith(str(path))


DTYPES = {"npz": ["<f2", ">f4", "<f8", "<i2"], "safetensors": ["<f2", "<f4", "<f8"], "": ["<f4", "<f8"]}
SUFFIXES = ("npz", "parquet", "csv", "safetensors")
LAYOUTS = {
    "npz": lambda stem, values: {stem if stem == "probabilities" else f"{stem}s": values},
    "safetensors": lambda stem, values: {stem if stem == "probabilities" else f"{stem}s": values},
    "lists.parquet": lambda stem, values: {
        {"logit": "logits"}.get(stem, stem): pa.array(list(values)) if values.ndim > 1 else values
    },
    "numbered.parquet": lambda stem, values: (
        dict(reversed(numbered(stem.replace("ties", "ty"), values).items()))
        if values.ndim > 1
        else {stem: values}
    ),
}
LAYOUTS["csv"] = LAYOUTS["numbered.parquet"]


@EXAMPLES
@given(
    st.sampled_from([*LAYOUTS]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 9),
    st.integers(2, 13),
    st.data(),
)
def test_predictions_are_read_back_from_every_format(tmp_path, layout, logits, soft, rows, classes, data):
    """Numbers of any type, single labels or distributions; numbered columns in any order, past ten too."""
    dtype = data.draw(st.sampled_from(DTYPES.get(layout, DTYPES[""]) if logits else ["<f4", "<f8"]))
    draw = np.random.default_rng(rows)
    scores = (4 * draw.normal(size=(rows, classes))).astype(dtype)
    if not logits:
        scores = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    labels = draw.integers(0, classes, rows)
    shares = draw.dirichlet(np.ones(classes), rows)
    columns = LAYOUTS[layout]("logit" if logits else "probabilities", scores)
    columns |= LAYOUTS[layout]("label", shares if soft else labels)
    saved = read(write(tmp_path / f"p.{layout}", other=np.arange(rows), **columns))
    assert saved.predictions.kind == ("logits" if logits else "probabilities")
    assert np.array_equal(saved.predictions.scores.to(torch.float64).numpy().astype(dtype), scores)
    if soft:
        assert np.array_equal(saved.predictions.distribution.numpy(), shares)
    else:
        assert saved.predictions.labels.tolist() == labels.tolist()
    assert (saved.members, saved.classes, saved.epsilon) == ((), (), None)


def test_a_file_of_a_sweep_holds_its_seeds(tmp_path):
    both, names = np.stack([LOGITS, LOGITS[::-1]]), np.array(["a", "b", "<c>"])
    named = {
        "seeds": np.array([10, 11]),
        "classes": names,
        "epsilon": np.array(0.1),
        "temperature": np.ones(2),
    }
    path = write(tmp_path / "test.npz", logits=both, labels=LABELS.astype("u1"), **named)
    saved = read(path)
    assert saved.predictions.member == (2,)
    assert (saved.members, saved.classes) == (("10", "11"), ("a", "b", "<c>"))
    assert saved.epsilon == pytest.approx(0.1)
    one = read(path, member=1)
    assert one.members == ()
    assert np.array_equal(one.predictions.scores.numpy(), both[1])


def test_a_single_model_may_have_a_dimension_for_models_and_brain_floats(tmp_path):
    values = torch.as_tensor(LOGITS).bfloat16()
    saved = read(write(tmp_path / "p.safetensors", logits=values[None].clone(), labels=LABELS))
    assert saved.predictions.member == ()
    assert torch.equal(saved.predictions.scores, values)


def test_whole_floats_are_labels(tmp_path):
    (tmp_path / "p.csv").write_text("label,logit_0,logit_1\n1.0,0.5,-inf\n\n0,2,3e-1\n")
    saved = read(tmp_path / "p.csv")
    assert saved.predictions.labels.tolist() == [1, 0]
    assert saved.predictions.scores.tolist() == [[0.5, -np.inf], [2, 0.3]]


def test_ignored_rows_may_hold_anything_but_not_all_rows_are_ignored(tmp_path):
    labels, logits = LABELS.copy(), LOGITS.copy()
    labels[[1, 4]], logits[1] = -100, np.nan
    saved = read(write(tmp_path / "p.npz", logits=logits, labels=labels), ignore_index=-100)
    assert saved.predictions.labels.tolist() == [2, 1, 1, 2, 1]
    refused(
        write(tmp_path / "p.npz", logits=LOGITS, labels=np.full(N, 9)), "no example counts", ignore_index=9
    )


def test_the_kind_is_chosen_where_a_file_holds_both(tmp_path):
    path = write(tmp_path / "p.npz", probabilities=PROBABILITIES, **SAME)
    refused(path, "holds both logits and probabilities; choose with --kind")
    for kind in ("probabilities", "logits"):
        assert read(path, kind=kind).predictions.kind == kind


def at(row, number):
    """The beginning of a message on a row."""
    return f"row {row} (rows count from 0){number}"


def put(values, place, value):
    """A copy of an array with another value at a place."""
    changed = values.astype(np.float64) if isinstance(value, float) else values.copy()
    changed[place] = value
    return changed


def gap(values, row):
    """Values as a list, with None at a row."""
    return [None if i == row else value for i, value in enumerate(values.tolist())]


MODELS = np.stack([LOGITS, LOGITS])
BELOW_0 = put(SHARES, 2, [1.5, -0.5, 0])
ARRAYS = {
    "nan": ({"logits": put(LOGITS, (4, 2), np.nan)}, at(4, ": array logits, class 2 is nan")),
    "inf": ({"logits": put(LOGITS, (6, 0), np.inf)}, at(6, ": array logits, class 0 is inf")),
    "nan in a model": (
        {"logits": put(MODELS, (1, 3, 1), np.nan)},
        at(3, ", model 1: array logits, class 1"),
    ),
    "no class possible": ({"logits": put(LOGITS, 5, -np.inf)}, at(5, ": every logit is -inf")),
    "label too high": ({"labels": put(LABELS, 3, 12)}, at(3, ": array labels is 12; allowed are 0 to 2")),
    "label below 0": (
        {"labels": put(LABELS, 2, -100)},
        at(2, ": array labels is -100; allowed are 0 to 2. Do rows with this label not count? Then add")
        + " --ignore-index -100",
    ),
    "half a label": ({"labels": put(LABELS, 5, 2.5)}, at(5, ": array labels is 2.5; wanted whole numbers")),
    "labels are words": ({"labels": np.array(list("abcabca"))}, "array labels holds <U1; wanted numbers"),
    "shares": ({"labels": put(SHARES, (3, 0), 0.5)}, at(3, ": array labels add up to 1.5")),
    "share below 0": ({"labels": BELOW_0}, at(2, ": array labels add up to 1, the least is -0.5")),
    "few labels": ({"labels": LABELS[:-1]}, "array logits has shape (7, 3) and array labels (6,)"),
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
    "not probabilities": ({"logits": None, "probabilities": LOGITS}, at(0, ": array probabilities, class")),
    "sum of probabilities": (
        {"logits": None, "probabilities": put(PROBABILITIES, 4, PROBABILITIES[4] / 2)},
        at(4, ": array probabilities add up to 0.5 instead of 1"),
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
FEW = numbered("logit", LOGITS)
COLUMNS = {
    "empty cell": (FEW | {"logit_1": gap(LOGITS[:, 1], 3)}, at(3, ": column logit_1 is empty")),
    "empty label": (FEW | {"label": gap(LABELS, 6)}, at(6, ": column label is empty")),
    "nan": (FEW | {"logit_2": put(LOGITS[:, 2], 5, np.nan)}, at(5, ": column logit_2 is nan")),
    "words": (FEW | {"label": list("abcabca")}, "column label holds string; wanted numbers"),
    "a gap": (FEW | {"logit_1": None}, "column logit_1 is missing; the columns go on to logit_2"),
    "no label": (
        FEW | {"label": None, "target": LABELS},
        "there is no column label, and no label_0, label_1, …; it has logit_0, logit_1, logit_2, target",
    ),
    "no scores": ({"score_0": LABELS}, "wanted columns logit_0, logit_1, …"),
    "ragged": (
        {"logits": [[1.0, 2.0]] * 5 + [[1.0]] + [[1.0, 2.0]]},
        at(5, ": column logits holds a list of 1, but row 0 one of 2"),
    ),
    "empty list": ({"logits": gap(LOGITS, 2)}, at(2, ": column logits is empty")),
    "hole in a list": (
        {"logits": [[1.0, 2.0]] * 4 + [[1.0, None]] + [[1.0, 2.0]] * 2},
        at(4, ": column logits, class 1 is empty"),
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
        FEW | {"label": put(LABELS, 3, 12)},
        at(3, ": column label is 12; allowed are 0 to 2"),
    ),
    "one column": ({"logit_0": LOGITS[:, 0]}, "A single logit z is the two logits 0 and z"),
}
TEXTS = {
    "a word": (
        "1,2,0\n\n1,abc,0\n",
        at(1, ": In CSV column #1: CSV conversion error to double: invalid value 'abc'"),
    ),
    "a short row": ("1,2,0\n1,2,1\n1,2\n", at(2, ": CSV parse error: Expected 3 columns, got 2: 1,2")),
    "nothing between commas": ("1,2,0\n1,,1\n", at(1, ": column logit_1 is empty")),
    "nan": ("1,2,0\n1,nan,1\n", at(1, ": column logit_1 is nan")),
    "nan label": ("1,2,0\n1,2,nan\n", at(1, ": column label is nan; wanted whole numbers")),
    "a header alone": ("", "there are no rows"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_bad_arrays_are_refused(tmp_path, case):
    changed, message = ARRAYS[case]
    refused(write(tmp_path / "p.npz", **(SAME | changed)), message)


@pytest.mark.parametrize("case", COLUMNS)
def test_bad_columns_are_refused(tmp_path, case):
    changed, message = COLUMNS[case]
    refused(write(tmp_path / "p.parquet", **({"label": LABELS} | changed)), message)


@pytest.mark.parametrize("case", TEXTS)
def test_bad_lines_of_a_csv_are_refused(tmp_path, case):
    text, message = TEXTS[case]
    (tmp_path / "p.csv").write_text(f"logit_0,logit_1,label\n{text}")
    refused(tmp_path / "p.csv", message)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "", "Empty CSV file"),
        ("p.csv", "logit_0;logit_1;label\n1;2;0\n", "it has logit_0;logit_1;label"),
        ("p.csv", "logit_0,logit_0,label\n1,2,0\n", "two columns are called logit_0"),
        *((f"p.{form}", "\x80\x04\x95\0\1\xff" * 9, f"p.{form}") for form in SUFFIXES),
        ("absent.npz", None, "there is no such file"),
        (".", None, "this is no file"),
        ("p.npy", "x", "holds one array; save logits and labels together"),
        ("p.pt", "x", "could run code"),
        ("p.txt", "x", "files named *.txt are not read; .parquet, .npz, .csv, .safetensors are"),
    ],
)
def test_files_of_no_known_form_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    refused(tmp_path / name, message)


@pytest.mark.parametrize("name", ["p.npz", "p.parquet", "p.safetensors"])
def test_half_a_file_is_refused(tmp_path, name):
    path = write(tmp_path / name, **({**FEW, "label": LABELS} if name == "p.parquet" else SAME))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, str(path))


def test_a_damaged_archive_is_refused(tmp_path):
    path = tmp_path / "p.npz"
    np.savez_compressed(path, **SAME)
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    refused(path, "array logits cannot be read")


def test_a_model_that_is_not_there_is_refused(tmp_path):
    path = write(tmp_path / "p.npz", logits=MODELS, labels=LABELS)
    refused(path, "there is no model 2; it holds 2, counted from 0", member=2)


SWAPPED = SHARES[[0, 1, 2, 3, 5, 4, 6]]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"labels": put(LABELS, 4, 1)}, "differ in the label of " + at(4, ": 0 and 1")),
        (
            {},
            {"logits": LOGITS[:-1], "labels": LABELS[:-1]},
            "hold 7 rows of 3 classes and 6 rows of 3 classes",
        ),
        ({}, {"logits": MODELS}, "hold 1 and 2 models"),
        ({}, {"labels": SHARES}, "one has label distributions, the other single labels"),
        ({"labels": SHARES}, {"labels": SWAPPED}, at(4, ": [0.3, 0.3, 0.4] and [0.0, 0.0, 1.0]")),
    ],
)
def test_other_examples_are_not_compared(tmp_path, first, second, message):
    saved = [read(write(tmp_path / f"{one}.npz", **(SAME | own))) for one, own in enumerate((first, second))]
    with pytest.raises(WrongFile, match=re.escape(message)):
        same_examples(*saved)


def test_rows_that_do_not_count_are_compared_by_their_place(tmp_path):
    one, other = (
        read(write(tmp_path / f"{row}.npz", logits=LOGITS, labels=put(LABELS, row, -1)), ignore_index=-1)
        for row in (2, 5)
    )
    same_examples(one, one)
    with pytest.raises(WrongFile, match=re.escape(at(2, ": -1 and 1"))):
        same_examples(one, other)


def test_label_distributions_rounded_to_float32_are_the_same(tmp_path):
    same_examples(
        *(
            read(write(tmp_path / f"{dtype}.npz", logits=LOGITS, labels=SHARES.astype(dtype)))
            for dtype in ("f4", "f8")
        )
    )
