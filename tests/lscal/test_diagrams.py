"""The data of diagrams, against slow oracles."""

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import oracles
import pytest
import torch
from populations import population
from scipy import stats
from torch import Tensor

from lscal import selective
from lscal.binning import BinnedStatistics
from lscal.diagrams import (
    ClasswiseReliability,
    ConfidenceDrop,
    ConfidenceHistogram,
    Reliability,
    RiskCoverage,
    SmoothReliability,
    consistency,
)
from lscal.predictions import Predictions


@pytest.fixture
def predictions(logits: Tensor, labels: Tensor) -> Predictions:
    return Predictions.from_logits(logits, labels)


@pytest.fixture
def statistics(predictions: Predictions) -> BinnedStatistics:
    return BinnedStatistics.of(predictions.confidence, predictions.correct)


@pytest.fixture
def gappy() -> Reliability:
    """Two filled bins of fifteen: the fifth, underconfident, and the fourteenth, overconfident."""
    confidence = torch.tensor([0.31, 0.32, 0.88, 0.90, 0.91], dtype=torch.float64)
    return Reliability.of(
        "gappy", BinnedStatistics.of(confidence, torch.tensor([True, False, False, True, False]))
    )


# ---- reliability
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", [0, 1, 2])
def test_the_data_agree_with_the_oracle(logits: Tensor, labels: Tensor, member: int):
    predictions = Predictions.from_logits(logits[member], labels)
    reliability = Reliability.of("one", BinnedStatistics.of(predictions.confidence, predictions.correct))
    confidence, correct = (
        oracles.confidence(logits[member].numpy()),
        oracles.correct(logits[member].numpy(), labels.numpy()),
    )
    rows = oracles.binned(confidence, correct)
    assert reliability.title == "one"
    assert reliability.binning == "equal width"
    assert reliability.edges == pytest.approx([i / 15 for i in range(16)], abs=1e-15)
    assert reliability.count == tuple(count for count, _, _ in rows)
    assert reliability.confidence == pytest.approx(tuple(c / n if n else None for n, c, _ in rows), abs=1e-13)
    assert reliability.accuracy == pytest.approx(tuple(r / n if n else None for n, _, r in rows), abs=1e-13)
    assert reliability.gap == pytest.approx(confidence.mean() - correct.mean(), abs=1e-13)
    assert reliability.error == pytest.approx(oracles.ece(confidence, correct), abs=1e-13)
    for low, high, (n, c, _) in zip(reliability.low, reliability.high, rows, strict=True):
        wanted = tuple(stats.binom.ppf(tail, n, c / n) / n for tail in (0.025, 0.975)) if n else (None, None)
        assert (low, high) == pytest.approx(wanted, abs=1e-13)


def test_a_population_is_pooled_but_for_its_error(
    statistics: BinnedStatistics, logits: Tensor, labels: Tensor
):
    reliability = Reliability.of("all", statistics)
    confidence = np.concatenate([oracles.confidence(z.numpy()) for z in logits])
    correct = np.concatenate([oracles.correct(z.numpy(), labels.numpy()) for z in logits])
    rows = oracles.binned(confidence, correct)
    assert sum(reliability.count) == 303
    assert reliability.members == 3
    assert reliability.notes[1].startswith("101 examples × 3 members · ")
    assert reliability.count == tuple(count for count, _, _ in rows)
    assert reliability.accuracy == pytest.approx(tuple(r / n if n else None for n, _, r in rows), abs=1e-13)
    assert reliability.gap == pytest.approx(confidence.mean() - correct.mean(), abs=1e-13)
    members = [
        oracles.ece(oracles.confidence(z.numpy()), oracles.correct(z.numpy(), labels.numpy())) for z in logits
    ]
    assert reliability.error == pytest.approx(np.mean(members), abs=1e-13)
    assert abs(reliability.error - oracles.ece(confidence, correct)) > 0.01


def test_the_region_of_a_population_is_that_of_its_different_examples(statistics: BinnedStatistics):
    reliability = Reliability.of("all", statistics)
    for n, c, low, high in zip(
        reliability.count, reliability.confidence, reliability.low, reliability.high, strict=True
    ):
        if c is not None:
            different = max(1, round(n / 3))
            assert (low, high) == pytest.approx(
                tuple(stats.binom.ppf(tail, different, c) / different for tail in (0.025, 0.975))
            )


def test_bins_of_equal_mass_keep_ties_together_and_some_are_empty():
    confidence = torch.tensor([0.2, 0.5, 0.5, 0.5, 0.5, 0.8, 0.9], dtype=torch.float64)
    correct = torch.tensor([False, True, True, False, False, True, True])
    reliability = Reliability.of("mass", BinnedStatistics.equal_mass(confidence, correct, 7))
    filled = reliability.filled
    assert reliability.binning == "equal mass"
    assert [(b.left, b.count, b.accuracy) for b in filled] == [
        (0, 1, 0),
        (0.5, 4, 0.5),
        (0.8, 1, 1),
        (0.9, 1, 1),
    ]
    assert len(reliability.count) == 7
    assert "equal-mass ECE" in reliability.notes[0]


def test_members_with_bins_of_their_own_are_not_pooled(predictions: Predictions):
    with pytest.raises(ValueError, match="pool the examples"):
        Reliability.of("mass", BinnedStatistics.equal_mass(predictions.confidence, predictions.correct))


def test_no_examples_are_refused():
    nothing = BinnedStatistics.of(torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.bool))
    with pytest.raises(ValueError, match="no examples"):
        Reliability.of("nothing", nothing)


def test_an_empty_bin_is_none(gappy: Reliability):
    for column in (gappy.accuracy, gappy.confidence, gappy.low, gappy.high):
        assert [i for i, value in enumerate(column) if value is not None] == [4, 13]
    assert gappy.count == (0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0)
    assert gappy.accuracy[4] == 0.5
    assert gappy.accuracy[13] == pytest.approx(1 / 3)
    assert gappy.confidence[13] == pytest.approx((0.88 + 0.90 + 0.91) / 3)
    assert [b.left for b in gappy.filled] == [4 / 15, 13 / 15]


def test_a_bin_which_is_always_wrong_is_not_empty():
    confidence = torch.tensor([0.31, 0.32], dtype=torch.float64)
    reliability = Reliability.of("wrong", BinnedStatistics.of(confidence, torch.tensor([False, False])))
    assert reliability.accuracy[4] == 0.0
    assert reliability.accuracy[5] is None


def test_kept_bins_give_the_same_diagram(statistics: BinnedStatistics):
    whole = Reliability.of("all", statistics)
    kept = Reliability.of_bins(
        "all",
        count=whole.count,
        confidence=whole.confidence,
        accuracy=whole.accuracy,
        gap=whole.gap,
        error=whole.error,
        members=3,
    )
    assert kept == whole


# ---- consistency
# --------------------------------------------------------------------------------------------------


def binomial_quantile(tail: float, n: int, p: float) -> float:
    """The least k/n with P(at most k of n) >= tail, by adding up."""
    total = 0.0
    for k in range(n + 1):
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if total >= tail:
            return k / n
    return 1.0


def test_the_region_of_a_bin_is_that_of_the_binomial_distribution():
    cases = [(n, p) for n in (1, 2, 7, 40, 331) for p in (0.003, 0.1, 0.5, 0.731, 0.98, 0.9999)]
    low, high = consistency.binomial([n for n, _ in cases], [p for _, p in cases])
    assert low == pytest.approx([binomial_quantile(0.025, n, p) for n, p in cases], abs=1e-12)
    assert high == pytest.approx([binomial_quantile(0.975, n, p) for n, p in cases], abs=1e-12)


def test_the_region_of_large_bins_agrees_with_scipy():
    generator = np.random.default_rng(3)
    counts, chances = (
        generator.integers(1, 2_000_000, 500).tolist(),
        (1 - generator.random(500) ** 4).tolist(),
    )
    low, high = consistency.binomial(counts, chances)
    assert np.array_equal(low, stats.binom.ppf(0.025, counts, chances) / counts)
    assert np.array_equal(high, stats.binom.ppf(0.975, counts, chances) / counts)


def test_what_is_certain_has_a_region_without_width():
    assert consistency.binomial([3, 5, 0], [1.0, 0.0, None]) == ((1.0, 0.0, None), (1.0, 0.0, None))
    assert consistency.binomial([3], [1.0 + 1e-16]) == ((1.0,), (1.0,))
    assert consistency.smooth([1.0, 0.0, None], [0.0, 0.0, None]) == ((1.0, 0.0, None), (1.0, 0.0, None))


@pytest.mark.parametrize(("top", "spread"), [(0.6, 0.3), (0.97, 0.3), (0.999, 0.02), (0.031, 0.03)])
def test_the_smooth_region_holds_a_calibrated_model_as_often_as_it_says(top: float, spread: float):
    generator = np.random.default_rng(8)
    chances = top - spread * generator.random(160) ** 3
    weights = np.exp(-(np.linspace(-2, 2, 160) ** 2))
    share = weights / weights.sum()
    (low,), (high,) = consistency.smooth(
        [float(share @ chances)], [float(share**2 @ (chances * (1 - chances)))]
    )
    seen = (generator.random((20_000, 160)) < chances) @ share
    assert 0.935 < np.mean((low <= seen) & (seen <= high)) < 0.99
    assert np.mean(seen < low) < 0.04
    assert np.mean(seen > high) < 0.04


def test_one_example_may_be_right_or_wrong():
    low, high = consistency.smooth([0.7], [0.7 * 0.3])
    assert (low, high) == ((0.0,), (1.0,))


# ---- smooth reliability
# ----------------------------------------------------------------------------------------------


def smoothed(confidence, right, bandwidth, points=200):
    """Weighted means one point and one example at a time: (weight, confidence, accuracy, variance of the
    accuracy).
    """
    rows = []
    for t in np.linspace(0, 1, points):
        weight = sum(
            np.exp(-0.5 * ((t - sign * confidence - shift) / bandwidth) ** 2)
            for sign in (1, -1)
            for shift in (-2, 0, 2)
        )
        share = weight / weight.sum()
        rows.append(
            (weight.sum(), share @ confidence, share @ right, share**2 @ (confidence * (1 - confidence)))
        )
    return rows


def test_the_smooth_curve_agrees_with_the_oracle(predictions: Predictions):
    confidence, right = predictions.confidence[2], predictions.correct[2]
    diagram = SmoothReliability.of("smooth", confidence, right, error=0.043)
    rows = smoothed(confidence.numpy(), right.numpy().astype(float), 0.043)
    assert diagram.bandwidth == 0.043
    empty = [weight < 0.5 for weight, *_ in rows]
    assert 20 < sum(empty) < 180
    for i, (weight, c, a, _) in enumerate(rows):
        assert diagram.density[i] == pytest.approx(weight / (101 * 0.043 * math.sqrt(2 * math.pi)), abs=1e-4)
        if empty[i]:
            assert diagram.confidence[i] is diagram.accuracy[i] is diagram.low[i] is diagram.high[i] is None
        else:
            assert diagram.confidence[i] == pytest.approx(c, abs=1e-4)
            assert diagram.accuracy[i] == pytest.approx(a, abs=1e-4)
    near = [i for i in range(200) if not empty[i]]
    low, high = consistency.smooth([rows[i][1] for i in near], [rows[i][3] for i in near])
    assert [diagram.low[i] for i in near] == pytest.approx(low, abs=2e-3)
    assert [diagram.high[i] for i in near] == pytest.approx(high, abs=2e-3)
    assert np.trapezoid(diagram.density, diagram.mesh) == pytest.approx(1, abs=1e-6)
    assert diagram.gap == pytest.approx(float((confidence - right.double()).mean()))


def test_a_smooth_curve_pools_members_whose_region_is_that_of_one(predictions: Predictions):
    one = SmoothReliability.of("one", predictions.confidence[1], predictions.correct[1], error=0.05)
    thrice = SmoothReliability.of(
        "three", predictions.confidence[[1, 1, 1]], predictions.correct[[1, 1, 1]], error=0.05
    )
    assert thrice.examples == 3 * one.examples
    assert thrice.notes[1].startswith("101 examples × 3 members · ")
    for name in ("confidence", "accuracy", "low", "high"):
        same = [
            (a, b) for a, b in zip(getattr(one, name), getattr(thrice, name), strict=True) if a is not None
        ]
        assert len(same) > 20
        assert [b for _, b in same] == pytest.approx([a for a, _ in same], abs=1e-12)


def test_the_bandwidth_is_the_error_within_limits():
    confidence, right = torch.tensor([0.4, 0.8, 0.9]), torch.tensor([True, False, True])
    widths = [SmoothReliability.of("", confidence, right, error).bandwidth for error in (0.001, 0.03, 0.4)]
    assert widths == [0.01, 0.03, 0.05]


def test_a_gap_between_examples_is_no_part_of_the_curve():
    confidence = torch.tensor([0.2, 0.21, 0.9], dtype=torch.float64)
    diagram = SmoothReliability.of("gap", confidence, torch.tensor([True, False, True]), error=0.02)
    first, second = diagram.runs
    assert all(0.2 <= point.confidence <= 0.21 for point in first)
    assert all(point.confidence == pytest.approx(0.9) and point.accuracy == 1 for point in second)


def test_a_single_example_is_drawn_smooth():
    (run,) = SmoothReliability.of("one", torch.tensor([0.6123]), torch.tensor([True]), error=0.3877).runs
    assert all(
        point.confidence == pytest.approx(0.6123) and point.accuracy == pytest.approx(1) for point in run
    )
    assert {(point.low, point.high) for point in run} == {(0.0, 1.0)}
    with pytest.raises(ValueError, match="no examples"):
        SmoothReliability.of("none", torch.zeros(0), torch.zeros(0, dtype=torch.bool), error=0.1)


# ---- the others
# --------------------------------------------------------------------------------------------------


def test_right_and_wrong_are_counted_per_bin(predictions: Predictions, statistics: BinnedStatistics):
    histogram = ConfidenceHistogram.of("all", statistics)
    confidence, correct = predictions.confidence.flatten().numpy(), predictions.correct.flatten().numpy()
    rows = oracles.binned(confidence, correct)
    assert histogram.right == tuple(right for _, _, right in rows)
    assert histogram.wrong == tuple(count - right for count, _, right in rows)
    assert histogram.edges == pytest.approx([i / 15 for i in range(16)], abs=1e-15)
    assert histogram.notes == (
        f"{correct.sum()} right, {303 - correct.sum()} wrong · accuracy {correct.mean():.1%}",
    )


def test_short_curves_are_kept_whole(predictions: Predictions):
    risk = selective.risk_coverage(predictions.log_confidence, predictions.correct)
    diagram = RiskCoverage.of("two", {"all": risk, "first": risk[0]})
    assert [curve.name for curve in diagram.curves] == ["all", "first"]
    assert diagram.curves[0].coverage == pytest.approx([(i + 1) / 101 for i in range(101)])
    assert diagram.curves[0].risk == pytest.approx(risk.numpy().mean(0))
    assert diagram.curves[1].risk == pytest.approx(risk[0].numpy())
    assert diagram.curves[1].aurc == pytest.approx(
        float(selective.aurc(predictions.log_confidence, predictions.correct)[0])
    )


@pytest.mark.parametrize("examples", [201, 1009, 50_021])
def test_long_curves_are_thinned_but_for_their_ends(examples: int):
    generator = torch.Generator().manual_seed(1)
    risk = torch.rand(examples, generator=generator, dtype=torch.float64)
    (curve,) = RiskCoverage.of("long", {"one": risk}).curves
    assert 100 <= len(curve.coverage) <= 200
    places = [round(at * examples) - 1 for at in curve.coverage]
    assert places == sorted(set(places))
    assert places[:5] == [0, 1, 2, 3, 4] or examples > 10_000
    assert places[0] == 0
    assert places[-1] == examples - 1
    assert curve.coverage[-1] == 1
    assert list(curve.risk) == risk[places].tolist()
    assert curve.aurc == pytest.approx(float(risk.mean()))
    assert max(np.diff(curve.coverage)) <= 1 / 99 + 1 / examples


def test_the_break_even_says_who_errs_less_above_it():
    rising, falling = torch.tensor([0.0, 0.1, 0.2, 0.3]), torch.tensor([0.4, 0.3, 0.2, 0.1])
    assert RiskCoverage.of("", {"ε = 0": rising, "new": falling}, 0.75).notes == (
        "break-even 75.0%: above it new errs no more than ε\u00a0=\u00a00",
    )
    assert RiskCoverage.of("", {"new": falling, "ε = 0": rising}, 0.75).notes == (
        "break-even 75.0%: above it new errs no more than ε\u00a0=\u00a00",
    )
    for nowhere in (0.0, 1.0, math.nan, None):
        diagram = RiskCoverage.of("", {"a": rising, "b": falling}, nowhere)
        assert diagram.break_even is None
        assert diagram.notes == ()
    with pytest.raises(ValueError, match="no models"):
        RiskCoverage.of("nothing", {})


def test_each_class_is_set_against_the_rest(logits: Tensor, labels: Tensor):
    p = logits.softmax(-1).transpose(-1, -2)
    own = (labels == torch.arange(7).unsqueeze(-1)).expand(p.shape)
    grid = ClasswiseReliability.of("classes", BinnedStatistics.of(p, own), list("abcdefg"))
    assert [diagram.title for diagram in grid.diagrams] == list("abcdefg")
    errors = []
    for k, diagram in enumerate(grid.diagrams):
        each = [oracles.softmax(z.numpy())[:, k] for z in logits]
        right = labels.numpy() == k
        rows = oracles.binned(np.concatenate(each), np.tile(right, 3))
        assert diagram.count == tuple(n for n, _, _ in rows)
        assert diagram.accuracy == pytest.approx(tuple(r / n if n else None for n, _, r in rows), abs=1e-12)
        errors.append(np.mean([oracles.ece(probability, right) for probability in each]))
        assert diagram.error == pytest.approx(errors[-1], abs=1e-12)
    assert grid.error == pytest.approx(np.mean(errors), abs=1e-12)
    assert grid.notes == (f"classwise ECE {np.mean(errors):.2%} · 7 classes",)


def test_of_many_classes_the_worst_are_shown_first():
    logits, labels = population(seed=4, examples=60, classes=23)
    p = logits[2].softmax(-1).T
    grid = ClasswiseReliability.of("many", BinnedStatistics.of(p, labels == torch.arange(23).unsqueeze(-1)))
    errors = {
        str(k): oracles.ece(oracles.softmax(logits[2].numpy())[:, k], labels.numpy() == k) for k in range(23)
    }
    assert [diagram.title for diagram in grid.diagrams] == sorted(errors, key=lambda name: -errors[name])[:20]
    assert grid.error == pytest.approx(np.mean(list(errors.values())), abs=1e-12)
    assert grid.classes == 23
    with pytest.raises(ValueError, match="2 names for 23 classes"):
        ClasswiseReliability.of(
            "many", BinnedStatistics.of(p, labels == torch.arange(23).unsqueeze(-1)), ["a", "b"]
        )


def test_the_drop_is_that_of_each_example(logits: Tensor, labels: Tensor):
    names = list("abcdefg")
    before, after = Predictions.from_logits(logits[2], labels), Predictions.from_logits(logits[0], labels)
    drop = ConfidenceDrop.of("drop", ("0", "0.1"), before, after, names, falls=5)
    first, second = oracles.confidence(logits[2].numpy()), oracles.confidence(logits[0].numpy())
    was, now = logits[2].argmax(-1).tolist(), logits[0].argmax(-1).tolist()
    truth = labels.tolist()
    assert drop.examples == len(drop.points) == 101
    assert [point.before for point in drop.points] == pytest.approx(first)
    assert [point.after for point in drop.points] == pytest.approx(second)
    words = {(True, True): "both", (True, False): "first", (False, True): "second", (False, False): "neither"}
    states = [words[p == y, q == y] for p, q, y in zip(was, now, truth, strict=True)]
    assert [point.state for point in drop.points] == states
    assert drop.states == tuple(states.count(word) for word in ("both", "first", "second", "neither"))
    assert min(drop.states) > 0
    assert drop.mean == pytest.approx((first.mean(), second.mean()))
    assert [fall.index for fall in drop.falls] == np.argsort(second - first, kind="stable")[:5].tolist()
    for fall in drop.falls:
        i = fall.index
        assert (fall.before, fall.after) == pytest.approx((first[i], second[i]))
        assert (fall.label, fall.predicted_before, fall.predicted_after) == (
            names[truth[i]],
            names[was[i]],
            names[now[i]],
        )
        assert fall.state == states[i]


def test_what_rises_is_no_fall(logits: Tensor, labels: Tensor):
    lower, higher = (
        Predictions.from_logits(logits[0], labels),
        Predictions.from_logits(logits[0] * 1.5, labels),
    )
    assert ConfidenceDrop.of("rise", ("a", "b"), lower, higher).falls == ()


def test_a_masked_example_keeps_the_others_places(logits: Tensor, labels: Tensor):
    mask = torch.arange(101) % 3 != 0
    before, after = (Predictions.from_logits(z, labels, mask=mask) for z in (logits[2], logits[0]))
    drop = ConfidenceDrop.of("drop", ("a", "b"), before, after)
    assert [point.index for point in drop.points] == [i for i in range(101) if i % 3]
    unmasked = ConfidenceDrop.of(
        "drop",
        ("a", "b"),
        Predictions.from_logits(logits[2], labels),
        Predictions.from_logits(logits[0], labels),
    )
    by_index = {point.index: point for point in unmasked.points}
    assert all(by_index[point.index] == point for point in drop.points)
    assert all(fall.index % 3 for fall in drop.falls)
    same = torch.zeros_like(labels)
    other = Predictions.from_logits(logits[0], same, mask=mask.roll(1))
    with pytest.raises(ValueError, match="same examples"):
        ConfidenceDrop.of(
            "drop", ("a", "b"), Predictions.from_logits(logits[2], same, mask=mask.roll(2)), other
        )


def test_many_examples_are_sampled_evenly_and_alike():
    logits, labels = population(seed=9, examples=8001, classes=3)
    before, after = Predictions.from_logits(logits[2], labels), Predictions.from_logits(logits[0], labels)
    drop = ConfidenceDrop.of("drop", ("a", "b"), before, after)
    index = [point.index for point in drop.points]
    assert len(index) == len(set(index)) == 2000
    assert index == sorted(index)
    assert 3700 < np.mean(index) < 4300
    assert sum(drop.states) == drop.examples == 8001
    assert ConfidenceDrop.of("drop", ("a", "b"), before, after) == drop
    assert ConfidenceDrop.of("drop", ("a", "b"), before, after, random_state=1).points != drop.points


def test_populations_and_other_labels_are_refused(predictions: Predictions, logits: Tensor, labels: Tensor):
    one = Predictions.from_logits(logits[0], labels)
    with pytest.raises(ValueError, match="one model each"):
        ConfidenceDrop.of("drop", ("a", "b"), predictions, one)
    with pytest.raises(ValueError, match="labels differ"):
        ConfidenceDrop.of("drop", ("a", "b"), one, Predictions.from_logits(logits[0], labels.flip(0)))


# ---- all of them
# --------------------------------------------------------------------------------------------------


def test_data_are_what_json_can_hold(
    gappy: Reliability, predictions: Predictions, statistics: BinnedStatistics, logits: Tensor, labels: Tensor
):
    risk = selective.risk_coverage(predictions.log_confidence, predictions.correct)
    one, two = (Predictions.from_logits(z, labels) for z in logits[:2])
    for diagram in (
        gappy,
        SmoothReliability.of("s", predictions.confidence, predictions.correct, 0.03),
        ConfidenceHistogram.of("h", statistics),
        RiskCoverage.of("r", {"a": risk}, 0.5),
        ClasswiseReliability.of(
            "c", BinnedStatistics.of(logits[0].softmax(-1).T, labels == torch.arange(7).unsqueeze(-1))
        ),
        ConfidenceDrop.of("d", ("a", "b"), one, two),
    ):
        data = asdict(diagram)
        assert json.loads(json.dumps(data, allow_nan=False)) == json.loads(json.dumps(data, default=None))


def test_kept_data_are_drawn_without_torch_and_pyplot(gappy: Reliability):
    code = f"""
import sys
from lscal.diagrams import Reliability
assert not {{"torch", "matplotlib", "scipy", "numpy"}} & set(sys.modules), "import"
diagram = Reliability(**{asdict(replace(gappy, title="kept"))!r})
diagram.draw("dark").savefig("/dev/null", format="svg")
assert not {{"torch", "matplotlib.pyplot"}} & set(sys.modules), "drawing"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
