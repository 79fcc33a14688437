import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close

from lscal.calibrators import Temperature
from lscal.calibrators.temperature import (
    HIGHEST,
    LOWEST,
    NARROW,
    SERIAL,
    SMALLEST_SAMPLE,
    cumulants,
    search,
    solve,
)

SCALES = [0.05, 0.2, 0.7, 1.0, 3.0, 12.0, 100.0]


def drawn(seed: int, examples: int = 700, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Logits whose softmax is the very distribution of the labels: their T is 1 but for the draw."""
    generator = torch.Generator().manual_seed(seed)
    logits = 0.3 + 1.8 * torch.randn(examples, classes, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)


def separable(classes: int = 5) -> tuple[Tensor, Tensor]:
    """Logits whose largest is the label's in every row."""
    logits, labels = drawn(seed=6, classes=classes)
    return 0.1 * logits + 2 * F.one_hot(labels, classes), labels


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_recovers_the_temperature_of_under_and_overconfident_models(seed: int, scale: float):
    logits, labels = drawn(seed)
    unscaled = float(Temperature.fit(logits, labels).value)
    fitted = Temperature.fit(scale * logits, labels)
    assert unscaled == pytest.approx(1, abs=0.15)
    assert float(fitted.value) == pytest.approx(scale * unscaled, rel=1e-9)
    assert bool(fitted.converged)


@pytest.mark.parametrize("scale", SCALES)
def test_agrees_with_scipy(scale: float):
    logits, labels = drawn(seed=4)
    logits = scale * logits

    def nll(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    scipys = minimize_scalar(
        nll, bounds=(math.log(LOWEST), math.log(HIGHEST)), method="bounded", options={"xatol": 1e-10}
    )
    ours = float(Temperature.fit(logits, labels).value)
    assert ours == pytest.approx(math.exp(scipys.x), rel=1e-6)
    assert nll(math.log(ours)) <= scipys.fun + 1e-14


@pytest.mark.parametrize("scale", SCALES)
def test_the_slope_of_the_nll_is_zero_there(scale: float):
    logits, labels = drawn(seed=5)
    log_temperature = Temperature.fit(scale * logits, labels).value.log().requires_grad_()
    F.cross_entropy(scale * logits / log_temperature.exp(), labels).backward()
    assert log_temperature.grad is not None
    assert abs(float(log_temperature.grad)) < 1e-10


def test_a_smoothed_model_is_sharpened():
    """Given the logits at which the loss with ε = 0.1 is least, where 19 in 20 answers are right."""
    labels = torch.arange(200) % 4
    answers = torch.where(torch.arange(200) % 20 == 7, (labels + 1) % 4, labels)
    logits = 0.4 + math.log(1 + 4 * 0.9 / 0.1) * F.one_hot(answers, 4).to(torch.float64)
    confidence = float(logits.softmax(-1).amax(-1)[0])
    assert confidence == pytest.approx(0.925)
    calibrated = Temperature.fit(logits, labels)
    assert float(calibrated.value) < 1
    assert_close(
        calibrated(logits).softmax(-1).amax(-1),
        torch.full((200,), 0.95, dtype=torch.float64),
        atol=1e-10,
        rtol=0,
    )


def test_a_member_of_a_population_gets_what_it_gets_alone():
    logits, labels = drawn(seed=7)
    generator = torch.Generator().manual_seed(8)
    noise = 0.5 * torch.randn(len(SCALES), *logits.shape, generator=generator, dtype=torch.float64)
    population = torch.tensor(SCALES, dtype=torch.float64).reshape(-1, 1, 1) * (logits + noise)
    together = Temperature.fit(population, labels)
    assert together.value.shape == (len(SCALES),)
    for member, value in zip(population, together.value, strict=True):
        alone = Temperature.fit(member, labels).value
        assert alone.shape == ()
        assert_close(value, alone, atol=0, rtol=1e-9)


def test_a_separable_member_does_not_disturb_the_others():
    logits, labels = drawn(seed=7)
    population = torch.stack([0.2 * logits, 2.0 * F.one_hot(labels, 5) + 0.1 * logits, 9 * logits])
    together = Temperature.fit(population, labels)
    assert together.converged.tolist() == [True, False, True]
    for i in (0, 2):
        assert_close(together.value[i], Temperature.fit(population[i], labels).value, atol=0, rtol=1e-9)


def test_two_member_dimensions():
    logits, labels = drawn(seed=9)
    grid = torch.tensor(SCALES[:6], dtype=torch.float64).reshape(2, 3, 1, 1) * logits
    fitted = Temperature.fit(grid, labels)
    assert fitted.value.shape == fitted.converged.shape == (2, 3)
    assert_close(fitted.value[1, 0], Temperature.fit(grid[1, 0], labels).value, atol=0, rtol=1e-9)
    assert_close(fitted(grid)[1, 2], grid[1, 2] / fitted.value[1, 2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_narrow_logits_are_fitted_as_their_values_in_float64(dtype: torch.dtype):
    logits, labels = drawn(seed=10, examples=3000)
    narrow = (3 * logits).to(dtype)
    fitted = Temperature.fit(narrow, labels)
    assert fitted.value.dtype == torch.float64
    assert_close(fitted.value, Temperature.fit(narrow.double(), labels).value, atol=0, rtol=1e-6)
    assert abs(float(fitted.value) - 1) > 1
    assert fitted(narrow).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_labels_of_any_integer_type(dtype: torch.dtype):
    logits, labels = drawn(seed=10, classes=200)
    labels = labels % 120
    assert torch.equal(Temperature.fit(logits, labels.to(dtype)).value, Temperature.fit(logits, labels).value)


@pytest.mark.parametrize("classes", [2, NARROW - 1, NARROW, 300])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_more_examples_than_a_chunk(classes: int, dtype: torch.dtype):
    logits, labels = drawn(seed=11, examples=SERIAL // classes // 2 + 5, classes=classes)
    once = Temperature.fit((0.3 * logits).to(dtype), labels)
    twice = Temperature.fit((0.3 * logits).to(dtype).repeat(2, 1), labels.repeat(2))
    assert_close(twice.value, once.value, atol=0, rtol=1e-9 if dtype == torch.float64 else 1e-6)


@pytest.mark.parametrize("start", [-2.0, 0.4, 2.5])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
def test_the_samples_only_say_where_to_start(start: float, dtype: torch.dtype, error: float):
    logits, labels = drawn(seed=15, examples=20 * SMALLEST_SAMPLE)
    sharp, answers = (
        (4 * logits).to(dtype),
        torch.where(torch.arange(len(labels)) % 7 == 0, logits.argmin(-1), labels),
    )
    found = float(Temperature.fit(sharp, answers).value)
    s, inside = search(sharp, answers, start, tolerance=1e-20)
    assert inside
    assert found == pytest.approx(math.exp(-s), rel=error)


@pytest.mark.parametrize("sample", ["right", "wrong"])
def test_a_sample_which_misleads_changes_nothing(sample: str):
    """Every 64th, 16th and 4th answer is always right, or always wrong."""
    logits, labels = drawn(seed=16, examples=64 * SMALLEST_SAMPLE)
    labels[::4] = logits[::4].argmax(-1) if sample == "right" else logits[::4].argmin(-1)
    found = float(Temperature.fit(5 * logits, labels).value)
    s, _ = search(5 * logits, labels, 0.0, tolerance=1e-20)
    assert found == pytest.approx(math.exp(-s), rel=1e-9)


def test_the_order_of_the_examples_does_not_matter():
    logits, labels = drawn(seed=17, examples=20 * SMALLEST_SAMPLE)
    order = labels.argsort()
    sorted_by_class = Temperature.fit(logits[order] / 9, labels[order])
    assert_close(sorted_by_class.value, Temperature.fit(logits / 9, labels).value, atol=0, rtol=1e-9)


def test_the_cumulants_are_the_derivatives_of_the_nll():
    logits, labels = drawn(seed=12)
    beta = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    derivatives = [F.cross_entropy(beta * logits, labels)]
    for _ in range(4):
        derivatives.append(torch.autograd.grad(derivatives[-1], beta, create_graph=True)[0])
    at = cumulants(logits, labels, 0.6)
    found = [at.expected - at.observed, at.variance, at.third, at.fourth]
    for order, (value, derivative) in enumerate(zip(found, derivatives[1:], strict=True), 1):
        assert value == pytest.approx(0.6**order * float(derivative.detach()), rel=1e-10)
    assert at.observed == pytest.approx(
        0.6 * float((logits.gather(1, labels[:, None])[:, 0] - logits.amax(1)).mean()), rel=1e-12
    )


class LargestResult(TorchFunctionMode):
    """Remembers the most bytes that one call has made, views apart."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_function__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        if isinstance(result, Tensor) and not result._is_view():
            self.bytes = max(self.bytes, result.numel() * result.element_size())
        return result


@pytest.mark.parametrize("classes", [10, 100])
def test_the_input_is_never_copied(classes: int):
    logits, labels = drawn(seed=18, examples=400_000 // classes, classes=classes)
    with LargestResult() as largest:
        solve(logits, labels)
    assert 0 < largest.bytes <= 8 * SERIAL


def test_a_masked_class_does_not_count():
    logits, labels = drawn(seed=13)
    column = torch.full((len(labels), 1), -math.inf, dtype=torch.float64)
    masked = 4 * torch.cat([logits, column], -1)
    fitted = Temperature.fit(masked, labels)
    assert_close(fitted.value, Temperature.fit(4 * logits, labels).value, atol=0, rtol=1e-9)
    assert torch.equal(fitted(masked).isneginf(), masked.isneginf())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_masked_label_says_nothing_about_the_temperature(dtype: torch.dtype):
    logits, labels = drawn(seed=13)
    masked = (4 * logits).to(dtype)
    masked[::9].scatter_(1, labels[::9, None], -math.inf)
    others = torch.arange(len(labels)) % 9 != 0
    fitted = Temperature.fit(masked, labels)
    assert bool(fitted.converged)
    assert_close(
        fitted.value,
        Temperature.fit(masked[others], labels[others]).value,
        atol=0,
        rtol=1e-6 if dtype == torch.float32 else 1e-9,
    )


def test_no_label_that_is_possible():
    fitted = Temperature.fit(torch.tensor([[0.3, -math.inf], [1.2, -math.inf]]), torch.tensor([1, 1]))
    assert not bool(fitted.converged)


@pytest.mark.parametrize("offset", [-3e4, 3e4])
def test_a_constant_added_to_a_row_changes_nothing(offset: float):
    logits, labels = drawn(seed=19)
    moved = 4 * logits + offset * torch.linspace(0.5, 1, len(labels), dtype=torch.float64).unsqueeze(-1)
    assert_close(
        Temperature.fit(moved, labels).value, Temperature.fit(4 * logits, labels).value, atol=0, rtol=1e-9
    )
    assert_close(
        Temperature.fit(moved.float(), labels).value,
        Temperature.fit(4 * logits, labels).value,
        atol=0,
        rtol=2e-3,
    )


@pytest.mark.parametrize("sharpness", [0.05, 1.0, 20.0])
def test_where_every_example_is_right_the_targets_are_cautious(sharpness: float):
    """There is no minimum of the NLL. With 1/(N + 2) of each target for all classes alike there is."""
    logits, labels = separable()
    scaled = sharpness * logits
    fitted = Temperature.fit(scaled, labels)
    assert not bool(fitted.converged)

    def nll(s: float) -> float:
        return float(F.cross_entropy(scaled * math.exp(s), labels, label_smoothing=1 / (len(labels) + 2)))

    best = minimize_scalar(nll, bounds=(-6, 4.6), method="bounded", options={"xatol": 1e-9})
    assert -math.log(float(fitted.value)) == pytest.approx(best.x, abs=1e-5)


def test_one_error_after_none_costs_little():
    """What was right on all of some examples is not taken to be right for ever."""
    logits = torch.tensor([[9.0, 0.0, 1.0]]).repeat(50, 1)
    fitted = Temperature.fit(logits, torch.zeros(50, dtype=torch.int64))
    assert float(F.cross_entropy(fitted(logits[:1]), torch.tensor([1]))) < 6


def test_a_masked_label_does_not_make_the_targets_cautious():
    logits, labels = separable()
    masked = torch.cat([logits, logits[:5].scatter(1, labels[:5, None], -math.inf)])
    fitted = Temperature.fit(masked, torch.cat([labels, labels[:5]]))
    assert float(fitted.value) == pytest.approx(float(Temperature.fit(logits, labels).value))


@pytest.mark.parametrize("sharpness", [0.05, 1.0, 20.0])
def test_where_every_example_is_wrong_there_is_no_minimum(sharpness: float):
    logits, labels = separable()
    fitted = Temperature.fit(-sharpness * logits, labels)
    assert not bool(fitted.converged)
    assert float(fitted.value) == pytest.approx(HIGHEST)


@pytest.mark.parametrize("scale", [0.004, 3000.0])
def test_a_minimum_out_of_range_is_not_converged(scale: float):
    logits, labels = drawn(seed=14)
    fitted = Temperature.fit(scale * logits, labels)
    assert not bool(fitted.converged)
    assert float(fitted.value) == pytest.approx(LOWEST if scale < 1 else HIGHEST)


@pytest.mark.parametrize("error", [1, 40])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_error_in_thousands_is_a_minimum(error: int, dtype: torch.dtype):
    """Where the NLL is all but flat: nine thousand saturated answers, and one error by a little or by a
    lot.
    """
    logits = torch.tensor([[8.0, 0.0]] * 9000 + [[0.0, float(error)]], dtype=dtype)
    fitted = Temperature.fit(logits, torch.zeros(9001, dtype=torch.int64))
    wide = logits.double()

    def nll(s: float) -> float:
        return float(F.cross_entropy(wide * math.exp(s), torch.zeros(9001, dtype=torch.int64)))

    best = minimize_scalar(nll, bounds=(-7, 4.6), method="bounded", options={"xatol": 1e-9})
    assert bool(fitted.converged)
    assert -math.log(float(fitted.value)) == pytest.approx(best.x, abs=1e-5)


def test_one_example():
    right, wrong = torch.tensor([[0.3, 1.9, 0.4]]), torch.tensor([0])
    assert float(Temperature.fit(right, wrong).value) == pytest.approx(HIGHEST)
    assert LOWEST < float(Temperature.fit(right, torch.tensor([1])).value) < HIGHEST
    between = Temperature.fit(right, torch.tensor([2]))
    assert not bool(between.converged)  # below the mean of the logits: no temperature is high enough
    assert float(between.value) == pytest.approx(HIGHEST)
    above = Temperature.fit(torch.tensor([[0.3, 1.9, 1.8]], dtype=torch.float64), torch.tensor([2]))
    assert bool(above.converged)


def test_dividing_keeps_the_answer_and_the_shape(logits: Tensor, labels: Tensor):
    fitted = Temperature.fit(logits, labels)
    calibrated = fitted(logits)
    assert calibrated.shape == logits.shape
    assert torch.equal(calibrated.argmax(-1), logits.argmax(-1))
    for member, temperature in enumerate(fitted.value.tolist()):
        assert_close(calibrated[member], logits[member] / temperature, atol=1e-13, rtol=0)
    assert fitted.value[0] < fitted.value[1] < fitted.value[2]


def test_the_nll_does_not_get_worse_where_it_was_fitted(logits: Tensor, labels: Tensor):
    calibrated = Temperature.fit(logits, labels)(logits)
    for before, after in zip(logits, calibrated, strict=True):
        assert F.cross_entropy(after, labels) < F.cross_entropy(before, labels)


def test_what_cannot_be_scored_cannot_be_fitted(logits: Tensor, labels: Tensor):
    logits[0, 3, 2] = math.nan
    with pytest.raises(ValueError, match=r"^the logit at \(0, 3, 2\) is nan;"):
        Temperature.fit(logits, labels)


def test_logits_which_say_nothing_leave_the_temperature_at_one():
    fitted = Temperature.fit(torch.full((4, 3), 0.7), torch.tensor([0, 2, 1, 1]))
    assert float(fitted.value) == 1
    assert not bool(fitted.converged)
