"""The compose files, the Dockerfile, its lock and .env.example agree with each other, with the command lines,
and with MLflow; and they run.
"""

import base64
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.compose_as_processes import Failed, Project, interpolated, made_secrets, project

ROOT = Path(__file__).parents[1]
BASE, GPU, S3 = (ROOT / f"docker-compose{name}.yml" for name in ("", ".gpu", ".s3"))
SERVICES: dict[str, Any] = yaml.safe_load(BASE.read_text())["services"]
OURS = {"dashboard", "api", "sweep", "worker"}
SECRETS = re.findall(r"^([A-Z_]+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE)
ANY = dict.fromkeys(SECRETS, "p@ss/w:rd% #1")  # what would break a URL
SECRET_NAME = re.compile("PASSWORD|SECRET|TOKEN|_KEY", re.IGNORECASE)
REQUIRED = re.compile(r"\$\{[A-Z_0-9]+:\?set .+\}")


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


def flag(service: str, name: str) -> str:
    """Value of `--name=value` in a service's command."""
    command: list[str] = SERVICES[service]["command"]
    (value,) = [word.removeprefix(f"--{name}=") for word in command if word.startswith(f"--{name}=")]
    return value


def dockerfile(instruction: str) -> list[str]:
    """The arguments of an instruction, in order."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    return [line.split(maxsplit=1)[1] for line in lines if line.startswith(instruction + " ")]


@pytest.mark.parametrize("path", [BASE, GPU, S3], ids=lambda path: path.name)
def test_compose_files_follow_the_specification(path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_ports_are_published_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "mlflow": ["127.0.0.1:5000:5000"],
        "dashboard": ["127.0.0.1:8080:8080"],
        "api": ["127.0.0.1:8000:8000"],
    }
    assert not [name for name, service in SERVICES.items() if service.get("network_mode") == "host"]


def test_every_secret_is_required_from_the_environment() -> None:
    files = {path: yaml.safe_load(path.read_text())["services"] for path in (BASE, S3)}
    secrets = {
        keys: value
        for services in files.values()
        for keys, value in scalars(services)
        if SECRET_NAME.search(keys[-1])
    }
    assert {path[0] for path in secrets} == set(SERVICES)
    assert [path for path, value in secrets.items() if not REQUIRED.fullmatch(value)] == []
    urls = [value for _, value in scalars(SERVICES) if "://" in value]
    assert urls
    assert [url for url in urls if re.search(r"://[^/\s]*:[^/\s]*@", url)] == []


def test_env_example_names_every_variable_and_no_secret() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", BASE.read_text() + GPU.read_text() + S3.read_text()))
    lines = (ROOT / ".env.example").read_text().splitlines()
    named = {match[1]: match[2] for line in lines if (match := re.match(r"(?:# )?([A-Z_0-9]+)=(.*)", line))}
    assert set(named) == used
    assert {name for name in named if SECRET_NAME.search(name) and named[name]} == set()


def test_one_command_makes_every_secret_and_replaces_none(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".env.example", tmp_path)
    (tmp_path / "deploy").mkdir()
    script = shutil.copy(ROOT / "deploy/secrets.sh", tmp_path / "deploy")
    subprocess.run(["sh", script], check=True)
    made = dict(
        line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines() if re.match("[A-Z]", line)
    )
    assert set(made) == set(SECRETS)
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in made.values())
    assert len(set(made.values())) == len(made)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    again = subprocess.run(["sh", script], capture_output=True)
    assert again.returncode != 0
    assert (
        dict(
            line.split("=", 1)
            for line in (tmp_path / ".env").read_text().splitlines()
            if re.match("[A-Z]", line)
        )
        == made
    )


def test_services_wait_for_what_they_need() -> None:
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    stores = {"postgres": "service_healthy", "mlflow-users": "service_completed_successfully"}
    wanted = {
        "postgres": {},
        "mlflow": {"postgres": "service_healthy"},
        "mlflow-users": {"mlflow": "service_healthy"},
    }
    wanted |= {
        "dashboard": {"postgres": "service_healthy"},
        **dict.fromkeys(("api", "sweep", "worker"), stores),
    }
    merged = {name: {key: how["condition"] for key, how in needed.items()} for name, needed in waits.items()}
    assert merged == wanted
    healthy = {
        key
        for needed in merged.values()
        for key, condition in needed.items()
        if condition == "service_healthy"
    }
    assert all(
        "healthcheck" in SERVICES[name]
        for name in healthy | {name for name, service in SERVICES.items() if "ports" in service}
    )


def test_services_run_without_privileges() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        user = str(service["user"]) if "user" in service else dockerfile("USER")[-1]
        assert user.partition(":")[0] not in ("", "0", "root"), name
    assert {name for name, service in SERVICES.items() if "build" in service} == OURS


def test_every_service_has_a_role_of_its_own_in_postgres() -> None:
    roles = (ROOT / "deploy/postgres/roles.sql").read_text()
    owners = {**dict(re.findall(r"CREATE DATABASE (\w+) OWNER (\w+)", roles))}
    assert owners == {"optuna": "optuna", "mlflow": "mlflow", "mlflow_users": "mlflow"}
    urls = {
        SERVICES["worker"]["environment"]["OPTUNA_STORAGE"],
        flag("mlflow", "backend-store-uri"),
        SERVICES["dashboard"]["command"][-1],
    }
    urls.add(re.findall("database_uri = (.*)", (ROOT / "deploy/mlflow/basic_auth.ini").read_text())[0])
    used = {(urlsplit(url).username, urlsplit(url).path.strip("/")) for url in urls}
    assert used == {
        ("optuna", "optuna"),
        ("dashboard", "optuna"),
        ("mlflow", "mlflow"),
        ("mlflow", "mlflow_users"),
    }
    assert {(urlsplit(url).scheme, urlsplit(url).hostname, urlsplit(url).port) for url in urls} == {
        ("postgresql+psycopg", "postgres", 5432)
    }
    assert set(re.findall(r"may (\w+) (\w+) ", SERVICES["postgres"]["healthcheck"]["test"][1])) == used


def test_the_servers_version_is_that_of_the_client() -> None:
    (pinned,) = re.findall(r'"mlflow>=([\d.]+),', (ROOT / "pyproject.toml").read_text())
    for name in ("mlflow", "mlflow-users"):
        assert re.fullmatch(
            rf"ghcr\.io/mlflow/mlflow:v{re.escape(pinned)}\.\d+-full", SERVICES[name]["image"]
        )


@pytest.mark.filterwarnings("ignore")  # those of importing MLflow
def test_mlflow_knows_its_flags_and_keeps_artifacts_on_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.cli import server

    program, subcommand, *flags = SERVICES["mlflow"]["command"]
    environment = SERVICES["mlflow"]["environment"]
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", environment["MLFLOW_ARTIFACTS_DESTINATION"])
    assert (program, subcommand) == ("mlflow", "server")
    options = server.make_context("server", list(flags)).params
    assert (options["host"], options["port"], options["workers"], options["app_name"]) == (
        "0.0.0.0",
        5000,
        "2",
        "basic-auth",
    )
    assert options["serve_artifacts"] is True
    name, folder = SERVICES["mlflow"]["volumes"][0].split(":")
    assert name in yaml.safe_load(BASE.read_text())["volumes"]
    assert Path(options["artifacts_destination"]).is_relative_to(folder)
    off = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    assert {key: environment[key] for key in off} == off


@pytest.mark.filterwarnings("ignore")  # those of importing MLflow
def test_mlflow_answers_its_clients_and_its_health_check_but_no_other_host() -> None:
    from mlflow.server.security_utils import is_allowed_host_header

    allowed = flag("mlflow", "allowed-hosts").split(",")
    health = re.search(r"http://[^']+", SERVICES["mlflow"]["healthcheck"]["test"][-1])
    assert health is not None
    uris = [
        SERVICES[name]["environment"]["MLFLOW_TRACKING_URI"]
        for name in ("api", "sweep", "worker", "mlflow-users")
    ]
    for uri in (
        *uris,
        health[0],
        "http://localhost:8080",
        SERVICES["sweep"]["environment"]["LSCAL_MLFLOW_UI"],
    ):
        assert is_allowed_host_header(allowed, urlsplit(uri).netloc), uri
    assert not is_allowed_host_header(allowed, "rebound.example:5000")


def test_an_s3_store_replaces_the_volume_for_artifacts() -> None:
    (name,) = (services := yaml.safe_load(S3.read_text())["services"])
    assert (name, set(services[name])) == ("mlflow", {"environment"})
    assert (
        "MLFLOW_ARTIFACTS_DESTINATION"
        in SERVICES["mlflow"]["environment"].keys() & services[name]["environment"].keys()
    )


@pytest.mark.parametrize("service", ["sweep", "worker", "api"])
def test_the_image_runs_what_the_service_is_told_to(service: str) -> None:
    (entrypoint,) = dockerfile("ENTRYPOINT")
    assert json.loads(entrypoint) == ["python", "-m"]
    command = interpolated(SERVICES[service]["command"], {})
    module, *flags = command.split() if isinstance(command, str) else command
    known = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert known.returncode == 0, known.stderr
    for name in [word.partition("=")[0] for word in flags if word.startswith("--")]:
        assert re.search(rf"(?<![\w-]){name}\b", known.stdout), name


def test_sweep_and_workers_only_read_data_and_share_their_state() -> None:
    for name in ("sweep", "worker"):
        environment = SERVICES[name]["environment"]
        assert SERVICES[name]["volumes"] == [
            "${LSCAL_DATA:-./data}:" + environment["LSCAL_DATA"] + ":ro",
            "state:" + environment["LSCAL_STATE"],
        ]
    (made,) = [line for line in dockerfile("RUN") if "install -d" in line]
    assert made.endswith(SERVICES["worker"]["environment"]["LSCAL_STATE"])
    assert "-o lscal" in made


def test_the_image_is_built_from_what_the_build_context_lets_in() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for line in dockerfile("COPY") if "--from" not in line for source in line.split()[:-1]}
    assert copied == let_in
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_the_lock_has_a_hash_for_everything_and_what_the_project_asks_for() -> None:
    text = (ROOT / "requirements.lock").read_text()
    entries = [
        entry for entry in re.sub(r"\s*\\\n\s*", " ", re.sub("(?m)^#.*\n", "", text)).splitlines() if entry
    ]
    assert all(
        re.fullmatch(r"\S+==\S+( ; [^-]+?)?( --hash=sha256:[0-9a-f]{64})+", entry) for entry in entries
    )
    pinned: dict[str, list[str]] = {}
    for entry in entries:
        name, version = entry.split()[0].split("==")
        pinned.setdefault(canonicalize_name(name.partition("[")[0]), []).append(version)
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *declared["dependencies"],
        *declared["optional-dependencies"]["postgres"],
        *declared["optional-dependencies"]["dashboard"],
    ]
    for one in map(Requirement, wanted):
        versions = pinned.get(canonicalize_name(one.name), [])
        assert versions, f"{one} is not in requirements.lock; the Dockerfile says how to renew it"
        assert all(one.specifier.contains(version) for version in versions), one
    assert not re.search(r"https?://|file:|/home|/opt|/tmp", text)


def test_every_gpu_has_one_worker(tmp_path: Path) -> None:
    """Two GPUs and three workers: the override's own shell, with a program in the place of nvidia-smi and one
    in that of python.
    """
    *shell, script, last = yaml.safe_load(GPU.read_text())["services"]["worker"]["entrypoint"]
    for name, source in (("nvidia-smi", "echo 0; echo 1"), ("python", 'echo "$@"; exec sleep 30')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{source}\n")
        (tmp_path / name).chmod(0o700)
    command = [
        *shell,
        script.replace("$$", "$").replace("/state", str(tmp_path)),
        last,
        *SERVICES["worker"]["command"],
    ]
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    started: list[subprocess.Popen[str]] = []
    try:
        for gpu in (0, 1):
            started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
            assert started[gpu].stdout.readline().split() == [
                "-m",
                *SERVICES["worker"]["command"],
                "--device",
                f"cuda:{gpu}",
            ]  # type: ignore[union-attr]
        third = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)
        assert (third.returncode, third.stderr) == (1, "every GPU has a worker: scale to fewer of them\n")
        started[0].kill()
        started[0].wait()
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline().split()[-1] == "cuda:0"  # type: ignore[union-attr]
    finally:
        for process in started:
            process.kill()
            process.communicate()


Compose = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    """`docker-compose config` with files and variables of the test alone: no .env and no variable of the
    person who runs it.
    """
    if shutil.which("docker-compose"):
        program = ["docker-compose"]
    elif (
        shutil.which("docker")
        and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
    ):
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


def test_compose_puts_secrets_into_environments_only(compose: Compose) -> None:
    values = {name: f"{number}{value}" for number, (name, value) in enumerate(ANY.items())}
    resolved = compose(BASE, **values)
    assert resolved.returncode == 0, resolved.stderr
    services = yaml.safe_load(resolved.stdout)["services"]
    assert set(services) == set(SERVICES)
    holders = {
        path for path, value in scalars(services) if any(secret in value for secret in values.values())
    }
    assert {(path[1], bool(SECRET_NAME.search(path[2]))) for path in holders} == {("environment", True)}
    assert {path[0] for path in holders} == set(SERVICES)


@pytest.mark.parametrize("missing", SECRETS)
def test_a_missing_secret_is_refused_by_name(missing: str, tmp_path: Path) -> None:
    for others in ({key: value for key, value in ANY.items() if key != missing}, {**ANY, missing: ""}):
        with pytest.raises(Failed, match=f"^{missing} is missing: set {missing} in .env"):
            Project(tmp_path, others)


def test_compose_refuses_a_missing_secret_by_name(compose: Compose) -> None:
    for missing in SECRETS:
        refused = compose(BASE, **{**ANY, missing: ""})
        assert refused.returncode != 0
        assert f"set {missing} in .env" in refused.stderr


def test_compose_passes_several_tasks_and_flags(compose: Compose) -> None:
    resolved = compose(BASE, **ANY, LSCAL_TASKS="digits/mlp fashion_mnist/cnn --trials 7")
    assert resolved.returncode == 0, resolved.stderr
    command = yaml.safe_load(resolved.stdout)["services"]["sweep"]["command"]
    words = command.split() if isinstance(command, str) else command
    assert words == ["sweeps.run", "--workers", "0", "digits/mlp", "fashion_mnist/cnn", "--trials", "7"]


def test_compose_takes_both_overrides(compose: Compose) -> None:
    store = {
        "LSCAL_S3_DESTINATION": "s3://a/b",
        "LSCAL_S3_ENDPOINT": "https://s3.example",
        "LSCAL_S3_KEY_ID": "k",
        "LSCAL_S3_SECRET_KEY": "s",
    }
    resolved = compose(BASE, GPU, S3, **ANY, **store)
    assert resolved.returncode == 0, resolved.stderr
    services = yaml.safe_load(resolved.stdout)["services"]
    assert [name for name, service in services.items() if "gpu" in json.dumps(service.get("deploy", {}))] == [
        "worker"
    ]
    assert services["worker"]["read_only"] is True
    assert services["mlflow"]["environment"]["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://a/b"
    assert services["mlflow"]["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


# ---- The services, as processes against a real PostgreSQL
# ------------------------------------------------------------


TASKS = "digits/mlp --trials 3 --seeds 2 --epochs 3 --confirm-seeds 2 --execution fused"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Everything up, two workers, and the sweep come to its end."""
    with project(tmp_path_factory.mktemp("compose"), made_secrets() | {"LSCAL_TASKS": TASKS}) as started:
        for name in started.services:
            started.up(name, scale=2 if name == "worker" else 1)
        started.ended("sweep")
        yield started


def ask(
    address: str, method: str = "GET", who: tuple[str, str] | None = None, content: Any = None, **headers: str
) -> tuple[int, str]:
    """Status and body of an answer."""
    given = {"Content-Type": "application/json", **headers}
    if who:
        given["Authorization"] = "Basic " + base64.b64encode(":".join(who).encode()).decode()
    request = urllib.request.Request(
        f"http://{address}", content and json.dumps(content).encode(), given, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_sweep_is_trained_by_the_workers_and_its_epsilon_is_served(running: Project) -> None:
    said = running.log("sweep-1").read_text()
    assert "Recommended ε for digits/mlp:" in said
    for name in ("postgres", "mlflow", "dashboard", "api"):
        running.healthy(name)
    status, epsilon = ask(f"{running.address('api')}/v1/tasks/digits/mlp/recommendation", Accept="text/plain")
    assert status == 200
    assert f"Recommended ε for digits/mlp: {float(epsilon):g} " in said
    assert ask(f"{running.address('api')}/v1/tasks/digits/mlp/page")[0] == 200
    studies = json.loads(ask(f"{running.address('dashboard')}/api/studies")[1])
    assert "digits/mlp@" in json.dumps(studies)
    joined = [
        replica
        for replica in running.processes
        if replica.startswith("worker-") and "joined digits/mlp@" in running.log(replica).read_text()
    ]
    assert joined


def test_links_of_the_sweep_open_on_the_host(running: Project) -> None:
    links = re.findall(r"http://([^/\s]+)/#/experiments", running.log("sweep-1").read_text())
    assert links == [running.address("mlflow")]


def test_mlflow_asks_who_is_there_and_lets_the_api_only_read(running: Project) -> None:
    server = f"{running.address('mlflow')}/api/2.0/mlflow"
    api, sweeps = (
        ("api", running.variables["MLFLOW_API_PASSWORD"]),
        ("sweeps", running.variables["MLFLOW_SWEEPS_PASSWORD"]),
    )
    search = f"{server}/experiments/search?max_results=9"
    assert [ask(search)[0], ask(search, who=("api", "wrong password"))[0], ask(search, who=api)[0]] == [
        401,
        401,
        200,
    ]
    assert ask(search, who=api, Host="rebound.example")[0] == 403
    (experiment,) = [
        one for one in json.loads(ask(search, who=api)[1])["experiments"] if one["name"] == "digits/mlp"
    ]
    tag = {"experiment_id": experiment["experiment_id"], "key": "a", "value": "b"}
    assert [
        ask(f"{server}/experiments/set-experiment-tag", "POST", who, tag)[0] for who in (api, sweeps)
    ] == [403, 200]
    alias = {"name": "digits--mlp", "alias": "recommended", "version": "1"}
    assert [ask(f"{server}/registered-models/alias", "POST", who, alias)[0] for who in (api, sweeps)] == [
        403,
        200,
    ]
    user = {"username": "other", "password": "a long enough password"}
    assert ask(f"{server}/users/create", "POST", sweeps, user)[0] == 403


def test_the_dashboard_can_change_nothing(running: Project) -> None:
    address = running.address("dashboard")
    before = ask(f"{address}/api/studies")[1]
    for number in [one["study_id"] for one in json.loads(before)["study_summaries"]]:
        assert ask(f"{address}/api/studies/{number}", "DELETE")[0] == 500
    assert (
        ask(f"{address}/api/studies", "POST", content={"study_name": "x", "directions": ["minimize"]})[0]
        == 500
    )
    assert ask(f"{address}/api/studies")[1] == before


@pytest.mark.parametrize(
    ("role", "database"),
    [("dashboard", "mlflow"), ("optuna", "mlflow"), ("optuna", "mlflow_users"), ("mlflow", "optuna")],
)
def test_a_role_cannot_enter_the_databases_of_others(running: Project, role: str, database: str) -> None:
    variable = {"mlflow": "MLFLOW_DATABASE_PASSWORD"}.get(role, f"{role.upper()}_PASSWORD")
    address = {
        "host": "127.0.0.1",
        "port": running.ports["5432"],
        "user": role,
        "password": running.variables[variable],
    }
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(**address, dbname=database)  # type: ignore[arg-type]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**{**address, "password": "wrong"}, dbname=database)  # type: ignore[arg-type]


def test_no_secret_is_among_the_arguments_of_a_process(running: Project) -> None:
    seen = [
        Path(f"/proc/{process.pid}/cmdline").read_text()
        for process in running.processes.values()
        if process.poll() is None
    ]
    assert len(seen) >= 5
    assert not any(running.variables[name] in line for name in SECRETS for line in seen)


def test_all_ends_when_it_is_told_to(running: Project) -> None:
    """Comes last: nothing runs afterwards."""
    began = time.monotonic()
    codes = running.down()
    assert {name: codes[name] for name in codes if name.startswith("worker")} == {
        "worker-1": 130,
        "worker-2": 130,
    }
    assert time.monotonic() - began < 30
