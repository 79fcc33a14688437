"""Publish and pull: `python -m tracking.recommend TASK` prints the recommended ε of a task.

A published recommendation is a tag of the task's MLflow experiment, one per policy.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from tracking.records import Recommendation
from tracking.store import DEFAULT_URI, TrackingUnavailable, experiment_tags

TAG = "lscal.recommendation."
POLICY_TAG = "lscal.policy"


class NotPublished(LookupError):
    """There is no such recommendation."""


def recommended_epsilon(task: str, policy: str | None = None, tracking_uri: str | None = None) -> float:
    """The recommended label-smoothing mass ε of a task such as `digits/mlp`, in the ε/K convention of torch.

    Arguments and errors are those of `recommendation`.
    """
    return recommendation(task, policy, tracking_uri).epsilon


def recommendation(task: str, policy: str | None = None, tracking_uri: str | None = None) -> Recommendation:
    """The latest recommendation of a task.

    Args:
        task: `dataset/architecture`.
        policy: by default the one which the latest sweep was run with.
        tracking_uri: by default MLFLOW_TRACKING_URI, or else sqlite:///mlflow.db in the working directory.

    Errors: NotPublished, saying which recommendations there are; TrackingUnavailable.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    try:
        tags = experiment_tags(uri, task)
    except LookupError as error:
        raise NotPublished(f"no sweep of task {task!r} is in the tracking store. {error} Run: python -m sweeps.run '{task}'") from error
    published = sorted(key.removeprefix(TAG) for key in tags if key.startswith(TAG))
    if not published:
        raise NotPublished(f"task {task!r} has no recommendation yet. Run: python -m sweeps.run '{task}'")
    name = policy or tags.get(POLICY_TAG, published[0])
    if name not in published:
        raise NotPublished(f"task {task!r} has no recommendation by policy {name!r}; there are: {', '.join(published)}.")
    return Recommendation.from_json(tags[TAG + name])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Prints ε alone, or the record with --json; exits with 1 where there is none."""
    parser = argparse.ArgumentParser(prog="python -m tracking.recommend", description="Print the recommended ε of a task.")
    parser.add_argument("task", help="dataset/architecture, such as digits/mlp")
    parser.add_argument("--policy", help="by default the one which the latest sweep was run with")
    parser.add_argument("--json", action="store_true", help="print the whole record")
    parser.add_argument("--tracking-uri", help=f"by default MLFLOW_TRACKING_URI, or else {DEFAULT_URI}")
    options = parser.parse_args(arguments)
    try:
        found = recommendation(options.task, options.policy, options.tracking_uri)
    except (NotPublished, TrackingUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(found.to_json() if options.json else f"{found.epsilon:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
