"""What SECURITY.md promises: nothing is unpickled, nothing listens beyond loopback untold, and hostile names
stay names.
"""

import ast
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import torch
from made import evidence
from published import free_port, made, publish

from sweeps.data.load import load
from sweeps.errors import WrongInput
from sweeps.settings import resolve, site_of
from sweeps.studies.opening import SETTINGS, join_study, open_study
from sweeps.studies.retrying_storage import open_storage
from sweeps.training.autotune import choose
from tracking.mlflow import registry, versions
from tracking.mlflow.client import TrackingUnavailable
from tracking.mlflow.versions import NotPublished, Version
from tracking.names import WrongName
from tracking.outbox.outbox import RECORD, Damaged, Outbox, OutboxEntry, Record
from tracking.records.about import About
from tracking.records.inputs import Inputs
from tracking.records.outcome import Facts

ROOT = Path(__file__).parents[1]
SOURCES = [
    path
    for name in ("lscal", "sweeps", "tracking", "deploy", "examples", "benchmarks")
    for path in (ROOT / name).rglob("*.py")
]
HOSTILE = [
    "..",
    "../..",
    "../../etc/passwd",
    "/etc/passwd",
    "digits/../../etc",
    "%2e%2e/%2e%2e",
    "..%2fmlp",
    "digits\\..\\mlp",
    "digits/mlp\n",
    "digits/mlp\0",
    "digits/mlp' OR '1'='1",
    'digits/"mlp"',
    "digits/`mlp`",
    "digits/mlp; DROP TABLE studies",
    "<script>alert(1)</script>/mlp",
    "{{7*7}}/${7*7}",
    "digits/\x1b]0;title\x07",
    "digits/m\u202elp",
    "d" * 5000 + "/mlp",
    "os:system",
    "package.module:function/mlp",
    "",
]


# ---- Nothing from outside is run
# -------------------------------------------------------------------------------------


UNPICKLERS = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "shelve",
    "marshal",
    "jsonpickle",
}
CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "yaml.load_all",
    "torch.load",
    "torch.jit.load",
    "torch.export.load",
    "numpy.load_pickle",
    "pandas.read_pickle",
    "pd.read_pickle",
    "runpy.run_path",
    "runpy.run_module",
}
OWN_MODULES = {
    "lscal/__init__.py": "lscal.",
    "sweeps/data/builtin/__init__.py": "{__name__}",
    "sweeps/models/builtin/__init__.py": "{__name__}",
}
"""Where a module is imported by a name that is put together: of our own packages alone."""
BROUGHT = {"sweeps/data/readers/python_source.py": "module"}
"""Where a person's own code is imported, which the command line names."""
COMMANDS = {"lscal/__main__.py": "module"}
"""Where a module of a table of our own commands is imported."""


def called(node: ast.Call) -> str:
    """The dotted name of what is called, "" where it has none."""
    return ast.unparse(node.func) if isinstance(node.func, (ast.Name, ast.Attribute)) else ""


def findings(path: Path) -> Iterator[str]:
    """What in a file could run what comes from outside."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (f"imports {name}" for name in names if name.partition(".")[0] in UNPICKLERS)
        if not isinstance(node, ast.Call):
            continue
        name, given = called(node), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in CALLS or name.endswith((".load_model", ".unpickle")):
            yield f"calls {name}"
        if (
            given.get("shell", "False") != "False"
            or given.get("allow_pickle", "False") != "False"
            or given.get("weights_only", "True") != "True"
        ):
            yield f"calls {name} with {given}"
        if name.endswith("Environment") and "loader" in given and given.get("autoescape") != "True":
            yield f"makes an {name} which does not escape"
        if name.endswith("import_module") and not isinstance(node.args[0], ast.Constant):
            own = OWN_MODULES.get(path.relative_to(ROOT).as_posix())
            given_by_a_person = (BROUGHT | COMMANDS).get(path.relative_to(ROOT).as_posix()) == ast.unparse(
                node.args[0]
            )
            if not given_by_a_person and (
                own is None or not ast.unparse(node.args[0]).startswith(f"f'{own}")
            ):
                yield f"imports {ast.unparse(node.args[0])}"
        if (
            name.endswith(("sqlalchemy.text", ".execute"))
            and node.args
            and isinstance(node.args[0], ast.JoinedStr)
        ):
            yield f"puts together SQL: {ast.unparse(node.args[0])}"


def test_nothing_in_the_source_can_unpickle_or_run_what_it_reads() -> None:
    assert len(SOURCES) > 100
    assert {str(path.relative_to(ROOT)): found for path in SOURCES if (found := list(findings(path)))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(f)",
        "numpy.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=trusted)",
        "yaml.load(f)",
        "eval(text)",
        "subprocess.run(c, shell=True)",
        "mlflow.pytorch.load_model(uri)",
        "importlib.import_module(study.user_attrs['code'])",
        "Environment(loader=x)",
        "connection.execute(f'SELECT {name}')",
    ],
)
def test_the_scan_finds_what_it_looks_for(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "x.py").write_text(source)
    assert len(list(findings(tmp_path / "x.py"))) == 1


@pytest.fixture
def studies(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A database with an open sweep, and the sweep's name."""
    url = f"sqlite:///{tmp_path}/optuna.db"
    storage = open_storage(url)
    plan = resolve({"trials": 2, "seeds": 1, "epochs": 1})
    study, _ = open_study(storage, plan, plan.tasks[0], load("digits").digest)
    yield url, study.name
    storage.engine.dispose()


PLANTED = [
    {"tasks": [{"task": "planted:run/mlp"}]},
    {"tasks": [{"task": "planted/run"}]},
    {"tasks": [{"task": "digits/mlp", "architecture": "planted:run"}]},
    {"tasks": [{"task": "digits/mlp", "augment": ["planted:run"]}]},
    {"plugins": ["planted:run"]},
    {"policy": "planted:run"},
    {"smoothing": "planted.run"},
    {"launch": "planted:run"},
    {"datasets": {"digits": {"source": "planted:run"}}},
    {"datasets": {"brought": {"source": "planted:run"}}},
    {"architectures": {"mlp": "planted:run"}},
    {"architectures": {"brought": "planted:run"}},
    {"start_from": "planted.safetensors"},
]
OF_EACH_MACHINE = {"launch", "datasets", "architectures", "start_from"}


@pytest.mark.usefixtures("unchecked")
def test_code_which_a_study_names_is_not_imported(
    studies: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Given a module on a worker's path that tells when it is imported, and a study whose plan names it
    wherever a plan has names.
    """
    from sweeps.cli.worker import main

    url, name = studies
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "planted.py").write_text(
        f"open({str(tmp_path / 'was imported')!r}, 'w')\ndef run(*_): pass\n"
    )
    storage = open_storage(url)
    study = optuna.load_study(study_name=name, storage=storage)
    settings = study.user_attrs[SETTINGS]
    for changed in PLANTED:
        study.set_user_attr(SETTINGS, {**settings, **changed})
        if changed.keys() & OF_EACH_MACHINE:  # not read
            task = join_study(storage, name, {}).task
            assert (task.loader, task.network, task.start_from) == (None, None, None)
            continue
        with pytest.raises(WrongInput):  # an augmentation is read where a way of training is chosen
            choose(
                join_study(storage, name, {}).task,
                load("digits"),
                ("uniform",),
                torch.device("cpu"),
                1,
                "fused",
            )
    study.set_user_attr(SETTINGS, {**settings, **PLANTED[0]})
    storage.engine.dispose()
    assert main(["--study", name, "--storage", url, "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]) == 2
    assert "\nerror: no dataset named 'planted:run'" in capfd.readouterr().err
    assert not (tmp_path / "was imported").exists()


def test_a_study_does_not_say_where_a_worker_sends_or_writes(
    studies: tuple[str, str], tmp_path: Path
) -> None:
    """A worker has credentials of MLflow in its environment: a study must not name the server that gets
    them, nor a folder.
    """
    url, name = studies
    storage = open_storage(url)
    study = optuna.load_study(study_name=name, storage=storage)
    elsewhere = {
        "tracking_uri": "http://evil.example",
        "storage": "sqlite:////tmp/evil.db",
        "state_dir": "/etc",
        "data_dir": "/",
        "device": "cuda:7",
    }
    study.set_user_attr(SETTINGS, {**study.user_attrs[SETTINGS], **elsewhere})
    own = {"tracking_uri": "sqlite:///mine.db", "storage": url, "state_dir": str(tmp_path)}
    plan = join_study(storage, name, own).plan
    assert vars(plan).keys() & elsewhere.keys() == set()
    storage.engine.dispose()


# ---- Nothing listens beyond loopback untold
# --------------------------------------------------------------------------


def listening(pid: int) -> set[str]:
    """The addresses at which a process listens, as hexadecimal digits of /proc/net/tcp and tcp6 tell them."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(link))
        except FileNotFoundError:  # closed meanwhile
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            local, state, inode = (line.split()[place] for place in (1, 3, 9))
            if state == "0A" and f"socket:[{inode}]" in inodes:
                found.add(local.partition(":")[0])
    return found


LOOPBACK, EVERYWHERE = "0100007F", "00000000"


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux")
@pytest.mark.parametrize(
    ("command", "address"),
    [
        (["tracking.serve", "--port", "{port}"], LOOPBACK),
        (["tracking.serve", "--port", "{port}", "--host", "0.0.0.0"], EVERYWHERE),
        (["sweeps.worker", "--metrics-port", "{port}"], LOOPBACK),
    ],
    ids=["api", "api told", "worker"],
)
def test_our_processes_listen_on_loopback_unless_told(
    command: list[str], address: str, tmp_path: Path
) -> None:
    words = [word.format(port=free_port()) for word in command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words], cwd=tmp_path, env=environment, stdout=log, stderr=log
        )
    try:
        found: set[str] = set()
        for _ in range(600):
            if process.poll() is not None or (found := listening(process.pid)):
                break
            time.sleep(0.1)
        assert found == {address}, (tmp_path / "log").read_text()
    finally:
        process.terminate()
        process.wait(30)


# ---- Hostile names
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_task_is_no_task(name: str) -> None:
    with pytest.raises(WrongName):
        versions.model_of(name)
    for tasks in ([name], [{"task": name}]):
        with pytest.raises(WrongInput):
            resolve({"tasks": tasks})
    with pytest.raises(WrongInput):
        load(name)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "key",
    [
        "policy",
        "smoothing",
        "execution",
        "precision",
        "launch",
        "optimiser",
        "epsilon",
        "tune",
        "tolerances",
        "prices",
        "trials",
    ],
)
def test_hostile_values_of_a_plan_are_refused(key: str) -> None:
    for name in HOSTILE:
        with pytest.raises(WrongInput):
            resolve({key: name}), site_of({key: name})
        with pytest.raises(WrongInput, match="plan key"):
            resolve({f"x{name}": 1})


FOUND = made()
TAGS = {
    "task": "digits/mlp",
    "policy": "safe",
    "run_id": "0f" * 16,
    "created": FOUND.created,
    "recommendation.safe": "{}",
}


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_version_with_a_hostile_tag_is_none(name: str) -> None:
    assert Version.of(1, TAGS, True) is not None
    for key in ("task", "run_id", "created"):
        assert Version.of(1, {**TAGS, key: name}, True) is None, key
    assert Version.of(1, {**TAGS, "policy": name, f"recommendation.{name}": "{}"}, True) is None


@pytest.mark.filterwarnings("ignore:.*filesystem.*")
def test_hostile_names_reach_no_file_and_no_row_of_the_tracking_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a real store with one recommendation and a file beside it, when hostile names are asked for, then
    neither is given away.
    """
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri, uri)
    _, run_id = publish(client, FOUND)
    (tmp_path / "canary.json").write_text("canary")
    assert registry.artifact(client, run_id, f"{versions.folder_of(FOUND.created)}/evidence.json") is not None
    escapes = [
        "../../../canary.json",
        "../" * 9 + str(tmp_path).lstrip("/") + "/canary.json",
        f"{tmp_path}/canary.json",
        "%2e%2e/canary.json",
        "a\0b",
    ]
    for name in [*HOSTILE, *escapes]:
        for run, path in ((run_id, name), (name, "canary.json"), (run_id, f"decisions/{name}/canary.json")):
            try:
                content = registry.artifact(client, run, path)
            except (TrackingUnavailable, ValueError):
                content = None
            assert content is None, (run, path)
        assert versions.params(uri, name) == {}
        with pytest.raises((WrongName, NotPublished)):
            versions.version(uri, name)
        with pytest.raises(NotPublished):
            versions.version(uri, "digits/mlp").recommendation(name or "none")


INPUTS = Inputs({"test": 2}, ("a", "b"), "uint8", (1, 8, 8))
ABOUT = About(
    "digits/mlp", "digits/mlp@00000000", "http://127.0.0.1:5000", Facts({}, {}, "digits", "0", "", ""), INPUTS
)


@pytest.fixture
def entry(tmp_path: Path) -> OutboxEntry:
    """An entry of an outbox, with what a sweep found."""
    outbox = Outbox(tmp_path / "outbox")
    assert outbox.put(
        Record.of_findings(ABOUT, evidence(pictures=False, optional=False), [], None),
        {"overview.png": b"1"},
        pytest.fail,
    )
    (found,) = outbox.entries()
    found.read()
    return found


def rewritten(entry: OutboxEntry, record: dict[str, object], files: dict[str, bytes]) -> OutboxEntry:
    """The entry with other contents."""
    with zipfile.ZipFile(entry.path, "w") as archive:
        archive.writestr(RECORD, json.dumps(record))
        for path, content in files.items():
            archive.writestr(path, content)
    return entry


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/x", "a//x", "a\\..\\x", "a\n", "<script>", "..", ".", "a/.", "é/../x"],
    ids=ascii,
)
def test_an_entry_of_the_outbox_names_no_file_outside(entry: OutboxEntry, path: str) -> None:
    with zipfile.ZipFile(entry.path) as archive:
        record = json.loads(archive.read(RECORD))
    rewritten(entry, record, {f"files/{path}": b"x"})
    with pytest.raises(Damaged):
        entry.read()


def test_an_entry_of_the_outbox_with_hostile_names_is_damaged(entry: OutboxEntry) -> None:
    with zipfile.ZipFile(entry.path) as archive:
        record = json.loads(archive.read(RECORD))
    for name in HOSTILE:
        with pytest.raises(Damaged):
            rewritten(entry, {**record, "about": {**record["about"], "task": name}}, {}).read()
    for name in ("a' OR tags.study != '", 'a"', "a`b", "a\nb", "a\0b", "", "a" * 5000):
        for changed in ({**record, "uid": name}, {**record, "about": {**record["about"], "study": name}}):
            with pytest.raises(Damaged):
                rewritten(entry, changed, {}).read()


@pytest.mark.parametrize("name", ["../../x", "/../../x", "..", "<script>", "a\0b"], ids=ascii)
def test_what_becomes_the_name_of_a_file_is_checked_in_an_entry(entry: OutboxEntry, name: str) -> None:
    """The names of policies and the numbers of instances become names of files, on their way to MLflow."""
    with zipfile.ZipFile(entry.path) as archive:
        record = json.loads(archive.read(RECORD))
    found = record["evidence"]
    chosen = found["recommendations"][found["policy"]]
    for changed in (
        {"recommendations": {**found["recommendations"], name: chosen}},
        {"instances": [{**found["instances"][0], "index": name}]},
    ):
        with pytest.raises(Damaged):
            rewritten(entry, {**record, "evidence": {**found, **changed}}, {}).read()


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_only_names_which_an_outbox_gives_are_its_entries(name: str, tmp_path: Path) -> None:
    assert OutboxEntry.of(tmp_path / f"{name}.zip") is None


# ---- What people are told
# --------------------------------------------------------------------------------------------


def test_the_commands_of_security_md_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    for command in ("pip-audit -r requirements.lock", "cyclonedx-py requirements requirements.lock"):
        assert command in text
    for path in re.findall(r"`([\w/.-]+\.(?:py|yml|sql|ini|lock|sh))`", text):
        assert (ROOT / path).exists(), path
