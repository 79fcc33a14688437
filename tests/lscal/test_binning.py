import math
from bisect import bisect
from fractions import Fraction

import numpy as np
import oracles
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lscal import binning
from lscal.binning import BinnedStatistics, between, equal_mass_bounds, equal_width, tally
from lscal.predictions import Predictions

PARTS = ("count", "confidence", "correct")


@pytest.fixture
def predictions(logits: Tensor, labels: Tensor) -> Predictions:
    return Predictions.from_logits(logits, labels)


def equal(first: BinnedStatistics, second: BinnedStatistics, atol: float = 1e-12) -> bool:
    """Whether the counts are the same and the confidences are, but for rounding."""
    assert_close(first.confidence, second.confidence, atol=atol, rtol=0)
    assert (first.bounds is None) == (second.bounds is None)
    return torch.equal(first.count, second.count) and torch.equal(first.correct, second.correct)


# ---- equal width
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [15, 4, 1])
def test_every_bin_agrees_with_the_oracle(predictions: Predictions, bins: int):
    statistics = BinnedStatistics.of(predictions.confidence, predictions.correct, bins)
    for part in PARTS:
        assert getattr(statistics, part).shape == (3, bins)
        assert getattr(statistics, part).dtype == torch.float64
    for member in range(3):
        confidence, correct = predictions.confidence[member].numpy(), predictions.correct[member].numpy()
        rows = torch.stack([statistics.count, statistics.confidence, statistics.correct], -1)[member]
        np.testing.assert_allclose(rows.numpy(), oracles.binned(confidence, correct, bins), atol=1e-13)
        assert float(statistics.calibration_error()[member]) == pytest.approx(
            oracles.ece(confidence, correct, bins), abs=1e-14
        )


@pytest.mark.parametrize("bins", range(1, 101))
def test_edges_in_exact_arithmetic(bins: int):
    """At each edge i/B as a float64, and one number below and above it: the bin is that of the exact
    fractions.
    """
    edges = np.arange(bins + 1) / bins
    values = np.concatenate([edges, np.nextafter(edges[1:], 0), np.nextafter(edges[:-1], 1)])
    exact = [Fraction(edge) for edge in edges[:-1]]
    expected = [bisect(exact, Fraction(value)) - 1 for value in values]
    assert equal_width(torch.from_numpy(values), bins).tolist() == expected
    for value in (0.0, 1.0, 5e-324, float(np.nextafter(1, 0))):
        assert equal_width(torch.tensor([value], dtype=torch.float64), bins).item() == (
            bins - 1 if value > 0.5 else 0
        )


@pytest.mark.parametrize("bins", [3, 10, 15, 49, 98, 1000])
def test_random_values_in_exact_arithmetic(bins: int):
    values = torch.rand(400, generator=torch.Generator().manual_seed(bins), dtype=torch.float64)
    exact = [Fraction(i / bins) for i in range(bins)]
    for value, place in zip(values.tolist(), equal_width(values, bins).tolist(), strict=True):
        assert exact[place] <= Fraction(value)
        assert place == bins - 1 or Fraction(value) < exact[place + 1]


def test_float32_values_are_taken_as_the_numbers_they_are():
    values = torch.arange(15, dtype=torch.float32) / 15
    expected = [sum(Fraction(i / 15) <= Fraction(value) for i in range(15)) - 1 for value in values.tolist()]
    assert equal_width(values, 15).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_one_is_in_the_last_bin(dtype: torch.dtype):
    statistics = BinnedStatistics.of(
        torch.tensor([1.0, 0.97, 1.0, 0.22], dtype=dtype), torch.tensor([True, False, True, True])
    )
    assert statistics.count.tolist() == [0, 0, 0, 1] + [0] * 10 + [3]
    assert float(statistics.confidence[14]) == pytest.approx(2.97, abs=1e-3)
    assert float(statistics.correct[14]) == 2


def test_one_model_has_no_member_dimension(predictions: Predictions):
    statistics = BinnedStatistics.of(predictions.confidence[1], predictions.correct[1])
    assert statistics.count.shape == (15,)
    assert statistics.calibration_error().shape == ()


def test_two_member_dimensions(predictions: Predictions):
    confidence = torch.stack([predictions.confidence, predictions.confidence.sqrt()])
    correct = torch.stack([predictions.correct, ~predictions.correct])
    grid, alone = (
        BinnedStatistics.of(confidence, correct),
        BinnedStatistics.of(confidence[1, 2], correct[1, 2]),
    )
    assert grid.count.shape == (2, 3, 15)
    assert torch.equal(grid.count[1, 2], alone.count)
    assert_close(grid.confidence[1, 2], alone.confidence, atol=1e-13, rtol=0)
    assert torch.equal(grid.correct[1, 2], alone.correct)


def test_rates_in_the_place_of_flags(predictions: Predictions):
    """`correct` may say how probable it is that a prediction is right."""
    rate = torch.rand(3, 101, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    statistics = BinnedStatistics.of(predictions.confidence, rate)
    assert_close(statistics.correct.sum(-1), rate.sum(-1))
    for member in range(3):
        rows = oracles.binned(predictions.confidence[member].numpy(), rate[member].numpy())
        np.testing.assert_allclose(
            statistics.correct[member].numpy(), [hits for _, _, hits in rows], atol=1e-13
        )


def test_large_inputs_are_binned_in_parts(predictions: Predictions, monkeypatch: pytest.MonkeyPatch):
    whole = BinnedStatistics.of(predictions.confidence, predictions.correct)
    mass = BinnedStatistics.equal_mass(predictions.confidence, predictions.correct)
    monkeypatch.setattr(binning, "PART", 10)
    assert equal(BinnedStatistics.of(predictions.confidence, predictions.correct), whole)
    assert equal(BinnedStatistics.equal_mass(predictions.confidence, predictions.correct), mass)


def test_strided_columns(predictions: Predictions):
    whole = BinnedStatistics.of(predictions.confidence, predictions.correct)
    assert equal(
        BinnedStatistics.of(predictions.confidence.T.contiguous().T, predictions.correct.T.contiguous().T),
        whole,
    )


def test_empty_bins_count_for_nothing():
    statistics = BinnedStatistics.of(
        torch.tensor([0.31, 0.32, 0.88], dtype=torch.float64), torch.tensor([True, False, False])
    )
    filled = statistics.count > 0
    assert filled.nonzero().flatten().tolist() == [4, 13]
    assert not statistics.confidence[~filled].any()
    assert not statistics.correct[~filled].any()
    assert float(statistics.calibration_error()) == pytest.approx((abs(0.63 - 1) + 0.88) / 3, abs=1e-15)


def test_no_examples_give_empty_bins(predictions: Predictions):
    empty = BinnedStatistics.of(torch.zeros(3, 0, dtype=torch.float64), torch.zeros(3, 0, dtype=torch.bool))
    assert not empty.count.any()
    assert torch.isnan(empty.calibration_error()).all()
    whole = BinnedStatistics.of(predictions.confidence, predictions.correct)
    assert equal(whole + empty, whole)


def test_bounds_of_the_error():
    right, wrong = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)
    certain = torch.ones(3, dtype=torch.float64)
    assert float(BinnedStatistics.of(certain, right).calibration_error()) == 0
    assert float(BinnedStatistics.of(certain, wrong).calibration_error()) == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.5, r"1\.5"), (-0.25, r"-0\.25"), (math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")],
)
def test_what_is_no_confidence(value: float, shown: str):
    confidence = torch.full((2, 9), 0.7, dtype=torch.float64)
    confidence[1, 4] = value
    for bounds in (None, torch.tensor([0, 0.5, 1], dtype=torch.float64)):
        with pytest.raises(ValueError, match=rf"^a confidence is {shown}; allowed is 0 to 1$"):
            BinnedStatistics.of(confidence, confidence > 0.5, bounds=bounds)


@pytest.mark.parametrize("bins", [0, -3])
def test_too_few_bins(bins: int):
    with pytest.raises(ValueError, match=rf"^there are {bins} bins; wanted at least 1$"):
        BinnedStatistics.of(torch.tensor([0.4]), torch.tensor([True]), bins)


# ---- equal mass
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [15, 7, 1])
def test_equal_mass_agrees_with_the_oracle(predictions: Predictions, bins: int):
    statistics = BinnedStatistics.equal_mass(predictions.confidence, predictions.correct, bins)
    assert statistics.edges.shape == (3, bins + 1)
    for member in range(3):
        confidence, correct = predictions.confidence[member].numpy(), predictions.correct[member].numpy()
        assert statistics.edges[member].tolist() == oracles.equal_mass_bounds(confidence, bins)
        expected = oracles.equal_mass_ece(confidence, correct, bins)
        assert float(statistics.calibration_error()[member]) == pytest.approx(expected, abs=1e-14)
    assert (statistics.count - 101 / bins).abs().max() < 1


def test_equal_confidences_share_a_bin():
    """40 % of the confidences are equal, and some are 1.0: no bin boundary runs through them, whatever their
    order.
    """
    generator = torch.Generator().manual_seed(3)
    confidence = torch.rand(300, generator=generator, dtype=torch.float64)
    confidence[:120], confidence[120:160] = 0.6, 1.0
    correct = torch.rand(300, generator=generator) < confidence
    order = torch.randperm(300, generator=generator)
    statistics = BinnedStatistics.equal_mass(confidence[order], correct[order])
    assert equal(statistics, BinnedStatistics.equal_mass(confidence, correct))
    place = between(confidence, statistics.edges)
    for value in (0.6, 1.0):
        assert len(place[confidence == value].unique()) == 1
    assert statistics.count.sum() == 300
    assert (statistics.count == 0).any()
    assert float(statistics.calibration_error()) == pytest.approx(
        oracles.equal_mass_ece(confidence.numpy(), correct.numpy()), abs=1e-14
    )


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_all_confidences_equal(value: float):
    statistics = BinnedStatistics.equal_mass(
        torch.full((20,), value, dtype=torch.float64), torch.arange(20) < 13
    )
    assert sorted(statistics.count.tolist()) == [0] * 14 + [20]
    assert float(statistics.calibration_error()) == pytest.approx(abs(value - 0.65), abs=1e-15)


def test_fewer_examples_than_bins():
    confidence = torch.tensor([0.9, 0.2, 0.6], dtype=torch.float64)
    statistics = BinnedStatistics.equal_mass(confidence, torch.tensor([True, True, False]))
    assert sorted(statistics.count.tolist()) == [0] * 12 + [1] * 3
    assert float(statistics.calibration_error()) == pytest.approx((0.1 + 0.8 + 0.6) / 3)


def test_nothing_to_cut():
    with pytest.raises(ValueError, match=r"^there are 0 examples for 15 bins; wanted at least 1 of both$"):
        equal_mass_bounds(torch.zeros(0))
    with pytest.raises(ValueError, match=r"^there are 1 examples for 0 bins; wanted at least 1 of both$"):
        BinnedStatistics.equal_mass(torch.zeros(1), torch.zeros(1, dtype=torch.bool), 0)


def test_a_stream_is_binned_with_the_bounds_of_a_first_pass(predictions: Predictions):
    confidence, correct = predictions.confidence, predictions.correct
    whole = BinnedStatistics.equal_mass(confidence, correct)
    bounds = equal_mass_bounds(confidence)
    first = BinnedStatistics.of(confidence[:, :33], correct[:, :33], bounds=bounds)
    assert equal(first + BinnedStatistics.of(confidence[:, 33:], correct[:, 33:], bounds=bounds), whole)


def test_members_may_share_bounds(predictions: Predictions):
    bounds = torch.tensor([0, 0.25, 0.5, 0.9, 1], dtype=torch.float64)
    statistics = BinnedStatistics.of(predictions.confidence, predictions.correct, bounds=bounds)
    assert statistics.count.shape == (3, 4)
    for i, (low, high) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        inside = (predictions.confidence >= low) & (predictions.confidence < high)
        assert torch.equal(statistics.count[:, i], inside.sum(-1).double())
        assert torch.equal(statistics.correct[:, i], (inside & predictions.correct).sum(-1).double())
    at_edges = BinnedStatistics.of(bounds, torch.ones(5, dtype=torch.bool), bounds=bounds)
    assert at_edges.count.tolist() == [1, 1, 1, 2]


# ---- merging
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [(40,), (1, 2, 90)])
def test_parts_add_up_to_the_whole(predictions: Predictions, cuts: tuple[int, ...]):
    whole = BinnedStatistics.of(predictions.confidence, predictions.correct)
    parts = zip(
        torch.tensor_split(predictions.confidence, cuts, -1),
        torch.tensor_split(predictions.correct, cuts, -1),
        strict=True,
    )
    first, *rest = [BinnedStatistics.of(confidence, correct) for confidence, correct in parts]
    merged = sum(rest, start=first)
    assert equal(merged, whole)
    assert_close(merged.calibration_error(), whole.calibration_error(), atol=1e-15, rtol=0)


def test_statistics_of_other_bins_do_not_add_up(predictions: Predictions):
    confidence, correct = predictions.confidence, predictions.correct
    whole = BinnedStatistics.of(confidence, correct)
    mass = BinnedStatistics.equal_mass(confidence, correct)
    others = [BinnedStatistics.of(confidence, correct, 14), mass]
    with pytest.raises(
        ValueError, match=r"^these statistics have other bins; only statistics of the same bins add up$"
    ):
        mass + BinnedStatistics.equal_mass(confidence[:, 1:], correct[:, 1:])
    for other in others:
        for pair in ((whole, other), (other, whole)):
            with pytest.raises(ValueError, match=r"^these statistics have other bins;"):
                pair[0] + pair[1]


def test_pooling_is_binning_the_members_as_one(predictions: Predictions):
    grid = torch.stack([predictions.confidence, predictions.confidence.sqrt()])
    correct = torch.stack([predictions.correct, ~predictions.correct])
    assert equal(
        BinnedStatistics.of(grid, correct).pooled(), BinnedStatistics.of(grid.flatten(), correct.flatten())
    )
    bounds = equal_mass_bounds(grid.flatten())
    pooled = BinnedStatistics.of(grid, correct, bounds=bounds).pooled()
    assert equal(pooled, BinnedStatistics.equal_mass(grid.flatten(), correct.flatten()))
    assert torch.equal(pooled.edges, bounds)


def test_members_with_bins_of_their_own_cannot_be_pooled(predictions: Predictions):
    with pytest.raises(
        ValueError, match=r"^the members' bins have edges of their own; pool the examples, then bin them$"
    ):
        BinnedStatistics.equal_mass(predictions.confidence, predictions.correct).pooled()


def test_coarser_bins(predictions: Predictions):
    confidence, correct = predictions.confidence, predictions.correct
    fine = BinnedStatistics.of(confidence, correct, 60)
    assert equal(fine.coarsened(4), BinnedStatistics.of(confidence, correct, 15))
    assert equal(fine.coarsened(1), fine)
    mass = BinnedStatistics.equal_mass(confidence, correct, 12)
    half = mass.coarsened(2)
    assert equal(half, BinnedStatistics.of(confidence, correct, bounds=half.edges))
    for factor in (7, 0, -2, 61):
        with pytest.raises(ValueError, match=rf"^60 bins do not divide by {factor}$"):
            fine.coarsened(factor)


def test_edges():
    statistics = BinnedStatistics.of(torch.tensor([0.4]), torch.tensor([True]), 4)
    assert statistics.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert statistics.to("cpu").edges.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_the_gap_is_a_share_of_all_examples(predictions: Predictions):
    statistics = BinnedStatistics.of(predictions.confidence, predictions.correct)
    expected = (predictions.confidence - predictions.correct.double()).mean(-1)
    assert_close(statistics.gap.sum(-1), expected, atol=1e-14, rtol=0)
    assert statistics.gap[0].sum() < 0 < statistics.gap[2].sum()


def test_sums_by_index():
    index = torch.tensor([[2, 0, 2], [1, 1, 0]])
    assert tally(index, 3).tolist() == [1, 0, 2, 1, 2, 0]
    assert tally(index, 4, torch.tensor([0.5, 2.0, 1.5])).tolist() == [2, 0, 2, 0, 1.5, 2.5, 0, 0]
    assert tally(index[0], 3, torch.tensor([True, False, True])).tolist() == [0, 0, 2]


# ---- the cell bootstrap
# --------------------------------------------------------------------------------------------------


def test_resamples_have_the_moments_of_the_multinomial(predictions: Predictions):
    whole = BinnedStatistics.of(predictions.confidence, predictions.correct)
    drawn = whole.resampled(20_000, random_state=1)
    assert drawn.count.shape == (20_000, 3, 15)
    assert (drawn.count.sum(-1) == 101).all()
    assert (drawn.correct <= drawn.count).all()
    assert (drawn.count == drawn.count.round()).all()
    for seen, expected in (
        (drawn.count, whole.count),
        (drawn.correct, whole.correct),
        (drawn.count - drawn.correct, whole.count - whole.correct),
    ):
        share = expected / 101
        variance = 101 * share * (1 - share)
        assert ((seen.mean(0) - expected).abs() <= 5 * (variance / 20_000).sqrt()).all()
        assert_close(seen.var(0), variance, rtol=0.06, atol=1e-9)
    filled = whole.count > 0
    means = (whole.confidence / whole.count)[filled]
    assert_close(
        (drawn.confidence[:, filled] - drawn.count[:, filled] * means).abs().max(),
        torch.zeros((), dtype=torch.float64),
        atol=1e-12,
        rtol=0,
    )
    assert not drawn.count[:, ~filled].any()


def test_resampling_is_reproducible(predictions: Predictions):
    whole = BinnedStatistics.of(predictions.confidence, predictions.correct)
    first, again, other = (whole.resampled(20, random_state=state) for state in (1, 1, 2))
    assert equal(first, again, atol=0)
    assert not torch.equal(first.count, other.count)


def test_resampled_bins_spread_like_those_of_redrawn_examples(predictions: Predictions):
    """The cell bootstrap of ECE against redrawing the examples: the same mean and spread."""
    confidence, correct = predictions.confidence[2], predictions.correct[2]
    cells = (
        BinnedStatistics.of(confidence, correct, 15 * 64).resampled(4000).coarsened(64).calibration_error()
    )
    rows = torch.randint(101, (4000, 101), generator=torch.Generator().manual_seed(4))
    redrawn = BinnedStatistics.of(confidence[rows], correct[rows]).calibration_error()
    assert float(cells.mean()) == pytest.approx(
        float(redrawn.mean()), abs=4 * float(redrawn.std()) * math.sqrt(2 / 4000)
    )
    assert float(cells.std()) == pytest.approx(float(redrawn.std()), rel=0.06)
    assert float(redrawn.std()) > 0.01


def test_resampled_bins_keep_their_bounds(predictions: Predictions):
    mass = BinnedStatistics.equal_mass(predictions.confidence, predictions.correct)
    drawn = mass.resampled(5)
    assert drawn.count.shape == (5, 3, 15)
    assert torch.equal(drawn.edges, mass.edges)
    assert (drawn.count.sum(-1) == 101).all()


def test_one_cell_is_always_drawn():
    statistics = BinnedStatistics.of(
        torch.full((9,), 0.7, dtype=torch.float64), torch.ones(9, dtype=torch.bool)
    )
    drawn = statistics.resampled(7)
    assert equal(drawn, BinnedStatistics(*(getattr(statistics, part).expand(7, 15) for part in PARTS)))


def test_only_whole_counts_can_be_resampled():
    rates = BinnedStatistics.of(
        torch.tensor([0.3, 0.8], dtype=torch.float64), torch.tensor([0.5, 0.25], dtype=torch.float64)
    )
    with pytest.raises(
        ValueError,
        match=r"^the counts of right predictions are not whole; resample the examples, see `Resamples`$",
    ):
        rates.resampled(3)
