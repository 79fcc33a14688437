"""Exit codes: every command says by one table what the person typed wrongly, and what failed."""

import socket
from pathlib import Path

import pytest
from made import evidence
from mlflow import MlflowClient
from published import made, publish

import lscal.__main__
import lscal.audit.command
import sweeps.cli.check
import sweeps.cli.decide
import sweeps.cli.run
import sweeps.cli.status
import sweeps.cli.train
import sweeps.cli.worker
import tracking.diff
import tracking.recommend
import tracking.replay
import tracking.report.page
import tracking.serve
from tracking.exits import Exit

COMMANDS = {
    "sweeps.run": sweeps.cli.run.main,
    "sweeps.check": sweeps.cli.check.main,
    "sweeps.decide": sweeps.cli.decide.main,
    "sweeps.train": sweeps.cli.train.main,
    "sweeps.status": sweeps.cli.status.main,
    "sweeps.worker": sweeps.cli.worker.main,
    "tracking.recommend": tracking.recommend.main,
    "tracking.diff": tracking.diff.main,
    "tracking.page": tracking.report.page.main,
    "tracking.replay": tracking.replay.main,
    "tracking.serve": tracking.serve.main,
    "lscal.audit": lscal.audit.command.main,
    "lscal": lscal.__main__.main,
}
WRONG = [
    ("lscal", ["nosuch"]),
    ("lscal", ["recommend", "nosuch/task"]),
    ("sweeps.run", ["--nosuch"]),
    ("sweeps.run", ["nosuch/task"]),
    ("sweeps.run", ["digits/translator"]),
    ("sweeps.run", ["--policy", "nosuch"]),
    ("sweeps.run", ["--config", "nosuch.yaml"]),
    ("sweeps.check", ["nosuch/task"]),
    ("sweeps.check", ["--dataset", "nosuch.csv"]),
    ("sweeps.decide", ["--from", "nosuch"]),
    ("sweeps.decide", ["--nosuch"]),
    ("sweeps.train", ["nosuch/task", "--epsilon", "0"]),
    ("sweeps.status", ["--nosuch"]),
    ("sweeps.worker", ["--nosuch"]),
    ("tracking.recommend", ["nosuch/task"]),
    ("tracking.recommend", ["not a name"]),
    ("tracking.recommend", ["digits/mlp", "--policy", "nosuch"]),
    ("tracking.recommend", ["digits/mlp", "--version", "9"]),
    ("tracking.recommend", ["digits/mlp", "--pin", "9"]),
    ("tracking.recommend", ["digits/mlp", "--tracking-uri", "ftp://host/x"]),
    ("tracking.diff", ["nosuch/task", "1", "2"]),
    ("tracking.diff", ["digits/mlp", "1", "9"]),
    ("tracking.diff", ["nosuch.json", "nosuch.json"]),
    ("tracking.diff", ["digits/mlp"]),
    ("tracking.page", ["nosuch.json"]),
    ("tracking.replay", ["--outbox", "nosuch"]),
    ("tracking.serve", ["--tracking-uri", "ftp://host/x"]),
    ("lscal.audit", ["nosuch.npz"]),
    ("lscal.audit", ["--nosuch"]),
]


def code(command, words):
    """The exit code, whichever way it comes."""
    try:
        return COMMANDS[command](words)
    except SystemExit as stop:
        return stop.code


def test_the_table():
    assert {one.name: int(one) for one in Exit} == {
        "DONE": 0,
        "FAILED": 1,
        "WRONG_INPUT": 2,
        "GATE": 3,
        "INTERRUPTED": 130,
    }


def test_what_was_typed_wrongly_is_2(uri, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    publish(MlflowClient(uri, uri), made())
    found = {(command, *words): code(command, words) for command, words in WRONG}
    assert found == dict.fromkeys(found, Exit.WRONG_INPUT)
    assert "Traceback" not in capsys.readouterr().err
    assert {command for command, _ in WRONG} == set(COMMANDS)
    assert code("tracking.recommend", ["digits/mlp"]) == Exit.DONE


@pytest.mark.parametrize("words", [["digits/mlp"], ["digits/mlp", "--history"], ["digits/mlp", "--json"]])
def test_a_store_which_is_away_or_cannot_be_read_is_1(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert code("tracking.recommend", words) == Exit.FAILED  # there is no file
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    assert code("tracking.recommend", words) == Exit.FAILED
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"  # nobody listens
        assert code("tracking.recommend", [*words, "--tracking-uri", address]) == Exit.FAILED
        assert code("tracking.diff", ["digits/mlp", "1", "2", "--tracking-uri", address]) == Exit.FAILED


def test_a_page_which_cannot_be_written_is_1(tmp_path):
    (tmp_path / "evidence.json").write_text(evidence(pictures=False).to_json())
    (tmp_path / "file").touch()
    assert (
        code("tracking.page", [str(tmp_path / "evidence.json"), "--out", str(tmp_path / "file" / "pages")])
        == Exit.FAILED
    )


def test_others_have_the_numbers_of_the_table():
    """lscal may not import tracking; its own agree."""
    for module in (lscal.audit.command, sweeps.cli.run, sweeps.cli.status):
        for name in ("DONE", "FAILED", "WRONG_INPUT", "INTERRUPTED"):
            assert getattr(module, name, Exit[name]) == Exit[name], (module.__name__, name)


def test_every_command_is_here():
    root = Path(__file__).parents[2]
    mains = {
        path
        for package in ("lscal", "sweeps", "tracking")
        for path in (root / package).rglob("*.py")
        if "\ndef main(" in path.read_text()
    }
    assert mains == {root / f"{main.__module__.replace('.', '/')}.py" for main in COMMANDS.values()}
