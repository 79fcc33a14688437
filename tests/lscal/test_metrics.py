import functools
import math
from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch
from netcal.metrics import ECE
from populations import population
from torch import Tensor
from torch.testing import assert_close

from lscal.binning import BinnedStatistics
from lscal.calibrators import Temperature
from lscal.display import DISPLAY, plain
from lscal.metrics import METRICS, applicable, metric, p_value
from lscal.predictions import Predictions
from lscal.summary import Summary, Whole

INF = math.inf
ON_LABELS = [name for name, own in METRICS.items() if not own.of_distributions]
FITTED = {"nll_refinement", "nll_calibration", "brier_refinement", "brier_calibration", "fidelity"}
"""Metrics of folds, which are of positions."""
OF_SMALL_SAMPLES = {
    "debiased_ece",
    "debiased_rmsce",
    "calibrated_ece",
    "aurc",
    "e_aurc",
    "spiegelhalter",
    "equal_mass_ece",
    "risk_at_coverage",
}
"""Metrics that depend on how many examples there are."""
every = pytest.mark.parametrize("name", ON_LABELS)


def value(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    return METRICS[name].function(Predictions.from_logits(logits, labels))


def saturated(examples: int = 60) -> tuple[Tensor, Tensor]:
    """Gaps of 40 to 1000 between the two highest of four logits, mostly right."""
    generator = torch.Generator().manual_seed(3)
    gaps = torch.linspace(40, 1000, examples, dtype=torch.float64)[
        torch.randperm(examples, generator=generator)
    ]
    predicted = torch.randint(4, (examples,), generator=generator)
    rest = -3 * torch.rand(examples, 4, generator=generator, dtype=torch.float64)
    logits = rest.scatter_add(1, predicted.unsqueeze(-1), gaps.unsqueeze(-1)) + 0.3
    wrong = torch.rand(examples, generator=generator) < 0.3
    return logits, torch.where(wrong, (predicted + 1) % 4, predicted)


def tied() -> tuple[Tensor, Tensor]:
    """Nine different rows, each many times; two of them with two equal highest logits."""
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    rows[2, [1, 3]] = rows[5, [0, 2]] = 2.2
    logits = rows[torch.randint(9, (130,), generator=generator)]
    return logits, torch.multinomial((0.7 * logits).softmax(-1), 1, generator=generator).squeeze(-1)


def ruled_out(at_label: bool) -> tuple[Tensor, Tensor]:
    """A third of the classes ruled out by -inf, sometimes all but one; the label never, or once."""
    logits, labels = population(seed=6, examples=90, classes=5)
    generator = torch.Generator().manual_seed(5)
    out = torch.rand(90, 5, generator=generator) < 0.35
    out[:4] = True
    out[torch.arange(90), labels] = False
    if at_label:
        out[17, labels[17]], out[17, (labels[17] + 2) % 5] = True, False
    return logits.masked_fill(out, -INF), labels


def answered(right: bool) -> tuple[Tensor, Tensor]:
    logits, _ = population(seed=7, examples=40, classes=3)
    return logits[1], (logits[1].argmax(-1) + (not right)) % 3


def without_class_three() -> tuple[Tensor, Tensor]:
    logits, labels = population(seed=20)
    return logits[:, labels != 3], labels[labels != 3]


CASES = {
    "three models": lambda: population(seed=20),
    "a grid of models": lambda: (
        torch.stack([population(21, 61)[0], population(21, 61)[0].roll(1, -1)]),
        population(21, 61)[1],
    ),
    "two classes": lambda: population(seed=22, examples=97, classes=2),
    "a hundred classes": lambda: population(seed=23, examples=37, classes=100),
    "a missing class": without_class_three,
    "one example": lambda: (
        torch.tensor([[0.3, -0.4, 1.9, 0.2, 0.6]], dtype=torch.float64),
        torch.tensor([2]),
    ),
    "one wrong example": lambda: (
        torch.tensor([[0.3, -0.4, 1.9, 0.2, 0.6]], dtype=torch.float64),
        torch.tensor([0]),
    ),
    "two examples": lambda: population(seed=24, examples=2, classes=3),
    "seven examples": lambda: population(seed=29, examples=7, classes=3),
    "ties": tied,
    "all alike": lambda: (torch.full((31, 4), 0.7, dtype=torch.float64), population(25, 31, 4)[1]),
    "saturated": saturated,
    "ruled out": lambda: ruled_out(at_label=False),
    "a label ruled out": lambda: ruled_out(at_label=True),
    "all right": lambda: answered(right=True),
    "all wrong": lambda: answered(right=False),
}


@functools.cache
def case(which: str) -> tuple[Whole, Tensor, Tensor]:
    logits, labels = CASES[which]()
    return Whole(Predictions.from_logits(logits, labels)), logits, labels


def expected_of(name: str, logits: Tensor, labels: Tensor) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # inf - inf
        values = [
            oracles.METRICS[name](z.numpy(), labels.numpy()) for z in logits.reshape(-1, *logits.shape[-2:])
        ]
    return np.reshape(values, logits.shape[:-2])


def test_there_is_an_oracle_for_every_metric():
    assert set(METRICS) == set(oracles.METRICS)


@pytest.mark.parametrize("which", CASES)
def test_agrees_with_the_oracle(which: str):
    whole, logits, labels = case(which)
    for name in ON_LABELS:
        values = METRICS[name].function(whole)
        assert values.shape == logits.shape[:-2], name
        assert values.dtype == torch.float64, name
        tolerance = oracles.TOLERANCES.get(name, 1e-12)
        np.testing.assert_allclose(
            values.numpy(), expected_of(name, logits, labels), atol=tolerance, rtol=tolerance, err_msg=name
        )


@every
def test_the_cases_tell_models_apart(name: str):
    """So that agreement with the oracle means something."""
    assert len(set(np.round(METRICS[name].function(case("three models")[0]).tolist(), 4))) > 1


def test_float32_agrees_with_the_oracle(logits: Tensor, labels: Tensor):
    narrow = logits.float()
    whole = Whole(Predictions.from_logits(narrow, labels))
    for name in ON_LABELS:
        tolerance = max(1e-6, oracles.TOLERANCES.get(name, 0))
        values = METRICS[name].function(whole)
        assert values.dtype == torch.float64
        expected = expected_of(name, narrow.double(), labels)
        np.testing.assert_allclose(values.numpy(), expected, atol=tolerance, rtol=tolerance, err_msg=name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_counts_as_the_numbers_it_holds(logits: Tensor, labels: Tensor, dtype: torch.dtype):
    narrow, same = (
        Whole(Predictions.from_logits(own, labels)) for own in (logits.to(dtype), logits.to(dtype).float())
    )
    for name in ON_LABELS:
        assert torch.equal(METRICS[name].function(narrow), METRICS[name].function(same)), name


@every
def test_the_range_is_kept(name: str):
    own = METRICS[name]
    for which in CASES:
        values = own.function(case(which)[0])
        inside = (values >= own.low) & (values <= own.high)
        assert (inside | torch.isnan(values)).all(), (which, values)


@pytest.mark.parametrize("name", sorted(set(ON_LABELS) - FITTED))
def test_the_order_of_the_examples_does_not_matter(name: str):
    order = torch.randperm(130, generator=torch.Generator().manual_seed(8))
    logits, labels = tied()
    assert_close(
        value(name, logits[order], labels[order]), value(name, logits, labels), atol=1e-13, rtol=1e-13
    )


@pytest.mark.parametrize("name", sorted(set(ON_LABELS) - FITTED - OF_SMALL_SAMPLES))
def test_duplicated_examples_change_no_mean(name: str, logits: Tensor, labels: Tensor):
    twice = value(name, torch.cat([logits, logits], 1), torch.cat([labels, labels]))
    assert_close(twice, value(name, logits, labels), atol=1e-6 if name == "smooth_ece" else 1e-13, rtol=0)


@pytest.mark.parametrize("size", [20, 70])
def test_the_size_of_blocks_does_not_matter(
    logits: Tensor, labels: Tensor, size: int, monkeypatch: pytest.MonkeyPatch
):
    whole = Whole(Predictions.from_logits(logits, labels))
    expected = {name: METRICS[name].function(whole) for name in ON_LABELS}
    read = Predictions.blocks
    monkeypatch.setattr(Predictions, "blocks", lambda self, _=0: read(self, size))
    parts = Whole(Predictions.from_logits(logits, labels))
    for name in ON_LABELS:
        assert_close(METRICS[name].function(parts), expected[name], atol=1e-13, rtol=1e-13)


def test_netcal_agrees_on_ece(logits: Tensor, labels: Tensor):
    for z, ece in zip(logits, value("ece", logits, labels).tolist(), strict=True):
        assert ece == pytest.approx(ECE(15).measure(oracles.softmax(z.numpy()), labels.numpy()), abs=1e-13)


def test_worst_class_is_the_worst():
    logits = torch.eye(4, dtype=torch.float64)[[0, 0, 1, 2, 2, 2]] * 3 + 0.1
    labels = torch.tensor([0, 0, 1, 1, 2, 2])  # class 1 is right once in two, class 3 never occurs
    assert float(value("worst_class_accuracy", logits, labels)) == 0.5


def test_top_k_counts_a_label_that_ties_with_the_fifth():
    z = torch.tensor([9.0, 8, 7, 6, 5, 5, 4], dtype=torch.float64).expand(3, 7)
    assert float(value("top_k_accuracy", z, torch.tensor([4, 5, 6]))) == pytest.approx(2 / 3)


def test_the_gap_is_signed(logits: Tensor, labels: Tensor):
    under, _, over = value("confidence_gap", logits, labels).tolist()
    assert under < -0.05
    assert over > 0.05


def test_over_and_underconfidence_sum_to_the_ece(logits: Tensor, labels: Tensor):
    over, under = value("overconfidence", logits, labels), value("underconfidence", logits, labels)
    assert_close(over + under, value("ece", logits, labels), atol=1e-14, rtol=0)
    assert over.min() >= 0
    assert (over - under)[0] < 0 < (over - under)[2]


def test_augrc_is_made_of_accuracy_and_auroc(logits: Tensor, labels: Tensor):
    a, auroc = value("accuracy", logits, labels), value("misclassification_auroc", logits, labels)
    assert_close(
        value("augrc", logits, labels), (1 - auroc) * a * (1 - a) + (1 - a) ** 2 / 2, atol=1e-14, rtol=0
    )


def test_a_calibrated_model_shows_the_ece_foretold():
    """Labels drawn from the confidences themselves: the mean ECE over worlds is what `calibrated_ece` says of
    each.
    """
    generator = torch.Generator().manual_seed(9)
    z = 2 * torch.randn(1500, 2, generator=generator, dtype=torch.float64)
    right = torch.rand(400, 1500, generator=generator) < z.softmax(-1).amax(-1)
    other = z.argmax(-1)
    own = z.softmax(-1).amax(-1).expand(400, -1)
    eces = BinnedStatistics.of(own, right).calibration_error()
    foretold = float(value("calibrated_ece", z, other))
    # confidences are spread inside a bin, which makes the binomial of their mean a little too wide
    assert float(eces.mean()) == pytest.approx(foretold, abs=3 * float(eces.std()) / 20)
    assert foretold > 0.01


def test_spiegelhalter_is_standard_normal_where_confidence_is_calibrated():
    generator = torch.Generator().manual_seed(10)
    z = 2 * torch.randn(500, 3, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(z.softmax(-1), 200, replacement=True, generator=generator).T
    statistics = torch.stack([value("spiegelhalter", z, own) for own in labels])
    assert float(statistics.mean()) == pytest.approx(0, abs=0.2)
    assert float(statistics.std()) == pytest.approx(1, abs=0.12)
    rejected = (p_value(statistics) < 0.1).double().mean()
    assert 0.05 < rejected < 0.16


def test_p_values():
    z = torch.tensor([0.0, 1.959964, -1.959964, 40.0], dtype=torch.float64)
    assert p_value(z).tolist() == pytest.approx([1, 0.05, 0.05, 0], abs=1e-6)


def test_aurc_tells_saturated_confidences_apart():
    """Where every confidence is 1.0, the ranking comes from their logarithm: here the wrong answer is the
    least sure.
    """
    logits = torch.tensor([[47.0, 0.2], [41.0, 0.2], [62.0, 0.2]], dtype=torch.float64)
    assert oracles.confidence(logits.numpy()).tolist() == [1.0, 1.0, 1.0]
    for own in (logits, logits.float()):
        assert float(value("aurc", own, torch.tensor([0, 1, 0]))) == pytest.approx((0 + 0 + 1 / 3) / 3)
        assert float(value("misclassification_auroc", own, torch.tensor([0, 1, 0]))) == 1


def test_refinement_is_what_temperature_leaves(logits: Tensor, labels: Tensor):
    """Scaled logits have the same refinement, and the calibration part is all that scaling adds."""
    softer = logits / 2.5
    for score in ("nll", "brier"):
        refined = value(f"{score}_refinement", logits, labels)
        assert_close(value(f"{score}_refinement", softer, labels), refined, atol=1e-7, rtol=0)
        for own in (logits, softer):
            whole = value(f"{score}_refinement", own, labels) + value(f"{score}_calibration", own, labels)
            assert_close(whole, value(score, own, labels), atol=1e-13, rtol=0)
    assert value("nll_calibration", logits, labels)[2] > 0.3  # the overconfident one


@pytest.mark.parametrize("scale", [0.3, 1, 20])
def test_an_increasing_map_of_confidence_leaves_the_ranking(scale: float):
    """Of two classes, temperature is one; also where confidences saturate."""
    logits, labels = population(seed=26, classes=2)
    predictions = Predictions.from_logits(scale * logits, labels)
    softer = predictions.calibrated(lambda z: z / 7)
    for name in (
        "fidelity",
        "aurc",
        "e_aurc",
        "augrc",
        "misclassification_auroc",
        "risk_at_coverage",
        "coverage_at_risk",
    ):
        assert_close(METRICS[name].function(softer), METRICS[name].function(predictions), atol=1e-12, rtol=0)


def test_fidelity_of_a_useful_and_a_useless_confidence():
    generator = torch.Generator().manual_seed(11)
    sure = torch.arange(600) % 2 == 0
    z = torch.stack([torch.zeros(600, dtype=torch.float64), torch.where(sure, 3.0, 0.4).double()], -1)
    labels = torch.where(sure, 1, 0)  # the sure ones are right, the others wrong
    assert float(value("fidelity", z, labels)) == pytest.approx(1, abs=1e-12)
    assert float(value("fidelity", z, torch.randint(2, (600,), generator=generator))) == pytest.approx(
        0, abs=0.01
    )


@pytest.mark.parametrize("name", ["misclassification_auroc", "fidelity"])
@pytest.mark.parametrize("right", [True, False])
def test_nothing_to_rank_is_not_a_number(name: str, right: bool):
    assert torch.isnan(value(name, *answered(right)))


@every
def test_the_better_model_is_on_the_better_side(logits: Tensor, labels: Tensor, name: str):
    """Given a model that is nearly always right and sure, but for its least sure answers, against the
    overconfident one, or the underconfident one."""
    wrong = torch.arange(101) < 2
    margin = torch.where(wrong, -0.5, 6.0).unsqueeze(-1)
    good = margin * torch.nn.functional.one_hot(labels, 7).to(torch.float64) + 0.05 * logits[1]
    bad = logits[0 if name == "underconfidence" else 2]
    ours, others = float(value(name, good, labels)), float(value(name, bad, labels))
    assert METRICS[name].name == name
    better = METRICS[name].better
    if better == "nearer 0":
        assert abs(ours) < abs(others)
    else:
        assert (ours > others) == (better == "higher")


HIGHER = {
    "accuracy",
    "top_k_accuracy",
    "worst_class_accuracy",
    "spherical",
    "misclassification_auroc",
    "coverage_at_risk",
    "fidelity",
}


def test_directions():
    assert {name for name in ON_LABELS if METRICS[name].better == "higher"} == HIGHER
    assert {name for name in ON_LABELS if METRICS[name].better == "nearer 0"} == {
        "nll_calibration",
        "brier_calibration",
        "confidence_gap",
        "spiegelhalter",
    }


def test_a_decorated_function_is_a_metric(logits: Tensor, labels: Tensor):
    def mean_log_confidence(of: Summary) -> Tensor:
        """Of a test."""
        return of.mean(of.predictions.log_confidence)

    try:
        with pytest.raises(ValueError, match="mean_log_confidence has no entry in lscal.display.DISPLAY"):
            metric(-5, 0)(mean_log_confidence)
        shown = plain("mean log confidence", "higher", "of a test")
        function = metric(-5, 0, shown=shown)(mean_log_confidence)
        registered = METRICS["mean_log_confidence"]
        assert replace(registered) == registered
        assert (registered.better, registered.function, registered.low, registered.high) == (
            "higher",
            function,
            -5,
            0,
        )
        assert function.__doc__ == "Of a test."
        predictions = Predictions.from_logits(logits, labels)
        assert_close(function(predictions), predictions.log_confidence.mean(-1), atol=1e-14, rtol=0)
        assert torch.equal(function(Whole(predictions)), function(predictions))
        assert applicable(predictions)[-1] is registered
    finally:
        del METRICS["mean_log_confidence"], DISPLAY["mean_log_confidence"]


def test_an_unknown_name(logits: Tensor, labels: Tensor):
    with pytest.raises(ValueError, match=r"^no metric named 'aucr'; there are accuracy, top_k_accuracy, "):
        applicable(Predictions.from_logits(logits, labels), ["ece", "aucr"])


def test_names_keep_their_order(logits: Tensor, labels: Tensor):
    found = applicable(Predictions.from_logits(logits, labels), ["nll", "accuracy"])
    assert [own.name for own in found] == ["nll", "accuracy"]


def test_calibrated_predictions_are_those_of_the_calibrated_logits(logits: Tensor, labels: Tensor):
    temperature = Temperature.fit(logits[:, :40], labels[:40])
    through = Predictions.from_logits(logits, labels).calibrated(temperature)
    before = Predictions.from_logits(temperature(logits), labels)
    wholes = Whole(through), Whole(before)
    for name in ON_LABELS:
        values = [METRICS[name].function(whole) for whole in wholes]
        assert_close(*values, atol=1e-10, rtol=0)
