"""Every test runs with the shapes and types of the packages checked; this comes before their first import."""

import os
import re
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook(["lscal", "sweeps"], "typechecker.checked")
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # begun in the background, where children would not hear Ctrl-C either
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # as in a sweep: on a busy machine two threads wait for each other
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(
    prefix="lscal-tests-"
)  # where the engine remembers what it measured


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Types unchecked, as in production: for errors that the type checker would raise first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The module that a test could not import, or else the reason that it gives for being skipped."""
    text = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    missing = re.search(r"could not import '([\w]+)", text)
    return missing[1] if missing else text.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints one line about skipped tests: how many, by reason."""
    if skipped := terminalreporter.stats.get("skipped"):
        counted = Counter(map(reason_of, skipped)).most_common()
        reasons = ", ".join(f"{reason} {count}" for reason, count in counted)
        terminalreporter.write_line(f"skipped: {len(skipped)} ({reasons}); .ci/extras runs them where it can")
