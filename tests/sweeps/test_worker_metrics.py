"""Metrics of a worker, scraped over HTTP as Prometheus does."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sweeps.errors import WrongInput
from sweeps.workers.metrics import Metrics


@pytest.fixture
def metrics():
    made = Metrics()
    yield made
    made.close()


def scraped(address):
    """Every sample of a page of metrics by name and labels, and the type of every metric."""
    with urllib.request.urlopen(address, timeout=20) as reply:
        assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
        families = list(text_string_to_metric_families(reply.read().decode()))
    values = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }
    return values, {family.name: family.type for family in families}


def test_the_work_of_a_worker_is_counted(metrics):
    metrics.described({"host": 'a"b\n', "pid": "1"})
    metrics.advance(8)
    metrics.advance(4)
    metrics.trained(8, 2.5)
    for state in ("finished", "finished", "returned"):
        metrics.ended(state)
    metrics.trials("digits/mlp", {"running": 2, "queued": 5})
    metrics.trials("digits/mlp", {"running": 1})
    metrics.outbox(3, 4096)
    values, types = scraped(metrics.serve())
    expected = {
        ("lscal_member_epochs_total", ()): 12,
        ("lscal_members_total", ()): 8,
        ("lscal_training_seconds_total", ()): 2.5,
        ("lscal_trials_told_total", (("state", "finished"),)): 2,
        ("lscal_trials_told_total", (("state", "returned"),)): 1,
        ("lscal_trials", (("state", "running"), ("task", "digits/mlp"))): 1,
        ("lscal_trials", (("state", "queued"), ("task", "digits/mlp"))): 5,
        ("lscal_outbox_entries", ()): 3,
        ("lscal_outbox_bytes", ()): 4096,
        ("lscal_worker_info", (("host", 'a"b\n'), ("pid", "1"))): 1,
    }
    assert {key: values.get(key) for key in expected} == expected
    kinds = {"lscal_members": "counter", "lscal_trials": "gauge", "lscal_gpu_memory_bytes": "gauge"}
    assert kinds.items() <= types.items()
    assert values[("process_resident_memory_bytes", ())] > 0


def test_the_heartbeats_age_is_that_at_the_scrape(metrics):
    address = metrics.serve()
    time.sleep(0.3)
    silent = scraped(address)[0]["lscal_heartbeat_age_seconds", ()]
    assert 0.3 <= silent < 20
    metrics.beaten()
    assert scraped(address)[0]["lscal_heartbeat_age_seconds", ()] < silent


def test_two_registries_share_nothing():
    first, second = Metrics(), Metrics()
    first.advance(5)
    values, _ = scraped(second.serve())
    second.close()
    assert values["lscal_member_epochs_total", ()] == 0


def test_metrics_are_served_on_loopback_alone_until_they_are_closed(metrics):
    address = metrics.serve()
    port = int(address.rpartition(":")[2].partition("/")[0])
    assert address == f"http://127.0.0.1:{port}/metrics"
    with socket.socket() as other:
        other.bind(("127.0.0.2", port))  # free: it does not listen everywhere
    with pytest.raises(WrongInput, match=f"metrics cannot be served at 127.0.0.1:{port}.*--metrics-port"):
        Metrics().serve(port=port)
    metrics.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=5)


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 0), ("127.0.0.1", 70000)])
def test_an_invalid_address_is_wrong_input(host, port):
    with pytest.raises(WrongInput, match="--metrics-port"):
        Metrics().serve(host, port)


def test_asking_for_memory_starts_neither_torch_nor_cuda():
    code = (
        "import sys\nfrom prometheus_client import generate_latest\n"
        "from sweeps.workers.metrics import Metrics\n"
        "assert b'gpu_memory_bytes{' not in generate_latest(Metrics().registry)\n"
        "assert 'torch' not in sys.modules\nimport torch\ngenerate_latest(Metrics().registry)\n"
        "assert not torch.cuda.is_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_the_memory_of_a_gpu_in_use_is_served(metrics):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    kept = torch.zeros(1_000_000, device="cuda")
    values, _ = scraped(metrics.serve())
    device = ("device", f"cuda:{kept.device.index}")
    allocated, total, used = (
        values["lscal_gpu_memory_bytes", (device, ("kind", kind))]
        for kind in ("allocated", "total", "used_by_all")
    )
    assert allocated >= 4_000_000
    assert total >= used
