"""The Optuna study of one task: open, ask, tell, heartbeat, reap, resume. All that is known of Optuna is here."""

import json
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import override

from sweeps.errors import WrongInput
from sweeps.plan import Plan, Task, key_of
from tracking.records import Outcome, Stage
from tracking.store import shown

HEARTBEAT_SECONDS = 5
GRACE_SECONDS = 30
DIRECTIONS: tuple[Literal["maximize"], Literal["minimize"]] = ("maximize", "minimize")  # accuracy, ECE, both on *select*
OUTCOME, DIVERGED, QUEUED = "outcome", "diverged", "queued"
FIRST_SEED: dict[Stage, int] = {"screen": 0, "pilot": 4_000, "confirm": 5_000}
SEEDS_BETWEEN_PLANS = 10_000


@dataclass(frozen=True)
class Trial:
    """An asked point of the search space, which this worker trains."""

    number: int
    point: Mapping[str, float]


class Study:
    """Trials of one scientific plan. Its state is in the database alone: any number of workers may hold one."""

    def __init__(self, study: optuna.Study, storage: RDBStorage, plan: Plan, task: Task, stage: Stage, seeds: Sequence[int]):
        self.study, self.storage, self.plan, self.task, self.stage, self.seeds = study, storage, plan, task, stage, tuple(seeds)
        self.held: dict[int, optuna.Trial] = {}

    @property
    def name(self) -> str:
        """The study's name in the database."""
        return self.study.study_name

    def uid(self, trial: Trial) -> str:
        """Names a point of this study, also when it is queued again under another number."""
        return f"{self.name}#{key_of(trial.point)}"

    def note(self, name: str, value: Any) -> None:
        """Keep a plain value with the study."""
        self.study.set_user_attr(name, value)

    def noted(self, name: str) -> Any:
        """A value which was kept, None where there is none."""
        return self.study.user_attrs.get(name)

    def enqueue(self, point: Mapping[str, float]) -> None:
        """Have a point tried, unless it has been, or is queued already."""
        self.study.enqueue_trial(dict(point), user_attrs={QUEUED: dict(point)}, skip_if_exists=True)

    def ask(self, most: int) -> list[Trial]:
        """Up to `most` points to train now: queued ones first, then new ones while the plan wants more trials."""
        self.reap()
        trials: list[Trial] = []
        while len(trials) < most and (self.waiting() or (self.stage == "screen" and self.missing() > 0)):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")
                trial = self.study.ask()
            self.storage.record_heartbeat(trial._trial_id)  # at once: a trial without one is never found stale
            point = {name: trial.suggest_float(name, **bounds) for name, bounds in self.space(trial).items()}
            self.held[trial.number] = trial
            trials.append(Trial(trial.number, point))
        return trials

    def space(self, trial: optuna.Trial) -> dict[str, dict[str, Any]]:
        """Bounds of each tuned parameter, widened where a queued value lies outside: the control's may."""
        queued = trial.user_attrs.get(QUEUED, {})
        space: dict[str, dict[str, Any]] = {}
        for name, (low, high) in {"epsilon": self.plan.epsilon, **self.plan.tune}.items():
            value = queued.get(name, low)
            space[name] = {"low": min(low, value), "high": max(high, value), "log": name != "epsilon"}
        return space

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Record a finished trial: its two objectives, and the whole outcome in one attribute."""
        self.held[trial.number].set_user_attr(OUTCOME, outcome.to_json())
        values = [outcome.mean("select/accuracy"), outcome.mean("select/ece")]
        self.study.tell(self.held.pop(trial.number), values, skip_if_finished=True)

    def tell_diverged(self, trial: Trial, why: str) -> None:
        """Record a trial whose loss became NaN. It is not tried again: it would do the same."""
        self.held[trial.number].set_user_attr(DIVERGED, why)
        self.study.tell(self.held.pop(trial.number), state=TrialState.FAIL, skip_if_finished=True)

    def tell_dropped(self, trial: Trial, outcome: Outcome) -> None:
        """Record a trial which was dropped at a rung, with its curves. It is not tried again."""
        self.held[trial.number].set_user_attr(OUTCOME, outcome.to_json())
        self.study.tell(self.held.pop(trial.number), state=TrialState.PRUNED, skip_if_finished=True)

    def release(self) -> int:
        """Give back the trials which are asked and unfinished: each is marked as failed, and its point queued again."""
        held, self.held = list(self.held.values()), {}
        for trial in held:
            self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            self.study.enqueue_trial(dict(trial.params), user_attrs={QUEUED: dict(trial.params)})
        return len(held)

    def trials(self) -> list[FrozenTrial]:
        """All trials of the study, in whatever state."""
        return self.study.get_trials(deepcopy=False)

    def outcomes(self) -> list[Outcome]:
        """The outcomes of all finished trials, whoever trained them, in the order of their numbers."""
        complete = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return [Outcome.from_json(trial.user_attrs[OUTCOME]) for trial in complete]

    def dropped(self) -> list[Outcome]:
        """The trials which were dropped at a rung."""
        pruned = [trial for trial in self.trials() if trial.state == TrialState.PRUNED]
        return [Outcome.from_json(trial.user_attrs[OUTCOME]) for trial in pruned]

    def diverged(self) -> dict[int, str]:
        """Why trials diverged, by number."""
        return {trial.number: trial.user_attrs[DIVERGED] for trial in self.trials() if DIVERGED in trial.user_attrs}

    def waiting(self) -> int:
        """How many points are queued."""
        return sum(trial.state == TrialState.WAITING for trial in self.trials())

    def missing(self) -> int:
        """How many trials the plan wants beyond those finished, running or queued."""
        counted = [t for t in self.trials() if t.state != TrialState.FAIL or DIVERGED in t.user_attrs]
        return self.plan.trials - len(counted)

    def unfinished(self) -> int:
        """How many trials are still to be finished, by whomever."""
        new = self.missing() if self.stage == "screen" else 0
        return max(0, new) + self.waiting() + self.elsewhere()

    def elsewhere(self) -> int:
        """How many trials other workers hold."""
        return sum(trial.state == TrialState.RUNNING and trial.number not in self.held for trial in self.trials())

    def reap(self) -> None:
        """Queue again the trials of workers which gave no sign of life for `GRACE_SECONDS`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fail_stale_trials(self.study)

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """While inside, tell the database every few seconds that the held trials are being worked on.

        Optuna does this for `optimize` only, not for ask and tell; `record_heartbeat` and `_trial_id` lie outside its
        public interface and are used in this class alone.
        """
        stop = threading.Event()

        def beat() -> None:
            while True:
                for trial in list(self.held.values()):
                    try:
                        self.storage.record_heartbeat(trial._trial_id)
                    except SQLAlchemyError as error:  # the database is away for a moment: the next beat tries again
                        print(f"heartbeat of trial {trial.number}: {error}", file=sys.stderr)
                if stop.wait(HEARTBEAT_SECONDS):
                    return

        thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C to the end of the block, so that no trial is asked and not held, or told by half."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


class Sobol(BaseSampler):
    """The Sobol sequence over one parameter: the n-th new trial of a study gets the n-th point, whoever asks for it.

    Optuna's own QMC sampler draws at random until a trial has finished, so not for a first batch. Unscrambled, the
    sequence halves the range again and again: 1/2, 1/4, 3/4, 1/8, …
    """

    def __init__(self, low: float, skip_low: bool):
        self.low, self.skip = low, int(skip_low)

    @override
    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    @override
    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return {}

    @override
    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> float:
        assert isinstance(param_distribution, FloatDistribution)
        earlier = (t for t in study.get_trials(deepcopy=False) if t.number < trial.number)
        index = self.skip + sum(not t.system_attrs.keys() & {"fixed_params", "failed_trial"} for t in earlier)
        return round(self.low + (param_distribution.high - self.low) * radical_inverse(index), 9)


def radical_inverse(index: int) -> float:
    """The one-dimensional Sobol sequence: the binary digits of the index, mirrored at the point (van der Corput 1935)."""
    value, scale = 0.0, 0.5
    while index:
        value += scale * (index & 1)
        index, scale = index >> 1, scale / 2
    return value


def open_storage(url: str) -> RDBStorage:
    """The database of studies. Errors: WrongInput, naming the URL without its password."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return RDBStorage(
                url,
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )
    except (SQLAlchemyError, ImportError, ValueError) as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise WrongInput(
            f"cannot open the study store {shown(url)}: {cause}. Give a writable database with --storage or OPTUNA_STORAGE, such as "
            "sqlite:///optuna.db or postgresql+psycopg://user@host/name."
        ) from error


def open_study(storage: RDBStorage, plan: Plan, task: Task, digest: str) -> tuple[Study, str]:
    """Open or resume the screening study of a task; the message tells which, and what changed since the last plan.

    ε = 0 at the recipe's own values is queued first: the control.
    """
    science = plan.science(task, digest)
    name = f"{task.name}@{key_of(science)}"
    summaries = [s for s in optuna.get_all_study_summaries(storage=storage) if s.user_attrs.get("task") == task.name]
    known = {summary.study_name: summary for summary in summaries}
    study = create(storage, plan, name)
    opened = Study(study, storage, plan, task, "screen", seeds_of(plan, "screen", plan.seeds))
    if name in known:
        finished = len(opened.outcomes())
        message = f"resumes study {name}: {finished} trials are finished, {opened.unfinished()} are to do"
    else:
        message = f"new study {name}"
        if summaries:
            last = max(summaries, key=lambda summary: str(summary.user_attrs["created"]))
            message += f", as the plan differs from {last.study_name}: {changes(json.loads(last.user_attrs['plan']), science)}"
        study.set_user_attr("plan", json.dumps(science))
        study.set_user_attr("created", f"{time.time():.3f}")
        study.set_user_attr("task", task.name)
    opened.enqueue(control_point(plan, task))
    return opened, message


def control_point(plan: Plan, task: Task) -> dict[str, float]:
    """ε = 0 at the recipe's own values."""
    return {"epsilon": 0.0} | {key: float(getattr(task.recipe, key)) for key in plan.tune}


def open_stage(storage: RDBStorage, screening: Study, stage: Stage, points: Sequence[Mapping[str, float]], first: int, seeds: int) -> Study:
    """A study beside the screening's, which holds queued points only: trained with the stage's seeds number `first` to `first + seeds - 1`."""
    plan = screening.plan
    study = create(storage, plan, f"{screening.name}/{stage}-{first}-{first + seeds}")
    opened = Study(study, storage, plan, screening.task, stage, seeds_of(plan, stage, seeds, first))
    for point in points:
        opened.enqueue(point)
    return opened


def seeds_of(plan: Plan, stage: Stage, count: int, first: int = 0) -> tuple[int, ...]:
    """Seeds of a stage, the same for every trial of it; none belongs to two stages."""
    start = plan.random_state * SEEDS_BETWEEN_PLANS + FIRST_SEED[stage] + first
    return tuple(range(start, start + count))


def create(storage: RDBStorage, plan: Plan, name: str) -> optuna.Study:
    """Create or load a study, and make sure that it has our two directions."""
    low = plan.epsilon[0]
    study = optuna.create_study(storage=storage, study_name=name, directions=list(DIRECTIONS), load_if_exists=True)
    if plan.tune:  # a seed of its own for every start: TPE's first draws are random, and would repeat
        study.sampler = TPESampler(seed=plan.random_state + len(study.get_trials(deepcopy=False)))
    else:
        study.sampler = Sobol(low, skip_low=low == 0)
    found = tuple(direction.name.lower() for direction in study.directions)
    if found != DIRECTIONS:
        raise WrongInput(f"study {name} has the directions {found}, wanted {DIRECTIONS}. Give another --storage.")
    return study


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two scientific plans, in words."""
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key} was {written(old.get(key))}, is {written(new.get(key))}" for key in keys)


def written(value: Any) -> str:
    """A plan's value as a person writes it."""
    if isinstance(value, list):
        return (":" if all(isinstance(entry, float) for entry in value) else ",").join(written(entry) for entry in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
