"""Decide: what every policy recommends, with all claims counted together."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from tracking.decision.alike import unlike
from tracking.decision.holm import holm, weights
from tracking.decision.policies import DROPPED, INCUMBENT, by, own
from tracking.decision.recommend import Source, recommend
from tracking.decision.targets import TARGETS, effect_on
from tracking.decision.terms import Terms
from tracking.numbers import epsilon as spoken
from tracking.records.comparison import Claim, Comparison
from tracking.records.outcome import Interval
from tracking.records.point import Point, key_of
from tracking.records.recommendation import Preferred, Recommendation

Between = Callable[[str, str, str], Interval | None]
"""The paired difference on *test* of one point, by key, less another, in a metric; None where it is not
known.
"""
TARGET_OF = {target.metric: target for target in TARGETS}


def claimed(chosen: Mapping[str, Point], found: Mapping[str, Comparison], terms: Terms) -> list[Claim]:
    """The claims that are made, each once: policies with the same candidate and target make one. None for
    candidates at ε = 0.
    """
    named = {
        (key, by(name, terms).aim(found[key]).metric): None
        for name, point in chosen.items()
        if point["epsilon"] != 0 and (key := key_of(point)) in found
    }
    return [found[key].claims[metric] for key, metric in named]


def accepted(
    found: Mapping[str, Comparison], terms: Terms, earlier: Sequence[float] = (), openings: int = 1
) -> dict[str, bool]:
    """Whether each policy's claim is accepted, by weighted Holm over all finalists (Holm 1979) at a
    family-wise level of 5 %.

    `found` holds the comparison of the candidate of each policy that has one other than 0, and of the
    incumbent, if any. Half of the weight is that of the plan's own policy, at the k-th opening of *test* 2⁻ᵏ.
    `earlier` are p-values of claims from earlier openings, which belong to the same family.
    """
    claims = {
        name: (key_of(one.outcome.point), by(name, terms).aim(one).metric) for name, one in found.items()
    }
    family = {claim: found[name].claims[claim[1]].p for name, claim in claims.items()}
    family |= {("an earlier opening", str(place)): p for place, p in enumerate(earlier)}
    own_claims = {claim for name, claim in claims.items() if own(name, terms)}
    verdicts = holm(family, weights(family, own_claims, openings))
    return {name: verdicts[claim] for name, claim in claims.items()}


def decide(
    chosen: Mapping[str, Point],
    found: Mapping[str, Comparison],
    control: str,
    terms: Terms,
    source: Source,
    earlier: Sequence[float] = (),
    tied: Mapping[str, tuple[float, float]] | None = None,
    incumbent: Point | None = None,
    between: Between = lambda *_: None,
    constant_first: Collection[str] = (),
) -> dict[str, Recommendation]:
    """What each policy recommends: with a constant ε, and beside it, where that was tried, with one that
    falls to 0 (`Recommendation.dropped`).

    `chosen` holds each policy's candidates, see `policies.ties`; `found` the confirmed points by key, without
    those that diverged; `control` is the key of ε = 0. `earlier` as in `accepted`; `tied` holds, for each
    policy that has one, the lowest and highest ε that the screening cannot tell apart. `incumbent` is an ε
    that is published for the same data and recipe, and among those of the plan's policy; see `stable`.
    """
    ranges = tied or {}
    source = replace(source, invalid=unlike(found[control].outcome))
    every = {**chosen, **({INCUMBENT: incumbent} if incumbent is not None else {})}
    finalists = {
        name: found[key_of(point)]
        for name, point in every.items()
        if point["epsilon"] != 0 and key_of(point) in found
    }
    taken = accepted(finalists, terms, earlier, source.openings)

    def judge(name: str, point: Point) -> Recommendation:
        policy = by(name, terms).name
        return recommend(
            policy,
            point,
            finalists.get(name),
            found[control],
            taken.get(name, False),
            terms,
            source,
            ranges.get(name, ranges.get(policy)),
        )

    judged = {name: judge(name, point) for name, point in chosen.items()}
    decided = {name: one for name, one in judged.items() if not name.endswith(DROPPED)}
    if incumbent is not None and INCUMBENT in finalists:
        decided[terms.policy] = stable(decided[terms.policy], judge(INCUMBENT, incumbent))
    return {
        name: (
            beside(one, judged[name + DROPPED], terms, between, name in constant_first)
            if name + DROPPED in judged
            else one
        )
        for name, one in decided.items()
    }


def beside(
    constant: Recommendation,
    dropped: Recommendation,
    terms: Terms,
    between: Between,
    constant_first: bool,
) -> Recommendation:
    """A policy's recommendation with both schedules. Where both are adopted, the dropped one is preferred
    unless it is worse than the constant one in what the policy claims, by more than the effect of interest,
    or the policy prefers the constant one by the screening (`constant_first`).
    """
    apart = None
    if dropped.epsilon == 0:
        preferred: Preferred = "constant"
    elif constant.epsilon == 0:
        preferred = "dropped"
    else:
        target = TARGET_OF[dropped.claimed]
        apart = between(key_of(dropped.point), key_of(constant.point), target.metric)
        worse = apart is not None and max(target.sign * apart.low, target.sign * apart.high) < -effect_on(
            target, terms
        )
        preferred = "constant" if worse or constant_first else "dropped"
    return replace(constant, dropped=dropped, preferred=preferred, apart=apart)


def stable(chosen: Recommendation, published: Recommendation) -> Recommendation:
    """What the plan's policy recommends where an ε that is published, and cannot be told apart from its
    candidate, was confirmed beside it.

    The published one stays where it holds every condition: nobody has to change a recipe for what may be
    chance.
    """
    epsilon = published.candidate
    if published.epsilon == epsilon:
        reason = (
            f"ε = {spoken(epsilon)}, which is published already, cannot be told apart from what this sweep"
            " would name, and stays. "
        )
        return replace(published, incumbent=epsilon, reason=reason + published.reason)
    failed = "; ".join(one.sentence for one in published.conditions if not one.met)
    return replace(
        chosen,
        incumbent=epsilon,
        reason=f"{chosen.reason} The published ε = {spoken(epsilon)} does not stay: {failed}.",
    )
