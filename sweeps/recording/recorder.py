"""Recorder: keeps what is measured in the outbox, and has the scribe send it to MLflow from a process of its
own.
"""

import io
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch

from sweeps.data.dataset import Dataset
from sweeps.errors import WrongInput
from sweeps.recording.uploader_process import serve
from sweeps.scoring import SENTENCES, Logits, Part, parts_of
from tracking.mlflow import versions
from tracking.mlflow.client import TrackingAway, TrackingUnavailable, identity, is_server, reach
from tracking.mlflow.model import ExportedModel
from tracking.outbox.outbox import PROGRAM, Left, Outbox, Record
from tracking.records.about import About
from tracking.records.evidence import Evidence
from tracking.records.inputs import Inputs
from tracking.records.outcome import Facts, Outcome
from tracking.report.summary import Table

if TYPE_CHECKING:
    from sweeps.recording.uploader import Progress

SHORT, LONG = 5.0, 60.0
"""Seconds to wait for the scribe: where it can be done without, and where a file may take its time."""
OPEN_SECONDS = 20.0
"""How long the first answer of a server that is there is waited for: it may be creating its tables."""
OWN_SECONDS = 120.0
"""The same of a database without a server: it is not away, but on a busy machine MLflow's import and its
tables take long.
"""
AWAY_SECONDS = 4.0
"""How long a tracking store may be away while the last entries are waited for."""
POLL_SECONDS = 0.2


class Recorder:
    """The outbox of this machine, and the process which sends it. Errors: WrongInput where the folder cannot
    be made.
    """

    def __init__(self, uri: str, folder: Path):
        self.uri = uri
        try:
            self.outbox = Outbox(folder)
        except OSError as error:
            raise WrongInput(
                f"the outbox {str(folder)!r} cannot be made: {error.strerror}. Give another --state-dir."
            ) from error
        self.calls = ThreadPoolExecutor(1, "recorder")
        self.process: SpawnProcess | None = None

    def begin(self) -> None:
        """Start the scribe's process."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, self.uri, str(self.outbox.folder)), daemon=True, name="scribe"
        )
        self.process.start()
        theirs.close()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.shutdown(cancel_futures=True)
        if self.process is None:
            return
        self.connection.close()
        self.process.join(SHORT)
        # what it was sending stays in the outbox, and is completed by whoever sends it next
        self.process.kill()
        self.process.join()

    def call(self, seconds: float, method: str, *arguments: object) -> Any:
        """Call a method of the Scribe and wait so long for its result. Errors: TrackingUnavailable, and of
        these TrackingAway for the time.
        """
        future = self.post(method, *arguments)
        try:
            return future.result(seconds)
        except TimeoutError as error:
            future.cancel()
            raise TrackingAway(f"MLflow does not answer within {seconds:g} s") from error

    def post(self, method: str, *arguments: object) -> "Future[Any]":
        """Have a method of the Scribe called, after those posted before. Its process is started by the first
        call.
        """
        if self.process is None:
            self.begin()
        return self.calls.submit(self.exchange, method, arguments)

    def exchange(self, method: str, arguments: Sequence[object]) -> Any:
        """One call over the line; runs in the one thread which uses it. A scribe which has died is replaced,
        once.
        """
        try:
            answer = self.over_the_line(method, arguments)
        except (EOFError, OSError):
            self.connection.close()
            assert self.process is not None
            self.process.join()
            self.begin()
            try:
                answer = self.over_the_line(method, arguments)
            except (EOFError, OSError) as error:
                raise TrackingUnavailable(
                    "the process which writes to MLflow dies as soon as it is started"
                ) from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def over_the_line(self, method: str, arguments: Sequence[object]) -> Any:
        """Send a call and receive its answer. Errors: EOFError, OSError."""
        self.connection.send((method, arguments))
        return self.connection.recv()


class SweepRecorder:
    """What a sweep of one task hands over. Nothing here waits for MLflow while members could be trained."""

    def __init__(
        self,
        recorder: Recorder,
        dataset: Dataset,
        study: str,
        task: str,
        facts: Facts,
        say: Callable[[str], None],
    ):
        self.recorder, self.outbox, self.dataset, self.say = recorder, recorder.outbox, dataset, say
        self.about = About(task, study, identity(recorder.uri), facts, inputs_of(dataset))
        self.recent: dict[str, dict[str, bytes]] = {}
        self.opened = recorder.post("open", self.about)

    def where(self) -> tuple[str, str] | None:
        """The id of the parent run and the address of the trials in the UI; None where MLflow is away, or
        does not answer within some seconds.
        """
        try:
            if self.opened.done() and self.opened.exception() is None:
                return cast(tuple[str, str], self.opened.result())
            reach(self.recorder.uri)
            seconds = OPEN_SECONDS if is_server(self.recorder.uri) else OWN_SECONDS
            found: tuple[str, str] = self.recorder.call(seconds, "open", self.about)
        except TrackingUnavailable:
            return None
        return found

    def catch_up(self, outcomes: Sequence[Outcome]) -> None:
        """Have the outcomes of earlier runs written which neither the tracking store nor the outbox has, when
        MLflow answers.
        """
        if outcomes:
            self.recorder.post("catch_up", self.about, list(outcomes))

    def finish(self, outcome: Outcome, logits: Logits, files: Mapping[str, bytes] | None = None) -> None:
        """Keep a finished trial, with further artifacts by path; it is on the disk when this returns. It
        never fails.
        """
        packed = {
            f"logits/{part}.npz": self.pack(outcome, part, values.numpy()) for part, values in logits.items()
        } | dict(files or {})
        self.outbox.put(Record.of_trial(self.about, outcome), packed, self.say)
        if outcome.stage != "screen":  # these are asked for soon
            self.recent[outcome.uid] = packed
        self.recorder.post("send")

    def pack(self, outcome: Outcome, part: Part, logits: npt.NDArray[np.floating]) -> bytes:
        """Logits (seed, example, class) with labels, seeds, ε, temperature per seed and class names, as npz;
        see `score.Part`.
        """
        labels = np.empty(0) if part == SENTENCES else self.dataset.splits[part].targets.cpu().numpy()
        stream = io.BytesIO()
        np.savez(
            stream,
            logits=logits,
            labels=labels,
            seeds=np.array(outcome.seeds),
            epsilon=np.array(outcome.epsilon),
            temperature=np.array(outcome.temperature),
            classes=np.array(self.dataset.classes),
        )
        return stream.getvalue()

    def fetch(self, outcome: Outcome) -> Logits | None:
        """The logits of a trial which another run or worker finished; None where they are gone, or MLflow
        does not answer.
        """
        parts = parts_of(outcome.stage, self.dataset)
        found = self.files(outcome, [f"logits/{part}.npz" for part in parts])
        if found is None:
            return None
        arrays = (np.load(io.BytesIO(content), allow_pickle=False)["logits"] for content in found)
        return {part: torch.from_numpy(values) for part, values in zip(parts, arrays, strict=True)}

    def artifact(self, outcome: Outcome, path: str) -> bytes | None:
        """A file which `finish` was given, by whomever; None where it is gone, or MLflow does not answer."""
        found = self.files(outcome, [path])
        return None if found is None else found[0]

    def files(self, outcome: Outcome, paths: Sequence[str]) -> list[bytes] | None:
        """Files of a trial: those of this process once, from the outbox, or else from MLflow; None where one
        of them is in none.
        """
        own = self.recent.get(outcome.uid, {})
        if own.keys() >= set(paths):
            return [own.pop(path) for path in paths]
        here = [content for path in paths if (content := self.outbox.file(outcome.uid, path)) is not None]
        if len(here) == len(paths):
            return here
        try:
            reach(self.recorder.uri)
            found: list[bytes] | None = self.recorder.call(
                LONG, "artifacts", self.about, outcome.uid, list(paths)
            )
        except TrackingUnavailable:
            return None
        return found

    def publish(self, evidence: Evidence, tables: Sequence[Table], model: ExportedModel | None) -> int | None:
        """Keep what was found, and wait until all of the sweep is sent, as long as MLflow answers.

        Returns the number of the published version; None where it is still to be published, and `unsent` says
        how.
        """
        try:
            pictures: Mapping[str, bytes] = self.recorder.call(LONG, "pictures", evidence)
        except TrackingUnavailable as error:
            pictures = {}
            self.say(f"The pictures of the recommendation could not be drawn: {error}")
        program = {} if model is None else {PROGRAM: model.program}
        self.outbox.put(
            Record.of_findings(self.about, evidence, tables, model), {**pictures, **program}, self.say
        )
        self.drain()
        if self.unsent().entries:
            return None
        try:
            published = versions.history(self.recorder.uri, self.about.task)
        except TrackingUnavailable:
            return None
        return next((one.number for one in published if one.created == evidence.created), None)

    def drain(self) -> None:
        """Wait until all entries of this sweep are sent, or refused; not for long where MLflow is away."""
        answered = time.monotonic()
        while True:
            try:
                reach(
                    self.recorder.uri
                )  # which is known in seconds, also while the scribe hangs on a server that hangs
                progress: Progress = self.recorder.call(LONG, "progress", self.about.study)
                away = progress.away
            except TrackingUnavailable as error:
                away = str(error)
            if not away:
                answered = time.monotonic()
                if progress.left == 0:
                    for why in progress.refused:
                        self.say(f"MLflow refused an entry, which stays in the outbox: {why}")
                    return
            elif not self.outbox.entries(self.recorder.uri, self.about.study):
                return
            elif time.monotonic() - answered > AWAY_SECONDS:
                self.say(f"MLflow: {away}")
                with suppress(TrackingUnavailable):  # or else they are sent without pictures
                    self.recorder.call(LONG, "draw")
                return
            time.sleep(POLL_SECONDS)

    def unsent(self) -> Left:
        """What of this sweep is still in the outbox, and how it is sent."""
        return self.outbox.left(self.recorder.uri, self.about.study)

    def stop(self, status: str) -> None:
        """Wait for what is handed over, and mark the sweep as KILLED, FAILED or FINISHED, if MLflow
        answers.
        """
        self.drain()
        try:
            self.recorder.call(SHORT, "stop", self.about, status)
        except TrackingUnavailable as error:
            self.say(f"MLflow: {error}")
        if sentence := self.unsent().sentence:
            self.say(sentence)


def inputs_of(dataset: Dataset) -> Inputs:
    """What MLflow is told of a data set."""
    return Inputs(
        examples={name: len(split.labels) for name, split in dataset.splits.items()},
        classes=dataset.classes,
        dtype=str(dataset.splits["train"].stored.dtype).removeprefix("torch."),
        shape=dataset.shape,
    )
