"""The compose files, the Dockerfile and .env.example agree with each other, with the command line, and with MLflow."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BASE, GPU = ROOT / "docker-compose.yml", ROOT / "docker-compose.gpu.yml"
SERVICES: dict[str, Any] = yaml.safe_load(BASE.read_text())["services"]
PASSWORD = "p@ss/w:rd% #1"  # what would break a URL
SECRET_NAME = re.compile("PASSWORD|SECRET|TOKEN", re.IGNORECASE)
REQUIRED = re.compile(r"\$\{[A-Z_]+:\?.+\}")


def scalars(value: Any, *path: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every leaf of a YAML document with the keys that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from scalars(inner, *path, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from scalars(inner, *path)
    else:
        yield path, str(value)


def words(text: str) -> list[str]:
    """The arguments which a container gets when no variable is set."""
    return shlex.split(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))


def flag(service: str, name: str) -> str:
    """Value of `--name=value` in a service's command."""
    command: list[str] = SERVICES[service]["command"]
    (value,) = [word.removeprefix(f"--{name}=") for word in command if word.startswith(f"--{name}=")]
    return value


def dockerfile(instruction: str) -> list[str]:
    """The arguments of an instruction, in order."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    return [line.split(maxsplit=1)[1] for line in lines if line.startswith(instruction + " ")]


@pytest.mark.parametrize("path", [BASE, GPU], ids=lambda path: path.name)
def test_compose_files_follow_the_specification(path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_ports_are_published_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"mlflow": ["127.0.0.1:5000:5000"]}
    assert all(str(port).startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert not [name for name, service in SERVICES.items() if service.get("network_mode") == "host"]


def test_every_password_is_required_from_the_environment() -> None:
    secrets = {path: value for path, value in scalars(SERVICES) if SECRET_NAME.search(path[-1])}
    assert {path[0] for path in secrets} == {"postgres", "mlflow", "worker"}
    assert [path for path, value in secrets.items() if not REQUIRED.fullmatch(value)] == []
    urls = [value for _, value in scalars(SERVICES) if "://" in value]
    assert urls
    assert [url for url in urls if re.search(r"://[^/\s]*:[^/\s]*@", url)] == []


def test_env_example_names_every_variable_and_no_password() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", BASE.read_text() + GPU.read_text()))
    lines = (ROOT / ".env.example").read_text().splitlines()
    named = {match[1]: match[2] for line in lines if (match := re.match(r"(?:# )?([A-Z_]+)=(.*)", line))}
    assert set(named) == used
    assert "POSTGRES_PASSWORD=" in lines


def test_services_wait_for_healthy_services() -> None:
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert {name: set(needed) for name, needed in waits.items()} == {
        "postgres": set(),
        "mlflow": {"postgres"},
        "worker": {"postgres", "mlflow"},
    }
    for needed in waits.values():
        for name, condition in needed.items():
            assert condition == {"condition": "service_healthy"}
            assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


def test_services_run_without_privileges() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        user = str(service["user"]) if "user" in service else dockerfile("USER")[-1]
        assert user.partition(":")[0] not in ("", "0", "root"), name


def test_postgres_creates_and_checks_the_databases_that_are_used() -> None:
    urls = {"optuna": SERVICES["worker"]["environment"]["OPTUNA_STORAGE"], "mlflow": flag("mlflow", "backend-store-uri")}
    postgres = SERVICES["postgres"]
    created = {postgres["environment"]["POSTGRES_DB"], *re.findall(r"CREATE DATABASE (\w+)", " ".join(postgres["entrypoint"]))}
    assert created == set(urls)
    for name, url in urls.items():
        parts = urlsplit(url)
        assert (parts.scheme, parts.hostname, parts.path) == ("postgresql+psycopg", "postgres", f"/{name}")
        assert parts.username == postgres["environment"]["POSTGRES_USER"]
    check = postgres["healthcheck"]["test"][1]
    assert "pg_isready" in check
    assert "SELECT 1" in check
    looped = re.search(r"for name in ([\w ]+);", check)
    assert looped is not None
    assert set(looped[1].split()) == created


def test_the_servers_version_is_that_of_the_client() -> None:
    (pinned,) = re.findall(r'"mlflow>=([\d.]+),', (ROOT / "pyproject.toml").read_text())
    assert re.fullmatch(rf"ghcr\.io/mlflow/mlflow:v{re.escape(pinned)}\.\d+-full", SERVICES["mlflow"]["image"])


@pytest.mark.filterwarnings("ignore")  # those of importing MLflow
def test_mlflow_knows_its_flags_and_keeps_artifacts_on_the_volume() -> None:
    from mlflow.cli import server

    program, subcommand, *flags = SERVICES["mlflow"]["command"]
    assert (program, subcommand) == ("mlflow", "server")
    options = server.make_context("server", list(flags)).params
    assert (options["host"], options["port"], options["workers"]) == ("0.0.0.0", 5000, "2")
    assert options["serve_artifacts"] is True
    (volume,) = SERVICES["mlflow"]["volumes"]
    name, folder = volume.split(":")
    assert name in yaml.safe_load(BASE.read_text())["volumes"]
    assert Path(options["artifacts_destination"]).is_relative_to(folder)
    assert SERVICES["mlflow"]["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert SERVICES["mlflow"]["environment"]["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.filterwarnings("ignore")  # those of importing MLflow
def test_mlflow_answers_the_worker_and_its_health_check_but_no_other_host() -> None:
    from mlflow.server.security_utils import is_allowed_host_header

    allowed = flag("mlflow", "allowed-hosts").split(",")
    health = re.search(r"http://[^']+", SERVICES["mlflow"]["healthcheck"]["test"][-1])
    assert health is not None
    assert urlsplit(health[0]).path.startswith("/api/2.0/mlflow/experiments/")
    for uri in (SERVICES["worker"]["environment"]["MLFLOW_TRACKING_URI"], health[0], "http://localhost:8080"):
        assert is_allowed_host_header(allowed, urlsplit(uri).netloc), uri
    assert not is_allowed_host_header(allowed, "rebound.example:5000")
    assert urlsplit(SERVICES["worker"]["environment"]["MLFLOW_TRACKING_URI"]).hostname in SERVICES


def test_the_health_check_of_mlflow_is_python() -> None:
    *program, source = SERVICES["mlflow"]["healthcheck"]["test"]
    assert program == ["CMD", "python", "-c"]
    failed = subprocess.run([sys.executable, "-c", source.replace(":5000/", ":1/")], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.rstrip().endswith("Connection refused>")


def test_the_image_runs_the_worker_s_command(tmp_path: Path) -> None:
    worker = SERVICES["worker"]
    (entrypoint,) = dockerfile("ENTRYPOINT")
    program, *arguments = json.loads(entrypoint)
    assert program == "python"
    given = {name: value for name, value in worker["environment"].items() if not SECRET_NAME.search(name)}
    environment = {**os.environ, **given, "PYTHONPATH": str(ROOT), "LSCAL_DATA": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, *arguments, *words(worker["command"]), "--dry-run"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert ran.returncode == 0, ran.stderr
    plan = yaml.safe_load(ran.stdout)
    assert [task["task"] for task in plan["tasks"]] == ["digits/mlp"]
    assert plan["tracking_uri"] == worker["environment"]["MLFLOW_TRACKING_URI"]


def test_the_worker_only_reads_its_data() -> None:
    (volume,) = SERVICES["worker"]["volumes"]
    assert volume == "${LSCAL_DATA:-./data}:" + SERVICES["worker"]["environment"]["LSCAL_DATA"] + ":ro"


def test_the_image_is_built_from_what_the_build_context_lets_in() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for line in dockerfile("COPY") if "--from" not in line for source in line.split()[:-1]}
    assert copied == let_in
    assert [name for name in copied if not (ROOT / name).exists()] == []


Compose = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    """`docker-compose config` with files and variables of the test alone: no .env and no variable of the person who runs it."""
    if shutil.which("docker-compose"):
        program = ["docker-compose"]
    elif shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        program = ["docker", "compose"]
    else:
        pytest.skip("neither docker-compose nor docker compose is on PATH")
    no_variables = tmp_path / "empty.env"
    no_variables.touch()

    def config(*files: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        chosen = [word for path in files for word in ("-f", str(path))]
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables}
        command = [*program, "--env-file", str(no_variables), *chosen, "config"]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)

    return config


def test_compose_puts_the_password_into_environments_only(compose: Compose) -> None:
    resolved = compose(BASE, POSTGRES_PASSWORD=PASSWORD)
    assert resolved.returncode == 0, resolved.stderr
    services = yaml.safe_load(resolved.stdout)["services"]
    assert set(services) == set(SERVICES)
    holders = {path for path, value in scalars(services) if PASSWORD in value}
    assert holders == {
        ("postgres", "environment", "POSTGRES_PASSWORD"),
        ("mlflow", "environment", "PGPASSWORD"),
        ("worker", "environment", "PGPASSWORD"),
    }


@pytest.mark.parametrize("variables", [{}, {"POSTGRES_PASSWORD": ""}], ids=["unset", "empty"])
def test_compose_refuses_a_missing_password_by_name(compose: Compose, variables: dict[str, str]) -> None:
    refused = compose(BASE, **variables)
    assert refused.returncode != 0
    assert "set POSTGRES_PASSWORD in .env" in refused.stderr


def test_compose_passes_several_tasks_and_flags(compose: Compose) -> None:
    resolved = compose(BASE, POSTGRES_PASSWORD=PASSWORD, LSCAL_TASKS="digits/mlp fashion_mnist/cnn --trials 7")
    assert resolved.returncode == 0, resolved.stderr
    command = yaml.safe_load(resolved.stdout)["services"]["worker"]["command"]
    assert (shlex.split(command) if isinstance(command, str) else command) == ["digits/mlp", "fashion_mnist/cnn", "--trials", "7"]


def test_compose_adds_the_gpu_to_the_worker_alone(compose: Compose) -> None:
    resolved = compose(BASE, GPU, POSTGRES_PASSWORD=PASSWORD)
    assert resolved.returncode == 0, resolved.stderr
    services = yaml.safe_load(resolved.stdout)["services"]
    assert [name for name, service in services.items() if "gpu" in json.dumps(service.get("deploy", {}))] == ["worker"]
    assert services["worker"]["read_only"] is True
