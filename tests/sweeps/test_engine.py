import pytest
import torch

from lscal import METRICS, Predictions
from sweeps.datasets import load
from sweeps.engine import choose, pick_device
from sweeps.errors import WrongInput
from sweeps.plan import resolve
from sweeps.population import Member


@pytest.fixture(scope="module")
def engine():
    plan = resolve({"epochs": 3})
    return choose(plan.tasks[0], load("digits"), "uniform", torch.device("cpu"), seeds=2)


def test_a_trained_population_has_curves_and_logits(engine):
    told = []
    members = [Member(epsilon, seed, 3e-3, 1e-2) for epsilon in (0.0, 0.2) for seed in (0, 1)]
    trained = engine.train(members, told.append)
    assert told == [4, 4, 4]
    assert trained.finite == (True,) * 4
    logits = engine.logits(trained, "select")
    assert logits.shape == (4, 271, 10)
    predictions = Predictions.from_logits(logits, engine.dataset.splits["select"].labels)
    for name in ("accuracy", "nll", "ece"):
        torch.testing.assert_close(trained.curves[f"select_{name}"][-1].double(), METRICS[name].function(predictions), atol=1e-6, rtol=1e-5)
    assert (trained.curves["train_loss"][-1] < trained.curves["train_loss"][0]).all()


def test_training_again_gives_the_same_numbers(engine):
    members = [Member(0.1, seed, 3e-3, 1e-2) for seed in (4, 5)]
    first, second = (engine.logits(engine.train(members, lambda _: None), "test") for _ in range(2))
    assert torch.equal(first, second)


def test_a_diverged_member_is_marked(engine):
    trained = engine.train([Member(0.1, 0, 3e-3, 0.0), Member(0.1, 0, 1e30, 0.0)], lambda _: None)
    assert trained.finite == (True, False)


def test_what_cannot_be_trained_is_told_before():
    plan = resolve({"tasks": ["digits/cnn"]})
    digits = load("digits")
    flat = {name: type(split)(split.inputs.reshape(-1, 64), split.labels) for name, split in digits.splits.items()}
    broken = type(digits)("flat", flat, digits.classes, digits.mean, digits.deviation, "x", "here")
    with pytest.raises(WrongInput, match=r"cnn cannot be trained on flat, whose inputs have shape \(64,\)"):
        choose(plan.tasks[0], broken, "uniform", torch.device("cpu"), 2)


def test_devices():
    assert pick_device("cpu").type == "cpu"
    for name in ("gpu", "mps", "cuda:99"):
        with pytest.raises(WrongInput, match="allowed are|is not there"):
            pick_device(name)
