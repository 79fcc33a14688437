"""Opening of studies: new, resumed, or begun on another machine."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import optuna
from optuna.samplers import TPESampler

from sweeps.errors import WrongInput
from sweeps.plan import Plan, short_digest
from sweeps.settings import SITE_KEYS, resolve
from sweeps.studies import queries
from sweeps.studies.design import seeds_of
from sweeps.studies.progress import BASE, BESIDE
from sweeps.studies.retrying_storage import RetryingStorage
from sweeps.studies.study import Study
from sweeps.task import Task
from tracking.mlflow.client import shown
from tracking.records.outcome import Stage
from tracking.records.point import Point

DIRECTIONS: tuple[Literal["maximize"], Literal["minimize"]] = ("maximize", "minimize")
"""Of accuracy and ECE, both on *select*."""
SETTINGS, CLOSED = "settings", "closed"


def open_study(storage: RetryingStorage, plan: Plan, task: Task, digest: str) -> tuple[Study, str]:
    """Open or resume the screening study of a task; the message tells which, and what changed since the last
    plan.
    """
    science = plan.science(task, digest)
    name = f"{task.name}@{short_digest(science)}"
    storage.use_grace(plan.grace)
    summaries = [
        s for s in optuna.get_all_study_summaries(storage=storage) if s.user_attrs.get("task") == task.name
    ]
    known = {summary.study_name: summary for summary in summaries}
    study = create(storage, plan, name)
    opened = screening_of(study, storage, plan, task)
    if name in known:
        message = f"resumes study {name}"
    else:
        message = f"new study {name}"
        if summaries:
            last = max(summaries, key=lambda summary: str(summary.user_attrs["created"]))
            message += (
                f", as the plan differs from {last.study_name}:"
                f" {changes(json.loads(last.user_attrs['plan']), science)}"
            )
        opened.note_once("plan", json.dumps(science))
        opened.note_once("created", f"{time.time():.3f}")
        opened.note_once("task", task.name)  # last: a study with a task has the others
    opened.note(SETTINGS, replace(plan, tasks=(task,)).to_mapping())
    opened.note(CLOSED, None)
    if name in known:
        message += f": {len(opened.outcomes())} trials are finished, {opened.unfinished()} are to do"
    return opened, message


def known_study(storage: RetryingStorage, plan: Plan, task: Task, digest: str) -> Study | None:
    """The screening study of a task as it is, without a change; None where it was not begun."""
    try:
        study = load_known(storage, f"{task.name}@{short_digest(plan.science(task, digest))}")
    except KeyError:
        return None
    return screening_of(study, storage, plan, task)


def open_stage(screening: Study, stage: Stage, points: Sequence[Point], first: int, seeds: int) -> Study:
    """A study beside the screening's, which holds queued points only: trained with the stage's seeds number
    `first` to `first + seeds - 1`.
    """
    name = f"{screening.name}/{stage}-{first}-{first + seeds}"
    study = create(screening.storage, screening.plan, name)
    seeds_used = seeds_of(screening.plan, stage, seeds, first)
    opened = Study(study, screening.storage, screening.plan, screening.task, stage, seeds_used)
    opened.enqueue(points)
    return opened


def open_sweeps(storage: RetryingStorage) -> list[str]:
    """The names of the sweeps which are under way."""
    found = [study for study in storage.get_all_studies() if BASE.fullmatch(study.study_name)]
    return [
        study.study_name
        for study in found
        if SETTINGS in study.user_attrs and not study.user_attrs.get(CLOSED)
    ]


def join_study(storage: RetryingStorage, name: str, own: Mapping[str, Any]) -> Study:
    """The screening study of a sweep that was begun elsewhere, with the plan that is kept in it, and this
    machine's `own` keys of a plan.

    Errors: WrongInput where there is no such study, or its plan cannot be read.
    """
    if not BASE.fullmatch(name):
        raise WrongInput(
            f"a sweep is named {name!r}; wanted dataset/architecture@ and eight hexadecimal digits, as"
            " sweeps.status prints."
        )
    try:
        study = load_known(storage, name)
    except KeyError as error:
        raise WrongInput(
            f"there is no sweep {name!r} in {shown(storage.url)}; there are:"
            f" {', '.join(open_sweeps(storage)) or 'none'}."
        ) from error
    settings = study.user_attrs.get(SETTINGS)
    if not isinstance(settings, dict):
        raise WrongInput(
            f"study {name} keeps no plan that a worker could join; start it again with sweeps.run."
        )
    portable = {key: value for key, value in settings.items() if key not in SITE_KEYS}
    plan = resolve({**portable, **own})  # a site in a database is not read: it could name code
    task = plan.tasks[0]
    set_sampler(study, plan)
    return screening_of(study, storage, plan, task)


def busy_stages(screening: Study) -> list[Study]:
    """The studies of a sweep which may have something to do: the screening's, and those beside it which hold
    queued or running trials.
    """
    base = f"{screening.name}/"
    storage = screening.storage

    def names() -> list[str]:
        with storage.engine.connect() as connection:
            return list(
                connection.execute(queries.BUSY_STAGES, {"length": len(base), "base": base}).scalars()
            )

    stages = [screening]
    for name in sorted(storage.retrying(names)):
        if match := BESIDE.fullmatch(name.removeprefix(base)):
            stage: Stage = "pilot" if match["stage"] == "pilot" else "confirm"
            first, end = int(match["first"]), int(match["end"])
            study = load_known(storage, name)
            set_sampler(study, screening.plan)
            seeds = seeds_of(screening.plan, stage, end - first, first)
            stages.append(Study(study, storage, screening.plan, screening.task, stage, seeds))
    return stages


def screening_of(study: optuna.Study, storage: RetryingStorage, plan: Plan, task: Task) -> Study:
    """An Optuna study as the screening of a plan."""
    return Study(study, storage, plan, task, "screen", seeds_of(plan, "screen", plan.seeds))


def load_known(storage: RetryingStorage, name: str) -> optuna.Study:
    """A study that is there. Errors: KeyError."""
    return optuna.load_study(storage=storage, study_name=name)


def create(storage: RetryingStorage, plan: Plan, name: str) -> optuna.Study:
    """Create or load a study, and make sure that it has our two directions."""
    study = optuna.create_study(
        storage=storage, study_name=name, directions=list(DIRECTIONS), load_if_exists=True
    )
    set_sampler(study, plan)
    found = tuple(direction.name.lower() for direction in study.directions)
    if found != DIRECTIONS:
        raise WrongInput(
            f"study {name} has the directions {found}, wanted {DIRECTIONS}. Give another --storage."
        )
    return study


def set_sampler(study: optuna.Study, plan: Plan) -> None:
    """New points, where not all were queued, come from TPE, with a seed of its own for every start: its first
    draws are random, and would repeat.
    """
    if plan.tuned:
        study.sampler = TPESampler(seed=plan.random_state + len(study.get_trials(deepcopy=False)))


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two scientific plans, in words."""
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key} was {written(old.get(key))}, is {written(new.get(key))}" for key in keys)


def written(value: Any) -> str:
    """A plan's value as a person writes it."""
    if isinstance(value, list):
        return (":" if all(isinstance(entry, float) for entry in value) else ",").join(
            written(entry) for entry in value
        )
    return f"{value:g}" if isinstance(value, float) else str(value)
