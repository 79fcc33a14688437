"""User code: a function or a class that the command line names as `package.module:function`, and the examples
that a data set's function returns.

The only place where a module is imported by a name from outside: from the command line or the plan of the
person who runs it. Names that a study in a database has are never looked up here, see
`sweeps.studies.opening.join_study`.
"""

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sweeps.data.dataset import IGNORED, TEXTS, RawData
from sweeps.data.readers import arrays
from sweeps.data.readers.examples import Examples
from sweeps.errors import WrongInput

SPEC = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")
FILE = re.compile(r"(?P<folder>.*?)(?P<module>[^\W\d]\w*)\.py:(?P<name>[^\W\d]\w*)")
WANTED = (
    "wanted RawData, a pair (inputs, labels), a mapping of arrays such as {'x_train': …, 'y_train': …}, or a"
    " torch Dataset"
)


def names_code(spec: str) -> bool:
    """Whether a text looks like `package.module:function` or `folder/file.py:function`."""
    return bool(SPEC.fullmatch(spec) or FILE.fullmatch(spec))


def found(spec: str) -> Callable[..., Any]:
    """Import the object named `package.module:function` or `folder/file.py:function`. The working directory
    is searched first.

    Errors: WrongInput where there is no such module or function; errors of the module itself are raised as
    they are.
    """
    file, match = FILE.fullmatch(spec), SPEC.fullmatch(spec)
    folder = Path(file["folder"] if file else "").expanduser().resolve()
    match = file or match
    if match is None:
        raise WrongInput(
            f"{spec!r} names no function; wanted package.module:function, such as my_models:net for net in"
            " my_models.py."
        )
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    module = match["module"]
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise WrongInput(
                f"{spec}: the module {module} needs {error.name}, which is not installed here."
            ) from error
        raise WrongInput(
            f"{spec}: there is no module {error.name!r} in {folder}, nor among the installed packages."
        ) from error
    value = getattr(loaded, match["name"], None)
    if not callable(value):
        public = sorted(
            name
            for name, one in vars(loaded).items()
            if callable(one) and getattr(one, "__module__", "") == loaded.__name__
        )
        what = "nothing of that name" if value is None else f"a {type(value).__name__}"
        raise WrongInput(
            f"{spec}: {module} has {what}; wanted a function or a class. It has:"
            f" {', '.join(public) or 'none'}."
        )
    function: Callable[..., Any] = value
    return function


def version(function: Callable[..., Any]) -> str:
    """Eight hexadecimal digits that change with the file of a function; "" where it has none. What that
    imports is not looked at.
    """
    try:
        file = inspect.getsourcefile(function)
    except TypeError:  # of a compiled extension
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8] if file else ""


def examples_of(spec: str, data_dir: Path | None) -> Examples | RawData:
    """What a data set's function returns; it is called with the data directory where it takes an argument."""
    function = found(spec)
    takes = [
        one
        for one in inspect.signature(function).parameters.values()
        if one.default is one.empty and one.kind not in (2, 4)
    ]
    if len(takes) > 1:
        raise WrongInput(
            f"{spec} takes {len(takes)} arguments: {', '.join(map(str, takes))}; wanted none, or one: the"
            " data directory."
        )
    value = (
        function(data_dir)
        if takes or inspect.signature(function).parameters.keys() & {"data_dir", "_"}
        else function()
    )
    if isinstance(value, RawData):
        return checked(value, spec)
    if isinstance(value, torch.utils.data.Dataset):
        value = pairs(value, spec)
    if isinstance(value, tuple) and len(value) == 2:
        value = {"inputs": value[0], "labels": value[1]}
    if not isinstance(value, Mapping):
        raise WrongInput(f"{spec} returned {type(value).__name__}; {WANTED}.")
    return arrays.examples_of({str(name): as_array(one) for name, one in value.items()}, spec)


def pairs(dataset: Any, spec: str) -> tuple[Any, Any]:
    """All inputs and labels of a torch Dataset. Errors: WrongInput where its items are no pairs or its inputs
    differ in shape.
    """
    items = [dataset[index] for index in range(len(dataset))]
    if not items or not all(isinstance(item, (tuple, list)) and len(item) == 2 for item in items):
        raise WrongInput(
            f"the items of {spec} are {type(items[0]).__name__ if items else 'none'}; wanted pairs (input,"
            " label)."
        )
    inputs = [item[0] if isinstance(item[0], str) else np.asarray(item[0]) for item in items]
    shapes = {np.shape(one) for one in inputs}
    if len(shapes) > 1:
        raise WrongInput(
            f"the inputs of {spec} have {len(shapes)} different shapes, such as {sorted(shapes)[:3]}; wanted"
            " one."
        )
    return np.array(inputs, object if isinstance(inputs[0], str) else None), np.array(
        [int(item[1]) for item in items]
    )


def as_array(value: Any) -> Any:
    """A tensor, list, table column or array as an array; lists of texts as objects."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], str):
        return np.array(value, object)
    return np.asarray(value)


def checked(source: RawData, spec: str) -> RawData:
    """RawData that a function made, its labels as int64. Errors: WrongInput for parts that do not fit
    together.
    """
    inputs, labels = as_array(source.inputs), np.asarray(as_array(source.labels))
    classes = tuple(str(name) for name in source.classes)
    if len(inputs) != len(labels):
        raise WrongInput(f"{spec} returned {len(inputs)} inputs and {len(labels)} labels.")
    if labels.dtype.kind not in "iu" or labels.ndim not in (1, 2):
        raise WrongInput(
            f"{spec} returned labels of type {labels.dtype} and shape {labels.shape}; wanted whole numbers"
            " from 0."
        )
    known = labels[labels != IGNORED]
    if len(known) == 0 or known.min() < 0 or known.max() >= len(classes):
        span = f"from {known.min()} to {known.max()}" if len(known) else "none"
        raise WrongInput(
            f"{spec} returned labels {span} and {len(classes)} classes; wanted labels from 0 to"
            f" {len(classes) - 1}."
        )
    if not 0 <= source.test + source.validation < len(labels):
        raise WrongInput(
            f"{spec} returned {len(labels)} examples, {source.validation} to validate and {source.test} to"
            " test; none is left to train."
        )
    if inputs.dtype.kind not in TEXTS and not source.vocabulary and not isinstance(inputs, np.memmap):
        inputs = as_numbers(inputs, spec)
    return replace(source, inputs=inputs, labels=labels.astype(np.int64), classes=classes)


def as_numbers(inputs: Any, spec: str) -> Any:
    """Inputs that torch can take. Errors: WrongInput for objects, and for numbers that are not finite."""
    if inputs.dtype.kind not in "biuf":
        raise WrongInput(f"{spec} returned inputs of type {inputs.dtype}; wanted numbers or texts.")
    if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
        raise WrongInput(
            f"{spec} returned {int((~np.isfinite(inputs)).sum())} inputs that are NaN or infinite. Repair"
            " them."
        )
    return inputs if inputs.dtype in (np.uint8, np.float32) else inputs.astype(np.float32)
