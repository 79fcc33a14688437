"""Whether the same plan gives the same answer: fresh folders and caches, idle and under load, with one, two
and four workers.

    python -m benchmarks.same [TASK] [--rounds 10] [--flags='--epochs 8 …'] [--executions]

Each round is `python -m sweeps.run TASK --json` in an empty folder with a cache of its own; every other one
beside as many busy processes as there are cores. All measured numbers of all trials, and the recommendations
of all policies, are compared to the last bit, times and ids left out.

`--executions` compares forced fused with forced looped members instead: they agree to rounding only, so what
is wanted is the same ε, temperatures within 1 %, and the same verdicts. A verdict whose bound lies within
0.02 pp of its threshold may differ, and is listed.
"""

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

ROOT = Path(__file__).parents[1]
CHANGING = ("run_id", "created", "finished", "seconds", "uid", "study", "answer", "policies")
"""Keys of records that differ between two runs of the same sweep: times and ids."""
WORKERS = ("auto", "2", "4")
NEAR = 2e-4
"""0.02 pp."""


@dataclass(frozen=True)
class Ran:
    """What a sweep found: the recommendation of the plan's policy, and a digest of every number of every
    trial.
    """

    how: str
    record: Mapping[str, Any]
    digest: str
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each round; 1 where two differ that should not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", nargs="?", default="digits/mlp")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--flags", default="", help="further words of sweeps.run")
    parser.add_argument("--executions", action="store_true", help="compare fused with looped members")
    options = parser.parse_args(arguments)
    words = [options.task, *shlex.split(options.flags)]
    executions = [("--execution", kind) for kind in ("fused", "looped")] if options.executions else []
    rounds = executions or [("--workers", WORKERS[index % len(WORKERS)]) for index in range(options.rounds)]
    found: list[Ran] = []
    print("| how | ε | T | Δaccuracy | digest | seconds |\n|---|---|---|---|---|---|")
    for index, more in enumerate(rounds):
        found.append(ran([*words, *more], loaded=bool(index % 2) and not executions))
        one = found[-1]
        temperature = one.record["temperature"]
        print(
            f"| {one.how} | {one.record['epsilon']:g} | {temperature:.4g} |"
            f" {one.record['delta_accuracy']['value']:+.5f} | {one.digest} | {one.seconds:.0f} |",
            flush=True,
        )
    if executions:
        return compared(*found)
    equal = len({one.digest for one in found}) == 1
    print(f"\n{'bit-equal' if equal else 'NOT equal'}: {len(found)} rounds")
    return 0 if equal else 1


def ran(words: Sequence[str], *, loaded: bool) -> Ran:
    """Run one sweep in an empty folder."""
    with tempfile.TemporaryDirectory() as folder, busy(os.cpu_count() or 1 if loaded else 0):
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("LSCAL", "OPTUNA", "MLFLOW"))
        }
        environment |= {"XDG_CACHE_HOME": f"{folder}/cache", "PYTHONPATH": str(ROOT)}
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "sweeps.run", *words, "--json"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(done.stderr)
        (record,) = json.loads(done.stdout)
        digest = hashlib.sha256(
            json.dumps([plain(record), list(trials(folder))], sort_keys=True).encode()
        ).hexdigest()[:12]
    how = f"{' '.join(words[-2:])}{', under load' if loaded else ''}"
    return Ran(how, record, digest, seconds)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that compute without end."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def trials(folder: str) -> Iterator[Any]:
    """All numbers of all finished and dropped trials, in an order of their own."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/optuna.db")
    found = []
    for name in optuna.get_all_study_names(storage):
        for trial in optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False):
            if "outcome" in trial.user_attrs:
                outcome = json.loads(trial.user_attrs["outcome"])
                found.append((outcome["uid"], trial.state.name, plain(outcome)))
    storage.engine.dispose()
    yield from sorted(found, key=lambda row: row[0])


def plain(value: Any) -> Any:
    """A record without what changes from run to run."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items() if key not in CHANGING}
    return [plain(entry) for entry in value] if isinstance(value, list) else value


def compared(one: Ran, other: Ran) -> int:
    """What differs between two executions; 1 where it is more than rounding may change."""
    wrong = []
    if one.record["epsilon"] != other.record["epsilon"]:
        wrong.append(f"ε {one.record['epsilon']:g} and {other.record['epsilon']:g}")
    first, second = one.record["temperature"], other.record["temperature"]
    if abs(first / second - 1) > 0.01:
        wrong.append(f"T {first:.4g} and {second:.4g}")
    for mine, theirs in zip(one.record["conditions"], other.record["conditions"], strict=False):
        if mine["met"] != theirs["met"]:
            near = min(abs(side["bound"] - side["threshold"]) for side in (mine, theirs)) <= NEAR
            text = f"{mine['name']}: {mine['met']} and {theirs['met']}"
            print(f"near its threshold: {text}") if near else wrong.append(text)
    print(f"\n{'the same answer' if not wrong else 'NOT the same: ' + '; '.join(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
