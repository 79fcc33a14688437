import pytest
import torch

from sweeps.confirm import difference, interval, share

REPLICATES = torch.linspace(-0.02, 0.06, 1001, dtype=torch.float64)


def test_a_share_is_of_the_controls_value():
    found = share(0.4, 0.02, REPLICATES)
    assert found.value == pytest.approx(0.05)
    assert found.low == pytest.approx(difference(0.02, REPLICATES).low / 0.4, abs=1e-8)


def test_a_control_without_an_error_gives_the_difference_itself():
    assert share(0.0, 0.02, REPLICATES) == difference(0.02, REPLICATES)


def test_an_interval_stops_at_zero_except_for_the_signed_gap():
    assert interval("ece_calibrated", 0.02, REPLICATES).low == 0.0
    assert interval("confidence_gap", 0.02, REPLICATES).low == pytest.approx(-0.018, abs=1e-3)
