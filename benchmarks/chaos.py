"""Chaos: workers are killed and paused, the database and MLflow restarted and cut off, at random; the sweep
has to come to the same numbers.

`python -m benchmarks.chaos --minutes 5` runs sweeps of digits/mlp among such accidents for five minutes and
compares each, its recommendation and the metrics of all its trials, with the same sweep in one undisturbed
process. It ends with 1 where anything differs.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from arena import Arena, Database, ended, kill, workers_of
from published import free_port, process

LONG = ("--epochs", "40", "--trials", "8")
PAUSE_SECONDS = 5
AWAY_SECONDS = 5


class Accidents:
    """What may happen to a sweep, each with a number of how often it did."""

    def __init__(self, arena: Arena, database: Database, port: int, generator: random.Random):
        self.arena, self.database, self.port, self.generator = arena, database, port, generator
        self.count: Counter[str] = Counter()
        self.mlflow = None
        self.toggle_mlflow()

    def kinds(self) -> list[tuple[str, Callable[[list[int]], None]]]:
        """All kinds of accidents."""
        return [
            ("worker killed", lambda workers: kill(self.generator.choice(workers)) if workers else None),
            ("worker killed ", lambda workers: kill(self.generator.choice(workers)) if workers else None),
            ("worker paused", self.pause),
            ("database restarted", lambda _: self.database.restart("fast")),
            ("database crashed", lambda _: self.database.restart("immediate")),
            ("database away", self.cut_off),
            ("MLflow killed or started", lambda _: self.toggle_mlflow()),
        ]

    def happen(self, workers: list[int]) -> None:
        """One of them."""
        name, accident = self.generator.choice(self.kinds())
        accident(workers)
        self.count[name.strip()] += 1

    def pause(self, workers: list[int]) -> None:
        """A worker stands still for longer than the grace."""
        if workers:
            pid = self.generator.choice(workers)
            kill(pid, signal.SIGSTOP)
            time.sleep(PAUSE_SECONDS)
            kill(pid, signal.SIGCONT)

    def cut_off(self, _: list[int]) -> None:
        """The database is away for a while."""
        self.database.stop()
        time.sleep(AWAY_SECONDS)
        self.database.start()

    def toggle_mlflow(self) -> None:
        """MLflow is killed, or started again."""
        if self.mlflow is not None:
            self.mlflow.__exit__(None, None, None)
            self.mlflow = None
            return
        where = [
            "--backend-store-uri",
            f"sqlite:///{self.arena.folder}/mlflow.db",
            "--artifacts-destination",
            str(self.arena.folder / "artifacts"),
        ]
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        self.mlflow = process(
            "mlflow", "server", *where, *address, folder=self.arena.folder, end=signal.SIGKILL
        )
        self.mlflow.__enter__()


def disturbed(
    database: Database, generator: random.Random, workers: int, until: float
) -> tuple[dict, dict, Counter[str], float]:
    """A sweep among accidents: what it recommends, all its outcomes, what happened, and how long it took."""
    with tempfile.TemporaryDirectory(prefix="lscal-chaos-") as folder:
        port = free_port()
        arena = Arena(Path(folder), database.create(), f"http://127.0.0.1:{port}")
        accidents = Accidents(arena, database, port, generator)
        started = time.monotonic()
        conductor = arena.sweep(*LONG, "--workers", str(workers), "--launch", "processes")
        with ended(conductor):
            while conductor.poll() is None and time.monotonic() < until:
                time.sleep(generator.uniform(0, 6))
                if conductor.poll() is None:
                    accidents.happen(workers_of(conductor))
            found = arena.finish(conductor, 900)
        if accidents.mlflow is not None:
            accidents.toggle_mlflow()
        return found, arena.outcomes(), accidents.count, time.monotonic() - started


def main() -> int:
    """Run for as long as asked, and say what happened."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--minutes", type=float, default=5)
    flags.add_argument("--workers", type=int, default=2)
    flags.add_argument("--seed", type=int, default=0)
    options = flags.parse_args()
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="lscal-chaos-") as folder:
        Path(folder, "alone").mkdir()
        alone = Arena(Path(folder, "alone"), f"sqlite:///{folder}/optuna.db", f"sqlite:///{folder}/mlflow.db")
        expected, outcomes = alone.finish(alone.sweep(*LONG, "--launch", "inline")), alone.outcomes()
        database = Database()
        deadline, wrong = time.monotonic() + 60 * options.minutes, 0
        try:
            while time.monotonic() < deadline:
                found, measured, count, seconds = disturbed(database, generator, options.workers, deadline)
                same = found == expected and measured == outcomes
                wrong += not same
                happened = ", ".join(f"{name} {times}×" for name, times in sorted(count.items()))
                print(
                    f"{'the same' if same else 'DIFFERS'}: {len(measured)} trials in {seconds:.0f} s;"
                    f" {happened or 'nothing happened'}",
                    flush=True,
                )
        finally:
            database.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
