"""Workers as processes: real ones that are killed, hang, fail and flood."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from arena import alive, until

from sweeps.errors import Failed, WrongInput
from sweeps.settings import site_of
from sweeps.workers import supervisor
from sweeps.workers.launch import kind_of, launcher
from sweeps.workers.launcher import Elsewhere, NoWorkers, Reporter
from sweeps.workers.processes import Placement, Processes, limits, places

ROOT = Path(__file__).parents[2]
CPU = Placement("cpu", (min(os.sched_getaffinity(0)),))
SECRET = "hunter2-of-the-database"
OBEDIENT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
print("at work", flush=True)
time.sleep(600)
"""
REPORTING = """
import os, signal, sys, time
for one in (signal.SIGINT, signal.SIGTERM):
    signal.signal(one, lambda number, _: (print(signal.Signals(number).name, flush=True), sys.exit(130)))
print("at work as", os.getpid(), flush=True)
time.sleep(600)
"""
CONDUCTOR = f"""
import sys, time
from sweeps.workers.launcher import Reporter
from sweeps.workers.processes import Placement, Processes
reporter = Reporter(lambda line: print(line, flush=True))
with Processes([Placement("cpu", {CPU.cores})] * 2, sys.argv[1:], {{}}, reporter) as workers:
    while True:
        workers.watch()
        time.sleep(0.1)
"""


def workers(source, said, count=1):
    """Launcher of `count` workers that run this source code; its lines are appended to `said`."""
    return Processes([CPU] * count, ["-c", source], {}, Reporter(said.append))


def pids(launched):
    return [supervisor.process.pid for supervisor in launched.supervisors if supervisor.process is not None]


def count(said, text):
    return sum(text in line for line in said)


def test_a_worker_runs_on_its_cores_in_a_session_of_its_own():
    said = []
    source = """
import os, time
print(os.sched_getaffinity(0), os.environ["OMP_NUM_THREADS"], os.getsid(0) == os.getpid())
time.sleep(600)
"""
    with workers(source, said) as launched:
        until(lambda: said, launched.watch)
        assert launched.working() == 1
        (pid,) = pids(launched)
    assert said[0] == f"worker 1: {set(CPU.cores)} 1 True"
    assert launched.working() == 0
    assert not alive(pid)


def test_a_killed_worker_is_started_again_at_once():
    said = []
    with workers(OBEDIENT, said, count=2) as launched:
        until(lambda: count(said, "at work") == 2, launched.watch)
        first, second = pids(launched)
        os.kill(first, signal.SIGKILL)
        until(lambda: count(said, "worker 1: at work") == 2, launched.watch)
        assert "worker 1 was killed by SIGKILL; restarting" in said
        assert launched.working() == 2
        assert first not in pids(launched)
        assert second in pids(launched)


def test_workers_give_their_trials_back_before_they_end():
    said = []
    source = OBEDIENT.replace("sys.exit(130)", "(print('given back'), sys.exit(130))")
    with workers(source, said, count=2) as launched:
        until(lambda: count(said, "at work") == 2, launched.watch)
    launched.watch()  # stopped is stopped
    assert launched.working() == 0
    assert count(said, "given back") == 2
    assert count(said, "restarting") == 0


def test_a_worker_that_does_not_stop_is_killed_with_what_it_started(monkeypatch):
    monkeypatch.setattr("sweeps.workers.processes.STOP_SECONDS", 0.5)
    said = []
    source = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""
    with workers(source, said) as launched:
        until(lambda: said, launched.watch)
        grandchild = int(said[0].removeprefix("worker 1: "))
        (pid,) = pids(launched)
        os.kill(pid, signal.SIGSTOP)
    assert not alive(pid)
    until(lambda: not alive(grandchild))
    assert said[-1] == "worker 1 is killed: it did not stop within 0 s"


def test_a_second_ctrl_c_kills_at_once():
    said = []
    launched = workers(OBEDIENT.replace("sys.exit(130)", "None"), said, count=2)
    launched.start()
    until(lambda: count(said, "at work") == 2, launched.watch)
    children = pids(launched)
    started = time.monotonic()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            launched.stop()
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started < 5
    assert not any(alive(pid) for pid in children)


def test_wrong_input_is_not_retried_and_is_reported():
    said = []
    source = "import sys, time; print('error: the file is corrupt', file=sys.stderr); sys.exit(2)"
    reason = "stopped: wrong input\n  error: the file is corrupt"
    with workers(source, said) as launched, pytest.raises(NoWorkers, match=reason):
        until(lambda: False, launched.watch)
    assert count(said, "worker 1: error: the file is corrupt") == 1


def test_one_worker_with_wrong_input_does_not_end_the_others(tmp_path):
    said = []
    source = f"""
import os, sys, time
try:
    os.mkdir({str(tmp_path / "first")!r})
except FileExistsError:
    time.sleep(600)
sys.exit(2)
"""
    with workers(source, said, count=2) as launched:
        until(lambda: count(said, "stopped: wrong input; not restarted"), launched.watch)
        for _ in range(5):
            launched.watch()
        assert launched.working() == 1
    assert count(said, "restarting") == 0


def test_a_worker_that_fails_at_every_start_is_given_up_with_its_last_words(monkeypatch):
    monkeypatch.setattr(supervisor, "DELAYS", (0.0, 0.1, 0.2, 0.3))
    said = []
    source = "raise RuntimeError('no such driver')"
    with workers(source, said) as launched, pytest.raises(NoWorkers) as caught:
        until(lambda: False, launched.watch)
    assert "worker 1 ended with exit code 1, soon after its start, 5 times in a row" in str(caught.value)
    assert "RuntimeError: no such driver" in str(caught.value)
    assert [line for line in said if "restart" in line] == [
        "worker 1 ended with exit code 1; restarting",
        *(f"worker 1 ended with exit code 1; restarting in {delay:g} s" for delay in (0.1, 0.2, 0.3)),
        "worker 1 ended with exit code 1, soon after its start, 5 times in a row; not restarted",
    ]
    assert issubclass(NoWorkers, Failed)


def test_delays_grow_with_failed_starts_and_a_longer_run_resets_them():
    one = supervisor.Supervisor(1, [], {})
    waits = []
    ends = "1:59 -9:4 1:59 -9:6 1:2 1:61 139:1 -11:50 1:1 1:1 1:1"
    for code, lived in (map(int, end.split(":")) for end in ends.split()):
        begun = time.monotonic()
        one.ended(code, lived)
        waits.append(None if one.due is None else round(one.due - begun))
    assert waits == [0, 2, 8, 0, 0, 0, 0, 2, 8, 30, None]


def test_a_finished_worker_is_not_restarted():
    said = []
    with workers("print('done')", said) as launched:
        until(lambda: said and not launched.working(), launched.watch)
        launched.watch()
        launched.watch()
    assert said == ["worker 1: done"]


def test_a_flood_of_output_never_holds_a_worker_up(tmp_path):
    done = tmp_path / "done"
    said = []
    flood = "for number in range(200_000): print('line', number)\nprint('x' * 200_000)"
    with workers(f"import pathlib\n{flood}\npathlib.Path({str(done)!r}).touch()", said) as launched:
        until(done.exists)  # without watching
        launched.watch()
    assert count(said, "worker 1: ") <= 2 * supervisor.LINES
    assert max(map(len, said)) <= supervisor.LONGEST + len("worker 1: ")


@pytest.fixture
def conductor(tmp_path):
    """A process in a session of its own that conducts two workers, and their numbers."""
    (tmp_path / "worker.py").write_text(REPORTING)
    command = [sys.executable, "-c", CONDUCTOR, str(tmp_path / "worker.py")]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    around = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "start_new_session": True}
    process = subprocess.Popen(command, **streams, **around)
    children = [int(process.stdout.readline().rpartition(" ")[2]) for _ in range(2)]
    assert all(alive(pid) for pid in children)
    yield process, children
    process.kill()
    process.communicate()


def test_workers_end_when_their_conductor_is_killed(conductor):
    process, children = conductor
    process.kill()
    process.wait()
    until(lambda: not any(alive(pid) for pid in children), seconds=10)


def test_ctrl_c_reaches_the_conductor_alone_and_it_asks_the_workers_to_stop(conductor):
    process, children = conductor
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, _ = process.communicate(timeout=20)
    lines = [line for line in output.splitlines() if line.startswith("worker")]
    assert lines == ["worker 1: SIGTERM", "worker 2: SIGTERM"]
    assert not any(alive(pid) for pid in children)


def test_no_password_is_on_a_command_line(tmp_path):
    storage = f"postgresql+psycopg://lscal:{SECRET}@127.0.0.1:1/optuna"
    stores = {"storage": storage, "tracking_uri": f"http://me:{SECRET}@127.0.0.1:1"}
    site = site_of({**stores, "workers": 2, "device": "cpu", "state_dir": str(tmp_path)})
    said, names = [], "'OPTUNA_STORAGE', 'MLFLOW_TRACKING_URI'"
    launched = launcher(site, "digits/mlp@12345678", said.append)
    code = f"import os, time; print(*(os.environ[name] for name in ({names}))); time.sleep(600)"
    for one in launched.supervisors:
        assert one.arguments[:4] == ["-m", "sweeps.worker", "--study", "digits/mlp@12345678"]
        one.arguments = ["-c", code, *one.arguments]
    with launched:
        until(lambda: len(said) == 2, launched.watch)
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in pids(launched)]
    assert said == [f"worker {number}: {site.storage} {site.tracking_uri}" for number in (1, 2)]
    assert [line for line in lines if "digits/mlp@12345678" not in line or SECRET in line] == []


def test_places_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(4, 24)})
    assert [len(place.cores) for place in places("auto", "cpu")] == [6, 7, 7]
    split = places(4, "cpu")
    assert [core for place in split for core in place.cores] == list(range(4, 24))
    assert {len(place.cores) for place in split} == {5}
    shared = places(30, "cpu")
    assert [place.cores for place in shared[:21]] == [(core,) for core in [*range(4, 24), 4]]


def test_a_limit_of_threads_holds_for_each_worker(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert limits(Placement("cpu", (0, 1, 2))) == {"OMP_NUM_THREADS": "2"}
    assert limits(Placement("cpu", (0,))) == {"OMP_NUM_THREADS": "1"}
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert limits(Placement("cpu", (0, 1, 2))) == {"OMP_NUM_THREADS": "3"}


def test_workers_share_gpus_in_turn_and_each_sees_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5f2")
    assert [place.device for place in places("auto", "auto")] == ["cuda:0", "cuda:1"]
    assert [place.device for place in places(3, "cuda")] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [place.device for place in places(2, "cuda:1")] == ["cuda:1", "cuda:1"]
    assert [limits(place)["CUDA_VISIBLE_DEVICES"] for place in places("auto", "auto")] == ["3", "GPU-5f2"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [limits(place)["CUDA_VISIBLE_DEVICES"] for place in places("auto", "auto")] == ["0", "1"]
    with pytest.raises(WrongInput, match="cuda:7"):
        places("auto", "cuda:7")


def test_a_single_worker_is_the_process_itself_unless_asked_otherwise(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(8)})
    given = {"device": "cpu"}
    for more, kind in (
        ({}, "inline"),
        ({"workers": 2}, "processes"),
        ({"launch": "processes"}, "processes"),
        ({"workers": 0, "launch": "processes"}, "elsewhere"),
    ):
        assert kind_of(site_of({**given, **more})) == kind
    nobody = launcher(site_of({**given, "workers": 0}), "digits/mlp@12345678", print)
    assert isinstance(nobody, Elsewhere)
    with nobody:
        nobody.watch()
        assert nobody.working() == 0


def test_lines_of_json_from_workers_stay_json(capsys):
    said, events = [], ("worker 3 was killed by SIGKILL; restarting",)
    news = supervisor.News(('{"event": "joined"}',), events, True, "")
    assert Reporter(said.append, json=True).report(3, news) is news
    assert capsys.readouterr().err == '{"event": "joined"}\n'
    assert said == list(news.events)
