"""The Optuna study of one task: open, ask, tell, heartbeat, reap, resume. All that is known of Optuna is here and in `patience`."""

import json
import os
import random
import signal
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import count, islice
from types import FrameType
from typing import Any, Literal

import optuna
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.samplers import TPESampler
from optuna.storages import fail_stale_trials
from optuna.storages._rdb.models import StudyUserAttributeModel, TrialUserAttributeModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from sweeps.census import BASE, BESIDE, STATES, cause_of
from sweeps.errors import WrongInput
from sweeps.patience import PatientStorage, StoreUnavailable, transient
from sweeps.plan import Plan, Task, key_of
from sweeps.settings import resolve
from tracking.exits import Exit
from tracking.records import Outcome, Point, Stage
from tracking.store import REFUSED, shown

BEATS_IN_GRACE = 6
"""Heartbeats within the time after which a silent worker is taken for dead."""
RELEASE_SECONDS = 10.0
"""How long giving trials back may wait for the database: whoever comes later finds them silent."""
"""The exit code of a process which Ctrl-C ended."""
OPEN_SECONDS = 60.0
"""How long a database that is away at the start is waited for."""
OPENED_AT_ONCE = 8
"""How often the tables of a new database are tried to be created, where others do the same."""
DIRECTIONS: tuple[Literal["maximize"], Literal["minimize"]] = ("maximize", "minimize")  # accuracy, ECE, both on *select*
OUTCOME, DIVERGED, QUEUED, SURPLUS, TAKEN, LOSSES = "outcome", "diverged", "queued", "surplus", "taken", "losses"
SETTINGS, CLOSED = "settings", "closed"
LOCAL = (
    *("device", "storage", "tracking_uri", "data_dir", "state_dir", "workers", "launch", "ray_address", "gpus_per_worker"),
    *("datasets", "architectures", "start_from"),
)
"""Keys of a plan which are each machine's own. What a study says about them is not read: it could name code."""
FIRST_SEED: dict[Stage, int] = {"screen": 0, "pilot": 4_000, "confirm": 5_000}
SEEDS_BETWEEN_PLANS = 10_000
PLAIN_SHARE = 4
"""Where more than ε is tuned, one trial in so many is at ε = 0, beside the control."""
WORDS = {TrialState.COMPLETE: "finished", TrialState.RUNNING: "running", TrialState.WAITING: "queued", TrialState.PRUNED: "dropped"}


@dataclass(frozen=True)
class Trial:
    """An asked point of the search space, which this worker trains."""

    number: int
    point: Point


class Study:
    """Trials of one scientific plan. Its state is in the database alone: any number of workers may hold one.

    A point is queued before it is asked, so which points there are does not depend on who trains them. A trial *counts* while it is queued or
    running, and when it came to an end of its own; a point all of whose trials were given up is queued again. Should a point be queued twice,
    by two workers at once, the trial with the lowest number counts.
    """

    def __init__(self, study: optuna.Study, storage: PatientStorage, plan: Plan, task: Task, stage: Stage, seeds: Sequence[int]):
        self.study, self.storage, self.plan, self.task, self.stage, self.seeds = study, storage, plan, task, stage, tuple(seeds)
        self.held: dict[int, optuna.Trial] = {}
        self.lost: set[int] = set()

    @property
    def name(self) -> str:
        """The study's name in the database."""
        return self.study.study_name

    def uid(self, trial: Trial) -> str:
        """Names a point of this study, also when it is queued again under another number."""
        return f"{self.name}#{key_of(trial.point)}"

    def expected(self, digest: str) -> str:
        """The name of the sweep of this study's plan on data with such a digest."""
        return f"{self.task.name}@{key_of(self.plan.science(self.task, digest))}"

    def digest(self) -> str:
        """The digest of the data on which the sweep was begun."""
        return str(json.loads(self.noted("plan"))["data"])

    def unlike(self, digest: str) -> dict[str, tuple[Any, Any]]:
        """What makes this machine's sweep another one than the study's, on data with such a digest: by key, the study's value and this one's."""
        kept, own = json.loads(self.noted("plan")), self.plan.science(self.task, digest)
        return {key: (kept.get(key), own.get(key)) for key in {**kept, **own} if kept.get(key) != own.get(key)}

    def note(self, name: str, value: Any) -> None:
        """Keep a plain value with the study."""
        self.study.set_user_attr(name, value)

    def note_once(self, name: str, value: Any) -> Any:
        """Keep a plain value unless there is one; the one which is kept. Of two writers at once, both get the first one's."""
        if (known := self.noted(name)) is not None:
            return known
        row = {"study_id": self.study._study_id, "key": name, "value_json": json.dumps(value)}

        def write() -> None:
            try:
                with self.storage.engine.begin() as connection:
                    connection.execute(sqlalchemy.insert(StudyUserAttributeModel), row)
            except IntegrityError:  # another one was faster
                return

        self.storage.patiently(write)
        return self.noted(name)

    def noted(self, name: str) -> Any:
        """A value which was kept, None where there is none."""
        return self.study.user_attrs.get(name)

    def enqueue(self, points: Iterable[Point]) -> None:
        """Have points tried, unless they have been, or are queued already."""
        known = {key_of(own) for trial in self.trials() if (own := point_of(trial)) and counts(trial)}
        for point in points:
            if key_of(point) not in known:
                known.add(key_of(point))
                self.study.enqueue_trial(dict(point), user_attrs={QUEUED: dict(point)})

    def ask(self, most: int) -> list[Trial]:
        """Up to `most` points to train now: queued ones first, then, where more than ε is tuned, new ones while the plan wants more trials."""
        self.reap()
        trials: list[Trial] = []
        while len(trials) < most and (asked := self.pop()) is not None:
            point = {name: drawn(asked, name, distribution) for name, distribution in self.space(asked).items()}
            if why := self.surplus(asked.number, point):
                self.end(asked, TrialState.FAIL, {SURPLUS: why})
                continue
            self.held[asked.number] = asked
            trials.append(Trial(asked.number, point))
        return trials

    def pop(self) -> optuna.Trial | None:
        """A queued trial, or a new one where there may be; None where there is nothing to do.

        Optuna's `ask` would make a new trial where another worker was faster to take the last one.
        """
        trial_id = self.study._pop_waiting_trial_id()
        while trial_id is not None and not self.claim(trial_id):
            trial_id = self.study._pop_waiting_trial_id()
        if trial_id is not None:
            asked = optuna.Trial(self.study, trial_id)
        elif self.plan.tuned and self.trials() and self.missing() > 0:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")
                asked = self.study.ask()
        else:
            return None
        self.storage.record_heartbeat(asked._trial_id)
        return asked

    def claim(self, trial_id: int) -> bool:
        """Whether a queued trial is this worker's. On SQLite, two which look at the same moment would both be given it by Optuna."""
        row = {"trial_id": trial_id, "key": TAKEN, "value_json": json.dumps(uuid.uuid4().hex)}

        def write() -> bool:
            try:
                with self.storage.engine.begin() as connection:
                    connection.execute(sqlalchemy.insert(TrialUserAttributeModel), row)
                return True
            except IntegrityError:  # another one was faster, or this is the second attempt, as the first one's answer was lost
                kept = sqlalchemy.select(TrialUserAttributeModel.value_json).filter_by(trial_id=trial_id, key=TAKEN)
                with self.storage.engine.connect() as connection:
                    return connection.execute(kept).scalar() == row["value_json"]

        return bool(self.storage.patiently(write))

    def surplus(self, number: int, point: Point) -> str:
        """Why an asked trial is one too many, as two workers were at work at once; "" where it is not."""
        earlier = [trial for trial in self.trials() if trial.number < number and counts(trial)]
        if any((other := point_of(trial)) and key_of(other) == key_of(point) for trial in earlier):
            return "the point was queued twice"
        if self.plan.tuned and self.stage == "screen" and len(earlier) >= self.plan.trials:
            return "two workers began the last trial"
        return ""

    def space(self, trial: optuna.Trial) -> dict[str, FloatDistribution | CategoricalDistribution]:
        """What each parameter is drawn from; ranges are widened where a queued value lies outside: the control's may."""
        queued = trial.user_attrs.get(QUEUED, {})
        space: dict[str, FloatDistribution | CategoricalDistribution] = {}
        for name, (low, high) in {"epsilon": self.plan.epsilon, **self.plan.ranges(self.task)}.items():
            value = queued.get(name, low)
            space[name] = FloatDistribution(min(low, value), max(high, value), log=name != "epsilon")
        if len(self.plan.smoothing) > 1:
            space["smoothing"] = CategoricalDistribution(self.plan.smoothing)
        return space

    def tell(self, trial: Trial, outcome: Outcome, losses: str = "") -> bool:
        """Record a finished trial: its two objectives, the whole outcome in one attribute, and the losses that later rungs compare, if any.

        False where it was taken over by another worker.
        """
        values = [outcome.mean("select/accuracy"), outcome.mean("select/ece")]
        attributes = {OUTCOME: outcome.to_json(), **({LOSSES: losses} if losses else {})}
        return self.end(self.held[trial.number], TrialState.COMPLETE, attributes, values)

    def tell_diverged(self, trial: Trial, why: str) -> bool:
        """Record a trial whose loss became NaN. It is not tried again: it would do the same."""
        return self.end(self.held[trial.number], TrialState.FAIL, {DIVERGED: why})

    def tell_dropped(self, trial: Trial, outcome: Outcome) -> bool:
        """Record a trial which was dropped at a rung, with its curves. It is not tried again."""
        return self.end(self.held[trial.number], TrialState.PRUNED, {OUTCOME: outcome.to_json()})

    def end(self, trial: optuna.Trial, state: TrialState, attributes: Mapping[str, str], values: Sequence[float] | None = None) -> bool:
        """Bring a trial to its end; False where it was given up meanwhile, and is another worker's under another number."""
        try:
            for name, value in attributes.items():
                trial.set_user_attr(name, value)
            self.study.tell(trial, values, state=state, skip_if_finished=True)
        except UpdateFinishedTrialError:  # given up, or told before the answer was lost
            pass
        self.held.pop(trial.number, None)
        self.lost.discard(trial.number)
        return self.storage.get_trial(trial._trial_id).state == state

    def release(self) -> int:
        """Give back the trials which are asked and unfinished: each is marked as failed, and its point queued again."""
        held, self.held = list(self.held.values()), {}
        patience, self.storage.patience = self.storage.patience, RELEASE_SECONDS
        try:
            given = sum(self.end(trial, TrialState.FAIL, {}) for trial in held)
            if given:
                self.requeue()
            return given
        except StoreUnavailable as error:
            self.storage.say(f"{error}; the {len(held)} trials of this worker are taken over when they have been silent for a while.")
            return 0
        finally:
            self.storage.patience = patience

    def trials(self) -> list[FrozenTrial]:
        """All trials of the study, in whatever state."""
        return self.study.get_trials(deepcopy=False)

    def outcomes(self) -> list[Outcome]:
        """The outcomes of all finished trials, whoever trained them, in the order of their numbers."""
        return self.told(TrialState.COMPLETE)

    def with_losses(self) -> list[tuple[Outcome, str | None]]:
        """The outcomes of all finished trials, each with the losses that were told with it."""
        ended = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return [(Outcome.from_json(trial.user_attrs[OUTCOME]), trial.user_attrs.get(LOSSES)) for trial in ended]

    def dropped(self) -> list[Outcome]:
        """The trials which were dropped at a rung."""
        return self.told(TrialState.PRUNED)

    def told(self, state: TrialState) -> list[Outcome]:
        """The outcomes of the trials which ended in a state."""
        return [Outcome.from_json(trial.user_attrs[OUTCOME]) for trial in self.trials() if trial.state == state]

    def diverged(self) -> dict[int, str]:
        """Why trials diverged, by number."""
        return {trial.number: trial.user_attrs[DIVERGED] for trial in self.trials() if DIVERGED in trial.user_attrs}

    def states(self) -> dict[str, int]:
        """How many trials are in each state, in the words of `census.STATES`."""
        found = dict.fromkeys(STATES, 0)
        for trial in self.trials():
            if SURPLUS not in trial.user_attrs:
                found["diverged" if DIVERGED in trial.user_attrs else WORDS.get(trial.state, "requeued")] += 1
        return found

    def waiting(self) -> int:
        """How many points are queued."""
        return sum(trial.state == TrialState.WAITING for trial in self.trials())

    def missing(self) -> int:
        """How many trials the plan wants beyond those which count."""
        if self.stage != "screen":
            return 0
        known = [trial for trial in self.trials() if counts(trial)]
        if self.plan.tuned:
            return max(0, self.plan.trials - len(known))
        return len(
            {key_of(point) for point in planned(self.plan, self.task)} - {key_of(own) for trial in known if (own := point_of(trial))}
        )

    def unfinished(self) -> int:
        """How many trials of the plan are still to be finished, by whomever, those included that are not queued yet."""
        return self.missing() + self.waiting() + self.elsewhere()

    def pending(self) -> int:
        """How many trials can be finished now: those that are queued or running, and where more than ε is tuned those still to be drawn."""
        return (self.missing() if self.plan.tuned else 0) + self.waiting() + self.elsewhere()

    def elsewhere(self) -> int:
        """How many trials other workers hold."""
        return sum(trial.state == TrialState.RUNNING and trial.number not in self.held for trial in self.trials())

    def reap(self) -> None:
        """Queue again the points of workers which gave no sign of life for as long as the plan's grace.

        A worker may die between taking a trial and its first heartbeat; Optuna would leave that trial running for ever. It is given one here.
        """
        for trial_id in self.storage.patiently(self.without_heartbeat):
            self.storage.record_heartbeat(trial_id)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fail_stale_trials(self.study)
        self.requeue()

    def requeue(self) -> None:
        """Queue every point all of whose trials were given up. Which may be this worker's doing, or that of one which died while it did so."""
        given_up = [point for trial in self.trials() if not counts(trial) and (point := point_of(trial))]
        if given_up:
            self.enqueue(given_up)

    def without_heartbeat(self) -> list[int]:
        """The running trials which have never given a sign of life, held ones excepted."""
        query = (
            "SELECT t.trial_id FROM trials t LEFT JOIN trial_heartbeats h ON h.trial_id = t.trial_id "
            "WHERE t.study_id = :study AND t.state = 'RUNNING' AND h.trial_id IS NULL"
        )
        held = {trial._trial_id for trial in self.held.values()}
        with self.storage.engine.connect() as connection:
            found = connection.execute(sqlalchemy.text(query), {"study": self.study._study_id}).scalars().all()
        return [trial_id for trial_id in found if trial_id not in held]

    def taken_over(self) -> bool:
        """Whether there are held trials, and every one was given to others: this worker was silent for too long."""
        return bool(self.held) and self.lost >= self.held.keys()

    def beat(self) -> None:
        """Tell the database that the held trials are being worked on, and find out which of them are another worker's by now."""
        for number, trial in list(self.held.items()):
            if self.storage.get_trial(trial._trial_id).state == TrialState.RUNNING:
                self.storage.record_heartbeat(trial._trial_id)
            elif number in self.held:
                self.lost.add(number)

    def heartbeat(self) -> AbstractContextManager[None]:
        """While inside, beat every few seconds."""
        return heartbeat(self.storage, self.plan.grace, self.beat)


@contextmanager
def heartbeat(storage: PatientStorage, grace: float, *beats: Callable[[], None]) -> Iterator[None]:
    """While inside, do what `beats` do every few seconds, in a thread which outlives any absence of the database.

    Optuna beats for `optimize` only, not for ask and tell; `record_heartbeat`, `_trial_id`, `_study_id` and `_pop_waiting_trial_id` lie outside
    its public interface and are used in this file and in `roll` alone.
    """
    stop = threading.Event()

    def run() -> None:
        told: set[str] = set()
        while True:
            try:
                with storage.impatient():
                    for beat in beats:
                        beat()
                told.clear()
            except (OptunaError, SQLAlchemyError, OSError) as error:  # the database is away for a moment: the next beat tries again
                cause = cause_of(error.__cause__ or error)
                if cause not in told:
                    storage.say(f"No heartbeat, as the study store does not take it: {cause}")
                told.add(cause)
            if stop.wait(grace / BEATS_IN_GRACE):
                return

    thread = threading.Thread(target=run, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial stands for its point: it is queued, is running, or came to an end of its own."""
    return trial.state != TrialState.FAIL or DIVERGED in trial.user_attrs


def point_of(trial: FrozenTrial) -> Point | None:
    """The point of a trial; None where it was not yet drawn, or is surplus."""
    if SURPLUS in trial.user_attrs:
        return None
    return dict(trial.user_attrs.get(QUEUED) or trial.params) or None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM to the end of the block, so that no trial is asked and not held, or told by half.

    The second one ends the process at once, as it does elsewhere: others then find its trials silent.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def put_off(number: int, _: FrameType | None) -> None:
        if came:
            os._exit(Exit.INTERRUPTED)
        came.append(number)

    before = {which: signal.signal(which, put_off) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
        if came:
            signal.raise_signal(came[0])


def drawn(trial: optuna.Trial, name: str, distribution: FloatDistribution | CategoricalDistribution) -> float | str:
    """A value for a trial: the queued one, or a new one."""
    if isinstance(distribution, CategoricalDistribution):
        return str(trial.suggest_categorical(name, distribution.choices))
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def radical_inverse(index: int) -> float:
    """The one-dimensional Sobol sequence: the binary digits of the index, mirrored at the point (van der Corput 1935)."""
    value, scale = 0.0, 0.5
    while index:
        value += scale * (index & 1)
        index, scale = index >> 1, scale / 2
    return value


def sobol(plan: Plan) -> list[float]:
    """The values of ε which a plan tries beside 0: the Sobol sequence over its range, 1/2, 1/4, 3/4, 1/8 and so on.

    With more trials the first ones stay what they were.
    """
    low, high = plan.epsilon
    values = (round(low + (high - low) * radical_inverse(index), 9) for index in count())
    return list(islice((value for value in values if value != 0), plan.trials - 1))


def wait_for_storage(url: str, say: Callable[..., None]) -> PatientStorage:
    """The database of studies, waited for where it is away: a sweep or a worker is often started before it.

    Errors: WrongInput where the URL or the credentials are wrong; StoreUnavailable where it stays away.
    """
    deadline = time.monotonic() + OPEN_SECONDS
    while True:
        try:
            return open_storage(url)
        except WrongInput as error:
            cause = error.__cause__
            if cause is None or not transient(cause) or any(word in str(cause) for word in REFUSED):
                raise
            if time.monotonic() > deadline:
                raise StoreUnavailable(str(error)) from error
            say(f"{error} Trying again, for {deadline - time.monotonic():.0f} s more.", event="waiting", storage=shown(url))
            time.sleep(5)


def open_storage(url: str) -> PatientStorage:
    """The database of studies. Errors: WrongInput, naming the URL without its password."""
    for attempt in range(OPENED_AT_ONCE):
        try:
            return make_storage(url)
        except (ProgrammingError, IntegrityError, OperationalError) as error:
            if "exists" not in str(error).lower() or attempt + 1 == OPENED_AT_ONCE:
                raise unusable(url, error) from error
            time.sleep(random.uniform(0.1, 1))  # noqa: S311  # another process creates the tables at this moment
        except (SQLAlchemyError, OptunaError, ImportError, ValueError) as error:
            raise unusable(url, error) from error
    raise AssertionError


def make_storage(url: str) -> PatientStorage:
    """The storage, whose tables are created where they are missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        settings = {"pool_pre_ping": True, **connection(url)}
        return PatientStorage(url, engine_kwargs=settings, heartbeat_interval=1, grace_period=int(Plan.grace))


def unusable(url: str, error: Exception) -> WrongInput:
    """Why a database cannot be used."""
    cause = cause_of(error.__cause__ or error)
    return WrongInput(
        f"cannot open the study store {shown(url)}: {cause}. Give a writable database with --storage or OPTUNA_STORAGE, such as "
        "sqlite:///optuna.db or postgresql+psycopg://user@host/name."
    )


def connection(url: str) -> dict[str, Any]:
    """Settings of connections to a database. Optuna keeps heartbeats without a time zone, in that of the connection: all have to have the same."""
    return {"connect_args": {"options": "-c timezone=utc"}} if url.startswith("postgresql") else {}


def open_study(storage: PatientStorage, plan: Plan, task: Task, digest: str) -> tuple[Study, str]:
    """Open or resume the screening study of a task; the message tells which, and what changed since the last plan."""
    science = plan.science(task, digest)
    name = f"{task.name}@{key_of(science)}"
    storage.use_grace(plan.grace)
    summaries = [s for s in optuna.get_all_study_summaries(storage=storage) if s.user_attrs.get("task") == task.name]
    known = {summary.study_name: summary for summary in summaries}
    study = create(storage, plan, name)
    opened = Study(study, storage, plan, task, "screen", seeds_of(plan, "screen", plan.seeds))
    if name in known:
        message = f"resumes study {name}"
    else:
        message = f"new study {name}"
        if summaries:
            last = max(summaries, key=lambda summary: str(summary.user_attrs["created"]))
            message += f", as the plan differs from {last.study_name}: {changes(json.loads(last.user_attrs['plan']), science)}"
        opened.note_once("plan", json.dumps(science))
        opened.note_once("created", f"{time.time():.3f}")
        opened.note_once("task", task.name)  # last: a study with a task has the others
    settings = replace(plan, tasks=(task,)).to_mapping()
    opened.note(SETTINGS, {key: value for key, value in settings.items() if key not in LOCAL})
    opened.note(CLOSED, None)
    if name in known:
        message += f": {len(opened.outcomes())} trials are finished, {opened.unfinished()} are to do"
    return opened, message


def known_study(storage: PatientStorage, plan: Plan, task: Task, digest: str) -> Study | None:
    """The screening study of a task as it is, without a change; None where it was not begun."""
    try:
        study = load_known(storage, f"{task.name}@{key_of(plan.science(task, digest))}")
    except KeyError:
        return None
    return Study(study, storage, plan, task, "screen", seeds_of(plan, "screen", plan.seeds))


def planned(plan: Plan, task: Task) -> list[Point]:
    """The points which a screening begins with: ε = 0 and the other values of ε.

    Where more is tuned, ε = 0 at the recipe's own values and at others over their ranges, so that it is judged at its own best values as every
    other ε is; the rest is drawn while it goes on.
    """
    control = control_point(plan, task)
    if not plan.tuned:
        return [control, *({"epsilon": epsilon} for epsilon in sobol(plan))]
    others = plan.trials // PLAIN_SHARE if plan.tune else 0
    return [control, *({**control, **place} for place in places(plan.ranges(task), others))]


def places(ranges: Mapping[str, tuple[float, float]], number: int) -> list[dict[str, float]]:
    """So many combinations of values which fill their ranges evenly on a log scale (an additive recurrence with roots of primes)."""
    roots = {name: prime**0.5 for name, prime in zip(sorted(ranges), (2, 3), strict=False)}
    return [
        {name: low * (high / low) ** (index * roots[name] % 1) for name, (low, high) in ranges.items()} for index in range(1, number + 1)
    ]


def control_point(plan: Plan, task: Task) -> Point:
    """ε = 0 at the recipe's own values. There all smoothings are the same; it has the name of the first."""
    control: dict[str, Any] = {"epsilon": 0.0} | {key: float(getattr(task.recipe, key)) for key in plan.tune}
    return control | ({"smoothing": plan.smoothing[0]} if len(plan.smoothing) > 1 else {})


def open_stage(screening: Study, stage: Stage, points: Sequence[Point], first: int, seeds: int) -> Study:
    """A study beside the screening's, which holds queued points only: trained with the stage's seeds number `first` to `first + seeds - 1`."""
    name = f"{screening.name}/{stage}-{first}-{first + seeds}"
    study = create(screening.storage, screening.plan, name)
    opened = Study(study, screening.storage, screening.plan, screening.task, stage, seeds_of(screening.plan, stage, seeds, first))
    opened.enqueue(points)
    return opened


def open_sweeps(storage: PatientStorage) -> list[str]:
    """The names of the sweeps which are under way."""
    found = [study for study in storage.get_all_studies() if BASE.fullmatch(study.study_name)]
    return [study.study_name for study in found if SETTINGS in study.user_attrs and not study.user_attrs.get(CLOSED)]


def join_study(storage: PatientStorage, name: str, own: Mapping[str, Any]) -> Study:
    """The screening study of a sweep that was begun elsewhere, with the plan that is kept in it, and this machine's `own` keys of a plan.

    Errors: WrongInput where there is no such study, or its plan cannot be read.
    """
    if not BASE.fullmatch(name):
        raise WrongInput(f"a sweep is named {name!r}; wanted dataset/architecture@ and eight hexadecimal digits, as sweeps.status prints.")
    try:
        study = load_known(storage, name)
    except KeyError as error:
        raise WrongInput(
            f"there is no sweep {name!r} in {shown(storage.url)}; there are: {', '.join(open_sweeps(storage)) or 'none'}."
        ) from error
    settings = study.user_attrs.get(SETTINGS)
    if not isinstance(settings, dict):
        raise WrongInput(f"study {name} keeps no plan that a worker could join; start it again with sweeps.run.")
    plan = resolve({key: value for key, value in settings.items() if key not in LOCAL} | dict(own))
    task = plan.tasks[0]
    set_sampler(study, plan)
    return Study(study, storage, plan, task, "screen", seeds_of(plan, "screen", plan.seeds))


def busy_stages(screening: Study) -> list[Study]:
    """The studies of a sweep which may have something to do: the screening's, and those beside it which hold queued or running trials."""
    query = (
        "SELECT DISTINCT s.study_name FROM studies s JOIN trials t ON t.study_id = s.study_id "
        "WHERE t.state IN ('WAITING', 'RUNNING') AND substr(s.study_name, 1, :length) = :base"
    )
    base = f"{screening.name}/"
    storage = screening.storage

    def names() -> list[str]:
        with storage.engine.connect() as connection:
            return list(connection.execute(sqlalchemy.text(query), {"length": len(base), "base": base}).scalars())

    stages = [screening]
    for name in sorted(storage.patiently(names)):
        if match := BESIDE.fullmatch(name.removeprefix(base)):
            stage: Stage = "pilot" if match["stage"] == "pilot" else "confirm"
            first, end = int(match["first"]), int(match["end"])
            study = load_known(storage, name)
            set_sampler(study, screening.plan)
            seeds = seeds_of(screening.plan, stage, end - first, first)
            stages.append(Study(study, storage, screening.plan, screening.task, stage, seeds))
    return stages


def load_known(storage: PatientStorage, name: str) -> optuna.Study:
    """A study that is there. Errors: KeyError."""
    return optuna.load_study(storage=storage, study_name=name)


def seeds_of(plan: Plan, stage: Stage, count: int, first: int = 0) -> tuple[int, ...]:
    """Seeds of a stage, the same for every trial of it; none belongs to two stages."""
    start = plan.random_state * SEEDS_BETWEEN_PLANS + FIRST_SEED[stage] + first
    return tuple(range(start, start + count))


def create(storage: PatientStorage, plan: Plan, name: str) -> optuna.Study:
    """Create or load a study, and make sure that it has our two directions."""
    study = optuna.create_study(storage=storage, study_name=name, directions=list(DIRECTIONS), load_if_exists=True)
    set_sampler(study, plan)
    found = tuple(direction.name.lower() for direction in study.directions)
    if found != DIRECTIONS:
        raise WrongInput(f"study {name} has the directions {found}, wanted {DIRECTIONS}. Give another --storage.")
    return study


def set_sampler(study: optuna.Study, plan: Plan) -> None:
    """New points, where not all were queued, come from TPE, with a seed of its own for every start: its first draws are random, and would repeat."""
    if plan.tuned:
        study.sampler = TPESampler(seed=plan.random_state + len(study.get_trials(deepcopy=False)))


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two scientific plans, in words."""
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key} was {written(old.get(key))}, is {written(new.get(key))}" for key in keys)


def written(value: Any) -> str:
    """A plan's value as a person writes it."""
    if isinstance(value, list):
        return (":" if all(isinstance(entry, float) for entry in value) else ",").join(written(entry) for entry in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
