"""Rule of early stopping: drops a trial that can no longer change the recommendation.

Label smoothing slows convergence, so the early accuracy of a large ε understates its final one: a rule that
compares trials at the same early epoch is biased against it. Here a trial's own curve is extended to the end
by the gain that finished trials made after this epoch, as a smooth function of ε, and final values are
compared.

The predicted quantity is the final value on *select* of the seeds under training. So drawn examples and seeds
are no part of this uncertainty: a policy chooses its candidate among these values. What remains is the
scatter of a seed's gain, and the error of estimating the gain at another ε from a few finished trials. New
seeds and examples come in with the confirmation, which a candidate has to pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tracking.decision.terms import Tolerances
from tracking.records.outcome import Interval

FINISHED = 3
"""Trials that have to be finished, ε = 0 among them, before any is dropped."""
LENGTH = 0.3
"""Length scale of gains in √ε (correlation exp(-1/2)). In √ε, since small ε change most."""
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Amplitudes of gains over ε, in units of a trial's noise; their weights are learned."""
DRAWS = 2000


@dataclass(frozen=True, eq=False)
class Curve:
    """Scores of a trial on *select* so far: by metric, after each epoch, for each seed; seeds in the same
    order in all trials.
    """

    epsilon: float
    values: Mapping[str, Float[Tensor, "epoch seed"]]

    @classmethod
    def of_members(
        cls, epsilons: Sequence[float], curves: Mapping[str, Float[Tensor, "epoch member"]]
    ) -> list["Curve"]:
        """Trials with these ε from the engine's curves, whose members are the first trial's seeds, then the
        next one's.
        """
        on_select = {
            name.removeprefix("select_"): values.chunk(len(epsilons), 1)
            for name, values in curves.items()
            if name.startswith("select_")
        }
        return [
            cls(epsilon, {name: values[trial] for name, values in on_select.items()})
            for trial, epsilon in enumerate(epsilons)
        ]


@dataclass(frozen=True)
class Veto:
    """A metric, less of which is better, that the confirmation lets rise by at most `tolerance` of its value
    at ε = 0.

    Attributes:
        error: standard error of such a relative change over the examples of *select*, see `relative_error`.
    """

    metric: str
    tolerance: float
    error: float


@dataclass(frozen=True)
class Criterion:
    """Rule by which a policy chooses its candidate, and the conditions it has to pass; else ε = 0 is
    recommended.

    Attributes:
        metric: its name among a curve's values.
        sign: 1 where more is better, -1 where less is.
        near: the candidate is not the best itself, but stands for all that cannot be distinguished from it,
            see `candidate`.
        proven: the gain over ε = 0 has to be significant.
        vetoes: metrics that must not get worse.
    """

    metric: str
    sign: int = 1
    near: bool = False
    proven: bool = False
    vetoes: tuple[Veto, ...] = ()


def criterion_of(policy: str, tolerances: Tolerances, error: float) -> Criterion | None:
    """Criterion of a policy of `tracking.decision.policies`; None for a policy without one: then drop
    nothing.

    `error` is that of the recalibrated NLL, see `Veto`. The omitted conditions (ranking, worst class,
    confidence gap) could only exclude more candidates.
    """
    match policy:
        case "safe":  # another recalibration than temperature may repair what looks worse here
            return Criterion("accuracy", near=True, proven=True)
        case "raw":
            return Criterion(
                "accuracy",
                near=True,
                proven=True,
                vetoes=(Veto("nll_calibrated", tolerances.nll_relative, error),),
            )
        case "accuracy":
            return Criterion("accuracy", proven=True)
        case "calibrated":
            return Criterion("nll_calibrated", sign=-1)
        case _:
            return None


@dataclass(frozen=True)
class RungDecision:
    """Whether a running trial goes on.

    Attributes:
        keep: False where it may be dropped.
        risk: probability that the recommendation changes without it and those dropped before it at this rung.
        predicted: by metric, its final value, mean over seeds, with a 95 % interval; empty where nothing is
            predicted.
        reason: in words.
    """

    keep: bool
    risk: float
    predicted: Mapping[str, Interval]
    reason: str


def relative_error(
    losses: Float[Tensor, "trial seed example"], control: Float[Tensor, "seed example"]
) -> float:
    """Standard error over examples of the relative change of a mean loss from the control's; the largest
    among trials.

    sd over examples of (loss - control's loss) / √examples / mean of the control's loss, of losses averaged
    over seeds.
    """
    base = control.double().mean(0)
    spread = (losses.double().mean(1) - base).std(-1).amax()
    return float(spread / len(base) ** 0.5 / base.mean())


def survivors(
    running: Sequence[Curve],
    finished: Sequence[Curve],
    epochs: int,
    criteria: Sequence[Criterion],
    risk: float = 0.01,
) -> list[RungDecision]:
    """Decisions on the running trials after the last epoch of their curves, in their order.

    The sweep's end is drawn 2000 times: the final values of all running trials from their predictive
    distribution (`predict`), and every trial's luck in the confirmation. In each draw each criterion's
    recommendation is found among all trials, and again without the dropped ones. Trials are dropped in the
    order of their own risk, as long as any recommendation changes in at most a share `risk` of the draws: the
    probability of an error of one call, of all its drops together.

    Give the criterion of the plan's policy alone: the other policies' recommendations are then found among
    fewer trials, but as well confirmed. With several criteria a trial has to be out of all of them, and where
    accuracy is flat within noise any trial may become the most accurate: almost nothing is dropped.

    ε = 0 is never dropped, and everything goes on where fewer than three trials have finished, ε = 0 among
    them, or with one seed. For trials that differ in ε alone: with other learning rates, gains are no
    function of ε.

    Errors: ValueError for curves whose epochs or seeds do not fit.
    """
    check(running, finished, epochs, criteria)
    known = (
        len(finished) >= FINISHED and any(curve.epsilon == 0 for curve in finished) and seeds_of(finished) > 1
    )
    able = [
        known and all(bool(value.isfinite().all()) for value in curve.values.values()) for curve in running
    ]
    end = (
        End.draw([curve for curve, one in zip(running, able, strict=True) if one], finished, criteria)
        if any(able)
        else None
    )
    judged = iter(end.decisions(risk) if end else [])
    why = (
        "its values are not finite"
        if known
        else f"fewer than {FINISHED} trials have finished, ε = 0 among them, with 2 seeds or more"
    )
    return [
        (
            next(judged)
            if one
            else RungDecision(
                True, 1.0, {}, f"ε = {curve.epsilon:g} goes on: its end is not predicted, {why}."
            )
        )
        for curve, one in zip(running, able, strict=True)
    ]


def metrics_of(criteria: Sequence[Criterion]) -> list[str]:
    """All metrics that the criteria use, each once."""
    return list(
        dict.fromkeys(
            name
            for criterion in criteria
            for name in (criterion.metric, *(veto.metric for veto in criterion.vetoes))
        )
    )


def check(
    running: Sequence[Curve], finished: Sequence[Curve], epochs: int, criteria: Sequence[Criterion]
) -> None:
    """Raise ValueError where curves do not fit each other or the criteria."""
    for metric in metrics_of(criteria):
        if any(metric not in curve.values for curve in (*running, *finished)):
            raise ValueError(
                f"a criterion needs {metric!r}, which is missing in a curve; record it, or drop nothing"
            )
    now = {tuple(value.shape) for curve in running for value in curve.values.values()}
    then = {tuple(value.shape) for curve in finished for value in curve.values.values()}
    if (
        len({seeds for _, seeds in now | then}) > 1
        or len(now) > 1
        or {length for length, _ in then} - {epochs}
    ):
        raise ValueError(
            f"curves (epoch, seed) are {sorted(now)}, finished ones {sorted(then)}; wanted the same seeds,"
            f" one rung, {epochs} epochs"
        )
    if any(not 0 < length < epochs for length, _ in now):
        raise ValueError(f"the rung is after epoch {next(iter(now))[0]}; allowed is 1 to {epochs - 1}")


def seeds_of(curves: Sequence[Curve]) -> int:
    """Number of seeds of each trial."""
    return int(next(iter(curves[0].values.values())).shape[1])


@dataclass(frozen=True, eq=False)
class End:
    """Draws of the end of a sweep.

    Attributes:
        running: number of running trials; they come first, then the finished ones, whose finals are the same
            in every draw.
        finals: by metric, each trial's final values.
        adopted: for each criterion, whether the confirmation would adopt each trial.
    """

    running: int
    epsilons: Float[Tensor, " trial"]
    finals: Mapping[str, Float[Tensor, "draw trial seed"]]
    criteria: Sequence[Criterion]
    adopted: Sequence[Bool[Tensor, "draw trial"]]

    @classmethod
    def draw(
        cls, running: Sequence[Curve], finished: Sequence[Curve], criteria: Sequence[Criterion]
    ) -> "End":
        """Draw the ends of all metrics that decide."""
        generator = torch.Generator().manual_seed(len(finished))  # a resumed sweep decides the same
        epsilons = torch.tensor([curve.epsilon for curve in (*running, *finished)], dtype=torch.float64)
        finals = {}
        for metric in metrics_of(criteria):
            now = torch.stack([curve.values[metric] for curve in running]).double()
            then = torch.stack([curve.values[metric] for curve in finished]).double()
            finals[metric] = torch.cat(
                [predict(now, then, epsilons, generator), then[:, -1].expand(DRAWS, -1, -1)], 1
            )
        luck = torch.randn(2, DRAWS, len(epsilons), dtype=torch.float64, generator=generator)
        control = int(epsilons.abs().argmin())
        return cls(
            len(running),
            epsilons,
            finals,
            criteria,
            [adopted(criterion, finals, control, luck) for criterion in criteria],
        )

    def decisions(self, risk: float) -> list[RungDecision]:
        """Decision on each running trial."""
        kept = torch.ones(len(self.epsilons), dtype=torch.bool)
        risks = {index: self.change(without(kept, index)) for index in range(self.running)}
        for index in sorted(risks, key=risks.__getitem__):
            risks[index] = self.change(without(kept, index))
            kept[index] = self.epsilons[index] == 0 or risks[index] > risk
        return [self.decision(index, bool(kept[index]), risks[index]) for index in range(self.running)]

    def change(self, kept: Bool[Tensor, " trial"]) -> float:
        """Share of draws in which some criterion's recommendation among the kept trials is not that among
        all.
        """
        rows = kept.nonzero().squeeze(1)
        changed = torch.zeros(self.adopted[0].shape[0], dtype=torch.bool)
        for criterion, passes in zip(self.criteria, self.adopted, strict=True):
            finals = criterion.sign * self.finals[criterion.metric]
            before = candidate(finals, self.epsilons, criterion.near)[:, None]
            after = rows[candidate(finals[:, rows], self.epsilons[rows], criterion.near)][:, None]
            changed |= ((before != after) & (passes.gather(1, before) | passes.gather(1, after))).squeeze(1)
        return float(changed.double().mean())

    def decision(self, index: int, keep: bool, risk: float) -> RungDecision:
        """Decision on a trial, in words."""
        epsilon = float(self.epsilons[index])
        predicted, told = {}, []
        for metric, finals in self.finals.items():
            means = finals[:, index].mean(-1)
            low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
            predicted[metric] = Interval(float(means.mean()), low, high)
            known = finals[0, self.running :].mean(-1)
            lowest = next(
                (criterion.sign < 0 for criterion in self.criteria if criterion.metric == metric), True
            )
            best = int(known.argmin() if lowest else known.argmax())
            scale, unit, digits = (100, " %", 2) if metric == "accuracy" else (1, "", 4)
            mean, low, high, rival = (
                f"{scale * value:.{digits}f}"
                for value in (predicted[metric].value, low, high, float(known[best]))
            )
            what = metric.replace("nll_calibrated", "NLL after temperature")
            told.append(
                f"{what} {mean}{unit} [{low}, {high}], best so far {rival}{unit} at ε ="
                f" {float(self.epsilons[self.running + best]):g}"
            )
        ending = "goes on" if keep else "is dropped"
        reason = (
            f"ε = {epsilon:g} {ending}: predicted {'; '.join(told)}; the chance that it changes the"
            f" recommendation is {100 * risk:.1f} %."
        )
        return RungDecision(
            keep, risk, predicted, "ε = 0 goes on: it is the control." if epsilon == 0 else reason
        )


def without(kept: Bool[Tensor, " trial"], index: int) -> Bool[Tensor, " trial"]:
    """The same less one trial."""
    kept = kept.clone()
    kept[index] = False
    return kept


def candidate(
    finals: Float[Tensor, "draw trial seed"], epsilons: Float[Tensor, " trial"], near: bool
) -> Int[Tensor, " draw"]:
    """Index of the trial that would be chosen in each draw if candidates were trials, not points of the
    smooth fit; larger finals are better.

    The best has the largest mean over seeds. `near` takes ε = 0 where it is within one standard error of the
    best, else of the best and its neighbours that are, the trial in the middle of their range, or nearest to
    it. The error is that of the best's paired gain over ε = 0 (the smallest |ε|). Of equal trials the one
    with the smallest |ε|.
    """
    order = epsilons.abs().argsort(stable=True)
    finals, means = finals[:, order], finals[:, order].mean(-1)
    best = means.argmax(1, keepdim=True)
    if not near:
        return order[best.squeeze(1)]
    gain = finals.gather(1, best[..., None].expand(-1, 1, finals.shape[2])) - finals[:, :1]
    tied = means >= means.gather(1, best) - standard_error(gain) - 1e-9  # accuracies lie on a lattice
    promising = ~tied[:, 0]
    along = epsilons[order].argsort(stable=True)
    far = (
        (~tied[:, along]).int().cumsum(1)[:, along.argsort()]
    )  # how many are not tied, up to each trial: neighbours have as many
    tied &= far == far.gather(1, best)
    low, high = (torch.where(tied, epsilons[order], edge * torch.inf) for edge in (1, -1))
    middle = (low.amin(1, keepdim=True) + high.amax(1, keepdim=True)) / 2
    apart = torch.where(tied, ((epsilons[order] - middle).abs() * 1e9).round(), torch.inf)
    return order[torch.where(promising, apart.argmin(1), 0)]


def adopted(
    criterion: Criterion,
    finals: Mapping[str, Float[Tensor, "draw trial seed"]],
    control: int,
    luck: Float[Tensor, "2 draw trial"],
) -> Bool[Tensor, "draw trial"]:
    """Whether each trial, if it were the candidate, would be adopted after as many fresh seeds, in each draw.

    A difference to ε = 0 has the standard error e over seeds here and again there, so the confirmation's is
    drawn around this one's with variance 2e². A gain has to lie above 1.96 e; the examples' share of e is
    left out, which makes adoption more likely than it is. A relative rise under a veto has the error of
    examples as well, and has to stay below the tolerance.
    """
    values = criterion.sign * finals[criterion.metric]
    gain = values - values[:, control : control + 1]
    error = standard_error(gain)
    passes = (
        gain.mean(-1) + luck[0] * 2**0.5 * error > 1.96 * error
        if criterion.proven
        else torch.ones_like(luck[0], dtype=torch.bool)
    )
    for veto in criterion.vetoes:
        base = finals[veto.metric][:, control : control + 1]
        rise = (finals[veto.metric] - base) / base.mean(-1, keepdim=True)
        spread = (2 * (standard_error(rise).square() + veto.error**2)).sqrt()
        passes &= rise.mean(-1) + luck[1] * spread < veto.tolerance
    return passes


def standard_error(values: Float[Tensor, "draw trial seed"]) -> Float[Tensor, "draw trial"]:
    """The standard error of the mean over seeds."""
    seeds = values.shape[-1]
    squares = (values - values.mean(-1, keepdim=True)).square().sum(-1)
    error: Tensor = (squares / (seeds * (seeds - 1))).sqrt()  # std() takes ten times as long
    return error


def predict(
    now: Float[Tensor, "running epoch seed"],
    then: Float[Tensor, "finished epochs seed"],
    epsilons: Float[Tensor, " trial"],
    generator: torch.Generator,
) -> Float[Tensor, "draw running seed"]:
    """Draws of the running trials' final values. `epsilons` are those of the running, then of the finished
    trials.

    The level of a trial t and seed s is the mean over the later half of its epochs so far, as single epochs
    are noisy. Its gain is final - level, known for finished trials, and modelled as

        gain[t, s] = seed effect[s] + f(ε[t]) + noise[t, s],    noise ~ N(0, v)

    with v from the residuals of the two-way table and its χ² uncertainty, and f a Gaussian process in √ε of
    unknown level, whose scale is averaged over `SCALES` by likelihood: few finished trials give heavy tails.
    A trial's mean over S seeds has noise v/S.
    """
    seeds, stop = now.shape[2], now.shape[1]
    gains = then[:, -1] - then[:, stop // 2 : stop].mean(1)
    by_trial, by_seed = gains.mean(1), gains.mean(0) - gains.mean()
    freedom = (len(then) - 1) * (seeds - 1)
    variance = (gains - by_trial[:, None] - by_seed).square().sum().clamp(min=1e-9) / freedom

    noise = variance / seeds
    root = epsilons.sign() * epsilons.abs().sqrt()
    distance = root[:, None] - root
    likeness = torch.exp(-((distance / LENGTH) ** 2) / 2)
    vague = 100 * (noise * SCALES[-1] ** 2 + by_trial.square().mean())
    processes = [condition(noise * scale**2 * likeness + vague, by_trial, noise) for scale in SCALES]
    fits = torch.stack([fit for _, _, fit in processes])
    which = torch.multinomial(fits.softmax(0), DRAWS, replacement=True, generator=generator)
    means = torch.stack([mean for mean, _, _ in processes])[which]
    own = noise * torch.eye(len(now), dtype=torch.float64)
    roots = torch.linalg.cholesky(torch.stack([covariance for _, covariance, _ in processes]) + own)[which]

    squares = torch.randn(DRAWS, freedom, dtype=torch.float64, generator=generator).square().sum(1)
    wider = (freedom / squares).sqrt()[:, None]
    normal = torch.randn(DRAWS, len(now), 1 + seeds, dtype=torch.float64, generator=generator)
    of_trial = means + wider * (roots @ normal[:, :, :1]).squeeze(-1)
    scatter = normal[:, :, 1:] - normal[:, :, 1:].mean(-1, keepdim=True)
    of_seed = by_seed + wider[:, :, None] * (variance * (1 + 1 / len(then))).sqrt() * scatter
    finals: Tensor = now[:, stop // 2 :].mean(1) + of_trial[:, :, None] + of_seed
    return finals


def condition(
    prior: Float[Tensor, "trial trial"], known: Float[Tensor, " finished"], noise: Float[Tensor, ""]
) -> tuple[Float[Tensor, " running"], Float[Tensor, "running running"], Float[Tensor, ""]]:
    """Mean and covariance of a Gaussian process at the first trials, given noisy values at the last ones; and
    their log likelihood.
    """
    first = len(prior) - len(known)
    root = torch.linalg.cholesky(prior[first:, first:] + noise * torch.eye(len(known), dtype=torch.float64))
    solved = torch.linalg.solve_triangular(
        root, torch.cat([known[:, None], prior[first:, :first]], 1), upper=False
    )
    of_known, of_first = solved[:, 0], solved[:, 1:]
    fit = -of_known.square().sum() / 2 - root.diagonal().log().sum()
    return of_first.T @ of_known, prior[:first, :first] - of_first.T @ of_first, fit
