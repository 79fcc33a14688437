"""What the service costs: orchestration beside training, many workers on one database, and each trial's price
in the databases.

`python -m benchmarks.service overhead --data-dir DIR` sweeps fashion_mnist/cnn with one worker, and says how
much of the wall time was neither training nor scoring. `python -m benchmarks.service workers` has 8 workers
on one PostgreSQL finish 64 trials, and counts what was lost or trained twice. `python -m benchmarks.service
database` times what a trial costs in Optuna's database, with 1 and with 8 processes at once.
"""

import argparse
import json
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from arena import Arena, Database, ended

TRIALS = 64


def overhead(data: str) -> None:
    """The share of a sweep's wall time in which no member was trained or scored."""
    plan = (
        "--train-examples",
        "10000",
        "--epochs",
        "3",
        "--trials",
        "4",
        "--seeds",
        "2",
        "--confirm-seeds",
        "2",
        "--launch",
        "inline",
    )
    with tempfile.TemporaryDirectory(prefix="lscal-service-") as folder:
        arena = Arena(Path(folder), f"sqlite:///{folder}/optuna.db", f"sqlite:///{folder}/mlflow.db")
        for name in ("measures its engine", "remembers it"):
            started = time.monotonic()
            seed = "0" if name.startswith("m") else "1"
            Path(folder, "plan.yaml").write_text(f"random_state: {seed}\n")
            sweep = arena.start(
                "sweeps.run",
                "fashion_mnist/cnn",
                *plan,
                "--smoothing",
                "uniform",
                "--config",
                "plan.yaml",
                "--data-dir",
                data,
                XDG_CACHE_HOME=folder,
                OMP_NUM_THREADS="",
            )
            with ended(sweep):
                assert sweep.wait() == 0, arena.said()
            wall = time.monotonic() - started
            told = [
                trial
                for trials in arena.studies().values()
                for trial in trials
                if "outcome" in trial.user_attrs
            ]
            found = [(trial, json.loads(trial.user_attrs["outcome"])) for trial in told]
            mine = [
                (trial, outcome) for trial, outcome in found if min(outcome["seeds"]) // 10_000 == int(seed)
            ]
            trained = sum(outcome["seconds"] for _, outcome in mine)
            spans = [
                (trial.datetime_start.timestamp(), trial.datetime_complete.timestamp()) for trial, _ in mine
            ]
            print(
                f"{name}: {wall:.1f} s; networks trained for {trained:.1f} s and trials under way for"
                f" {together(spans):.1f} s, the rest of which is their scoring;"
                f" {100 * (1 - together(spans) / wall):.1f} % of the wall time is neither",
                flush=True,
            )


def together(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of some spans of time."""
    end, length = -math.inf, 0.0
    for first, last in sorted(spans):
        length += max(0.0, last - max(first, end))
        end = max(end, last)
    return length


def workers(count: int) -> None:
    """A sweep of 64 trials by many workers on one PostgreSQL."""
    database = Database()
    try:
        with tempfile.TemporaryDirectory(prefix="lscal-service-") as folder:
            arena = Arena(Path(folder), database.create(), f"sqlite:///{folder}/mlflow.db")
            started = time.monotonic()
            plan = (
                "--trials",
                str(TRIALS),
                "--workers",
                str(count),
                "--launch",
                "processes",
                "--grace",
                "30",
            )
            conductor = arena.sweep(*plan)
            with ended(conductor):
                found = arena.finish(conductor, 1800)
            outcomes = arena.outcomes()
            screened = [uid for uid in outcomes if "/pilot" not in uid and "/confirm" not in uid]
            print(
                f"{count} workers: {len(screened)} of {TRIALS} trials finished once, {arena.trials('FAIL')}"
                f" given up or surplus, {len(outcomes)} with pilot and confirmation, in"
                f" {time.monotonic() - started:.0f} s; recommended ε = {found['epsilon']:g}"
            )
    finally:
        database.close()


def turn(url: str, name: str, trials: int) -> float:
    """Seconds in which one process asks and tells so many trials, nothing else."""
    import optuna

    from sweeps.studies.opening import SETTINGS, join_study
    from sweeps.studies.retrying_storage import open_storage
    from sweeps.studies.study import Study
    from tracking.records.outcome import Outcome

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = open_storage(url)
    study: Study = join_study(storage, name, {})
    assert study.noted(SETTINGS)
    started = time.monotonic()
    told = 0
    while told < trials and study.waiting():
        for trial in study.ask(1):
            metrics = {f"select/{metric}": (0.9,) * 8 for metric in ("accuracy", "ece", *map(str, range(40)))}
            point = dict(trial.point)
            outcome = Outcome(
                study.uid(trial),
                "digits/mlp",
                name,
                "screen",
                trial.number,
                point["epsilon"],
                10,
                point,
                (0,) * 8,
                metrics,
                {},
                (1.0,) * 8,
                {},
                1.0,
                "",
            )
            told += study.tell(trial, outcome)
    seconds = time.monotonic() - started
    storage.engine.dispose()
    return seconds


def database() -> None:
    """What a trial costs in the study store."""
    import optuna

    from sweeps.settings import resolve
    from sweeps.studies.design import planned
    from sweeps.studies.opening import open_study
    from sweeps.studies.retrying_storage import open_storage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    server = Database()
    context = multiprocessing.get_context("spawn")
    try:
        with tempfile.TemporaryDirectory() as folder:
            for kind, url in (("SQLite", f"sqlite:///{folder}/optuna.db"), ("PostgreSQL", server.create())):
                storage = open_storage(url)
                for processes in (1, 8):
                    plan = resolve(
                        {
                            "smoothing": "uniform",
                            "trials": 16 * processes if processes > 1 else 64,
                            "random_state": processes,
                        }
                    )
                    study, _ = open_study(storage, plan, plan.tasks[0], "digest")
                    started = time.monotonic()
                    study.enqueue(planned(plan, plan.tasks[0]))
                    queued = (time.monotonic() - started) / plan.trials
                    each = plan.trials // processes
                    with context.Pool(processes) as pool:
                        pool.starmap(turn, [(url, study.name, 0)] * processes)  # imports
                        seconds = pool.starmap(turn, [(url, study.name, each)] * processes)
                    told = len(
                        study.outcomes()
                        # one whose answer was lost is left to the reaper, not awaited here
                    )
                    print(
                        f"{kind}, {processes} processes: {1000 * queued:.0f} ms to queue a trial,"
                        f" {1000 * max(seconds) / each:.0f} ms to ask and tell one, {told / max(seconds):.0f}"
                        f" trials a second; {told} of {plan.trials} told; {study.states()}",
                        flush=True,
                    )
                storage.engine.dispose()
    finally:
        server.close()


def main() -> None:
    """Run what is asked for."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("what", choices=("overhead", "workers", "database"))
    flags.add_argument("--data-dir", default="../shared/data")
    flags.add_argument("--workers", type=int, default=8)
    options = flags.parse_args()
    if options.what == "overhead":
        overhead(str(Path(options.data_dir).absolute()))
    elif options.what == "workers":
        workers(options.workers)
    else:
        database()


if __name__ == "__main__":
    main()
