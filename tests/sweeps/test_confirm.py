import pytest
import torch

from sweeps.confirm import BySeed, bounds

GENERATOR = torch.Generator().manual_seed(3)
VALUES = torch.tensor([0.35, 0.47, 0.38], dtype=torch.float64)
REPLICATES = VALUES + 0.02 * torch.randn(1000, 3, generator=GENERATOR, dtype=torch.float64)
EPSILON = BySeed(VALUES + 0.02, REPLICATES + 0.02)


def test_a_difference_is_taken_seed_by_seed_on_the_same_resamples():
    difference = EPSILON.less(BySeed(VALUES, REPLICATES)).interval()
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.02, 0.02, 0.02), abs=1e-9)


def test_a_share_is_of_the_controls_mean():
    control = BySeed(VALUES, REPLICATES)
    whole, share = EPSILON.interval(), EPSILON.share(control).interval()
    assert share.value == pytest.approx(0.42 / 0.4)
    assert share.low == pytest.approx(whole.low / 0.4, abs=1e-8)


def test_a_control_without_an_error_gives_the_difference_itself():
    nothing = BySeed(torch.zeros(3, dtype=torch.float64), torch.zeros(1000, 3, dtype=torch.float64))
    assert EPSILON.share(nothing).interval() == EPSILON.interval()


def test_an_interval_stops_at_zero_except_for_the_signed_gap():
    small = BySeed(VALUES - 0.38, REPLICATES - 0.38)
    assert small.interval(bounds("ece_calibrated")).low == 0.0
    assert small.interval(bounds("confidence_gap")).low < -0.05
