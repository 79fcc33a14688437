"""Choice of the way in which a task's members are trained: a few real steps of each way, side by side on all cores."""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from itertools import chain, islice, repeat
from math import lcm

import torch
from jaxtyping import Float
from torch import Tensor

from sweeps.datasets import Dataset
from sweeps.engine import Engine, Lane
from sweeps.errors import WrongInput
from sweeps.feed import Feed
from sweeps.member import Member
from sweeps.memory import keep_freed_memory
from sweeps.plan import Mode, Task
from sweeps.population import EVALUATION_CHUNK
from sweeps.smoothings import noise_of, uniform_over
from sweeps.way import Precision, Way, cores, key_of, recall, remember

PROBED = 4
"""Members per lane in a first, small measurement."""
HOPELESS = 1.5
"""A way which is this much slower than another in the first measurement is not measured at its full size."""
FUSED_MEMBERS = {"cpu": (8, 16, 32), "cuda": (16, 64, 256)}
"""How many members a fused population may hold. On a CPU, more than 32 leave its caches."""
LOOPED_MEMBERS = {"cpu": 1, "cuda": 16}
"""How many members a looped population holds at least. A GPU trains them side by side; a core gains nothing by more."""
CLOSE = 1.3
"""Ways within this factor of the fastest are measured a second time."""
EQUAL = 1.05
"""Of ways within this factor of the fastest, the one with the fewest members is taken: its results come sooner, and rungs have more to say."""
MOST_LANES = 8
"""More threads than this would wait for each other's Python."""
SECONDS = 0.2
"""A measurement takes as many steps as fit, at least two."""
CANNOT = (RuntimeError, ValueError, TypeError, IndexError, AttributeError)
"""What a module raises that cannot take the inputs, and vmap where it cannot map a module."""
MEMORY_SHARE = 0.8
"""Of a GPU's free memory."""
TEACHER_SEED = 9_999


def choose(
    task: Task,
    dataset: Dataset,
    smoothings: Sequence[str],
    device: torch.device,
    seeds: int,
    mode: Mode = "auto",
    precision: Precision | None = None,
) -> Engine:
    """An engine which trains in the fastest way, or in that which `mode` and `precision` name. The data are put on the device here.

    `smoothings` are the names which members may use. Errors: WrongInput where the data set does not have one of them, where the architecture
    cannot take its inputs, or where it is to be fused and cannot.
    """
    keep_freed_memory()
    feed = Feed.of(dataset, task.recipe, device)
    lanes = min(cores(), MOST_LANES) if device.type == "cpu" else 1
    plain = {"uniform": uniform_over(dataset).to(device)}
    engine = Engine(task, feed.dataset, feed, plain, device, Way("looped", "float32", lanes, seeds))
    key = key_of(task, dataset, seeds, device, mode, precision)
    way = recall(key)
    if way is None:
        way = fastest(engine, seeds, mode, precisions(device) if precision is None else (precision,))
        remember(key, way)
    engine = replace(engine, way=way)
    teach = cache(partial(teacher_of, engine))
    return replace(engine, noises={name: noise_of(name, dataset, teach).to(device) for name in smoothings})


def teacher_of(engine: Engine) -> Float[Tensor, "example class"]:
    """The logits of *train* of a member at ε = 0, with a seed that no stage of a sweep has. Errors: WrongInput where it diverged."""
    recipe = engine.task.recipe
    clip = math.inf if recipe.clip is None else recipe.clip
    trained = engine.train([Member(0.0, TEACHER_SEED, recipe.learning_rate, recipe.weight_decay, clip=clip)], lambda _: None)
    if not trained.finite[0]:
        raise WrongInput(f"the teacher of {engine.task.name} diverged at ε = 0. Try a lower learning_rate.")
    return engine.logits(trained, "train")[0]


def fastest(engine: Engine, seeds: int, mode: Mode, allowed: Sequence[Precision]) -> Way:
    """The way with the shortest measured time per member and epoch."""
    lanes = engine.way.lanes
    group = lcm(seeds, lanes)  # whole trials, and no lane with more members than another
    members = -(-LOOPED_MEMBERS[engine.device.type] // group) * group
    found: list[Way] = []
    why: Exception | None = None
    for precision in allowed:
        try:
            found.append(measure(engine, Way("looped", precision, lanes, members), min(members, PROBED * lanes), seeds))
        except CANNOT as error:
            why = error
    if not found:
        raise WrongInput(
            f"{engine.task.architecture} cannot be trained on {engine.dataset.name}, whose inputs have shape {engine.dataset.shape}: {why}"
        ) from why
    if mode == "looped":
        return min(found, key=lambda way: way.seconds)
    limit = HOPELESS * min(way.seconds for way in found) if mode == "auto" else float("inf")
    fused, doubts = fused_ways(engine, seeds, group, limit, allowed)
    if mode == "fused":
        if not fused:
            raise WrongInput(f"{engine.task.architecture} cannot be fused: {doubts}. Use --engine looped or auto.")
        found = []
    found += fused
    best = min(way.seconds for way in found)
    again = [measure(engine, way, way.members, seeds) for way in found if way.seconds < CLOSE * best]
    twice = [min(first, second, key=lambda way: way.seconds) for first in found for second in again if same(first, second)]
    best = min(way.seconds for way in twice)
    return min((way for way in twice if way.seconds <= EQUAL * best), key=lambda way: way.members)


def fused_ways(engine: Engine, seeds: int, group: int, limit: float, allowed: Sequence[Precision]) -> tuple[list[Way], str]:
    """The fused ways which work, measured, none where a small measurement took more than `limit`; and why others do not."""
    ways: list[Way] = []
    doubts = ""
    for precision in allowed:
        small = Way("fused", precision, engine.way.lanes, PROBED * engine.way.lanes)
        try:
            if engine.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(engine.device)
            before = torch.cuda.memory_allocated(engine.device) if engine.device.type == "cuda" else 0
            small = measure(engine, small, small.members, seeds)
            per_member = (torch.cuda.max_memory_allocated(engine.device) - before) / small.members if engine.device.type == "cuda" else 0.0
            if small.seconds > limit:
                continue
            with ThreadPoolExecutor(1, "lane", torch.set_num_threads, (1,)) as pool:
                doubt = pool.submit(doubt_of, engine, small).result()
            if doubt:
                doubts = doubt
                continue
            ways.extend(sized(engine, small, seeds, group, per_member))
        except CANNOT as error:  # what was measured before remains; a GPU may be out of memory at a size
            doubts = str(error)
    return ways, doubts


def doubt_of(engine: Engine, way: Way) -> str:
    """Why a fused population of this architecture would not hold its members' own numbers; "" where nothing is found.

    Five equal members take two steps. On a CPU they have to stay equal to the last bit, since then no kernel looks at a
    member's place among the others; and their buffers have to be those of a looped member.
    """
    recipe = engine.task.recipe
    member = Member(0.1, 0, recipe.learning_rate, recipe.weight_decay, next(iter(engine.noises)))
    states = []
    for one, count in ((way, 5), (replace(way, kind="looped"), 1)):
        population = replace(engine, way=one).population([member] * count)
        for inputs, labels, rows in islice(engine.feed.epoch([0], 0), 2):
            population.step(inputs, labels, 0.0, 0.0, rows)
        states.append(population.state())
    fused, looped = states
    for name, values in fused.items():
        if engine.device.type == "cpu" and not all(torch.equal(values[row], values[0]) for row in range(1, 5)):
            return f"with kernels of this device, {name} depends on a member's place among the others"
        if name.startswith("buffer/") and not torch.allclose(values[0].double(), looped[name][0].double(), rtol=1e-2, atol=1e-4):
            return f"{name} is not updated in place, so vmap does not see it"
    return ""


def same(one: Way, other: Way) -> bool:
    """Whether two measurements are of the same way."""
    return replace(one, seconds=0.0) == replace(other, seconds=0.0)


def sized(engine: Engine, way: Way, seeds: int, group: int, per_member: float) -> Iterator[Way]:
    """A fused way measured at its sizes, until one is slower than the one before, as far as a GPU's memory goes (bytes per member)."""
    before = way.seconds
    for size in FUSED_MEMBERS[engine.device.type]:
        members = max(1, size * way.lanes // group) * group
        if engine.device.type == "cuda" and members * per_member > MEMORY_SHARE * torch.cuda.mem_get_info(engine.device)[0]:
            return
        larger = measure(engine, replace(way, members=members), members, seeds)
        yield larger
        if larger.seconds > before:
            return
        before = larger.seconds


def precisions(device: torch.device) -> tuple[Precision, ...]:
    """float32, and bfloat16 where the device computes in it."""
    if device.type == "cuda":
        return ("float32", "bfloat16") if torch.cuda.is_bf16_supported() else ("float32",)
    return ("float32", "bfloat16") if torch.cpu._is_avx512_bf16_supported() else ("float32",)


def measure(engine: Engine, way: Way, members: int, seeds: int) -> Way:
    """The way with its seconds per member and epoch, from a few steps of so many members; scoring included."""
    recipe = engine.task.recipe
    trial = [Member(0.1, seed, recipe.learning_rate, recipe.weight_decay, next(iter(engine.noises))) for seed in range(seeds)]
    course = replace(engine, way=way).begin((trial * -(-members // seeds))[:members])
    with ThreadPoolExecutor(len(course.lanes), "lane", torch.set_num_threads, (1,)) as pool:
        seconds = list(pool.map(lambda lane: time_epoch(engine, lane), course.lanes))
    return replace(way, seconds=1 / sum(1 / one for one in seconds))


def time_epoch(engine: Engine, lane: Lane) -> float:
    """Seconds of an epoch per member of a lane, which the other lanes' time is not part of."""
    population, feed, device = lane.population, engine.feed, engine.device
    population.begin(0)
    batches = chain.from_iterable(feed.epoch(population.seeds, epoch) for epoch in repeat(0))

    def step() -> None:
        inputs, labels, rows = next(batches)
        population.step(inputs, labels, 0.0, 0.0, rows)

    for _ in range(2):
        step()
    started, steps = clock(device), 0
    while steps < 2 or clock(device) - started < SECONDS:
        step()
        steps += 1
    epoch = (clock(device) - started) / steps * feed.steps
    inputs, _ = next(feed.chunks("select", EVALUATION_CHUNK[device.type]))
    population.logits(inputs)
    started = clock(device)
    population.logits(inputs)
    scored = len(feed.labels["select"]) + len(feed.labels["calibrate"])
    return (epoch + (clock(device) - started) * scored / len(inputs)) / len(lane.rows)


def clock(device: torch.device) -> float:
    """Seconds, after everything queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU, or the CPU where there is none. Errors: WrongInput for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise WrongInput(f"no device named {name!r}; allowed are auto, cpu, cuda and cuda:N.") from error
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise WrongInput(f"the device {name!r} is not there: torch sees {torch.cuda.device_count()} GPUs. Use --device cpu.")
    if device.type not in ("cpu", "cuda"):
        raise WrongInput(f"the device {name!r} is not supported; allowed are auto, cpu, cuda and cuda:N.")
    return device
