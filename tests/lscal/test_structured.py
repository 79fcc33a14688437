"""Structured scaling, the ensemble temperature and the solver below, against slow and obvious versions."""

import json
import math

import numpy as np
import oracles
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.optimize import minimize
from torch import Tensor
from torch.testing import assert_close

from lscal.calibrators import (
    CALIBRATORS,
    EnsembleTemperature,
    StructuredMatrixScaling,
    StructuredVectorScaling,
    Temperature,
    VectorScaling,
    calibrator_from_json,
    ensemble,
    softmax_regression,
)
from lscal.calibrators.softmax_regression import Diagonal, Full, Structure
from lscal.predictions import Predictions

INF = math.inf
STRUCTURED = [StructuredVectorScaling, StructuredMatrixScaling]
ALL = [*STRUCTURED, VectorScaling, EnsembleTemperature]


def drawn(examples: int = 60, classes: int = 4, members: int = 1, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Overconfident models, off centre, that confuse neighbouring classes; and labels."""
    generator = torch.Generator().manual_seed(seed)
    evidence = 2 * torch.randn(examples, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(evidence.softmax(-1), 1, generator=generator).squeeze(-1)
    confused = torch.eye(classes).double() + 0.3 * torch.randn(
        classes, classes, generator=generator, dtype=torch.float64
    )
    noise = torch.randn(members, examples, classes, generator=generator, dtype=torch.float64)
    logits = 1.5 * evidence @ confused + 0.5 * noise + torch.linspace(0.2, 0.8, classes) + 0.7
    return (logits[0] if members == 1 else logits), labels


def features(logits: np.ndarray, temperature: float) -> np.ndarray:
    """log of softmax(z/T) with one example more, spread over all classes, row by row."""
    share = 1 / (len(logits) + 1)
    p = oracles.softmax(logits / temperature)
    return np.array([[math.log((1 - share) * value + share / len(row)) for value in row] for row in p])


def objective(
    matrix: np.ndarray, bias: np.ndarray, x: np.ndarray, labels: np.ndarray, masked: np.ndarray
) -> float:
    """Σ NLL + K·(diagonal and bias)² + K(K-1)·(the rest)², as written."""
    classes = len(bias)
    total = classes * (bias**2).sum()
    for j in range(classes):
        for k in range(classes):
            total += (
                classes * (matrix[j, k] - 1) ** 2 if j == k else classes * (classes - 1) * matrix[j, k] ** 2
            )
    for row, label, shut in zip(x, labels, masked, strict=True):
        scores = matrix @ row + bias
        if not shut[label]:
            total += math.log(np.exp(scores[~shut]).sum()) - scores[label]
    return float(total)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("method", STRUCTURED)
def test_structured_scaling_minimises_what_is_written(method: type, masks: bool):
    logits, labels = drawn(examples=50, classes=3)
    if masks:
        logits[::4, 0] = -INF  # the label itself in some of these rows
    fitted = method.fit(logits, labels)
    temperature = float(Temperature.fit(logits, labels).value)
    x, masked, full = (
        features(logits.numpy(), temperature),
        logits.isneginf().numpy(),
        method is STRUCTURED[1],
    )

    def parts(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (theta[:9].reshape(3, 3) if full else np.diag(theta[:3])), theta[-3:]

    start = np.concatenate([np.eye(3).ravel() if full else np.ones(3), np.zeros(3)])
    found = minimize(
        lambda theta: objective(*parts(theta), x, labels.numpy(), masked),
        start,
        method="BFGS",
        options={"gtol": 1e-6},
    )
    ours = fitted.matrix if full else fitted.scale.diag()
    assert bool(fitted.converged)
    np.testing.assert_allclose(ours.numpy(), parts(found.x)[0], atol=1e-5)
    np.testing.assert_allclose(fitted.bias.numpy(), parts(found.x)[1], atol=1e-5)
    assert float(fitted.temperature) == pytest.approx(temperature, rel=1e-9)
    assert float(fitted.uniform) == pytest.approx(1 / 51)
    expected = torch.from_numpy(x) @ ours.mT + fitted.bias
    assert_close(fitted(logits), expected.masked_fill(logits.isneginf(), -INF))


@pytest.mark.parametrize("name", ["svs", "sms"])
@pytest.mark.parametrize("shape", [(600, 3), (400, 10), (40, 12)])
@pytest.mark.filterwarnings("ignore")  # what the peer warns of is its own
def test_structured_scaling_is_no_worse_than_that_of_probmetrics(name: str, shape: tuple[int, int]):
    calibrators = pytest.importorskip("probmetrics.calibrators")
    logits, labels = drawn(*shape)
    fresh, answers = drawn(examples=3000, classes=shape[1], seed=3)
    theirs = calibrators.get_calibrator(name)
    theirs.fit(logits.softmax(-1).numpy(), labels.numpy())
    p = torch.from_numpy(theirs.predict_proba(fresh.softmax(-1).numpy()))
    calibrated = CALIBRATORS[name].fit(logits, labels)(fresh)
    assert float(F.cross_entropy(calibrated, answers)) < 1.005 * float(F.nll_loss(p.log(), answers))
    assert_close(calibrated.softmax(-1).float(), p.float(), atol=0.02, rtol=0)


@pytest.mark.parametrize("method", ALL)
def test_members_in_a_batch_equal_members_alone(method: type):
    population, labels = drawn(members=5, classes=6, examples=300)
    population = torch.stack([population, population.flip(0) * 0.1])
    together = method.fit(population, labels)(population)
    for i in range(2):
        for j in range(5):
            alone = method.fit(population[i, j], labels)(population[i, j])
            assert_close(alone, together[i, j], atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", STRUCTURED)
def test_a_constant_per_row_and_another_order_of_rows_change_nothing(method: type):
    logits, labels = drawn(examples=200)
    generator = torch.Generator().manual_seed(5)
    order = torch.randperm(200, generator=generator)
    moved = logits + 40 * torch.randn(200, 1, generator=generator, dtype=torch.float64)
    once, again = method.fit(logits, labels), method.fit(moved[order], labels[order])
    assert_close(once(logits)[order], again(moved[order]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("examples", [1, 2, 5])
def test_fewer_examples_than_classes(method: type, examples: int):
    logits, labels = drawn(examples=examples, classes=12)
    fitted = method.fit(logits, labels)
    assert fitted(logits).isfinite().all()


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("sharpness", [0.1, 1.0, 300.0])
def test_separable_examples_have_a_finite_answer(method: type, sharpness: float):
    labels = torch.arange(60) % 3
    logits = sharpness * (F.one_hot(labels, 3) + 0.02 * drawn(classes=3)[0])
    fitted = method.fit(logits, labels)
    calibrated = fitted(logits)
    assert calibrated.isfinite().all()
    assert (calibrated.argmax(-1) == labels).all()
    if hasattr(fitted, "scale") or hasattr(fitted, "matrix"):
        assert bool(fitted.converged)


@pytest.mark.parametrize("method", [VectorScaling, *STRUCTURED])
@pytest.mark.parametrize("kind", ["one class is upside down", "all but two labels are the same"])
@pytest.mark.parametrize("classes", [4, 10])
@pytest.mark.parametrize("scale", [0.1, 50.0])
def test_where_the_first_curvature_misleads_the_minimum_is_found(
    method: type, kind: str, classes: int, scale: float
):
    logits, labels = drawn(examples=200, classes=classes)
    logits = scale * logits
    if kind == "one class is upside down":
        logits[:, 0] *= -5
    else:
        labels = torch.where(torch.arange(200) < 198, 0, labels)
    fitted = method.fit(logits, labels)
    assert bool(fitted.converged)
    assert fitted(logits).isfinite().all()


@pytest.mark.parametrize("method", STRUCTURED)
def test_a_mask_is_the_limit_of_a_low_logit(method: type):
    """In features and predictions; the regression itself gives a masked class nothing to win."""
    logits, labels = drawn(examples=80)
    labels = torch.where(labels == 3, 0, labels)
    low, masked = logits.clone(), logits.clone()
    low[:, 3], masked[:, 3] = -1e4, -INF
    fitted = method.fit(masked, labels)
    assert_close(fitted(low)[:, :3], fitted(masked)[:, :3])
    assert fitted(masked)[:, 3].isneginf().all()


@pytest.mark.parametrize("structure", [Diagonal(), Full()])
def test_first_curvatures_and_chunks_lead_to_the_same_minimum(
    structure: Structure, monkeypatch: pytest.MonkeyPatch
):
    """The whole Hessian, blocks and the diagonal; kept and remade; in one piece and in many."""
    population, labels = drawn(members=3, classes=5, examples=400)
    method = STRUCTURED[isinstance(structure, Full)]
    usual = method.fit(population, labels)
    for name, value in (("NEWTON", 4), ("BLOCKS", 2), ("KEPT", 10), ("SERIAL", 50), ("STORED", 9)):
        monkeypatch.setattr(softmax_regression, name, value)
        other = method.fit(population, labels)
        assert other.converged.all()
        assert_close(other(population), usual(population), atol=1e-5, rtol=0)


@pytest.mark.parametrize("structure", [Diagonal(), Full()])
def test_gradient_and_hessian_are_the_derivatives(structure: Structure):
    logits, labels = drawn(examples=7, classes=3, members=2)
    chunk = softmax_regression.Chunks(logits, labels, lambda z: z).chunk(slice(None))
    ridge = torch.rand(structure.size(3), dtype=torch.float64)
    theta = torch.randn(2, structure.size(3), dtype=torch.float64, requires_grad=True)

    def value(theta: Tensor) -> Tensor:
        scores = structure.logits(theta, chunk.x)
        nll = F.cross_entropy(scores.mT.flatten(0, 1), labels.repeat(2), reduction="sum")
        return nll + (ridge * theta.square()).sum() / 2

    objective = softmax_regression.Objective(structure, [chunk], ridge)
    (gradient,) = torch.autograd.grad(value(theta), theta)
    point = objective.at(theta.detach())
    assert_close(point.gradient, gradient)
    assert float(point.value.sum()) == pytest.approx(float(value(theta.detach())))
    hessian = torch.autograd.functional.hessian(value, theta.detach())
    factor = objective.curvature(theta.detach(), 7)
    for member in range(2):
        assert_close(factor[member, 0] @ factor[member, 0].mT, hessian[member, :, member])


def test_an_example_whose_label_is_masked_adds_nothing():
    logits, labels = drawn(examples=9, classes=3)
    logits[4, labels[4]] = -INF
    others = torch.arange(9) != 4
    theta = torch.linspace(-1, 1, 12, dtype=torch.float64).unsqueeze(0)
    both = []
    for rows in (slice(None), others):
        chunks = softmax_regression.Chunks(
            logits[rows].unsqueeze(0), labels[rows], lambda z: z.masked_fill(z.isneginf(), 0.0)
        )
        both.append(softmax_regression.Objective(Full(), chunks, torch.ones(12).double()).at(theta))
    assert_close(both[0].value, both[1].value)
    assert_close(both[0].gradient, both[1].gradient)


@pytest.mark.parametrize(("classes", "examples"), [(100, 300), (1000, 120)])
def test_many_classes(classes: int, examples: int):
    logits, labels = drawn(examples=examples, classes=classes)
    for method in STRUCTURED:
        fitted = method.fit(logits.float(), labels)
        assert bool(fitted.converged)
        before = F.cross_entropy(Temperature.fit(logits, labels)(logits), labels)
        assert F.cross_entropy(fitted(logits), labels) <= before + 0.05


# ensemble temperature


def test_ensemble_weights_are_the_minimum_on_the_simplex():
    logits, labels = drawn(examples=150)
    wrong = F.one_hot((labels[:10] + 1) % 4, 4)
    logits[:10] = 30 * wrong.double()  # sure, too: what the uniform part is for
    fitted = EnsembleTemperature.fit(logits, labels)
    temperature = float(Temperature.fit(logits, labels).value)
    z, y = logits.numpy(), labels.numpy()
    rows = np.arange(len(y))
    own = np.stack([oracles.softmax(z / temperature)[rows, y], oracles.softmax(z)[rows, y], 0 * y + 0.25], 1)
    grid = [(a, b, 1 - a - b) for a in np.linspace(0, 1, 101) for b in np.linspace(0, 1 - a, 101)]
    best = min(grid, key=lambda w: float("inf") if min(own @ w) <= 0 else -np.log(own @ w).sum())
    reached = -np.log(own @ fitted.weights.numpy()).sum()
    assert bool(fitted.converged)
    assert float(fitted.weights.sum()) == pytest.approx(1)
    assert reached <= -np.log(own @ best).sum() + 0.03
    np.testing.assert_allclose(fitted.weights.numpy(), best, atol=0.03)
    mixture = sum(
        float(weight) * part
        for weight, part in zip(
            fitted.weights, (oracles.softmax(z / temperature), oracles.softmax(z), 0.25), strict=True
        )
    )
    np.testing.assert_allclose(fitted(logits).exp().numpy(), mixture, rtol=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_ensemble_temperature_agrees_with_probmetrics():
    calibrators = pytest.importorskip("probmetrics.calibrators")
    logits, labels = drawn(examples=2000)
    theirs = calibrators.ETSCalibrator(loss="ce")
    theirs.fit(logits.softmax(-1).numpy(), labels.numpy())
    p = torch.from_numpy(theirs.predict_proba(logits.softmax(-1).numpy())).double()
    calibrated = EnsembleTemperature.fit(logits, labels)(logits)
    assert float(F.cross_entropy(calibrated, labels)) < 1.0005 * float(F.nll_loss(p.log(), labels))


def test_the_uniform_part_is_spread_over_the_classes_that_are_allowed():
    logits, labels = drawn(examples=100)
    labels = torch.where(labels == 3, 0, labels)
    masked = torch.cat([logits[:, :3], torch.full((100, 1), -INF)], 1)
    fitted = EnsembleTemperature.fit(masked, labels)
    alone = EnsembleTemperature.fit(logits[:, :3], labels)
    assert_close(fitted(masked)[:, :3], alone(logits[:, :3]))
    assert fitted(masked)[:, 3].isneginf().all()


@pytest.mark.parametrize("examples", [1, 7, 5000])
@pytest.mark.parametrize("scale", [0.01, 1.0, 200.0])
def test_ensemble_weights_stay_on_the_simplex(examples: int, scale: float):
    logits, labels = drawn(examples=examples, members=3)
    fitted = EnsembleTemperature.fit(logits * scale, labels)
    assert (fitted.weights > 0).all()
    index = labels.expand(3, -1).unsqueeze(-1)
    parts = ensemble.parts(logits * scale, fitted.temperature)
    own = torch.cat([part.gather(-1, index) for part in parts], -1)
    gradient = (own / (own @ fitted.weights.unsqueeze(-1))).sum(-2) + ensemble.PRIOR / fitted.weights
    assert_close(gradient, torch.full_like(gradient, examples + 3 * ensemble.PRIOR), rtol=1e-4, atol=0)


def test_where_the_temperature_is_1_the_ensemble_is_the_model():
    logits, labels = drawn(examples=4000, classes=3)
    logits = Temperature.fit(logits, labels)(logits)
    assert_close(
        EnsembleTemperature.fit(logits, labels)(logits).softmax(-1), logits.softmax(-1), atol=0.01, rtol=0
    )


# JSON


GOOD = {
    "svs": {"temperature": 1.0, "uniform": 0.1, "scale": [1, 2], "bias": [1, 0], "converged": True},
    "sms": {
        "temperature": 1.0,
        "uniform": 0.1,
        "matrix": [[1, 0], [0, 1]],
        "bias": [1, 0],
        "converged": True,
    },
    "ets": {"temperature": 1.0, "weights": [0.5, 0.25, 0.25], "converged": True},
}


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("svs", {"bias": [[1, 0]]}, r"svs has the shapes .*wanted \(\.\.\., K\) for scale"),
        ("svs", {"temperature": [1.0]}, "svs has the shapes"),
        ("svs", {"scale": [1, 1e999]}, "a scale or a bias which is not finite"),
        ("svs", {"temperature": 0.0}, "temperature outside of 0.01 to 1000"),
        ("svs", {"uniform": 0.0}, "uniform outside of 0 to 1"),
        ("svs", {"converged": 1}, "numbers in converged"),
        ("sms", {"matrix": [[1, 2]]}, r"sms has the shapes .*wanted \(\.\.\., K, K\) for matrix"),
        ("ets", {"weights": [1, 0]}, r"wanted \(\.\.\.\), \(\.\.\., 3\)"),
        ("ets", {"weights": [1, 1, -1]}, "negative or do not sum to 1"),
        ("ets", {"weights": [0.5, 0.2, 0.2]}, "negative or do not sum to 1"),
        ("ets", {"temperature": 2000}, "temperature outside of"),
        ("ets", {"converged": 0}, "numbers in converged"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_no_fit_gives_is_refused(method: str, changes: dict[str, object], message: str):
    values = {"method": method} | GOOD[method]
    assert calibrator_from_json(json.dumps(values)).method == method
    with pytest.raises(ValueError, match=message):
        calibrator_from_json(json.dumps(values | changes).replace("Infinity", "1e999"))


def test_logits_of_many_magnitudes_leave_a_curvature_that_rounding_spoilt():
    """Their Hessian is not positive definite to float64; the search goes on with its diagonal."""
    generator = torch.Generator().manual_seed(26)
    labels = torch.randint(0, 2, (150,), generator=generator)
    lead = 1.5 + torch.randn(1, 150, generator=generator)
    lead = lead * torch.exp(5 * torch.randn(1, 150, generator=generator))
    sign = 2.0 * labels - 1
    logits = torch.stack([-lead * sign / 2, lead * sign / 2], -1)
    for method in ("vector", "svs", "sms"):
        fitted = CALIBRATORS[method].fit(logits, labels)
        after = Predictions.from_logits(fitted(logits), labels).nll.mean()
        temperature = Predictions.from_logits(Temperature.fit(logits, labels)(logits), labels).nll.mean()
        assert float(after) <= float(temperature) + 0.02
