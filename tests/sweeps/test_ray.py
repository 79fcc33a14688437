"""Workers on a Ray cluster: a real one of a head and nodes that come and go, all on this machine."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from arena import alive, until

from sweeps.errors import WrongInput
from sweeps.settings import site_of
from sweeps.workers.launch import launcher
from sweeps.workers.launcher import Reporter
from sweeps.workers.ray import Ray, absolute, refuse_files, room, share_of_cores

ROOT = Path(__file__).parents[2]
SECRET = "hunter2-of-the-database"
NEEDS_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
WORKER = """
import os, signal, sys, time
from pathlib import Path

def stop(*_):
    if held.exists():
        held.rename(todo / held.name.partition("+")[0])
    sys.exit(130)

folder, node = Path(sys.argv[1]), os.environ["NODE"]
todo, doing, done = (folder / name for name in ("todo", "doing", "done"))
held = doing / "none"
signal.signal(signal.SIGTERM, stop)
print("joins on", node, flush=True)
while True:
    for task in sorted(todo.iterdir()):
        claimed = doing / f"{task.name}+{os.getpid()}"
        try:
            held = task.rename(claimed)
        except FileNotFoundError:
            continue
        time.sleep(0.4)
        held.rename(done / f"{task.name}+{node}")
    for task in doing.iterdir():  # whose worker is gone
        name, pid = task.name.split("+")
        if not os.path.exists(f"/proc/{pid}"):
            task.rename(todo / name)
    time.sleep(0.1)
"""


@pytest.fixture
def tasks(tmp_path):
    """A folder with a queue of work and the worker that does it."""
    for name in ("todo", "doing", "done"):
        (tmp_path / name).mkdir()
    (tmp_path / "trainer.py").write_text(WORKER)
    return tmp_path


def add(tasks, count):
    have = len(list(tasks.glob("*/task-*")))
    for number in range(have, have + count):
        (tasks / "todo" / f"task-{number:03}").touch()


def finished(tasks):
    """Which task was finished on which node."""
    return dict(path.name.split("+") for path in (tasks / "done").iterdir())


@NEEDS_RAY
@pytest.mark.filterwarnings("ignore")  # those of importing Ray
def test_work_goes_on_while_nodes_leave_and_join(tasks, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    said = []
    tracking = f"http://me:{SECRET}@127.0.0.1:1"
    stores = {"OPTUNA_STORAGE": f"sqlite:///{tasks}/o.db", "MLFLOW_TRACKING_URI": tracking}
    try:
        nodes = {
            name: cluster.add_node(num_cpus=1, num_gpus=1, env_vars={"NODE": name})
            for name in ("first", "second")
        }
        command = [str(tasks / "trainer.py"), str(tasks)]
        workers = Ray(cluster.address, "auto", "auto", 0.5, command, stores, Reporter(said.append))
        add(tasks, 10)
        with workers:
            until(lambda: workers.working() == 4, workers.watch)  # two on each node
            until(lambda: nodes.keys() == set(finished(tasks).values()), workers.watch)
            running = "\n".join(lines_of("ps axww -o args"))
            assert "trainer.py" in running
            assert SECRET not in running
            cluster.remove_node(nodes["second"], allow_graceful=False)
            until(lambda: workers.working() == 2, workers.watch)
            add(tasks, 10)
            cluster.add_node(num_cpus=1, num_gpus=2, env_vars={"NODE": "third"})
            until(lambda: workers.working() == 6, workers.watch)  # the two that were lost, and two more
            add(tasks, 20)
            until(lambda: "third" in finished(tasks).values() and len(finished(tasks)) == 40, workers.watch)
            add(tasks, 60)
            until(lambda: len(list((tasks / "doing").iterdir())) == 6, workers.watch)
    finally:
        cluster.shutdown()
    assert not list((tasks / "doing").iterdir())  # given back
    assert len(list((tasks / "todo").iterdir())) + len(finished(tasks)) == 100
    assert not [line for line in said if "is killed" in line]
    assert sum("is gone with its node" in line for line in said) == 2
    assert not [line for line in said if "restarting" in line]


CONDUCTOR = """
import sys, time
from sweeps.workers.ray import Ray
from sweeps.workers.launch import Reporter
with Ray(None, 2, "cpu", None, sys.argv[1:], {}, Reporter(lambda line: print(line, flush=True))) as workers:
    while True:
        workers.watch()
        time.sleep(0.1)
"""


def lines_of(command):
    done = subprocess.run(command.split(), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def below(pid):
    """All processes that descend from one."""
    pairs = map(str.split, lines_of("ps ax -o pid=,ppid="))
    children = [int(child) for child, parent in pairs if int(parent) == pid]
    return children + [one for child in children for one in below(child)]


@pytest.fixture
def conductor(tasks):
    """A process that conducts two workers on a cluster of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NODE": "here"}
    command = [sys.executable, "-c", CONDUCTOR, str(tasks / "trainer.py"), str(tasks)]
    with open(tasks / "said.txt", "w") as said:
        process = subprocess.Popen(command, env=environment, stdout=said)
    yield process
    process.kill()
    process.wait()


@pytest.mark.slow
@NEEDS_RAY
def test_no_worker_outlives_a_local_cluster_whose_conductor_is_killed(tasks, conductor):
    both = [f"worker {number}: joins on here" for number in (1, 2)]
    until(lambda: sorted((tasks / "said.txt").read_text().splitlines()) == both)
    add(tasks, 2)
    until(lambda: len(list((tasks / "doing").iterdir())) == 2)
    names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in below(conductor.pid)}
    workers = [pid for pid, name in names.items() if "trainer.py" in name]
    raylets = [pid for pid, name in names.items() if name.partition("\0")[0].endswith("/raylet")]
    assert (len(workers), len(raylets)) == (2, 1)
    conductor.kill()
    # Ray's own agents look for a while for the one they reported to.
    until(lambda: not any(map(alive, [*workers, *raylets])))


def test_without_ray_the_package_to_install_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WrongInput, match=r"pip install 'lscal\[ray\]'"):
        launcher(site_of({"launch": "ray"}), "digits/mlp@12345678", print)


def test_ray_chooses_the_gpu_and_a_worker_has_one_at_most():
    with pytest.raises(WrongInput, match="Ray chooses"):
        Ray(None, 1, "cuda:1", None, [], {}, Reporter(print))
    with pytest.raises(WrongInput, match="gpus_per_worker is 2"):
        Ray(None, 1, "cuda", 2.0, [], {}, Reporter(print))


@NEEDS_RAY
@pytest.mark.filterwarnings("ignore")
def test_no_cluster_at_an_address_is_wrong_input():
    with pytest.raises(WrongInput, match="no Ray cluster to use at 'nowhere.invalid:6379'"):
        Ray("nowhere.invalid:6379", 1, "cpu", None, [], {}, Reporter(print)).start()


def test_a_database_in_a_file_is_refused_where_other_machines_work():
    for url in ("sqlite:////tmp/optuna.db", "/tmp/mlruns"):
        refuse_files({"OPTUNA_STORAGE": url}, set())
        with pytest.raises(WrongInput, match=r"node-7 cannot share; give --storage postgresql\+psycopg://"):
            refuse_files({"OPTUNA_STORAGE": url}, {"node-7"})
    shared = {
        "OPTUNA_STORAGE": "postgresql+psycopg://me@db/optuna",
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    }
    refuse_files(shared, {"node-7"})


def test_paths_mean_the_same_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///optuna.db") == f"sqlite:///{tmp_path}/optuna.db"
    assert absolute("sqlite:////var/optuna.db") == "sqlite:////var/optuna.db"
    assert absolute("mlruns") == f"{tmp_path}/mlruns"
    for url in ("postgresql+psycopg://me:secret@db/optuna", "http://mlflow:5000"):
        assert absolute(url) == url


def test_a_node_has_room_for_whole_shares_of_each_gpu():
    node = {"GPU": 2.0, "CPU": 16.0}
    assert [room(node, gpus, 0.0) for gpus in (1.0, 0.5, 0.25, 0.4, 0.1)] == [2, 4, 8, 4, 20]
    assert [room(node, 0.0, cpus) for cpus in (8.0, 5.0, 0.01)] == [2, 3, 1600]
    assert room({}, 1.0, 0.0) == room({}, 0.0, 1.0) == 0


def test_workers_share_the_cores_of_all_nodes():
    assert share_of_cores([64.0, 16.0], "auto") == 8
    assert share_of_cores([4.0, 2.0, 0.0], "auto") == 4
    assert share_of_cores([4.0, 4.0], 3) == 2
    assert share_of_cores([2.0], 8) == 0.25
    assert share_of_cores([1.0], 3) * 3 <= 1
    assert share_of_cores([], 3) > 0
