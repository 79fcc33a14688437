"""Outbox: records on their way to MLflow, as files that survive the death of any process.

An entry is a zip, stored and not compressed: `record.json`, and the artifacts under `files/`. It is written
under another name, fsynced and renamed, so that what can be seen is complete. Any number of processes put
entries into a folder and send them from it: the sender of one holds a lock on it that ends with the process.
"""

import fcntl
import hashlib
import itertools
import json
import os
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from tracking.mlflow.client import identity
from tracking.mlflow.model import ExportedModel
from tracking.names import NAMES, model_of
from tracking.records.about import About
from tracking.records.evidence import Evidence
from tracking.records.outcome import Outcome
from tracking.records.schema import SCHEMA, WrongRecord, read, values_of
from tracking.report.summary import Table

LIMIT = 4 * 2**30
"""Bytes that an outbox may hold."""
NEAR = 0.9
"""Share of the limit from which on it warns."""
RECORD, FILES, PROGRAM = "record.json", "files/", "model.pt2"
NAME = re.compile(
    r"\d{20}-\d{7}-\d{6}-(?P<server>[0-9a-f]{8})-(?P<study>[0-9a-f]{8})-(?P<kind>trial|publish)-(?P<uid>[0-9a-f]{16})\.zip"
)
PATH = re.compile(r"(?!.*(^|/)\.{1,2}(/|$))[\w. =+-]+(/[\w. =+-]+)*", re.ASCII)
"""Allowed paths of an artifact: below the folder it is put into."""
WORD = re.compile(r"[^'\"`\\\x00-\x1f\x7f]{1,1000}")
"""Allowed names of a task, a study or a trial: those that MLflow's search takes."""
ABANDONED_SECONDS = 3600
"""A file that was half written so long ago has no writer any more."""
Content = bytes


class Damaged(Exception):
    """An entry cannot be read."""


@dataclass(frozen=True)
class Record:
    """A record for MLflow, without its files.

    Attributes:
        kind: a finished trial, or a sweep's findings.
        uid: names it among all: the trial's, or the study with the time of the decision.
        written: when it was put into the outbox, ISO 8601, UTC, by this machine's clock.
        outcome: of a trial.
        evidence, tables: of a sweep's findings; `run_id` in them is "" as long as the parent run is not
            known.
        model: the exported model without its program, which is among the files.
    """

    about: About
    kind: Literal["trial", "publish"]
    uid: str
    written: str
    outcome: Outcome | None = None
    evidence: Evidence | None = None
    tables: tuple[Table, ...] = ()
    model: ExportedModel | None = None

    @classmethod
    def of_trial(cls, about: About, outcome: Outcome) -> Self:
        """A finished trial, now."""
        return cls(about, "trial", outcome.uid, now(), outcome=outcome)

    @classmethod
    def of_findings(
        cls, about: About, evidence: Evidence, tables: Sequence[Table], model: ExportedModel | None
    ) -> Self:
        """Record of a sweep's findings, dated now."""
        without = model and replace(model, program=b"")
        return cls(
            about,
            "publish",
            f"{about.study}!{evidence.created}",
            now(),
            evidence=evidence,
            tables=tuple(tables),
            model=without,
        )

    @property
    def what(self) -> str:
        """The record in words."""
        if self.outcome is None:
            return f"recommendation for {self.about.task}"
        return (
            f"{self.outcome.stage} trial {self.outcome.number} of {self.about.task} at ε ="
            f" {self.outcome.epsilon:g}"
        )

    def to_json(self) -> str:
        """The record as JSON."""
        values = {"schema": SCHEMA, **values_of(self), "outcome": self.outcome and asdict(self.outcome)}
        (values["model"] or {}).pop("program", None)
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str, where: str = "the entry") -> Self:
        """The record that `to_json` wrote. Errors: WrongRecord; WrongName."""
        record = read(cls, text, where)
        model_of(record.about.task)  # raises where it is no task's name
        if not all(WORD.fullmatch(word) for word in (record.uid, record.about.study)):
            raise WrongRecord(f"{where}: a name in it is none.")
        found = record.evidence  # its policies become names of files
        if found and not all(re.fullmatch(NAMES["policy"], name) for name in found.recommendations):
            raise WrongRecord(f"{where}: a policy in it is none.")
        if (record.outcome if record.kind == "trial" else record.evidence) is None:
            raise WrongRecord(f"{where}: there is no {record.kind} in it.")
        return record


@dataclass(frozen=True, order=True)
class OutboxEntry:
    """An entry by the parts of its file name: the time it was put, and digests of its server, study and
    trial. In the order of time.
    """

    path: Path
    server: str
    study: str
    kind: str
    uid: str

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """The entry of a file, None where the file is none."""
        found = NAME.fullmatch(path.name)
        return found and cls(path, **found.groupdict())

    def read(self) -> tuple[Record, dict[str, bytes]]:
        """The record, and the artifacts by path. Errors: Damaged; OSError."""
        with self.opened() as archive:
            record = Record.from_json(archive.read(RECORD).decode(), RECORD)
            paths = [name.removeprefix(FILES) for name in archive.namelist() if name != RECORD]
            if wrong := [path for path in paths if not PATH.fullmatch(path)]:
                raise ValueError(f"{wrong[0]!r} is no path of an artifact")
            return record, {path: archive.read(FILES + path) for path in paths}

    def file(self, uid: str, path: str) -> bytes | None:
        """One artifact of the trial `uid`; None where the entry has none, or is about another. Errors:
        Damaged; OSError.
        """
        with self.opened() as archive:
            if FILES + path not in archive.namelist() or json.loads(archive.read(RECORD))["uid"] != uid:
                return None
            return archive.read(FILES + path)

    @contextmanager
    def opened(self) -> Iterator[zipfile.ZipFile]:
        """The zip, open. Errors: Damaged, also for errors in the block."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except (zipfile.BadZipFile, EOFError, LookupError, ValueError, TypeError, RuntimeError) as error:
            raise Damaged(f"{self.path.name} is damaged: {error}") from error


@dataclass(frozen=True)
class Left:
    """Unsent entries of an outbox: their number, their bytes, and a sentence with the command that sends
    them; "" where there are none.
    """

    entries: int
    bytes: int
    sentence: str


class Outbox:
    """A folder of entries. Errors: OSError where it can be neither found nor made."""

    def __init__(self, folder: Path, limit: int = LIMIT):
        self.folder, self.limit, self.warned, self.counter = folder, limit, False, itertools.count()
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(".*.part"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink()

    def put(self, record: Record, files: Mapping[str, Content], say: Callable[[str], None]) -> bool:
        """Keep an entry; when this returns True, it survives a power cut.

        It never fails: where the artifacts do not fit, they are left out, and where nothing can be written,
        that is said. The numbers are in the study as well.
        """
        unkept = f"The {record.what} is not in the outbox {self.folder}"
        for kept in (files, {}) if files else ({},):
            try:
                content = record if PROGRAM in kept else replace(record, model=None)
                text = content.to_json().encode()
                size = sum(map(len, kept.values())) + len(text)
                held = self.bytes()
                if held + size > self.limit:
                    why = f"it holds {megabytes(held)} and may hold {megabytes(self.limit)}"
                else:
                    self.write(self.name(record), text, kept)
                    self.warn(held + size, say)
                    return True
            except OSError as error:
                why = f"{error.strerror}"
            if kept:
                unkept = f"The {record.what} is in the outbox {self.folder} without its artifacts"
                say(f"{unkept}: {why}. Its numbers are kept in the study, too.")
        say(f"{unkept}: {why}. Its numbers are kept in the study; run the same command again to log them.")
        return False

    def replace(self, entry: OutboxEntry, record: Record, files: Mapping[str, Content]) -> None:
        """Give an entry that is claimed other files, where they fit. Errors: OSError, which leaves it as it
        was.
        """
        if self.bytes() + sum(map(len, files.values())) <= self.limit:
            self.write(entry.path.name, record.to_json().encode(), files)

    def warn(self, held: int, say: Callable[[str], None]) -> None:
        """Say once that the outbox is nearly full."""
        if held >= NEAR * self.limit and not self.warned:
            self.warned = True
            say(
                f"The outbox {self.folder} holds {megabytes(held)} of the {megabytes(self.limit)} it may"
                " hold; when it is full, artifacts are left out. It empties when MLflow answers."
            )

    def name(self, record: Record) -> str:
        """The name of an entry that is put now."""
        when = f"{time.time_ns():020}-{os.getpid():07}-{next(self.counter) % 10**6:06}"
        server, study = digest(record.about.server)[:8], digest(record.about.study)[:8]
        return f"{when}-{server}-{study}-{record.kind}-{digest(record.uid)}.zip"

    def write(self, name: str, text: Content, files: Mapping[str, Content]) -> None:
        """Write an entry so that it is there as a whole or not at all. Errors: OSError."""
        partial = self.folder / f".{name}.part"
        try:
            with partial.open("xb") as stream:
                with zipfile.ZipFile(stream, "w") as archive:
                    archive.writestr(RECORD, text)
                    for path, content in files.items():
                        archive.writestr(FILES + path, content)
                stream.flush()
                os.fsync(stream.fileno())
            partial.rename(self.folder / name)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        self.sync()

    def sync(self) -> None:
        """Have the folder's names survive a power cut."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def entries(self, server: str | None = None, study: str | None = None) -> list[OutboxEntry]:
        """The entries, the first one first: all, or those for a tracking store, or of a study."""
        found = sorted(
            entry
            for name in os.listdir(self.folder)
            if (entry := OutboxEntry.of(self.folder / name)) is not None
        )
        if server is not None:
            found = [entry for entry in found if entry.server == digest(identity(server))[:8]]
        if study is not None:
            found = [entry for entry in found if entry.study == digest(study)[:8]]
        return found

    def count(self) -> int:
        """How many entries there are."""
        return len(self.entries())

    def bytes(self) -> int:
        """How many bytes the folder's files have, those that are half written or damaged included."""
        total = 0
        with os.scandir(self.folder) as files:
            for file in files:
                with suppress(FileNotFoundError):  # it was sent meanwhile
                    total += file.stat().st_size
        return total

    @contextmanager
    def claim(self, entry: OutboxEntry) -> Iterator[bool]:
        """Inside, whether the entry is ours to send: it is there, and no other process sends it."""
        try:
            handle = os.open(entry.path, os.O_RDONLY)
        except FileNotFoundError:
            yield False
            return
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield os.fstat(handle).st_nlink > 0  # else it was sent between the two lines
        finally:
            os.close(handle)

    def delete(self, entry: OutboxEntry) -> None:
        """Remove an entry that was sent."""
        entry.path.unlink(missing_ok=True)
        self.sync()

    def set_aside(self, entry: OutboxEntry) -> Path:
        """Keep a damaged entry under a name that is no entry's; that name."""
        return entry.path.rename(entry.path.with_suffix(".damaged"))

    def file(self, uid: str, path: str) -> Content | None:
        """An artifact of a trial, whoever put it; None where it is not here (any more)."""
        for entry in self.entries():
            if entry.kind == "trial" and entry.uid == digest(uid):
                with suppress(Damaged, OSError):
                    if (content := entry.file(uid, path)) is not None:
                        return content
        return None

    def left(self, server: str, study: str | None = None) -> Left:
        """Unsent entries for a tracking store."""
        entries = self.entries(server, study)
        size = 0
        for entry in entries:
            with suppress(FileNotFoundError):
                size += entry.path.stat().st_size
        if not entries:
            return Left(0, 0, "")
        some = f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'} ({megabytes(size)}) for MLflow"
        command = f"python -m tracking.replay --tracking-uri {identity(server)} --outbox {self.folder}"
        return Left(
            len(entries),
            size,
            f"{some} {'is' if len(entries) == 1 else 'are'} still in the outbox. When MLflow answers again:"
            f" {command}",
        )


def digest(text: str) -> str:
    """Sixteen hexadecimal digits that name a text in a file's name."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def megabytes(size: int) -> str:
    """A number of bytes in megabytes, as text."""
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
