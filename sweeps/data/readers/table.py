"""Tables of every kind of file: the label column, the input columns, and the examples made of them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeps.data.dataset import Array
from sweeps.data.readers import arrays, images, sound
from sweeps.data.readers.examples import WORDS, Examples, Part, listed
from sweeps.data.readers.features import MOST_CATEGORIES, Column, Features
from sweeps.data.readers.spec import Columns
from sweeps.errors import WrongInput, unknown

if TYPE_CHECKING:
    from pyarrow import ChunkedArray, Field, Table
LABELS = (
    "label",
    "labels",
    "target",
    "targets",
    "class",
    "classes",
    "y",
    "category",
    "outcome",
    "diagnosis",
    "species",
    "sentiment",
    "intent",
)
"""Names of label columns, the likeliest first."""
TEXTS = (
    "text",
    "sentence",
    "review",
    "content",
    "comment",
    "message",
    "question",
    "tweet",
    "utterance",
    "document",
    "body",
    "headline",
    "title",
    "query",
)
IDENTIFIERS = (
    "",
    "id",
    "idx",
    "index",
    "__index_level_0__",
    "unnamed: 0",
    "row_id",
    "rowid",
    "guid",
    "uuid",
    "file_name",
    "filename",
    "path",
)
PARTED = ("split", "fold", "subset", "partition", "set", "part")
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
PICTURE = r"(?i)\.(png|jpe?g|bmp|gif|webp|tiff?|ppm|pgm)$"


def examples_of(tables: Mapping[Part | None, "Table"], columns: Columns, where: str) -> Examples:
    """The examples of tables, one for each part of the data, or one of all (None), which a column may divide.

    Errors: WrongInput where the label or the inputs are unclear; it lists the columns and the flag to give.
    """
    import pyarrow

    try:
        table = pyarrow.concat_tables(tables.values(), promote_options="permissive")
    except pyarrow.ArrowException as error:
        raise WrongInput(f"the files of {where} have columns of different types: {error}") from error
    if table.num_rows == 0:
        raise WrongInput(f"{where} has no rows.")
    if len(set(table.column_names)) < table.num_columns:
        twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
        raise WrongInput(f"{where} has several columns of the same name: {listed(twice)}. Rename them.")
    features = described(next(iter(tables.values())))
    known = {
        name: column_of(table.schema.field(name), table[name], features.get(name, {}))
        for name in table.column_names
    }
    notes: list[str] = []
    label = label_of(known, columns, features, where)
    if not columns.label_column:
        notes.append(f"the label is the column {label!r}; another one: --label-column NAME")
    parts: list[Part] = [part or "train" for part, one in tables.items() for _ in range(one.num_rows)]
    split = split_of(known, columns, set(tables) == {None})
    if split:
        parts = parts_of(known[split].values.to_pylist(), split)
        notes += (
            []
            if columns.split_column
            else [f"the column {split!r} divides the examples into training and test"]
        )
    inputs, ignored = inputs_of(known, {label, split}, columns, where)
    examples = made(inputs, where, columns)
    if not columns.input_columns:
        named = listed([column.name for column in inputs])
        notes.append(
            f"the inputs are {'the column ' if len(inputs) == 1 else ''}{named}; others: --input-columns A,B"
        )
        if ignored:
            notes.append(
                f"left out: {'; '.join(f'{listed(names)} ({why})' for why, names in ignored.items())}"
            )
    names = tuple(str(name) for name in features.get(label, {}).get("names", ()))
    return replace(
        examples,
        labels=labels_of(known[label], where),
        parts=parts,
        names=names,
        notes=(*notes, *examples.notes),
    )


def described(table: "Table") -> dict[str, dict[str, Any]]:
    """Hugging Face's description of the columns, in the metadata of the schema; {} where there is none."""
    metadata = (table.schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(metadata or b"{}")["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def column_of(field: "Field", values: "ChunkedArray", feature: Mapping[str, Any]) -> Column:
    """Kind of a column, by its type and its values."""
    import pyarrow
    from pyarrow import compute, types

    kind = field.type
    if types.is_dictionary(kind):
        values, kind = values.cast(kind.value_type), kind.value_type
    if isinstance(kind, pyarrow.ExtensionType):
        values = pyarrow.chunked_array([chunk.storage for chunk in values.chunks], kind.storage_type)
        kind = kind.storage_type
    if types.is_struct(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        fields = (
            {kind.field(index).name for index in range(kind.num_fields)}
            if types.is_struct(kind)
            else {"bytes"}
        )
        if not fields & {"bytes", "path"}:
            return Column(field.name, "other", values, 0, 0)
        is_sound = feature.get("_type") == "Audio" or sound.is_wave(packed(values, 1)[0])
        return Column(field.name, "sound" if is_sound else "image", values, 0, 0)
    if types.is_list(kind) or types.is_fixed_size_list(kind) or types.is_large_list(kind):
        return Column(field.name, "array", values, 0, 0)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        values = compute.utf8_trim_whitespace(values)
        filled = values.filter(compute.not_equal(values, ""))
        distinct = len(compute.unique(filled))
        sample = filled.slice(0, 2000).to_pylist()
        words = sum(len(text.split()) for text in sample) / max(1, len(sample))
        if len(filled) and compute.all(compute.match_substring_regex(filled, PICTURE)).as_py():
            return Column(field.name, "image", values, distinct, words)
        if len(filled) and compute.all(compute.match_substring_regex(filled, NUMBER)).as_py():
            values = compute.if_else(compute.equal(values, ""), pyarrow.scalar(None, values.type), values)
            return Column(field.name, "number", values.cast("float64"), distinct, 0)
        values = compute.if_else(compute.equal(values, ""), pyarrow.scalar(None, values.type), values)
        if distinct <= max(MOST_CATEGORIES, len(filled) // 20) and (words < 4 or distinct < 20):
            return Column(field.name, "category", values, distinct, words)
        alone = distinct == len(filled) and words < 1.2
        return Column(
            field.name,
            "identifier" if field.name.lower() in IDENTIFIERS or alone else "text",
            values,
            distinct,
            words,
        )
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        distinct = len(compute.unique(values))
        name = field.name
        numbered = name.lower() in IDENTIFIERS or name.endswith(("_id", "Id", "ID"))
        unique = distinct == len(values) and types.is_integer(kind)
        return Column(name, "identifier" if numbered and unique else "number", values, distinct, 0)
    return Column(field.name, "other", values, 0, 0)


def label_of(
    known: Mapping[str, Column], columns: Columns, features: Mapping[str, Mapping[str, Any]], where: str
) -> str:
    """The column with the labels."""
    if columns.label_column:
        return checked(columns.label_column, known, "--label-column")
    by_name = {name.lower().strip(): name for name in reversed(list(known))}
    taken = {name.lower() for name in columns.input_columns}
    if found := next((by_name[name] for name in LABELS if name in by_name and name not in taken), None):
        return found
    named = [
        name for name, feature in features.items() if feature.get("_type") == "ClassLabel" and name in known
    ]
    ending = [
        name
        for name in known
        if re.fullmatch(
            r".+[ _-](label|class|target|category)|(label|class|target)[ _-].+", name.lower().strip()
        )
    ]
    for candidates in (named, ending):
        if len(candidates) == 1:
            return candidates[0]
    doubt = f" It may be {' or '.join(named or ending)}." if named or ending else ""
    raise WrongInput(
        f"which column of {where} is the label?{doubt} Name it with --label-column NAME. The columns are: "
        f"{listed([str(column) for column in known.values()], 40)}."
    )


def checked(name: str, known: Mapping[str, Column], flag: str) -> str:
    """A name that a flag gave. Errors: WrongInput where there is no such column."""
    if name not in known:
        raise WrongInput(f"{flag}: {unknown('column', name, known)}")
    return name


def split_of(known: Mapping[str, Column], columns: Columns, guess: bool) -> str:
    """The column that divides the examples; "" where there is none."""
    if columns.split_column:
        return checked(columns.split_column, known, "--split-column")
    for name, column in known.items():
        if guess and name.lower() in PARTED and column.kind == "category":
            found = {str(value).lower() for value in column.values.unique().to_pylist()}
            if found <= WORDS.keys() and len(found) > 1:
                return name
    return ""


def parts_of(values: Sequence[Any], name: str) -> list[Part]:
    """The part of each example, by a column. Errors: WrongInput for words that are no parts."""
    wrong = sorted({repr(value) for value in values if str(value).lower() not in WORDS})
    if wrong:
        raise WrongInput(
            f"the column {name!r} has the values {listed(wrong)}; allowed are train, validation and test."
        )
    return [WORDS[str(value).lower()] for value in values]


def inputs_of(
    known: Mapping[str, Column], taken: set[str], columns: Columns, where: str
) -> tuple[list[Column], dict[str, list[str]]]:
    """The columns that the network sees, and why others are left out."""
    if columns.input_columns:
        names = [checked(name, known, "--input-columns") for name in columns.input_columns]
        if twice := taken & set(names):
            raise WrongInput(f"{listed(sorted(twice))} cannot be an input: it is the label or the split.")
        return [known[name] for name in names], {}
    free = [column for name, column in known.items() if name not in taken]
    by_kind: dict[str, list[Column]] = {}
    for column in free:
        by_kind.setdefault(column.kind, []).append(column)
    chosen: list[Column]
    for kind in ("image", "sound", "array"):
        if len(several := by_kind.get(kind, [])) > 1:
            raise WrongInput(
                f"{where} has several columns of {kind}s: {listed([str(one) for one in several])}. Choose:"
                " --input-columns NAME."
            )
        if several:
            return several, why_not(free, several, f"the {kind} is the input")
    texts = by_kind.get("text", [])
    features = by_kind.get("number", []) + by_kind.get("category", [])
    likely = [column for column in texts if column.name.lower() in TEXTS]
    if texts and (likely or not features or (len(texts) == 1 and texts[0].words > 8 and len(features) < 3)):
        chosen = likely[:1] if len(likely) == 1 else texts
        if len(chosen) > 1:
            raise WrongInput(
                f"{where} has several columns of texts: {listed([str(one) for one in chosen])}. Choose:"
                f" --input-columns {chosen[0].name}; or have some joined: --input-columns"
                f" {','.join(column.name for column in chosen[:2])}."
            )
        return chosen, why_not(free, chosen, "the text is the input")
    if features:
        chosen = [column for column in free if column in features]
        return chosen, why_not(free, chosen, "")
    if len(strings := by_kind.get("identifier", []) + texts) == 1 and strings[0].words:
        return strings, why_not(free, strings, "")
    raise WrongInput(
        f"which columns of {where} are the inputs? Name them with --input-columns A,B. The columns are: "
        f"{listed([str(column) for column in known.values()], 40)}."
    )


def why_not(free: Sequence[Column], chosen: Sequence[Column], reason: str) -> dict[str, list[str]]:
    """The columns that were not chosen, by reason."""
    reasons: dict[str, list[str]] = {}
    for column in free:
        if column not in chosen:
            by_kind = {
                "identifier": "all values differ: an identifier",
                "text": "free text or too many categories",
            }
            why = by_kind.get(column.kind, reason or f"the type {column.values.type} is not understood")
            reasons.setdefault(reason if reason and column.kind != "identifier" else why, []).append(
                column.name
            )
    return reasons


def labels_of(column: Column, where: str) -> list[Any]:
    """The labels as plain values. Errors: WrongInput where an example has several."""
    if column.kind in ("array", "image", "sound", "other"):
        raise WrongInput(
            f"the label column {column} of {where} holds no single class for each example. Several labels for"
            " one example are not supported; name a column with one: --label-column NAME."
        )
    return list(column.values.to_pylist())


def made(inputs: Sequence[Column], where: str, columns: Columns) -> Examples:
    """The inputs of the chosen columns; labels and parts are filled in by the caller."""
    kinds = {column.kind for column in inputs}
    first = inputs[0]
    if kinds <= {"number", "category"}:
        return Examples(Features(tuple(inputs)), (), (), where)
    if len(inputs) > 1 and not kinds <= {"text", "category", "identifier"}:
        raise WrongInput(
            f"{listed([str(one) for one in inputs])} cannot be inputs together: wanted numbers and"
            " categories, texts, or one column."
        )
    if first.kind in ("image", "sound"):
        files = packed(
            first.values, len(first.values), columns.path if columns.path.is_dir() else columns.path.parent
        )
        names = [f"row {row}" for row in range(len(files))]
        return (
            images.examples_of(files, names, where, columns.image_size)
            if first.kind == "image"
            else sound.examples_of(files, names, where)
        )
    if first.kind == "array":
        values, note = arrays.inputs_of(nested(first), first.name)
        return Examples(values, (), (), where, notes=(note,) if note else ())
    if "other" in kinds:
        raise WrongInput(
            f"{listed([str(one) for one in inputs])}: this type is not understood; wanted numbers, texts,"
            " images, WAV files or lists."
        )
    rows = zip(*(column.values.to_pylist() for column in inputs), strict=True)
    texts = [" | ".join(entry or "" for entry in row) for row in rows]
    empty = sum(not text.strip(" |") for text in texts)
    return Examples(
        np.array(texts, object), (), (), where, notes=(f"{empty} texts are empty",) if empty else ()
    )


def packed(values: "ChunkedArray", most: int, folder: Path | None = None) -> list[bytes]:
    """The files in the first `most` entries: bytes, or the file at their path in a folder; b"" where there is
    none.
    """
    found = []
    for entry in values.slice(0, most).to_pylist():
        content, path = (entry.get("bytes"), entry.get("path")) if isinstance(entry, dict) else (entry, None)
        if isinstance(content, str):
            content, path = None, content
        if content is None and path and folder is not None and (folder / path).is_file():
            content = (folder / path).read_bytes()
        found.append(bytes(content or b""))
    return found


def nested(column: Column) -> Array:
    """Lists of equal length as an array. Errors: WrongInput where they differ, are missing or hold no
    numbers.
    """
    from pyarrow import compute, types

    values, sizes = column.values.combine_chunks(), [len(column.values)]
    while (
        types.is_list(values.type)
        or types.is_fixed_size_list(values.type)
        or types.is_large_list(values.type)
    ):
        lengths = compute.unique(compute.list_value_length(values)).to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise WrongInput(
                f"the lists in {column} have different lengths ({listed([str(one) for one in lengths])});"
                " wanted equal ones."
            )
        sizes.append(lengths[0])
        values = compute.list_flatten(values)
    if (
        not (types.is_integer(values.type) or types.is_floating(values.type) or types.is_boolean(values.type))
        or values.null_count
    ):
        raise WrongInput(
            f"the lists in {column} hold {values.type}{' with gaps' if values.null_count else ''}; wanted"
            " numbers."
        )
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(sizes)
