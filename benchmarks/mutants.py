"""Mutation test: faults of one line, each in a copy of the tree, and whether the tests that guard it fail.

    python -m benchmarks.mutants [--only TEXT] [--list] [--jobs 2]

`benchmarks/mutants.yaml` has the file, the line and its replacement, the promise that breaks, and the tests.
A mutant is killed where a test fails in an assertion; it survives where all pass, and is broken where the
tests fail otherwise, or its line is not in the file. Exit codes: 0 all killed, 1 otherwise.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
LONGEST = 600
ASSERTED = re.compile(r"^E +(AssertionError|assert |Failed: DID NOT|.*Mismatched elements|Falsifying)", re.M)


@dataclass(frozen=True)
class Mutant:
    """A fault, the promise that it breaks, and the tests that guard it."""

    file: str
    old: str
    new: str
    promise: str
    tests: str

    def verdict(self) -> str:
        """`killed`, `survives` or `broken`, with the reason."""
        source = (ROOT / self.file).read_text()
        if source.count(self.old) != 1:
            return f"broken: the line is {source.count(self.old)} times in {self.file}"
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder, "tree")
            shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", "__pycache__", ".*cache"))
            (tree / self.file).write_text(source.replace(self.old, self.new))
            command = [sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", "-p", "no:cacheprovider"]
            done = subprocess.run(
                [*command, *self.tests.split()],
                cwd=tree,
                env={**os.environ, "PYTHONPATH": str(tree)},
                capture_output=True,
                text=True,
                timeout=LONGEST,
                check=False,
            )
        if done.returncode == 0:
            return "survives"
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
        where = failed[1].partition("::")[2] if failed else f"exit code {done.returncode}"
        return f"{'killed' if ASSERTED.search(done.stdout) else 'broken'}: {where}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--only", default="", metavar="TEXT", help="mutants with this text in file or promise")
    flags.add_argument("--list", action="store_true")
    flags.add_argument("--jobs", type=int, default=2)
    options = flags.parse_args(arguments)
    entries = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    mutants = [Mutant(**entry) for entry in entries]
    chosen = [one for one in mutants if options.only in f"{one.file} {one.promise}"]
    if options.list:
        print("\n".join(f"{one.file}: {one.promise}" for one in chosen))
        return 0
    started, verdicts = time.monotonic(), []
    with ThreadPoolExecutor(options.jobs) as pool:
        for one, verdict in zip(chosen, pool.map(Mutant.verdict, chosen), strict=True):
            verdicts.append(verdict)
            print(f"{one.file}: {one.promise}\n    {verdict}", flush=True)
    killed = sum(verdict.startswith("killed") for verdict in verdicts)
    print(f"{killed} of {len(chosen)} killed, {(time.monotonic() - started) / 60:.1f} min")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
