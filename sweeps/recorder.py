"""Recorder: the worker's end of the line to the scribe, which writes to MLflow in a process of its own."""

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from sweeps.datasets import Dataset
from sweeps.line import serve
from sweeps.worker import SCORED, Logits
from tracking.evidence import Evidence
from tracking.inputs import Inputs
from tracking.model import ExportedModel
from tracking.records import Facts, Outcome
from tracking.store import TrackingUnavailable
from tracking.summary import Table


class Recorder:
    """Hands over what is to be written, in order, and does not wait for it. Close it: what was handed over is then written."""

    def __init__(self, uri: str):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, uri), daemon=True, name="scribe")
        self.process.start()
        theirs.close()
        self.calls = ThreadPoolExecutor(1, "recorder")

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.shutdown()
        self.connection.close()
        self.process.join()

    def call(self, method: str, *arguments: object) -> Any:
        """Call a method of the Scribe and wait for its result. Errors: TrackingUnavailable."""
        return self.post(method, *arguments).result()

    def post(self, method: str, *arguments: object) -> "Future[Any]":
        """Have a method of the Scribe called, after those posted before."""
        return self.calls.submit(self.exchange, method, arguments)

    def exchange(self, method: str, arguments: Sequence[object]) -> Any:
        """One call over the line; runs in the one thread which uses it."""
        try:
            self.connection.send((method, arguments))
            answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise TrackingUnavailable("the process which writes to MLflow has died; run the same command again") from error
        if isinstance(answer, Exception):
            raise answer
        return answer


class SweepRecorder:
    """What a sweep of one task hands over."""

    def __init__(self, recorder: Recorder, dataset: Dataset, study: str, task: str, facts: Facts, say: Callable[[str], None]):
        self.recorder, self.dataset, self.say = recorder, dataset, say
        self.opened = recorder.post("open", task, study, facts, inputs_of(dataset))
        self.posted: list[tuple[str, Future[Any]]] = []

    def catch_up(self, outcomes: Sequence[Outcome]) -> None:
        """Have the outcomes of earlier runs written which the tracking store lacks."""
        if outcomes:
            self.posted.append(("the trials of earlier runs", self.recorder.post("catch_up", list(outcomes))))

    def finish(self, outcome: Outcome, logits: Logits, files: Mapping[str, bytes] | None = None) -> None:
        """Hand over a finished trial, with further artifacts by path.

        Errors: TrackingUnavailable where the store could not be opened at all.
        """
        if self.opened.done():
            self.opened.result()
        labels = {split: self.dataset.splits[split].labels.cpu().numpy() for split in logits}
        arrays = {split: values.numpy() for split, values in logits.items()}
        what = f"trial {outcome.number} at ε = {outcome.epsilon:g}"
        self.posted.append((what, self.recorder.post("trial", outcome, arrays, labels, self.dataset.classes, dict(files or {}))))

    def fetch(self, outcome: Outcome) -> Logits | None:
        """The logits of a trial of an earlier run; None where they are gone."""
        found = self.recorder.call("logits", outcome, ("calibrate", *SCORED[outcome.stage]))
        return None if found is None else {split: torch.from_numpy(values) for split, values in found.items()}

    def artifact(self, outcome: Outcome, path: str) -> bytes | None:
        """A file which `finish` handed over in an earlier run; None where it is gone."""
        content: bytes | None = self.recorder.call("artifact", outcome, path)
        return content

    def publish(self, evidence: Evidence, tables: Sequence[Table], model: ExportedModel | None) -> int:
        """Wait for every trial to be written, then publish. Returns the number of the version. Errors: TrackingUnavailable."""
        self.drain()
        version: int = self.recorder.call("publish", evidence, list(tables), model)
        return version

    def stop(self, status: str) -> None:
        """Wait for what is handed over, and mark the sweep as KILLED or FAILED."""
        self.drain()
        try:
            self.recorder.call("stop", status)
        except TrackingUnavailable as error:
            self.say(f"MLflow: {error}")

    def drain(self) -> None:
        """Wait for what was handed over, and tell what was not taken: it is kept in the study."""
        posted, self.posted = self.posted, []
        for what, future in posted:
            if (error := future.exception()) is not None:
                self.say(f"MLflow did not take {what}: {error}. The numbers are kept in the study; run the same command again to log them.")


def inputs_of(dataset: Dataset) -> Inputs:
    """What MLflow is told of a data set."""
    return Inputs(
        examples={name: len(split.labels) for name, split in dataset.splits.items()},
        classes=dataset.classes,
        dtype=str(dataset.splits["train"].stored.dtype).removeprefix("torch."),
        shape=dataset.shape,
    )
