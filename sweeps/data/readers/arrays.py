"""Arrays: the named arrays of a `.npz` file, or those that a function returns, as examples."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.data.dataset import Array
from sweeps.data.readers.examples import WORDS, Examples, Part, listed
from sweeps.errors import WrongInput

INPUTS = ("x", "inputs", "images", "image", "features", "data", "texts", "text", "sentences", "samples")
LABELS = ("y", "labels", "label", "targets", "target", "classes")
NAMES = ("class_names", "label_names", "target_names", "names")
WANTED = (
    "wanted the inputs as x, inputs, images, features, data or texts and the labels as y, labels or targets, "
    "with train, val or test before or behind where there are several parts, such as x_train"
)
ROUNDED = 1e-4


def read(path: Path) -> dict[str, Array]:
    """The arrays of a file. Errors: WrongInput where it is no `.npz`, and where it holds Python objects,
    which could run code when read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise WrongInput(f"cannot read {path}: {error}") from error
    except (ValueError, AttributeError) as error:
        raise WrongInput(
            f"{path} holds Python objects or no arrays by name, which are not read: {error} Save plain arrays"
            " with np.savez_compressed(path, x=…, y=…); texts as np.array(texts), which is of type str."
        ) from error


def examples_of(arrays: Mapping[str, Array], where: str) -> Examples:
    """Inputs and labels of all parts. Errors: WrongInput, listing the arrays, where their names do not show
    inputs and labels.
    """
    found = paired(arrays, where)
    notes = []
    if "labels" not in found.get("test", {"labels": ""}):
        notes.append("the test inputs have no labels and are left out")
        del found["test"]
    inputs: list[Array] = []
    humans: list[Array] = []
    labels: list[Any] = []
    parts: list[Part] = []
    for part, pair in found.items():
        values, own = np.asarray(arrays[pair["inputs"]]), np.asarray(arrays[pair["labels"]])
        if own.ndim == 2 and own.shape[1] == 1:
            own = own[:, 0]
        if len(values) != len(own) or values.ndim == 0:
            raise WrongInput(
                f"{where} has {len(values)} inputs in {pair['inputs']!r} and {len(own)} labels in"
                f" {pair['labels']!r}."
            )
        if own.ndim == 2:
            own, human, note = soft(own, pair["labels"])
            humans += [] if human is None else [human]
            notes.append(note)
        elif own.ndim != 1:
            raise WrongInput(
                f"the labels {pair['labels']!r} have shape {own.shape}; wanted one for each example."
            )
        values, note = inputs_of(values, pair["inputs"])
        notes += [note] if note and note not in notes else []
        parts += [part] * len(own)
        inputs.append(values)
        labels += own.tolist()
    if len({values.shape[1:] for values in inputs}) > 1:
        raise WrongInput(f"the parts of {where} have inputs of different shapes: {described(arrays)}.")
    names: tuple[str, ...] = ()
    for name in NAMES:
        if name in arrays:
            names = tuple(str(one) for one in np.asarray(arrays[name]).tolist())
    human = np.concatenate(humans) if humans and sum(map(len, humans)) == len(labels) else None
    named = "; ".join(f"{part}: {pair['inputs']} and {pair['labels']}" for part, pair in found.items())
    return Examples(
        np.concatenate(inputs), labels, parts, where, names, human, notes=(f"read {named}", *notes)
    )


def paired(arrays: Mapping[str, Array], where: str) -> dict[Part, dict[str, str]]:
    """The names of inputs and labels in each part. Errors: WrongInput where they are not clear."""
    found: dict[Part, dict[str, str]] = {}
    for name in arrays:
        part, stem = parted(name)
        kind = "inputs" if stem in INPUTS else "labels" if stem in LABELS else ""
        if kind:
            if kind in found.setdefault(part, {}):
                raise WrongInput(
                    f"{where} has both {found[part][kind]!r} and {name!r}; {WANTED}. It has"
                    f" {described(arrays)}."
                )
            found[part][kind] = name
    halves = [
        part
        for part, pair in found.items()
        if len(pair) < 2 and not (part == "test" and "labels" not in pair)
    ]
    if "train" not in found or halves:
        raise WrongInput(
            f"which arrays of {where} are inputs and labels? It has {described(arrays)}; {WANTED}."
        )
    return found


def parted(name: str) -> tuple[Part, str]:
    """The part of the data that a name speaks of, and the rest of it: `x_train`, `train_images`, `X`."""
    words = re.split(r"[_\-. ]+", name.lower())
    if len(words) == 1 and (match := re.fullmatch(r"(x|y)(train|test|val|valid|dev)", words[0])):
        words = list(match.groups())
    own = [word for word in words if word in WORDS]
    rest = "_".join(word for word in words if word not in WORDS)
    return (WORDS[own[0]] if own else "train"), rest


def described(arrays: Mapping[str, Array]) -> str:
    """Names, shapes and types of arrays."""
    return (
        listed([f"{name} {np.shape(array)} {np.asarray(array).dtype}" for name, array in arrays.items()], 20)
        or "no arrays"
    )


def soft(labels: Array, name: str) -> tuple[Array, Array | None, str]:
    """Classes of labels that are one number for each class: the largest one's; with the distribution where
    it is none of 0 and 1 alone.
    """
    shares = labels.astype(np.float64)
    if shares.min() < 0 or not np.allclose(shares.sum(1), 1, atol=ROUNDED):
        raise WrongInput(
            f"the labels {name!r} have shape {labels.shape} and are no distributions over classes; wanted one"
            " label for each example."
        )
    if np.isin(labels, (0, 1)).all():
        return shares.argmax(1), None, f"{name} is one-hot: the class is the place of the 1"
    return (
        shares.argmax(1),
        shares.astype(np.float32),
        f"{name} is a distribution for each example: the class is the likeliest, and it is kept",
    )


def inputs_of(values: Array, name: str) -> tuple[Array, str]:
    """Inputs as `RawData` takes them: texts, images with the channel first, features; and a note on changes.

    Errors: WrongInput for objects, for numbers that are not finite, and for examples of nothing.
    """
    kind = values.dtype.kind
    if kind == "O" and values.size and all(isinstance(value, str) for value in values.flat):
        kind = "U"
    if kind in "UT":
        if values.ndim != 1:
            raise WrongInput(
                f"the texts {name!r} have shape {values.shape}; wanted one text for each example."
            )
        return values.astype(object), ""
    if kind not in "biuf":
        raise WrongInput(f"the inputs {name!r} are of type {values.dtype}; wanted numbers or texts.")
    if values.size == 0:
        raise WrongInput(f"the inputs {name!r} are empty: {values.shape}.")
    if kind == "f":
        wrong = ~np.isfinite(values)
        if wrong.any():
            row = int(np.flatnonzero(wrong.reshape(len(values), -1).any(1))[0])
            raise WrongInput(
                f"the inputs {name!r} have {int(wrong.sum())} numbers that are NaN or infinite, the first in"
                f" row {row}. Repair them."
            )
    if kind == "b":
        values = values.astype(np.uint8)
    if (
        values.dtype == np.float64
        or values.dtype == np.float16
        or (kind in "iu" and values.dtype.itemsize > 2)
    ):
        values = values.astype(np.float32)
    if values.dtype == np.uint16 or values.dtype == np.int8:
        values = values.astype(np.float32)
    if values.ndim == 1:
        return values[:, None], ""
    if values.ndim == 3 and (values.dtype == np.uint8 or values.shape[1] == values.shape[2]):
        return values[:, None], f"{name} {values.shape} are grey images"
    if values.ndim == 4 and values.shape[-1] in (1, 3, 4) and values.shape[1] not in (1, 3, 4):
        return (
            np.ascontiguousarray(values.transpose(0, 3, 1, 2)),
            f"{name} {values.shape} are images with the channel last",
        )
    if values.ndim == 4:
        return values, f"{name} {values.shape} are images with the channel first"
    return (
        values,
        "" if values.ndim == 2 else f"{name} {values.shape} are no images: a network sees them as they are",
    )
