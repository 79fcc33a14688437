import oracles
import pytest
import torch
from torch import Tensor

from lscal.binning import BinnedStatistics
from lscal.calibrators import Temperature
from lscal.metrics import METRICS
from lscal.predictions import Predictions
from lscal.report import Report

HALF = 40


@pytest.fixture
def calibrator(logits: Tensor, labels: Tensor) -> Temperature:
    """Fitted on the examples which the reports do not score."""
    return Temperature.fit(logits[:, :HALF], labels[:HALF])


@pytest.fixture
def report(logits: Tensor, labels: Tensor, calibrator: Temperature) -> Report:
    return Report.of(logits[:, HALF:], labels[HALF:], calibrator)


def test_it_holds_every_metric_of_every_member(report: Report):
    assert set(report.raw) == set(report.calibrated) == set(METRICS)
    for values in (*report.raw.values(), *report.calibrated.values()):
        assert values.shape == (3,)
        assert values.dtype == torch.float64


@pytest.mark.parametrize("name", sorted(METRICS))
def test_raw_is_the_metric_of_the_logits(report: Report, logits: Tensor, labels: Tensor, name: str):
    assert torch.equal(report.raw[name], METRICS[name].function(Predictions.from_logits(logits[:, HALF:], labels[HALF:])))


@pytest.mark.parametrize("name", sorted(METRICS))
def test_calibrated_is_the_metric_of_the_logits_divided_by_temperature(
    report: Report, logits: Tensor, labels: Tensor, calibrator: Temperature, name: str
):
    for member, temperature in enumerate(calibrator.value.tolist()):
        expected = oracles.METRICS[name]((logits[member, HALF:] / temperature).numpy(), labels[HALF:].numpy())
        assert float(report.calibrated[name][member]) == pytest.approx(expected, abs=1e-13)


def test_calibration_moves_confidence_and_not_the_answers(report: Report):
    for name in ("accuracy", "worst_class_accuracy"):
        assert torch.equal(report.calibrated[name], report.raw[name])
    for name in ("nll", "brier", "ece", "confidence_gap"):
        assert (report.calibrated[name] - report.raw[name]).abs().max() > 0.01
    for member in (0, 2):  # the underconfident and the overconfident one
        assert report.calibrated["nll"][member] < report.raw["nll"][member]


def test_the_statistics_are_the_binned_predictions(report: Report, logits: Tensor, labels: Tensor, calibrator: Temperature):
    for statistics, z in ((report.statistics, logits[:, HALF:]), (report.statistics_calibrated, calibrator(logits)[:, HALF:])):
        predictions = Predictions.from_logits(z, labels[HALF:])
        expected = BinnedStatistics.of(predictions.confidence, predictions.correct)
        for name in ("count", "confidence", "correct"):
            assert torch.equal(getattr(statistics, name), getattr(expected, name))
    assert torch.equal(report.statistics.calibration_error(), report.raw["ece"])
    assert torch.equal(report.statistics_calibrated.calibration_error(), report.calibrated["ece"])
    assert not torch.equal(report.statistics.count, report.statistics_calibrated.count)


def test_one_model_needs_no_member_dimension(logits: Tensor, labels: Tensor, report: Report):
    alone = Report.of(logits[2, HALF:], labels[HALF:], Temperature.fit(logits[2, :HALF], labels[:HALF]))
    for name in METRICS:
        assert alone.raw[name].shape == ()
        assert float(alone.raw[name]) == pytest.approx(float(report.raw[name][2]), abs=1e-13)
        assert float(alone.calibrated[name]) == pytest.approx(float(report.calibrated[name][2]), abs=1e-9)
