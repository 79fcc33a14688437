"""Every calibrator of the registry, and each by its own rules. Temperature has a file of its own."""

import json
import logging
import math
import subprocess
import sys
import threading
import warnings
from itertools import pairwise

import numpy as np
import oracles
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor
from torch.testing import assert_close

from lscal.calibrators import (
    BBQ,
    CALIBRATORS,
    Beta,
    Histogram,
    Isotonic,
    PNorm,
    Temperature,
    VectorScaling,
    calibrator_from_json,
)
from lscal.calibrators.netcal import steps
from lscal.calibrators.one_vs_rest import OneVsRest, interpolate
from lscal.calibrators.p_norm import ORDERS, centred, norm

INF = math.inf
METHODS = sorted(CALIBRATORS)
CURVES = [Isotonic, Histogram, BBQ]
NETCALS = {
    "isotonic": "binning.IsotonicRegression",
    "histogram": "binning.HistogramBinning",
    "bbq": "binning.BBQ",
    "beta": "scaling.BetaCalibration",
}


def drawn(seed: int = 3, examples: int = 90, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Logits of an overconfident model, off centre, each class about as often as its neighbour."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.linspace(0.1, 0.5, classes, dtype=torch.float64) + 1.4 * torch.randn(
        examples, classes, generator=generator, dtype=torch.float64
    )
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)
    return 2.5 * logits + 0.7, labels


def mixed(probabilities: np.ndarray, share: float) -> np.ndarray:
    """A little of the uniform distribution with each row."""
    return np.array([[(1 - share) * p + share / len(row) for p in row] for row in probabilities])


# every calibrator


@pytest.fixture(scope="module", params=METHODS)
def fitted(request: pytest.FixtureRequest):
    """Each method fitted on two models, with their logits and labels."""
    logits, labels = drawn()
    population = torch.stack([logits, 0.2 * logits.flip(-1).roll(1, -1)])
    return CALIBRATORS[request.param].fit(population, labels), population, labels


def test_a_member_gets_what_it_gets_alone(fitted):
    calibrator, population, labels = fitted
    together = calibrator(population)
    assert together.shape == population.shape
    assert together.dtype == torch.float64
    alone = type(calibrator).fit(population[1], labels)
    assert_close(alone(population[1]), together[1], atol=1e-9, rtol=1e-9)
    assert not torch.allclose(together[0].softmax(-1), population[0].softmax(-1), atol=0.01)


def test_json_gives_back_the_same_calibrator(fitted):
    calibrator, population, _ = fitted
    text = calibrator.to_json()
    again = calibrator_from_json(text)
    assert type(again) is type(calibrator)
    assert json.loads(text)["method"] == calibrator.method
    assert torch.equal(again(population), calibrator(population))
    assert again.to_json() == text


def test_one_model_has_no_member_dimension_in_json(fitted):
    calibrator, population, labels = fitted
    alone = type(calibrator).fit(population[0], labels)
    again = calibrator_from_json(alone.to_json())
    assert again(population[0]).shape == population[0].shape


def test_a_calibrator_is_frozen(fitted):
    calibrator, *_ = fitted
    field = next(iter(vars(calibrator)))
    with pytest.raises(AttributeError):
        setattr(calibrator, field, torch.zeros(2))


@pytest.mark.parametrize("method", METHODS)
def test_the_nll_on_fresh_examples_is_better(method: str):
    calibrator = CALIBRATORS[method].fit(*drawn(seed=3, examples=150 if method == "beta" else 600))
    logits, labels = drawn(seed=4, examples=2000)
    assert calibrator(logits).isfinite().all()
    assert F.cross_entropy(calibrator(logits), labels) < F.cross_entropy(logits, labels) - 0.1


@pytest.mark.parametrize("method", METHODS)
def test_a_fit_needs_what_can_be_scored(method: str):
    logits, labels = drawn(examples=8)
    logits[3, 1] = math.nan
    with pytest.raises(ValueError, match="nan"):
        CALIBRATORS[method].fit(logits, labels)


@pytest.mark.parametrize("method", METHODS)
def test_two_classes_and_narrow_types(method: str):
    logits, labels = drawn(seed=5, classes=2)
    fitted = CALIBRATORS[method].fit(logits.half(), labels.to(torch.int8))
    again = CALIBRATORS[method].fit(logits.half().double(), labels)
    calibrated = fitted(logits.half())
    assert calibrated.shape == (90, 2)
    assert calibrated.dtype == torch.float64
    assert_close(calibrated, again(logits.half()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_class_keeps_a_chance(method: str):
    """Class 2 of 4 is in no example the calibrator has seen, and is in a later one that the model is sure
    of.
    """
    logits, labels = drawn(seed=6, classes=4)
    calibrator = CALIBRATORS[method].fit(logits[labels != 2], labels[labels != 2])
    assert calibrator(logits).isfinite().all()
    sure = torch.tensor([[0.0, 0.3, 12.0, -0.2]], dtype=torch.float64)
    assert float(calibrator(sure).softmax(-1)[0, 2]) > 0.3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("present", [[1, 3], [2]])
def test_few_labels_of_many_classes_are_not_a_binary_problem(method: str, present: list[int]):
    logits, labels = drawn(seed=7, classes=4)
    labels = torch.tensor(present)[labels % len(present)]
    calibrated = CALIBRATORS[method].fit(logits, labels)(logits)
    assert calibrated.shape == (90, 4)
    assert calibrated.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_a_masked_class_stays_masked(method: str):
    logits, labels = drawn(seed=8, classes=4)
    logits[::3, 3] = -INF
    labels = torch.where(labels == 3, 1, labels)
    labels[1::3] = torch.where(labels[1::3] == 0, 3, labels[1::3])
    calibrated = CALIBRATORS[method].fit(logits, labels)(logits)
    assert torch.equal(calibrated.isneginf(), logits.isneginf())
    assert not calibrated.isnan().any()
    assert_close(calibrated.softmax(-1).sum(-1), torch.ones(90, dtype=torch.float64))


@pytest.mark.parametrize("method", METHODS)
def test_saturated_and_tied_logits(method: str):
    generator = torch.Generator().manual_seed(9)
    labels = torch.randint(3, (60,), generator=generator)
    answers = torch.where(torch.arange(60) % 6 == 0, (labels + 1) % 3, labels)
    logits = 900.0 * F.one_hot(answers, 3).to(torch.float64)
    calibrated = CALIBRATORS[method].fit(logits, labels)(logits)
    assert calibrated.isfinite().all()
    confidence = calibrated.softmax(-1).amax(-1)
    rates = [float((labels[answers == k] == k).double().mean()) for k in range(3)]
    assert min(rates) - 0.04 < confidence.min() <= confidence.max() < max(rates) + 0.04


# JSON


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a calibrator in JSON"),
        ("[1, 2]", 'wanted a JSON object with a "method"'),
        ('{"value": 2.0}', 'wanted a JSON object with a "method"'),
        (
            '{"method": "temprature", "value": 2.0}',
            r"no calibrator named 'temprature'; there are bbq, beta, .*, p_norm, .*, vector$",
        ),
        ('{"method": "temperature", "value": 2.0}', "temperature has the fields converged, value; got value"),
        (
            '{"method": "temperature", "value": NaN, "converged": true}',
            "holds NaN; allowed are finite numbers",
        ),
        (
            '{"method": "temperature", "value": "2", "converged": true}',
            "value holds str; allowed are numbers, or true and false",
        ),
        ('{"method": "temperature", "value": [2, true], "converged": true}', "value holds bool and int"),
        (
            '{"method": "temperature", "value": [[2], [3, 4]], "converged": true}',
            "the lists of value are not all of the same length",
        ),
        ('{"method": "temperature", "value": [2.0], "converged": true}', r"value \(1,\) and converged \(\)"),
        ('{"method": "temperature", "value": 2.0, "converged": 1}', "numbers in converged"),
        ('{"method": "temperature", "value": -2.0, "converged": true}', "outside of 0.01 to 1000"),
        (
            '{"method": "p_norm", "p": 0.5, "temperature": 2.0, "converged": true}',
            "neither 0 nor a number of at least 1",
        ),
        ('{"method": "p_norm", "p": 2, "temperature": 0.0, "converged": true}', "temperature outside of"),
        ('{"method": "p_norm", "p": 2, "temperature": 1.0, "converged": 0}', "numbers in converged"),
        ('{"method": "p_norm", "p": [2], "temperature": 1.0, "converged": true}', "wanted the same for all"),
        ('{"method": "vector", "scale": 2.0, "bias": 1.0, "converged": true}', r"wanted \(\.\.\., K\)"),
        ('{"method": "vector", "scale": [1, 2], "bias": [1e999, 0], "converged": true}', "not finite"),
        ('{"method": "vector", "scale": [1, 2], "bias": [1, 0], "converged": 1}', "numbers in converged"),
        ('{"method": "beta", "weights": [[1, 2]], "bias": [0, 0]}', r"wanted \(\.\.\., K, 2\)"),
        ('{"method": "beta", "weights": [[1, 2], [1, 1e999]], "bias": [0, 0]}', "not finite"),
        (
            '{"method": "isotonic", "knots": [[0.5, 0.2]], "values": [[0, 1]], "uniform": 0.1}',
            "knots which do not ascend",
        ),
        (
            '{"method": "isotonic", "knots": [[0.2, 0.5]], "values": [[0, 1.5]], "uniform": 0.1}',
            "values outside of 0 to 1",
        ),
        (
            '{"method": "isotonic", "knots": [[0.2, 0.5]], "values": [[0, 1]], "uniform": [0.1]}',
            r"wanted \(\.\.\., K, J\)",
        ),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_calibrator_is_told(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        calibrator_from_json(text)


# p-norm


def p_norm_oracle(logits: np.ndarray, labels: np.ndarray, p: float) -> tuple[float, np.ndarray]:
    """T and the calibrated logits of one model under a p, row by row."""
    rows = []
    for row in logits:
        allowed = np.isfinite(row)
        moved = row - row[allowed].mean()
        length = (np.abs(moved[allowed]) ** p).sum() ** (1 / p) / len(row) ** (1 / p) if p else 1.0
        rows.append(moved / length)
    rows = np.array(rows)
    best = minimize_scalar(
        lambda s: oracles.nll(rows * math.exp(s), labels),
        bounds=(-6, 4),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return math.exp(-best.x), rows * math.exp(best.x)


@pytest.mark.parametrize("member", [0, 1])
def test_p_norm_takes_the_order_of_least_aurc(member: int):
    """Errors have shorter logits than their margin tells in one model, and nothing to repair in the other."""
    logits, labels = drawn(seed=10, examples=160, classes=6)
    generator = torch.Generator().manual_seed(11)
    stretch = torch.rand(160, 1, generator=generator, dtype=torch.float64) * 3 + 0.3
    population = torch.stack([logits, logits * stretch])
    fitted = PNorm.fit(population, labels)
    model, answers = population[member].numpy(), labels.numpy()
    candidates = {p: p_norm_oracle(model, answers, p) for p in ORDERS}
    risks = {
        p: oracles.aurc(oracles.confidence(calibrated), oracles.correct(model, answers))
        for p, (_, calibrated) in candidates.items()
    }
    best = min(risks, key=lambda p: risks[p])
    assert float(fitted.p[member]) == best
    assert float(fitted.temperature[member]) == pytest.approx(candidates[best][0], rel=1e-6)
    np.testing.assert_allclose(fitted(population)[member].numpy(), candidates[best][1], rtol=1e-6)
    if member == 1:
        assert best > 0
        assert risks[best] < 0.9 * risks[0]


def test_p_norm_keeps_every_answer(logits: Tensor, labels: Tensor):
    calibrated = PNorm.fit(logits, labels)(logits)
    assert torch.equal(calibrated.argmax(-1), logits.argmax(-1))


@pytest.mark.parametrize("p", ORDERS)
def test_norms_of_masked_equal_and_huge_rows(p: float):
    rows = torch.tensor(
        [[1.0, -2.0, 3.0, -INF], [0.0, 0.0, 0.0, 0.0], [1e200, -1e200, 0.0, 0.0], [5.0, -INF, -INF, -INF]],
        dtype=torch.float64,
    )
    lengths = norm(centred(rows), torch.tensor(p, dtype=torch.float64))
    if p == 0:
        assert lengths.tolist() == [1] * 4
        return
    moved = [1 - 2 / 3, -2 - 2 / 3, 3 - 2 / 3]
    assert float(lengths[0]) == pytest.approx((sum(abs(v) ** p for v in moved) / 4) ** (1 / p))
    assert lengths[1] == lengths[3] == 1
    assert float(lengths[2]) == pytest.approx(1e200 * 0.5 ** (1 / p))


def test_p_norm_of_a_row_without_evidence():
    logits, labels = drawn(seed=12, classes=4)
    logits[0] = 3.3
    calibrated = PNorm.fit(logits, labels)(logits)
    assert_close(calibrated[0].softmax(-1), torch.full((4,), 0.25, dtype=torch.float64))


# vector scaling


def test_vector_scaling_minimises_its_objective():
    logits, labels = drawn(seed=13, examples=70, classes=4)
    logits[:, 1] = 0.3 * logits[:, 1] + 1.1
    fitted = VectorScaling.fit(logits, labels)
    temperature = float(Temperature.fit(logits, labels).value)
    z, y = logits.numpy(), labels.numpy()

    def objective(parameters: np.ndarray) -> float:
        w, b = parameters[:4], parameters[4:]
        total = 0.5 * (((temperature * w - 1) ** 2).sum() + (b**2).sum())
        for row, label in zip(z, y, strict=True):
            scores = w * (row - row.mean()) + b
            total += math.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[label]
        return float(total)

    ours = np.concatenate([fitted.scale.numpy(), fitted.bias.numpy()])
    other = minimize(
        objective, np.concatenate([np.ones(4), np.zeros(4)]), method="BFGS", options={"gtol": 1e-6}
    )
    assert bool(fitted.converged)
    np.testing.assert_allclose(ours, other.x, atol=1e-4)
    assert objective(ours) <= other.fun + 1e-9
    assert abs(float(fitted.bias.sum())) < 1e-9
    calibrated = fitted.scale * (logits - logits.mean(-1, keepdim=True)) + fitted.bias
    assert_close(fitted(logits), calibrated)


def test_vector_scaling_does_not_depend_on_a_constant_per_row():
    logits, labels = drawn(seed=14)
    once, again = VectorScaling.fit(logits, labels), VectorScaling.fit(logits.log_softmax(-1), labels)
    assert_close(once.scale, again.scale, atol=1e-5, rtol=1e-5)
    assert_close(once.bias, again.bias, atol=1e-5, rtol=1e-5)


def test_vector_scaling_undoes_scales_and_biases_of_classes():
    logits, labels = drawn(seed=15, examples=6000, classes=3)
    truth = logits / 2.5
    scale, bias = (
        torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64),
        torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64),
    )
    bent = (truth - truth.mean(-1, keepdim=True)) * scale + bias
    bent -= bent.mean(-1, keepdim=True)
    before, after = (
        F.cross_entropy(Temperature.fit(bent, labels)(bent), labels),
        F.cross_entropy(VectorScaling.fit(bent, labels)(bent), labels),
    )
    assert after < before - 0.05


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 30.0])
def test_vector_scaling_of_separable_examples_is_finite(sharpness: float):
    labels = torch.arange(50) % 3
    logits = sharpness * (2 * F.one_hot(labels, 3) + 0.1 * drawn(examples=50)[0])
    fitted = VectorScaling.fit(logits, labels)
    assert bool(fitted.converged)
    assert (fitted(logits).argmax(-1) == labels).all()
    assert fitted.scale.abs().max() < 20


# one against the rest


def pav(scores: np.ndarray, hits: np.ndarray) -> list[tuple[float, float]]:
    """Pool adjacent violators: the ascending means of hits, at each distinct score."""
    blocks: list[list[list[float]]] = []
    for score in sorted(set(scores.tolist())):
        blocks.append([[score], list(hits[scores == score].astype(float))])
        while len(blocks) > 1 and np.mean(blocks[-2][1]) >= np.mean(blocks[-1][1]):
            last = blocks.pop()
            blocks[-1][0] += last[0]
            blocks[-1][1] += last[1]
    return [(score, float(np.mean(answers))) for places, answers in blocks for score in places]


@pytest.mark.parametrize("classes", [2, 4])
def test_isotonic_agrees_with_pooling_adjacent_violators(classes: int):
    logits, labels = drawn(seed=16, classes=classes)
    fresh, _ = drawn(seed=17, classes=classes)
    before, after = oracles.softmax(logits.numpy()), oracles.softmax(fresh.numpy())
    raised = np.zeros_like(after)
    for k in range(classes):
        curve = pav(before[:, k], labels.numpy() == k)
        raised[:, k] = np.interp(after[:, k], [x for x, _ in curve], [y for _, y in curve])
    expected = mixed(raised / raised.sum(1, keepdims=True), 1 / 91)
    found = Isotonic.fit(logits, labels)(fresh).exp().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("method", NETCALS)
@pytest.mark.parametrize("classes", [2, 4])
def test_agrees_with_netcal_where_netcal_is_right(
    method: str, classes: int, capfd: pytest.CaptureFixture[str]
):
    """float64, every class present. netcal gives a vector for K = 2: the probability of class 1."""
    module, name = NETCALS[method].split(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        netcals = getattr(__import__(f"netcal.{module}", fromlist=[name]), name)()
        logits, labels = drawn(seed=18, classes=classes)
        fresh, _ = drawn(seed=19, classes=classes)
        netcals.fit(logits.softmax(-1).numpy(), labels.numpy())
        expected = netcals.transform(fresh.softmax(-1).numpy())
    if classes == 2:
        expected = np.stack([1 - expected, expected], 1)
    calibrator = CALIBRATORS[method].fit(logits, labels)
    found = calibrator(fresh).softmax(-1).numpy()
    share = float(calibrator.uniform) if isinstance(calibrator, OneVsRest) else 0.0
    np.testing.assert_allclose(
        found, mixed(expected, share), atol=1e-6
    )  # netcal weighs BBQ's histograms in float32
    capfd.readouterr()


@pytest.mark.parametrize("calibrator", CURVES)
def test_the_floor_is_one_example_spread_over_all_classes(calibrator: type[OneVsRest]):
    logits, labels = drawn(seed=20, examples=50)
    probabilities = calibrator.fit(logits, labels)(3 * logits).exp()
    assert_close(probabilities.sum(-1), torch.ones(50, dtype=torch.float64))
    assert probabilities.min() >= 1 / 51 / 3 - 1e-12
    if calibrator is not BBQ:
        assert probabilities.min() < 1 / 51 / 3 + 1e-4


def test_a_row_whose_curves_are_all_zero_keeps_its_probabilities():
    knots = torch.tensor([[0.0, 0.5, 0.6]] * 3, dtype=torch.float64)
    values = torch.tensor([[0.0, 0.0, 0.9]] * 3, dtype=torch.float64)
    calibrator = Isotonic(knots, values, torch.tensor(0.04, dtype=torch.float64))
    rows = torch.tensor([[0.40, 0.35, 0.25], [0.1, 0.2, 0.7]], dtype=torch.float64)
    expected = mixed(np.array([[0.40, 0.35, 0.25], [0.0, 0.0, 1.0]]), 0.04)
    assert_close(calibrator(rows.log()).exp(), torch.from_numpy(expected))


def test_a_step_is_two_knots():
    knots, values = steps(np.array([0.25, 0.5]), np.array([0.1, 0.7, 0.4]))
    points = [0.0, 0.25, float(np.nextafter(0.25, 1)), 0.4, 0.5, float(np.nextafter(0.5, 1)), 1.0]
    at = interpolate(
        *(torch.from_numpy(side)[None] for side in (knots, values)),
        torch.tensor([points], dtype=torch.float64),
    )
    assert at.tolist() == [[0.1, 0.1, 0.7, 0.7, 0.7, 0.4, 0.4]]


def test_curves_of_unequal_length_are_filled_up():
    logits, labels = drawn(seed=21, classes=4)
    fitted = Isotonic.fit(torch.stack([logits, logits.half().double()]), labels)
    lengths = {len(set(row.tolist())) for row in fitted.knots.flatten(0, 1)}
    assert len(lengths) > 1
    assert fitted.knots.shape == fitted.values.shape
    for row in fitted.knots.flatten(0, 1).tolist():
        assert all(left <= right for left, right in pairwise(row))


def test_other_logits_than_it_was_fitted_on():
    logits, labels = drawn(seed=22)
    fitted = Isotonic.fit(logits, labels)
    with pytest.raises(
        ValueError, match=r"^isotonic was fitted on \(\.\.\., N, K\) of \('N', 3\); got \(90, 2\)$"
    ):
        fitted(logits[:, :2])


# netcal's side effects


class Surroundings:
    """What a library should leave alone."""

    def __init__(self):
        import matplotlib as mpl

        self.rc = {name: str(value) for name, value in mpl.rcParams.items()}
        self.backend = mpl.get_backend()
        self.filters, self.show = list(warnings.filters), warnings.showwarning
        self.root = (logging.root.level, list(logging.root.handlers), logging.root.disabled)
        self.torch, self.numpy = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()
        self.threads = (torch.get_num_threads(), {thread.name for thread in threading.enumerate()})
        self.errors, self.dtype = np.geterr(), torch.get_default_dtype()
        self.streams = (sys.stdout, sys.stderr)


@pytest.mark.parametrize("method", ["histogram", "bbq", "beta"])
def test_netcal_changes_nothing_around_it(method: str, capfd: pytest.CaptureFixture[str]):
    import pyro
    from matplotlib import pyplot

    logits, labels = drawn(seed=23, examples=40)
    labels = torch.where(labels == 2, 1, labels)
    pyro.get_param_store().clear()
    pyro.param("mine", torch.tensor(1.5))
    before = Surroundings()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CALIBRATORS[method].fit(logits, labels)(logits)
    assert caught == []
    assert vars(Surroundings()) == vars(before)
    assert pyplot.get_fignums() == []
    assert list(pyro.get_param_store().keys()) == ["mine"]
    pyro.get_param_store().clear()
    assert capfd.readouterr() == ("", "")


FRESH = """
import logging, random, sys, threading, warnings
import numpy as np, torch, matplotlib as mpl
import lscal.calibrators
assert not [name for name in ("netcal", "pyro", "sklearn", "matplotlib.pyplot") if name in sys.modules]
logits = torch.tensor([[2.0, 0.1, 0.3], [0.2, 1.5, 0.1], [0.3, 0.2, 0.9], [1.1, 0.4, 0.2],
                       [0.1, 0.8, 0.9], [0.5, 0.4, 0.1]] * 3)
labels = torch.tensor([0, 1, 2, 0, 1, 2] * 3)
def state():
    rc = {name: str(value) for name, value in dict.items(mpl.rcParams)}
    drawn = (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())
    threads = (torch.get_num_threads(), [thread.name for thread in threading.enumerate()])
    return (rc, list(warnings.filters), logging.root.level, list(logging.root.handlers), drawn,
            torch.get_default_dtype(), threads)
torch.set_num_threads(2)
before = state()
for method in ("beta", "histogram", "bbq"):
    lscal.calibrators.CALIBRATORS[method].fit(logits, labels)(logits)
    assert state() == before, [a for a, b in zip(state(), before) if a != b]
    python = random.getstate()  # an import may draw from it: rich does
    lscal.calibrators.CALIBRATORS[method].fit(logits, labels)
    assert random.getstate() == python
assert logging.getLogger("pyro").handlers[0].stream is sys.stderr
"""


def test_the_import_of_netcal_changes_nothing_either():
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# beta


def test_beta_is_the_formula():
    logits, labels = drawn(seed=24)
    fitted = Beta.fit(logits, labels)
    p = oracles.softmax(logits.numpy())
    scores = (
        fitted.weights.numpy()[:, 0] * np.log(p)
        - fitted.weights.numpy()[:, 1] * np.log(1 - p)
        + fitted.bias.numpy()
    )
    np.testing.assert_allclose(fitted(logits).numpy(), scores, atol=1e-9)
    assert (fitted.weights >= 0).all()
    assert F.cross_entropy(fitted(logits), labels) < F.cross_entropy(logits, labels)


def test_beta_of_missing_classes():
    logits, labels = drawn(seed=25, classes=4)
    known = labels != 2
    fitted = Beta.fit(logits[known], labels[known])
    others = [0, 1, 3]
    assert_close(fitted.weights[2], fitted.weights[others].mean(0))
    assert_close(fitted.bias[2], fitted.bias[others].mean())
    assert fitted.weights[others].std(0).min() > 0.01
    alone = Beta.fit(logits[labels == 1], labels[labels == 1])
    assert_close(alone(logits), logits.log_softmax(-1))
