"""The Optuna study of one task: open, ask, tell, heartbeat, reap, resume. All that is known of Optuna is here
and in `patience`.
"""

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
from sweeps.studies.design import planned
from sweeps.studies.progress import STATES, kind_of
from sweeps.studies.retrying_storage import RetryingStorage, StoreUnavailable
from sweeps.task import Task
from tracking.records.outcome import Outcome, Stage
from tracking.records.point import Point, key_of

RELEASE_SECONDS = 10.0
"""How long giving trials back may wait for the database: whoever comes later finds them silent."""
OUTCOME, DIVERGED, QUEUED = "outcome", "diverged", "queued"
SURPLUS, TAKEN, LOSSES = "surplus", "taken", "losses"


@dataclass(frozen=True)
class Trial:
    """An asked point of the search space, which this worker trains."""

    number: int
    point: Point


class Study:
    """Trials of one scientific plan. Its state is in the database alone: any number of workers may hold one.

    A point is queued before it is asked, so which points there are does not depend on who trains them. A
    trial *counts* while it is queued or running, and when it came to an end of its own; a point all of whose
    trials were given up is queued again. Should a point be queued twice, by two workers at once, the trial
    with the lowest number counts.
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
        """The study's name in the database."""
        return self.study.study_name

    def uid(self, trial: Trial) -> str:
        """Names a point of this study, also when it is queued again under another number."""
        return f"{self.name}#{short_digest(trial.point)}"

    def expected(self, digest: str) -> str:
        """The name of the sweep of this study's plan on data with such a digest."""
        return f"{self.task.name}@{short_digest(self.plan.science(self.task, digest))}"

    def digest(self) -> str:
        """The digest of the data on which the sweep was begun."""
        return str(json.loads(self.noted("plan"))["data"])

    def unlike(self, digest: str) -> dict[str, tuple[Any, Any]]:
        """What makes this machine's sweep another one than the study's, on data with such a digest: by key,
        the study's value and this one's.
        """
        kept, own = json.loads(self.noted("plan")), self.plan.science(self.task, digest)
        return {
            key: (kept.get(key), own.get(key)) for key in {**kept, **own} if kept.get(key) != own.get(key)
        }

    def note(self, name: str, value: Any) -> None:
        """Keep a plain value with the study."""
        self.study.set_user_attr(name, value)

    def note_once(self, name: str, value: Any) -> Any:
        """Keep a plain value unless there is one; the one which is kept. Of two writers at once, both get the
        first one's.
        """
        if (known := self.noted(name)) is not None:
            return known
        row = {"study_id": self.study._study_id, "key": name, "value_json": json.dumps(value)}

        def write() -> None:
            try:
                with self.storage.engine.begin() as connection:
                    connection.execute(sqlalchemy.insert(queries.STUDY_ATTRIBUTES), row)
            except IntegrityError:  # another one was faster
                return

        self.storage.retrying(write)
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
        """Up to `most` points to train now: queued ones first, then, where more than ε is tuned, new ones
        while the plan wants more trials.
        """
        self.reap()
        trials: list[Trial] = []
        while len(trials) < most and (asked := self.pop()) is not None:
            point = {
                name: drawn(asked, name, distribution) for name, distribution in self.space(asked).items()
            }
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
        """Whether a queued trial is this worker's. On SQLite, two which look at the same moment would both be
        given it by Optuna.
        """
        row = {"trial_id": trial_id, "key": TAKEN, "value_json": json.dumps(uuid.uuid4().hex)}

        def write() -> bool:
            try:
                with self.storage.engine.begin() as connection:
                    connection.execute(sqlalchemy.insert(queries.TRIAL_ATTRIBUTES), row)
                return True
            except (
                IntegrityError
            ):  # another one was faster, or this is the second attempt, as the first one's answer was lost
                kept = sqlalchemy.select(queries.TRIAL_ATTRIBUTES.c.value_json).filter_by(
                    trial_id=trial_id, key=TAKEN
                )
                with self.storage.engine.connect() as connection:
                    return connection.execute(kept).scalar() == row["value_json"]

        return bool(self.storage.retrying(write))

    def surplus(self, number: int, point: Point) -> str:
        """Why an asked trial is one too many, as two workers were at work at once; "" where it is not."""
        earlier = [trial for trial in self.trials() if trial.number < number and counts(trial)]
        if any((other := point_of(trial)) and key_of(other) == key_of(point) for trial in earlier):
            return "the point was queued twice"
        if self.plan.tuned and self.stage == "screen" and len(earlier) >= self.plan.trials:
            return "two workers began the last trial"
        return ""

    def space(self, trial: optuna.Trial) -> dict[str, FloatDistribution | CategoricalDistribution]:
        """What each parameter is drawn from; ranges are widened where a queued value lies outside: the
        control's may.
        """
        queued = trial.user_attrs.get(QUEUED, {})
        space: dict[str, FloatDistribution | CategoricalDistribution] = {}
        for name, (low, high) in {"epsilon": self.plan.epsilon, **self.plan.ranges(self.task)}.items():
            value = queued.get(name, low)
            space[name] = FloatDistribution(min(low, value), max(high, value), log=name != "epsilon")
        if len(self.plan.smoothing) > 1:
            space["smoothing"] = CategoricalDistribution(self.plan.smoothing)
        return space

    def tell(self, trial: Trial, outcome: Outcome, losses: str = "") -> bool:
        """Record a finished trial: its two objectives, the whole outcome in one attribute, and the losses
        that later rungs compare, if any.

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

    def end(
        self,
        trial: optuna.Trial,
        state: TrialState,
        attributes: Mapping[str, str],
        values: Sequence[float] | None = None,
    ) -> bool:
        """Bring a trial to its end; False where it was given up meanwhile, and is another worker's under
        another number.
        """
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
        """Give back the trials which are asked and unfinished: each is marked as failed, and its point queued
        again.
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
                f"{error}; the {len(held)} trials of this worker are taken over when they have been silent"
                " for a while."
            )
            return 0
        finally:
            self.storage.retry_seconds = retry_seconds

    def trials(self) -> list[FrozenTrial]:
        """All trials of the study, in whatever state."""
        return self.study.get_trials(deepcopy=False)

    def outcomes(self) -> list[Outcome]:
        """The outcomes of all finished trials, whoever trained them, in the order of their numbers."""
        return self.ended_as(TrialState.COMPLETE)

    def with_losses(self) -> list[tuple[Outcome, str | None]]:
        """The outcomes of all finished trials, each with the losses that were told with it."""
        ended = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return [
            (Outcome.from_json(trial.user_attrs[OUTCOME]), trial.user_attrs.get(LOSSES)) for trial in ended
        ]

    def dropped(self) -> list[Outcome]:
        """The trials which were dropped at a rung."""
        return self.ended_as(TrialState.PRUNED)

    def ended_as(self, state: TrialState) -> list[Outcome]:
        """The outcomes of the trials which ended in a state."""
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
        """How many trials are in each state, in the words of `progress.STATES`."""
        counts = Counter(kind_of(trial.state.name, trial.user_attrs) for trial in self.trials())
        return {state: counts[state] for state in STATES}

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
            {key_of(point) for point in planned(self.plan, self.task)}
            - {key_of(own) for trial in known if (own := point_of(trial))}
        )

    def unfinished(self) -> int:
        """How many trials of the plan are still to be finished, by whomever, those included that are not
        queued yet.
        """
        return self.missing() + self.waiting() + self.elsewhere()

    def pending(self) -> int:
        """How many trials can be finished now: those that are queued or running, and where more than ε is
        tuned those still to be drawn.
        """
        return (self.missing() if self.plan.tuned else 0) + self.waiting() + self.elsewhere()

    def elsewhere(self) -> int:
        """How many trials other workers hold."""
        return sum(
            trial.state == TrialState.RUNNING and trial.number not in self.held for trial in self.trials()
        )

    def reap(self) -> None:
        """Queue again the points of workers which gave no sign of life for as long as the plan's grace.

        A worker may die between taking a trial and its first heartbeat; Optuna would leave that trial running
        for ever. It is given one here.
        """
        for trial_id in self.storage.retrying(self.without_heartbeat):
            self.storage.record_heartbeat(trial_id)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fail_stale_trials(self.study)
        self.requeue()

    def requeue(self) -> None:
        """Queue every point all of whose trials were given up. Which may be this worker's doing, or that of
        one which died while it did so.
        """
        given_up = [point for trial in self.trials() if not counts(trial) and (point := point_of(trial))]
        if given_up:
            self.enqueue(given_up)

    def without_heartbeat(self) -> list[int]:
        """The running trials which have never given a sign of life, held ones excepted."""
        held = {trial._trial_id for trial in self.held.values()}
        with self.storage.engine.connect() as connection:
            found = (
                connection.execute(queries.WITHOUT_HEARTBEAT, {"study": self.study._study_id}).scalars().all()
            )
        return [trial_id for trial_id in found if trial_id not in held]

    def taken_over(self) -> bool:
        """Whether there are held trials, and every one was given to others: this worker was silent for too
        long.
        """
        return bool(self.held) and self.lost >= self.held.keys()

    def beat(self) -> None:
        """Tell the database that the held trials are being worked on, and find out which of them are another
        worker's by now.
        """
        for number, trial in list(self.held.items()):
            if self.storage.get_trial(trial._trial_id).state == TrialState.RUNNING:
                self.storage.record_heartbeat(trial._trial_id)
            elif number in self.held:
                self.lost.add(number)


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial stands for its point: it is queued, is running, or came to an end of its own."""
    return trial.state != TrialState.FAIL or DIVERGED in trial.user_attrs


def point_of(trial: FrozenTrial) -> Point | None:
    """The point of a trial; None where it was not yet drawn, or is surplus."""
    if SURPLUS in trial.user_attrs:
        return None
    return dict(trial.user_attrs.get(QUEUED) or trial.params) or None


def drawn(
    trial: optuna.Trial, name: str, distribution: FloatDistribution | CategoricalDistribution
) -> float | str:
    """A value for a trial: the queued one, or a new one."""
    if isinstance(distribution, CategoricalDistribution):
        return str(trial.suggest_categorical(name, distribution.choices))
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
