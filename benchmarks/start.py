"""What a person waits for: the first line, the help, a finished sweep's command given again, Ctrl-C; and what
measuring costs in memory.

    python -m benchmarks.start [--rounds 5] [--memory] [--data-dir DIR]

Whole processes in empty folders with caches of their own; medians of so many rounds. Wanted: `--help` under 1
s, the first line under 2 s, a finished sweep answered again under 3 s, Ctrl-C acknowledged under 1 s,
`--dry-run` in seconds; and with `--memory` a peak at most 1.1 times that of the same sweep with `--execution`
pinned.
"""

import argparse
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN = (sys.executable, "-m", "sweeps.run")
SMALL = ("--trials", "3", "--seeds", "2", "--epochs", "4")
MEMORY = (
    ("digits/mlp", *SMALL),
    ("fashion_mnist/mlp", "--train-examples", "2000", "--trials", "2", "--seeds", "2", "--epochs", "1"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--data-dir", default=os.environ.get("LSCAL_DATA"))
    options = parser.parse_args(arguments)
    print(
        f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}, medians of"
        f" {options.rounds}\n"
    )
    print("| what | seconds (least to most) | wanted |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        row("--help", options.rounds, lambda: wall(folder, *RUN, "--help"), "under 1")
        row("first line of a sweep", options.rounds, lambda: first_line(folder), "under 2")
        row("--list", options.rounds, lambda: wall(folder, *RUN, "--list"), "")
        wall(folder, *RUN, *SMALL)
        row(
            "the command of a finished sweep again",
            options.rounds,
            lambda: wall(folder, *RUN, *SMALL),
            "under 3",
        )
        row("Ctrl-C in the screening to its acknowledgement", options.rounds, acknowledged, "under 1")
        row(
            "--dry-run digits/mlp, CPU seconds",
            options.rounds,
            lambda: processor(folder, *RUN, "--dry-run", "--remeasure"),
            "",
        )
        if options.data_dir:
            words = (*RUN, "fashion_mnist/cnn", "--data-dir", options.data_dir, "--dry-run", "--remeasure")
            row("--dry-run fashion_mnist/cnn, CPU seconds", 1, lambda: processor(folder, *words), "seconds")
    if options.memory:
        print(
            "\n| sweep | peak with measuring, MB | peak with --execution pinned, MB | ratio |\n"
            "|---|---|---|---|"
        )
        for words in MEMORY[: 2 if options.data_dir else 1]:
            data = ("--data-dir", options.data_dir) if options.data_dir else ()
            free, pinned = (peak(*words, *data, *more) for more in ((), ("--execution", "fused:4:2")))
            print(f"| {' '.join(words)} | {free:.0f} | {pinned:.0f} | {free / pinned:.2f} |", flush=True)


def row(what: str, rounds: int, measured: Callable[[], float], wanted: str) -> None:
    """Measure some times, and print the median."""
    found = [measured() for _ in range(rounds)]
    print(
        f"| {what} | {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f}) | {wanted} |",
        flush=True,
    )


def environment(folder: str) -> dict[str, str]:
    """Nothing of the person who measures but the path."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("LSCAL", "OPTUNA", "MLFLOW"))
    }
    return kept | {"XDG_CACHE_HOME": f"{folder}/cache", "PYTHONPATH": str(ROOT)}


def wall(folder: str, *words: str) -> float:
    """Seconds of a whole process."""
    started = time.perf_counter()
    subprocess.run(words, cwd=folder, env=environment(folder), capture_output=True, check=True)
    return time.perf_counter() - started


def processor(folder: str, *words: str) -> float:
    """CPU seconds of a whole process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall(folder, *words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_line(folder: str) -> float:
    """Seconds until a sweep has written its first line."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [*RUN, *SMALL], cwd=folder, env=environment(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    process.stderr.readline()
    seconds = time.perf_counter() - started
    process.kill()
    process.communicate()
    return seconds


def acknowledged() -> float:
    """Seconds from Ctrl-C in the middle of a screening to the first word about it."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [*RUN, "--epochs", "2000"],
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if "screening" in line or "piloting" in line:
                break
        started = time.perf_counter()
        process.send_signal(signal.SIGINT)
        for line in process.stderr:
            if "Stopping" in line:
                break
        seconds = time.perf_counter() - started
        process.wait()
    return seconds


def peak(*words: str) -> float:
    """Peak memory of the sweep's own process, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        code = (
            "import resource, sys; from sweeps.cli.run import main; code = main(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=folder,
            env=environment(folder),
            capture_output=True,
            text=True,
            check=True,
        )
    return int(done.stderr.splitlines()[-1]) / 1024


if __name__ == "__main__":
    main()
