import pytest
import torch
from torch import Tensor

from lscal.smoothing import DISTRIBUTIONS, Smoothing, distribution, epsilon_wrong_classes


@pytest.mark.parametrize("classes", [2, 7, 100])
def test_uniform_noise_gives_every_class_the_same(classes: int):
    noise = Smoothing(0.1).noise(torch.tensor([1, 0, 1]), classes)
    assert noise.dtype == torch.float64
    assert noise.tolist() == [1 / classes] * classes


def test_class_prior_is_the_share_of_each_class():
    noise = Smoothing(0.2, "class_prior").noise(torch.tensor([4, 0, 0, 2, 0, 2, 4, 0]), 6)
    assert noise.dtype == torch.float64
    assert noise.tolist() == [4 / 8, 0, 2 / 8, 0, 2 / 8, 0]


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
def test_every_noise_sums_to_one(name: str, labels: Tensor):
    noise = Smoothing(0.3, name).noise(labels, 7)
    assert noise.shape == (7,)
    assert float(noise.sum()) == pytest.approx(1, abs=1e-15)
    assert (noise >= 0).all()


@pytest.mark.parametrize("epsilon", [0.0, 0.999])
def test_epsilon_may_be_zero_but_not_one(epsilon: float):
    assert Smoothing(epsilon).epsilon == epsilon


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_epsilon_outside_its_range_is_an_error(epsilon: float):
    with pytest.raises(ValueError, match=rf"^epsilon is {epsilon}; allowed is 0 <= epsilon < 1$"):
        Smoothing(epsilon)


def test_an_unknown_distribution_is_an_error_which_names_those_there_are():
    with pytest.raises(ValueError, match=r"^no noise distribution named 'unifrom'; there are class_prior, uniform$"):
        Smoothing(0.1, "unifrom")


def test_a_decorated_function_is_a_distribution():
    def last_class(labels: Tensor, classes: int) -> Tensor:
        return torch.eye(classes, dtype=torch.float64)[-1]

    try:
        assert distribution(last_class) is last_class
        assert Smoothing(0.1, "last_class").noise(torch.tensor([0, 2]), 4).tolist() == [0, 0, 0, 1]
    finally:
        del DISTRIBUTIONS["last_class"]


@pytest.mark.parametrize(("classes", "wrong", "confidence"), [(10, 0.09, 0.91), (2, 0.05, 0.95), (100, 0.099, 0.901)])
def test_the_other_convention_leaves_the_optimal_confidence_to_the_label(classes: int, wrong: float, confidence: float):
    assert epsilon_wrong_classes(0.1, classes) == pytest.approx(wrong, abs=1e-15)
    assert 1 - epsilon_wrong_classes(0.1, classes) == pytest.approx(confidence, abs=1e-15)
