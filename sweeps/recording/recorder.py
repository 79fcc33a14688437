"""Recorder: keeps what is measured in the outbox, and runs the uploader, which sends it to MLflow."""

import io
import multiprocessing
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sweeps.data.dataset import Dataset
from sweeps.errors import WrongInput
from sweeps.recording.plots import pictures_of
from sweeps.recording.requests import (
    Answer,
    CatchUp,
    CloseSweep,
    FetchFiles,
    OpenSweep,
    ParentRun,
    ReadProgress,
    Request,
)
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

SHORT, LONG = 5.0, 60.0
"""Seconds to wait for an answer that is not needed, and for one that may take its time."""
DRAW_SECONDS = 30.0
"""How long the uploader may put pictures into entries that it could not send, when the recorder is closed."""
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
        self.exchanging, self.closed = threading.Lock(), False

    def begin(self) -> None:
        """Start the uploader's process."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, self.uri, str(self.outbox.folder)), daemon=True, name="uploader"
        )
        self.process.start()
        theirs.close()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True
        self.calls.shutdown(wait=False, cancel_futures=True)
        if self.process is None:
            return
        if self.exchanging.acquire(timeout=LONG):
            self.connection.close()
            self.process.join(DRAW_SECONDS)
        # what it was sending stays in the outbox, and is completed by whoever sends it next
        self.process.kill()
        self.process.join()

    def call(self, seconds: float, request: Request[Answer]) -> Answer:
        """Ask the uploader and wait so long for its answer. Errors: TrackingUnavailable, and of these
        TrackingAway for the time.
        """
        future = self.post(request)
        try:
            return future.result(seconds)
        except TimeoutError as error:
            future.cancel()
            raise TrackingAway(f"MLflow does not answer within {seconds:g} s") from error

    def post(self, request: Request[Answer]) -> "Future[Answer]":
        """Ask the uploader, after what was asked before. The first request starts its process."""
        if self.process is None:
            self.begin()
        return self.calls.submit(self.exchange, request)

    def keep_running(self) -> None:
        """Start the uploader's process again where it has died."""
        if self.process is not None and not self.process.is_alive():
            self.calls.submit(self.revive, self.process)

    def exchange(self, request: Request[Answer]) -> Answer:
        """One request and its answer; runs in the one thread that uses the connection. An uploader that has
        died is replaced, once.
        """
        for _ in range(2):
            process = self.process
            try:
                with self.exchanging:
                    self.connection.send(request)
                    answer: Answer | TrackingUnavailable = self.connection.recv()
            except (EOFError, OSError):
                self.revive(process)
                continue
            if isinstance(answer, TrackingUnavailable):
                raise answer
            return answer
        raise TrackingUnavailable("the process which writes to MLflow dies as soon as it is started")

    def revive(self, dead: SpawnProcess | None) -> None:
        """Start the uploader again, unless that was done meanwhile or the recorder is closed."""
        with self.exchanging:
            if dead is self.process and dead is not None and not self.closed:
                self.connection.close()
                dead.join()
                self.begin()


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
        self.opened = recorder.post(OpenSweep(self.about))

    def where(self) -> ParentRun | None:
        """The run of the sweep; None where MLflow is away, or does not answer within some seconds."""
        try:
            if self.opened.done() and self.opened.exception() is None:
                return self.opened.result()
            reach(self.recorder.uri)
            seconds = OPEN_SECONDS if is_server(self.recorder.uri) else OWN_SECONDS
            return self.recorder.call(seconds, OpenSweep(self.about))
        except TrackingUnavailable:
            return None

    def catch_up(self, outcomes: Sequence[Outcome]) -> None:
        """Have the outcomes of earlier runs written which neither the tracking store nor the outbox has, when
        MLflow answers.
        """
        if outcomes:
            self.recorder.post(CatchUp(self.about, list(outcomes)))

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
        self.recorder.keep_running()

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
            return self.recorder.call(LONG, FetchFiles(self.about, outcome.uid, list(paths)))
        except TrackingUnavailable:
            return None

    def publish(self, evidence: Evidence, tables: Sequence[Table], model: ExportedModel | None) -> int | None:
        """Keep what was found, and wait until all of the sweep is sent, as long as MLflow answers.

        Returns the number of the published version; None where it is still to be published, and `unsent` says
        how.
        """
        program = {} if model is None else {PROGRAM: model.program}
        files = {**pictures_of(evidence), **program}
        self.outbox.put(Record.of_findings(self.about, evidence, tables, model), files, self.say)
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
                reach(self.recorder.uri)  # answers in seconds, also where the server hangs the uploader
                progress = self.recorder.call(LONG, ReadProgress(self.about.study))
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
            self.recorder.call(SHORT, CloseSweep(self.about, status))
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
