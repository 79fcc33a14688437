"""Choice of the way in which a task's members are trained.

A fixed rule (`kind_of`) picks the numeric kernels: it depends on the network alone, so the same plan
gives the same numbers on an idle machine and on a busy one. The stopwatch decides only what changes no bit:
how many members are trained at a time.
"""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from itertools import chain, islice, repeat
from math import lcm

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sweeps.data.dataset import Dataset
from sweeps.devices import MOST_SHARDS, cores
from sweeps.errors import WrongInput
from sweeps.task import ExecutionKind, PinnedExecution, Precision, Task
from sweeps.training.allocator import give_freed_memory_back, keep_freed_memory
from sweeps.training.batches import Batches
from sweeps.training.engine import Engine, Shard
from sweeps.training.execution import Execution, autotune_key, network, recall, remember
from sweeps.training.member import Member
from sweeps.training.population import EVALUATION_CHUNK
from sweeps.training.smoothing_kinds import bases, noise_of, uniform_over

SERIAL = (nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag, nn.RNNBase)
"""Modules whose members are trained one after another, see `is_serial`."""
MOST_FUSED_PARAMETERS = 1_000_000
"""A larger network fills a core's caches by itself."""
SMALL = 65_536
"""Parameters: of smaller networks more are trained at a time, as a step is mostly overhead."""
FUSED_MEMBERS = {"cpu": (8, 16, 32), "cuda": (16, 64, 256)}
"""How many members a shard's fused population may hold. On a CPU, more than 32 leave its caches."""
LOOPED_MEMBERS = {"cpu": 1, "cuda": 16}
"""How many members a looped population holds at least. A GPU trains them side by side; a core gains nothing
by more.
"""
EQUAL = 1.05
"""Of sizes within this factor of the fastest, the one with the fewest members is taken: its results come
sooner.
"""
SECONDS = 0.2
"""A measurement takes as many steps as fit, at least one."""
LEAST_BUDGET, MOST_BUDGET, SHARE = 2.0, 20.0, 0.05
"""Seconds that measuring may take: this share of what the sweep is expected to take, within these bounds."""
CANNOT = (RuntimeError, ValueError, TypeError, IndexError, AttributeError)
"""What a module raises that cannot take the inputs, and vmap where it cannot map a module."""
MEMORY_SHARE = 0.8
"""Of a GPU's free memory."""
TEACHER_SEED = 9_999
Say = Callable[[str], None]


def choose(
    task: Task,
    dataset: Dataset,
    smoothings: Sequence[str],
    device: torch.device,
    seeds: int,
    execution: str = "auto",
    precision: Precision = "float32",
    *,
    most: int | None = None,
    say: Say = lambda _: None,
    remeasure: bool = False,
) -> Engine:
    """An engine that trains as `execution` pins it, see `plan.Execution`; what it leaves open, `kind_of` and
    the stopwatch decide.

    The data are put on the device here. `smoothings` are the names that members may use; trials of so many
    paired `seeds` are trained whole. `precision` is that of forward and backward passes; `most` is how many
    members there are to train, as many as fit where None. `say` gets a line when measuring begins, where it
    is not remembered; `remeasure` forgets what was.

    Errors: WrongInput where the data set does not have one of the smoothings, where the architecture cannot
    take its inputs, or where it is to be fused and cannot.
    """
    keep_freed_memory()
    batches = Batches.of(dataset, task.recipe, device)
    pinned = PinnedExecution.of(execution)
    shards = pinned.shards or (min(cores(), MOST_SHARDS) if device.type == "cpu" else 1)
    plain = {"uniform": uniform_over(dataset).to(device)}
    engine = Engine(
        task,
        batches.dataset,
        batches,
        plain,
        device,
        Execution(pinned.kind or "looped", precision, shards, pinned.members or 0),
    )
    key = autotune_key(task, dataset, seeds, device, execution, precision, shards, most)
    chosen = None if remeasure else recall(key)
    if chosen is None:
        say(
            f"{task.name}: measuring how many members to train at a time: {LEAST_BUDGET:g} s, or 5 % of the"
            f" sweep up to {MOST_BUDGET:g} s"
        )
        chosen = measured(engine, seeds, pinned, most)
        give_freed_memory_back()
        remember(key, chosen)
    engine = replace(engine, execution=chosen)
    teach = cache(partial(teacher_of, engine))
    return replace(
        engine, noises={name: noise_of(name, dataset, teach).to(device) for name in bases(smoothings)}
    )


def kind_of(module: nn.Module) -> ExecutionKind:
    """How members of a network are trained, by what it is made of: fused where it is small and of matrix
    products alone, else looped.

    The same on every machine: the two kinds agree to rounding only.
    """
    small = sum(one.numel() for one in module.parameters()) <= MOST_FUSED_PARAMETERS
    return "fused" if small and not any(map(is_serial, module.modules())) else "looped"


def is_serial(module: nn.Module) -> bool:
    """Whether members with such a module are faster one after another (docs/log/2026-11.md, 2026-11-30).

    A grouped convolution, which vmap makes of many, is slower than the single ones, and a gathered row costs
    the same alone. A convolution that reads each number once, as that of image patches, is a matrix product.
    """
    if isinstance(module, nn.modules.conv._ConvNd) and module.stride == module.kernel_size:
        return False
    return isinstance(module, SERIAL)


def measured(engine: Engine, seeds: int, pinned: PinnedExecution, most: int | None) -> Execution:
    """The way that is pinned or ruled, with the members at a time of shortest measured time per member and
    epoch. Errors: WrongInput.
    """
    task = engine.task
    try:
        module = network(task, engine.dataset)
        kind = pinned.kind or kind_of(module)
        first_steps(engine)
    except CANNOT as error:
        raise WrongInput(
            f"{task.architecture} cannot be trained on {engine.dataset.name}, whose inputs have shape"
            f" {engine.dataset.shape}: {error}"
        ) from error
    if kind == "fused" and (doubt := doubt_of(engine, Execution("fused", engine.execution.precision, 1, 5))):
        if pinned.kind:
            raise WrongInput(f"{task.architecture} cannot be fused: {doubt}. Use --execution looped or auto.")
        kind = "looped"
    execution = replace(engine.execution, kind=kind)
    parameters = sum(one.numel() for one in module.parameters())
    return fastest(
        engine,
        [replace(execution, members=size) for size in sizes(engine, kind, seeds, pinned, most, parameters)],
        seeds,
        most,
    )


def sizes(
    engine: Engine,
    kind: ExecutionKind,
    seeds: int,
    pinned: PinnedExecution,
    most: int | None,
    parameters: int,
) -> list[int]:
    """How many members may be trained at a time, the usual number first: whole trials, no shard with more
    than another, no more than there are.
    """
    if pinned.members:
        return [pinned.members]
    device, shards = engine.device.type, engine.execution.shards
    group = lcm(seeds, shards)

    def rounded(size: int) -> int:
        wanted = size if most is None else min(size, most)
        return max(1, -(-wanted // group)) * group

    if kind == "looped":
        return [rounded(LOOPED_MEMBERS[device])]
    usual = FUSED_MEMBERS[device][-1 if parameters <= SMALL else -2]
    return list(dict.fromkeys(rounded(size * shards) for size in (usual, *FUSED_MEMBERS[device])))


def fastest(engine: Engine, executions: Sequence[Execution], seeds: int, most: int | None) -> Execution:
    """The way of shortest measured time, of ways that are equal to the last bit; only the first where there
    is no time, or no memory, for more.
    """
    started = time.perf_counter()
    found: list[Execution] = []
    for execution in executions:
        if found and not affordable(engine, found[0], execution):
            continue
        before = time.perf_counter()
        found.append(measure(engine, execution, seeds, before + SECONDS))
        now = time.perf_counter()
        whole = found[0].seconds * engine.task.recipe.epochs * (most or execution.members)
        if now - started + 2 * (now - before) > max(LEAST_BUDGET, min(MOST_BUDGET, SHARE * whole)):
            break
    best = min(execution.seconds for execution in found)
    return min(
        (execution for execution in found if execution.seconds <= EQUAL * best),
        key=lambda execution: execution.members,
    )


def affordable(engine: Engine, known: Execution, execution: Execution) -> bool:
    """Whether a GPU has the memory for a way, by what another took there."""
    if engine.device.type != "cuda":
        return True
    per_member = torch.cuda.max_memory_allocated(engine.device) / known.members
    return execution.members * per_member <= MEMORY_SHARE * torch.cuda.mem_get_info(engine.device)[1]


def first_steps(engine: Engine) -> None:
    """Two steps of one looped member: what cannot be trained at all fails here."""
    recipe = engine.task.recipe
    member = Member(0.1, 0, recipe.learning_rate, recipe.weight_decay, next(iter(engine.noises)))
    population = replace(engine, execution=replace(engine.execution, kind="looped")).population([member])
    for inputs, labels, rows in islice(engine.batches.epoch([0], 0), 2):
        population.step(inputs, labels, 0.0, 0.0, rows)


def teacher_of(engine: Engine) -> Float[Tensor, "example class"]:
    """The logits of *train* of a member at ε = 0, with a seed that no stage of a sweep has. Errors:
    WrongInput where it diverged.
    """
    recipe = engine.task.recipe
    clip = math.inf if recipe.clip is None else recipe.clip
    trained = engine.train(
        [Member(0.0, TEACHER_SEED, recipe.learning_rate, recipe.weight_decay, clip=clip)], lambda _: None
    )
    if not trained.finite[0]:
        raise WrongInput(f"the teacher of {engine.task.name} diverged at ε = 0. Try a lower learning_rate.")
    return engine.logits(trained, "train")[0]


def doubt_of(engine: Engine, execution: Execution) -> str:
    """Why a fused population of this architecture would not hold its members' own numbers; "" where nothing
    is found.

    Five equal members take two steps. On a CPU they have to stay equal to the last bit, since then no kernel
    looks at a member's place among the others; and their buffers have to be those of a looped member.
    """
    try:
        with ThreadPoolExecutor(1, "shard", torch.set_num_threads, (1,)) as pool:
            return pool.submit(unlike, engine, execution).result()
    except CANNOT as error:  # vmap cannot map it
        return str(error).strip().partition("\n")[0] or type(error).__name__


def unlike(engine: Engine, execution: Execution) -> str:
    """What differs between fused members and a looped one, for `doubt_of`."""
    recipe = engine.task.recipe
    member = Member(0.1, 0, recipe.learning_rate, recipe.weight_decay, next(iter(engine.noises)))
    states = []
    for one, count in ((execution, 5), (replace(execution, kind="looped"), 1)):
        population = replace(engine, execution=one).population([member] * count)
        for inputs, labels, rows in islice(engine.batches.epoch([0], 0), 2):
            population.step(inputs, labels, 0.0, 0.0, rows)
        states.append(population.state())
    fused, looped = states
    for name, values in fused.items():
        if engine.device.type == "cpu" and not all(
            torch.equal(values[row], values[0]) for row in range(1, 5)
        ):
            return f"with kernels of this device, {name} depends on a member's place among the others"
        if name.startswith("buffer/") and not torch.allclose(
            values[0].double(), looped[name][0].double(), rtol=1e-2, atol=1e-4
        ):
            return f"{name} is not updated in place, so vmap does not see it"
    return ""


def measure(engine: Engine, execution: Execution, seeds: int, deadline: float) -> Execution:
    """The way with its seconds per member and epoch, scoring included, from the steps that fit before the
    deadline, at least one in each shard.
    """
    recipe = engine.task.recipe
    trial = [
        Member(0.1, seed, recipe.learning_rate, recipe.weight_decay, next(iter(engine.noises)))
        for seed in range(seeds)
    ]
    count = (
        execution.members
        if execution.kind == "fused"
        else min(execution.members, execution.shards * LOOPED_MEMBERS[engine.device.type])
    )
    training = replace(engine, execution=execution).begin((trial * -(-count // seeds))[:count])
    with ThreadPoolExecutor(len(training.shards), "shard", torch.set_num_threads, (1,)) as pool:
        seconds = list(pool.map(lambda shard: time_epoch(engine, shard, deadline), training.shards))
    return replace(execution, seconds=1 / sum(1 / one for one in seconds))


def time_epoch(engine: Engine, shard: Shard, deadline: float) -> float:
    """Seconds of an epoch per member of a shard, which the other shards' time is not part of."""
    population, batches, device = shard.population, engine.batches, engine.device
    population.begin(0)
    stream = chain.from_iterable(batches.epoch(population.seeds, epoch) for epoch in repeat(0))

    def step() -> None:
        inputs, labels, rows = next(stream)
        population.step(inputs, labels, 0.0, 0.0, rows)

    step()
    started, steps = clock(device), 0
    while steps < 1 or clock(device) < deadline:
        step()
        steps += 1
    epoch = (clock(device) - started) / steps * batches.steps
    inputs, _ = next(batches.chunks("select", EVALUATION_CHUNK[device.type]))
    started = clock(device)
    population.logits(inputs)
    scored = len(batches.labels["select"]) + len(batches.labels["calibrate"])
    return (epoch + (clock(device) - started) * scored / len(inputs)) / len(shard.rows)


def clock(device: torch.device) -> float:
    """Seconds, after everything queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
