"""Pull: `python -m tracking.recommend TASK` prints the recommended ε of a task; with flags, the whole answer,
its history, and which version holds.
"""

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from tracking.exits import Exit
from tracking.mlflow import versions
from tracking.mlflow.client import DEFAULT_URI, TrackingUnavailable, WrongAddress, is_server, shown
from tracking.mlflow.versions import Altered, NotPublished, Version
from tracking.names import WrongName, model_of
from tracking.numbers import plain
from tracking.records.recommendation import Recommendation
from tracking.records.schema import WrongRecord
from tracking.report.answer import UNCALIBRATED, Whole, smoothing, temperature


def recommended_epsilon(
    task: str, policy: str | None = None, version: int | None = None, tracking_uri: str | None = None
) -> float:
    """The recommended constant label-smoothing mass ε of a task such as `digits/mlp`, in the ε/K convention
    of torch; 0 where none is adopted, also where an ε that falls to 0 is (`recommended_smoothing`).

    Arguments and errors are those of `recommendation`.
    """
    return recommendation(task, policy, version, tracking_uri).epsilon


class Smoothing(NamedTuple):
    """A smoothing to train with.

    Attributes:
        epsilon: the mass, in the ε/K convention of torch.
        drop: the share of the optimiser steps after which ε is 0; 1 where it is constant.
        kind: who receives ε, a name of docs/smoothing.md.
    """

    epsilon: float
    drop: float
    kind: str


def recommended_smoothing(
    task: str, policy: str | None = None, version: int | None = None, tracking_uri: str | None = None
) -> Smoothing:
    """What a policy recommends of all that was tried: an ε that may fall to 0 while training goes on, as
    `lscal.SmoothedCrossEntropy(epsilon, drop)` trains with it.

    Arguments and errors are those of `recommendation`.
    """
    best = recommendation(task, policy, version, tracking_uri).best
    return Smoothing(best.epsilon, best.drop, best.smoothing.partition("@drop")[0])


def recommendation(
    task: str, policy: str | None = None, version: int | None = None, tracking_uri: str | None = None
) -> Recommendation:
    """A recommendation of a task.

    Args:
        task: `dataset/architecture`.
        policy: by default the one that the sweep was run with.
        version: by default the one that is recommended: the latest, unless another was restored or pinned.
        tracking_uri: by default MLFLOW_TRACKING_URI, or else sqlite:///mlflow.db in the working directory.

    Errors: WrongName; NotPublished, saying which recommendations there are; TrackingUnavailable.
    """
    return versions.version(resolved(tracking_uri), task, version).recommendation(policy)


def resolved(tracking_uri: str | None) -> str:
    """The tracking store: the given one, that of the environment, or the file that MLflow uses by
    default.
    """
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def history(uri: str, task: str) -> str:
    """The versions of a task as lines of text, the latest first."""
    pinned = versions.pinned(uri, task)
    lines = [f"{'':2}{'version':>7}  {'ε':<8}  {'policy':<10}  {'created':<25}  run"]
    for one in versions.history(uri, task) or [versions.version(uri, task)]:
        mark = "*" if one.recommended else ""
        note = "  pinned" if one.number == pinned else ""
        lines.append(
            f"{mark:2}{one.number:>7}  {plain(one.recommendation().epsilon):<8}  {one.policy:<10} "
            f" {one.created:<25}  {one.run_id}{note}"
        )
    return "\n".join(lines)


def changed(uri: str, options: argparse.Namespace) -> str:
    """The history after the alias was moved."""
    from tracking.mlflow import (
        registry,
        runs,
    )  # MLflow takes seconds to import, which a pull does not wait for

    client = runs.connect(uri)
    if options.restore is not None:
        registry.restore(client, options.task, options.restore)
    elif options.pin is not None:
        registry.pin(client, options.task, options.pin)
    else:
        registry.unpin(client, options.task)
    return history(uri, options.task)


def verified(uri: str, task: str, number: int | None) -> str:
    """That a version says what its run says. Errors: Altered where it does not."""
    from tracking.mlflow import registry, runs

    found = versions.version(uri, task, number)
    if wrong := registry.disagreements(runs.connect(uri), found):
        raise Altered(
            f"version {found.number} of {task!r} is not what run {found.run_id} says, by policy"
            f" {', '.join(wrong)}."
        )
    return f"version {found.number} of {task} is what run {found.run_id} says."


def answer(uri: str, options: argparse.Namespace) -> str:
    """What the command prints. Errors: those of `recommendation`."""
    if options.history:
        return history(uri, options.task)
    if options.restore is not None or options.pin is not None or options.unpin:
        return changed(uri, options)
    if options.verify:
        return verified(uri, options.task, options.version)
    found = versions.version(uri, options.task, options.version)
    record = found.recommendation(options.policy)
    if options.json or options.explain:
        whole = Whole.of(found.recommendations(), record.policy, links_of(uri, found))
        return whole.to_json() if options.json else wrapped(whole.answer)
    if record.best.drop != 1:
        print(
            f"This is the best constant ε. {smoothing(record.best)} of the steps is recommended before it:"
            " --explain, or tracking.recommend.recommended_smoothing.",
            file=sys.stderr,
        )
    if sys.stderr.isatty() and record.policy not in UNCALIBRATED:
        print(
            f"A temperature belongs to it: divide logits by {temperature(record)}. --explain says more.",
            file=sys.stderr,
        )
    return plain(record.epsilon)


def links_of(uri: str, found: Version) -> dict[str, str]:
    """Where the reasons behind a version are: on its page, and on an MLflow server."""
    page = {
        "page": (
            f"http://127.0.0.1:8000/v1/tasks/{found.task}/page?version={found.number} (by python -m"
            " tracking.serve)"
        )
    }
    ui = (
        f"{shown(uri).rstrip('/')}/#/models/{model_of(found.task)}/versions/{found.number}"
        if is_server(uri)
        else ""
    )
    return {**page, **({"MLflow": ui} if ui else {})}


def wrapped(sentences: Sequence[str]) -> str:
    """Each sentence on lines of its own, as wide as the terminal, broken between words."""
    width = shutil.get_terminal_size().columns
    return "\n".join(
        textwrap.fill(one, width, break_long_words=False, break_on_hyphens=False) for one in sentences
    )


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="python -m tracking.recommend",
        description="Print the recommended ε of a task.",
        epilog=(
            "Exit codes: 0 done, 1 the store is away, cannot be read or was altered, 2 wrong input: no such"
            " task, policy or version."
        ),
    )
    flags.add_argument("task", help="dataset/architecture, such as digits/mlp")
    flags.add_argument("--policy", help="by default the one which the sweep was run with")
    flags.add_argument("--version", type=int, metavar="N", help="by default the recommended one")
    flags.add_argument("--tracking-uri", help=f"by default MLFLOW_TRACKING_URI, or else {DEFAULT_URI}")
    action = flags.add_mutually_exclusive_group()
    action.add_argument(
        "--explain",
        action="store_true",
        help="print the whole answer: with its temperature, what it changes, and other cases",
    )
    action.add_argument(
        "--json",
        action="store_true",
        help="print the whole record, with these sentences and what the other policies say",
    )
    action.add_argument(
        "--history",
        action="store_true",
        help="list all versions, the latest first; * marks the recommended one",
    )
    action.add_argument(
        "--restore", type=int, metavar="N", help="recommend version N until the next sweep publishes"
    )
    action.add_argument(
        "--pin", type=int, metavar="N", help="recommend version N whatever later sweeps publish"
    )
    action.add_argument("--unpin", action="store_true", help="recommend the latest version again")
    action.add_argument(
        "--verify", action="store_true", help="compare the version with the records of its run"
    )
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Prints ε alone by default, and returns its exit code, see `tracking.exits`."""
    options = parser().parse_args(arguments)
    try:
        print(answer(resolved(options.tracking_uri), options))
    except (WrongName, NotPublished, WrongAddress) as error:
        print(f"error: {error}", file=sys.stderr)
        return Exit.WRONG_INPUT
    except (Altered, WrongRecord, TrackingUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return Exit.FAILED
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
