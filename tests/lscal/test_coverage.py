import pytest
import torch
from scipy.stats import binom

from benchmarks import coverage
from lscal import Estimate

DATA_SETS = 80
NAMES = ("accuracy", "nll", "ece", "debiased_ece")
MODELS = (coverage.CALIBRATED, coverage.FIRST, coverage.SECOND, coverage.DIFFERENCE)

Simulated = tuple[dict[tuple[str, str], float], dict[tuple[str, str], Estimate]]


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    """True values, and the estimates of 80 data sets of 400 examples."""
    threads = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # the matrices are small: on a busy machine two threads only wait for one another
    truth = coverage.true_values(100_000, 6.0, torch.Generator().manual_seed(1))
    found = coverage.simulate(DATA_SETS, 400, NAMES, spread=6.0, random_state=2)
    torch.set_num_threads(threads)
    return truth, found


def covered(simulated: Simulated, name: str, model: str) -> int:
    """How many of the intervals hold the truth."""
    truth, found = simulated
    low, high = coverage.misses(found[name, model], truth[name, model])
    return round(DATA_SETS * (1 - (low + high) / 100))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["accuracy", "nll", "debiased_ece"])
def test_an_interval_at_95_percent_holds_the_truth_as_often(simulated, name, model):
    assert covered(simulated, name, model) >= binom.ppf(1e-3, DATA_SETS, 0.95)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["accuracy", "nll"])
def test_it_is_as_wide_as_the_errors_are(simulated, name, model):
    truth, found = simulated
    error = (found[name, model].value - truth[name, model]).square().mean().sqrt()
    half = (found[name, model].high - found[name, model].low).mean() / 2
    assert 1.96 * 0.75 < half / error < 1.96 * 1.3  # the deviation of 80 is known to 16 %


def test_a_calibrated_model_is_not_told_that_it_is_off(simulated):
    truth, found = simulated
    estimate = found["debiased_ece", coverage.CALIBRATED]
    assert truth["debiased_ece", coverage.CALIBRATED] == pytest.approx(0, abs=1e-9)
    assert (estimate.low == 0).double().mean() > 0.9
    assert (estimate.value == 0).double().mean() > 0.25
    assert estimate.value.mean() < 0.6 * found["ece", coverage.CALIBRATED].value.mean()


def test_the_raw_ece_of_a_calibrated_model_is_far_from_the_truth(simulated):
    """What the debiased one is for; it also shows that these tests notice an interval that does not
    cover.
    """
    _, found = simulated
    assert (found["ece", coverage.CALIBRATED].low > 0).double().mean() > 0.9


def test_differences_are_paired(simulated):
    _, found = simulated
    apart = [found["accuracy", model] for model in (coverage.FIRST, coverage.SECOND)]
    independent = sum(((part.high - part.low) / 2).square() for part in apart).sqrt()
    paired = found["accuracy", coverage.DIFFERENCE]
    assert ((paired.high - paired.low) / 2 < 0.6 * independent).all()


def test_data_sets_are_independent_of_one_another():
    models = coverage.data_sets(3, 500, 6.0, torch.Generator().manual_seed(4))
    correct = models[coverage.SECOND].correct.double()
    assert correct.shape == (3, 500)
    assert torch.corrcoef(correct).triu(1).abs().max() < 0.2
    assert (models[coverage.SECOND].labels == torch.arange(500) % coverage.CLASSES).all()


def test_the_population_formulas_are_those_of_the_metrics():
    from lscal import metrics

    models = coverage.data_sets(1, 3000, 6.0, torch.Generator().manual_seed(4))
    own = models[coverage.FIRST]
    columns = torch.stack(
        [part[0].double() for part in (own.confidence, own.correct, own.nll, own.brier, own.log_confidence)]
    )
    values = coverage.of_population(columns)
    for name in ("accuracy", "nll", "brier", "confidence_gap", "aurc", "augrc"):
        assert values[name] == pytest.approx(float(metrics.METRICS[name].function(own)), rel=1e-3), name
    assert values["debiased_ece"] == pytest.approx(float(metrics.ece(own)), abs=1e-12)
