"""Populations against the loop that everybody writes, and members against themselves in other company."""

import math
import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from sweeps.errors import WrongInput
from sweeps.training.checkpoint import Checkpoint
from sweeps.training.member import Member
from sweeps.training.population import FusedPopulation, LoopedPopulation, learning_rate_at
from sweeps.training.randomness import stream
from sweeps.training.smoothing_kinds import SmoothingNoise

CPU = torch.device("cpu")
STEPS = 6
NOISES = {
    "uniform": SmoothingNoise(torch.full((5,), 0.2, dtype=torch.float64)),
    "prior": SmoothingNoise(torch.tensor([0.4, 0.1, 0.2, 0.25, 0.05], dtype=torch.float64)),
    "similar": SmoothingNoise(
        torch.tensor([[0.2, 0.3, 0.1, 0.25, 0.15]], dtype=torch.float64).repeat(5, 1).roll(1, 1)
    ),
}
KINDS = [FusedPopulation, LoopedPopulation]


def perceptron():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(36, 9), nn.ReLU(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 5)
    )


def dropping():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(36, 9), nn.Dropout(0.3), nn.ReLU(), nn.Dropout(0.1), nn.Linear(9, 5)
    )


class Convolutional(nn.Module):
    """Convolutions, BatchNorm, pooling and dropout of whole channels."""

    def __init__(self, channels=4, normalised=True):
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, padding=1, bias=not normalised)
        self.norm = nn.BatchNorm2d(channels) if normalised else nn.Identity()
        self.second = nn.Conv2d(channels, 6, 3, stride=2, bias=False)
        self.drop = nn.Dropout2d(0.2) if normalised else nn.Identity()
        self.last = nn.Linear(6, 5)

    def forward(self, inputs):
        hidden = nn.functional.max_pool2d(torch.relu(self.norm(self.first(inputs))), 2)
        return self.last(self.drop(self.second(hidden)).flatten(2).mean(2))


def plain_convolutional():
    return Convolutional(normalised=False)


def batches(seeds, steps=STEPS):
    """A batch per step and seed; the seed alone decides its batches."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for _ in range(steps):
        inputs = torch.stack([torch.randn(7, 1, 6, 6, generator=generator) for generator in generators])
        yield (
            inputs,
            torch.stack([torch.randint(0, 5, (7,), generator=generator) for generator in generators]),
        )


def trained(kind, members, make, optimiser="adamw", steps=STEPS):
    population = kind(members, make, NOISES, CPU, optimiser)
    losses = []
    for step, (inputs, labels) in enumerate(batches(population.seeds, steps)):
        losses.append(population.step(inputs, labels, learning_rate_at(step, STEPS)))
    return population, torch.stack(losses)


def textbook(member, make, optimiser="adamw"):
    """One model, torch's own optimiser, soft targets. Dropout is not in it: its random numbers are ours."""
    torch.manual_seed(member.seed)
    model = make()
    if optimiser == "adamw":
        stepper = torch.optim.AdamW(
            model.parameters(), lr=member.learning_rate, weight_decay=member.weight_decay
        )
    else:
        stepper = torch.optim.SGD(
            model.parameters(), member.learning_rate, 0.9, weight_decay=member.weight_decay, nesterov=True
        )
    noise = NOISES[member.smoothing].table.float()
    for step, (inputs, labels) in enumerate(batches([member.seed])):
        onehot = nn.functional.one_hot(labels[0], 5).float()
        target = (1 - member.epsilon) * onehot + member.epsilon * (
            noise if noise.ndim == 1 else noise[labels[0]]
        )
        stepper.param_groups[0]["lr"] = member.learning_rate * learning_rate_at(step, STEPS)
        stepper.zero_grad()
        nn.functional.cross_entropy(model(inputs[0]), target).backward()
        nn.utils.clip_grad_norm_(model.parameters(), member.clip)
        stepper.step()
    return model


MEMBERS = [
    Member(0.0, 3, 0.02, 0.1),
    Member(0.15, 3, 0.02, 0.1, clip=0.2),
    Member(0.4, 8, 0.02, 0.1, "prior"),
    Member(0.1, 8, 0.005, 0.1),
    Member(0.2, 11, 0.01, 0.3, "similar", clip=0.6),
    Member(0.3, 3, 0.01, 0.0, "prior"),
    Member(0.3, 4, 0.01, 0.1),
]
IMAGES = torch.randn(11, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def one_thread():
    """As in a shard of the engine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize(("make", "tolerance"), [(perceptron, 1e-5), (plain_convolutional, 1e-4)])
def test_every_member_is_trained_as_by_the_textbook_loop(kind, optimiser, make, tolerance):
    population, _ = trained(kind, MEMBERS, make, optimiser)
    for row, member in zip(population.logits(IMAGES), MEMBERS, strict=True):
        torch.testing.assert_close(
            row, textbook(member, make, optimiser)(IMAGES).detach(), atol=tolerance, rtol=1e-4
        )


@pytest.mark.parametrize("kind", KINDS)
def test_batch_normalisation_has_the_statistics_of_each_member(kind):
    make = lambda: nn.Sequential(  # noqa: E731
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    )
    population, _ = trained(kind, MEMBERS, make, "sgd")
    state = population.state()
    for row, member in enumerate(MEMBERS):
        model = textbook(member, make, "sgd")
        for name, expected in model.named_buffers():
            torch.testing.assert_close(state[f"buffer/{name}"][row], expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            population.logits(IMAGES)[row], model.eval()(IMAGES).detach(), atol=1e-4, rtol=1e-4
        )
    assert (state["buffer/1.num_batches_tracked"] == STEPS).all()
    assert len(state["buffer/1.running_mean"].unique(dim=0)) == len(MEMBERS)


@pytest.mark.parametrize("make", [perceptron, dropping, Convolutional])
def test_both_kinds_agree(make):
    fused, looped = (trained(kind, MEMBERS, make, "sgd")[0].state() for kind in KINDS)
    assert fused.keys() == looped.keys()
    for name, values in fused.items():
        torch.testing.assert_close(values, looped[name], atol=1e-5, rtol=1e-4, check_dtype=False)


@pytest.mark.parametrize("make", [perceptron, dropping, Convolutional, plain_convolutional])
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_member_is_bitwise_the_same_in_any_company(make, optimiser):
    whole = trained(FusedPopulation, MEMBERS, make, optimiser)[0]
    state, logits = whole.state(), whole.logits(IMAGES)
    chance = random.Random(5)
    for size in (1, 2, 3, 5, 7, 7):
        rows = chance.sample(range(len(MEMBERS)), size)
        part = trained(FusedPopulation, [MEMBERS[row] for row in rows], make, optimiser)[0]
        for name, values in part.state().items():
            assert torch.equal(values, state[name][rows]), name
        assert torch.equal(part.logits(IMAGES), logits[rows])


def test_wide_members_too():
    make = lambda: nn.Sequential(  # noqa: E731
        nn.Flatten(), nn.Linear(36, 64), nn.ReLU(), nn.Linear(64, 33), nn.GELU(), nn.Linear(33, 5)
    )
    state = trained(FusedPopulation, MEMBERS, make)[0].state()
    alone = trained(FusedPopulation, MEMBERS[4:5], make)[0].state()
    assert all(torch.equal(values[0], state[name][4]) for name, values in alone.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_compacted_population_goes_on_as_if_nobody_had_been_dropped(kind):
    stay = [4, 0, 3]
    whole = kind(MEMBERS, dropping, NOISES, CPU)
    for step, (inputs, labels) in enumerate(batches(whole.seeds)):
        whole.step(inputs, labels, learning_rate_at(step, STEPS))
    dropped = kind(MEMBERS, dropping, NOISES, CPU)
    for step, (inputs, labels) in enumerate(batches(dropped.seeds)):
        if step == 3:
            streams = dict(zip(dropped.seeds, dropped.streams, strict=True))
            rows = [dropped.seeds.index(seed) for seed in sorted({MEMBERS[row].seed for row in stay})]
            dropped = dropped.kept(stay)
            dropped.streams = [streams[seed] for seed in dropped.seeds]
        if step >= 3:
            inputs, labels = inputs[rows], labels[rows]
        dropped.step(inputs, labels, learning_rate_at(step, STEPS))
    assert dropped.members == tuple(MEMBERS[row] for row in stay)
    for name, values in whole.state().items():
        assert torch.equal(dropped.state()[name], values[stay]), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_checkpoint_goes_on_to_the_same_bits(kind, optimiser, tmp_path):
    whole = trained(kind, MEMBERS, Convolutional, optimiser)[0]
    half = trained(kind, MEMBERS, Convolutional, optimiser, steps=3)[0]
    path = tmp_path / "half.safetensors"
    curves = {"train_loss": torch.rand(2, 7)}
    Checkpoint("seven", tuple(range(7)), half.state(), curves, torch.full((7,), 2)).write(path)
    saved = Checkpoint.read(path)
    assert saved.rows == tuple(range(7))
    assert torch.equal(saved.curves["train_loss"], curves["train_loss"])
    resumed = kind(MEMBERS, Convolutional, NOISES, CPU, optimiser)
    resumed.load(saved.state)
    resumed.streams = half.streams
    for step, (inputs, labels) in enumerate(batches(resumed.seeds)):
        if step >= 3:
            resumed.step(inputs, labels, learning_rate_at(step, STEPS))
    for name, values in whole.state().items():
        assert torch.equal(resumed.state()[name], values), name
    assert [file.name for file in tmp_path.iterdir()] == ["half.safetensors"]


def test_a_checkpoint_of_another_kind_of_population_can_be_taken_over():
    fused = trained(FusedPopulation, MEMBERS, Convolutional)[0]
    looped = LoopedPopulation(MEMBERS, Convolutional, NOISES, CPU)
    looped.load(fused.state())
    assert all(torch.equal(values, looped.state()[name]) for name, values in fused.state().items())
    torch.testing.assert_close(looped.logits(IMAGES), fused.logits(IMAGES), atol=1e-5, rtol=1e-5)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "broken"
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00not json")
    with pytest.raises(WrongInput, match=r"broken is no checkpoint of a training: .* Delete it"):
        Checkpoint.read(path)
    saved = Checkpoint(
        "these",
        (0,),
        {"steps": torch.ones(1), "momentum/a": torch.ones(1)},
        {},
        torch.ones(1, dtype=torch.int64),
    )
    saved.check("these", ["steps", "momentum/a"])
    with pytest.raises(WrongInput, match="of another training: these; this one is those"):
        saved.check("those", ["steps", "momentum/a"])
    with pytest.raises(WrongInput, match="do not both have: first/a, momentum/a"):
        saved.check("these", ["steps", "first/a"])


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_drops_by_the_seed_and_keeps_the_mean(kind):
    rate = replace(MEMBERS[0], learning_rate=0.0, weight_decay=0.0)
    members = [rate, replace(rate, epsilon=0.3), replace(rate, seed=9)]
    make = lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.25), Seen())  # noqa: E731
    population = kind(members, make, NOISES, CPU)
    inputs, labels = torch.ones(2, 40, 25), torch.zeros(2, 40, dtype=torch.int64)
    population.begin(4)
    seen = {}
    for seed, generator in ((3, stream(3, 4, "dropout")), (9, stream(9, 4, "dropout"))):
        kept = torch.rand(40, 25, generator=generator) >= 0.25
        seen[seed] = kept.float().mean(1) / 0.75
    losses = population.step(inputs, labels, 1.0)
    expected = [
        nn.functional.cross_entropy(logits_of(seen[member.seed]), labels[0], label_smoothing=member.epsilon)
        for member in members
    ]
    torch.testing.assert_close(losses, torch.stack(expected).detach(), atol=1e-6, rtol=1e-5)
    assert population.logits(inputs[0]).unique().numel() <= 5  # nothing is dropped in evaluation


class Seen(nn.Module):
    """Logits that tell the mean of what a module sees."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, inputs):
        return self.scale * logits_of(inputs.mean(-1))


def logits_of(mean):
    return mean.unsqueeze(-1) * torch.arange(5.0)


class Noisy(nn.Module):
    """Draws random numbers of its own, as stochastic depth does."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(36, 5)

    def forward(self, inputs):
        inputs = inputs.flatten(1)
        return self.last(inputs + torch.randn(inputs.shape) if self.training else inputs)


def test_a_module_with_random_numbers_of_its_own_is_looped_and_repeats_them_by_seed():
    whole = trained(LoopedPopulation, MEMBERS, Noisy)[0].state()
    torch.rand(100)
    part = trained(LoopedPopulation, MEMBERS[3:], Noisy)[0].state()
    assert all(torch.equal(values, whole[name][3:]) for name, values in part.items())
    assert not torch.allclose(
        whole["parameter/last.weight"][0], textbook(MEMBERS[0], Noisy).last.weight, atol=1e-3
    )
    with pytest.raises(RuntimeError, match="random"):
        trained(FusedPopulation, MEMBERS, Noisy)


class Viewing(nn.Module):
    """Takes a view of what a convolution yields: torch's own memory order is needed."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.last = nn.Linear(64, 5)

    def forward(self, inputs):
        hidden = torch.relu(self.first(inputs))
        return self.last(hidden.view(len(hidden), -1))


def volumes():
    """A convolution over volumes: its parameters have five dimensions."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 4, (1, 3, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    )


class ByKeyword(nn.Module):
    """Calls its layers' functions with names, and shares a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 36) / 6)
        self.register_buffer("shift", torch.arange(5.0))

    def forward(self, inputs):
        hidden = nn.functional.linear(inputs.flatten(1), weight=self.weight, bias=self.shift)
        return nn.functional.linear(hidden @ self.weight, self.weight)


@pytest.mark.parametrize("make", [Viewing, volumes, ByKeyword])
@pytest.mark.parametrize("kind", KINDS)
def test_unusual_modules_are_trained_as_by_the_textbook_loop(kind, make):
    population, _ = trained(kind, MEMBERS, make, "sgd")
    for row, member in zip(population.logits(IMAGES), MEMBERS, strict=True):
        torch.testing.assert_close(row, textbook(member, make, "sgd")(IMAGES).detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_which_are_frozen_stay(kind):
    def make():
        module = perceptron()
        module[1].requires_grad_(False)
        return module

    population, _ = trained(kind, MEMBERS, make)
    state = population.state()
    for row, member in enumerate(MEMBERS):
        torch.manual_seed(member.seed)
        assert torch.equal(state["buffer/1.weight"][row], make()[1].weight)
    assert "parameter/1.weight" not in state
    assert "first/3.weight" in state


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [perceptron, Convolutional])
def test_bfloat16_trains_as_float32_does_to_its_precision(kind, make):
    rough = kind(MEMBERS, make, NOISES, CPU, "sgd", torch.bfloat16)
    for step, (inputs, labels) in enumerate(batches(rough.seeds)):
        losses = rough.step(inputs, labels, learning_rate_at(step, STEPS))
    exact, found = trained(kind, MEMBERS, make, "sgd")
    assert losses.dtype == rough.logits(IMAGES).dtype == torch.float32
    torch.testing.assert_close(losses, found[-1], atol=0.05, rtol=0.05)
    assert not torch.equal(losses, found[-1])
    for name, values in rough.state().items():
        assert values.dtype == exact.state()[name].dtype


def test_seeds_are_paired_across_epsilon_and_differ_otherwise():
    population = FusedPopulation(MEMBERS, perceptron, NOISES, CPU)
    state = population.state()
    assert torch.equal(state["parameter/1.weight"][0], state["parameter/1.weight"][1])
    assert not torch.allclose(state["parameter/1.weight"][0], state["parameter/1.weight"][2])
    logits = population.logits(IMAGES)
    assert torch.equal(logits[0], logits[5])


def test_a_population_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained(LoopedPopulation, MEMBERS, dropping)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [perceptron, Convolutional])
def test_nan_in_one_member_stays_there(kind, make):
    wild = Member(0.15, 3, 1e38, 0.1)
    population, losses = trained(kind, [*MEMBERS[:3], wild, *MEMBERS[3:]], make)
    healthy, _ = trained(kind, MEMBERS, make)
    others = [0, 1, 2, 4, 5, 6, 7]
    assert not losses[:, 3].isfinite().all()
    assert losses[:, others].isfinite().all()
    for name, values in healthy.state().items():
        assert torch.equal(population.state()[name][others], values), name


def test_a_gradient_is_clipped_to_the_members_own_norm():
    free, clipped = Member(0.0, 3, 1.0, 0.0), Member(0.0, 3, 1.0, 0.0, clip=0.01)
    before = FusedPopulation([free, clipped], perceptron, NOISES, CPU, "sgd").state()
    after = trained(FusedPopulation, [free, clipped], perceptron, "sgd", steps=1)[0].state()
    moved = [
        math.sqrt(
            sum(
                float((after[name][row] - before[name][row]).square().sum())
                for name in after
                if name.startswith("parameter")
            )
        )
        for row in range(2)
    ]
    rate = learning_rate_at(0, STEPS) * 1.9  # Nesterov's first step is 1 + 0.9 gradients
    assert moved[1] == pytest.approx(0.01 * rate, rel=1e-3)
    assert moved[0] > 5 * moved[1]


def test_learning_rate_rises_then_falls_to_nothing():
    rates = [learning_rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1
    assert all(later <= earlier for earlier, later in zip(rates[10:], rates[11:], strict=False))
    assert rates[-1] < 1e-3
