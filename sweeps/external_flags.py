"""Command-line flags of user-supplied data sets and architectures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.data.builtin import DATASETS
from sweeps.data.readers.python_source import FILE, names_code
from sweeps.data.readers.spec import Columns, check_name, name_of
from sweeps.errors import WrongInput
from sweeps.models.builtin import ARCHITECTURES

OF_COLUMNS = ("label_column", "input_columns", "split_column", "image_size", "drop_rare_classes", "tokenizer")


def supplied(options: dict[str, Any]) -> dict[str, Any]:
    """Take the flags out of the options; the keys `datasets` and `architectures` of a plan. Errors:
    WrongInput.
    """
    spec, name = options.pop("dataset", None), options.pop("name", None)
    given = {key: options.pop(key) for key in OF_COLUMNS if key in options}
    keys: dict[str, Any] = {}
    if spec is None and (given or name is not None):
        raise WrongInput(
            f"--{next(iter(given or {'name': name})).replace('_', '-')} describes a user-supplied data set;"
            " give that with --dataset."
        )
    if spec is not None:
        own = check_name("the data set", name) if name is not None else free(name_of(spec), spec, DATASETS)
        keys["datasets"] = {own: {"source": spec, **given}}
    if specs := options.pop("architecture", None):
        keys["architectures"] = dict(named(text) for text in specs)
    return keys


def named(text: str) -> tuple[str, str]:
    """The name and the spec of an architecture: `NAME=SPEC`, or SPEC, whose name is the last word of it."""
    name, given, spec = text.partition("=")
    if given:
        return check_name("the architecture", name), spec
    if match := FILE.fullmatch(text):
        return free(name_of(match["name"]), text, ARCHITECTURES), text
    return free(name_of(text.removesuffix(":fresh").removesuffix("/config.json")), text, ARCHITECTURES), text


def free(name: str, spec: str, known: Mapping[str, Any]) -> str:
    """The name that a spec goes by: another one where something of ours is called so; that is meant where
    the spec is the name itself.
    """
    return f"own_{name}" if name in known and (spec != name or Path(spec).exists()) else name


def words(datasets: Mapping[str, Columns], architectures: Mapping[str, str], task: str) -> list[str]:
    """Flags that supply a task's data set and architecture to a worker; paths are
    absolute.
    """
    dataset, _, architecture = task.partition("/")
    found: list[str] = []
    if dataset in datasets:
        own = datasets[dataset].to_mapping()
        found += ["--dataset", absolute(own["source"]), "--name", dataset]
        for key in OF_COLUMNS:
            if key in own:
                flag = f"--{key.replace('_', '-')}"
                value = (
                    ",".join(own[key])
                    if key == "input_columns"
                    else absolute(own[key])
                    if key == "tokenizer"
                    else str(own[key])
                )
                found += [flag] if own[key] is True else [flag, value]
    if architecture in architectures:
        spec = architectures[architecture]
        folder = spec.removeprefix("hf:")
        found += [
            "--architecture",
            f"{architecture}={'hf:' + absolute(folder) if spec.startswith('hf:') else spec}",
        ]
    return found


def absolute(source: str) -> str:
    """A path that means the same from any working directory; what is no path as it is."""
    if match := FILE.fullmatch(source):
        return f"{Path(match['folder']).expanduser().absolute()}/{match['module']}.py:{match['name']}"
    path = Path(source).expanduser()
    return str(path.absolute()) if path.exists() and not names_code(source) else source


def check_used(
    datasets: Mapping[str, Columns], architectures: Mapping[str, str], tasks: Sequence[str]
) -> None:
    """Errors: WrongInput where something is supplied that no task uses."""
    used = {part for task in tasks for part in task.split("/")}
    for kind, names in (("data set", datasets), ("architecture", architectures)):
        for name in names:
            if name not in used:
                other = f"{name}/mlp" if kind == "data set" else f"digits/{name}"
                raise WrongInput(
                    f"the {kind} {name!r} is given, but no task uses it: {', '.join(tasks)}. Name one such"
                    f" as {other}, or no TASK."
                )
