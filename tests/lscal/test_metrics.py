import numpy as np
import oracles
import pytest
import torch
from netcal.metrics import ECE
from torch import Tensor

from lscal.metrics import METRICS, metric
from lscal.predictions import Predictions


def value(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    return METRICS[name].function(Predictions.from_logits(logits, labels))


def test_there_is_an_oracle_for_every_metric():
    assert set(METRICS) == set(oracles.METRICS)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_agrees_with_the_oracle(logits: Tensor, labels: Tensor, name: str):
    values = value(name, logits, labels)
    assert values.shape == (3,)
    assert values.dtype == torch.float64
    expected = [oracles.METRICS[name](z.numpy(), labels.numpy()) for z in logits]
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-13)
    assert len(set(np.round(expected, 6))) > 1


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_class_missing_from_the_labels(logits: Tensor, labels: Tensor, name: str):
    kept = labels != 3
    assert kept.sum() < 101
    expected = [oracles.METRICS[name](z.numpy(), labels[kept].numpy()) for z in logits[:, kept]]
    np.testing.assert_allclose(value(name, logits[:, kept], labels[kept]).numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("name", sorted(METRICS))
@pytest.mark.parametrize("label", [0, 2])
def test_one_example(name: str, label: int):
    logits, labels = torch.tensor([[0.3, -0.4, 1.9, 0.2, 0.6]], dtype=torch.float64), torch.tensor([label])
    expected = oracles.METRICS[name](logits.numpy(), labels.numpy())
    assert value(name, logits, labels).shape == ()
    assert float(value(name, logits, labels)) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_two_classes(logits: Tensor, labels: Tensor, name: str):
    pair, halves = logits[..., [1, 5]], labels % 2
    expected = [oracles.METRICS[name](z.numpy(), halves.numpy()) for z in pair]
    np.testing.assert_allclose(value(name, pair, halves).numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_two_member_dimensions(logits: Tensor, labels: Tensor, name: str):
    grid = torch.stack([logits, logits.roll(1, -1)])
    values = value(name, grid, labels)
    assert values.shape == (2, 3)
    for i in range(2):
        torch.testing.assert_close(values[i], value(name, grid[i], labels), atol=1e-15, rtol=0)


def test_ece_agrees_with_netcal(logits: Tensor, labels: Tensor):
    for z, ece in zip(logits, value("ece", logits, labels).tolist(), strict=True):
        assert ece == pytest.approx(ECE(15).measure(oracles.softmax(z.numpy()), labels.numpy()), abs=1e-13)


def test_ece_of_saturated_confidence_agrees_with_netcal(logits: Tensor, labels: Tensor):
    probabilities = oracles.softmax(60 * logits[2].numpy())
    assert (probabilities.max(1) == 1).sum() > 50
    ece = float(value("ece", 60 * logits[2], labels))
    assert ece == pytest.approx(ECE(15).measure(probabilities, labels.numpy()), abs=1e-13)
    assert ece > 0.1


def test_ece_with_a_missing_class_agrees_with_netcal(logits: Tensor, labels: Tensor):
    kept = labels != 3
    for z in logits[:, kept]:
        netcals = ECE(15).measure(oracles.softmax(z.numpy()), labels[kept].numpy())
        assert float(value("ece", z, labels[kept])) == pytest.approx(netcals, abs=1e-13)


@pytest.mark.parametrize("label", [0, 2])
def test_ece_of_one_example_agrees_with_netcal(label: int):
    """netcal takes one label for a binary problem, so it is asked about the top label: confidence and hit."""
    logits, labels = torch.tensor([[0.3, -0.4, 1.9, 0.2, 0.6]], dtype=torch.float64), torch.tensor([label])
    hit = oracles.correct(logits.numpy(), labels.numpy()).astype(int)
    netcals = ECE(15).measure(oracles.confidence(logits.numpy()), hit)
    assert float(value("ece", logits, labels)) == pytest.approx(netcals, abs=1e-14)


def test_worst_class_is_the_worst():
    logits = torch.eye(4, dtype=torch.float64)[[0, 0, 1, 2, 2, 2]] * 3 + 0.1
    labels = torch.tensor([0, 0, 1, 1, 2, 2])  # class 1 is right once in two, class 3 never occurs
    assert float(value("worst_class_accuracy", logits, labels)) == 0.5


def test_the_gap_is_signed(logits: Tensor, labels: Tensor):
    under, _, over = value("confidence_gap", logits, labels).tolist()
    assert under < -0.05
    assert over > 0.05


def test_aurc_tells_saturated_confidences_apart():
    """Where every confidence is 1.0, the ranking comes from their logarithm: here the wrong answer is the least sure."""
    logits = torch.tensor([[47.0, 0.2], [41.0, 0.2], [62.0, 0.2]], dtype=torch.float64)
    assert oracles.confidence(logits.numpy()).tolist() == [1.0, 1.0, 1.0]
    assert float(value("aurc", logits, torch.tensor([0, 1, 0]))) == pytest.approx((0 + 0 + 1 / 3) / 3)


def test_ties_in_aurc_are_not_broken_by_position():
    logits = torch.tensor([[2.0, 0.5], [2.0, 0.5], [0.5, 2.0], [1.1, 0.9]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 1])
    values = [float(value("aurc", logits[order], labels[order])) for order in ([0, 1, 2, 3], [1, 0, 2, 3], [3, 2, 0, 1])]
    assert values == pytest.approx([(1 / 3 + 1 / 3 + 1 / 3 + 2 / 4) / 4] * 3)


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("accuracy", "higher"),
        ("worst_class_accuracy", "higher"),
        ("nll", "lower"),
        ("brier", "lower"),
        ("ece", "lower"),
        ("confidence_gap", "nearer 0"),
        ("aurc", "lower"),
    ],
)
def test_the_better_model_is_on_the_better_side(logits: Tensor, labels: Tensor, name: str, better: str):
    """Given a model that is nearly always right and sure, against the overconfident one."""
    good = 6 * torch.nn.functional.one_hot(labels, 7).to(torch.float64) + 0.05 * logits[1]
    ours, others = float(value(name, good, labels)), float(value(name, logits[2], labels))
    assert METRICS[name].name == name
    assert METRICS[name].better == better
    if better == "nearer 0":
        assert abs(ours) < abs(others)
    else:
        assert (ours > others) == (better == "higher")


def test_a_decorated_function_is_a_metric(logits: Tensor, labels: Tensor):
    def mean_log_confidence(predictions: Predictions) -> Tensor:
        return predictions.log_confidence.mean(-1)

    try:
        assert metric("higher")(mean_log_confidence) is mean_log_confidence
        registered = METRICS["mean_log_confidence"]
        assert (registered.name, registered.better, registered.function) == ("mean_log_confidence", "higher", mean_log_confidence)
    finally:
        del METRICS["mean_log_confidence"]
