"""Ladder: the rungs of a study's screening, and what its trials have to show there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from sweeps.engine import CALIBRATED, Curves, Rung
from sweeps.rungs import FINISHED, Curve, Verdict, claim_of, relative_error, survivors
from sweeps.study import Study, Trial
from tracking.records import Outcome

SHARES = (1 / 4, 1 / 2, 3 / 4)
"""Of the epochs: where the rungs are."""
WORTH_SECONDS = 60
"""A screening that is expected to take less has no rungs: their scoring and smaller populations would cost more than they save."""
METRICS = {"accuracy": "select_accuracy", "nll_calibrated": CALIBRATED}
"""What is compared at a rung, and the engine's curves of it."""


class Ladder:
    """Which trials of a study go on at its rungs. Other workers' finished trials count as much as this one's."""

    def __init__(self, study: Study, seconds: float, say: Callable[[str], None]):
        """A ladder for a study whose members take so many seconds an epoch."""
        self.study, self.say = study, say
        plan, self.epochs = study.plan, study.task.recipe.epochs
        wanted = (
            plan.rungs and study.stage == "screen" and not plan.tuned
        )  # with other learning rates or smoothings, gains are no function of ε
        self.active = wanted and plan.trials * plan.seeds * self.epochs * seconds > WORTH_SECONDS
        self.most = max(FINISHED, -(-plan.trials // 2)) if self.active else plan.trials
        """Trials to train at a time: those of the first half tell something about the others."""
        self.losses: dict[float, Float[Tensor, " example"]] = {}
        self.reasons: dict[int, str] = {}

    def note(self, epsilon: float, losses: Float[Tensor, " example"]) -> None:
        """Take down the recalibrated loss of a finished trial on each example of *select*, mean over seeds."""
        self.losses[epsilon] = losses

    def rungs(self, trials: Sequence[Trial], seeds: int) -> dict[int, Rung]:
        """The rungs for trials with so many members each, in their order.

        None where the ladder is not active, nor where nothing will come of them: too few trials have finished, and none are
        left for which these would count as finished.
        """
        if not self.active:
            return {}
        if len(self.finished()) < FINISHED and self.study.missing() + self.study.waiting() <= 0:
            return {}
        epochs = {max(1, round(share * self.epochs)) for share in SHARES} - {self.epochs}
        return {epoch: lambda curves: self.alive(trials, seeds, curves) for epoch in sorted(epochs)}

    def finished(self) -> list[Curve]:
        """The finished trials of which whole curves are known."""
        return [curve_of(outcome) for outcome in self.study.outcomes() if outcome.by_seed]

    def alive(self, trials: Sequence[Trial], seeds: int, curves: Curves) -> list[bool]:
        """Which members go on: those of trials which may still change the recommendation. What has diverged does not go on either."""
        past = len(curves["train_loss"])
        rows = {trial.number: slice(index * seeds, (index + 1) * seeds) for index, trial in enumerate(trials)}
        sound = [trial for trial in trials if curves_of(curves, rows[trial.number], past)["accuracy"].isfinite().all()]
        running = [Curve(trial.point["epsilon"], curves_of(curves, rows[trial.number], past)) for trial in sound]
        keep = {trial.number: verdict for trial, verdict in zip(sound, self.verdicts(running), strict=True)}
        for number, verdict in keep.items():
            if not verdict.keep:
                self.reasons[number] = verdict.reason
                self.say(f"trial {number} is dropped after {len(curves['train_loss'])} of {self.epochs} epochs: {verdict.reason}")
        return [trial.number in keep and keep[trial.number].keep for trial in trials for _ in range(seeds)]

    def verdicts(self, running: Sequence[Curve]) -> list[Verdict]:
        """What the rule says of each running trial."""
        claim = claim_of(self.study.plan.policy, self.study.plan.tolerances, self.error())
        if claim is None:
            return [Verdict(True, 1.0, {}, "the policy is not known to the rungs")] * len(running)
        if self.error() == 0:
            claim = replace(claim, vetoes=())  # nobody knows how sure the veto is: then nobody is excluded by it
        return survivors(running, self.finished(), self.epochs, [claim])

    def error(self) -> float:
        """The standard error of a relative change of the recalibrated NLL (see `Veto`), the largest among finished trials; 0 if unknown."""
        control = self.losses.get(0.0)
        if control is None or len(self.losses) < 2:
            return 0.0
        others = torch.stack([losses for epsilon, losses in self.losses.items() if epsilon])
        return relative_error(others[:, None], control[None])


def curves_of(curves: Mapping[str, Tensor], rows: slice, epochs: int) -> dict[str, Float[Tensor, "epoch seed"]]:
    """What is compared, of the members in `rows`, as long as they were trained."""
    return {metric: curves[name][:epochs, rows] for metric, name in METRICS.items()}


def curve_of(outcome: Outcome) -> Curve:
    """The curve of a finished trial."""
    return Curve(outcome.epsilon, {metric: torch.tensor(outcome.by_seed[metric]) for metric in METRICS})
