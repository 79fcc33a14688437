import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from benchmarks import coverage
from lscal.binning import BinnedStatistics
from lscal.debiased import debiased_error

LEVELS = (0.01, 0.3, 0.6, 0.9, 0.95, 0.99, 0.999)


@pytest.mark.parametrize(
    ("examples", "confidence", "accuracy"),
    [
        (30, 0.995, 0.995),
        (30, 0.9, 0.92),
        (30, 0.9, 0.895),
        (100, 0.95, 0.95),
        (100, 0.95, 0.97),
        (300, 0.98, 0.93),
        (1000, 0.5, 0.5),
    ],
)
def test_the_interval_holds_the_truth_where_all_examples_lie_in_one_bin(examples, confidence, accuracy):
    statistics, probability = coverage.one_bin(examples, confidence, accuracy)
    assert coverage.covering(statistics, abs(confidence - accuracy), probability) >= 93


@pytest.mark.parametrize("gap", [0.0, 0.05, -0.04])
def test_it_holds_the_truth_where_nearly_all_examples_lie_in_one_bin(gap):
    parts = (0.95, 0.9, 0.95 - gap), (0.55, 0.1, 0.55)
    statistics = coverage.two_bins(1500, 100, parts, np.random.default_rng(5))
    assert coverage.covering(statistics, 0.9 * abs(gap)) >= 93


@pytest.mark.parametrize(("examples", "confidence"), [(30, 0.8), (100, 0.95), (1000, 0.95)])
def test_one_bin_has_nearly_its_exact_limits(examples, confidence):
    right = np.arange(examples + 1)[:, None]
    low, high = debiased_error(coverage.binned([confidence], np.full_like(right, examples), right), 0.95)
    for count, own in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        limits = binomtest(count, examples).proportion_ci(0.95, "exact")
        least = max(0.0, confidence - limits.high, limits.low - confidence)
        most = max(confidence - limits.low, limits.high - confidence)
        half = (limits.high - limits.low) / 2
        assert own == pytest.approx((least, most), abs=0.15 * half), (
            count
        )  # near 0 a folded normal variable is taken by mean and variance
        if abs(count / examples - confidence) > 4 * half:
            assert own == pytest.approx((least, most), rel=1e-6), count


def test_accuracy_that_equals_confidence_may_still_be_off():
    low, high = debiased_error(coverage.binned([0.8], np.array([[50]]), np.array([[40]])), 0.95)
    assert float(low) == 0
    assert float(high) > 0.1


def test_a_bin_that_is_always_right_at_confidence_one_is_not_known_to_be_calibrated():
    low, high = debiased_error(coverage.binned([1.0], np.array([[60]]), np.array([[60]])), 0.95)
    assert float(low) == 0
    assert float(high) == pytest.approx(1 - 0.025 ** (1 / 60), rel=0.01)


@pytest.mark.parametrize("examples", [30, 100, 1000])
def test_limits_enclose_the_value_and_move_apart_with_the_level(examples):
    drawn = coverage.data_sets(60, examples, 12.0, torch.Generator().manual_seed(examples))
    several = [BinnedStatistics.of(own.confidence, own.correct) for own in drawn.values()]
    for statistics in [*several, coverage.one_bin(examples, 0.9, 0.93)[0]]:
        low, high = debiased_error(statistics)
        assert torch.equal(low, high)
        for level in LEVELS:
            lower, higher = debiased_error(statistics, level)
            assert torch.cat([low - lower, higher - high]).min() >= -1e-9, level
            assert ((lower >= 0) & (higher <= 1)).all()
            low, high = lower, higher


def test_members_are_judged_alone_and_empty_bins_are_nothing():
    drawn = coverage.data_sets(4, 200, 6.0, torch.Generator().manual_seed(1))[coverage.SECOND]
    statistics = BinnedStatistics.of(drawn.confidence.reshape(2, 2, 200), drawn.correct.reshape(2, 2, 200))
    low, high = debiased_error(statistics, 0.95)
    assert low.shape == (2, 2)
    filled = statistics.count[1, 0] > 0
    alone = BinnedStatistics(
        *(part[1, 0, filled] for part in (statistics.count, statistics.confidence, statistics.correct))
    )
    assert [float(part) for part in debiased_error(alone, 0.95)] == pytest.approx(
        [float(low[1, 0]), float(high[1, 0])]
    )
