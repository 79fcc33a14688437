"""Settings: plain values, as they come from YAML and flags, to a Plan. Everything that may be wrong with them
is found here.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from sweeps.data.builtin import DATASETS
from sweeps.data.readers.examples import listed
from sweeps.data.readers.spec import NAME
from sweeps.errors import WrongInput, unknown
from sweeps.external import (
    Brought,
    bring_architectures,
    bring_datasets,
    recipe_for,
    seen,
    usual_tasks,
    yields_of,
)
from sweeps.external_flags import brought
from sweeps.models.builtin import ARCHITECTURES
from sweeps.plan import LAUNCHES, Plan
from sweeps.task import OPTIMISERS, PRECISIONS, Execution, Recipe, Task
from sweeps.training.smoothing_kinds import DEFAULT_CHOICE, STRENGTHS, parsed
from tracking.decision.policies import POLICIES
from tracking.decision.prices import Prices
from tracking.decision.terms import Tolerances

LEAST_GRACE = 3.0
TUNABLE = ("learning_rate", "weight_decay", "smoothing")
RECIPE_KEYS = tuple(f.name for f in fields(Recipe))
NEAR = 4
"""Alternatives that are named for a task that is not possible."""


def merge(flags: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Flags win over the plan's YAML, that wins over the environment."""
    environment = {
        "storage": os.environ.get("OPTUNA_STORAGE"),
        "tracking_uri": os.environ.get("MLFLOW_TRACKING_URI"),
        "data_dir": os.environ.get("LSCAL_DATA"),
        "state_dir": os.environ.get("LSCAL_STATE"),
    }
    given = {key: value for key, value in flags.items() if value != []}
    for key, own in brought(given).items():
        given[key] = {**(plan.get(key) or {}), **own}
    if given.get("workers", "auto") != "auto" and str(given["workers"]).isdigit():
        given["workers"] = int(given["workers"])
    if "effect" in given:
        given["effect"] /= 100
    if "prices" in given:
        given["prices"] = prices_of(given["prices"])
    if "tune" in given:
        given["tune"] = {name: value for text in given["tune"] for name, value in tuned(text)}
    return {**{key: value for key, value in environment.items() if value}, **plan, **given}


def tuned(text: str) -> list[tuple[str, str | None]]:
    """`NAME=LOW:HIGH`, `smoothing=NAME,NAME`, or names whose ranges are not given."""
    name, given, value = text.partition("=")
    return [(name, value)] if given else [(name, None) for name in text.split(",")]


def prices_of(text: str) -> dict[str, str]:
    """`WRONG:REVIEW:RIGHT` as the mapping which a plan has."""
    words = text.split(":")
    if len(words) != 3:
        raise WrongInput(f"--prices is {text!r}; wanted WRONG:REVIEW:RIGHT, such as 1:0.1:0.")
    return dict(zip(("wrong", "review", "right"), words, strict=True))


def read_yaml(path: str) -> dict[str, Any]:
    """The mapping in a YAML plan. Errors: WrongInput, naming the file."""
    try:
        with open(path, encoding="utf-8") as stream:
            loaded = yaml.safe_load(stream)
    except OSError as error:
        raise WrongInput(f"cannot read the plan {path!r}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WrongInput(f"the plan {path!r} is not YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise WrongInput(f"the plan {path!r} holds no mapping; it should have lines such as 'trials: 16'.")
    return loaded


def resolve(values: Mapping[str, Any]) -> Plan:
    """A Plan from plain values, as they come from YAML and flags. What is absent takes its default.

    A recipe's field (epochs, batch_size, …) applies to every task; inside an entry of `tasks`, to that task.
    Errors: WrongInput for any key, name, type or range that is not allowed.
    """
    known = {f.name for f in fields(Plan)} | set(RECIPE_KEYS)
    for key in values:
        if key not in known:
            raise unknown("plan key", str(key), known)
    given = {key: value for key, value in values.items() if value is not None}
    everywhere = {key: given.pop(key) for key in RECIPE_KEYS if key in given}
    given["tasks"] = resolve_tasks(given, everywhere)
    given["epsilon"] = read_range("epsilon", given.get("epsilon", Plan.epsilon))
    tune = given.get("tune", {})
    if not isinstance(tune, Mapping):
        raise WrongInput(f"tune is {tune!r}; wanted a mapping such as {{learning_rate: [0.001, 0.01]}}.")
    for key in tune:
        if key not in TUNABLE:
            raise unknown("tunable value", str(key), TUNABLE)
    given["tune"] = {
        key: None if value is None else read_range(key, value)
        for key, value in tune.items()
        if key != "smoothing"
    }
    if "smoothing" in tune:
        given["smoothing"] = DEFAULT_CHOICE if tune["smoothing"] is None else tune["smoothing"]
    given["smoothing"] = read_smoothings(given.get("smoothing", Plan.smoothing))
    given["tolerances"] = Tolerances(**read_numbers("tolerances", given.get("tolerances", {}), Tolerances))
    given["prices"] = read_prices(given.get("prices", {}))
    if given.get("workers", "auto") != "auto":
        read_count("workers", given["workers"], 0)
    for key in ("effect", "price_per_hour", "grace", "gpus_per_worker"):
        if key in given:
            given[key] = read_number(key, given[key])
    if not 0 < given.get("effect", Plan.effect) < 1:
        raise WrongInput(
            f"effect is {given['effect']!r}; allowed is a share between 0 and 1: 0.003 is 0.3 percentage"
            " points."
        )
    if (given.get("price_per_hour") or 0) < 0:
        raise WrongInput(f"price_per_hour is {given['price_per_hour']!r}; allowed is a number of at least 0.")
    for key, least in (
        ("trials", 2),
        ("seeds", 1),
        ("confirm_seeds", 2),
        ("train_examples", 2),
        ("random_state", 0),
    ):
        if key in given:
            read_count(key, given[key], least)
    if given.get("grace", LEAST_GRACE) < LEAST_GRACE:
        raise WrongInput(
            f"grace is {given['grace']!r}; allowed is a number of seconds of at least {LEAST_GRACE:g}."
        )
    if given.get("gpus_per_worker", 1) <= 0:
        raise WrongInput(
            f"gpus_per_worker is {given['gpus_per_worker']!r}; allowed is a number above 0, such as 1 or"
            " 0.25."
        )
    for key in (
        "policy",
        "device",
        "precision",
        "execution",
        "storage",
        "tracking_uri",
        "data_dir",
        "launch",
        "ray_address",
        "state_dir",
        "start_from",
    ):
        if key in given and not (isinstance(given[key], str) and given[key]):
            raise WrongInput(f"{key} is {given[key]!r}; wanted some text.")
    if not isinstance(given.get("rungs", True), bool):
        raise WrongInput(f"rungs is {given['rungs']!r}; wanted true or false.")
    plan = Plan(**given)
    low, high = plan.epsilon
    if not low < high < 1:
        raise WrongInput(
            f"epsilon is {low:g}:{high:g}; allowed is LOW:HIGH with LOW < HIGH < 1; below 0 the label gets"
            " more than all."
        )
    if low < 0 and (strengths := [name for name in plan.smoothing if parsed(name).kind in STRENGTHS]):
        raise WrongInput(
            f"epsilon is {low:g}:{high:g}, but with smoothing {strengths[0]} it is a strength; allowed is 0"
            " <= LOW."
        )
    for task in plan.tasks:
        for key, (lowest, highest) in plan.ranges(task).items():
            if not 0 < lowest < highest:
                hint = (
                    ""
                    if plan.tune[key]
                    else f" The recipe of {task.name} has none; give --tune {key}=LOW:HIGH."
                )
                raise WrongInput(
                    f"tune.{key} is {lowest:g}:{highest:g}; allowed is LOW:HIGH with 0 < LOW < HIGH.{hint}"
                )
    if plan.precision not in PRECISIONS:
        raise unknown("precision", plan.precision, PRECISIONS)
    Execution.of(plan.execution)
    if plan.launch not in (None, *LAUNCHES):
        raise unknown("launch", str(plan.launch), LAUNCHES)
    if plan.policy not in POLICIES:
        raise unknown("policy", plan.policy, POLICIES)
    return plan


def resolve_tasks(given: dict[str, Any], everywhere: Mapping[str, Any]) -> tuple[Task, ...]:
    """Tasks from names, patterns such as `fashion_mnist/*`, and mappings with a `task` and recipe fields; or
    the usual ones for what is brought.

    Data sets and architectures which are brought are made known before. Those of ours which were named with
    them are taken out of `given`.
    """
    data_dir = Path(str(given["data_dir"])) if given.get("data_dir") else None
    datasets, architectures = (
        bring_datasets(given.get("datasets", {})),
        bring_architectures(given.get("architectures", {})),
    )
    entries = given["tasks"] if "tasks" in given else usual_tasks(datasets, architectures, data_dir)
    given["datasets"] = {
        name: columns for name, columns in datasets.items() if isinstance(DATASETS[name], Brought)
    }
    given["architectures"] = {name: spec for name, spec in architectures.items() if spec != name}
    if isinstance(entries, str):
        entries = [entries]
    if not isinstance(entries, (list, tuple)) or not entries:
        raise WrongInput(f"tasks is {entries!r}; wanted a list such as [digits/mlp].")
    tasks: dict[str, Task] = {}
    for entry in entries:
        own: Mapping[str, Any] = {"task": entry} if isinstance(entry, str) else entry
        if not isinstance(own, Mapping) or not isinstance(own.get("task"), str):
            raise WrongInput(
                f"a task is {entry!r}; wanted a name such as digits/mlp, or a mapping with the key 'task'."
            )
        for key in own:
            if key not in ("task", *RECIPE_KEYS):
                raise unknown("task key", str(key), ("task", *RECIPE_KEYS))
        changes = {key: value for key, value in own.items() if key != "task"} | dict(everywhere)
        for name in matching(own["task"], data_dir):
            dataset, architecture = name.split("/")
            recipe = ARCHITECTURES[architecture].recipe(dataset)
            if not {"epochs", "batch_size"} <= changes.keys():
                recipe = recipe_for(recipe, dataset, architecture, data_dir, given.get("train_examples"))
            tasks[name] = Task(dataset, architecture, revise(recipe, changes), given.get("start_from"))
    return tuple(tasks.values())


def matching(pattern: str, data_dir: Path | None = None) -> list[str]:
    """The task names which a name or a pattern stands for: the possible ones, whose network reads what the
    data set yields.

    For a pattern, data sets which were brought are looked at where nothing is said about them; a name with
    one is taken at its word. Errors: WrongInput where there is no such task, or none that is possible.
    """
    names = [f"{dataset}/{architecture}" for dataset in DATASETS for architecture in ARCHITECTURES]
    found = [name for name in names if fnmatchcase(name, pattern)]
    if found:
        if possible := [name for name in found if is_possible(name, data_dir, look=name != pattern)]:
            return possible
        raise impossible(pattern, found[0])
    dataset, slash, architecture = pattern.partition("/")
    if slash and dataset not in DATASETS and "*" not in dataset:
        raise not_brought("dataset", dataset, DATASETS, f"--dataset PATH --name {dataset}")
    if slash and architecture not in ARCHITECTURES and "*" not in architecture:
        raise not_brought(
            "architecture",
            architecture,
            ARCHITECTURES,
            f"--architecture {architecture}=package.module:function",
        )
    raise unknown("task", pattern, filter(is_possible, names))


def is_possible(name: str, data_dir: Path | None = None, *, look: bool = False) -> bool:
    """Whether the network of a task reads what its data set yields. What is not known is taken for possible,
    or looked at.
    """
    dataset, architecture = name.split("/")
    yields = yields_of(dataset) or (
        seen(dataset, data_dir) if look and isinstance(DATASETS[dataset], Brought) else None
    )
    return ARCHITECTURES[architecture].reads.takes(yields)


def impossible(pattern: str, name: str) -> WrongInput:
    """The error for a name of a task that cannot work, or for a pattern of such names, of which `name` is the
    first.
    """
    dataset, architecture = name.split("/")
    networks = sorted(one for one in ARCHITECTURES if is_possible(f"{dataset}/{one}"))
    datasets = sorted(one for one in DATASETS if is_possible(f"{one}/{architecture}"))
    why = (
        f"{architecture} reads {ARCHITECTURES[architecture].reads}, and {dataset} yields"
        f" {yields_of(dataset) or 'something else'}"
    )
    with_dataset = (
        f"With {dataset} go {listed(networks, NEAR)}" if networks else f"No network here reads {dataset}"
    )
    with_network = (
        f"with {architecture} go {listed(datasets, NEAR)}"
        if datasets
        else f"{architecture} reads no data set here"
    )
    told = f"{name} is not possible" if name == pattern else f"no task {pattern!r} is possible"
    return WrongInput(f"{told}: {why}. {with_dataset}; {with_network}.")


def not_brought(kind: str, name: str, known: Mapping[str, Any], flags: str) -> WrongInput:
    """The error for a name that does not exist, with the flags which bring one where it could be the name of
    one.
    """
    error = unknown(kind, name, known)
    return (
        WrongInput(f"{error} To bring one of your own, on each worker too: {flags}.")
        if NAME.fullmatch(name)
        else error
    )


def revise(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with some fields changed, each checked."""
    typed: dict[str, Any] = {}
    for key, value in changes.items():
        if key in ("epochs", "batch_size"):
            typed[key] = read_count(key, value, 1)
        elif key == "optimiser":
            if value not in OPTIMISERS:
                raise unknown("optimiser", str(value), OPTIMISERS)
            typed[key] = value
        elif key == "augment":
            words = value.split(",") if isinstance(value, str) else value
            if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
                raise WrongInput(f"augment is {value!r}; wanted a list such as [flip, translate:2].")
            typed[key] = tuple(word.strip() for word in words if word.strip())
        else:
            typed[key] = read_number(key, value)
            if typed[key] < 0 or (key in ("learning_rate", "clip") and typed[key] == 0):
                raise WrongInput(
                    f"{key} is {value!r}; allowed is a number"
                    f" {'of at least' if key == 'weight_decay' else 'above'} 0."
                )
    return replace(recipe, **typed)


def read_smoothings(value: object) -> tuple[str, ...]:
    """Names of smoothings, `uniform,online@decay` or a list, each once; files are looked at later."""
    names = value.split(",") if isinstance(value, str) else value
    if (
        not isinstance(names, (list, tuple))
        or not names
        or not all(isinstance(name, str) and name for name in names)
    ):
        raise WrongInput(
            f"smoothing is {value!r}; wanted a name such as uniform, or several such as uniform,class_prior."
        )
    for name in names:
        parsed(name)
    return tuple(dict.fromkeys(names))


def read_count(key: str, value: object, least: int) -> int:
    """A whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise WrongInput(f"{key} is {value!r}; allowed is a whole number of at least {least}.")
    return value


def read_numbers(key: str, value: object, kind: type[Tolerances] | type[Prices]) -> dict[str, float]:
    """A mapping from names of fields to finite numbers. Fields which are absent take their default."""
    allowed = [entry.name for entry in fields(kind)]
    if isinstance(value, kind):
        return asdict(value)
    if not isinstance(value, Mapping):
        raise WrongInput(f"{key} is {value!r}; wanted a mapping with keys among {', '.join(allowed)}.")
    for name in value:
        if name not in allowed:
            raise unknown(key.rstrip("s"), str(name), allowed)
    return {name: read_number(f"{key}.{name}", entry) for name, entry in value.items()}


def read_prices(value: object) -> Prices:
    """Prices by which a right decision costs least and a wrong one most."""
    prices = Prices(**read_numbers("prices", value, Prices))
    if not prices.right <= prices.review < prices.wrong:
        raise WrongInput(
            f"prices are {prices.wrong:g} for a wrong decision, {prices.review:g} for a review and"
            f" {prices.right:g} for a right decision; wanted right <= review < wrong. A negative price is an"
            " income."
        )
    return prices


def read_number(key: str, value: object) -> float:
    """A finite number. YAML 1.1 reads `1e-3` as text, so text which is a number is taken as one."""
    try:
        number = (
            float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
        )
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise WrongInput(f"{key} is {value!r}; allowed is a finite number.")
    return number


def read_range(key: str, value: object) -> tuple[float, float]:
    """`LOW:HIGH` or [LOW, HIGH]."""
    ends = value.split(":") if isinstance(value, str) else value
    if not isinstance(ends, (list, tuple)) or len(ends) != 2:
        raise WrongInput(f"{key} is {value!r}; wanted LOW:HIGH, such as 0:0.4.")
    return read_number(key, ends[0]), read_number(key, ends[1])
