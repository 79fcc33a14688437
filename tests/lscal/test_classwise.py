import numpy as np
import oracles
import pytest
import torch
from populations import population
from torch import Tensor
from torch.testing import assert_close

from lscal import classwise
from lscal.binning import BinnedStatistics, equal_width
from lscal.classwise import ClasswiseResiduals, one_class
from lscal.metrics import classwise_ece
from lscal.predictions import Predictions

INF = float("inf")


def dense(p: Tensor, labels: Tensor, block: Tensor, blocks: int) -> Tensor:
    """Σ(p_k - [label = k]) by member, block, class and bin, cell by cell."""
    sums = torch.zeros(len(p), blocks, p.shape[-1], 15, dtype=torch.float64)
    for member, own in enumerate(p):
        for row, (values, label) in enumerate(zip(own.tolist(), labels.tolist(), strict=True)):
            for k, value in enumerate(values):
                place = min(14, sum(value >= i / 15 for i in range(1, 15)))
                sums[member, block[row], k, place] += value - (label == k)
    return sums


def joined(residuals: ClasswiseResiduals) -> Tensor:
    return torch.cat(list(residuals.parts()), 2)


@pytest.mark.parametrize("classes", [2, 7, 64, 65])
@pytest.mark.parametrize("blocks", [1, 4])
def test_sparse_sums_are_the_dense_ones(classes: int, blocks: int):
    logits, labels = population(seed=31, examples=30, classes=classes)
    predictions = Predictions.from_logits(logits, labels)
    block = torch.arange(30) % blocks
    sums = joined(ClasswiseResiduals.of(predictions, block, blocks))
    assert sums.shape == (3, blocks, classes, 15)
    assert_close(sums, dense(logits.softmax(-1), labels, block, blocks), atol=1e-12, rtol=0)
    if blocks == 1:
        assert_close(joined(ClasswiseResiduals.of(predictions)), sums, atol=1e-12, rtol=0)


def test_probabilities_at_the_edges_of_bins():
    """1/15 and its neighbours are where sums are kept in two places."""
    edges = np.arange(1, 8) / 15
    values = np.concatenate(
        [edges, np.nextafter(edges, 0), np.nextafter(edges, 1), [0.0666, np.nextafter(0.0666, 0), 0.0, 1e-9]]
    )
    p = torch.from_numpy(np.stack([values, 1 - values], -1))
    labels = torch.arange(len(p)) % 2
    block = torch.zeros_like(labels)
    sums = joined(ClasswiseResiduals.of(Predictions.from_probabilities(p, labels)))
    assert_close(sums, dense(p.unsqueeze(0), labels, block, 1), atol=1e-14, rtol=0)


def test_two_member_dimensions():
    logits, labels = population(seed=32, examples=20)
    grid = torch.stack([logits, logits.roll(1, -1)])
    values = classwise_ece(Predictions.from_logits(grid, labels))
    assert values.shape == (2, 3)
    assert float(values[1, 2]) == pytest.approx(
        float(classwise_ece(Predictions.from_logits(grid[1, 2], labels))), abs=1e-15
    )


def test_a_hundred_classes_of_which_most_never_occur():
    logits, labels = population(seed=33, examples=37, classes=100)
    assert len(labels.unique()) < 35
    values = classwise_ece(Predictions.from_logits(logits, labels))
    np.testing.assert_allclose(
        values.numpy(), [oracles.classwise_ece(z.numpy(), labels.numpy()) for z in logits], atol=1e-14
    )


def test_probability_given_to_a_class_which_does_not_occur_is_wrong():
    logits = torch.tensor([[1.0, 0.2, 0.9]], dtype=torch.float64).expand(10, 3)
    p = logits[0].softmax(-1)
    value = classwise_ece(Predictions.from_logits(logits, torch.tensor([0] * 7 + [1] * 3)))
    assert float(value) == pytest.approx(float(abs(p[0] - 0.7) + abs(p[1] - 0.3) + p[2]) / 3)


def test_a_certain_and_right_model_has_no_error():
    logits = torch.full((12, 5), -INF, dtype=torch.float64)
    labels = torch.arange(12) % 4
    logits[torch.arange(12), labels] = 0.3
    assert float(classwise_ece(Predictions.from_logits(logits, labels))) == 0
    assert float(classwise_ece(Predictions.from_logits(logits, (labels + 1) % 4))) == pytest.approx(
        2 * 4 / 4 / 5
    )


def test_parts_of_any_size(monkeypatch: pytest.MonkeyPatch):
    logits, labels = population(seed=34, examples=40, classes=9)
    predictions = Predictions.from_logits(logits, labels)
    whole = joined(ClasswiseResiduals.of(predictions))
    read = Predictions.blocks
    monkeypatch.setattr(classwise, "CLASSES_AT_ONCE", 4)
    monkeypatch.setattr(Predictions, "blocks", lambda self, size=0: read(self, 50))
    assert [part.shape[2] for part in ClasswiseResiduals.of(predictions).parts()] == [4, 4, 1]
    assert_close(joined(ClasswiseResiduals.of(predictions)), whole, atol=1e-13, rtol=0)


@pytest.mark.parametrize("positive", [0, 4, 6])
def test_one_class_against_the_rest(logits: Tensor, labels: Tensor, positive: int):
    statistics = one_class(Predictions.from_logits(logits, labels), positive)
    p = logits.softmax(-1)[..., positive]
    expected = BinnedStatistics.of(p, (labels == positive).expand(3, 101))
    assert torch.equal(statistics.count, expected.count)
    assert torch.equal(statistics.correct, expected.correct)
    assert_close(statistics.confidence, expected.confidence, atol=1e-13, rtol=0)
    assert one_class(Predictions.from_logits(logits[0], labels), positive, bins=4).count.shape == (4,)


def test_the_positive_class_of_two():
    logits, labels = population(seed=35, classes=2)
    statistics = one_class(Predictions.from_logits(logits, labels), 1)
    for member in range(3):
        p = oracles.softmax(logits[member].numpy())[:, 1]
        assert float(statistics.calibration_error()[member]) == pytest.approx(
            oracles.ece(p, labels.numpy() == 1), abs=1e-14
        )
    assert statistics.count[:, :7].sum() > 0  # below one half, where the top label never is


def test_one_class_of_probabilities_that_are_rounded():
    p = torch.tensor([[1.0000001, -1e-9], [-1e-9, 1.0000001]], dtype=torch.float64)
    statistics = one_class(Predictions.from_probabilities(p, torch.tensor([0, 1])), 0)
    assert statistics.count.nonzero().flatten().tolist() == [0, 14]
    assert float(statistics.calibration_error()) == 0


@pytest.mark.parametrize("positive", [-1, 7])
def test_no_such_class(logits: Tensor, labels: Tensor, positive: int):
    with pytest.raises(ValueError, match=rf"^there is no class {positive}; allowed is 0 to 6$"):
        one_class(Predictions.from_logits(logits, labels), positive)


def test_the_threshold_is_in_the_first_bin():
    """Entries are kept from SPARSE on; all of the other bins must lie above it."""
    assert equal_width(torch.tensor([classwise.SPARSE]), 15).item() == 0
    assert 15 * classwise.SPARSE > 0.99


def test_many_cells_are_summed_in_float32(monkeypatch: pytest.MonkeyPatch):
    logits, labels = population(seed=38, examples=60, classes=9)
    predictions, block = Predictions.from_logits(logits, labels), torch.arange(60) % 5
    exact = joined(ClasswiseResiduals.of(predictions, block, 5))
    monkeypatch.setattr(classwise, "DOUBLE", 0)
    found = ClasswiseResiduals.of(predictions, block, 5)
    assert found.sums.dtype == torch.float32
    assert_close(joined(found), exact, atol=1e-5, rtol=0)
    assert not torch.equal(joined(found), exact)
