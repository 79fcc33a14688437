"""Optuna study of one task: queue, ask, tell, beat, reap. All use of Optuna is in this room."""

import json
import uuid
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError

from sweeps.plan import Plan, short_digest
from sweeps.studies import queries
from sweeps.studies.design import arms, planned
from sweeps.studies.progress import STATES, kind_of
from sweeps.studies.retrying_storage import RetryingStorage, StoreUnavailable
from sweeps.task import Task
from tracking.records.outcome import Outcome, Stage
from tracking.records.point import Point, key_of

RELEASE_SECONDS = 10.0
"""Longest wait for the database when trials are given back; later they are reaped."""
OUTCOME, DIVERGED, QUEUED = "outcome", "diverged", "queued"
SURPLUS, TAKEN, LOSSES = "surplus", "taken", "losses"

Arms = Mapping[str, tuple[str, tuple[float, float]]]
"""See `sweeps.studies.design.arms`."""


@dataclass(frozen=True)
class Trial:
    """A point of the search space that this worker trains."""

    number: int
    point: Point


class Study:
    """Trials of one plan, stored in the database alone: any number of workers may open one study.

    A point is queued before it is asked, so the set of points does not depend on the workers. A trial
    *counts* while it is queued or running, and after it finished, diverged or was dropped; a point whose
    trials were all given up is queued again. If two workers queue the same point at once, the trial with the
    lowest number counts.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: RetryingStorage,
        plan: Plan,
        task: Task,
        stage: Stage,
        seeds: Sequence[int],
    ):
        self.study, self.storage, self.plan, self.task = study, storage, plan, task
        self.stage, self.seeds = stage, tuple(seeds)
        self.held: dict[int, optuna.Trial] = {}
        self.lost: set[int] = set()

    @property
    def name(self) -> str:
        """Name of the study in the database."""
        return self.study.study_name

    def uid(self, trial: Trial) -> str:
        """Id of a point of this study; the same when it is queued again under another number."""
        return f"{self.name}#{short_digest(trial.point)}"

    def expected(self, digest: str) -> str:
        """Name of this plan's sweep on data with this digest."""
        return f"{self.task.name}@{short_digest(self.plan.science(self.task, digest))}"

    def digest(self) -> str:
        """Digest of the data on which the sweep was begun."""
        return str(json.loads(self.noted("plan"))["data"])

    def unlike(self, digest: str) -> dict[str, tuple[Any, Any]]:
        """Differences between the study's plan and this machine's, on data with this digest: by key, the
        study's value and this one's.
        """
        kept, own = json.loads(self.noted("plan")), self.plan.science(self.task, digest)
        return {
            key: (kept.get(key), own.get(key)) for key in {**kept, **own} if kept.get(key) != own.get(key)
        }

    def note(self, name: str, value: Any) -> None:
        """Store a plain value with the study."""
        self.study.set_user_attr(name, value)

    def note_once(self, name: str, value: Any) -> Any:
        """Store a plain value unless there is one. Returns the stored one; of two writers at once, both get
        the first one's.
        """
        if (known := self.noted(name)) is not None:
            return known
        row = {"study_id": self.study._study_id, "key": name, "value_json": json.dumps(value)}

        def write() -> None:
            try:
                with self.storage.engine.begin() as connection:
                    connection.execute(sqlalchemy.insert(queries.STUDY_ATTRIBUTES), row)
            except IntegrityError:  # another writer was first
                return

        self.storage.retrying(write)
        return self.noted(name)

    def noted(self, name: str) -> Any:
        """A stored value, None where there is none."""
        return self.study.user_attrs.get(name)

    def enqueue(self, points: Iterable[Point]) -> None:
        """Queue points, unless they are queued already or were tried."""
        known = {key_of(own) for trial in self.trials() if (own := self.point_of(trial)) and counts(trial)}
        for point in points:
            if key_of(point) not in known:
                known.add(key_of(point))
                self.study.enqueue_trial(values_at(point, arms(self.plan)), user_attrs={QUEUED: dict(point)})

    def ask(self, most: int) -> list[Trial]:
        """Up to `most` points to train now: queued ones first, then, where more than ε is tuned, new ones
        while the plan wants more trials.
        """
        self.reap()
        trials: list[Trial] = []
        while len(trials) < most and (asked := self.pop()) is not None:
            values = {name: drawn(asked, name, one) for name, one in self.space(asked).items()}
            point = asked.user_attrs.get(QUEUED) or point_at(values, arms(self.plan))
            if why := self.surplus(asked.number, point):
                self.end(asked, TrialState.FAIL, {SURPLUS: why})
                continue
            self.held[asked.number] = asked
            trials.append(Trial(asked.number, point))
        return trials

    def pop(self) -> optuna.Trial | None:
        """A queued trial, or a new one where the plan allows it; None where there is nothing to do.

        Optuna's `ask` would create a new trial where another worker took the last queued one.
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
        """Whether a queued trial is this worker's. On SQLite, Optuna may give one trial to two workers at
        once.
        """
        row = {"trial_id": trial_id, "key": TAKEN, "value_json": json.dumps(uuid.uuid4().hex)}

        def write() -> bool:
            try:
                with self.storage.engine.begin() as connection:
                    connection.execute(sqlalchemy.insert(queries.TRIAL_ATTRIBUTES), row)
                return True
            except IntegrityError:  # another worker was first, or the answer to the first attempt was lost
                kept = sqlalchemy.select(queries.TRIAL_ATTRIBUTES.c.value_json).filter_by(
                    trial_id=trial_id, key=TAKEN
                )
                with self.storage.engine.connect() as connection:
                    return connection.execute(kept).scalar() == row["value_json"]

        return bool(self.storage.retrying(write))

    def surplus(self, number: int, point: Point) -> str:
        """Why an asked trial is one too many, as two workers ran at once; "" where it is not."""
        earlier = [trial for trial in self.trials() if trial.number < number and counts(trial)]
        if any((other := self.point_of(trial)) and key_of(other) == key_of(point) for trial in earlier):
            return "the point was queued twice"
        if self.plan.tuned and self.stage == "screen" and len(earlier) >= self.plan.trials:
            return "two workers began the last trial"
        return ""

    def point_of(self, trial: FrozenTrial) -> Point | None:
        """Point of a trial; None where it is not wholly drawn, or the trial is surplus."""
        if SURPLUS in trial.user_attrs:
            return None
        if queued := trial.user_attrs.get(QUEUED):
            return dict(queued)
        whole = self.space(trial).keys() <= trial.params.keys()
        return point_at(trial.params, arms(self.plan)) if whole else None

    def space(
        self, trial: optuna.Trial | FrozenTrial
    ) -> dict[str, FloatDistribution | CategoricalDistribution]:
        """Distribution of each parameter. A range is widened where a queued value lies outside, as the
        control's may.
        """
        queued = trial.user_attrs.get(QUEUED, {})
        space: dict[str, FloatDistribution | CategoricalDistribution] = {}
        ranges = {"epsilon": self.plan.epsilon, **self.plan.ranges(self.task)}
        if self.plan.dropping:
            drops = [
                drop for _, range_ in arms(self.plan).values() if range_ != (1.0, 1.0) for drop in range_
            ]
            ranges["drop"] = min(drops), max(drops)
        for name, (low, high) in ranges.items():
            value = queued.get(name, low)
            log = name in self.plan.tune
            space[name] = FloatDistribution(min(low, value), max(high, value), log=log)
        if len(self.plan.smoothing) > 1:
            space["smoothing"] = CategoricalDistribution(self.plan.smoothing)
        return space

    def tell(self, trial: Trial, outcome: Outcome, losses: str = "") -> bool:
        """Record a finished trial: its two objectives, the outcome in one attribute, and the losses that
        later rungs compare, if any.

        False where another worker took it over.
        """
        values = [outcome.mean("select/accuracy"), outcome.mean("select/ece")]
        attributes = {OUTCOME: outcome.to_json(), **({LOSSES: losses} if losses else {})}
        return self.end(self.held[trial.number], TrialState.COMPLETE, attributes, values)

    def tell_diverged(self, trial: Trial, why: str) -> bool:
        """Record a trial whose loss became NaN. It is not repeated: it would diverge again."""
        return self.end(self.held[trial.number], TrialState.FAIL, {DIVERGED: why})

    def tell_dropped(self, trial: Trial, outcome: Outcome) -> bool:
        """Record a trial that was dropped at a rung, with its curves. It is not repeated."""
        return self.end(self.held[trial.number], TrialState.PRUNED, {OUTCOME: outcome.to_json()})

    def end(
        self,
        trial: optuna.Trial,
        state: TrialState,
        attributes: Mapping[str, str],
        values: Sequence[float] | None = None,
    ) -> bool:
        """End a trial; False where it was given up meanwhile and belongs to another worker under another
        number.
        """
        try:
            for name, value in attributes.items():
                trial.set_user_attr(name, value)
            self.study.tell(trial, values, state=state, skip_if_finished=True)
        except UpdateFinishedTrialError:  # given up, or already recorded and the answer lost
            pass
        self.held.pop(trial.number, None)
        self.lost.discard(trial.number)
        return self.storage.get_trial(trial._trial_id).state == state

    def release(self) -> int:
        """Give back the unfinished trials of this worker: each is marked as failed, and its point queued
        again. Returns how many.
        """
        held, self.held = list(self.held.values()), {}
        retry_seconds, self.storage.retry_seconds = self.storage.retry_seconds, RELEASE_SECONDS
        try:
            given = sum(self.end(trial, TrialState.FAIL, {}) for trial in held)
            if given:
                self.requeue()
            return given
        except StoreUnavailable as error:
            self.storage.say(
                f"{error}; this worker's {len(held)} trials are reassigned when its heartbeats are overdue."
            )
            return 0
        finally:
            self.storage.retry_seconds = retry_seconds

    def trials(self) -> list[FrozenTrial]:
        """All trials of the study, in any state."""
        return self.study.get_trials(deepcopy=False)

    def outcomes(self) -> list[Outcome]:
        """Outcomes of all finished trials, of all workers, in the order of their numbers."""
        return self.ended_as(TrialState.COMPLETE)

    def with_losses(self) -> list[tuple[Outcome, str | None]]:
        """Outcomes of all finished trials, each with the losses recorded for it."""
        ended = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return [
            (Outcome.from_json(trial.user_attrs[OUTCOME]), trial.user_attrs.get(LOSSES)) for trial in ended
        ]

    def dropped(self) -> list[Outcome]:
        """Outcomes of the trials dropped at a rung."""
        return self.ended_as(TrialState.PRUNED)

    def ended_as(self, state: TrialState) -> list[Outcome]:
        """Outcomes of the trials that ended in a state."""
        return [
            Outcome.from_json(trial.user_attrs[OUTCOME]) for trial in self.trials() if trial.state == state
        ]

    def diverged(self) -> dict[int, str]:
        """Why trials diverged, by number."""
        return {
            trial.number: trial.user_attrs[DIVERGED]
            for trial in self.trials()
            if DIVERGED in trial.user_attrs
        }

    def states(self) -> dict[str, int]:
        """Number of trials in each of `progress.STATES`."""
        counts = Counter(kind_of(trial.state.name, trial.user_attrs) for trial in self.trials())
        return {state: counts[state] for state in STATES}

    def waiting(self) -> int:
        """Number of queued points."""
        return sum(trial.state == TrialState.WAITING for trial in self.trials())

    def missing(self) -> int:
        """Number of trials that the plan wants beyond those that count."""
        if self.stage != "screen":
            return 0
        known = [trial for trial in self.trials() if counts(trial)]
        if self.plan.tuned:
            return max(0, self.plan.trials - len(known))
        return len(
            {key_of(point) for point in planned(self.plan, self.task)}
            - {key_of(own) for trial in known if (own := self.point_of(trial))}
        )

    def unfinished(self) -> int:
        """Number of trials of the plan still to be finished by any worker, not yet queued ones included."""
        return self.missing() + self.waiting() + self.elsewhere()

    def pending(self) -> int:
        """Number of trials that can be finished now: queued or running, and where more than ε is tuned those
        still to be drawn.
        """
        return (self.missing() if self.plan.tuned else 0) + self.waiting() + self.elsewhere()

    def elsewhere(self) -> int:
        """Number of trials that other workers train."""
        return sum(
            trial.state == TrialState.RUNNING and trial.number not in self.held for trial in self.trials()
        )

    def reap(self) -> None:
        """Queue again the points of workers that missed their heartbeats for the plan's grace.

        A worker may die between taking a trial and its first heartbeat; Optuna would leave that trial running
        for ever, so it is given a heartbeat here.
        """
        for trial_id in self.storage.retrying(self.without_heartbeat):
            self.storage.record_heartbeat(trial_id)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fail_stale_trials(self.study)
        self.requeue()

    def requeue(self) -> None:
        """Queue every point whose trials were all given up, by this worker or by one that died before it
        queued them.
        """
        given_up = [point for trial in self.trials() if not counts(trial) and (point := self.point_of(trial))]
        if given_up:
            self.enqueue(given_up)

    def without_heartbeat(self) -> list[int]:
        """Running trials without any heartbeat, those of this worker excepted."""
        held = {trial._trial_id for trial in self.held.values()}
        with self.storage.engine.connect() as connection:
            found = (
                connection.execute(queries.WITHOUT_HEARTBEAT, {"study": self.study._study_id}).scalars().all()
            )
        return [trial_id for trial_id in found if trial_id not in held]

    def taken_over(self) -> bool:
        """Whether all trials of this worker were given to others, as it missed its heartbeats."""
        return bool(self.held) and self.lost >= self.held.keys()

    def beat(self) -> None:
        """Record a heartbeat of this worker's trials, and note which of them were given to another worker."""
        for number, trial in list(self.held.items()):
            if self.storage.get_trial(trial._trial_id).state == TrialState.RUNNING:
                self.storage.record_heartbeat(trial._trial_id)
            elif number in self.held:
                self.lost.add(number)


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial counts for its point: queued, running, finished, dropped or diverged."""
    return trial.state != TrialState.FAIL or DIVERGED in trial.user_attrs


def point_at(values: Mapping[str, Any], arms: Arms) -> Point:
    """The point that values drawn by Optuna come to: the base of the smoothing where there are several, and
    its drop, 1 where it has none.
    """
    name = values.get("smoothing", next(iter(arms)))
    base, (low, high) = arms[name]
    several = len({base for base, _ in arms.values()}) > 1
    point = {key: value for key, value in values.items() if key not in ("smoothing", "drop")}
    point |= {"smoothing": base} if several else {}
    return point | ({"drop": min(max(values["drop"], low), high)} if "drop" in values else {})


def values_at(point: Point, arms: Arms) -> dict[str, Any]:
    """The values of Optuna's parameters at a point: among the smoothings, the first with its base and its
    kind of drop.
    """
    values = dict(point)
    if len(arms) > 1:
        base = point.get("smoothing", next(iter(arms.values()))[0])
        same = [name for name, (own, _) in arms.items() if own == base]
        fits = [name for name in same if (arms[name][1][1] == 1) == (point.get("drop", 1.0) == 1)]
        values["smoothing"] = (fits or same)[0]
    return values


def drawn(
    trial: optuna.Trial, name: str, distribution: FloatDistribution | CategoricalDistribution
) -> float | str:
    """Value of a parameter: the queued one, or a new one."""
    if isinstance(distribution, CategoricalDistribution):
        return str(trial.suggest_categorical(name, distribution.choices))
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
