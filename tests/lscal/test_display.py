"""How metrics are shown."""

import pytest

from lscal import METRICS
from lscal.display import DISPLAY, display


def test_every_metric_is_shown_and_recalibrated_ones_are_marked():
    assert METRICS.keys() <= DISPLAY.keys()
    assert all(one.sentence and one.title for one in DISPLAY.values())
    heads = [
        display(name).heading for name in ("accuracy", "ece_calibrated", "confidence_gap", "nll", "aurc")
    ]
    assert heads == ["accuracy %", "ECE+T %", "gap pp", "NLL", "AURC ‰"]
    assert display("soft_nll_calibrated").title == "NLL towards people's labels after temperature"
    assert display("aurc_p_norm").heading == "AURC+p ‰"
    with pytest.raises(KeyError):
        display("nosuch")
