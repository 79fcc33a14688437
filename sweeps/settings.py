"""Settings: a Plan and a Site from plain values, as YAML and flags have them, with every check of them."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import yaml

from sweeps.errors import WrongInput, unknown
from sweeps.external import Catalogue
from sweeps.external_flags import supplied
from sweeps.plan import PLAIN_SEEDS, PLAIN_TRIALS, Plan
from sweeps.site import LAUNCHES, Site
from sweeps.task import OPTIMISERS, PRECISIONS, PinnedExecution, Recipe, Task
from sweeps.task_patterns import matching
from sweeps.training.smoothing_kinds import DEFAULT_CHOICE, STRENGTHS, dropping, parsed
from tracking.decision.policies import POLICIES
from tracking.decision.prices import Prices
from tracking.decision.terms import Tolerances

LEAST_GRACE = 3.0
TUNABLE = ("learning_rate", "weight_decay", "smoothing")
RECIPE_KEYS = tuple(f.name for f in fields(Recipe))
PLAN_KEYS, SITE_KEYS = (tuple(one.name for one in fields(kind)) for kind in (Plan, Site))
LEAST = {"trials": 2, "seeds": 1, "confirm_seeds": 2, "train_examples": 2, "random_state": 0}
"""The smallest value of each count."""


def merge(flags: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Flags win over the plan's YAML, that wins over the environment."""
    environment = {
        "storage": os.environ.get("OPTUNA_STORAGE"),
        "tracking_uri": os.environ.get("MLFLOW_TRACKING_URI"),
        "data_dir": os.environ.get("LSCAL_DATA"),
        "state_dir": os.environ.get("LSCAL_STATE"),
    }
    given = {key: value for key, value in flags.items() if value != []}
    for key, own in supplied(given).items():
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
    """`WRONG:REVIEW:RIGHT` as the mapping that a plan has."""
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
    """A Plan from plain values, as YAML and flags have them; what is absent takes its default. Keys of a Site
    are not read, but for data sets and networks.

    A recipe's field (epochs, batch_size, …) applies to every task; inside an entry of `tasks`, to that task.
    Errors: WrongInput for any key, name, type or range that is not allowed.
    """
    given = known(values)
    tasks = resolve_tasks(given)
    checked = {key: value for key, value in given.items() if key in PLAN_KEYS}
    check_texts(checked, ("policy", "precision", "execution"))
    check_numbers(checked)
    epsilon = read_range("epsilon", given.get("epsilon", Plan.epsilon))
    tune, smoothing = read_tune(given)
    tolerances = Tolerances(**read_numbers("tolerances", given.get("tolerances", {}), Tolerances))
    checked |= {"tasks": tasks, "epsilon": epsilon, "tune": tune, "smoothing": smoothing}
    checked |= {"tolerances": tolerances, "prices": read_prices(given.get("prices", {}))}
    if not dropping(smoothing):
        checked = {"trials": PLAIN_TRIALS, "seeds": PLAIN_SEEDS, **checked}
    if not isinstance(given.get("rungs", True), bool):
        raise WrongInput(f"rungs is {given['rungs']!r}; wanted true or false.")
    plan = Plan(**checked)
    check_ranges(plan)
    if plan.precision not in PRECISIONS:
        raise unknown("precision", plan.precision, PRECISIONS)
    PinnedExecution.of(plan.execution)
    if plan.policy not in POLICIES:
        raise unknown("policy", plan.policy, POLICIES)
    return plan


def site_of(values: Mapping[str, Any]) -> Site:
    """A Site from plain values, as YAML and flags have them; keys of a Plan are not read. Errors:
    WrongInput.
    """
    given = {key: value for key, value in known(values).items() if key in SITE_KEYS}
    texts = [one.name for one in fields(Site) if one.name in given and isinstance(one.default, str | None)]
    check_texts(given, [key for key in texts if key not in ("workers", "gpus_per_worker")])
    if given.get("workers", "auto") != "auto":
        read_count("workers", given["workers"], 0)
    if "gpus_per_worker" in given:
        given["gpus_per_worker"] = read_number("gpus_per_worker", given["gpus_per_worker"])
        if given["gpus_per_worker"] <= 0:
            raise WrongInput(
                f"gpus_per_worker is {given['gpus_per_worker']!r}; allowed is a number above 0, such as 1 or"
                " 0.25."
            )
    if given.get("launch") not in (None, *LAUNCHES):
        raise unknown("launch", str(given["launch"]), LAUNCHES)
    own = catalogue_of(given)
    return Site(**{**given, "datasets": own.own_datasets, "architectures": own.own_networks})


def known(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are given. Errors: WrongInput for a key of neither Plan, Site nor Recipe."""
    keys = {*PLAN_KEYS, *SITE_KEYS, *RECIPE_KEYS}
    for key in values:
        if key not in keys:
            raise unknown("plan key", str(key), keys)
    return {key: value for key, value in values.items() if value is not None}


def catalogue_of(given: Mapping[str, Any]) -> Catalogue:
    """The data sets and networks that the values can name."""
    data_dir = Path(str(given["data_dir"])) if given.get("data_dir") else None
    return Catalogue(given.get("datasets", {}), given.get("architectures", {}), data_dir)


def check_texts(given: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Errors: WrongInput for a value that should be a text, and is none."""
    for key in keys:
        if key in given and not (isinstance(given[key], str) and given[key]):
            raise WrongInput(f"{key} is {given[key]!r}; wanted some text.")


def check_numbers(given: dict[str, Any]) -> None:
    """Read the plan's numbers, in place. Errors: WrongInput for one outside of its range."""
    for key in ("effect", "price_per_hour", "grace"):
        if key in given:
            given[key] = read_number(key, given[key])
    if not 0 < given.get("effect", Plan.effect) < 1:
        raise WrongInput(
            f"effect is {given['effect']!r}; allowed is a share between 0 and 1: 0.003 is 0.3 percentage"
            " points."
        )
    if given.get("price_per_hour", 0) < 0:
        raise WrongInput(f"price_per_hour is {given['price_per_hour']!r}; allowed is a number of at least 0.")
    for key, least in LEAST.items():
        if key in given:
            read_count(key, given[key], least)
    if given.get("grace", LEAST_GRACE) < LEAST_GRACE:
        raise WrongInput(
            f"grace is {given['grace']!r}; allowed is a number of seconds of at least {LEAST_GRACE:g}."
        )


def read_tune(given: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The ranges tuned beside ε, and the kinds of smoothing."""
    tune = given.get("tune", {})
    if not isinstance(tune, Mapping):
        raise WrongInput(f"tune is {tune!r}; wanted a mapping such as {{learning_rate: [0.001, 0.01]}}.")
    for key in tune:
        if key not in TUNABLE:
            raise unknown("tunable value", str(key), TUNABLE)
    smoothing = given.get("smoothing", Plan.smoothing)
    if "smoothing" in tune:
        smoothing = DEFAULT_CHOICE if tune["smoothing"] is None else tune["smoothing"]
    ranges = {
        key: None if value is None else read_range(key, value)
        for key, value in tune.items()
        if key != "smoothing"
    }
    return ranges, read_smoothings(smoothing)


def check_ranges(plan: Plan) -> None:
    """Errors: WrongInput for a range that is empty or holds a value that is not allowed."""
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
                hint = f" The recipe of {task.name} has none; give --tune {key}=LOW:HIGH."
                raise WrongInput(
                    f"tune.{key} is {lowest:g}:{highest:g}; allowed is LOW:HIGH with 0 < LOW <"
                    f" HIGH.{'' if plan.tune[key] else hint}"
                )


def resolve_tasks(given: Mapping[str, Any]) -> tuple[Task, ...]:
    """Tasks from names, patterns such as `fashion_mnist/*`, and mappings with a `task` and recipe fields; or
    the usual ones for the given data sets and networks.
    """
    catalogue = catalogue_of(given)
    everywhere = {key: given[key] for key in RECIPE_KEYS if key in given}
    entries = given["tasks"] if "tasks" in given else catalogue.usual_tasks()
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
        changes = {key: value for key, value in own.items() if key != "task"} | everywhere
        for name in matching(own["task"], catalogue):
            dataset, architecture = name.split("/")
            recipe = catalogue.recipe(dataset, architecture)
            if not {"epochs", "batch_size"} <= changes.keys():
                recipe = catalogue.sized(recipe, dataset, architecture, given.get("train_examples"))
            tasks[name] = Task(
                dataset,
                architecture,
                revise(recipe, changes),
                given.get("start_from"),
                catalogue.loaders.get(dataset),
                catalogue.own_network(architecture),
            )
    return tuple(tasks.values())


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
    kinds = [(part.base, part.drops != (1.0, 1.0)) for part in map(parsed, dict.fromkeys(names))]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise WrongInput(
                f"smoothing is {','.join(names)}, where {kind[0]}@drop has two ranges; wanted one, such as"
                f" {kind[0]}@drop:0.1-0.6."
            )
    return tuple(dict.fromkeys(names))


def read_count(key: str, value: object, least: int) -> int:
    """A whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise WrongInput(f"{key} is {value!r}; allowed is a whole number of at least {least}.")
    return value


def read_numbers(key: str, value: object, kind: type[Tolerances] | type[Prices]) -> dict[str, float]:
    """A mapping from names of fields to finite numbers. Fields that are absent take their default."""
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
    """A finite number. YAML 1.1 reads `1e-3` as text, so text that is a number is taken as one."""
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
