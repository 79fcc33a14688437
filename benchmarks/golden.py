"""What the commands do, as one record that another commit can be compared with: nothing may change when code
only moves.

    python -m benchmarks.golden [--out golden.json] [--against COMMIT] [--no-texts] [--only plain tuned csv
    resumed]

Small real sweeps in empty folders, with execution and precision pinned and a cache of their own: a plain one,
one with `--tune weight_decay`, one on a CSV file, and one that is killed and resumed. Of each: exit code, all
numbers of all trials, names of studies, the recommendation of every policy, what MLflow holds, the bodies of
the API, the page, and what was printed. Beside them the help of every command, `--list` and `--dry-run`.
Times, ids, ports and folders are masked. `--against` runs the same in a checkout of the other commit, and
lists each difference by its place: numbers, keys and exit codes always, texts unless `--no-texts`. Exit
codes: 0 nothing differs, 1 something does.
"""

import argparse
import contextlib
import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from mlflow import MlflowClient

ROOT = Path(__file__).parents[1]
PINNED = ("--execution", "fused:8:1", "--precision", "float32", "--device", "cpu")
SMALL = ("--smoothing", "uniform", "--trials", "3", "--seeds", "2", "--epochs", "4", "--confirm-seeds", "4")
HELPED = (
    *(f"sweeps.{name}" for name in ("run", "worker", "check", "train", "status")),
    *(f"tracking.{name}" for name in ("recommend", "serve", "diff", "replay", "page")),
    "lscal.audit",
)
TIMES = ("seconds", "created", "finished", "member_seconds", "hours", "hours_needed", "when")
"""Keys of records whose values are times."""
MASKS = (
    (re.compile(r"\b[0-9a-f]{32}\b"), "ID"),
    (re.compile(r"\bm-[0-9a-f]{32}\b"), "MODEL"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[0-9.+:Z]*"), "TIME"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "DATE"),
    (re.compile(r"127\.0\.0\.1:\d+"), "HOST"),
    (re.compile(r"\b[0-9a-f]{40}\b"), "COMMIT"),
    (re.compile(r"about [\d.]+ (s|min|h)\b"), "about TIME"),
    (re.compile(r"(less than a minute|\d+ minutes?|[\d.]+ hours?)"), "DURATION"),
    (re.compile(r"^.*member-epochs, about .*\n", re.M), ""),
)
Record = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the record of this checkout, and compare it with that of another commit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--no-texts", action="store_true")
    parser.add_argument("--only", nargs="+", choices=SWEEPS, default=list(SWEEPS))
    options = parser.parse_args(arguments)
    here = record(ROOT, options.only)
    if options.out:
        options.out.write_text(json.dumps(here, indent=1, sort_keys=True, ensure_ascii=False))
    if not options.against:
        return 0
    with checkout(options.against) as other:
        there = record(other, options.only)
    found = [line for line in differences(there, here) if not (options.no_texts and line.startswith("text"))]
    print("\n".join(found) or f"nothing differs from {options.against}")
    return 1 if found else 0


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A commit's files, in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["git", "worktree", "add", "--detach", "--quiet", folder, commit], cwd=ROOT, check=True
        )
        try:
            yield Path(folder)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)


def record(root: Path, sweeps: Sequence[str]) -> Record:
    """What the commands of a checkout do."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(root, Path(folder))
        found: Record = {f"help {name}": place.run(name, "--help") for name in HELPED}
        found["list"] = place.run("sweeps.run", "--list")
        found["dry run"] = place.run("sweeps.run", *SMALL, *PINNED, "--dry-run")
        found["wrong input"] = place.run("sweeps.run", "digts/mlp")
    for name in sweeps:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = SWEEPS[name](Place(root, Path(folder)))
    return found


class Place:
    """An empty folder in which the commands of a checkout run."""

    def __init__(self, root: Path, folder: Path):
        self.root, self.folder = root, folder
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("LSCAL", "OPTUNA", "MLFLOW"))
        }
        self.environment = {
            **kept,
            "PYTHONPATH": str(root),
            "XDG_CACHE_HOME": f"{folder}/cache",
            "COLUMNS": "100",
        }

    def start(self, module: str, *words: str) -> subprocess.Popen[str]:
        """A process of a command."""
        return subprocess.Popen(
            [sys.executable, "-m", module, *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, module: str, *words: str) -> Record:
        """The exit code of a command, and what it printed."""
        process = self.start(module, *words)
        out, err = process.communicate()
        return {"exit code": process.returncode, "stdout": self.masked(out), "stderr": self.masked(err)}

    def masked(self, text: str) -> str:
        """A text without what differs from run to run."""
        text = text.replace(str(self.folder), "FOLDER")
        for pattern, word in MASKS:
            text = pattern.sub(word, text)
        return text

    def plain(self, value: Any) -> Any:
        """A record without times and ids."""
        if isinstance(value, dict):
            return {key: self.plain(entry) for key, entry in value.items() if key not in TIMES}
        if isinstance(value, list):
            return [self.plain(entry) for entry in value]
        return self.masked(value) if isinstance(value, str) else value

    def found(self, task: str) -> Record:
        """What a finished sweep has left: studies, recommendations, MLflow's content, API and page."""
        policies = ("safe", "raw", "accuracy", "calibrated", "utility")
        told = {
            policy: self.run("tracking.recommend", task, "--policy", policy, "--json") for policy in policies
        }
        return {
            "studies": self.studies(),
            "recommendations": {name: self.plain(json.loads(one["stdout"])) for name, one in told.items()},
            "explained": self.run("tracking.recommend", task, "--explain"),
            "mlflow": self.mlflow(task),
            "api": self.api(task),
            "page": self.masked(
                (self.folder / "lscal-state" / "pages" / f"{task.replace('/', '--')}.html").read_text()
            ),
        }

    def studies(self) -> Record:
        """By the name of each study, its trials by uid: state, and every number of the outcome."""
        storage = optuna.storages.RDBStorage(f"sqlite:///{self.folder}/optuna.db")
        found: Record = {}
        for name in optuna.get_all_study_names(storage):
            trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
            told = [
                (trial.state.name, json.loads(trial.user_attrs["outcome"]))
                for trial in trials
                if "outcome" in trial.user_attrs
            ]
            if not name.endswith("/workers"):
                found[name] = {outcome["uid"]: [state, self.plain(outcome)] for state, outcome in told}
        storage.engine.dispose()
        return found

    def mlflow(self, task: str) -> Record:
        """The runs of a task by role and name: their status, metrics, parameters and the keys of their
        tags.
        """
        uri = f"sqlite:///{self.folder}/mlflow.db"  # MLflow remembers engines by their address
        client = MlflowClient(uri, uri)
        experiment = client.get_experiment_by_name(task)
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        found = {
            f"{run.data.tags['role']} {self.masked(run.info.run_name)} {run.data.tags.get('uid', '')}": {
                "status": run.info.status,
                "metrics": {key: value for key, value in run.data.metrics.items() if "seconds" not in key},
                "params": self.plain(run.data.params),
                "tags": sorted(run.data.tags),
                "note": self.masked(run.data.tags.get("mlflow.note.content", "")),
            }
            for run in runs
        }
        versions = client.search_model_versions(f"name = '{task.replace('/', '--')}'")
        tags = {
            one.version: self.plain(
                {key: value for key, value in one.tags.items() if "recommendation" not in key}
            )
            for one in versions
        }
        return {"runs": found, "versions": tags}

    def api(self, task: str) -> Record:
        """Bodies of the API."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = self.start("tracking.serve", "--port", str(port))
        try:
            get = Getter(f"http://127.0.0.1:{port}")
            paths = (
                "/v1/tasks",
                f"/v1/tasks/{task}/recommendation",
                f"/v1/tasks/{task}/history",
                "/v1/tasks/no/such/recommendation",
            )
            return {path: self.plain(get(path)) for path in ("/healthz", *paths)}
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


class Getter:
    """Asks a server, and waits for it at first."""

    def __init__(self, address: str):
        self.address = address

    def __call__(self, path: str) -> Any:
        """The status and the JSON of an answer."""
        for _ in range(240):
            try:
                with urllib.request.urlopen(self.address + path) as answer:
                    return [answer.status, json.load(answer)]
            except urllib.error.HTTPError as error:
                return [error.code, json.load(error)]
            except urllib.error.URLError:
                time.sleep(0.25)
        raise TimeoutError(self.address)


def plain_sweep(place: Place) -> Record:
    """The default task."""
    return {"printed": place.run("sweeps.run", *SMALL, *PINNED, "--tables"), **place.found("digits/mlp")}


def tuned_sweep(place: Place) -> Record:
    """Weight decay beside ε."""
    words = (
        "--tune",
        "weight_decay=0.001:0.1",
        "--trials",
        "5",
        "--seeds",
        "2",
        "--epochs",
        "2",
        "--confirm-seeds",
        "2",
    )
    return {"printed": place.run("sweeps.run", *words, *PINNED), **place.found("digits/mlp")}


def csv_sweep(place: Place) -> Record:
    """A table of a user's own: its check, then its sweep."""
    random = np.random.default_rng(5)
    with (place.folder / "own.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["length", "width", "colour", "kind"])
        for label in random.integers(0, 3, 600):
            values = random.normal(label, 1.2, 2).round(3)
            rows.writerow([*values, ("red", "green")[int(random.integers(2))], ("a", "b", "c")[label]])
    data = ("--dataset", "own.csv", "--label-column", "kind")
    printed = {
        "check": place.run("sweeps.check", *data)["exit code"],  # it measures, so its texts have times
        "sweep": place.run("sweeps.run", *data, *SMALL, *PINNED),
    }
    return {"printed": printed, **place.found("own/mlp")}


def resumed_sweep(place: Place) -> Record:
    """A sweep whose processes are killed when the first screening trial has finished, and the same command
    again.
    """
    words = (*SMALL[:-2], "--confirm-seeds", "2", *PINNED[:1], "fused:2:1", *PINNED[2:])
    process = place.start("sweeps.run", *words)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(Exception):  # the database is being made
            if any("/" not in name.partition("@")[2] and told for name, told in place.studies().items()):
                break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code = place.run("sweeps.run", *words)[
        "exit code"
    ]  # how far it was is chance: texts, and numbers of trials queued again, are not compared
    found = place.found("digits/mlp")
    for trials in found["studies"].values():
        for _, outcome in trials.values():
            del outcome["number"]
    return {"exit code": code, "studies": found["studies"], "recommendations": found["recommendations"]}


SWEEPS: dict[str, Callable[[Place], Record]] = {
    "plain": plain_sweep,
    "tuned": tuned_sweep,
    "csv": csv_sweep,
    "resumed": resumed_sweep,
}


def differences(there: Any, here: Any, where: str = "") -> Iterator[str]:
    """A line for each place in which two records differ, the other commit's first."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            if key not in there or key not in here:
                yield f"key    {where}/{key} is only {'here' if key in here else 'there'}"
            else:
                yield from differences(there[key], here[key], f"{where}/{key}")
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for place, (one, other) in enumerate(zip(there, here, strict=True)):
            yield from differences(one, other, f"{where}/{place}")
    elif isinstance(there, str) and isinstance(here, str) and there != here:
        lines = zip(there.splitlines(), here.splitlines(), strict=False)
        first = next(
            ((one, other) for one, other in lines if one != other),
            ("", f"{len(there)} and {len(here)} characters"),
        )
        yield f"text   {where}: {first[0][:100]!r} is {first[1][:100]!r}"
    elif there != here or type(there) is not type(here):
        yield f"value  {where}: {str(there)[:100]} is {str(here)[:100]}"


if __name__ == "__main__":
    sys.exit(main())
