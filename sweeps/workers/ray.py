"""Workers on the nodes of a Ray cluster, which places them; their work is in Optuna's database alone."""

import importlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from typing_extensions import override

from sweeps.devices import MOST_SHARDS
from sweeps.errors import WrongInput
from sweeps.workers.launcher import STOP_SECONDS, Launcher, Reporter, judge
from sweeps.workers.supervisor import Supervisor

HANDED_ON = ("MLFLOW_", "PG", "LSCAL_")
"""Prefixes of variables passed to the workers: credentials of MLflow and PostgreSQL, folders."""
OBJECT_STORE = 80 << 20
"""Bytes, near the least that Ray allows: no large object is sent through it."""
CONNECT_SECONDS = 5.0
SLACK = 10.0
"""Seconds for messages, added to a worker's time to stop."""


class Ray(Launcher):
    """Workers as Ray actors with a share of a GPU or some cores each. Ray restarts them on another node when
    theirs is lost.

    With `workers="auto"` the nodes are filled, and more workers start when nodes join; a fixed number waits
    for room. An actor is a `Supervisor` whose worker is a process of its own, so it has its own GPU memory,
    takes SIGTERM, and may crash.
    """

    def __init__(
        self,
        address: str | None,
        workers: int | Literal["auto"],
        device: str,
        gpus: float | None,
        arguments: Sequence[str],
        stores: Mapping[str, str],
        reporter: Reporter,
    ):
        if device.startswith("cuda:"):
            raise WrongInput(
                f"the device is {device!r}, but Ray chooses each worker's GPU; use --device cuda."
            )
        if gpus is not None and gpus > 1:
            raise WrongInput(
                f"gpus_per_worker is {gpus:g}, but a worker trains on one GPU; allowed is a share such as"
                " 0.25, or 1."
            )
        self.ray = load(address)
        self.address = address
        self.workers = workers
        self.device = device
        self.gpus = gpus
        self.cpus = 0.0
        self.arguments = arguments
        self.stores = {name: absolute(url) for name, url in stores.items()}
        self.reporter = reporter
        self.actors: list[Any] = []
        self.asked: dict[Any, int] = {}
        """Worker of each unanswered call."""
        self.placed: set[int] = set()
        self.news: dict[int, Any] = {}

    @override
    def start(self) -> None:
        connect(self.ray, self.address)
        nodes = self.nodes()
        refuse_files(self.stores, {node["NodeManagerHostname"] for node in nodes} - {socket.gethostname()})
        resources = [node["Resources"] for node in nodes]
        if self.gpus is None:
            self.gpus = 1.0 if self.device != "cpu" and any("GPU" in own for own in resources) else 0.0
        if not self.gpus:
            self.cpus = share_of_cores([own.get("CPU", 0.0) for own in resources], self.workers)
        self.grow()

    @override
    def watch(self) -> None:
        self.grow()
        if not self.actors:
            return
        answered, _ = self.ray.wait(list(self.asked), num_returns=len(self.asked), timeout=0)
        for call in answered:
            number = self.asked.pop(call)
            self.receive(number, call)
            self.ask(number)
        judge(
            [self.news[number] for number in sorted(self.news)] if len(self.news) == len(self.actors) else []
        )

    @override
    def stop(self) -> None:
        try:
            for number in self.placed:
                self.actors[number - 1].ask_to_stop.remote()
            calls = {
                self.actors[number - 1].stop.remote(STOP_SECONDS): number for number in sorted(self.placed)
            }
            if calls:
                stopped, _ = self.ray.wait(list(calls), num_returns=len(calls), timeout=STOP_SECONDS + SLACK)
                for call in stopped:
                    self.receive(calls[call], call)
        finally:
            for actor in self.actors:
                self.ray.kill(actor)
            self.ray.shutdown()

    @override
    def working(self) -> int:
        return sum(self.news[number].working for number in self.placed)

    def nodes(self) -> list[dict[str, Any]]:
        """Nodes that are alive."""
        return [node for node in self.ray.nodes() if node["Alive"]]

    def grow(self) -> None:
        """Place the wanted workers. The number never falls: those of a lost node wait for the next."""
        wanted = self.workers
        if wanted == "auto":
            wanted = sum(room(node["Resources"], self.gpus or 0.0, self.cpus) for node in self.nodes())
        for number in range(len(self.actors) + 1, wanted + 1):
            options = {"num_gpus": self.gpus, "num_cpus": self.cpus, "max_restarts": -1}
            environment = {
                name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)
            } | self.stores
            if not self.gpus:
                environment["OMP_NUM_THREADS"] = str(max(1, int(self.cpus)))
            arguments = [*self.arguments, "--device", self.device if self.gpus else "cpu"]
            self.actors.append(
                self.ray.remote(Supervisor).options(**options).remote(number, arguments, environment)
            )
            self.ask(number)

    def ask(self, number: int) -> None:
        """Request a worker's news. The answer comes once the worker is placed."""
        self.asked[self.actors[number - 1].watch.remote()] = number

    def receive(self, number: int, call: Any) -> None:
        """Report a worker's news, or that its actor is gone."""
        try:
            self.news[number] = self.reporter.report(number, self.ray.get(call))
            self.placed.add(number)
        except self.ray.exceptions.RayActorError:
            if number in self.placed:
                self.placed.remove(number)
                self.reporter.say(
                    f"worker {number} is gone with its node or actor; Ray restarts it where there is room"
                )


def load(address: str | None) -> Any:
    """The module of Ray. Errors: WrongInput where it is not installed.

    The ports of a cluster that Ray starts are open to the network, so a token of its own guards it; Ray's
    default token lies in a file that every user of the machine may read. Ray reads these variables at import.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None and "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise WrongInput(
            "--launch ray needs Ray, which is not installed here: pip install 'lscal[ray]'."
        ) from error


def connect(ray: Any, address: str | None) -> None:
    """Start a cluster of this machine, without a dashboard, or join the one at an address. Errors: WrongInput
    where none answers.
    """
    before = signal.getsignal(signal.SIGTERM)
    quiet = {"log_to_driver": False, "configure_logging": False}
    try:
        if address is None:
            ray.init(
                "local",
                num_cpus=len(os.sched_getaffinity(0)),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE,
                **quiet,
            )
        else:
            host, _, port = address.removeprefix("ray://").rpartition(":")
            if port.isdigit():  # Ray itself retries for minutes
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            ray.init(address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise WrongInput(f"no Ray cluster to use at {address or 'this machine'!r}: {error}") from error
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray's handler would end this process silently


def refuse_files(stores: Mapping[str, str], others: set[str]) -> None:
    """Errors: WrongInput where other machines would use a database in a file on this one."""
    for name, url in stores.items():
        if others and (url.startswith("sqlite") or "://" not in url):
            raise WrongInput(
                f"{name} is a file on this machine, which the cluster's nodes {', '.join(sorted(others))}"
                " cannot share; give --storage postgresql+psycopg://… and --tracking-uri http://… of servers"
                " which they reach."
            )


def absolute(url: str) -> str:
    """A URL that is valid from any working directory."""
    scheme, slashes, path = url.partition(":///")
    if slashes and scheme.startswith("sqlite"):
        return f"{scheme}:///{Path(path).absolute()}"
    return url if "://" in url else str(Path(url).absolute())


def room(resources: Mapping[str, float], gpus: float, cpus: float) -> int:
    """Number of workers that fit on a node. Ray does not divide a worker's share between two GPUs."""
    if gpus:
        return int(resources.get("GPU", 0)) * int(1 / gpus + 1e-6)
    return int(resources.get("CPU", 0) / cpus + 1e-6)


def share_of_cores(nodes: Sequence[float], workers: int | Literal["auto"]) -> float:
    """Cores for each worker, given the cores of the nodes; below one where workers outnumber cores."""
    most = min(float(MOST_SHARDS), max(nodes, default=1.0))
    share = most if workers == "auto" else min(most, sum(nodes) / workers)
    return float(int(share)) if share >= 1 else max(0.01, int(share * 100) / 100)
