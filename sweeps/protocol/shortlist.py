"""Shortlist: the points to confirm beside ε = 0."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sweeps.plan import Plan
from sweeps.site import Site
from tracking.decision.policies import constant_ahead, ties
from tracking.decision.screening import Screening
from tracking.mlflow import versions
from tracking.mlflow.client import TrackingUnavailable
from tracking.mlflow.versions import NotPublished
from tracking.records.point import Point, key_of
from tracking.records.schema import WrongRecord


@dataclass(frozen=True)
class Shortlist:
    """The points to confirm, and the policies that ask for each.

    Attributes:
        control: the key of ε = 0.
        points: by key, ε = 0 included.
        candidates: by name, see `tracking.decision.policies.ties`.
        finalists: by the key of every point but ε = 0, the names of the candidates that it is.
        ties: the lowest and the highest ε of those that each candidate stands for.
        constant_first: policies that prefer their constant ε, by the screening.
        incumbent: the published point, where it ties with the best of the plan's policy.
    """

    control: str
    points: Mapping[str, Point]
    candidates: Mapping[str, Point]
    finalists: Mapping[str, Sequence[str]]
    ties: Mapping[str, tuple[float, float]]
    constant_first: Collection[str]
    incumbent: Point | None

    @classmethod
    def of(
        cls,
        screening: Screening,
        plan: Plan,
        published: Sequence[Point],
    ) -> "Shortlist":
        """The control, the candidates of the policies, and what is published."""
        found = ties(screening, plan.terms)
        candidates = {name: screening.point_at(tie) for name, tie in found.items()}
        control = key_of(screening.control_point)
        points = {control: screening.control_point} | {
            key_of(point): point for point in (*candidates.values(), *published)
        }
        finalists = {
            key: [name for name, point in candidates.items() if key_of(point) == key]
            for key, point in points.items()
            if point["epsilon"] != 0
        }
        tied = (point for point in published if point["epsilon"] in found[plan.policy])
        incumbent = next(tied, None)
        if incumbent is not None and plan.policy not in finalists[key_of(incumbent)]:
            finalists[key_of(incumbent)].append(plan.policy)
        ranges = {name: (tie.low, tie.high) for name, tie in found.items()}
        return cls(control, points, candidates, finalists, ranges, constant_ahead(found), incumbent)


def published_before(policy: str, site: Site, task: str, training: str) -> list[Point]:
    """The point above ε = 0 that a policy recommends in the published version of a task, if its training is
    the same.
    """
    try:
        found = versions.version(site.tracking_uri, task)
        record = found.recommendation(policy)
    except (NotPublished, TrackingUnavailable, WrongRecord):
        return []
    return [dict(record.point)] if record.training == training and record.epsilon != 0 else []
