"""Shortlist: the points to confirm beside ε = 0."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeps.plan import Plan
from sweeps.site import Site
from tracking.decision.policies import in_tie
from tracking.decision.screening import Screening
from tracking.mlflow import versions
from tracking.mlflow.client import TrackingUnavailable
from tracking.mlflow.versions import NotPublished
from tracking.records.point import Point, key_of


@dataclass(frozen=True)
class Shortlist:
    """The points to confirm, and the policies that ask for each.

    Attributes:
        control: the key of ε = 0.
        points: by key, ε = 0 included.
        candidates: each policy's point.
        finalists: by the key of every point but ε = 0, the policies whose candidate it is.
        ties: the lowest and the highest ε of those that each policy's candidate stands for.
        incumbent: the published point, where it ties with the best of the plan's policy.
    """

    control: str
    points: Mapping[str, Point]
    candidates: Mapping[str, Point]
    finalists: Mapping[str, Sequence[str]]
    ties: Mapping[str, tuple[float, float]]
    incumbent: Point | None

    @classmethod
    def of(
        cls,
        screening: Screening,
        plan: Plan,
        candidates: Mapping[str, Point],
        ties: Mapping[str, tuple[float, float]],
        published: Sequence[Point],
    ) -> "Shortlist":
        """The control, the candidates of the policies, and what is published."""
        control = key_of(screening.control_point)
        points = {control: screening.control_point} | {
            key_of(point): point for point in (*candidates.values(), *published)
        }
        finalists = {
            key: [name for name, point in candidates.items() if key_of(point) == key]
            for key, point in points.items()
            if point["epsilon"] != 0
        }
        tied = (point for point in published if in_tie(screening, plan.terms, plan.policy, point["epsilon"]))
        incumbent = next(tied, None)
        if incumbent is not None and plan.policy not in finalists[key_of(incumbent)]:
            finalists[key_of(incumbent)].append(plan.policy)
        return cls(control, points, candidates, finalists, ties, incumbent)


def published_before(policy: str, site: Site, task: str, training: str) -> list[Point]:
    """The point above ε = 0 that a policy recommends in the published version of a task, if that is
    of the same training.
    """
    try:
        found = versions.version(site.tracking_uri, task)
        record = found.recommendation(policy)
    except (NotPublished, TrackingUnavailable):
        return []
    return [dict(record.point)] if record.training == training and record.epsilon != 0 else []
