import oracles
import pytest
import torch
from populations import population
from torch import Tensor
from torch.testing import assert_close

from lscal.binning import BinnedStatistics
from lscal.calibrators import Temperature
from lscal.estimate import Resamples, estimates
from lscal.metrics import METRICS, applicable
from lscal.predictions import Predictions
from lscal.report import Report
from lscal.summary import Whole

HALF = 40
ON_LABELS = [name for name, own in METRICS.items() if not own.of_distributions]


@pytest.fixture(scope="module")
def calibrator() -> Temperature:
    """Fitted on the examples that the reports do not score."""
    logits, labels = population(seed=20)
    return Temperature.fit(logits[:, :HALF], labels[:HALF])


@pytest.fixture(scope="module")
def report(calibrator: Temperature) -> Report:
    logits, labels = population(seed=20)
    return Report.of(logits[:, HALF:], labels[HALF:], calibrator)


def test_it_holds_every_metric_of_every_member(report: Report):
    assert list(report.raw) == list(report.calibrated) == ON_LABELS
    for values in (*report.raw.values(), *report.calibrated.values()):
        assert values.shape == (3,)
        assert values.dtype == torch.float64
    assert report.raw_estimates == report.calibrated_estimates == {}


def test_raw_is_the_metric_of_the_logits(report: Report, logits: Tensor, labels: Tensor):
    whole = Whole(Predictions.from_logits(logits[:, HALF:], labels[HALF:]))
    for name, values in report.raw.items():
        assert torch.equal(values, METRICS[name].function(whole))


@pytest.mark.parametrize("name", ON_LABELS)
def test_calibrated_is_the_metric_of_the_logits_divided_by_temperature(
    report: Report, logits: Tensor, labels: Tensor, calibrator: Temperature, name: str
):
    for member, temperature in enumerate(calibrator.value.tolist()):
        expected = oracles.METRICS[name]((logits[member, HALF:] / temperature).numpy(), labels[HALF:].numpy())
        tolerance = oracles.TOLERANCES.get(name, 1e-12)
        assert float(report.calibrated[name][member]) == pytest.approx(expected, abs=tolerance)


def test_calibration_moves_confidence_and_not_the_answers(report: Report):
    for name in ("accuracy", "worst_class_accuracy", "top_k_accuracy"):
        assert torch.equal(report.calibrated[name], report.raw[name])
    for name in ("nll", "brier", "ece", "confidence_gap"):
        assert (report.calibrated[name] - report.raw[name]).abs().max() > 0.01
    for member in (0, 2):  # the underconfident and the overconfident one
        assert report.calibrated["nll"][member] < report.raw["nll"][member]


def test_refinement_does_not_change_with_temperature(report: Report):
    for name in ("nll_refinement", "brier_refinement"):
        assert_close(report.calibrated[name], report.raw[name], atol=1e-6, rtol=0)


def test_the_statistics_are_the_binned_predictions(
    report: Report, logits: Tensor, labels: Tensor, calibrator: Temperature
):
    for statistics, z in (
        (report.statistics, logits[:, HALF:]),
        (report.statistics_calibrated, calibrator(logits)[:, HALF:]),
    ):
        predictions = Predictions.from_logits(z, labels[HALF:])
        expected = BinnedStatistics.of(predictions.confidence, predictions.correct)
        assert torch.equal(statistics.count, expected.count)
        assert torch.equal(statistics.correct, expected.correct)
        assert_close(statistics.confidence, expected.confidence, atol=1e-12, rtol=0)
    assert torch.equal(report.statistics.calibration_error(), report.raw["ece"])
    assert torch.equal(report.statistics_calibrated.calibration_error(), report.calibrated["ece"])
    assert not torch.equal(report.statistics.count, report.statistics_calibrated.count)


def test_one_model_needs_no_member_dimension(logits: Tensor, labels: Tensor, report: Report):
    alone = Report.of(logits[2, HALF:], labels[HALF:], Temperature.fit(logits[2, :HALF], labels[:HALF]))
    for name in ON_LABELS:
        assert alone.raw[name].shape == ()
        assert float(alone.raw[name]) == pytest.approx(float(report.raw[name][2]), abs=1e-9)
        assert float(alone.calibrated[name]) == pytest.approx(float(report.calibrated[name][2]), abs=1e-8)


def test_resamples_give_intervals(logits: Tensor, labels: Tensor, calibrator: Temperature, report: Report):
    resamples = Resamples.draw(101 - HALF, replicates=60)
    with_intervals = Report.of(logits[:, HALF:], labels[HALF:], calibrator, resamples=resamples)
    raw = Predictions.from_logits(logits[:, HALF:], labels[HALF:])
    for found, values, predictions in (
        (with_intervals.raw_estimates, report.raw, raw),
        (with_intervals.calibrated_estimates, report.calibrated, raw.calibrated(calibrator)),
    ):
        assert list(found) == ON_LABELS
        expected = estimates(predictions, resamples=resamples)
        for name, estimate in found.items():
            assert_close(estimate.value, values[name], atol=1e-14, rtol=0)
            for part in ("value", "low", "high"):
                assert torch.equal(getattr(estimate, part), getattr(expected[name], part))
    assert_close(with_intervals.raw["nll"], report.raw["nll"], atol=0, rtol=0)


def test_chosen_metrics(logits: Tensor, labels: Tensor, calibrator: Temperature):
    chosen = Report.of(
        logits, labels, calibrator, names=["ece", "nll"], resamples=Resamples.draw(101, replicates=20)
    )
    assert (
        list(chosen.raw)
        == list(chosen.calibrated)
        == list(chosen.raw_estimates)
        == list(chosen.calibrated_estimates)
        == ["ece", "nll"]
    )
    with pytest.raises(ValueError, match=r"^no metric named 'eece'; there are accuracy, "):
        Report.of(logits, labels, calibrator, names=["eece"])


def test_examples_which_do_not_count(logits: Tensor, labels: Tensor, calibrator: Temperature):
    mask = torch.arange(101) % 3 != 0
    expected = Report.of(logits[:, mask], labels[mask], calibrator)
    labels[~mask] = -100
    for options in ({"mask": mask}, {"ignore_index": -100}):
        found = Report.of(logits, labels, calibrator, **options)
        for name in ON_LABELS:
            assert torch.equal(found.raw[name], expected.raw[name])
            assert_close(found.calibrated[name], expected.calibrated[name], atol=1e-14, rtol=0)


def test_label_distributions(logits: Tensor, labels: Tensor, calibrator: Temperature):
    q = 0.3 / 7 + 0.7 * torch.nn.functional.one_hot(labels, 7).double()
    report = Report.of(logits, q, calibrator, resamples=Resamples.draw(101, replicates=20))
    assert list(report.raw) == list(report.raw_estimates) == list(METRICS)
    assert report.calibrated["soft_nll"][2] < report.raw["soft_nll"][2]
    assert applicable(Predictions.from_logits(logits, q)) == list(METRICS.values())


def test_wrong_input_is_refused(logits: Tensor, labels: Tensor, calibrator: Temperature):
    logits[1, 4, 2] = float("nan")
    with pytest.raises(ValueError, match=r"^the logit at \(1, 4, 2\) is nan;"):
        Report.of(logits, labels, calibrator)
