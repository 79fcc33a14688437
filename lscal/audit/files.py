"""Files: saved predictions of a model, read from npz, safetensors, parquet or csv and checked row by row."""

import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool
from torch import Tensor

from lscal.predictions import SUM_TOLERANCE, Predictions

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["logits", "probabilities"]
KINDS: tuple[Kind, ...] = ("logits", "probabilities")
SINGULAR = {"logits": "logit", "probabilities": "probability"}
COUNTED = "(rows count from 0)"
SAME = 1e-6
"""How far two shares of a label distribution may differ: they may have been rounded to float32."""


class WrongFile(ValueError):
    """A file that cannot be audited: its path, the row, the value found and the value wanted."""


@dataclass(frozen=True, eq=False)
class Saved:
    """Contents of a file, checked.

    Attributes:
        predictions: of one model, or of several in one member dimension.
        classes: names of the classes, () where the file has none.
        members: names of the models, such as their seeds; () for one model.
        epsilon: the label smoothing they were trained with, where the file has it.
    """

    path: Path
    predictions: Predictions
    classes: tuple[str, ...]
    members: tuple[str, ...]
    epsilon: float | None


@dataclass(frozen=True, eq=False)
class Numbers:
    """Numbers of a file, and their names in an error: of all, and of class k."""

    values: Tensor
    name: str
    of_class: str

    def at(self, k: int) -> str:
        """Name of the numbers of class k."""
        return self.of_class.format(k)


@dataclass(frozen=True, eq=False)
class Contents:
    """Contents of a file, not yet checked."""

    kind: Kind
    scores: Numbers
    labels: Numbers
    classes: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    epsilon: float | None = None


def read(
    path: Path, *, kind: Kind | None = None, member: int | None = None, ignore_index: int | None = None
) -> Saved:
    """Read and check a file. Rows are counted from 0; the header of a csv file and its empty lines are no
    rows.

    `kind` chooses between logits and probabilities where both are there, `member` a model where there are
    several, and rows whose label is `ignore_index` do not count. Errors: WrongFile, naming the file, the
    column or array, and the first bad row.
    """
    if not path.exists():
        raise WrongFile(f"{path}: there is no such file")
    if not path.is_file():
        raise WrongFile(f"{path}: this is no file")
    suffix = path.suffix.lower()
    if suffix not in READERS:
        hint = HINTS.get(suffix, "")
        raise WrongFile(f"{path}: files named *{suffix} are not read; {', '.join(READERS)} are.{hint}")
    try:
        contents = READERS[suffix](path, kind)
    except OSError as error:
        raise WrongFile(f"{path}: cannot be read: {error}") from error
    return checked(path, contents, member, ignore_index)


def choose(path: Path, names: Sequence[str], present: Sequence[Kind], kind: Kind | None, wanted: str) -> Kind:
    """Which of logits and probabilities to take: the only one there is, or the one asked for."""
    if kind is not None and kind not in present:
        raise WrongFile(f"{path}: there are no {kind}; {there_are(names)}")
    if kind is None and len(present) > 1:
        raise WrongFile(
            f"{path}: holds both logits and probabilities; choose with --kind logits or --kind probabilities"
        )
    if not present:
        raise WrongFile(
            f"{path}: there are neither logits nor probabilities; wanted {wanted}; {there_are(names)}"
        )
    return kind or present[0]


def there_are(names: Sequence[str]) -> str:
    """The names in a file, for an error."""
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"it has {shown}" if names else "it has no columns"


# ---- npz and safetensors: arrays
# -------------------------------------------------------------------------------------


def read_npz(path: Path, kind: Kind | None) -> Contents:
    """A NumPy archive. Nothing is unpickled: that could run code."""
    if not zipfile.is_zipfile(path):
        raise WrongFile(
            f"{path}: this is no npz archive; write one with numpy.savez(path, logits=…, labels=…)"
        )

    def get(name: str) -> npt.NDArray[Any]:
        try:
            values: npt.NDArray[Any] = archive[name]
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise WrongFile(f"{path}: array {name} cannot be read: {error}") from error
        return values

    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, zipfile.BadZipFile) as error:
        raise WrongFile(f"{path}: this is no npz archive: {error}") from error
    with archive:
        return from_arrays(path, archive.files, get, kind)


def read_safetensors(path: Path, kind: Kind | None) -> Contents:
    """A safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            return from_arrays(path, list(stored.keys()), stored.get_tensor, kind)
    except SafetensorError as error:
        raise WrongFile(f"{path}: this is no whole safetensors file: {error}") from error


def from_arrays(path: Path, names: Sequence[str], get: Callable[[str], Any], kind: Kind | None) -> Contents:
    """Arrays `logits` or `probabilities` and `labels`; if there, names in `classes` and `seeds`, and the
    number `epsilon`.
    """
    kind = choose(
        path, names, [name for name in KINDS if name in names], kind, "an array logits or probabilities"
    )
    if "labels" not in names:
        raise WrongFile(f"{path}: there is no array labels; {there_are(names)}")
    scores, labels = (tensor(path, name, get(name)) for name in (kind, "labels"))
    words = {
        name: tuple(str(word) for word in get(name).reshape(-1).tolist()) if name in names else ()
        for name in ("classes", "seeds")
    }
    epsilon = tensor(path, "epsilon", get("epsilon")) if "epsilon" in names else None
    return Contents(
        kind=kind,
        scores=Numbers(scores, f"array {kind}", f"array {kind}, class {{}}"),
        labels=Numbers(labels, "array labels", "array labels, class {}"),
        classes=words["classes"],
        members=words["seeds"],
        epsilon=float(epsilon) if epsilon is not None and epsilon.numel() == 1 else None,
    )


def tensor(path: Path, name: str, values: npt.NDArray[Any] | Tensor) -> Tensor:
    """The values as a tensor: floats keep their precision, whole numbers become int64."""
    if isinstance(values, Tensor):
        if values.is_complex():
            raise WrongFile(f"{path}: array {name} holds {values.dtype}; wanted real numbers")
        if values.is_floating_point():
            return values if values.dtype in SUM_TOLERANCE else values.to(torch.float32)
        return values.to(torch.int64)
    if values.dtype.kind not in "fiub":
        raise WrongFile(f"{path}: array {name} holds {values.dtype}; wanted numbers")
    own = (
        values.dtype.newbyteorder("=")
        if values.dtype.kind == "f" and values.dtype.itemsize <= 8
        else np.dtype(np.float64)
    )
    return torch.from_numpy(np.array(values, dtype=own if values.dtype.kind == "f" else np.int64, order="C"))


# ---- parquet and csv: columns
# ----------------------------------------------------------------------------------------


def read_parquet(path: Path, kind: Kind | None) -> Contents:
    """A parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as stored:
            return from_columns(
                path, stored.schema_arrow.names, lambda names: stored.read(columns=list(names)), kind
            )
    except pa.ArrowException as error:
        raise WrongFile(f"{path}: this is no whole parquet file: {error}") from error


def read_csv(path: Path, kind: Kind | None) -> Contents:
    """A csv file: commas, a header, decimal points."""
    import pyarrow as pa
    from pyarrow import csv

    serial = csv.ReadOptions(use_threads=False)  # with threads, an error has no row number

    def load(names: Sequence[str]) -> "pa.Table":
        types = {name: pa.float64() for name in names}
        options = csv.ConvertOptions(include_columns=list(names), column_types=types, null_values=[""])
        return csv.read_csv(path, read_options=serial, convert_options=options)

    try:
        with csv.open_csv(path, read_options=serial) as stored:
            header = stored.schema.names
        return from_columns(path, header, load, kind)
    except pa.ArrowException as error:
        row = re.search(r"Row #(\d+)", str(error))
        where = f"row {int(row[1]) - 2} {COUNTED}: " if row else ""
        raise WrongFile(f"{path}: {where}{re.sub(r'Row #[0-9]+: ', '', str(error))}") from error


def from_columns(
    path: Path, names: Sequence[str], load: Callable[[Sequence[str]], "pa.Table"], kind: Kind | None
) -> Contents:
    """A column of lists `logits` or `probabilities`, or numbered ones, and `label`; or the label's
    distribution, numbered or in lists.
    """
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise WrongFile(f"{path}: two columns are called {twice[0]}")
    found = {
        name: [*([name] if name in names else []), *numbered(path, names, SINGULAR[name])] for name in KINDS
    }
    wanted = "columns logit_0, logit_1, … or probability_0, …, or a column of lists logits or probabilities"
    kind = choose(path, names, [name for name in KINDS if found[name]], kind, wanted)
    labels = [*(["label"] if "label" in names else []), *numbered(path, names, "label")]
    if not labels:
        raise WrongFile(f"{path}: there is no column label, and no label_0, label_1, …; {there_are(names)}")
    for whole, columns in ((kind, found[kind]), ("label", labels)):
        if whole in columns and len(columns) > 1:
            raise WrongFile(f"{path}: there are {whole} and {columns[1]}, …; leave out one of the two")
    table = load([*found[kind], *labels])
    return Contents(
        kind=kind, scores=columns_of(path, table, found[kind]), labels=columns_of(path, table, labels)
    )


def numbered(path: Path, names: Sequence[str], stem: str) -> list[str]:
    """The columns stem_0, stem_1, … in their order."""
    places = sorted(
        int(name[len(stem) + 1 :]) for name in names if re.fullmatch(rf"{stem}_(0|[1-9][0-9]*)", name)
    )
    missing = next((k for k, place in enumerate(places) if place != k), None)
    if missing is not None:
        raise WrongFile(
            f"{path}: column {stem}_{missing} is missing; the columns go on to {stem}_{places[-1]}"
        )
    return [f"{stem}_{place}" for place in places]


def columns_of(path: Path, table: "pa.Table", names: Sequence[str]) -> Numbers:
    """One column, perhaps of lists, or several side by side."""
    import pyarrow as pa

    if len(names) > 1:
        values = np.stack([plain(path, table.column(name), name) for name in names], axis=-1)
        stem = names[0].rpartition("_")[0]
        return Numbers(
            tensor(path, stem, values), f"columns {names[0]} to {names[-1]}", f"column {stem}_{{}}"
        )
    name, column = names[0], table.column(names[0])
    lists = (
        pa.types.is_list(column.type)
        or pa.types.is_large_list(column.type)
        or pa.types.is_fixed_size_list(column.type)
    )
    values = listed(path, column, name) if lists else plain(path, column, name)
    return Numbers(tensor(path, name, values), f"column {name}", f"column {name}, class {{}}")


def plain(path: Path, column: "pa.ChunkedArray", name: str) -> npt.NDArray[Any]:
    """The numbers of a column."""
    import pyarrow as pa

    if not (
        pa.types.is_integer(column.type)
        or pa.types.is_floating(column.type)
        or pa.types.is_boolean(column.type)
    ):
        raise WrongFile(f"{path}: column {name} holds {column.type}; wanted numbers")
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise WrongFile(f"{path}: row {row} {COUNTED}: column {name} is empty")
    values: npt.NDArray[Any] = column.to_numpy()
    return values


def listed(path: Path, column: "pa.ChunkedArray", name: str) -> npt.NDArray[Any]:
    """The numbers of a column of lists, all of one length, as rows."""
    import pyarrow.compute as pc

    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise WrongFile(f"{path}: row {row} {COUNTED}: column {name} is empty")
    if not len(column):
        return np.zeros((0, 2))
    lengths = pc.list_value_length(column).to_numpy()
    ragged = np.flatnonzero(lengths != lengths[0])
    if len(ragged):
        row = int(ragged[0])
        raise WrongFile(
            f"{path}: row {row} {COUNTED}: column {name} holds a list of {lengths[row]}, but row 0 one of"
            f" {lengths[0]}"
        )
    flat = pc.list_flatten(column)
    if flat.null_count:
        row, place = divmod(int(np.flatnonzero(flat.is_null().to_numpy())[0]), int(lengths[0]))
        raise WrongFile(f"{path}: row {row} {COUNTED}: column {name}, class {place} is empty")
    return plain(path, flat, name).reshape(len(column), -1)


# ---- checks
# --------------------------------------------------------------------------------------------------


def checked(path: Path, contents: Contents, member: int | None, ignore_index: int | None) -> Saved:
    """The contents as predictions."""
    scores, labels = contents.scores, contents.labels
    shape, rows = tuple(scores.values.shape), tuple(labels.values.shape)
    if len(shape) not in (2, 3) or shape[-1] < 2:
        raise WrongFile(
            f"{path}: {scores.name} has shape {shape}; wanted (rows, classes) or (models, rows, classes), 2"
            " classes at least. A single logit z is the two logits 0 and z"
        )
    if len(rows) not in (1, 2) or rows[0] != shape[-2] or rows[1:] not in ((), shape[-1:]):
        raise WrongFile(
            f"{path}: {scores.name} has shape {shape} and {labels.name} {rows}; wanted one label, or"
            f" {shape[-1]} shares, for each row"
        )
    if not shape[-2]:
        raise WrongFile(f"{path}: there are no rows")
    if contents.classes and len(contents.classes) != shape[-1]:
        raise WrongFile(f"{path}: there are {len(contents.classes)} names in classes for {shape[-1]} classes")
    values, members = one_member(path, scores.values, contents.members, member)
    if not values.is_floating_point():
        values = values.to(torch.float64)
    given = whole_numbers(path, labels) if len(rows) == 1 else labels.values.to(torch.float64)
    counts = (
        given != ignore_index
        if ignore_index is not None and len(rows) == 1
        else torch.ones(rows[0], dtype=torch.bool)
    )
    check_scores(path, contents.kind, Numbers(values, scores.name, scores.of_class), counts)
    check_labels(path, Numbers(given, labels.name, labels.of_class), counts, shape[-1])
    make = Predictions.from_logits if contents.kind == "logits" else Predictions.from_probabilities
    try:
        predictions = make(values, given, ignore_index=ignore_index)
    except ValueError as error:
        raise WrongFile(f"{path}: {error}") from error
    return Saved(path, predictions, contents.classes, members, contents.epsilon)


def one_member(
    path: Path, scores: Tensor, names: tuple[str, ...], member: int | None
) -> tuple[Tensor, tuple[str, ...]]:
    """The models asked for and their names: the only one without its dimension."""
    models = scores.shape[0] if scores.ndim == 3 else 1
    if member is not None and not 0 <= member < models:
        raise WrongFile(f"{path}: there is no model {member}; it holds {models}, counted from 0")
    if scores.ndim == 2:
        return scores, ()
    if member is not None or models == 1:
        return scores[member or 0], ()
    if not models:
        raise WrongFile(f"{path}: there are no models")
    return scores, names if len(names) == models else tuple(str(i) for i in range(models))


def whole_numbers(path: Path, labels: Numbers) -> Tensor:
    """Labels as int64."""
    values = labels.values
    if values.is_floating_point():
        bad = values != values.round()  # NaN differs from itself
        bad |= values.isinf()
        if bad.any():
            row = first(bad)
            raise WrongFile(
                f"{path}: row {row} {COUNTED}: {labels.name} is {float(values[row]):g}; wanted whole numbers"
            )
    return values.to(torch.int64)


def check_scores(path: Path, kind: Kind, scores: Numbers, counts: Bool[Tensor, " example"]) -> None:
    """Errors: WrongFile for the first row that cannot be scored."""
    values = scores.values
    if kind == "logits":
        wrong = (values.isnan() | values.isposinf()) & counts.unsqueeze(-1)
        allowed = "finite numbers and -inf"
    else:
        wrong = ~((values >= -1e-6) & values.isfinite()) & counts.unsqueeze(-1)
        allowed = "0 to 1. Are these logits? Then call them so"
    if wrong.any():
        row = first(wrong.any(-1))
        model, k = wrong.reshape(-1, *wrong.shape[-2:])[:, row].nonzero()[0].tolist()
        value = float(values.reshape(-1, *values.shape[-2:])[model, row, k])
        raise WrongFile(
            f"{path}: row {row} {COUNTED}{of_model(values, model)}: {scores.at(k)} is {value:g}; allowed are"
            f" {allowed}"
        )
    if kind == "logits":
        wrong = values.isneginf().all(-1) & counts
        message = "every logit is -inf; at least one class must be possible"
    else:
        total = values.to(torch.float64).sum(-1)
        wrong = ((total - 1).abs() > SUM_TOLERANCE[values.dtype]) & counts
        message = "{} add up to {:.6g} instead of 1. Are these logits? Then call them so"
    if wrong.any():
        row = first(wrong)
        model = int(wrong.reshape(-1, wrong.shape[-1])[:, row].nonzero()[0, 0])
        said = (
            message
            if kind == "logits"
            else message.format(scores.name, float(total.reshape(-1, total.shape[-1])[model, row]))
        )
        raise WrongFile(f"{path}: row {row} {COUNTED}{of_model(values, model)}: {said}")


def check_labels(path: Path, labels: Numbers, counts: Bool[Tensor, " example"], classes: int) -> None:
    """Errors: WrongFile for the first label that is none."""
    values = labels.values
    if values.ndim == 1:
        wrong = ((values < 0) | (values >= classes)) & counts
        if wrong.any():
            row = first(wrong)
            hint = (
                f". Do rows with this label not count? Then add --ignore-index {int(values[row])}"
                if values[row] < 0
                else ""
            )
            raise WrongFile(
                f"{path}: row {row} {COUNTED}: {labels.name} is {int(values[row])}; allowed are 0 to"
                f" {classes - 1}{hint}"
            )
        return
    total = values.sum(-1)
    wrong = ~((total - 1).abs() <= SUM_TOLERANCE[values.dtype]) | (values < 0).any(-1)
    if wrong.any():
        row = first(wrong)
        raise WrongFile(
            f"{path}: row {row} {COUNTED}: {labels.name} add up to {float(total[row]):.6g}, the least is"
            f" {float(values[row].min()):.6g}; a row adds up to 1 and holds nothing negative"
        )


def first(bad: Bool[Tensor, "*member example"]) -> int:
    """The first row that is bad in any model."""
    return int(bad.reshape(-1, bad.shape[-1]).any(0).nonzero()[0, 0])


def of_model(values: Tensor, model: int) -> str:
    """Which model, where there are several."""
    return f", model {model}" if values.ndim == 3 else ""


READERS: dict[str, Callable[[Path, Kind | None], Contents]] = {
    ".parquet": read_parquet,
    ".npz": read_npz,
    ".csv": read_csv,
    ".safetensors": read_safetensors,
}

UNPICKLED = " Reading this one could run code; save the arrays with numpy.savez or safetensors."
HINTS = {
    ".npy": (
        " It holds one array; save logits and labels together with numpy.savez(path, logits=…, labels=…)."
    ),
    ".pt": UNPICKLED,
    ".pth": UNPICKLED,
    ".pkl": UNPICKLED,
}


def same_examples(first_file: Saved, second_file: Saved) -> None:
    """Errors: WrongFile, with the first row that differs, unless both hold predictions of the same examples
    in the same order.
    """
    one, two = first_file.predictions, second_file.predictions
    pair = f"{first_file.path} and {second_file.path}"
    if one.scores.shape[-2:] != two.scores.shape[-2:]:
        shapes = " and ".join(f"{p.scores.shape[-2]} rows of {p.classes} classes" for p in (one, two))
        raise WrongFile(f"{pair} hold {shapes}; a paired comparison is of the same rows in the same order")
    if one.member != two.member:
        counts = " and ".join(f"{len(saved.members) or 1}" for saved in (first_file, second_file))
        raise WrongFile(f"{pair} hold {counts} models; wanted as many in both, or choose one with --member")
    if (one.distribution is None) != (two.distribution is None):
        raise WrongFile(
            f"{pair}: one has label distributions, the other single labels; wanted the same labels"
        )
    rows = [torch.arange(p.scores.shape[-2]) if p.keep is None else p.keep for p in (one, two)]
    labels = []
    for own, keep in zip((one, two), rows, strict=True):
        given = own.labels.unsqueeze(-1).to(torch.float64) if own.distribution is None else own.distribution
        labels.append(
            torch.full((own.scores.shape[-2], given.shape[-1]), -1.0, dtype=torch.float64).index_copy(
                0, keep, given
            )
        )
    differ = ((labels[0] - labels[1]).abs() > SAME).any(-1)
    if differ.any():
        row = first(differ)
        said = " and ".join(
            str(label[row].tolist()) if one.distribution is not None else f"{int(label[row, 0])}"
            for label in labels
        )
        raise WrongFile(
            f"{pair} differ in the label of row {row} {COUNTED}: {said}. A paired comparison is of the same"
            " examples in the same order"
        )


def same_model(audited: Saved, train: Saved) -> None:
    """Errors: WrongFile where training predictions cannot be of the same model, or of known ε."""
    if train.predictions.kind != "logits":
        raise WrongFile(f"{train.path}: holds probabilities; ε is estimated from logits")
    if train.predictions.distribution is not None:
        raise WrongFile(
            f"{train.path}: holds label distributions; ε is estimated where training examples have one label"
            " each"
        )
    shapes = [(len(saved.members) or 1, saved.predictions.classes) for saved in (audited, train)]
    if shapes[0] != shapes[1]:
        said = " and ".join(f"{models} models of {classes} classes" for models, classes in shapes)
        raise WrongFile(
            f"{audited.path} and {train.path} hold {said}; the training predictions are of the same models"
        )
