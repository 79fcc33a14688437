import numpy as np
import oracles
import pytest
import torch
from populations import population
from torch import Tensor
from torch.testing import assert_close

from lscal import crossfit
from lscal.predictions import Predictions


@pytest.mark.parametrize("examples", [2, 3, 5, 6, 9, 101])
def test_folds_hold_each_example_once(examples: int):
    parts = crossfit.folds(examples)
    assert len(parts) == min(5, examples)
    assert sorted(torch.cat([held for held, _ in parts]).tolist()) == list(range(examples))
    for (held, others), (own, rest) in zip(parts, oracles.folds(examples), strict=True):
        assert sorted(torch.cat([held, others]).tolist()) == list(range(examples))
        assert sorted(held.tolist()) == sorted(own.tolist())
        assert sorted(others.tolist()) == rest.tolist()


def test_one_example_has_no_folds():
    assert crossfit.folds(1) == []


def test_drawing_folds_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    crossfit.folds(31)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_each_example_is_left_out_of_its_own_fit(logits: Tensor, labels: Tensor, kind: str):
    """Given another label at one place, only what the other folds see may change."""

    def fitted(labels: Tensor) -> Tensor:
        predictions = Predictions.from_logits(logits, labels)
        return (
            crossfit.temperature(predictions).confidence
            if kind == "temperature"
            else crossfit.isotonic(predictions)
        )

    before = fitted(labels)
    for held, others in crossfit.folds(101)[1:4:2]:
        place = held[3]
        changed = labels.clone()
        # a wrong answer becomes right for some member
        changed[place] = (
            logits[1, place].argmax()
            if logits[1, place].argmax() != labels[place]
            else (labels[place] + 1) % 7
        )
        after = fitted(changed)
        assert torch.equal(after[:, held], before[:, held])
        moved = (after != before).any(0)
        assert moved[others].float().mean() > 0.3


def test_temperature_of_the_other_folds(logits: Tensor, labels: Tensor):
    found = crossfit.temperature(Predictions.from_logits(logits, labels))
    for member in range(3):
        expected = oracles.recalibrated(logits[member].numpy(), labels.numpy())
        np.testing.assert_allclose(
            found.nll[member].numpy(), oracles.nlls(expected, labels.numpy()), atol=1e-6
        )
        np.testing.assert_array_equal(
            found.correct[member].numpy(), oracles.correct(logits[member].numpy(), labels.numpy())
        )


def test_temperature_after_another_map_and_a_mask(logits: Tensor, labels: Tensor):
    mask = torch.arange(101) % 5 != 2
    mapped = Predictions.from_logits(logits, labels, mask=mask).calibrated(lambda z: z + torch.arange(7))
    plain = Predictions.from_logits((logits + torch.arange(7))[:, mask], labels[mask])
    assert_close(crossfit.temperature(mapped).nll, crossfit.temperature(plain).nll, atol=1e-12, rtol=0)


def test_temperature_of_probabilities(logits: Tensor, labels: Tensor):
    from_p = crossfit.temperature(Predictions.from_probabilities(logits.softmax(-1), labels))
    assert_close(
        from_p.nll, crossfit.temperature(Predictions.from_logits(logits, labels)).nll, atol=1e-8, rtol=0
    )


def test_temperature_is_fitted_on_a_part_of_many_examples(monkeypatch: pytest.MonkeyPatch):
    """On so many rows that each is still left out of its own fit."""
    logits, labels = population(seed=36, examples=600, classes=4)
    predictions = Predictions.from_logits(logits, labels)
    full = crossfit.temperature(predictions).nll
    monkeypatch.setattr(crossfit, "ROWS_TIMES_CLASSES", 4 * 250)
    part = crossfit.temperature(predictions).nll
    assert not torch.equal(part, full)
    assert_close(part.mean(-1), full.mean(-1), atol=0.02, rtol=0)


@pytest.mark.parametrize("examples", [1, 2, 3, 6, 7, 101])
def test_isotonic_accuracy_of_the_other_folds(examples: int):
    logits, labels = population(seed=37, examples=examples)
    predictions = Predictions.from_logits(logits, labels)
    found = crossfit.isotonic(predictions)
    assert found.shape == (3, examples)
    assert ((found >= 0) & (found <= 1)).all()
    for member in range(3):
        right = predictions.correct[member].numpy()
        spread = (
            float(found[member].var(correction=0)) / (right.mean() * (1 - right.mean()))
            if 0 < right.mean() < 1
            else np.nan
        )
        assert spread == pytest.approx(
            oracles.fidelity(oracles.log_confidence(logits[member].numpy()), right), abs=1e-12, nan_ok=True
        )


def test_isotonic_tells_saturated_confidences_apart():
    """All confidences are 1.0, and log(confidence) between -1e-18 and -1e-200: the surer half is right."""
    gaps = torch.linspace(40, 400, 60, dtype=torch.float64)
    logits = torch.stack([gaps, torch.zeros_like(gaps)], -1)
    predictions = Predictions.from_logits(logits, (gaps < 220).long())
    assert (predictions.confidence == 1).all()
    expected = crossfit.isotonic(predictions)
    assert_close(expected, (gaps > 220).double(), atol=0.51, rtol=0)
    assert ((expected == 0) | (expected == 1)).sum() > 50
