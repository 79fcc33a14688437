import json
import math
import time
from dataclasses import asdict, fields, replace

import pytest
import torch
from torch import nn

from lscal import METRICS, Predictions, Temperature
from sweeps.data.dataset import Dataset, Split
from sweeps.data.load import load
from sweeps.devices import cores, pick_device
from sweeps.errors import WrongInput
from sweeps.models.builtin import ARCHITECTURES
from sweeps.models.registry import Architecture
from sweeps.settings import resolve
from sweeps.task import PinnedExecution
from sweeps.training.autotune import choose, fastest, kind_of, sizes
from sweeps.training.batches import Batches, ResidentBatches
from sweeps.training.execution import Execution, cache, recall, remember
from sweeps.training.member import Member
from sweeps.training.trial_checkpoints import TrialCheckpoints

CPU = torch.device("cpu")
FUSED, LOOPED = Execution("fused", "float32", 2, 8), Execution("looped", "float32", 2, 8)
MEMBERS = [Member(epsilon, seed, 3e-3, 1e-2) for epsilon in (0.0, 0.2, 0.3) for seed in (0, 1, 2)]


def nothing(_):
    """Progress that nobody sees."""


@pytest.fixture(scope="module")
def engine():
    return replace(
        choose(resolve({"epochs": 4}).tasks[0], load("digits"), ("uniform",), CPU, 2, "fused"),
        execution=FUSED,
    )


def test_trained_members_have_curves_and_logits(engine):
    told = []
    trained = engine.train(MEMBERS, told.append)
    assert told == [9] * 4
    assert trained.finite == (True,) * 9
    assert trained.epochs == (4,) * 9
    assert sorted(row for shard in trained.shards for row in shard.rows) == list(range(9))
    logits = engine.logits(trained, "select")
    assert logits.shape == (9, 271, 10)
    predictions = Predictions.from_logits(logits, engine.dataset.splits["select"].labels)
    for name in ("accuracy", "nll", "ece"):
        torch.testing.assert_close(
            trained.curves[f"select_{name}"][-1].double(),
            METRICS[name].function(predictions),
            atol=1e-6,
            rtol=1e-5,
        )
    temperature = Temperature.fit(
        engine.logits(trained, "calibrate"), engine.dataset.splits["calibrate"].labels
    )
    expected = METRICS["nll"].function(predictions.calibrated(temperature))
    torch.testing.assert_close(
        trained.curves["select_nll_calibrated"][-1].double(), expected, atol=1e-6, rtol=1e-5
    )
    assert trained.curves["select_nll_calibrated"][:-1].isnan().all()
    assert (trained.curves["train_loss"][-1] < trained.curves["train_loss"][0]).all()


@pytest.mark.parametrize("execution", [FUSED, LOOPED])
def test_numbers_do_not_depend_on_how_many_cores_there_are(engine, execution):
    logits = []
    for shards in (1, 2, 3):
        one = replace(engine, execution=replace(execution, shards=shards))
        logits.append(one.logits(one.train(MEMBERS, nothing), "test"))
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])


def test_both_ways_agree(engine):
    fused, looped = (
        one.logits(one.train(MEMBERS, nothing), "test") for one in (engine, replace(engine, execution=LOOPED))
    )
    torch.testing.assert_close(fused, looped, atol=1e-4, rtol=1e-4)


def test_a_diverged_member_is_marked(engine):
    trained = engine.train(
        [Member(0.1, 0, 3e-3, 0.0), Member(0.1, 0, 1e38, 0.0), Member(0.2, 1, 3e-3, 0.0)], nothing
    )
    assert trained.finite == (True, False, True)


def test_members_dropped_at_a_rung_change_nobody_else(engine):
    whole = engine.train(MEMBERS, nothing)
    told, seen = [], []

    def rung(curves):
        seen.append({name: tuple(values.shape) for name, values in curves.items()})
        return [row not in (0, 4, 5) for row in range(9)]

    trained = engine.train(MEMBERS, told.append, {2: rung})
    assert told == [9, 9, 6, 6]
    assert seen == [dict.fromkeys(whole.curves, (2, 9))]
    assert trained.epochs == (2, 4, 4, 4, 2, 2, 4, 4, 4)
    assert trained.finite == (True,) * 9
    stay = [1, 2, 3, 6, 7, 8]
    assert torch.equal(engine.logits(trained, "select")[stay], engine.logits(whole, "select")[stay])
    assert engine.logits(trained, "select")[[0, 4, 5]].isnan().all()
    for name, values in trained.curves.items():
        assert values[2:, [0, 4, 5]].isnan().all()
        assert values[:2].isfinite().all()
        if name != "select_nll_calibrated":
            assert torch.equal(values[:, stay], whole.curves[name][:, stay])


def test_all_members_may_be_dropped(engine):
    trained = engine.train(MEMBERS, nothing, {1: lambda _: [False] * 9})
    assert trained.epochs == (1,) * 9
    assert trained.shards == ()


class Killed(BaseException):
    """What ends a training in the middle."""


@pytest.mark.parametrize("other", [FUSED, LOOPED, replace(FUSED, shards=3)])
def test_a_training_goes_on_from_its_checkpoint_to_the_same_bits(engine, other, tmp_path):
    """On the way that it began on, also over another number of cores; on the other way to rounding."""

    def checkpoints(members=MEMBERS):
        return TrialCheckpoints(
            tmp_path,
            {"one": members[:3], "two": members[3:]},
            engine.identity,
            said.append,
            seconds=0,
            share=math.inf,
        )

    said = []
    rungs = {2: lambda _: [row != 3 for row in range(9)]}
    whole = engine.train(MEMBERS, nothing, rungs)
    epochs = iter((None, None, Killed()))

    def killed(_):
        if error := next(epochs):
            raise error

    with pytest.raises(Killed):
        engine.train(MEMBERS, killed, rungs, checkpoints())
    told = []
    resumed = replace(engine, execution=other).train(MEMBERS, told.append, rungs, checkpoints())
    assert told == [18, 8, 8]
    assert resumed.epochs == whole.epochs
    one, two = engine.logits(whole, "test"), engine.logits(resumed, "test")
    torch.testing.assert_close(
        one,
        two,
        equal_nan=True,
        **({"atol": 1e-4, "rtol": 1e-4} if other is LOOPED else {"atol": 0, "rtol": 0}),
    )
    assert not said
    assert checkpoints(MEMBERS[::-1]).read(()) is None
    assert "of another training" in said[0]


def test_an_interruption_ends_the_lanes_in_the_middle_of_an_epoch(engine):
    long = replace(engine, task=replace(engine.task, recipe=replace(engine.task.recipe, batch_size=1)))
    counts = {}

    class Watched(type(engine.batches)):
        """The second shard's third batch interrupts; the first shard has 629 of them."""

        def epoch(self, seeds, epoch):
            for batch in super().epoch(seeds, epoch):
                counts[seeds] = counts.get(seeds, 0) + 1
                if seeds == (7,) and counts[seeds] == 3:
                    raise Killed
                yield batch

    batches = Batches.of(long.dataset, long.task.recipe, CPU)
    watched = Watched(**{name: getattr(batches, name) for name in batches.__dataclass_fields__})
    members = [Member(0.1, seed, 3e-3, 1e-2) for seed in (0, 7)]
    with pytest.raises(Killed):
        replace(long, batches=watched).train(members, nothing)
    assert counts[(0,)] < 300


class Noisy(nn.Module):
    """Draws random numbers of its own."""

    def __init__(self, shape, classes):
        super().__init__()
        self.last = nn.Linear(shape[-1] ** 2, classes)

    def forward(self, inputs):
        inputs = inputs.flatten(1)
        return self.last(nn.functional.alpha_dropout(inputs, 0.2, self.training))


class Narrow(nn.Module):
    """BatchNorm over few numbers: its kernel treats members by their place."""

    def __init__(self, shape, classes):
        super().__init__()
        self.first, self.norm, self.last = (
            nn.Linear(shape[-1] ** 2, 33),
            nn.BatchNorm1d(33),
            nn.Linear(33, classes),
        )

    def forward(self, inputs):
        return self.last(torch.relu(self.norm(self.first(inputs.flatten(1)))))


class Assigning(nn.Module):
    """Assigns its buffer instead of changing it in place."""

    def __init__(self, shape, classes):
        super().__init__()
        self.last = nn.Linear(shape[-1] ** 2, classes)
        self.register_buffer("mean", torch.zeros(shape[-1] ** 2))

    def forward(self, inputs):
        inputs = inputs.flatten(1)
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * inputs.mean(0)
        return self.last(inputs - self.mean)


@pytest.fixture
def brought(monkeypatch):
    """Adds an architecture for a test, and returns its task."""

    def bring(module):
        name = module.__name__.lower()
        monkeypatch.setitem(ARCHITECTURES, name, Architecture(name, module, {}))
        return resolve({"tasks": [f"digits/{name}"], "epochs": 2}).tasks[0]

    return bring


def test_a_module_with_random_numbers_of_its_own_is_looped_and_repeatable_over_lanes(brought):
    chosen = choose(brought(Noisy), load("digits"), ("uniform",), CPU, 3)
    assert chosen.execution.kind == "looped"
    logits = []
    for shards in (1, 2, 3, 3):
        one = replace(chosen, execution=replace(chosen.execution, shards=shards))
        logits.append(one.logits(one.train(MEMBERS, nothing), "test"))
    assert all(torch.equal(logits[0], other) for other in logits[1:])
    with pytest.raises(WrongInput, match="noisy cannot be fused: vmap: .*random"):
        choose(brought(Noisy), load("digits"), ("uniform",), CPU, 3, "fused")


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Narrow, "depends on a member's place among the others"),
        (Assigning, "buffer/mean is not updated in place"),
    ],
)
def test_a_module_whose_members_would_not_be_their_own_is_not_fused(brought, module, why):
    with pytest.raises(WrongInput, match=why):
        choose(brought(module), load("digits"), ("uniform",), CPU, 3, "fused")


def test_lanes_leave_the_global_random_state_alone(engine):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    replace(engine, execution=replace(LOOPED, shards=4)).train(MEMBERS, nothing)
    assert torch.equal(torch.rand(3), expected)


def test_what_the_engine_is_given_is_checked(engine, tmp_path):
    with pytest.raises(ValueError, match="no members to train"):
        engine.train([], nothing)
    with pytest.raises(ValueError, match="a rung returned 2 verdicts; members are 9"):
        engine.train(MEMBERS, nothing, {1: lambda _: [True, False]})
    alone = engine.train(MEMBERS[:1], nothing)
    assert torch.equal(
        engine.logits(alone, "test")[0], engine.logits(engine.train(MEMBERS, nothing), "test")[0]
    )


def test_what_cannot_be_trained_is_told_before():
    plan = resolve({"tasks": ["digits/cnn"]})
    digits = load("digits")
    flat = {name: Split(split.inputs.reshape(-1, 64), split.labels) for name, split in digits.splits.items()}
    broken = Dataset("flat", flat, digits.classes, digits.mean, digits.deviation, "x", "here")
    with pytest.raises(WrongInput, match=r"cnn cannot be trained on flat, whose inputs have shape \(64,\)"):
        choose(plan.tasks[0], broken, ("uniform",), CPU, 2)


@pytest.mark.parametrize("mode", ["fused", "looped"])
def test_a_way_can_be_asked_for_and_is_remembered(mode):
    task = resolve({"epochs": 4}).tasks[0]
    cache().unlink(missing_ok=True)
    chosen = choose(task, load("digits"), ("uniform",), CPU, 3, mode).execution
    assert chosen.kind == mode
    assert chosen.shards == min(8, cores())
    assert chosen.members % 3 == 0
    assert chosen.seconds > 0
    assert choose(task, load("digits"), ("uniform",), CPU, 3, mode).execution == chosen
    assert choose(task, load("digits"), ("uniform",), CPU, 4, mode).execution != chosen
    fewer = choose(task, load("digits", None, 100), ("uniform",), CPU, 3, mode).execution
    assert fewer != chosen  # what is remembered of few examples says nothing about many
    said: list[str] = []
    choose(task, load("digits"), ("uniform",), CPU, 3, mode, say=said.append)
    assert not said
    choose(task, load("digits"), ("uniform",), CPU, 3, mode, say=said.append, remeasure=True)
    assert len(said) == 1


def test_the_kind_is_ruled_by_the_network_and_never_measured():
    """The two kinds agree to rounding only, so the choice must not depend on how busy a machine is."""
    kinds = {name: kind_of(ARCHITECTURES[name].build((1, 8, 8), 10)) for name in ("mlp", "cnn", "vit")}
    assert kinds == {"mlp": "fused", "cnn": "looped", "vit": "fused"}
    assert kind_of(nn.Linear(1000, 999)) == "fused"
    assert kind_of(nn.Linear(1000, 1001)) == "looped"
    assert kind_of(nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2))) == "looped"


def test_a_pinned_execution_is_taken_as_it_is():
    task = resolve({"epochs": 4}).tasks[0]
    execution = choose(task, load("digits"), ("uniform",), CPU, 3, "fused:6:3").execution
    assert (execution.kind, execution.members, execution.shards) == ("fused", 6, 3)
    assert PinnedExecution.of("auto") == PinnedExecution()
    assert PinnedExecution.of("looped:8") == PinnedExecution("looped", 8)
    for wrong in ("fast", "fused:", "fused:0", "looped:8:0", "fused:8:2:1", "fused:-1"):
        with pytest.raises(WrongInput, match=f"execution is '{wrong}'; allowed are auto"):
            resolve({"execution": wrong})


def test_measuring_keeps_its_budget_and_trains_no_more_members_than_there_are(engine):
    """Given a way that takes its time, when sizes are measured, then only the usual one is."""
    sizes_tried = sizes(engine, "fused", 8, PinnedExecution(), 16, 20_000)
    assert sizes_tried == [16]
    assert sizes(engine, "fused", 8, PinnedExecution(), None, 20_000)[0] == 32 * engine.execution.shards
    executions = [replace(FUSED, members=size) for size in (6, 2, 4)]
    slow = replace(
        engine,
        batches=Slow(**{one.name: getattr(engine.batches, one.name) for one in fields(engine.batches)}),
    )
    started = time.perf_counter()
    assert fastest(slow, executions, 2, 6).members == 6
    assert time.perf_counter() - started < 6


class Slow(ResidentBatches):
    """A feed that takes its time for every batch."""

    def stored(self, split, order, size):
        for part in super().stored(split, order, size):
            time.sleep(0.7)
            yield part


def test_a_spoilt_memory_of_ways_is_ignored(unchecked):
    good = replace(FUSED, seconds=0.5)
    remember("a", good)
    assert recall("a") == good
    for wrong in ({"kind": "melted"}, {"precision": "float8"}, {"shards": 0}, {"members": "8"}):
        cache().write_text(json.dumps({"a": asdict(good) | wrong}))
        assert recall("a") is None
    cache().write_text('{"a": {"kind": "fused"}, "b": 3}')
    assert recall("a") is None
    assert recall("b") is None
    cache().write_text("[1")
    assert recall("a") is None
    remember("a", good)
    assert recall("a") == good


def test_devices():
    assert pick_device("cpu").type == "cpu"
    for name in ("gpu", "mps", "cuda:99"):
        with pytest.raises(WrongInput, match="allowed are|is not there"):
            pick_device(name)
