import functools
import math

import oracles
import pytest
import torch
from populations import population
from torch import Tensor
from torch.testing import assert_close

from lscal import crossfit
from lscal.binning import BinnedStatistics, equal_mass_bounds
from lscal.metrics import METRICS
from lscal.predictions import Predictions
from lscal.summary import GROUPS, Blocks, Resampled, Whole

INF = math.inf
FITTED = {"nll_refinement", "nll_calibration", "brier_refinement", "brier_calibration", "fidelity"}
"""Metrics of something that was fitted on all examples once, and is not again on each resample."""
RANKING = {
    "aurc",
    "e_aurc",
    "augrc",
    "misclassification_auroc",
    "risk_at_coverage",
    "coverage_at_risk",
    "ks_error",
}
"""Metrics of rank groups, of which there are no more than 128 on resamples."""
APPROXIMATE = {"smooth_ece", "equal_mass_ece", "debiased_ece"}
"""Metrics that on resamples move along a tangent, keep their bounds, or stand for another."""


def votes(labels: Tensor, classes: int) -> Tensor:
    generator = torch.Generator().manual_seed(classes)
    noise = torch.rand(len(labels), classes, generator=generator, dtype=torch.float64)
    q = noise + 3 * torch.nn.functional.one_hot(labels, classes)
    return q / q.sum(-1, keepdim=True)


@functools.cache
def scored(examples: int, members: int = 3) -> tuple[Whole, Tensor, Tensor]:
    """Up to six members in two dimensions, with label distributions, so that all metrics apply."""
    logits, labels = population(seed=examples, examples=examples)
    logits = torch.stack([logits, 0.6 * logits.roll(1, -1)]) if members == 6 else logits[:members]
    distribution = votes(labels, 7)
    return Whole(Predictions.from_logits(logits, distribution)), logits, distribution


def blocks_of(whole: Whole, count: int | None = None) -> Blocks:
    examples = whole.own.examples
    count = min(examples, 1024) if count is None else count
    order = torch.randperm(examples, generator=torch.Generator().manual_seed(1))
    return Blocks(whole, order % count, count)


def drawn(count: int, replicates: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.stack(
        [
            torch.bincount(torch.randint(count, (count,), generator=generator), minlength=count)
            for _ in range(replicates)
        ]
    )


def close(name: str, found: Tensor, expected: Tensor, atol: float) -> None:
    assert_close(found, expected, atol=atol, rtol=0, equal_nan=True, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize(("examples", "members"), [(1, 3), (101, 3), (101, 6), (128, 1), (700, 3), (2500, 3)])
def test_every_example_once_gives_the_value(examples: int, members: int):
    whole, logits, _ = scored(examples, members)
    resampled = Resampled(blocks_of(whole), torch.ones(2, min(examples, 1024), dtype=torch.float64))
    for name, metric in METRICS.items():
        values = metric.function(resampled)
        assert values.shape == (2, *logits.shape[:-2]), name
        assert values.dtype == torch.float64, name
        value = METRICS["ece" if name == "debiased_ece" else name].function(whole)
        coarse = name in RANKING and examples > GROUPS
        for row in values:
            # 1/128 of the examples is a group: no rank metric can be off by more
            close(name, row, value, atol=1 / 128 if coarse else 1e-12)


@pytest.mark.parametrize("members", [3, 6])
def test_weights_are_repetitions(members: int):
    whole, logits, distribution = scored(101, members)
    blocks, weights = blocks_of(whole), drawn(101)
    resampled = Resampled(blocks, weights.double())
    for replicate, own in enumerate(weights):
        times = own[blocks.block]
        assert times.max() > 2
        repeated = Whole(
            Predictions.from_logits(
                logits.repeat_interleave(times, -2), distribution.repeat_interleave(times, 0)
            )
        )
        for name in set(METRICS) - FITTED - APPROXIMATE:
            function = METRICS[name].function
            close(name, function(resampled)[replicate], function(repeated), atol=1e-12)


def test_weights_of_blocks_are_repetitions_of_their_examples():
    """Of 700 examples in 60 blocks of 11 or 12; rank groups make the ranking metrics approximate."""
    whole, logits, distribution = scored(700)
    blocks, weights = blocks_of(whole, 60), drawn(60)
    resampled = Resampled(blocks, weights.double())
    assert any(own[blocks.block].sum() != 700 for own in weights)
    for replicate, own in enumerate(weights):
        times = own[blocks.block]
        repeated = Whole(
            Predictions.from_logits(
                logits.repeat_interleave(times, -2), distribution.repeat_interleave(times, 0)
            )
        )
        for name in set(METRICS) - FITTED - APPROXIMATE:
            function, tolerance = METRICS[name].function, 1 / 128 if name in RANKING else 1e-12
            close(name, function(resampled)[replicate], function(repeated), atol=tolerance)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("nll", lambda whole: whole.own.nll),
        ("nll_refinement", lambda whole: whole.recalibrated.nll),
        ("brier_refinement", lambda whole: whole.recalibrated.brier),
        ("nll_calibration", lambda whole: whole.own.nll - whole.recalibrated.nll),
        ("brier_calibration", lambda whole: whole.own.brier - whole.recalibrated.brier),
        ("top_k_accuracy", lambda whole: (whole.own.rank < 5).double()),
        ("confidence_gap", lambda whole: whole.own.confidence - whole.own.correct.double()),
        ("kl", lambda whole: whole.distances[1]),
    ],
)
def test_means_are_weighted_means(name: str, column):
    whole, _, _ = scored(101)
    blocks, weights = blocks_of(whole), drawn(101)
    values = METRICS[name].function(Resampled(blocks, weights.double()))
    for row, own in zip(values, weights, strict=True):
        assert_close(row, column(whole) @ own[blocks.block].double() / 101, atol=1e-13, rtol=0)


def test_fidelity_keeps_its_map():
    whole, _, _ = scored(101)
    blocks, weights = blocks_of(whole), drawn(101)
    values = METRICS["fidelity"].function(Resampled(blocks, weights.double()))
    for row, own in zip(values, weights, strict=True):
        times = own[blocks.block]
        g = whole.accuracy_at.repeat_interleave(times, -1)
        a = whole.own.correct.repeat_interleave(times, -1).double().mean(-1)
        assert_close(row, g.var(-1, correction=0) / (a * (1 - a)), atol=1e-12, rtol=0)


def test_bins_of_equal_mass_keep_their_bounds():
    whole, _, _ = scored(101)
    blocks, weights = blocks_of(whole), drawn(101)
    values = METRICS["equal_mass_ece"].function(Resampled(blocks, weights.double()))
    for row, own in zip(values, weights, strict=True):
        times = own[blocks.block]
        confidence, correct = (
            column.repeat_interleave(times, -1) for column in (whole.own.confidence, whole.own.correct)
        )
        bounds = equal_mass_bounds(whole.own.confidence)
        assert_close(
            row,
            BinnedStatistics.of(confidence, correct, bounds=bounds).calibration_error(),
            atol=1e-13,
            rtol=0,
        )


def test_smooth_ece_moves_along_its_tangent():
    """Against smooth ECE of the repeated examples, with a bandwidth of its own: they spread alike and differ
    little.

    The last model is nearly calibrated, where the bandwidth depends much on the data: without the slope it
    would move by a third more.
    """
    logits, labels = population(seed=700, examples=700)
    logits = torch.cat([logits, 0.75 * logits[1:2]])
    whole = Whole(Predictions.from_logits(logits, labels))
    blocks, weights = blocks_of(whole), drawn(700, 40)
    values = METRICS["smooth_ece"].function(Resampled(blocks, weights.double()))
    repetitions = [own[blocks.block] for own in weights]
    exact = torch.stack(
        [
            METRICS["smooth_ece"].function(
                Predictions.from_logits(logits.repeat_interleave(times, -2), labels.repeat_interleave(times))
            )
            for times in repetitions
        ]
    )
    assert float(METRICS["smooth_ece"].function(whole)[3]) < 0.05
    assert ((values - exact).square().mean(0).sqrt() < 0.25 * exact.std(0)).all()
    moved, should = values - values.mean(0), exact - exact.mean(0)
    assert_close(
        (moved * should).sum(0) / moved.square().sum(0), torch.ones(4, dtype=torch.float64), atol=0.15, rtol=0
    )


def test_debiased_ece_stands_for_ece():
    whole, _, _ = scored(101)
    resampled = Resampled(blocks_of(whole), drawn(101).double())
    assert torch.equal(METRICS["debiased_ece"].function(resampled), METRICS["ece"].function(resampled))


def test_an_infinite_loss_counts_where_it_is_drawn():
    logits, labels = population(seed=61, examples=40)
    logits[1, 7, labels[7]] = -INF
    whole = Whole(Predictions.from_logits(logits, labels))
    blocks = blocks_of(whole)
    weights = torch.ones(3, 40, dtype=torch.float64)
    weights[1, blocks.block[7]], weights[2, blocks.block[8]] = 0, 0
    values = METRICS["nll"].function(Resampled(blocks, weights))
    assert torch.isinf(values).tolist() == [[False, True, False], [False, False, False], [False, True, False]]
    rest = torch.arange(40) != 7
    assert_close(values[1], whole.own.nll[:, rest].sum(-1) / 39, atol=1e-13, rtol=0)


def test_a_class_which_was_not_drawn_is_not_the_worst():
    logits = torch.eye(3, dtype=torch.float64)[[0, 1, 1, 0]] * 2 + 0.1
    whole = Whole(Predictions.from_logits(logits, torch.tensor([0, 1, 0, 2])))
    weights = torch.tensor([[1.0, 1.0, 2.0, 0.0], [2.0, 1.0, 0.0, 1.0]], dtype=torch.float64)
    values = METRICS["worst_class_accuracy"].function(Resampled(Blocks(whole, torch.arange(4), 4), weights))
    assert values.tolist() == pytest.approx([1 / 3, 0])


def test_nothing_to_rank_in_a_resample_is_not_a_number():
    logits = torch.tensor([[2.0, 0.3], [1.0, 0.3], [0.7, 0.3]], dtype=torch.float64)
    whole = Whole(Predictions.from_logits(logits, torch.tensor([0, 1, 0])))
    weights = torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0], [0.0, 3.0, 0.0]], dtype=torch.float64)
    for name in ("misclassification_auroc", "fidelity"):
        values = METRICS[name].function(Resampled(Blocks(whole, torch.arange(3), 3), weights))
        assert torch.isnan(values).tolist() == [False, True, True]


def test_rank_groups_are_neighbours_of_about_equal_number():
    whole, _, _ = scored(2500)
    index, size = blocks_of(whole).groups
    assert size == GROUPS
    for member in range(3):
        confidence = whole.own.log_confidence[member]
        ordered = index[member][confidence.argsort(descending=True)]
        assert (ordered.diff() >= 0).all()
        assert (torch.bincount(index[member], minlength=GROUPS) - 2500 / 128).abs().max() <= 1


def test_rank_groups_never_split_equal_confidences():
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    logits = rows[(200 * torch.rand(3000, generator=generator).square()).long()]
    whole = Whole(Predictions.from_logits(logits, torch.randint(3, (3000,), generator=generator)))
    index, size = blocks_of(whole).groups
    assert index.max() < size
    for value in whole.own.log_confidence.unique():
        assert len(index[whole.own.log_confidence == value].unique()) == 1


def test_few_examples_have_a_rank_of_their_own():
    whole, _, _ = scored(101)
    index, size = blocks_of(whole).groups
    assert size == 101
    assert all(sorted(own.tolist()) == list(range(101)) for own in index)


def test_sums_of_members_by_index():
    whole, _, _ = scored(101, 6)
    blocks, weights = blocks_of(whole), drawn(101)
    index = (whole.own.confidence * 4).long().clamp(max=3)
    for values in (None, whole.own.nll, torch.ones(101)):
        together = Resampled(blocks, weights.double()).total_by(index, 4, values)
        assert together.shape == (4, 2, 3, 4)
        for replicate, own in enumerate(weights):
            for i in range(4):
                terms = torch.where(
                    index == i, torch.ones(()).double() if values is None else values.double(), 0
                )
                assert_close(
                    together[replicate, ..., i], terms @ own[blocks.block].double(), atol=1e-11, rtol=0
                )


def test_members_do_not_depend_on_each_other():
    """Alone, in threes and in a grid; on resamples too."""
    whole, logits, distribution = scored(101, 6)
    alone = Whole(Predictions.from_logits(logits[1, 2], distribution))
    weights = drawn(101).double()
    for name, metric in METRICS.items():
        assert_close(
            metric.function(whole)[1, 2],
            metric.function(alone),
            atol=1e-9 if name in FITTED else 1e-14,
            rtol=0,
        )
        drawn_together = metric.function(Resampled(blocks_of(whole), weights))[:, 1, 2]
        assert_close(
            drawn_together,
            metric.function(Resampled(blocks_of(alone), weights)),
            atol=1e-9 if name in FITTED else 1e-13,
            rtol=0,
        )


def test_the_mask_is_leaving_out():
    _, logits, distribution = scored(101)
    mask = torch.arange(101) % 4 != 1
    masked = Whole(Predictions.from_logits(logits, distribution, mask=mask))
    sliced = Whole(Predictions.from_logits(logits[:, mask], distribution[mask]))
    for metric in METRICS.values():
        assert torch.equal(metric.function(masked), metric.function(sliced))


def test_oracles_see_what_resamples_see():
    """One resample of one member, against the oracle and not against lscal."""
    whole, logits, _ = scored(101)
    blocks, weights = blocks_of(whole), drawn(101)
    times = weights[2][blocks.block].numpy()
    z, labels = logits[1].numpy().repeat(times, 0), whole.own.labels.numpy().repeat(times)
    resampled = Resampled(blocks, weights.double())
    for name in (
        "accuracy",
        "nll",
        "ece",
        "mce",
        "classwise_ece",
        "calibrated_ece",
        "ks_error",
        "aurc",
        "augrc",
        "spiegelhalter",
    ):
        assert float(METRICS[name].function(resampled)[2, 1]) == pytest.approx(
            oracles.METRICS[name](z, labels), abs=1e-11
        )


@pytest.mark.parametrize("kind", ["logits", "masked", "probabilities", "calibrated"])
def test_tensors_are_made_where_the_predictions_are(kind: str, monkeypatch: pytest.MonkeyPatch):
    """A tensor made on the default device would fail on a GPU. Here the default is the device that holds no
    data.
    """
    logits, labels = population(seed=62, examples=150)
    logits[0, :20] = logits[0, :20].round()
    distribution, mask = votes(labels, 7), torch.arange(150) % 5 != 0
    weights = drawn(150 if kind != "masked" else 120).double()
    parts = crossfit.folds(weights.shape[1])
    monkeypatch.setattr(
        crossfit, "folds", lambda examples: parts
    )  # which are drawn on the CPU, and taken to the device
    with torch.device("meta"):
        if kind == "probabilities":
            predictions = Predictions.from_probabilities(logits.softmax(-1), distribution)
        else:
            predictions = Predictions.from_logits(
                logits, distribution, mask=mask if kind == "masked" else None
            )
        if kind == "calibrated":
            predictions = predictions.calibrated(lambda z: z / 2)
        whole = Whole(predictions)
        blocks = Blocks(whole, parts[0][1].new_tensor(range(weights.shape[1])), weights.shape[1])
        resampled = Resampled(blocks, weights)
        for metric in METRICS.values():
            for summary in (whole, resampled):
                assert metric.function(summary).device.type == "cpu"
            if metric.limits is not None:
                assert metric.limits(whole, 0.9)[0].device.type == "cpu"
