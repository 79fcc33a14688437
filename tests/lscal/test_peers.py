"""lscal against netcal, torchmetrics, scikit-learn, relplot, probmetrics and uncertainty-calibration.

Where the definitions agree the numbers must be equal, on awkward inputs too. Where they differ, one test pins
down both numbers and says why; docs/statistics.md has the table.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from sklearn import metrics as sklearn
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from torch import Tensor

from lscal import BinnedStatistics, Predictions, Temperature, metrics
from lscal.classwise import one_class

pytestmark = pytest.mark.filterwarnings("ignore")  # what the peers warn of is theirs


@dataclass(frozen=True)
class Case:
    """Logits and labels of one model."""

    logits: Tensor
    labels: Tensor

    @property
    def predictions(self) -> Predictions:
        return Predictions.from_logits(self.logits, self.labels)

    @property
    def probabilities(self) -> Tensor:
        return self.logits.softmax(-1)

    @property
    def arrays(self) -> tuple[Any, Any]:
        return self.probabilities.numpy(), self.labels.numpy()

    @property
    def classes(self) -> int:
        return self.logits.shape[-1]


def drawn(seed: int, examples: int, classes: int, scale: float = 1.6) -> Case:
    """An overconfident model: its labels are drawn from softer probabilities than it reports."""
    generator = torch.Generator().manual_seed(seed)
    evidence = torch.linspace(0.1, 0.9, classes, dtype=torch.float64) + 1.5 * torch.randn(
        examples, classes, generator=generator, dtype=torch.float64
    )
    labels = torch.multinomial(evidence.softmax(-1), 1, generator=generator).squeeze(-1)
    return Case(scale * evidence, labels)


def absent(case: Case, *classes: int) -> Case:
    """The examples of other labels: these classes keep their logits and have no example."""
    rest = ~torch.isin(case.labels, torch.tensor(classes))
    return Case(case.logits[rest], case.labels[rest])


CASES = {
    "ten classes": drawn(1, 510, 10),
    "thirty-seven classes": drawn(2, 900, 37),
    "two classes": drawn(3, 330, 2),
    "underconfident": drawn(4, 345, 6, scale=0.3),
    "saturated": drawn(5, 420, 5, scale=40),
    "underflow": drawn(6, 210, 4, scale=900),
    "tied": Case((drawn(7, 450, 4).logits / 2).round() * 1.1, drawn(7, 450, 4).labels),
    "all alike": Case(torch.zeros(75, 4, dtype=torch.float64), drawn(8, 75, 4).labels),
    "two of seven classes": absent(drawn(9, 600, 7), 0, 2, 3, 4, 6),
    "one class missing": absent(drawn(10, 500, 5), 1),
    "one example": Case(torch.tensor([[0.3, 1.9, -0.7]], dtype=torch.float64), torch.tensor([1])),
    "one wrong example of two classes": Case(
        torch.tensor([[0.2, 1.1]], dtype=torch.float64), torch.tensor([0])
    ),
}
SATURATED = {"saturated", "underflow"}
"""Cases with a confidence of exactly 1."""
FEW_LABELS = {"two classes", "two of seven classes", "one example", "one wrong example of two classes"}
"""Cases in which one or two labels occur: netcal takes them for binary problems."""

every = pytest.mark.parametrize("name", CASES)


def besides(*left_out: set[str]) -> pytest.MarkDecorator:
    """Every case but those."""
    return pytest.mark.parametrize("name", [name for name in CASES if name not in set().union(*left_out)])


def close(ours: Tensor, theirs: Any, tolerance: float = 1e-9) -> bool:
    """Equal to the tolerance, absolutely and relatively."""
    return float(ours) == pytest.approx(float(theirs), rel=tolerance, abs=tolerance)


def torchmetrics_error(probabilities: Tensor, labels: Tensor, norm: str = "l1") -> float:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    return float(
        functional.multiclass_calibration_error(
            probabilities, labels, probabilities.shape[-1], n_bins=15, norm=norm
        )
    )


def netcal_error(metric: str, case: Case, **options: Any) -> float:
    import netcal.metrics

    return float(getattr(netcal.metrics, metric)(15, **options).measure(*case.arrays))


def probmetrics_value(name: str, probabilities: Tensor, labels: Tensor) -> float:
    pytest.importorskip("numba", reason="probmetrics 1.3 needs numba and does not say so")
    peer = pytest.importorskip("probmetrics.metrics")
    return float(peer.Metrics.from_names([name]).compute_all_from_labels_probs(labels, probabilities)[name])


def relplot_smooth(case: Case) -> float:
    relplot = pytest.importorskip("relplot")
    return float(
        relplot.smECE(*relplot.multiclass_logits_to_confidences(case.logits.numpy(), case.labels.numpy()))
    )


def kumar() -> Any:
    return pytest.importorskip("calibration.utils", reason="of the package uncertainty-calibration")


def kumars_bins(own: Predictions) -> Any:
    """(confidence, correct) of each of their 15 bins of equal width."""
    data = list(zip(own.confidence.tolist(), own.correct.double().tolist(), strict=True))
    return kumar().bin(data, kumar().get_equal_prob_bins(own.confidence, 15))


# ---- equal
# --------------------------------------------------------------------------------------------------


@besides(FEW_LABELS)
def test_ece_and_mce_are_netcals(name: str):
    case = CASES[name]
    assert close(metrics.ece(case.predictions), netcal_error("ECE", case))
    assert close(metrics.mce(case.predictions), netcal_error("MCE", case))


@besides(FEW_LABELS)
def test_netcals_ace_is_the_mean_over_filled_bins(name: str):
    case = CASES[name]
    bins = BinnedStatistics.of(case.predictions.confidence, case.predictions.correct)
    filled = bins.count > 0
    ours = ((bins.confidence - bins.correct).abs() / bins.count)[filled].mean()
    assert close(ours, netcal_error("ACE", case))


@pytest.mark.parametrize("name", ["ten classes", "thirty-seven classes", "underconfident"])
def test_equal_mass_ece_is_netcals_without_ties(name: str):
    case = CASES[name]
    whole = (
        len(case.labels) // 15 * 15
    )  # netcal cuts between examples: where the bins cannot be equal it cuts elsewhere
    case = Case(case.logits[:whole], case.labels[:whole])
    assert close(metrics.equal_mass_ece(case.predictions), netcal_error("ECE", case, equal_intervals=False))


@every
def test_classwise_ece_is_the_mean_of_netcals_positive_class_errors(name: str):
    from netcal.metrics import ECE

    case = CASES[name]
    columns = [
        ECE(15).measure(case.arrays[0][:, k], (case.labels == k).long().numpy()) for k in range(case.classes)
    ]
    assert close(metrics.classwise_ece(case.predictions), np.mean(columns))


@besides(SATURATED)
def test_binned_errors_are_torchmetrics(name: str):
    case = CASES[name]
    for norm, ours in {"l1": metrics.ece, "max": metrics.mce, "l2": metrics.rmsce}.items():
        # it works in float32
        assert close(ours(case.predictions), torchmetrics_error(case.probabilities, case.labels, norm), 2e-5)


@every
def test_proper_scores_are_scikit_learns(name: str):
    case = CASES[name]
    probabilities, labels = case.arrays
    classes = range(case.classes)
    right = sklearn.accuracy_score(labels, probabilities.argmax(-1))
    squared = sklearn.brier_score_loss(labels, probabilities, labels=classes, scale_by_half=False)
    assert close(metrics.accuracy(case.predictions), right)
    assert close(metrics.brier(case.predictions), squared)
    if name not in SATURATED:
        assert close(metrics.nll(case.predictions), sklearn.log_loss(labels, probabilities, labels=classes))


@besides(SATURATED, {"all alike", "tied"})
def test_top_k_and_worst_class_accuracy_are_scikit_learns(name: str):
    case = CASES[name]
    probabilities, labels = case.arrays
    if case.classes > 5:
        theirs = sklearn.top_k_accuracy_score(labels, probabilities, k=5, labels=range(case.classes))
        assert close(metrics.top_k_accuracy(case.predictions), theirs)
    recalls = sklearn.recall_score(labels, probabilities.argmax(-1), labels=np.unique(labels), average=None)
    assert close(metrics.worst_class_accuracy(case.predictions), min(recalls))


@besides({"one example", "one wrong example of two classes"})
def test_auroc_and_augrc_are_scikit_learns(name: str):
    case = CASES[name]
    own = case.predictions
    auroc = sklearn.roc_auc_score(own.correct.numpy(), own.ranking.numpy())
    accuracy = float(own.correct.double().mean())
    assert close(metrics.misclassification_auroc(own), auroc)
    assert close(
        metrics.augrc(own), (1 - auroc) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    )  # Traub et al. 2024


@pytest.mark.parametrize("name", ["ten classes", "two classes", "underconfident"])
def test_the_bins_are_those_of_scikit_learns_curve(name: str):
    from sklearn.calibration import calibration_curve

    own = CASES[name].predictions
    bins = BinnedStatistics.of(own.confidence, own.correct)
    accuracy, confidence = calibration_curve(own.correct.numpy(), own.confidence.numpy(), n_bins=15)
    filled = bins.count > 0
    assert (bins.correct / bins.count)[filled].numpy() == pytest.approx(accuracy)
    assert (bins.confidence / bins.count)[filled].numpy() == pytest.approx(confidence)


@every
def test_smooth_ece_is_relplots(name: str):
    case = CASES[name]
    assert float(metrics.smooth_ece(case.predictions)) == pytest.approx(relplot_smooth(case), abs=1e-3)


@pytest.mark.parametrize(
    ("seed", "examples", "classes", "scale"),
    [
        (1027, 2, 6, 1.6),
        (1040, 3, 6, 1.6),
        (1007, 5, 2, 6.0),
        (1002, 8, 3, 6.0),
        (1000, 13, 2, 6.0),
        (1019, 13, 2, 6.0),
    ],
)
def test_smooth_ece_of_few_examples_is_relplots(seed: int, examples: int, classes: int, scale: float):
    """The draws of 1440 in which another mesh moves the last halving of the bandwidth the furthest."""
    case = drawn(seed, examples, classes, scale)
    assert float(metrics.smooth_ece(case.predictions)) == pytest.approx(relplot_smooth(case), abs=1e-3)


@pytest.mark.parametrize("name", ["ten classes", "thirty-seven classes", "underconfident", "tied"])
def test_probmetrics_agrees_where_every_class_occurs(name: str):
    case = CASES[name]
    values = {
        "ece-15": metrics.ece,
        "rmsce-15": metrics.rmsce,
        "mce-15": metrics.mce,
        "logloss": metrics.nll,
        "brier": metrics.brier,
    }
    for theirs, ours in values.items():
        assert close(ours(case.predictions), probmetrics_value(theirs, case.probabilities, case.labels), 2e-5)
    assert float(metrics.smooth_ece(case.predictions)) == pytest.approx(
        probmetrics_value("smece", case.probabilities, case.labels), abs=1e-3
    )


@besides(SATURATED)
def test_debiased_rmsce_is_kumars(name: str):
    own = CASES[name].predictions
    assert close(metrics.debiased_rmsce(own), kumar().unbiased_l2_ce(kumars_bins(own)))


class Logits(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose scores are its inputs."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.classes_ = np.arange(classes)

    def fit(self, x: Any, y: Any) -> "Logits":
        return self

    def decision_function(self, x: Any) -> Any:
        return x

    predict = decision_function


@pytest.mark.parametrize("scale", [0.3, 1.6, 6.0])
def test_temperature_is_that_of_netcal_and_scikit_learn(scale: float):
    from netcal.scaling import TemperatureScaling

    case = drawn(11, 640, 5, scale)
    probabilities, labels = case.arrays
    ours = float(Temperature.fit(case.logits, case.labels).value)
    netcals = TemperatureScaling()
    netcals.fit(probabilities, labels)
    assert 1 / float(np.squeeze(netcals.temperature)) == pytest.approx(ours, rel=1e-3)
    scikit_learns = CalibratedClassifierCV(FrozenEstimator(Logits(5)), method="temperature").fit(
        case.logits.numpy(), labels
    )
    assert 1 / scikit_learns.calibrated_classifiers_[0].calibrators[0].beta_ == pytest.approx(ours, rel=1e-3)


@pytest.mark.parametrize("scale", [0.3, 1.6, 6.0])
def test_temperature_is_that_of_probmetrics(scale: float):
    pytest.importorskip("numba")
    calibrators = pytest.importorskip("probmetrics.calibrators")
    distributions = pytest.importorskip("probmetrics.distributions")
    case = drawn(11, 640, 5, scale)
    fitted = calibrators.get_calibrator("temp-scaling").fit_torch(
        distributions.CategoricalLogits(case.logits), case.labels
    )
    assert 1 / fitted.invtemp_ == pytest.approx(
        float(Temperature.fit(case.logits, case.labels).value), rel=1e-6
    )


def test_distances_to_label_distributions_are_scipys():
    case = drawn(12, 170, 6)
    generator = torch.Generator().manual_seed(13)
    votes = torch.multinomial(case.logits.div(2).softmax(-1), 9, replacement=True, generator=generator)
    shares = torch.nn.functional.one_hot(votes, 6).double().mean(1)
    own = Predictions.from_logits(case.logits, shares)
    p, q = case.probabilities.numpy(), shares.numpy()
    assert close(metrics.kl(own), rel_entr(q, p).sum(-1).mean())
    assert close(metrics.jensen_shannon(own), np.mean(jensenshannon(p, q, axis=-1) ** 2))
    assert close(metrics.total_variation(own), np.abs(p - q).sum(-1).mean() / 2)
    assert close(metrics.soft_nll(own), -(q * np.log(p)).sum(-1).mean())


def gupta(own: Predictions) -> float:
    """The KS error as Gupta et al. 2021 publish it: from the least confident on, ties by position."""
    order = own.confidence.argsort(stable=True)
    residual = (own.confidence - own.correct.double())[order]
    return max(abs(sum(residual[: i + 1].tolist())) for i in range(own.examples)) / own.examples


@besides({"tied", "all alike"}, SATURATED)
def test_ks_error_is_guptas_without_ties(name: str):
    own = CASES[name].predictions
    assert close(metrics.ks_error(own), gupta(own))


@besides({"tied", "all alike"}, SATURATED)
def test_ks_error_is_probmetrics_without_ties(name: str):
    pytest.importorskip("numba")
    peer = pytest.importorskip("probmetrics.metrics").KolmogorovSmirnovCalibrationMetric()
    own = CASES[name].predictions
    binary = torch.stack([1 - own.confidence, own.confidence], -1)
    theirs = peer.compute_from_labels_probs(own.correct.long(), binary)
    assert close(metrics.ks_error(own), theirs, 1e-6)  # it works in float32


@pytest.mark.parametrize("name", ["ten classes", "thirty-seven classes", "underconfident"])
def test_calibration_and_refinement_are_close_to_probmetrics(name: str):
    case = CASES[name]
    ours = {
        "refinement_logloss_ts-mix_cv-5": metrics.nll_refinement,
        "calib-err_logloss_ts-mix_cv-5": metrics.nll_calibration,
        "refinement_brier_ts-mix_cv-5": metrics.brier_refinement,
        "calib-err_brier_ts-mix_cv-5": metrics.brier_calibration,
    }
    for theirs, own in ours.items():  # other folds, and they mix a little uniform probability in
        assert float(own(case.predictions)) == pytest.approx(
            probmetrics_value(theirs, case.probabilities, case.labels), abs=5e-3
        )


# ---- different, and why
# ------------------------------------------------------------------------------------------------

QUARTERS = torch.tensor(
    [[0.7, 0.1, 0.1, 0.1], [0.1, 0.6, 0.2, 0.1], [0.2, 0.2, 0.5, 0.1], [0.9, 0.1, 0.0, 0.0]],
    dtype=torch.float64,
)
QUARTER_LABELS = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize("rounded", [1.0000001, -1e-9])
def test_torchmetrics_takes_a_rounded_probability_for_logits(rounded: float):
    probabilities = QUARTERS.clone()
    probabilities[3] = torch.tensor([rounded if rounded > 1 else 1.0, 0.0, 0.0, min(rounded, 0.0)])
    assert close(
        metrics.ece(Predictions.from_probabilities(probabilities, QUARTER_LABELS)),
        (0.3 + 0.4 + 0.5) / 4,
        1e-6,
    )
    # softmax of the whole batch
    softmaxed = metrics.ece(Predictions.from_logits(probabilities, QUARTER_LABELS))
    assert torchmetrics_error(probabilities, QUARTER_LABELS) == pytest.approx(float(softmaxed), abs=1e-6)
    assert float(softmaxed) == pytest.approx(0.6207, abs=0.0001)


def test_torchmetrics_and_netcal_score_what_cannot_be_scored():
    from netcal.metrics import ECE

    broken = QUARTERS.clone()
    broken[1] = torch.nan
    assert 0 < torchmetrics_error(broken, QUARTER_LABELS) < 1
    for nonsense, labels in [
        (broken, QUARTER_LABELS),
        (10 * QUARTERS, QUARTER_LABELS),
        (QUARTERS, QUARTER_LABELS + 2),
    ]:
        assert np.isfinite(ECE(15).measure(nonsense.numpy(), labels.numpy()))
        with pytest.raises(ValueError, match="allowed|sum"):
            Predictions.from_probabilities(nonsense, labels)


def test_torchmetrics_and_relplot_give_a_confidence_of_one_a_bin_of_its_own():
    confidence = torch.tensor([1.0] * 50 + [0.95] * 50, dtype=torch.float64)
    probabilities = torch.stack([confidence, 1 - confidence, torch.zeros(100, dtype=torch.float64)], -1)
    labels = torch.zeros(100, dtype=torch.long)
    labels[:5] = 2
    own = Predictions.from_probabilities(probabilities, labels)
    assert close(metrics.ece(own), 0.025)  # mean confidence .975, accuracy .95
    assert torchmetrics_error(probabilities, labels) == pytest.approx((0.1 + 0.05) / 2, abs=1e-6)
    relplot = pytest.importorskip("relplot.metrics")
    assert relplot.binnedECE(confidence.numpy(), own.correct.numpy(), nbins=15) == pytest.approx(
        (0.1 + 0.05) / 2
    )


def test_others_take_two_classes_for_the_positive_class():
    case = CASES["two classes"]
    functional = pytest.importorskip("torchmetrics.functional.classification")
    positive = one_class(case.predictions, 1).calibration_error()
    top = metrics.ece(case.predictions)
    assert abs(float(positive - top)) > 0.01
    assert close(positive, netcal_error("ECE", case))
    assert close(positive, functional.binary_calibration_error(case.probabilities[:, 1], case.labels), 2e-5)
    assert close(positive, probmetrics_value("ece-15", case.probabilities, case.labels), 2e-5)
    assert close(top, torchmetrics_error(case.probabilities, case.labels), 2e-5)


def test_netcal_takes_two_labels_for_two_classes():
    for name in ["two of seven classes", "one example"]:
        case = CASES[name]
        with pytest.raises(RuntimeError, match="binary"):
            netcal_error("ECE", case)
        own = case.predictions
        if name == "one example":
            assert close(metrics.ece(own), abs(float(own.confidence) - 1))
        else:
            assert float(metrics.ece(own)) == pytest.approx(0.190, abs=0.001)


def test_netcals_equal_mass_bins_fail_on_ties():
    case = CASES["tied"]
    with pytest.raises(ValueError, match="monoton|increas|edge"):
        netcal_error("ECE", case, equal_intervals=False)
    confidence = torch.full((30,), 0.8, dtype=torch.float64)
    probabilities = torch.stack([confidence, 1 - confidence], -1)
    labels = torch.tensor([0] * 24 + [1] * 6)
    assert close(metrics.equal_mass_ece(Predictions.from_probabilities(probabilities, labels)), 0)


def test_equal_mass_bins_cut_by_position_depend_on_the_order():
    """As torch-uncertainty's adaptive error cuts them, which is not installed here: the same formula."""
    confidence = torch.full((30,), 0.8, dtype=torch.float64)
    right = torch.tensor([1.0] * 24 + [0.0] * 6, dtype=torch.float64)
    by_position = sum(abs(0.8 - part.mean()) * len(part) for part in right.tensor_split(15)) / 30
    assert float(by_position) == pytest.approx(0.32)
    probabilities = torch.stack([confidence, 1 - confidence], -1)
    assert close(metrics.equal_mass_ece(Predictions.from_probabilities(probabilities, 1 - right.long())), 0)


def test_probmetrics_drops_classes_without_examples():
    probabilities = torch.tensor(
        [[0.5, 0.1, 0.4], [0.15, 0.35, 0.5], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]], dtype=torch.float64
    )
    probabilities = torch.cat([probabilities / 2, torch.full((4, 1), 0.5, dtype=torch.float64)], -1)
    labels = torch.tensor([0, 2, 1, 1])
    # the class without examples is the top one throughout: confidence .5, never right
    assert close(metrics.ece(Predictions.from_probabilities(probabilities, labels)), 0.5)
    # of what remains: .5, .5, .6, .8 in the bins of .467, .6 and .8, and the third is wrong
    assert probmetrics_value("ece-15", probabilities, labels) == pytest.approx(
        (2 * 0.5 + 0.6 + 0.2) / 4, abs=1e-6
    )


def test_scikit_learn_halves_the_brier_score_of_two_classes():
    case = CASES["two classes"]
    probabilities, labels = case.arrays
    assert close(metrics.brier(case.predictions), 2 * sklearn.brier_score_loss(labels, probabilities))


def test_scikit_learn_cuts_a_log_loss_at_36():
    case = Case(torch.tensor([[0.0, 800.0, 30.0]], dtype=torch.float64), torch.tensor([0]))
    assert close(metrics.nll(case.predictions), 800)
    assert sklearn.log_loss([0], case.probabilities.numpy(), labels=[0, 1, 2]) == pytest.approx(
        -np.log(np.finfo(float).eps)
    )
    assert float(metrics.nll(Predictions.from_probabilities(case.probabilities, case.labels))) == float("inf")


def test_scikit_learn_breaks_ties_at_the_fifth_place_by_position():
    logits = torch.tensor([[2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
    for label in (4, 5):
        own = Predictions.from_logits(logits, torch.tensor([label]))
        assert float(metrics.top_k_accuracy(own)) == 1
    theirs = [sklearn.top_k_accuracy_score([label], logits.numpy(), k=5, labels=range(7)) for label in (4, 5)]
    assert sorted(theirs) == [0, 1]


def test_kumars_bins_include_their_upper_edge():
    confidence = torch.tensor([0.6, 0.62], dtype=torch.float64)  # .6 is 9/15
    probabilities = torch.stack([confidence, 1 - confidence], -1)
    assert close(
        metrics.ece(Predictions.from_probabilities(probabilities, torch.tensor([0, 1]))), 0.11
    )  # one bin: |1.22 - 1| / 2
    utils = kumar()
    assert utils.get_ece(probabilities.numpy(), np.array([0, 1])) == pytest.approx((0.4 + 0.62) / 2)


def test_kumars_debiased_ece_is_another_estimate():
    """They take off the plug-in's bias were the observed gaps the true ones; ours looks for the gaps whose
    ECE is the observed one.
    """
    own = CASES["two classes"].predictions
    binned = [
        rows for rows in kumars_bins(own) if len(rows) > 1
    ]  # they refuse a bin of fewer than two examples
    assert sum(map(len, binned)) == own.examples
    np.random.seed(0)
    assert kumar().normal_debiased_ce(binned) == pytest.approx(0.0434, abs=0.001)
    assert float(metrics.debiased_ece(own)) == pytest.approx(0.0332, abs=0.001)
    assert float(metrics.ece(own)) == pytest.approx(0.0589, abs=0.001)


def test_netcals_temperature_is_an_inverse_is_1_for_float32_and_loses_what_underflows():
    from netcal.scaling import TemperatureScaling

    def netcals(case: Case, dtype: torch.dtype = torch.float64) -> float:
        scaling = TemperatureScaling()
        scaling.fit(case.probabilities.to(dtype).numpy(), case.labels.numpy())
        return float(np.squeeze(scaling.temperature))

    case, steep = drawn(14, 400, 4), drawn(15, 500, 5, scale=30)
    assert float(Temperature.fit(case.logits, case.labels).value) == pytest.approx(1.60, abs=0.01)
    assert netcals(case) == pytest.approx(1 / 1.60, abs=0.01)
    assert netcals(case, torch.float32) == 1
    assert float(Temperature.fit(steep.logits, steep.labels).value) == pytest.approx(30.22, abs=0.01)
    assert 1 / netcals(steep) == pytest.approx(16.98, abs=0.1)
