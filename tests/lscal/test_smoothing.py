import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lscal.smoothing import (
    DISTRIBUTIONS,
    Smoothing,
    check_epsilon,
    check_labels,
    distribution,
    epsilon_all_classes,
    epsilon_wrong_classes,
    similarity,
    table,
)

CONFUSION = torch.tensor([[41, 3, 0, 6], [2, 17, 1, 0], [0, 5, 30, 9], [7, 0, 2, 11]])
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("classes", [2, 7, 100])
def test_uniform_noise_gives_every_class_the_same(classes: int):
    noise = Smoothing(0.1).noise(torch.tensor([1, 0, 1]), classes)
    assert noise.dtype == torch.float64
    assert noise.tolist() == [1 / classes] * classes


def test_class_prior_is_the_share_of_each_class():
    noise = Smoothing(0.2, "class_prior").noise(torch.tensor([4, 0, 0, 2, 0, 2, 4, 0]), 6)
    assert noise.dtype == torch.float64
    assert noise.tolist() == [4 / 8, 0, 2 / 8, 0, 2 / 8, 0]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_class_prior_counts_labels_of_any_integer_type(dtype: torch.dtype):
    assert Smoothing(0.2, "class_prior").noise(torch.tensor([4, 0, 0, 2], dtype=dtype), 5).tolist() == [
        0.5,
        0,
        0.25,
        0,
        0.25,
    ]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 7, 2], r"^the label at 1 is 7; allowed is 0 to 6, the number of classes less one$"),
        ([1, 3, -100], r"^the label at 2 is -100; allowed is 0 to 6"),
        ([], r"^there are no labels; a class prior is counted on at least one$"),
    ],
)
def test_class_prior_of_labels_that_are_none_is_an_error(labels: list[int], message: str):
    with pytest.raises(ValueError, match=message):
        Smoothing(0.2, "class_prior").noise(torch.tensor(labels, dtype=torch.int16), 7)


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
    with pytest.raises(
        ValueError, match=r"^no noise distribution named 'unifrom'; there are class_prior, uniform$"
    ):
        Smoothing(0.1, "unifrom")


def test_a_decorated_function_is_a_distribution():
    def last_class(labels: Tensor, classes: int) -> Tensor:
        return torch.eye(classes, dtype=torch.float64)[-1]

    try:
        assert distribution(last_class) is last_class
        assert Smoothing(0.1, "last_class").noise(torch.tensor([0, 2]), 4).tolist() == [0, 0, 0, 1]
    finally:
        del DISTRIBUTIONS["last_class"]


def test_a_distribution_may_have_a_row_for_each_label():
    def neighbours(labels: Tensor, classes: int) -> Tensor:
        return torch.roll(torch.eye(classes, dtype=torch.float32), 1, 1)

    try:
        distribution(neighbours)
        noise = Smoothing(0.1, "neighbours").noise(torch.tensor([0, 2]), 3)
    finally:
        del DISTRIBUTIONS["neighbours"]
    assert noise.dtype == torch.float64
    assert noise.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ([0.3, 0.3, 0.4, 0.1], "a row of the table sums to 1.1; wanted 1"),
        ([0.25] * 4, "distribution 'made_up' is over 4 classes; there are 3"),
        ([[0.2, 0.8, 0.0], [0.5, 0.2, 0.2], [0.1, 0.8, 0.1]], "a row of the table sums to 0.9; wanted 1"),
    ],
)
def test_a_distribution_that_is_none_is_an_error(noise: list[float], message: str):
    try:
        DISTRIBUTIONS["made_up"] = lambda labels, classes: torch.tensor(noise, dtype=torch.float64)
        with pytest.raises(ValueError, match=message):
            Smoothing(0.1, "made_up").noise(torch.tensor([0, 2]), 3)
    finally:
        del DISTRIBUTIONS["made_up"]


@pytest.mark.parametrize("temperature", [0.2, 1.0, 7.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_similarity_is_the_softmax_of_each_row(temperature: float, dtype: torch.dtype):
    distances = torch.tensor([[0, 1, 2.5, 4], [1, 0, 2, 3], [2, 2, 0, 1.5], [4, 3, 1, 0]], dtype=dtype)
    powers = np.exp(-distances.double().numpy() / temperature)
    noise = similarity(-distances, temperature)
    assert noise.dtype == torch.float64
    np.testing.assert_allclose(noise.numpy(), powers / powers.sum(1, keepdims=True), rtol=1e-12)


def test_similarity_of_the_logarithm_of_a_confusion_matrix_is_its_rows():
    noise = similarity(CONFUSION.double().log(), 1.0)
    np.testing.assert_allclose(
        noise.numpy(), CONFUSION.numpy() / CONFUSION.numpy().sum(1, keepdims=True), atol=1e-15
    )


def test_similarity_tends_to_uniform_and_to_the_nearest():
    scores = CONFUSION.double()
    assert similarity(scores, 1e9).numpy() == pytest.approx(0.25, abs=1e-6)
    assert similarity(scores, 1e-3).tolist() == torch.eye(4).tolist()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_not_positive_is_an_error(temperature: float):
    with pytest.raises(ValueError, match=f"^temperature is {temperature}; allowed is 0 < temperature < inf$"):
        similarity(CONFUSION.double(), temperature)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_similarities_which_are_no_numbers_are_an_error(value: float):
    scores = CONFUSION.double()
    scores[2, 1] = value
    with pytest.raises(ValueError, match="^similarities hold NaN or inf, or a row of -inf"):
        similarity(scores, 1.0)
    with pytest.raises(ValueError, match="^similarities hold NaN or inf, or a row of -inf"):
        similarity(CONFUSION.double().index_fill(0, torch.tensor([1]), -math.inf), 1.0)


@pytest.mark.usefixtures("unchecked")
def test_shapes_of_no_distribution_are_an_error():
    with pytest.raises(ValueError, match=r"^similarities have shape \(3, 4\); wanted \(K, K\)$"):
        similarity(torch.zeros(3, 4), 1.0)
    for shape in [(3, 4), (2, 2, 2), ()]:
        with pytest.raises(
            ValueError,
            match=r"^the table has shape .*; wanted \(K,\), or \(K, K\) with a row for each label$",
        ):
            table(torch.ones(shape))


@pytest.mark.parametrize("rows", [[0.25, 0.0, 0.75], [[0.5, 0.5, 0.0], [0.25, 0.5, 0.25], [0.0, 0.0, 1.0]]])
def test_a_table_is_what_was_given(rows: list[float]):
    noise = table(torch.tensor(rows))
    assert noise.dtype == torch.float64
    assert noise.tolist() == rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0.5, -0.1, 0.6], r"^the table holds -0.1; allowed is 0 to 1$"),
        ([0.5, math.nan, 0.5], r"^the table holds nan; allowed is 0 to 1$"),
        (
            [3.0, 1.0, 4.0],
            r"^a row of the table sums to 8; wanted 1. Divide each row by its sum if that is what is meant$",
        ),
        ([0.5, math.inf, 0.5], r"^a row of the table sums to inf; wanted 1"),
    ],
)
def test_a_table_that_is_no_distribution_is_an_error(rows: list[float], message: str):
    with pytest.raises(ValueError, match=message):
        table(torch.tensor(rows, dtype=torch.float64))


def test_a_table_of_50000_classes_in_float32_sums_to_one():
    generator = torch.Generator().manual_seed(1)
    table((4 * torch.randn(50257, generator=generator)).softmax(-1))


def test_negative_epsilon_is_asked_for_by_name():
    assert Smoothing(-0.4, negative_epsilon=True).epsilon == -0.4
    for epsilon in (-math.inf, 1.0, math.nan):
        with pytest.raises(ValueError, match=rf"^epsilon is {epsilon}; allowed is -inf < epsilon < 1$"):
            Smoothing(epsilon, negative_epsilon=True)


def test_every_epsilon_of_a_tensor_is_looked_at():
    check_epsilon(torch.tensor([[0.0, 0.3], [0.99, 0.1]]))
    check_epsilon(torch.tensor([-0.5, 0.3]), negative_epsilon=True)
    with pytest.raises(ValueError, match=r"^epsilon is -0.5; allowed is 0 <= epsilon < 1$"):
        check_epsilon(torch.tensor([0.3, -0.5]))
    with pytest.raises(ValueError, match=r"^epsilon is 1.0; allowed"):
        check_epsilon(torch.tensor(1.0))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_labels_are_looked_at_in_every_integer_type(dtype: torch.dtype):
    check_labels(torch.tensor([[3, 0], [2, 9]], dtype=dtype), 10)
    check_labels(torch.tensor([3, 99, 0], dtype=dtype), 4, ignore_index=99)
    with pytest.raises(
        ValueError,
        match=(
            r"^the label at \(1, 1\) is 9; allowed is 0 to 8, the number of classes less one, and 99 for"
            r" those to ignore$"
        ),
    ):
        check_labels(torch.tensor([[3, 99], [2, 9]], dtype=dtype), 9, ignore_index=99)


@pytest.mark.parametrize(
    ("classes", "wrong", "confidence"), [(10, 0.09, 0.91), (2, 0.05, 0.95), (100, 0.099, 0.901)]
)
def test_the_other_convention_leaves_the_optimal_confidence_to_the_label(
    classes: int, wrong: float, confidence: float
):
    assert epsilon_wrong_classes(0.1, classes) == pytest.approx(wrong, abs=1e-15)
    assert 1 - epsilon_wrong_classes(0.1, classes) == pytest.approx(confidence, abs=1e-15)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_the_conventions_are_converted_there_and_back(classes: int):
    assert epsilon_all_classes(epsilon_wrong_classes(0.17, classes), classes) == pytest.approx(
        0.17, abs=1e-15
    )
    assert epsilon_all_classes(0.09, 10) == pytest.approx(0.1, abs=1e-15)
