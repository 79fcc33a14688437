"""The outbox on a real disk: what is kept, in which order, within which bound; full disks and damage."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from entries import FOUND, LOGITS, about, filled, findings, trial

from tracking.mlflow.model import ExportedModel
from tracking.outbox.outbox import NAME, Damaged, Outbox, OutboxEntry, Record

URI = "http://127.0.0.1:5000"
HERE = Path(__file__).parents[1]


def command(code, *arguments):
    """The command line of a Python process that has the builders of entries."""
    head = "import os, sys, time\nfrom pathlib import Path\nfrom entries import *\n"
    return [sys.executable, "-c", head + code, *map(str, arguments)]


def python(code, *arguments):
    return subprocess.run(
        command(code, *arguments), cwd=HERE, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("make", [lambda: trial(1, URI), lambda: findings(URI)])
def test_a_record_comes_back_as_it_was(tmp_path, make):
    record, files = make(), {"weights/5.safetensors": b"\x00w", "a b/c-d_e.json": b"{}"}
    outbox = Outbox(tmp_path / "made" / "for" / "it")
    assert outbox.put(record, files, print)
    (entry,) = outbox.entries()
    assert entry.read() == (record, files)


def test_the_program_of_a_model_is_a_file_of_its_own(tmp_path):
    model = ExportedModel("uint8", (1, 8, 8), FOUND.classes, "2.13.0", {"epsilon": "0.1"}, b"program")
    record = Record.of_findings(about(URI), FOUND, [], model)
    outbox = Outbox(tmp_path)
    outbox.put(record, {"model.pt2": model.program}, print)
    (entry,) = outbox.entries()
    found, files = entry.read()
    assert replace(found.model, program=files["model.pt2"]) == model
    with zipfile.ZipFile(entry.path) as archive:
        assert "program" not in json.loads(archive.read("record.json"))["model"]


def test_entries_are_in_the_order_of_time_also_of_several_processes(tmp_path):
    code = "Outbox(Path(sys.argv[1])).put(trial(int(sys.argv[2]), 'http://h'), {}, print)"
    for number in (3, 1, 2):
        assert python(code, tmp_path, number).returncode == 0
    filled(tmp_path, URI, trials=2)
    numbers = [entry.read()[0].outcome.number for entry in Outbox(tmp_path).entries()]
    assert numbers == [3, 1, 2, 0, 1]


def test_nothing_from_outside_is_in_a_name(tmp_path):
    hostile = replace(FOUND.outcomes[0], uid="../../etc/passwd\x00'; DROP", study="/tmp/x")
    outbox = Outbox(tmp_path / "box")
    outbox.put(Record.of_trial(about("http://user:secret@host/../x", "../up"), hostile), {}, print)
    (name,) = os.listdir(tmp_path / "box")
    assert NAME.fullmatch(name)
    assert os.listdir(tmp_path) == ["box"]
    with pytest.raises(Damaged, match="a name in it is none"):
        outbox.entries()[0].read()


@pytest.mark.parametrize("path", ["../up", "/absolute", "a/../../b", "a//b", ".", "a\\b", "a\nb"])
def test_a_path_that_leads_out_is_refused(tmp_path, path):
    outbox = Outbox(tmp_path)
    outbox.put(trial(0, URI), {path: b"x"}, print)
    with pytest.raises(Damaged, match="is no path of an artifact"):
        outbox.entries()[0].read()


def test_passwords_are_not_kept(tmp_path):
    outbox = filled(tmp_path, "http://user:secret@127.0.0.1:5000/")
    assert outbox.entries(URI) == outbox.entries()
    assert b"secret" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert "secret" not in outbox.left("http://user:secret@127.0.0.1:5000/").sentence


def test_a_sqlite_store_is_the_same_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outbox = filled(tmp_path / "box", "sqlite:///mlflow.db")
    monkeypatch.chdir("/")
    assert len(outbox.entries(f"sqlite:///{tmp_path}/mlflow.db")) == 4
    assert outbox.entries("sqlite:///mlflow.db") == []


def test_files_are_found_by_uid(tmp_path):
    filled(tmp_path, URI)
    outbox = Outbox(tmp_path)
    assert outbox.file(trial(2, URI).uid, LOGITS) == b"\x02" * 1000
    assert outbox.file(trial(2, URI).uid, "weights/1") is None
    assert outbox.file("another", LOGITS) is None


def test_unsent_entries_are_counted_with_the_command_that_sends_them(tmp_path):
    outbox = filled(tmp_path, URI, trials=2)
    filled(tmp_path, URI, trials=1, study="digits/mlp@other")
    assert (outbox.count(), outbox.left(URI).entries) == (3, 3)
    assert (outbox.left(URI, FOUND.study).entries, outbox.left("http://h").entries) == (2, 0)
    assert outbox.bytes() == outbox.left(URI).bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert f"python -m tracking.replay --tracking-uri {URI} --outbox {tmp_path}" in outbox.left(URI).sentence
    assert outbox.left("http://h").sentence == ""


def test_a_warning_comes_once_at_nine_tenths_of_the_bound_and_artifacts_are_left_out_beyond_it(tmp_path):
    words = []
    one = len(trial(0, URI).to_json())
    outbox = Outbox(tmp_path, limit=10 * 100_000 + 12 * one + 20_000)
    for number in range(12):
        assert outbox.put(trial(number, URI), {LOGITS: bytes(100_000)}, words.append)
    assert sum("may hold" in line and "left out" in line for line in words) == 1
    assert sum("without its artifacts" in line for line in words) >= 1
    assert outbox.bytes() <= outbox.limit
    contents = [entry.read()[1] for entry in outbox.entries()]
    assert [len(files) for files in contents[:9]] == [1] * 9
    assert contents[-1] == {}
    tiny = Outbox(tmp_path, limit=outbox.bytes() + 10)
    words.clear()
    assert not tiny.put(trial(99, URI), {}, words.append)
    assert "run the same command again to log them" in words[-1]


def test_a_damaged_entry_is_set_aside_and_named(tmp_path):
    outbox = filled(tmp_path, URI)
    first, second, third, fourth = outbox.entries()
    second.path.write_bytes(second.path.read_bytes()[:-30])
    content = bytearray(third.path.read_bytes())
    content[content.index(b"\x02" * 100) + 50] ^= 255
    third.path.write_bytes(content)
    for entry in (second, third):
        with pytest.raises(Damaged, match=entry.path.name[:20]):
            entry.read()
        assert outbox.set_aside(entry).suffix == ".damaged"
    assert outbox.entries() == [first, fourth]
    assert outbox.file(trial(2, URI).uid, LOGITS) is None


def test_one_entry_is_claimed_by_one_process_and_is_free_when_that_dies(tmp_path):
    outbox = filled(tmp_path, URI, trials=2)
    first, second = outbox.entries()
    code = (
        "box = Outbox(Path(sys.argv[1]))\n"
        "with box.claim(box.entries()[0]) as ours: print(ours, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(command(code, tmp_path), cwd=HERE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "True\n"
    with outbox.claim(first) as ours, outbox.claim(second) as other:
        assert (ours, other) == (False, True)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with outbox.claim(first) as ours:
        assert ours
        outbox.delete(first)
        with outbox.claim(first) as again:
            assert not again


def test_an_entry_that_is_deleted_while_it_is_claimed_belongs_to_no_process(tmp_path, monkeypatch):
    outbox = filled(tmp_path, URI, trials=1)
    (entry,) = outbox.entries()
    before = os.open  # by another process, between open and lock
    monkeypatch.setattr(os, "open", lambda *arguments: (before(*arguments), entry.path.unlink())[0])
    with outbox.claim(entry) as ours:
        assert not ours


LIMITED = """
import resource
outbox = Outbox(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
print(outbox.put(trial(7, "http://h"), {LOGITS: bytes(10**6)}, print))
"""


@pytest.mark.parametrize(("limit", "kept"), [(500_000, True), (1000, False)])
def test_a_disk_that_takes_no_more_is_reported_and_stops_nothing(tmp_path, limit, kept):
    done = python(LIMITED, tmp_path, limit)
    *words, result = done.stdout.splitlines()
    assert result == str(kept)
    assert "File too large" in words[0]
    assert "numbers are kept in the study" in words[-1]
    entries = [entry.read() for entry in Outbox(tmp_path).entries()]
    assert [(record.uid, files) for record, files in entries] == [(trial(7, URI).uid, {})] * kept
    assert not list(tmp_path.glob(".*"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_reported_and_the_numbers_are_kept_as_long_as_they_fit(small_disk):
    words = []
    outbox = Outbox(small_disk / "outbox")
    kept = [outbox.put(trial(number, URI), {LOGITS: bytes(300_000)}, words.append) for number in range(40)]
    assert kept[0]
    assert not kept[-1]
    assert any("without its artifacts: No space left on device" in line for line in words)
    kept_in = "No space left on device. Its numbers are kept in the study; run the same command again"
    assert kept_in in words[-1]
    contents = [entry.read()[1] for entry in outbox.entries()]
    assert len(contents) == sum(kept)
    assert {len(files) for files in contents} == {0, 1}


def test_half_written_files_are_removed_when_they_are_old(tmp_path):
    for name, age in ((".old.part", 7200), (".new.part", 10)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (os.path.getmtime(tmp_path / name) - age,) * 2)
    assert Outbox(tmp_path).entries() == []
    assert os.listdir(tmp_path) == [".new.part"]
    assert OutboxEntry.of(tmp_path / ".new.part") is None


def test_a_writer_that_is_killed_leaves_no_entry(tmp_path):
    code = (
        "os.fsync = lambda _: os.kill(os.getpid(), 9)\n"
        "Outbox(Path(sys.argv[1])).put(trial(0, 'http://h'), {LOGITS: bytes(1000)}, print)"
    )
    assert python(code, tmp_path).returncode == -signal.SIGKILL
    assert Outbox(tmp_path).entries() == []
    assert len(list(tmp_path.glob(".*.part"))) == 1
