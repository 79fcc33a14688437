import numpy as np
import oracles
import pytest
import torch
from populations import population
from torch import Tensor
from torch.testing import assert_close

from lscal import crossfit
from lscal.calibrators import CALIBRATORS, Temperature
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


def confused(examples: int, members: int = 2, strength: float = 0.4) -> tuple[Tensor, Tensor]:
    """Overconfident members that mix up classes by so much, and labels."""
    generator = torch.Generator().manual_seed(8)
    evidence = 2 * torch.randn(examples, 4, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(evidence.softmax(-1), 1, generator=generator).squeeze(-1)
    mixing = torch.eye(4).double() + strength * torch.randn(4, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(members, examples, 4, generator=generator, dtype=torch.float64)
    return 1.5 * (evidence @ mixing) + 0.3 * noise, labels


@pytest.mark.parametrize("groups", [3, 7, 40])
@pytest.mark.parametrize("count", [2, 5])
def test_folds_keep_groups_together(groups: int, count: int):
    generator = torch.Generator().manual_seed(groups)
    member = torch.randint(groups, (400,), generator=generator).square() - 5
    parts = crossfit.folds(400, count, member)
    assert len(parts) == min(count, len(member.unique()))
    assert sorted(torch.cat([held for held, _ in parts]).tolist()) == list(range(400))
    for held, others in parts:
        assert sorted(torch.cat([held, others]).tolist()) == list(range(400))
        assert not set(member[held].tolist()) & set(member[others].tolist())
    if groups == 40:
        assert max(len(held) for held, _ in parts) < 1.2 * 400 / count


def test_the_nll_of_a_choice_is_that_of_the_other_folds():
    logits, labels = confused(120)
    found = crossfit.best_of(logits, labels, ["temperature", "sms"])
    for name, nll in found.nll.items():
        expected = []
        for held, others in oracles.folds(120):
            fitted = CALIBRATORS[name].fit(logits[:, others], labels[others])
            for member in fitted(logits[:, held]):
                expected += oracles.nlls(member.numpy(), labels[held].numpy()).tolist()
        assert nll == pytest.approx(np.mean(expected), abs=1e-9)
    assert list(found.nll) == ["temperature", "sms"]


def test_a_richer_method_is_chosen_where_it_is_needed_and_only_there():
    assert crossfit.best_of(*confused(1500)).method == "sms"
    logits, labels = confused(1500, strength=0.0)
    assert crossfit.best_of(logits, labels).method == "temperature"


@pytest.mark.parametrize(("errors", "chosen"), [(1.05, "b"), (0.95, "a")])
@pytest.mark.parametrize("grouped", [False, True])
def test_one_standard_error_decides(
    errors: float, chosen: str, grouped: bool, monkeypatch: pytest.MonkeyPatch
):
    """`b` is lower by so many standard errors; `c` lowers it further by less than one, and is not chosen."""
    examples, repeats = 100, 3 if grouped else 1
    noise = torch.linspace(-1, 1, examples, dtype=torch.float64)
    error = float(noise.std()) / examples**0.5
    losses = {"a": noise * 0, "b": noise - errors * error, "c": -noise - (errors + 0.1) * error}
    losses = {name: nll.repeat_interleave(repeats) for name, nll in losses.items()}
    monkeypatch.setattr(crossfit, "fresh_nll", lambda method, *_: losses[method])
    monkeypatch.setattr("lscal.calibrators.CALIBRATORS", dict.fromkeys("abc", Temperature))
    groups = torch.arange(examples).repeat_interleave(3) if grouped else None
    logits, labels = torch.zeros(examples * repeats, 2), torch.zeros(examples * repeats, dtype=torch.long)
    found = crossfit.best_of(logits, labels, "ab", groups=groups)
    assert found.method == chosen
    if chosen == "b":
        assert crossfit.best_of(logits, labels, "abc", groups=groups).method == "b"


def test_the_same_method_but_for_rounding_is_not_chosen(monkeypatch: pytest.MonkeyPatch):
    losses = {"temperature": torch.zeros(50).double(), "p_norm": torch.full((50,), -1e-7).double()}
    monkeypatch.setattr(crossfit, "fresh_nll", lambda method, *_: losses[method])
    assert crossfit.best_of(*confused(50), ["temperature", "p_norm"]).method == "temperature"


def test_examples_whose_label_is_masked_do_not_count():
    logits, labels = confused(90)
    masked = torch.cat([logits, logits[:, :4]], 1)
    for row in range(4):
        masked[0, 90 + row, labels[row]] = -torch.inf
    found = crossfit.best_of(masked, torch.cat([labels, labels[:4]]), ["temperature", "svs"])
    assert all(np.isfinite(nll) for nll in found.nll.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["temperature", "platt"]}, "no calibrator named 'platt'; there are bbq"),
        ({"methods": []}, "0 methods and 5 folds"),
        ({"folds": 1}, "5 methods and 1 folds"),
        ({"groups": torch.zeros(20, dtype=torch.long)}, "a single example or group"),
        ({"groups": torch.zeros(3, dtype=torch.long)}, "3 groups for 20 labels"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_chosen_from_is_told(changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        crossfit.best_of(*confused(20), **changes)
