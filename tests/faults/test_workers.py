"""What befalls workers: they are killed, paused, have a wrong clock; and the sweep comes to the same
numbers.
"""

import random
import shutil
import signal
import subprocess
import time

import pytest
from arena import ROOT, ended, kill, workers_of

CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <sys/time.h>
static long off(void) { const char *set = getenv("CLOCK_OFF"); return set ? atol(set) : 0; }
int clock_gettime(clockid_t id, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) now->tv_sec += off();
    return result;
}
time_t time(time_t *out) {
    struct timespec now; clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now; clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec; out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


def same(arena, conductor, undisturbed):
    """The sweep ends with the recommendation and the outcomes of the undisturbed one."""
    recommendation, outcomes = undisturbed
    assert arena.finish(conductor) == recommendation
    assert arena.outcomes() == outcomes


def kill_some(arena, conductor, times, generator):
    """Kill workers at random points of their work."""
    for _ in range(times):
        arena.until(
            lambda: conductor.poll() is not None or (workers_of(conductor) and arena.trials("RUNNING")), 120
        )
        time.sleep(generator.uniform(0, 1.5))
        if conductor.poll() is not None:
            return
        if workers := workers_of(conductor):
            kill(generator.choice(workers))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("times", [2, 20])
def test_workers_are_killed_at_random_points(arena, undisturbed, times):
    conductor = arena.sweep("--workers", "2", "--launch", "processes")
    with ended(conductor):
        kill_some(arena, conductor, times, random.Random(7))
        same(arena, conductor, undisturbed)
    assert "was killed" in arena.said() or arena.trials("FAIL") > 0


@pytest.mark.slow
def test_a_worker_that_was_paused_drops_the_trials_that_were_reassigned(arena, undisturbed):
    conductor = arena.sweep("--workers", "0")
    first = arena.start("sweeps.worker")
    with ended(conductor, first):
        arena.until(lambda: arena.trials("RUNNING"))
        kill(first.pid, signal.SIGSTOP)
        second = arena.start("sweeps.worker")
        with ended(second):
            arena.until(lambda: arena.trials("FAIL"))
            kill(first.pid, signal.SIGCONT)
            same(arena, conductor, undisturbed)
    said = arena.said()
    assert "missed the heartbeat deadline" in said or "was reassigned" in said


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [-600, 600])
def test_a_worker_has_a_wrong_clock(arena, undisturbed, tmp_path, seconds):
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(CLOCK)
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    conductor = arena.sweep("--workers", "0")
    off = arena.start("sweeps.worker", LD_PRELOAD=str(library), CLOCK_OFF=str(seconds))
    right = arena.start("sweeps.worker")
    with ended(conductor, off, right):
        same(arena, conductor, undisturbed)
    assert arena.trials("FAIL") == 0  # nobody was taken for dead


@pytest.mark.slow
def test_two_conductors_start_at_the_same_moment(arena, undisturbed):
    conductors = [arena.sweep("--launch", "inline") for _ in range(2)]
    with ended(*conductors):
        for conductor in conductors:
            same(arena, conductor, undisturbed)


@pytest.mark.slow
def test_ctrl_c_twice_ends_it_at_once_and_it_goes_on_later(arena, undisturbed):
    conductor = arena.sweep("--workers", "1", "--launch", "processes")
    with ended(conductor):
        arena.until(lambda: arena.trials("RUNNING"))
        presses = 0
        while conductor.poll() is None and presses < 20:  # two that come before Python looks are one to it
            kill(conductor.pid, signal.SIGINT)
            presses += 1
            time.sleep(0.25)
        assert conductor.wait(timeout=1) == 130
        arena.until(lambda: not workers_of(conductor))
        same(arena, arena.sweep("--launch", "inline"), undisturbed)


@pytest.mark.slow
def test_a_conductor_is_killed_and_the_same_command_goes_on(arena, undisturbed):
    conductor = arena.sweep("--launch", "inline")
    with ended(conductor):
        arena.until(lambda: arena.trials("RUNNING"))
        kill(conductor.pid)
        conductor.wait()
    same(arena, arena.sweep("--launch", "inline"), undisturbed)


DATA = ROOT.parent / "shared" / "data"


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "fashion-mnist").is_dir(), reason="the Fashion-MNIST files are not there")
def test_a_data_file_is_corrupt_on_one_worker_only(arena, tmp_path):
    broken = tmp_path / "data"
    shutil.copytree(DATA / "fashion-mnist", broken / "fashion-mnist")
    damage(broken / "fashion-mnist")
    plan = ("--epochs", "1", "--train-examples", "300", "--trials", "2", "--seeds", "1", "--pilot-only")
    conductor = arena.start(
        "sweeps.run", "fashion_mnist/mlp", *plan, "--workers", "0", "--grace", "3", LSCAL_DATA=str(DATA)
    )
    bad = arena.start("sweeps.worker", LSCAL_DATA=str(broken))
    with ended(conductor, bad):
        arena.until(lambda: "is left to others" in arena.said(), 120)
        assert bad.poll() is None  # it serves other sweeps
        good = arena.start("sweeps.worker", LSCAL_DATA=str(DATA))
        with ended(good):
            assert conductor.wait(timeout=120) == 0
    assert arena.trials("FAIL") == 0


def damage(folder):
    """Change one pixel of the training images."""
    import gzip

    (path,) = (path for path in folder.iterdir() if path.name.startswith("train-images"))
    if path.suffix == ".gz":
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[50_000] ^= 0xFF
        path.write_bytes(gzip.compress(bytes(content), 1))
    else:
        with path.open("r+b") as file:
            file.seek(50_000)
            value = file.read(1)[0]
            file.seek(50_000)
            file.write(bytes([value ^ 0xFF]))
