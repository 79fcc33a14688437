import math

import numpy as np
import oracles
import pytest
import torch
from torch import Tensor

from lscal.predictions import Predictions

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize("member", [0, 1, 2])
def test_every_field_agrees_with_the_oracle(logits: Tensor, labels: Tensor, member: int):
    z, y = logits[member].numpy(), labels.numpy()
    predictions = Predictions.from_logits(logits[member], labels)
    np.testing.assert_allclose(predictions.confidence.numpy(), oracles.confidence(z), atol=1e-14)
    np.testing.assert_allclose(predictions.log_confidence.numpy(), np.log(oracles.confidence(z)), atol=1e-14)
    np.testing.assert_array_equal(predictions.correct.numpy(), oracles.correct(z, y))
    np.testing.assert_allclose(predictions.nll.numpy(), oracles.smoothed_cross_entropy(z, y, 0.0), atol=1e-13)
    np.testing.assert_allclose(predictions.brier.numpy(), ((oracles.softmax(z) - oracles.onehot(y, 7)) ** 2).sum(1), atol=1e-14)
    assert predictions.labels is labels
    assert predictions.classes == 7


def test_a_population_is_its_members(logits: Tensor, labels: Tensor):
    grid = torch.stack([logits, logits.flip(0) * 1.1])
    together = Predictions.from_logits(grid, labels)
    alone = Predictions.from_logits(grid[1, 2], labels)
    for name in ("confidence", "log_confidence", "correct", "nll", "brier"):
        assert getattr(together, name).shape == (2, 3, 101)
        torch.testing.assert_close(getattr(together, name)[1, 2], getattr(alone, name), atol=1e-15, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_logits_are_scored_in_float64(logits: Tensor, labels: Tensor, dtype: torch.dtype):
    narrow = logits.to(dtype)
    predictions = Predictions.from_logits(narrow, labels)
    wide = Predictions.from_logits(narrow.double(), labels)
    for name in ("confidence", "log_confidence", "nll", "brier"):
        assert getattr(predictions, name).dtype == torch.float64
        assert torch.equal(getattr(predictions, name), getattr(wide, name))


def test_int32_labels(logits: Tensor, labels: Tensor):
    assert torch.equal(Predictions.from_logits(logits, labels.int()).nll, Predictions.from_logits(logits, labels).nll)


def test_one_example_of_two_classes():
    predictions = Predictions.from_logits(torch.tensor([[0.3, 1.7]], dtype=torch.float64), torch.tensor([0]))
    p = 1 / (1 + math.exp(-1.4))
    assert predictions.confidence.tolist() == pytest.approx([p])
    assert predictions.correct.tolist() == [False]
    assert predictions.nll.tolist() == pytest.approx([-math.log(1 - p)])
    assert predictions.brier.tolist() == pytest.approx([2 * p**2])
    assert predictions.classes == 2


def test_saturated_confidences_are_told_apart_by_their_logarithm():
    logits = torch.tensor([[0.3, 38.3, -0.7], [0.0, 50.0, 2.0], [300.0, -0.1, -INF]], dtype=torch.float64)
    predictions = Predictions.from_logits(logits, torch.tensor([1, 0, 0]))
    assert predictions.confidence.tolist() == [1.0, 1.0, 1.0]
    others = [math.exp(-38) + math.exp(-39), math.exp(-50) + math.exp(-48), math.exp(-300.1)]
    assert predictions.log_confidence.tolist() == pytest.approx([-math.log1p(other) for other in others], rel=1e-12, abs=0)
    assert predictions.nll[1] == pytest.approx(50)


def test_extremes_of_the_ranges():
    z = torch.tensor([[1000.0, 0.0, -3.0], [1000.0, 0.0, -3.0], [0.7, 0.7, 0.7]], dtype=torch.float64)
    predictions = Predictions.from_logits(z, torch.tensor([0, 1, 2]))
    assert predictions.nll.tolist() == pytest.approx([0, 1000, math.log(3)])
    assert predictions.brier.tolist() == pytest.approx([0, 2, 2 / 3])
    assert predictions.confidence.tolist() == pytest.approx([1, 1, 1 / 3])


def test_a_masked_class_has_probability_zero():
    masked = torch.tensor([[1.2, -INF, 0.4, 0.9], [-INF, -INF, -INF, 0.5]], dtype=torch.float64)
    predictions = Predictions.from_logits(masked, torch.tensor([2, 3]))
    without = Predictions.from_logits(masked[:1, [0, 2, 3]], torch.tensor([1]))
    for name in ("confidence", "nll", "brier"):
        assert getattr(predictions, name)[0] == pytest.approx(float(getattr(without, name)[0]), abs=1e-15)
    assert predictions.confidence[1] == 1
    assert predictions.nll[1] == 0
    assert predictions.correct.tolist() == [False, True]


def test_a_masked_label_is_infinitely_surprising():
    predictions = Predictions.from_logits(torch.tensor([[1.2, -INF, 0.4]], dtype=torch.float64), torch.tensor([1]))
    p = oracles.softmax(np.array([[1.2, 0.4]]))[0]
    assert predictions.nll.tolist() == [INF]
    assert predictions.brier.tolist() == pytest.approx([1 + (p**2).sum()])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("shape", "count", "shown"),
    [((5, 3), 4, r"\(5, 3\) and labels \(4,\)"), ((2, 5, 3), 2, r"\(2, 5, 3\) and labels \(2,\)"), ((5,), 5, r"\(5,\) and labels \(5,\)")],
)
def test_shapes_which_do_not_fit(shape: tuple[int, ...], count: int, shown: str):
    with pytest.raises(ValueError, match=rf"^logits have shape {shown}; wanted \(..., N, K\) and \(N,\)$"):
        Predictions.from_logits(torch.ones(shape), torch.zeros(count, dtype=torch.int64))


@pytest.mark.usefixtures("unchecked")
def test_labels_of_two_dimensions():
    with pytest.raises(ValueError, match=r"^logits have shape \(5, 3\) and labels \(5, 1\); wanted \(..., N, K\) and \(N,\)$"):
        Predictions.from_logits(torch.ones(5, 3), torch.zeros(5, 1, dtype=torch.int64))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (4, 1), (4, 0)])
def test_nothing_to_score(shape: tuple[int, ...]):
    *_, examples, classes = shape
    message = rf"^there are {examples} examples of {classes} classes; wanted at least 1 example and 2 classes$"
    with pytest.raises(ValueError, match=message):
        Predictions.from_logits(torch.ones(shape), torch.zeros(examples, dtype=torch.int64))


@pytest.mark.parametrize(("value", "shown"), [(NAN, "nan"), (INF, "inf")])
def test_a_logit_which_is_no_number(logits: Tensor, labels: Tensor, value: float, shown: str):
    logits[1, 44, 5] = value
    with pytest.raises(ValueError, match=rf"^the logit at \(1, 44, 5\) is {shown}; allowed are finite numbers and -inf$"):
        Predictions.from_logits(logits, labels)


def test_a_row_of_masked_classes(logits: Tensor, labels: Tensor):
    logits[2, 7] = -INF
    with pytest.raises(ValueError, match=r"^every logit of a row is -inf; at least one class must be possible$"):
        Predictions.from_logits(logits, labels)


@pytest.mark.parametrize("label", [-1, 7, -100])
def test_a_label_outside_the_classes(logits: Tensor, labels: Tensor, label: int):
    labels[13] = label
    with pytest.raises(ValueError, match=rf"^the label at 13 is {label}; allowed is 0 to 6, the number of logits less one$"):
        Predictions.from_logits(logits, labels)
