import math

import numpy as np
import pytest
import torch
from populations import population
from scipy.stats import binomtest, norm, t
from torch import Tensor
from torch.testing import assert_close

from lscal import estimate as module
from lscal import predictions as predictions_module
from lscal.estimate import BLOCKS, Crossed, Estimate, Resamples, correlation, differences, estimates
from lscal.metrics import METRICS, applicable
from lscal.predictions import Predictions
from lscal.summary import Whole

INF, NAN = math.inf, math.nan
FITTED = {"nll_refinement", "nll_calibration", "brier_refinement", "brier_calibration", "fidelity"}
RESAMPLED = [name for name, own in METRICS.items() if not own.of_distributions and own.limits is None]
"""Metrics whose interval comes from resamples."""


@pytest.fixture
def predictions(logits: Tensor, labels: Tensor) -> Predictions:
    return Predictions.from_logits(logits, labels)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


# ---- Estimate
# --------------------------------------------------------------------------------------------------


def test_the_interval_is_the_quantiles_moved_onto_the_value():
    """Of skewed replicates with a short tail below; there the standard deviation reaches farther."""
    replicates = 5 + normal(301).exp()
    estimate = Estimate.of(number(2.5), replicates, level=0.8)
    low, high = np.quantile(replicates.numpy(), [0.1, 0.9]) - float(replicates.mean()) + 2.5
    reach = norm.ppf(0.9) * float(replicates.std(correction=0))
    assert (float(estimate.value), estimate.level) == (2.5, 0.8)
    assert 2.5 - reach < low < 2.5 < high
    assert float(estimate.low) == pytest.approx(2.5 - reach, abs=1e-12)
    assert float(estimate.high) == pytest.approx(max(high, 2.5 + reach), abs=1e-12)
    heavy = Estimate.of(number(2.5), torch.cat([replicates, 12 - replicates]), level=0.98)
    expected = np.quantile(torch.cat([replicates, 12 - replicates]).numpy(), 0.99) - 6 + 2.5
    assert float(heavy.high) == pytest.approx(expected, abs=1e-12)
    assert expected > 2.5 + norm.ppf(0.99) * float(torch.cat([replicates, 12 - replicates]).std(correction=0))


def test_each_member_has_its_own_interval():
    replicates = normal(301, 2, 3) * torch.tensor([1.0, 2.0, 5.0]) + 4
    estimate = Estimate.of(replicates[0], replicates)
    assert estimate.low.shape == (2, 3)
    alone = Estimate.of(replicates[0, 1, 2], replicates[:, 1, 2])
    assert_close(torch.stack([estimate.low[1, 2], estimate.high[1, 2]]), torch.stack([alone.low, alone.high]))


def test_a_higher_level_is_wider():
    replicates = normal(301)
    narrow, wide = Estimate.of(number(0.3), replicates, level=0.5), Estimate.of(number(0.3), replicates)
    assert wide.level == 0.95
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_interval_is_cut_at_the_bounds():
    replicates = 0.1 * normal(301)
    estimate = Estimate.of(number(0.02), replicates, bounds=(0, 0.1))
    assert (float(estimate.low), float(estimate.high)) == (0, 0.1)
    free = Estimate.of(number(0.02), replicates)
    assert free.low < 0 < 0.1 < free.high


@pytest.mark.parametrize("undefined", [NAN, INF, -INF])
def test_resamples_on_which_nothing_is_defined_are_left_out(undefined: float):
    replicates = normal(301)
    with_gaps = torch.cat([replicates, torch.full((5,), undefined, dtype=torch.float64)])
    full, cut = Estimate.of(number(0.3), replicates), Estimate.of(number(0.3), with_gaps)
    assert (float(cut.low), float(cut.high)) == (float(full.low), float(full.high))


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_a_value_which_is_not_finite_has_no_interval_but_itself(value: float):
    replicates = normal(301, 2)
    replicates[::2, 1] = value
    estimate = Estimate.of(torch.tensor([0.3, value], dtype=torch.float64), replicates)
    for part in (estimate.value, estimate.low, estimate.high):
        assert float(part[1]) == pytest.approx(value, nan_ok=True)
    assert torch.isfinite(estimate.low[0])


def test_no_resample_defines_anything():
    estimate = Estimate.of(number(0.3), torch.full((20,), NAN, dtype=torch.float64))
    assert float(estimate.value) == 0.3
    assert torch.isnan(estimate.low)
    assert torch.isnan(estimate.high)


def test_a_difference_of_intervals():
    """Two normal estimates: their difference has the variance of both less twice the covariance."""
    first = Estimate(number(3.0), number(2.0), number(4.0))
    second = Estimate(number(1.0), number(0.5), number(1.5))
    for rho in (0.0, 0.6, -0.4):
        found = first.less(second, number(rho))
        half = math.sqrt(1 + 0.25 - 2 * rho * 0.5)
        assert [float(part) for part in (found.value, found.low, found.high)] == pytest.approx(
            [2, 2 - half, 2 + half]
        )
    itself = first.less(first, number(1.0))
    assert [float(part) for part in (itself.value, itself.low, itself.high)] == [0, 0, 0]


def test_correlations():
    first, noise = normal(5000, 2), normal(5000, 2, seed=3)
    second = torch.stack([0.6 * first[:, 0] + 0.8 * noise[:, 0], -2 * first[:, 1]], -1)
    assert_close(
        correlation(first, second), torch.tensor([0.6, -1.0], dtype=torch.float64), atol=0.03, rtol=0
    )
    assert correlation(first, torch.ones_like(first)).tolist() == [0, 0]


# ---- drawing
# --------------------------------------------------------------------------------------------------


def test_drawing_is_reproducible():
    first, again, other = (Resamples.draw(31, replicates=50, random_state=state) for state in (3, 3, 4))
    for part in ("block", "weights"):
        assert torch.equal(getattr(first, part), getattr(again, part))
        assert not torch.equal(getattr(first, part), getattr(other, part))


def test_drawing_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    Resamples.draw(31, replicates=50)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_are_draws():
    weights = Resamples.draw(31, replicates=2000).weights
    assert weights.shape == (2000, 31)
    assert (weights.sum(1) == 31).all()
    assert (weights == weights.round()).all()
    assert_close(weights.mean(0), torch.ones(31, dtype=torch.float64), atol=0.12, rtol=0)
    assert_close(weights.var(0), torch.full((31,), 30 / 31, dtype=torch.float64), atol=0.2, rtol=0)


@pytest.mark.parametrize("examples", [1, 2, 1024, 1025, 5000])
def test_blocks_are_equal_parts(examples: int):
    resamples = Resamples.draw(examples, replicates=2)
    sizes = torch.bincount(resamples.block)
    assert len(sizes) == min(examples, BLOCKS) == resamples.weights.shape[1]
    assert sizes.max() - sizes.min() <= 1
    assert examples < 10 or not torch.equal(resamples.block, torch.arange(examples) % BLOCKS)


@pytest.mark.parametrize("count", [1, 40, 3000])
def test_a_group_is_drawn_as_one(count: int):
    groups = torch.arange(count).repeat_interleave(3)[
        torch.randperm(3 * count, generator=torch.Generator().manual_seed(2))
    ]
    resamples = Resamples.draw(3 * count, groups=7 * groups, replicates=2)
    of_group = [set(resamples.block[groups == group].tolist()) for group in range(min(count, 50))]
    assert all(len(blocks) == 1 for blocks in of_group)
    assert len(set.union(*of_group)) == min(count, 50) or count > BLOCKS
    assert resamples.weights.shape[1] == min(count, BLOCKS)


def test_examples_that_are_groups_of_their_own_are_drawn_as_without_groups():
    plain, grouped = (
        Resamples.draw(31, replicates=50),
        Resamples.draw(31, groups=torch.arange(31), replicates=50),
    )
    assert torch.equal(plain.block, grouped.block)
    assert torch.equal(plain.weights, grouped.weights)


def test_copies_of_an_example_make_nothing_more_certain(predictions: Predictions):
    copied = torch.arange(predictions.examples).repeat(4)
    four = Predictions.from_logits(predictions.scores[..., copied, :], predictions.labels[copied])
    once = Resamples.draw(predictions.examples)
    together = Resamples.draw(len(copied), groups=copied)
    found = [
        resamples.of(own, ["nll"])["nll"].std(0) for resamples, own in ((once, predictions), (together, four))
    ]
    assert_close(found[1], found[0], rtol=0.1, atol=0)
    alone = Resamples.draw(len(copied)).of(four, ["nll"])["nll"].std(0)
    assert_close(2 * alone, found[0], rtol=0.15, atol=0)


def test_every_example_needs_a_group():
    with pytest.raises(ValueError, match=r"^there are 5 examples and 4 group numbers; wanted one for each$"):
        Resamples.draw(5, groups=torch.arange(4))


@pytest.mark.parametrize(("examples", "replicates"), [(0, 5), (5, 0)])
def test_nothing_to_draw(examples: int, replicates: int):
    message = rf"^there are {examples} examples and {replicates} replicates; wanted at least 1 of each$"
    with pytest.raises(ValueError, match=message):
        Resamples.draw(examples, replicates=replicates)


def test_resamples_of_other_examples(predictions: Predictions):
    with pytest.raises(ValueError, match=r"^there are 101 examples; these resamples are of 100$"):
        Resamples.draw(100).of(predictions)


# ---- estimates of every metric
# -------------------------------------------------------------------------------------------


def test_every_metric_has_an_interval_about_its_value(predictions: Predictions):
    found = estimates(predictions, resamples=Resamples.draw(101, replicates=200))
    assert list(found) == [metric.name for metric in applicable(predictions)]
    whole = Whole(predictions)
    for name, estimate in found.items():
        metric = METRICS[name]
        assert torch.equal(estimate.value, metric.function(whole)), name
        assert (estimate.low <= estimate.value).all(), name
        assert (estimate.value <= estimate.high).all(), name
        assert (estimate.low < estimate.high).sum() >= 2, name
        assert (estimate.low >= metric.low).all(), name
        assert (estimate.high <= metric.high).all(), name


def test_distributions_get_their_metrics(logits: Tensor, labels: Tensor):
    q = 0.5 / 7 + 0.5 * torch.nn.functional.one_hot(labels, 7).double()
    found = estimates(Predictions.from_logits(logits, q), resamples=Resamples.draw(101, replicates=50))
    assert list(found) == list(METRICS)
    assert (found["kl"].low < found["kl"].value).all()


def test_chosen_metrics_and_level(predictions: Predictions):
    narrow, wide = (
        estimates(predictions, ["nll", "debiased_ece", "ece"], level=level) for level in (0.5, 0.99)
    )
    assert list(narrow) == ["nll", "debiased_ece", "ece"]
    for name in narrow:
        assert (narrow[name].level, wide[name].level) == (0.5, 0.99)
        assert (wide[name].low <= narrow[name].low).all()
        assert (wide[name].high > narrow[name].high).all()
    with pytest.raises(ValueError, match=r"^no metric named 'ecee'; there are accuracy"):
        estimates(predictions, ["ecee"])


def test_estimates_are_reproducible(predictions: Predictions):
    first, again = (estimates(predictions, ["nll", "aurc", "classwise_ece"]) for _ in range(2))
    other = estimates(predictions, ["nll", "aurc"], resamples=Resamples.draw(101, random_state=1))
    for name, estimate in first.items():
        assert torch.equal(estimate.low, again[name].low)
        assert torch.equal(estimate.high, again[name].high)
    assert not torch.equal(first["nll"].low, other["nll"].low)


def test_members_do_not_depend_on_each_other(predictions: Predictions, logits: Tensor, labels: Tensor):
    resamples = Resamples.draw(101, replicates=60)
    together = resamples.of(predictions)
    for member in range(3):
        alone = resamples.of(Predictions.from_logits(logits[member], labels))
        for name, replicates in alone.items():
            assert replicates.shape == (60,)
            tolerance = 1e-8 if name in FITTED else 1e-12
            assert_close(
                together[name][:, member], replicates, atol=tolerance, rtol=tolerance, equal_nan=True
            )


@pytest.mark.parametrize(
    "kind", ["plain", "masked", "calibrated", "calibrated float32", "distributions", "grid"]
)
def test_many_members_are_scored_in_groups(
    logits: Tensor, labels: Tensor, kind: str, monkeypatch: pytest.MonkeyPatch
):
    """As few at a time as fit in memory, with the same results."""
    if kind == "grid":
        logits = torch.stack([logits, logits.roll(1, -1)])
    if kind == "calibrated float32":
        logits = logits.float()
    answers = (
        0.4 / 7 + 0.6 * torch.nn.functional.one_hot(labels, 7).double() if kind == "distributions" else labels
    )
    mask = torch.arange(101) % 3 != 0 if kind in {"masked", "calibrated"} else None
    predictions = Predictions.from_logits(logits, answers, mask=mask)
    if "calibrated" in kind:
        predictions = predictions.calibrated(
            lambda z: z * torch.linspace(0.7, 1.4, 3, dtype=torch.float64).reshape(3, 1, 1)
        )
    resamples = Resamples.draw(predictions.examples, replicates=30)
    names = (
        None
        if kind == "plain"
        else [
            "accuracy",
            "nll",
            "ece",
            "debiased_ece",
            "classwise_ece",
            "smooth_ece",
            "aurc",
            "brier_refinement",
        ]
    )
    expected = estimates(predictions, names, resamples=resamples)
    itself = differences(predictions, predictions, ["nll", "ece"], resamples=resamples)
    monkeypatch.setattr(predictions_module, "TOGETHER", 2 * predictions.examples)
    assert [part.member for part in predictions.parts()] == (
        [(2,), (2,), (2,)] if kind == "grid" else [(2,), (1,)]
    )
    found = estimates(predictions, names, resamples=resamples)
    assert list(found) == list(expected)
    tolerance = 1e-5 if kind == "calibrated float32" else 1e-8
    for name, estimate in found.items():
        for part in ("value", "low", "high"):
            assert_close(
                getattr(estimate, part),
                getattr(expected[name], part),
                atol=tolerance,
                rtol=tolerance,
                equal_nan=True,
            )
    for name, estimate in differences(predictions, predictions, ["nll", "ece"], resamples=resamples).items():
        assert torch.equal(estimate.value, itself[name].value)
        assert_close(estimate.low, itself[name].low, atol=1e-12, rtol=0)


def test_replicates_are_the_same_whichever_part_they_fall_in(
    predictions: Predictions, monkeypatch: pytest.MonkeyPatch
):
    resamples = Resamples.draw(101, replicates=40, random_state=2)
    whole = resamples.of(predictions)
    monkeypatch.setattr(module, "AT_ONCE", 3 * 128 * 3 * 7)
    parts = list(resamples.summaries(module.Whole(predictions)))
    assert [len(part.weights) for part in parts] == [7, 7, 7, 7, 7, 5]
    for name, replicates in resamples.of(predictions).items():
        assert_close(replicates, whole[name], atol=1e-13, rtol=1e-13, equal_nan=True)


@pytest.mark.parametrize("examples", [400, 20_000])
def test_means_have_their_textbook_spread(examples: int):
    """Examples by themselves, and in blocks."""
    logits, labels = population(seed=71, examples=examples, classes=3)
    predictions = Predictions.from_logits(logits, labels)
    replicates = Resamples.draw(examples, replicates=2000, random_state=1).of(
        predictions, ["accuracy", "nll", "brier"]
    )
    for name, column in (
        ("accuracy", predictions.correct.double()),
        ("nll", predictions.nll),
        ("brier", predictions.brier),
    ):
        error = column.std(-1) / math.sqrt(examples)
        assert_close(replicates[name].std(0), error, rtol=0.1, atol=0)
        assert ((replicates[name].mean(0) - column.mean(-1)).abs() < 5 * error / math.sqrt(2000)).all()


@pytest.mark.parametrize("examples", [300, 3000])
def test_ece_spreads_as_its_cell_bootstrap(examples: int):
    logits, labels = population(seed=72, examples=examples, classes=3)
    predictions = Predictions.from_logits(logits[2], labels)
    replicates = Resamples.draw(examples, replicates=2000).of(predictions, ["ece"])["ece"]
    fine = module.Whole(predictions).bins.of(predictions.confidence, predictions.correct, 15 * 64)
    cells = fine.resampled(2000).coarsened(64).calibration_error()
    assert float(replicates.std()) == pytest.approx(float(cells.std()), rel=0.08)
    assert float(replicates.mean()) == pytest.approx(float(cells.mean()), abs=float(cells.std()) / 8)


def test_the_order_of_the_examples_changes_nothing_but_noise():
    logits, labels = population(seed=73, examples=250, classes=4)
    order = torch.randperm(250, generator=torch.Generator().manual_seed(1))
    resamples = Resamples.draw(250, replicates=1500)
    names = sorted(set(RESAMPLED) - FITTED)
    drawn = [
        resamples.of(Predictions.from_logits(z, y), names)
        for z, y in ((logits, labels), (logits[:, order], labels[order]))
    ]
    for name in names:
        one, two = (replicates[name] for replicates in drawn)
        assert_close(one.std(0), two.std(0), rtol=0.12, atol=1e-12)
        assert ((one.mean(0) - two.mean(0)).abs() <= 6 * one.std(0) / math.sqrt(1500) + 1e-12).all(), name


def test_infinite_losses(logits: Tensor, labels: Tensor):
    logits[1, 7, labels[7]] = -INF
    found = estimates(Predictions.from_logits(logits, labels), resamples=Resamples.draw(101, replicates=60))
    for name in ("nll", "nll_refinement"):
        for part in (found[name].value, found[name].low, found[name].high):
            assert torch.isinf(part).tolist() == [False, True, False]
    assert torch.isnan(found["nll_calibration"].value).tolist() == [False, True, False]
    for name in set(RESAMPLED) - {"nll", "nll_refinement", "nll_calibration"}:
        assert torch.isfinite(found[name].low).all(), name


@pytest.mark.parametrize("examples", [1, 2, 3, 7])
@pytest.mark.filterwarnings("error")
def test_very_few_examples(examples: int):
    """Whatever is defined has an interval within its range; nothing fails."""
    logits, labels = population(seed=74 + examples, examples=examples, classes=3)
    for name, estimate in estimates(
        Predictions.from_logits(logits, labels), resamples=Resamples.draw(examples, replicates=80)
    ).items():
        defined = torch.isfinite(estimate.value)
        inside = (estimate.low <= estimate.value + 1e-12) & (estimate.value <= estimate.high + 1e-12)
        assert (inside | ~defined | torch.isnan(estimate.low)).all(), name


def test_all_right_and_all_alike():
    logits = torch.zeros(2, 30, 3, dtype=torch.float64)
    logits[1, :, 0] = 900.0
    found = estimates(
        Predictions.from_logits(logits, torch.zeros(30, dtype=torch.int64)),
        resamples=Resamples.draw(30, replicates=60),
    )
    assert found["accuracy"].value.tolist() == found["accuracy"].high.tolist() == [1, 1]
    assert found["accuracy"].low.tolist() == pytest.approx([30 / (30 + 1.959964**2)] * 2)
    assert found["nll"].low.tolist() == pytest.approx([math.log(3), 0])
    assert found["ece"].value.tolist() == pytest.approx([2 / 3, 0])
    assert torch.isnan(found["misclassification_auroc"].low).all()


# ---- intervals of their own
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "examples"), [(0, 9), (9, 9), (5, 9), (1, 1), (970, 1000)])
@pytest.mark.parametrize("level", [0.95, 0.6])
def test_accuracy_has_wilsons_interval(right: int, examples: int, level: float):
    labels = (torch.arange(examples) >= right).long()
    logits = torch.tensor([[1.5, 0.2]], dtype=torch.float64).expand(examples, 2)
    found = estimates(
        Predictions.from_logits(logits, labels),
        ["accuracy"],
        resamples=Resamples.draw(examples, replicates=5),
        level=level,
    )
    expected = binomtest(right, examples).proportion_ci(level, method="wilson")
    estimate = found["accuracy"]
    assert (float(estimate.low), float(estimate.high)) == pytest.approx(
        (expected.low, expected.high), abs=1e-12
    )
    assert float(estimate.low) <= float(estimate.value) <= float(estimate.high)


# ---- differences
# --------------------------------------------------------------------------------------------------


def test_a_model_does_not_differ_from_itself(predictions: Predictions):
    for name, estimate in differences(
        predictions, predictions, resamples=Resamples.draw(101, replicates=60)
    ).items():
        assert not estimate.value.any(), name
        if METRICS[name].limits is None:
            assert not estimate.low.any(), name
            assert not estimate.high.any(), name
        else:
            assert (estimate.low <= 0).all()
            assert (estimate.high >= 0).all()


def test_differences_are_of_the_same_resamples(predictions: Predictions, logits: Tensor, labels: Tensor):
    other = Predictions.from_logits(logits * 0.9 + 0.2 * normal(3, 101, 7), labels)
    resamples = Resamples.draw(101, replicates=300)
    found = differences(predictions, other, ["nll", "brier", "aurc"], resamples=resamples)
    assert list(found) == ["nll", "brier", "aurc"]
    one, two = resamples.of(predictions), resamples.of(other)
    for name, estimate in found.items():
        value = METRICS[name].function(predictions) - METRICS[name].function(other)
        expected = Estimate.of(value, one[name] - two[name])
        for part in ("value", "low", "high"):
            assert torch.equal(getattr(estimate, part), getattr(expected, part))
        unpaired = (one[name].var(0) + two[name].var(0)).sqrt()
        assert ((one[name] - two[name]).std(0) < 0.8 * unpaired).all()
        back = differences(other, predictions, [name], resamples=resamples)[name]
        assert_close(back.low, -estimate.high, atol=1e-12, rtol=0)


def test_differences_of_all_metrics_and_to_another_number_of_classes(
    predictions: Predictions, labels: Tensor
):
    other = Predictions.from_logits(normal(3, 101, 9), labels)
    found = differences(predictions, other, resamples=Resamples.draw(101, replicates=40))
    assert list(found) == [metric.name for metric in applicable(predictions)]


def test_one_model_less_a_population(predictions: Predictions, logits: Tensor, labels: Tensor):
    """The one is compared with each."""
    alone = Predictions.from_logits(logits[1:2], labels)
    found = differences(alone, predictions, ["accuracy", "nll"], resamples=Resamples.draw(101, replicates=40))
    for name, estimate in found.items():
        assert estimate.value.shape == estimate.low.shape == estimate.high.shape == (3,)
        parts = torch.stack([estimate.value, estimate.low, estimate.high], -1)
        assert parts[1].tolist() == pytest.approx([0, 0, 0], abs=1e-14 if name == "nll" else 0.03)
        assert (parts[[0, 2], 2] - parts[[0, 2], 1]).min() > 0.05


@pytest.mark.parametrize("members", [(), (2,), (1, 3)])
def test_member_dimensions_which_do_not_fit(
    predictions: Predictions, logits: Tensor, labels: Tensor, members: tuple[int, ...]
):
    other = Predictions.from_logits(logits[0].expand(*members, 101, 7), labels)
    with pytest.raises(
        ValueError,
        match=(
            r"^the two have member dimensions \(.*\) and \(3,\); wanted the same, or 1 for one against each$"
        ),
    ):
        differences(other, predictions, ["nll"])


def test_only_what_both_have_is_compared(predictions: Predictions, logits: Tensor, labels: Tensor):
    soft = Predictions.from_logits(logits, torch.nn.functional.one_hot(labels, 7).double())
    assert "kl" not in differences(soft, predictions, resamples=Resamples.draw(101, replicates=10))


def test_other_labels_are_no_pair(predictions: Predictions, logits: Tensor, labels: Tensor):
    for other in (
        Predictions.from_logits(logits, labels.flip(0)),
        Predictions.from_logits(logits[:, 1:], labels[1:]),
    ):
        with pytest.raises(
            ValueError,
            match=(
                r"^the two have other labels; a paired difference is of the same examples in the same order$"
            ),
        ):
            differences(predictions, other)


# ---- seeds × examples
# --------------------------------------------------------------------------------------------------


def halves(estimate: Estimate) -> list[float]:
    return [float(estimate.value - estimate.low), float(estimate.high - estimate.value)]


def test_one_seed_covers_the_examples_alone():
    replicates = 0.3 + 0.1 * normal(300, 1)
    estimate = Estimate.crossed(replicates[0], replicates)
    assert halves(estimate) == pytest.approx([1.96 * float(replicates.std())] * 2, rel=5e-3)
    assert float(estimate.value) == float(replicates[0, 0])


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_seeds_alone_give_students_interval(seeds: int):
    """Where the examples add nothing: mean ± t s / √S."""
    by_seed = normal(seeds) + 4
    estimate = Estimate.crossed(by_seed, by_seed.expand(50, seeds), level=0.9)
    half = t.ppf(0.95, seeds - 1) * float(by_seed.std()) / math.sqrt(seeds)
    assert float(estimate.value) == pytest.approx(float(by_seed.mean()))
    assert halves(estimate) == pytest.approx([half, half], rel=1e-9)


def test_seeds_which_differ_no_more_than_their_examples_explain():
    """Seeds that move together on resamples and do not differ: the examples alone; moving apart explains that
    they differ.
    """
    common, own = normal(4000, 1), normal(4000, 5, seed=2)
    alike = Estimate.crossed(torch.full((5,), 0.3, dtype=torch.float64), 0.3 + 0.1 * common.expand(4000, 5))
    assert halves(alike) == pytest.approx([0.196, 0.196], rel=0.04)
    apart = Estimate.crossed(
        torch.tensor([0.35, 0.25, 0.3, 0.28, 0.32], dtype=torch.float64), 0.3 + 0.1 * own
    )
    assert halves(apart) == pytest.approx([0.196 / math.sqrt(5)] * 2, rel=0.04)


def test_a_crossed_interval_is_cut_at_the_bounds():
    by_seed = torch.tensor([0.9, 0.99, 0.97], dtype=torch.float64)
    estimate = Estimate.crossed(by_seed, by_seed + 0.05 * normal(100, 3), bounds=(0, 1))
    assert float(estimate.high) == 1
    assert 0.8 < float(estimate.low) < 0.95


@pytest.mark.parametrize("value", [INF, NAN])
def test_a_crossed_value_which_is_not_finite(value: float):
    by_seed = torch.tensor([0.9, value, 0.97], dtype=torch.float64)
    estimate = Estimate.crossed(by_seed, by_seed + 0.05 * normal(100, 3))
    for part in (estimate.value, estimate.low, estimate.high):
        assert float(part) == pytest.approx(value, nan_ok=True)


def test_crossed_resamples_on_which_nothing_is_defined_are_left_out():
    by_seed = normal(4)
    replicates = by_seed + 0.3 * normal(200, 4, seed=5)
    with_gaps = torch.cat([replicates, torch.tensor([[NAN, 1, 1, 1], [1, 1, INF, 1]], dtype=torch.float64)])
    assert halves(Estimate.crossed(by_seed, with_gaps)) == halves(Estimate.crossed(by_seed, replicates))


SEEDS, EXAMPLES, SIMULATIONS = 4, 150, 120


def two_models(generator: torch.Generator, advantage: float) -> list[Predictions]:
    """Two models on the same examples, each with effects of its seeds and of seed × example; the second is
    better by `advantage`.
    """
    difficulty = torch.randn(EXAMPLES, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (EXAMPLES,), generator=generator)
    models = []
    for better in (0.0, advantage):
        by_seed = 0.3 * torch.randn(SEEDS, 1, generator=generator, dtype=torch.float64)
        own = 0.8 * torch.randn(SEEDS, EXAMPLES, generator=generator, dtype=torch.float64)
        margin = 0.9 + better + difficulty + by_seed + own
        models.append(
            Predictions.from_logits(
                0.4 + margin.unsqueeze(-1) * torch.nn.functional.one_hot(labels, 3), labels
            )
        )
    return models


def simulated(advantage: float, simulations: int) -> dict[str, list[Estimate]]:
    """The paired difference of the two models' metrics, in many simulated worlds."""
    generator = torch.Generator().manual_seed(30)
    seen: dict[str, list[Estimate]] = {"accuracy": [], "nll": []}
    for simulation in range(simulations):
        first, second = two_models(generator, advantage)
        resamples = Resamples.draw(EXAMPLES, replicates=200, random_state=simulation)
        drawn, base = resamples.of(second, list(seen)), resamples.of(first, list(seen))
        for name, estimates_of in seen.items():
            by_seed = METRICS[name].function(second) - METRICS[name].function(first)
            estimates_of.append(Estimate.crossed(by_seed, drawn[name] - base[name]))
    return seen


def test_intervals_of_no_difference_cover_zero():
    """Seeds × examples under the null: at least 92 in 100 of the 95 % intervals cover 0, and not by being
    wide.
    """
    for name, seen in simulated(advantage=0.0, simulations=SIMULATIONS).items():
        covered = sum(float(estimate.low) <= 0 <= float(estimate.high) for estimate in seen) / SIMULATIONS
        spread = np.std([float(estimate.value) for estimate in seen])
        width = np.mean([float(estimate.high - estimate.low) for estimate in seen])
        assert covered >= 0.92, name
        assert 0.9 < width / (2 * 1.96 * spread) < 1.6, name


def test_intervals_of_a_large_difference_do_not_cover_zero():
    for name, seen in simulated(advantage=1.5, simulations=15).items():
        assert sum(not float(estimate.low) <= 0 <= float(estimate.high) for estimate in seen) >= 14, name


def test_the_parts_of_a_crossed_variance():
    """Seeds differ by 0.03 beyond the examples, single seeds' examples by 0.02, all seeds' examples together
    by 0.01.
    """
    seeds, replicates = 400, 1000
    common = 0.01 * normal(replicates, 1)
    drawn = common + 0.02 * normal(replicates, seeds, seed=3)
    by_seed = 0.5 + math.hypot(0.03, 0.02) * normal(seeds, seed=2)
    found = Crossed.of(by_seed, by_seed + drawn)
    assert float(found.examples) == pytest.approx(0.01, rel=0.06)
    assert float(found.seeds) == pytest.approx(math.hypot(0.03, 0.02), rel=0.08)
    assert float(found.error) == pytest.approx(
        float((found.examples.square() + found.seeds.square() / seeds).sqrt())
    )
    alone = Crossed.of(by_seed[:1], (by_seed + drawn)[:, :1])
    assert float(alone.seeds) == 0.0
    assert float(alone.examples) == pytest.approx(float(alone.error))


def test_seeds_which_make_up_for_each_others_examples_have_no_share_left_and_no_nan():
    """The examples' part is then 0 but for rounding, on whose wrong side the root is not taken."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(200):
        drawn = torch.randn(50, 6, generator=generator, dtype=torch.float64)
        drawn = drawn - 0.999 * drawn.mean(1, keepdim=True)
        found = Crossed.of(torch.randn(6, generator=generator, dtype=torch.float64), drawn)
        assert 0 <= float(found.examples) < 1e-6
        assert bool(torch.isfinite(found.error))
