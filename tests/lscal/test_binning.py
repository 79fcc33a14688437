import numpy as np
import oracles
import pytest
import torch
from torch import Tensor

from lscal.binning import BinnedStatistics
from lscal.predictions import Predictions


@pytest.fixture
def predictions(logits: Tensor, labels: Tensor) -> Predictions:
    return Predictions.from_logits(logits, labels)


@pytest.mark.parametrize("bins", [15, 4, 1])
def test_every_bin_agrees_with_the_oracle(predictions: Predictions, bins: int):
    statistics = BinnedStatistics.of(predictions.confidence, predictions.correct, bins)
    for part in (statistics.count, statistics.confidence, statistics.correct):
        assert part.shape == (3, bins)
        assert part.dtype == torch.float64
    for member in range(3):
        confidence, correct = predictions.confidence[member].numpy(), predictions.correct[member].numpy()
        rows = torch.stack([statistics.count, statistics.confidence, statistics.correct], -1)[member]
        np.testing.assert_allclose(rows.numpy(), oracles.binned(confidence, correct, bins), atol=1e-13)
        assert float(statistics.calibration_error()[member]) == pytest.approx(oracles.ece(confidence, correct, bins), abs=1e-14)


def test_one_model_has_no_member_dimension(predictions: Predictions):
    statistics = BinnedStatistics.of(predictions.confidence[1], predictions.correct[1])
    assert statistics.count.shape == (15,)
    assert statistics.calibration_error().shape == ()


def test_two_member_dimensions(predictions: Predictions):
    confidence = torch.stack([predictions.confidence, predictions.confidence.sqrt()])
    correct = torch.stack([predictions.correct, ~predictions.correct])
    grid, alone = BinnedStatistics.of(confidence, correct), BinnedStatistics.of(confidence[1, 2], correct[1, 2])
    assert grid.count.shape == (2, 3, 15)
    assert torch.equal(grid.count[1, 2], alone.count)
    torch.testing.assert_close(grid.confidence[1, 2], alone.confidence, atol=1e-13, rtol=0)
    assert torch.equal(grid.correct[1, 2], alone.correct)


@pytest.mark.parametrize("cuts", [(40,), (1, 2, 90)])
def test_parts_add_up_to_the_whole(predictions: Predictions, cuts: tuple[int, ...]):
    whole = BinnedStatistics.of(predictions.confidence, predictions.correct)
    parts = zip(torch.tensor_split(predictions.confidence, cuts, -1), torch.tensor_split(predictions.correct, cuts, -1), strict=True)
    first, *rest = [BinnedStatistics.of(confidence, correct) for confidence, correct in parts]
    merged = sum(rest, start=first)
    assert torch.equal(merged.count, whole.count)
    torch.testing.assert_close(merged.confidence, whole.confidence, atol=1e-13, rtol=0)
    assert torch.equal(merged.correct, whole.correct)
    torch.testing.assert_close(merged.calibration_error(), whole.calibration_error(), atol=1e-15, rtol=0)


def test_pooling_is_binning_the_members_as_one(predictions: Predictions):
    pooled = BinnedStatistics.of(predictions.confidence, predictions.correct).pooled()
    as_one = BinnedStatistics.of(predictions.confidence.flatten(), predictions.correct.flatten())
    assert torch.equal(pooled.count, as_one.count)
    torch.testing.assert_close(pooled.confidence, as_one.confidence, atol=1e-12, rtol=0)
    assert torch.equal(pooled.correct, as_one.correct)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_edge_belongs_to_the_bin_it_opens(dtype: torch.dtype):
    edges = torch.arange(15, dtype=dtype) / 15
    assert BinnedStatistics.of(edges, torch.ones(15, dtype=torch.bool)).count.tolist() == [1] * 15


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_is_in_the_last_bin(dtype: torch.dtype):
    statistics = BinnedStatistics.of(torch.tensor([1.0, 0.97, 1.0, 0.2], dtype=dtype), torch.tensor([True, False, True, True]))
    assert statistics.count.tolist() == [0, 0, 0, 1] + [0] * 10 + [3]
    assert float(statistics.confidence[14]) == pytest.approx(2.97, abs=1e-6)
    assert float(statistics.correct[14]) == 2


def test_empty_bins_count_for_nothing():
    statistics = BinnedStatistics.of(torch.tensor([0.31, 0.32, 0.88], dtype=torch.float64), torch.tensor([True, False, False]))
    filled = statistics.count > 0
    assert filled.nonzero().flatten().tolist() == [4, 13]
    assert not statistics.confidence[~filled].any()
    assert not statistics.correct[~filled].any()
    assert float(statistics.calibration_error()) == pytest.approx((abs(0.63 - 1) + 0.88) / 3, abs=1e-15)


def test_bounds_of_the_error():
    right, wrong = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)
    certain = torch.ones(3, dtype=torch.float64)
    assert float(BinnedStatistics.of(certain, right).calibration_error()) == 0
    assert float(BinnedStatistics.of(certain, wrong).calibration_error()) == 1
