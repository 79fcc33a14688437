"""What is in an outbox arrives in MLflow once and complete, whatever dies on the way: real servers, killed
and started again.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from entries import FOUND, LOGITS, about, filled, findings, trial
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from published import free_port

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
    """A real MLflow server that can be killed and started again, at the same address with the same
    database.
    """

    def __init__(self, folder, database):
        self.folder, self.port, self.running = folder, free_port(), None
        self.address = f"http://127.0.0.1:{self.port}"
        self.database = shutil.copy(database, folder / "server.db")

    def start(self):
        """Return when it answers."""
        where = [
            "--backend-store-uri",
            f"sqlite:///{self.database}",
            "--artifacts-destination",
            str(self.folder / "artifacts"),
        ]
        self.running = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mlflow",
                "server",
                *where,
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
                "--workers",
                "1",
            ],
            env={
                **os.environ,
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            start_new_session=True,
        )
        for _ in range(600):
            with suppress(TrackingAway):
                return reach(self.address)
            time.sleep(0.1)
        raise AssertionError("the server does not start")

    def kill(self):
        """SIGKILL, also of its children."""
        if self.running:
            os.killpg(self.running.pid, signal.SIGKILL)
            self.running.wait()
            self.running = None


@pytest.fixture
def server(tmp_path, initialised):
    there = Server(tmp_path, initialised)
    yield there
    there.kill()


@contextmanager
def replaying(folder, uri, *flags):
    """A process of the command."""
    command = [
        sys.executable,
        "-m",
        "tracking.replay",
        "--outbox",
        str(folder),
        "--tracking-uri",
        uri,
        *flags,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def runs(client, where="tags.role = 'trial'"):
    return client.search_runs([client.get_experiment_by_name(FOUND.task).experiment_id], where)


def everything(client):
    """All that MLflow knows of the sweep, as plain values."""
    return sorted(
        (
            run.info.run_id,
            run.info.run_name,
            run.info.status,
            run.info.start_time,
            run.info.end_time,
            dict(run.data.params),
            dict(run.data.tags),
            {
                key: [(point.timestamp, point.step, point.value) for point in history(client, run, key)]
                for key in run.data.metrics
            },
            sorted(one.dataset.name for one in run.inputs.dataset_inputs),
        )
        for run in runs(client, "")
    )


def history(client, run, key):
    return client.get_metric_history(run.info.run_id, key)


def whole(client, trials):
    """That there is one complete run for each trial, with its file, below one parent."""
    found, (parent,) = runs(client), runs(client, "tags.role = 'sweep'")
    assert sorted(run.data.tags["uid"] for run in found) == sorted(
        trial(number, "http://h").uid for number in range(trials)
    )
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
def test_a_server_that_is_killed_while_it_is_sent_to_gets_the_rest_when_it_is_back_and_nothing_twice(
    server, tmp_path, capsys
):
    outbox = filled(tmp_path / "box", server.address, trials=4, size=3_000_000)
    outbox.put(findings(server.address), {"overview.png": b"a picture"}, print)
    server.start()
    with replaying(outbox.folder, server.address) as replay:
        assert "sent: screen trial 0 of digits/mlp" in replay.stdout.readline()
        deadline = time.monotonic() + 20
        while not half_uploaded(server) and time.monotonic() < deadline:
            time.sleep(0.002)
        server.kill()
        output, _ = replay.communicate(timeout=60)
    assert replay.returncode == 1
    assert "does not answer" in output
    left = outbox.count()
    assert 2 <= left <= 4
    assert f"{left} entries" in output
    copy = Path(shutil.copytree(outbox.folder, tmp_path / "copy"))
    server.start()
    assert main(["--outbox", str(outbox.folder), "--tracking-uri", server.address]) == 0
    output = capsys.readouterr().out
    assert output.count("sent: ") == left
    assert "sent: recommendation for digits/mlp" in output
    whole(MlflowClient(server.address, server.address), 4)
    database = MlflowClient(f"sqlite:///{server.database}")  # a thousand questions, which take long over HTTP
    before = everything(database)
    shutil.copytree(copy, outbox.folder, dirs_exist_ok=True)
    assert main(["--outbox", str(outbox.folder), "--tracking-uri", server.address]) == 0
    assert everything(database) == before
    assert [one.number for one in versions.history(server.address, FOUND.task)] == [1]


def half_uploaded(server):
    """Whether a second trial's file has begun to arrive."""
    return len(list((server.folder / "artifacts").rglob("select.npz"))) >= 2


def test_three_replays_leave_the_same_as_one(client, uri, tmp_path):
    once = filled(tmp_path / "box", uri, trials=2)
    once.put(findings(uri), {"overview.png": b"a picture"}, print)
    states = []
    for _ in range(3):
        again = shutil.copytree(once.folder, tmp_path / "again", dirs_exist_ok=True)
        assert main(["--outbox", str(again), "--tracking-uri", uri]) == 0
        states.append(everything(client))
    assert states[0] == states[1] == states[2]
    found, parent = whole(client, 2)
    for run in found:
        outcome = trial(int(run.data.tags["uid"].rpartition("#")[2]), uri).outcome
        assert run.info.end_time == 1000 * datetime.fromisoformat(outcome.finished).timestamp()
        assert run.info.end_time - run.info.start_time == int(1000 * outcome.seconds)
    (version,) = versions.history(uri, FOUND.task)
    assert version.run_id == parent.info.run_id == version.recommendation().run_id
    kept = Evidence.from_json(
        Path(client.download_artifacts(parent.info.run_id, "evidence.json")).read_text()
    )
    assert kept.run_id == parent.info.run_id
    assert {one.run_id for one in kept.recommendations.values()} == {parent.info.run_id}


def forked(work):
    """A process that does this. MLflow is imported already; the parent uses the store only after this: a
    connection is no thing to share.
    """
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            work()
        os._exit(0)
    return child


def test_two_senders_at_once_and_one_killed_in_the_middle(uri, tmp_path):
    outbox = filled(tmp_path / "box", uri, trials=6, size=2_000_000)
    outbox.put(findings(uri), {}, print)
    arguments = ["--outbox", str(outbox.folder), "--tracking-uri", uri]
    first, second = (forked(lambda: main(arguments)) for _ in range(2))
    while outbox.count() > 4:
        time.sleep(0.005)
    time.sleep(0.05)
    os.kill(first, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == -signal.SIGKILL
    os.waitpid(second, 0)
    assert outbox.entries() == []
    whole(MlflowClient(uri, uri), 6)


STEPS = ["create_run", "log_inputs", "log_batch", "log_artifacts", "set_tag", "set_terminated"]


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_was_left_after_any_step_is_completed(uri, tmp_path, step):
    outbox = filled(tmp_path / "box", uri, trials=1)
    arguments = ["--outbox", str(outbox.folder), "--tracking-uri", uri]
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
        main(arguments)

    assert os.waitstatus_to_exitcode(os.waitpid(forked(die_after_it), 0)[1]) == -signal.SIGKILL
    client = MlflowClient(uri, uri)
    assert outbox.count() == 1
    assert [complete(run) for run in runs(client)] == [step == "set_terminated"]
    assert main(arguments) == 0
    whole(client, 1)


def test_writers_which_begin_at_once_leave_one_parent_and_one_run_per_trial(client, uri):
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


def test_publishing_joins_two_parents_and_removes_what_is_double(client, uri, tmp_path):
    sweep = SweepRuns(client, about(uri))
    sweep.trial(trial(0, uri).outcome, {LOGITS: bytes(1000)}, {})
    other = client.create_run(sweep.experiment, tags={"study": FOUND.study, "role": "sweep"})
    half = {"study": FOUND.study, "role": "trial", "mlflow.parentRunId": other.info.run_id}
    client.create_run(sweep.experiment, tags={**half, "uid": trial(0, uri).uid})
    client.create_run(sweep.experiment, tags={**half, "uid": "lone"})
    Outbox(tmp_path / "box").put(findings(uri), {}, print)
    assert main(["--outbox", str(tmp_path / "box"), "--tracking-uri", uri]) == 0
    (parent,) = runs(client, "tags.role = 'sweep'")
    assert parent.info.status == "FINISHED"
    assert {
        run.data.tags["uid"]: (run.data.tags["mlflow.parentRunId"], complete(run)) for run in runs(client)
    } == {
        trial(0, uri).uid: (parent.info.run_id, True),
        "lone": (parent.info.run_id, False),
    }
    assert len(runs(client)) == 2


def test_artifacts_which_come_after_the_numbers_are_added(client, uri, tmp_path):
    outbox = Outbox(tmp_path)
    for files in ({}, {LOGITS: bytes(1000)}, {}):
        outbox.put(trial(0, uri), files, print)
        assert main(["--outbox", str(tmp_path), "--tracking-uri", uri]) == 0
    whole(client, 1)


def test_a_damaged_entry_and_one_which_the_server_refuses_do_not_hold_up_the_others(
    client, uri, tmp_path, capsys
):
    outbox = filled(tmp_path, uri, trials=3)
    damaged = outbox.entries()[0]
    damaged.path.write_bytes(b"PK" + bytes(100))
    bad = trial(5, uri)
    outbox.put(
        replace(bad, outcome=replace(bad.outcome, seeds=(), metrics={"select/accuracy": ()})), {}, print
    )
    outbox.put(findings(uri), {}, print)
    assert main(["--outbox", str(tmp_path), "--tracking-uri", uri]) == 1
    output = capsys.readouterr().out
    assert "NOT sent: an entry" in output
    assert f"damaged and set aside: {tmp_path / damaged.path.stem}.damaged" in output
    assert "NOT sent: screen trial 5" in output
    assert "sent: recommendation" in output
    assert "1 entry (" in output
    assert {run.data.tags["uid"] for run in runs(client)} == {trial(1, uri).uid, trial(2, uri).uid}


def test_what_was_found_waits_for_its_trials_in_another_sender(client, uri, tmp_path):
    outbox = filled(tmp_path, uri, trials=1)
    outbox.put(findings(uri), {}, print)
    sender = Sender(outbox, uri, lambda _: {})
    with outbox.claim(outbox.entries()[0]):
        assert sender.step() is None
    assert [sender.step().what for _ in range(2)] == [
        "screen trial 0 of digits/mlp at ε = 0",
        "recommendation for digits/mlp",
    ]


def test_what_is_put_while_it_is_followed_is_sent_and_at_the_end_all_that_can_be(client, uri, tmp_path):
    outbox, lines, waits = Outbox(tmp_path / "box"), [], []

    def stop(seconds):
        """A sweep: it puts a trial whenever the last one is sent, and one more while it ends."""
        waits.append(seconds)
        if outbox.count() == 0:
            outbox.put(trial(len(lines), uri), {LOGITS: bytes([len(lines)]) * 1000}, print)
        return len(lines) == 3

    follow(outbox, uri, lambda _: {}, stop, lines.append)
    assert outbox.count() == 0
    assert [line[: len("sent: screen trial 0")] for line in lines] == [
        f"sent: screen trial {number}" for number in range(4)
    ]
    assert set(waits) == {0.0}
    whole(client, 4)


def test_a_follower_draws_while_mlflow_is_away_and_asks_less_and_less_often(tmp_path):
    uri, lines = f"http://127.0.0.1:{free_port()}", []
    outbox = filled(tmp_path, uri, trials=2)
    outbox.put(findings(uri), {}, print)
    follower = Follower(
        outbox, uri, lambda record: {"a.png": record.uid.encode()}, say=lines.append, idle=lambda: False
    )
    assert [follower.step() for _ in range(3)] == [0.0] * 3
    assert 0 < follower.step() <= 1.0
    assert [entry.read()[1].get("a.png") for entry in outbox.entries()] == [
        *(trial(number, uri).uid.encode() for number in range(2)),
        None,
    ]
    follower.ask_at_once()
    assert 1.0 < follower.step() <= 2.0
    assert len(lines) == 1
    assert lines[0].startswith("waiting for MLflow: ")


def test_following_ends_when_a_file_is_there_and_all_is_sent(client, uri, tmp_path, capsys):
    filled(tmp_path / "box", uri, trials=2)
    (tmp_path / "done").touch()
    command = ["--outbox", str(tmp_path / "box"), "--tracking-uri", uri, "--follow", "--stop-file"]
    assert main([*command, str(tmp_path / "done")]) == 0
    assert capsys.readouterr().out.count("sent: ") == 2
    whole(client, 2)


@pytest.mark.slow
def test_a_server_that_comes_later_gets_all_that_was_and_is_put(server, tmp_path):
    outbox = filled(tmp_path / "box", server.address, trials=1)
    with replaying(outbox.folder, server.address, "--follow") as replay:
        assert replay.stdout.readline().startswith("waiting for MLflow: ")
        server.start()
        assert replay.stdout.readline().startswith("sent: screen trial 0")
        outbox.put(trial(1, server.address), {LOGITS: b"\x01" * 1000}, print)
        assert replay.stdout.readline().startswith("sent: screen trial 1")
        replay.terminate()
        assert "all is sent" in replay.communicate(timeout=60)[0]
    assert replay.returncode == 0
    whole(MlflowClient(server.address, server.address), 2)


def test_entries_for_another_server_are_named_and_not_sent(client, uri, tmp_path, capsys):
    outbox = filled(tmp_path, uri, trials=1)
    filled(tmp_path, "http://other:5000", trials=2)
    assert main(["--outbox", str(tmp_path), "--tracking-uri", uri]) == 1
    output = capsys.readouterr().out
    assert "sent: screen trial 0" in output
    assert "2 more for http://other:5000: not sent, as the tracking store given is sqlite:///" in output
    assert outbox.count() == 2
    assert main(["--outbox", str(tmp_path), "--list"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(
        "1 files  screen trial" in line and line.endswith("for http://other:5000") for line in lines[:2]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--outbox", "nowhere"], "there is no outbox 'nowhere'. Give its folder with --outbox DIR"),
        (["--outbox", "box", "--tracking-uri", "ftp://x"], "allowed are http(s)://host and database URLs"),
        (
            ["--outbox", "box", "--tracking-uri", "sqlite:////nowhere/x.db"],
            "is no folder that can be written",
        ),
    ],
)
def test_wrong_input_ends_with_2_without_mlflow(tmp_path, arguments, message, monkeypatch):
    filled(tmp_path / "box", "sqlite:////nowhere/x.db", trials=1)
    code = (
        "import sys; from tracking.replay import main; code = main(sys.argv[1:]); assert 'mlflow' not in"
        " sys.modules; sys.exit(code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr


def test_away_and_wrong_are_told_apart(tmp_path):
    with pytest.raises(TrackingAway):
        reach(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TrackingAway):
        reach(f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/x")
    (tmp_path / "garbage.db").write_text("this is no database at all, nor will it be one")
    for wrong in (
        "ftp://x",
        "http://[::1",
        "http://127.0.0.1:123456",
        "sqlite:////nowhere/x.db",
        f"sqlite:///{tmp_path}/garbage.db",
    ):
        with pytest.raises(TrackingUnavailable) as raised:
            reach(wrong)
        assert not isinstance(raised.value, TrackingAway), wrong
