"""Metrics of a worker that Prometheus scrapes, in a registry of their own."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from sweeps.errors import WrongInput


class Metrics:
    """Counts a worker's activity, and serves the counts. Memory and ages are read at each scrape."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.epochs = Counter(
            "lscal_member_epochs", "Epochs trained, summed over members.", registry=self.registry
        )
        self.members = Counter(
            "lscal_members", "Members whose training has come to an end.", registry=self.registry
        )
        self.seconds = Counter("lscal_training_seconds", "Time spent training.", registry=self.registry)
        self.trial_ends = Counter(
            "lscal_trials_told",
            "Trials that this worker recorded in the study.",
            ["state"],
            registry=self.registry,
        )
        self.counts = Gauge(
            "lscal_trials",
            "Trials of the sweep, whoever trains them.",
            ["task", "state"],
            registry=self.registry,
        )
        self.entries = Gauge(
            "lscal_outbox_entries", "Entries that MLflow has not taken yet.", registry=self.registry
        )
        self.size = Gauge("lscal_outbox_bytes", "Bytes of those entries.", registry=self.registry)
        self.info = Info("lscal_worker", "The worker: host, pid, device, engine.", registry=self.registry)
        self.beat = time.monotonic()
        age = Gauge(
            "lscal_heartbeat_age_seconds",
            "Time since the database took a heartbeat, or since the start.",
            registry=self.registry,
        )
        age.set_function(lambda: time.monotonic() - self.beat)
        self.registry.register(Memory())
        self.stop: Callable[[], None] = lambda: None

    def described(self, about: Mapping[str, str]) -> None:
        """Set the description of the worker."""
        self.info.info(dict(about))

    def advance(self, member_epochs: int) -> None:
        """Add epochs, summed over members."""
        self.epochs.inc(member_epochs)

    def trained(self, members: int, seconds: float) -> None:
        """Add members whose training ended, and its seconds."""
        self.members.inc(members)
        self.seconds.inc(seconds)

    def ended(self, state: str) -> None:
        """Count a recorded trial: `finished`, `dropped`, `diverged` or `returned`."""
        self.trial_ends.labels(state).inc()

    def trials(self, task: str, counts: Mapping[str, int]) -> None:
        """Set the number of trials of a task's sweep in each state."""
        for state, count in counts.items():
            self.counts.labels(task, state).set(count)

    def outbox(self, entries: int, size: int) -> None:
        """Set the number and the size in bytes of entries that wait for MLflow."""
        self.entries.set(entries)
        self.size.set(size)

    def beaten(self) -> None:
        """Note that the database took a heartbeat."""
        self.beat = time.monotonic()

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Serve the metrics from a thread until `close`. Returns their address. Errors: WrongInput where it
        cannot listen there.
        """
        try:
            server, thread = start_http_server(port, host, self.registry)
        except (OSError, OverflowError) as error:
            raise WrongInput(
                f"metrics cannot be served at {host}:{port}: {error}. Give another --metrics-port."
            ) from error

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self.stop = stop
        return f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/metrics"

    def close(self) -> None:
        """Stop serving."""
        stop, self.stop = self.stop, lambda: None
        stop()


class Memory(Collector):
    """Memory of the GPUs that this process uses. It starts neither torch nor CUDA."""

    @override
    def collect(self) -> Iterable[GaugeMetricFamily]:
        """One gauge, without samples where no GPU is in use."""
        gauge = GaugeMetricFamily(
            "lscal_gpu_memory_bytes",
            "GPU memory of this process, and of all on its device.",
            labels=["device", "kind"],
        )
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            for device in range(torch.cuda.device_count()):
                if reserved := torch.cuda.memory_reserved(
                    device
                ):  # asking more of another device would start CUDA on it
                    free, total = torch.cuda.mem_get_info(device)
                    kinds = {
                        "allocated": torch.cuda.memory_allocated(device),
                        "peak": torch.cuda.max_memory_allocated(device),
                        "reserved": reserved,
                        "used_by_all": total - free,
                        "total": total,
                    }
                    for kind, value in kinds.items():
                        gauge.add_metric([f"cuda:{device}", kind], value)
        yield gauge
