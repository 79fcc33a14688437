import math

import numpy as np
import oracles
import pytest
import torch
from scipy.stats import norm, t
from torch import Tensor
from torch.testing import assert_close

from lscal.estimate import CHUNK, WEIGHTED, Estimate, Resamples
from lscal.metrics import METRICS
from lscal.predictions import Predictions


@pytest.fixture
def predictions(logits: Tensor, labels: Tensor) -> Predictions:
    return Predictions.from_logits(logits, labels)


def test_the_interval_is_the_quantiles_moved_onto_the_value():
    replicates = 5 + torch.randn(301, generator=torch.Generator().manual_seed(1), dtype=torch.float64).exp()
    estimate = Estimate.of(2.5, replicates, level=0.8)
    low, high = np.quantile(replicates.numpy(), [0.1, 0.9]) - float(replicates.mean()) + 2.5
    assert (estimate.value, estimate.level) == (2.5, 0.8)
    assert estimate.low == pytest.approx(low, abs=1e-12)
    assert estimate.high == pytest.approx(high, abs=1e-12)
    assert estimate.low < 2.5 < estimate.high


def test_a_higher_level_is_wider():
    replicates = torch.randn(301, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    narrow, wide = Estimate.of(0.3, replicates, level=0.5), Estimate.of(0.3, replicates)
    assert wide.level == 0.95
    assert wide.low < narrow.low < narrow.high < wide.high


def test_drawing_is_reproducible():
    first, again, other = (Resamples.draw(4, 31, replicates=50, random_state=state) for state in (3, 3, 4))
    assert torch.equal(first.seeds, again.seeds)
    assert torch.equal(first.examples, again.examples)
    assert not torch.equal(first.seeds, other.seeds)
    assert not torch.equal(first.examples, other.examples)


def test_drawing_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    Resamples.draw(4, 31, replicates=50)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("seeds", "draws"), [(1, 1), (2, 1), (5, 4)])
def test_weights_are_shares_of_the_draws(seeds: int, draws: int):
    resamples = Resamples.draw(seeds, 31, replicates=50)
    for weights, size, count in ((resamples.seeds, seeds, draws), (resamples.examples, 31, 31)):
        assert weights.shape == (50, size)
        assert weights.dtype == torch.float64
        assert_close(weights.sum(1), torch.ones(50, dtype=torch.float64), atol=1e-14, rtol=0)
        picks = weights * count
        assert_close(picks, picks.round(), atol=1e-13, rtol=0)
        assert (picks >= 0).all()


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_the_mean_over_seeds_has_its_right_variance(seeds: int):
    """s²/S with s² over S-1, which drawing S of S seeds would understate by (S-1)/S: half at S = 2."""
    values = torch.tensor([0.3, 1.9, 0.8, 2.7, 1.1, 0.4], dtype=torch.float64)[:seeds]
    means = Resamples.draw(seeds, 2, replicates=20_000, random_state=1).seeds @ values
    assert float(means.var()) == pytest.approx(float(values.var()) / seeds, rel=0.05)
    assert float(means.mean()) == pytest.approx(float(values.mean()), abs=0.02)


@pytest.mark.parametrize("name", sorted(WEIGHTED))
def test_equal_weights_give_the_metric(predictions: Predictions, name: str):
    assert (predictions.log_confidence.sort(-1).values.diff(dim=-1) > 0).all()  # no ties
    weights = torch.full((2, 101), 1 / 101, dtype=torch.float64)
    values = WEIGHTED[name](predictions, weights)
    assert values.shape == (2, 3)
    for row in values:
        assert_close(row, METRICS[name].function(predictions), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", sorted(set(WEIGHTED) - {"aurc"}))
def test_weights_are_repetitions(logits: Tensor, labels: Tensor, predictions: Predictions, name: str):
    weights = Resamples.draw(3, 101, replicates=4, random_state=5).examples
    values = WEIGHTED[name](predictions, weights)
    for row, counts in zip(values, (weights * 101).round().long(), strict=True):
        assert counts.max() > 2
        repeated = Predictions.from_logits(logits.repeat_interleave(counts, 1), labels.repeat_interleave(counts))
        assert_close(row, METRICS[name].function(repeated), atol=1e-12, rtol=0)


def test_a_weight_is_a_share_of_the_coverage(predictions: Predictions):
    weights = Resamples.draw(3, 101, replicates=4, random_state=5).examples
    weights[0, predictions.confidence[0].argmax()] = 0  # nothing is covered yet when the first example comes
    values = WEIGHTED["aurc"](predictions, weights)
    for i in range(4):
        for member in range(3):
            confidence, correct = predictions.confidence[member].numpy(), predictions.correct[member].numpy()
            assert float(values[i, member]) == pytest.approx(oracles.weighted_aurc(confidence, correct, weights[i].numpy()), abs=1e-14)


def test_a_class_which_was_not_drawn_is_not_the_worst():
    logits = torch.eye(3, dtype=torch.float64)[[0, 1, 1, 0]].unsqueeze(0) * 2 + 0.1
    predictions = Predictions.from_logits(logits, torch.tensor([0, 1, 0, 2]))
    weights = torch.tensor([[0.25, 0.25, 0.5, 0.0], [0.5, 0.25, 0.0, 0.25]], dtype=torch.float64)
    assert WEIGHTED["worst_class_accuracy"](predictions, weights).flatten().tolist() == pytest.approx([1 / 3, 0])


def test_replicates_are_the_same_whichever_chunk_they_fall_in(predictions: Predictions):
    resamples = Resamples.draw(3, 101, replicates=CHUNK + 7, random_state=2)
    last = Resamples(resamples.seeds[-3:], resamples.examples[-3:])
    whole, part = resamples.of(predictions), last.of(predictions)
    assert set(whole) == set(WEIGHTED)
    for name, replicates in whole.items():
        assert replicates.shape == (CHUNK + 7,)
        assert_close(replicates[-3:], part[name], atol=1e-13, rtol=0)


@pytest.mark.parametrize("name", sorted(WEIGHTED))
def test_one_seed_covers_the_examples_alone(predictions: Predictions, logits: Tensor, labels: Tensor, name: str):
    resamples = Resamples.draw(1, 101, replicates=60, random_state=6)
    replicates = resamples.of(Predictions.from_logits(logits[:1], labels))[name]
    assert_close(replicates, WEIGHTED[name](predictions, resamples.examples)[:, 0], atol=1e-13, rtol=0)
    assert replicates.std() > 0


def test_one_seeds_accuracy_has_its_binomial_spread():
    correct = torch.arange(400) % 10 < 7
    logits = 0.2 + 1.5 * torch.nn.functional.one_hot((~correct).long(), 3).to(torch.float64).unsqueeze(0)
    predictions = Predictions.from_logits(logits, torch.zeros(400, dtype=torch.int64))
    replicates = Resamples.draw(1, 400, replicates=2000, random_state=1).of(predictions)["accuracy"]
    assert float(replicates.mean()) == pytest.approx(0.7, abs=0.003)
    assert float(replicates.std()) == pytest.approx(math.sqrt(0.7 * 0.3 / 400), rel=0.06)


def test_the_spread_of_few_seeds_is_widened_by_student():
    """Given seeds which are right or wrong throughout, the examples add nothing and only the seeds vary."""
    labels = torch.tensor([0, 2, 1, 0, 2])
    right = 0.2 + 1.5 * torch.nn.functional.one_hot(labels, 3).to(torch.float64)
    predictions = Predictions.from_logits(torch.stack([right, right.roll(1, -1), right]), labels)
    resamples = Resamples.draw(3, 5, replicates=300, random_state=7)
    deviations = resamples.seeds @ torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64) - 2 / 3
    widened = 2 / 3 + t.ppf(0.95, 2) / norm.ppf(0.95) * deviations
    assert deviations.std() > 0.1
    assert_close(resamples.of(predictions)["accuracy"], widened, atol=1e-12, rtol=0)


def test_a_model_does_not_differ_from_itself(predictions: Predictions):
    resamples = Resamples.draw(3, 101, replicates=60)
    for name, replicates in resamples.of(predictions).items():
        assert not (replicates - resamples.of(predictions)[name]).any(), name


SEEDS, EXAMPLES, SIMULATIONS = 4, 150, 150


def two_models(generator: torch.Generator, advantage: float) -> list[Predictions]:
    """Two models on the same examples, each with effects of its seeds and of seed × example; the second is better by `advantage`."""
    difficulty = torch.randn(EXAMPLES, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (EXAMPLES,), generator=generator)
    models = []
    for better in (0.0, advantage):
        by_seed = 0.3 * torch.randn(SEEDS, 1, generator=generator, dtype=torch.float64)
        own = 0.8 * torch.randn(SEEDS, EXAMPLES, generator=generator, dtype=torch.float64)
        margin = 0.9 + better + difficulty + by_seed + own
        models.append(Predictions.from_logits(0.4 + margin.unsqueeze(-1) * torch.nn.functional.one_hot(labels, 3), labels))
    return models


def differences(advantage: float, simulations: int) -> dict[str, list[Estimate]]:
    """The paired difference of the two models' metrics, in many simulated worlds."""
    generator = torch.Generator().manual_seed(30)
    estimates: dict[str, list[Estimate]] = {"accuracy": [], "nll": []}
    for simulation in range(simulations):
        first, second = two_models(generator, advantage)
        resamples = Resamples.draw(SEEDS, EXAMPLES, replicates=200, random_state=simulation)
        drawn, base = resamples.of(second), resamples.of(first)
        for name, seen in estimates.items():
            value = float((METRICS[name].function(second) - METRICS[name].function(first)).mean())
            seen.append(Estimate.of(value, drawn[name] - base[name]))
    return estimates


def test_intervals_of_no_difference_cover_zero():
    """Seeds × examples under the null: at least 92 in 100 of the 95 % intervals cover 0, and not by being wide."""
    for name, estimates in differences(advantage=0.0, simulations=SIMULATIONS).items():
        covered = sum(estimate.low <= 0 <= estimate.high for estimate in estimates) / SIMULATIONS
        spread = np.std([estimate.value for estimate in estimates])
        width = np.mean([estimate.high - estimate.low for estimate in estimates])
        assert covered >= 0.92, name
        assert 1 < width / (2 * 1.96 * spread) < 1.6, name


def test_intervals_of_a_large_difference_do_not_cover_zero():
    for name, estimates in differences(advantage=1.5, simulations=15).items():
        found = sum(not estimate.low <= 0 <= estimate.high for estimate in estimates)
        assert found >= 14, name
