"""Entries of an outbox arrive in MLflow once and complete: real servers, killed and started again."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from entries import FOUND, LOGITS, about, filled, findings, trial
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from published import free_port, mlflow_server

from tracking.mlflow import versions
from tracking.mlflow.client import TrackingAway, TrackingUnavailable, reach
from tracking.mlflow.runs import SweepRuns, complete
from tracking.outbox.follow import Follower, follow
from tracking.outbox.outbox import Outbox
from tracking.outbox.sender import ATTEMPTS, Sender
from tracking.records.evidence import Evidence
from tracking.replay import main

ROOT = Path(__file__).parents[2]


class Server:
    """A real MLflow server that can be killed and started again, at one address with one database."""

    def __init__(self, folder, database):
        self.folder, self.port, self.running = folder, free_port(), ExitStack()
        self.address = f"http://127.0.0.1:{self.port}"
        self.database = shutil.copy(database, folder / "server.db")

    def start(self):
        """Return when it answers."""
        store = f"sqlite:///{self.database}"
        self.running.enter_context(mlflow_server(store, self.folder, self.port, signal.SIGKILL))

    def kill(self):
        """SIGKILL, also of its children."""
        self.running.close()


@pytest.fixture
def server(tmp_path, initialised):
    there = Server(tmp_path, initialised)
    yield there
    there.kill()


def flags_of(folder, uri):
    return ["--outbox", str(folder), "--tracking-uri", uri]


def replay(folder, uri, *flags):
    """Exit code of the command, in this process."""
    return main([*flags_of(folder, uri), *flags])


@contextmanager
def replaying(folder, uri, *flags):
    """A process of the command."""
    command = [sys.executable, "-m", "tracking.replay", *flags_of(folder, uri), *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, env=environment, **streams)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def runs(client, where="tags.role = 'trial'"):
    return client.search_runs([client.get_experiment_by_name(FOUND.task).experiment_id], where)


def everything(client):
    """All that MLflow has of the sweep, as plain values."""

    def plain(run):
        points = {
            key: [(point.timestamp, point.step, point.value) for point in history(client, run, key)]
            for key in run.data.metrics
        }
        inputs = sorted(one.dataset.name for one in run.inputs.dataset_inputs)
        return run.info.run_id, dict(run.info), dict(run.data.params), dict(run.data.tags), points, inputs

    return sorted(map(plain, runs(client, "")))


def history(client, run, key):
    return client.get_metric_history(run.info.run_id, key)


def whole(client, trials):
    """Assert that there is one complete run for each trial, with its file, below one parent."""
    found, (parent,) = runs(client), runs(client, "tags.role = 'sweep'")
    uids = [trial(number, "http://h").uid for number in range(trials)]
    assert sorted(run.data.tags["uid"] for run in found) == sorted(uids)
    for run in found:
        number = int(run.data.tags["uid"].rpartition("#")[2])
        outcome = trial(number, "http://h").outcome
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.metrics["select/accuracy"] == pytest.approx(outcome.mean("select/accuracy"), rel=5e-5)
        assert len(history(client, run, "curves/train_loss")) == len(outcome.curves["train_loss"])
        assert len(history(client, run, "select/accuracy")) == 1
        assert len(run.inputs.dataset_inputs) == 3
        folder = Path(client.download_artifacts(run.info.run_id, ""))
        assert set((folder / LOGITS).read_bytes()) == {number}
        assert (folder / "outcome.json").read_text() == outcome.to_json()
    return found, parent


@pytest.mark.slow
def test_a_server_that_is_killed_while_receiving_gets_the_rest_later_and_nothing_twice(
    server, tmp_path, capsys
):
    outbox = filled(tmp_path / "box", server.address, trials=4, size=3_000_000)
    outbox.put(findings(server.address), {"overview.png": b"a picture"}, print)
    server.start()
    with replaying(outbox.folder, server.address) as sending:
        assert "sent: screen trial 0 of digits/mlp" in sending.stdout.readline()
        deadline = time.monotonic() + 20  # until a second trial's file has begun to arrive
        while len([*server.folder.rglob("artifacts/**/select.npz")]) < 2 and time.monotonic() < deadline:
            time.sleep(0.002)
        server.kill()
        output, _ = sending.communicate(timeout=60)
    assert sending.returncode == 1
    assert "does not answer" in output
    left = outbox.count()
    assert 2 <= left <= 4
    assert f"{left} entries" in output
    copy = Path(shutil.copytree(outbox.folder, tmp_path / "copy"))
    server.start()
    assert replay(outbox.folder, server.address) == 0
    output = capsys.readouterr().out
    assert output.count("sent: ") == left
    assert "sent: recommendation for digits/mlp" in output
    whole(MlflowClient(server.address, server.address), 4)
    database = MlflowClient(f"sqlite:///{server.database}")  # a thousand questions, which take long over HTTP
    before = everything(database)
    shutil.copytree(copy, outbox.folder, dirs_exist_ok=True)
    assert replay(outbox.folder, server.address) == 0
    assert everything(database) == before
    assert [one.number for one in versions.history(server.address, FOUND.task)] == [1]


def test_three_replays_leave_the_same_as_one(client, uri, tmp_path):
    once = filled(tmp_path / "box", uri, trials=2)
    once.put(findings(uri), {"overview.png": b"a picture"}, print)
    states = []
    for _ in range(3):
        assert replay(shutil.copytree(once.folder, tmp_path / "again", dirs_exist_ok=True), uri) == 0
        states.append(everything(client))
    assert states[0] == states[1] == states[2]
    found, parent = whole(client, 2)
    for run in found:
        outcome = trial(int(run.data.tags["uid"].rpartition("#")[2]), uri).outcome
        assert run.info.end_time == 1000 * datetime.fromisoformat(outcome.finished).timestamp()
        assert run.info.end_time - run.info.start_time == int(1000 * outcome.seconds)
    (version,) = versions.history(uri, FOUND.task)
    assert version.run_id == parent.info.run_id == version.recommendation().run_id
    path = client.download_artifacts(parent.info.run_id, "evidence.json")
    kept = Evidence.from_json(Path(path).read_text())
    assert kept.run_id == parent.info.run_id
    assert {one.run_id for one in kept.recommendations.values()} == {parent.info.run_id}


def forked(work):
    """A process that does this. The parent uses the store only after it: connections cannot be shared."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            work()
        os._exit(0)
    return child


def test_two_senders_at_once_and_one_killed_in_the_middle(uri, tmp_path):
    outbox = filled(tmp_path / "box", uri, trials=6, size=2_000_000)
    outbox.put(findings(uri), {}, print)
    first, second = (forked(lambda: replay(outbox.folder, uri)) for _ in range(2))
    while outbox.count() > 4:
        time.sleep(0.005)
    time.sleep(0.05)
    os.kill(first, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == -signal.SIGKILL
    os.waitpid(second, 0)
    assert outbox.entries() == []
    whole(MlflowClient(uri, uri), 6)


STEPS = "create_run log_inputs log_batch log_artifacts set_tag set_terminated".split()


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_was_left_after_any_step_is_completed(uri, tmp_path, step):
    outbox = filled(tmp_path / "box", uri, trials=1)
    last = 2 if step in ("create_run", "log_inputs") else 1  # the parent run has these, too

    def die_after_it():
        before, calls = getattr(MlflowClient, step), []

        def killed(*arguments, **named):
            made = before(*arguments, **named)
            calls.append(1)
            if len(calls) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return made

        setattr(MlflowClient, step, killed)
        replay(outbox.folder, uri)

    assert os.waitstatus_to_exitcode(os.waitpid(forked(die_after_it), 0)[1]) == -signal.SIGKILL
    client = MlflowClient(uri, uri)
    assert outbox.count() == 1
    assert [complete(run) for run in runs(client)] == [step == "set_terminated"]
    assert replay(outbox.folder, uri) == 0
    whole(client, 1)


def test_writers_that_begin_at_once_leave_one_parent_and_one_run_per_trial(client, uri):
    """Eight threads with clients of their own, from an empty store; four of them have the same trial."""
    start = threading.Barrier(8)

    def write(number):
        own, record = MlflowClient(uri, uri), trial(number % 2, uri)
        start.wait(30)
        for _ in range(ATTEMPTS):  # as a sender does
            with suppress(MlflowException):
                SweepRuns(own, about(uri)).trial(record.outcome, {LOGITS: bytes([number % 2]) * 1000}, {})
                break

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    SweepRuns(client, about(uri)).tidy()
    whole(client, 2)


def test_of_runs_made_at_once_every_writer_takes_the_same(client, uri):
    sweep = SweepRuns(client, about(uri))
    client.create_run(sweep.experiment, tags={"study": FOUND.study, "uid": "often"})
    for _ in range(6):
        taken = sweep.create("uid = 'often'", "another", {"uid": "often"}, None)
        assert taken.info.run_id == min(run.info.run_id for run in runs(client, "tags.uid = 'often'"))


def test_publishing_joins_two_parents_and_removes_double_runs(client, uri, tmp_path):
    sweep = SweepRuns(client, about(uri))
    sweep.trial(trial(0, uri).outcome, {LOGITS: bytes(1000)}, {})
    other = client.create_run(sweep.experiment, tags={"study": FOUND.study, "role": "sweep"})
    half = {"study": FOUND.study, "role": "trial", "mlflow.parentRunId": other.info.run_id}
    client.create_run(sweep.experiment, tags={**half, "uid": trial(0, uri).uid})
    client.create_run(sweep.experiment, tags={**half, "uid": "lone"})
    Outbox(tmp_path / "box").put(findings(uri), {}, print)
    assert replay(tmp_path / "box", uri) == 0
    (parent,) = runs(client, "tags.role = 'sweep'")
    assert parent.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in runs(client)} == {parent.info.run_id}
    found = sorted((run.data.tags["uid"], complete(run)) for run in runs(client))
    assert found == sorted([(trial(0, uri).uid, True), ("lone", False)])


def test_artifacts_that_come_after_the_numbers_are_added(client, uri, tmp_path):
    outbox = Outbox(tmp_path)
    for files in ({}, {LOGITS: bytes(1000)}, {}):
        outbox.put(trial(0, uri), files, print)
        assert replay(tmp_path, uri) == 0
    whole(client, 1)


def test_a_damaged_entry_and_one_that_the_server_refuses_do_not_hold_up_the_others(
    client, uri, tmp_path, capsys
):
    outbox = filled(tmp_path, uri, trials=3)
    damaged = outbox.entries()[0]
    damaged.path.write_bytes(b"PK" + bytes(100))
    bad = replace(trial(5, uri).outcome, seeds=(), metrics={"select/accuracy": ()})
    outbox.put(replace(trial(5, uri), outcome=bad), {}, print)
    outbox.put(findings(uri), {}, print)
    assert replay(tmp_path, uri) == 1
    output = capsys.readouterr().out
    assert "NOT sent: an entry" in output
    assert f"damaged and set aside: {tmp_path / damaged.path.stem}.damaged" in output
    assert "NOT sent: screen trial 5" in output
    assert "sent: recommendation" in output
    assert "1 entry (" in output
    assert {run.data.tags["uid"] for run in runs(client)} == {trial(1, uri).uid, trial(2, uri).uid}


def test_findings_wait_for_their_trials_in_another_sender(client, uri, tmp_path):
    outbox = filled(tmp_path, uri, trials=1)
    outbox.put(findings(uri), {}, print)
    sender = Sender(outbox, uri, lambda _: {})
    with outbox.claim(outbox.entries()[0]):
        assert sender.step() is None
    sent = [sender.step().what for _ in range(2)]
    assert sent == ["screen trial 0 of digits/mlp at ε = 0", "recommendation for digits/mlp"]


def test_a_follower_sends_entries_as_they_come_and_all_that_are_left_at_the_end(client, uri, tmp_path):
    outbox, lines, waits = Outbox(tmp_path / "box"), [], []

    def stop(seconds):
        """A sweep: it puts a trial whenever the last one is sent, and one more while it ends."""
        waits.append(seconds)
        if outbox.count() == 0:
            outbox.put(trial(len(lines), uri), {LOGITS: bytes([len(lines)]) * 1000}, print)
        return len(lines) == 3

    follow(outbox, uri, lambda _: {}, stop, lines.append)
    assert outbox.count() == 0
    assert [line[:20] for line in lines] == [f"sent: screen trial {number}" for number in range(4)]
    assert set(waits) == {0.0}
    whole(client, 4)


def test_a_follower_draws_while_mlflow_is_away_and_asks_less_and_less_often(tmp_path):
    uri, lines = f"http://127.0.0.1:{free_port()}", []
    outbox = filled(tmp_path, uri, trials=2)
    outbox.put(findings(uri), {}, print)
    drawn = lambda record: {"a.png": record.uid.encode()}  # noqa: E731
    follower = Follower(outbox, uri, drawn, say=lines.append, idle=lambda: False)
    assert [follower.step() for _ in range(3)] == [0.0] * 3
    assert 0 < follower.step() <= 1.0
    pictures = [entry.read()[1].get("a.png") for entry in outbox.entries()]
    assert pictures == [*(trial(number, uri).uid.encode() for number in range(2)), None]
    follower.ask_at_once()
    assert 1.0 < follower.step() <= 2.0
    assert len(lines) == 1
    assert lines[0].startswith("waiting for MLflow: ")


def test_following_ends_when_a_file_is_there_and_all_is_sent(client, uri, tmp_path, capsys):
    filled(tmp_path / "box", uri, trials=2)
    (tmp_path / "done").touch()
    assert replay(tmp_path / "box", uri, "--follow", "--stop-file", str(tmp_path / "done")) == 0
    assert capsys.readouterr().out.count("sent: ") == 2
    whole(client, 2)


@pytest.mark.slow
def test_a_server_that_comes_later_gets_all_that_was_and_is_put(server, tmp_path):
    outbox = filled(tmp_path / "box", server.address, trials=1)
    with replaying(outbox.folder, server.address, "--follow") as sending:
        assert sending.stdout.readline().startswith("waiting for MLflow: ")
        server.start()
        assert sending.stdout.readline().startswith("sent: screen trial 0")
        outbox.put(trial(1, server.address), {LOGITS: b"\x01" * 1000}, print)
        assert sending.stdout.readline().startswith("sent: screen trial 1")
        sending.terminate()
        assert "all is sent" in sending.communicate(timeout=60)[0]
    assert sending.returncode == 0
    whole(MlflowClient(server.address, server.address), 2)


def test_entries_for_another_server_are_named_and_not_sent(client, uri, tmp_path, capsys):
    outbox = filled(tmp_path, uri, trials=1)
    filled(tmp_path, "http://other:5000", trials=2)
    assert replay(tmp_path, uri) == 1
    output = capsys.readouterr().out
    assert "sent: screen trial 0" in output
    assert "2 more for http://other:5000: not sent, as the tracking store given is sqlite:///" in output
    assert outbox.count() == 2
    assert main(["--outbox", str(tmp_path), "--list"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for line in lines[:2]:
        assert "1 files  screen trial" in line
        assert line.endswith("for http://other:5000")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--outbox nowhere", "there is no outbox 'nowhere'. Give its folder with --outbox DIR"),
        ("--outbox box --tracking-uri ftp://x", "allowed are http(s)://host and database URLs"),
        ("--outbox box --tracking-uri sqlite:////nowhere/x.db", "is no folder that can be written"),
    ],
)
def test_wrong_input_ends_with_2_without_mlflow(tmp_path, arguments, message):
    filled(tmp_path / "box", "sqlite:////nowhere/x.db", trials=1)
    code = (
        "import sys; from tracking.replay import main; code = main(sys.argv[1:]); assert 'mlflow' not in"
        " sys.modules; sys.exit(code)"
    )
    around = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "check": False}
    command = [sys.executable, "-c", code, *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, **around)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_store_that_is_away_is_another_error_than_a_wrong_address(tmp_path):
    for away in ("http://127.0.0.1:{}", "postgresql+psycopg://nobody@127.0.0.1:{}/x"):
        with pytest.raises(TrackingAway):
            reach(away.format(free_port()))
    garbage = tmp_path / "garbage.db"
    garbage.write_text("this is no database at all, nor will it be one")
    wrongs = "ftp://x http://[::1 http://127.0.0.1:123456 sqlite:////nowhere/x.db"
    for wrong in (*wrongs.split(), f"sqlite:///{garbage}"):
        with pytest.raises(TrackingUnavailable) as raised:
            reach(wrong)
        assert not isinstance(raised.value, TrackingAway), wrong
