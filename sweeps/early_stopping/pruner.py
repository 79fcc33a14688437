"""Pruner: decides which trials of a study go on at its rungs.

The decisions follow from the plan and from results alone, not from which worker trained what, when and how
fast. Trials are screened in waves of 4, 4, 8, 16, … points in the order of the plan. At a rung a trial is
compared with the finished trials of earlier waves only, not with those that happen to run beside it.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sweeps.early_stopping.rule import Curve, RungDecision, criterion_of, relative_error, survivors
from sweeps.plan import Plan
from sweeps.studies.design import planned
from sweeps.studies.study import Study, Trial
from sweeps.task import Task
from sweeps.training.engine import CALIBRATED, Curves, Rung
from tracking.records.outcome import Outcome
from tracking.records.point import Point, drop_of, key_of

SHARES = (1 / 4, 1 / 2, 3 / 4)
"""Rungs, as shares of the epochs."""
FIRST_WAVE = 4
"""Trials that are always trained to their end; each later wave has as many trials as all before it."""
RISK = 0.01
"""Probability that a rung changes the recommendation, all trials of a wave together."""
WORTH = 4e11
"""Members × epochs × training examples × parameters from which on a screening has rungs: about a minute of
two cores (docs/log/2026-11.md, 2026-11-30). In a shorter one, scoring and smaller populations would cost more
than they save.
"""
METRICS = {"accuracy": "select_accuracy", "nll_calibrated": CALIBRATED}
"""Metrics compared at a rung, and the engine's curves of them."""
MOST_LOSSES = 4096
"""Examples of *select* whose losses are kept for the error of the veto: this many give it to 1 %."""


def has_rungs(plan: Plan, task: Task, examples: int, parameters: int) -> bool:
    """Whether a screening has rungs. With other tuned values, gains are no function of ε: then there are
    none.
    """
    return (
        plan.rungs
        and not plan.tuned
        and plan.trials * plan.seeds * task.recipe.epochs * examples * parameters >= WORTH
    )


def waves(points: Sequence[Point]) -> list[list[Point]]:
    """Points in the order of the plan, in waves. With more trials, the first waves stay the same."""
    found, start = [], 0
    while start < len(points):
        size = max(FIRST_WAVE, start)
        found.append(list(points[start : start + size]))
        start += size
    return found


class Pruner:
    """Decides which trials of a study go on at its rungs, see `has_rungs`."""

    def __init__(self, study: Study, examples: int, parameters: int, say: Callable[[str], None]):
        """`examples` and `parameters` are the numbers of training examples and of a network's parameters."""
        self.study, self.say, self.epochs = study, say, study.task.recipe.epochs
        self.active = study.stage == "screen" and has_rungs(study.plan, study.task, examples, parameters)
        self.reasons: dict[int, str] = {}

    def rungs(self, trials: Sequence[Trial], seeds: int) -> dict[int, Rung]:
        """Rungs for trials with `seeds` members each, in their order; none where the pruner is not active."""
        if not self.active:
            return {}
        epochs = {max(1, round(share * self.epochs)) for share in SHARES} - {self.epochs}
        return {epoch: lambda curves: self.alive(trials, seeds, curves) for epoch in sorted(epochs)}

    def alive(self, trials: Sequence[Trial], seeds: int, curves: Curves) -> list[bool]:
        """Members that go on: those of trials that may still change the recommendation."""
        past = len(curves["train_loss"])
        keep: dict[int, bool] = {}
        for index, trial in enumerate(trials):
            own = curves_of(curves, slice(index * seeds, (index + 1) * seeds), past)
            keep[trial.number] = bool(own["accuracy"].isfinite().all())
            if keep[trial.number] and trial.number not in self.reasons and self.judged(trial.point, past):
                decision = self.decision(trial.point, Curve(trial.point["epsilon"], own))
                keep[trial.number] = decision.keep
                if not decision.keep:
                    self.reasons[trial.number] = decision.reason
                    self.say(
                        f"trial {trial.number} is dropped after {past} of {self.epochs} epochs:"
                        f" {decision.reason}"
                    )
        return [keep[trial.number] for trial in trials for _ in range(seeds)]

    def judged(self, point: Point, past: int) -> bool:
        """Whether a trial is compared after so many epochs. Until ε falls to 0 it looks like a constant one,
        so it is left alone until an epoch after that.
        """
        drop = drop_of(point)
        return drop == 1 or past >= drop * self.epochs + 1

    def decision(self, point: Point, running: Curve) -> RungDecision:
        """Decision of the rule on a running trial, given the finished trials of earlier waves."""
        before, size = self.before(point)
        error = self.error(before)
        criterion = criterion_of(self.study.plan.policy, self.study.plan.tolerances, error)
        if criterion is None:
            return RungDecision(True, 1.0, {}, "the policy has no rule for rungs")
        if error == 0:
            criterion = replace(
                criterion, vetoes=()
            )  # the error of the veto is unknown, so it excludes no trial
        finished = [curve_of(outcome) for outcome, _ in before]
        return survivors([running], finished, self.epochs, [criterion], RISK / size)[0]

    def before(self, point: Point) -> tuple[list[tuple[Outcome, str | None]], int]:
        """Finished trials of the waves before a point's own, in the order of the plan, with their losses; and
        the size of its wave. Beside ε = 0 only those of its own schedule, constant or falling to 0: each has
        a candidate of its own, and what a trial gains until its end is learned for each.
        """
        known = {
            key_of(outcome.point): (outcome, losses)
            for outcome, losses in self.study.with_losses()
            if outcome.by_seed
            and (outcome.epsilon == 0 or (drop_of(outcome.point) < 1) == (drop_of(point) < 1))
        }
        earlier: list[str] = []
        for wave in waves(planned(self.study.plan, self.study.task)):
            keys = [key_of(one) for one in wave]
            if key_of(point) in keys:
                break
            earlier += keys
        return [known[key] for key in earlier if key in known], max(FIRST_WAVE, len(earlier))

    def error(self, before: Sequence[tuple[Outcome, str | None]]) -> float:
        """Standard error of a relative change of the recalibrated NLL (see `Veto`), the largest among
        finished trials; 0 if unknown.
        """
        losses = {outcome.epsilon: unpacked(text) for outcome, text in before if text}
        control = losses.pop(0.0, None)
        if control is None or not losses:
            return 0.0
        return relative_error(torch.stack(list(losses.values()))[:, None], control[None])


def packed(losses: Float[Tensor, " example"]) -> str:
    """Recalibrated loss of a finished trial on examples of *select*, mean over seeds, as text; evenly spaced
    examples where there are many.

    The standard error over the kept examples is a little larger than over all, which favours keeping a trial.
    """
    kept = losses.float()
    if len(kept) > MOST_LOSSES:
        places = torch.linspace(0, len(kept) - 1, MOST_LOSSES, dtype=torch.float64).round().long()
        kept = kept[places]
    return base64.b64encode(kept.numpy().tobytes()).decode()


def unpacked(text: str) -> Float[Tensor, " example"]:
    """The losses that `packed` wrote, as many as were kept."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), np.float32).copy())


def curves_of(
    curves: Mapping[str, Tensor], rows: slice, epochs: int
) -> dict[str, Float[Tensor, "epoch seed"]]:
    """Curves compared at a rung, of the members in `rows`, up to their last epoch."""
    return {metric: curves[name][:epochs, rows] for metric, name in METRICS.items()}


def curve_of(outcome: Outcome) -> Curve:
    """Curve of a finished trial."""
    return Curve(outcome.epsilon, {metric: torch.tensor(outcome.by_seed[metric]) for metric in METRICS})
