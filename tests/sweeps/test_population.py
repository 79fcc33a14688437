"""Populations against the loop which everybody writes."""

import pytest
import torch
from torch import nn

from sweeps.population import FusedPopulation, LoopedPopulation, Member, learning_rate_at

CPU = torch.device("cpu")
NOISE = torch.full((5,), 0.2, dtype=torch.float64)
PRIOR = torch.tensor([0.4, 0.1, 0.2, 0.25, 0.05], dtype=torch.float64)


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 5))


def build_images():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 9, 5))


def batches(seeds, steps=6, shape=(12,)):
    """A batch per step and seed; the seed alone decides its batches."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for _ in range(steps):
        inputs = torch.stack([torch.randn(7, *shape, generator=generator) for generator in generators])
        yield inputs, torch.stack([torch.randint(0, 5, (7,), generator=generator) for generator in generators])


def trained(kind, members, noise=NOISE, make=build, shape=(12,)):
    population = kind(members, make, noise, CPU)
    losses = []
    for step, (inputs, labels) in enumerate(batches(population.seeds, shape=shape)):
        losses.append(population.step(inputs, labels, learning_rate_at(step, 6)))
    return population, torch.stack(losses)


def textbook(member, noise=NOISE, make=build, shape=(12,)):
    torch.manual_seed(member.seed)
    model = make()
    optimiser = torch.optim.AdamW(model.parameters(), lr=member.learning_rate, weight_decay=member.weight_decay)
    for step, (inputs, labels) in enumerate(batches([member.seed], shape=shape)):
        onehot = nn.functional.one_hot(labels[0], 5).float()
        target = (1 - member.epsilon) * onehot + member.epsilon * noise.float()
        optimiser.param_groups[0]["lr"] = member.learning_rate * learning_rate_at(step, 6)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs[0]), target).backward()
        optimiser.step()
    return model


MEMBERS = [Member(epsilon, seed, 0.02, 0.1) for epsilon in (0.0, 0.15, 0.4) for seed in (3, 8)]
OWN_RATES = [Member(0.1, 3, 0.02, 0.1), Member(0.1, 3, 0.005, 0.1), Member(0.3, 8, 0.02, 0.0)]
PROBE = torch.randn(11, 12, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(11, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [FusedPopulation, LoopedPopulation])
@pytest.mark.parametrize("members", [MEMBERS, OWN_RATES])
@pytest.mark.parametrize("noise", [NOISE, PRIOR])
def test_every_member_is_trained_as_by_the_textbook_loop(kind, members, noise):
    population, _ = trained(kind, members, noise)
    logits = population.logits(PROBE)
    for row, member in zip(logits, members, strict=True):
        torch.testing.assert_close(row, textbook(member, noise)(PROBE).detach(), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [FusedPopulation, LoopedPopulation])
def test_convolutions_too(kind):
    population, _ = trained(kind, MEMBERS, make=build_images, shape=(1, 6, 6))
    logits = population.logits(IMAGES)
    for row, member in zip(logits, MEMBERS, strict=True):
        torch.testing.assert_close(row, textbook(member, make=build_images, shape=(1, 6, 6))(IMAGES).detach(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", [FusedPopulation, LoopedPopulation])
def test_a_member_alone_equals_itself_among_others(kind):
    among, _ = trained(kind, MEMBERS)
    for index, member in enumerate(MEMBERS):
        alone, _ = trained(kind, [member])
        torch.testing.assert_close(alone.logits(PROBE)[0], among.logits(PROBE)[index], atol=1e-5, rtol=1e-5)


def test_seeds_are_paired_across_epsilon_and_differ_otherwise():
    population = FusedPopulation(MEMBERS, build, NOISE, CPU)
    for stacked in population.parameters.values():
        assert torch.equal(stacked[0], stacked[2])
        assert torch.equal(stacked[1], stacked[5])
    logits = population.logits(PROBE)
    # batched matrix products may round otherwise where a slice is aligned otherwise in memory
    torch.testing.assert_close(logits[0], logits[2], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(logits[0], logits[1])


def test_a_population_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained(LoopedPopulation, MEMBERS)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("kind", [FusedPopulation, LoopedPopulation])
def test_nan_in_one_member_stays_there(kind):
    wild = Member(0.15, 3, 1e30, 0.1)
    population, losses = trained(kind, [*MEMBERS, wild])
    healthy, _ = trained(kind, [*MEMBERS, OWN_RATES[1]])
    assert not losses[:, -1].isfinite().all()
    assert losses[:, :-1].isfinite().all()
    torch.testing.assert_close(population.logits(PROBE)[:-1], healthy.logits(PROBE)[:-1], atol=1e-5, rtol=1e-5)


def test_learning_rate_rises_then_falls_to_nothing():
    rates = [learning_rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1
    assert all(later <= earlier for earlier, later in zip(rates[10:], rates[11:], strict=False))
    assert rates[-1] < 1e-3
