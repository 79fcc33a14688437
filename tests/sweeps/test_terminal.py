"""The console: text for people, and one line of JSON per event."""

import json
import math
import re
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path

import pytest

from sweeps import terminal
from sweeps.terminal import Console
from tracking.report.summary import Table

TABLE = Table("Trials", ("ε", "accuracy %"), (("0", "97.1"), ("0.1", "97.4")))
HOSTILE = 'a\nb\r\x1b[31mred\x1b[0m\u2028\u0085"\\ [bold]ε\ud800'


def events(captured):
    """The events on stderr: each line one, in ASCII; nothing on stdout."""
    assert captured.out == ""
    lines = captured.err.split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(captured.err.splitlines())
    assert all(line.isascii() and line.isprintable() for line in lines)
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


def test_text_stays_as_it_is(capsys):
    made = Console(to_stderr=False)
    made.say("digits/mlp: [new] study", "bold", event="study", study="x")
    made.table(TABLE, mark="0.1")
    made.warn("go on with: this")
    made.error("no such [task]")
    captured = capsys.readouterr()
    assert (
        captured.out
        == "digits/mlp: [new] study\n\nTrials\n  ε  accuracy %\n  0        97.1\n0.1        97.4\n"
    )
    assert captured.err == "go on with: this\nerror: no such [task]\n"


def test_every_event_is_one_line_of_json(capsys):
    made = Console(to_stderr=False, log_format="json")
    made.say("")
    made.say("new study", "bold", event="study", study="digits/mlp@1", trials=8)
    made.say("ε = 0 diverged", "red")
    made.warn("go on with: this", event="interrupted")
    made.error("no such task")
    found = events(capsys.readouterr())
    assert [(one["level"], one["event"], one["message"]) for one in found] == [
        ("info", "study", "new study"),
        ("warning", "message", "ε = 0 diverged"),
        ("warning", "interrupted", "go on with: this"),
        ("error", "error", "no such task"),
    ]
    assert list(found[0]) == ["time", "level", "event", "message", "study", "trials"]
    assert (found[0]["study"], found[0]["trials"]) == ("digits/mlp@1", 8)
    for one in found:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one["time"])
        assert abs(datetime.fromisoformat(one["time"]).timestamp() - datetime.now().timestamp()) < 60


def test_a_table_is_one_event(capsys):
    Console(to_stderr=False, log_format="json").table(TABLE, mark="0.1")
    (found,) = events(capsys.readouterr())
    assert (found["event"], found["message"], found["header"], found["mark"]) == (
        "table",
        "Trials",
        ["ε", "accuracy %"],
        "0.1",
    )
    assert found["rows"] == [["0", "97.1"], ["0.1", "97.4"]]


def test_no_value_can_break_a_line(capsys):
    values = {
        "a": HOSTILE,
        "b": math.nan,
        "c": [-math.inf, {"x": math.nan, 1: (1, 2)}],
        "d": Path("x"),
        "e": {3},
        "f": None,
        "g": True,
    }
    Console(to_stderr=False, log_format="json").say(
        HOSTILE, event=HOSTILE, **values, level="none", time="none"
    )
    (found,) = events(capsys.readouterr())
    assert (found["message"], found["event"], found["a"]) == (HOSTILE, HOSTILE, HOSTILE)
    assert [found[name] for name in "bcdefg"] == [
        None,
        [None, {"x": None, "1": [1, 2]}],
        "x",
        [3],
        None,
        True,
    ]
    assert found["level"] == "info"
    assert found["time"] != "none"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_progress_is_told_now_and_then_and_at_the_end(log_format, monkeypatch, capsys):
    monkeypatch.setattr(terminal, "PLAIN_SECONDS", 3600)
    with Console(to_stderr=False, log_format=log_format).progress("screening", 30) as advance:
        for _ in range(29):
            advance(1)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(terminal, "PLAIN_SECONDS", 0)
        advance(0)
        advance(1)
    captured = capsys.readouterr()
    if log_format == "text":
        assert re.fullmatch(r"(screening: (29|30) of 30 member-epochs, about 0 s left\n){2}", captured.err)
    else:
        assert [(one["event"], one["what"], one["done"], one["total"]) for one in events(captured)] == [
            ("progress", "screening", 29, 30),
            ("progress", "screening", 30, 30),
        ]


def test_events_of_many_threads_do_not_mix(capfd):
    made = Console(to_stderr=False, log_format="json")
    threads = [threading.Thread(target=lambda: [made.say("x" * 2000) for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one["message"] for one in events(capfd.readouterr())} == {"x" * 2000}


def test_what_others_print_becomes_events_too():
    """Given a process that warns, logs, has Optuna log, fails in a thread and crashes, then each of its
    lines is JSON.
    """
    code = (
        "import logging, threading, warnings, optuna\nfrom sweeps.terminal import Console\n"
        "Console(True, 'json').adopt()\nwarnings.warn('two\\nlines')\n"
        "logging.getLogger('some.package').error('it %s', 'failed')\n"
        "optuna.logging.get_logger('optuna.x').warning('of Optuna')\n"
        "thread = threading.Thread(target=lambda: 1 / 0)\nthread.start()\nthread.join()\n"
        "raise ValueError('at last')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert [(one["level"], one["event"]) for one in found] == [
        ("warning", "log"),
        ("error", "log"),
        ("warning", "log"),
        ("error", "crash"),
        ("error", "crash"),
    ]
    assert "two\nlines" in found[0]["message"]
    assert [one["message"] for one in found[1:]] == [
        "it failed",
        "of Optuna",
        "ZeroDivisionError: division by zero",
        "ValueError: at last",
    ]
    assert "Traceback" in found[4]["trace"]


def test_without_json_nothing_is_adopted():
    before = sys.excepthook
    Console(to_stderr=True).adopt()
    assert sys.excepthook is before
