"""Every test runs with the shapes and types of the packages checked; this comes before their first import."""

import os
import signal
import tempfile
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
