import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import kv, stdtrit

from tracking.decision.fit import Coordinates, Fit, curves_of, kernel, matern, noise_of
from tracking.records.outcome import Outcome

METRIC = "select/accuracy"
GRID = tuple(round(index / 100, 2) for index in range(41))
EPSILONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35)


def outcome(values, seeds=None, metric=METRIC, **point):
    seeds = tuple(range(len(values))) if seeds is None else seeds
    uid = str(sorted(point.items()))
    return Outcome(
        uid,
        "a/b",
        "a/b@1",
        "screen",
        0,
        point["epsilon"],
        10,
        point,
        seeds,
        {metric: tuple(values)},
        {},
        (),
        {},
        1.0,
        "now",
    )


def trials(table, epsilons=EPSILONS, metric=METRIC):
    return [
        outcome(row, metric=metric, epsilon=epsilon) for epsilon, row in zip(epsilons, table, strict=True)
    ]


def fit_of(table, epsilons=EPSILONS, metric=METRIC):
    return Fit.of(trials(table, epsilons, metric), metric, 0.0, 0.4)


def at(*epsilons):
    return [{"epsilon": epsilon} for epsilon in epsilons]


def rising(epsilon, gain=0.008, knee=0.03):
    """Fast at first, then level, as accuracy often is."""
    return 0.9 + gain * (1 - np.exp(-np.asarray(epsilon) / knee))


def noisy(generator, curve, epsilons=EPSILONS, seeds=8, noise=0.002, between=0.003):
    table = curve(np.array(epsilons))[:, None] + noise * generator.standard_normal((len(epsilons), seeds))
    return table + between * generator.standard_normal(seeds)


@pytest.fixture
def table():
    return noisy(np.random.default_rng(3), rising, seeds=5)


@pytest.mark.parametrize("seed_effect", [0.0, 0.01, 1.0])
def test_trial_means_are_enough(table, seed_effect):
    """Given the hyperparameters, the differences are those of a Gaussian process over all members whose
    kernel knows the seeds.
    """
    fit = fit_of(table)
    coordinates = fit.space.coordinates(fit.points)
    shape, _, _ = noise_of(table, coordinates)
    count, seeds = table.shape
    new = fit.space.coordinates(at(0.02, 0.12, 0.4, 0.0))
    for curve in fit.curves[:: max(1, len(fit.curves) // 4)]:
        one = replace(fit, curves=(replace(curve, weight=1.0),))
        scale = curve.variance * curve.scale**2
        level = 1e4 * (scale + curve.variance)
        same_trial, same_seed = np.ones((seeds, seeds)), np.ones((count, count))
        members = np.kron(scale * kernel(coordinates, coordinates, curve.shape) + level, same_trial)
        members += seed_effect**2 * np.kron(same_seed, np.eye(seeds)) + seeds * curve.variance * np.kron(
            shape, np.eye(seeds)
        )
        cross = np.kron(scale * kernel(new, coordinates, curve.shape) + level, np.ones(seeds))
        solved = np.linalg.solve(members, np.column_stack([table.ravel() - table.mean(), cross.T]))
        mean, covariance = (
            cross @ solved[:, 0],
            scale * kernel(new, new, curve.shape) + level - cross @ solved[:, 1:],
        )
        shift, error = one.shift(at(0.02, 0.12, 0.4), {"epsilon": 0.0})
        spread = [covariance[i, i] + covariance[3, 3] - 2 * covariance[i, 3] for i in range(3)]
        np.testing.assert_allclose(shift, mean[:3] - mean[3], rtol=1e-3, atol=1e-7)
        np.testing.assert_allclose(error, np.sqrt(spread), rtol=1e-3)


def test_the_kernel_is_matern():
    """Rasmussen and Williams 2006, equation 4.14, with ν = 5/2."""
    distance = np.linspace(0.01, 4, 50)
    root = math.sqrt(5) * distance
    np.testing.assert_allclose(
        matern(distance**2), 2**-1.5 / math.gamma(2.5) * root**2.5 * kv(2.5, root), rtol=1e-9
    )
    assert matern(np.zeros(1)) == 1
    first, second = (
        Coordinates(np.array([epsilon]), np.array([[other]]), 0.0, 0.4)
        for epsilon, other in ((0.0, 0.2), (0.4, 0.8))
    )
    assert kernel(first, second, (0.03, 0.5, 2.0)) == pytest.approx(matern(np.array(2.0**2 + 0.3**2)))


def test_weights_are_the_integral_over_level_and_size_of_the_noise():
    epsilons, means, freedom, variance = np.array([0.0, 0.1, 0.4]), np.array([0.2, 1.0, 0.9]), 6.0, 0.02
    trials = Coordinates(epsilons, np.zeros((3, 0)), 0.0, 0.4)
    noise = np.diag([1.5, 0.8, 0.7])
    curves = curves_of(means, trials, noise, variance, freedom)
    levels = np.linspace(-60, 60, 4001)
    integrals = []
    for curve in curves[::7]:
        whole = noise + curve.scale**2 * kernel(trials, trials, curve.shape)
        left = means[:, None] - levels
        misfit = (left * np.linalg.solve(whole, left)).sum(0)
        sizes = np.exp(np.linspace(-8, 0, 400))[:, None]
        of_means = np.exp(-misfit / sizes / 2) / sizes**1.5 / np.linalg.det(whole) ** 0.5
        of_residuals = sizes ** (-freedom / 2) * np.exp(-freedom * variance / sizes / 2)
        integrals.append(curve.scale * (of_means * of_residuals).sum())
    found = np.array([curve.weight for curve in curves[::7]])
    np.testing.assert_allclose(found / found.sum(), np.array(integrals) / np.sum(integrals), rtol=0.01)
    assert sum(curve.weight for curve in curves) == pytest.approx(1)
    for curve in curves[::7]:
        left = means - curve.level
        assert curve.variance == pytest.approx((left @ curve.inverse @ left + freedom * variance) / 8)


def test_curves_are_mixed_with_what_they_disagree_in(table):
    fit = fit_of(table)
    points = at(0.0, 0.02, 0.4)
    parts = [replace(fit, curves=(replace(curve, weight=1.0),)).posterior(points) for curve in fit.curves]
    weights = np.array([curve.weight for curve in fit.curves])
    mean, covariance = fit.posterior(points)
    np.testing.assert_allclose(
        mean, sum(weight * part[0] for weight, part in zip(weights, parts, strict=True)), rtol=1e-9
    )
    second = sum(
        weight * (part[1] + np.outer(part[0], part[0])) for weight, part in zip(weights, parts, strict=True)
    )
    np.testing.assert_allclose(covariance, second - np.outer(mean, mean), rtol=1e-4)
    assert np.mean([part[1][2, 2] for part in parts]) < covariance[2, 2]


def test_what_a_seed_does_to_all_trials_changes_no_difference(table):
    moved = table + np.array([0.3, -0.1, 0.0, 0.2, 0.05]) - 0.09
    first, second = fit_of(table), fit_of(moved)
    for mine, other in zip(
        first.shift(at(*GRID), {"epsilon": 0.0}), second.shift(at(*GRID), {"epsilon": 0.0}), strict=True
    ):
        np.testing.assert_allclose(mine, other, atol=1e-7)
    narrow, wide = first.band(GRID), second.band(GRID)
    assert max(np.subtract(narrow.high, narrow.low)) < 0.02 < min(np.subtract(wide.high, wide.low))


def test_units_do_not_matter(table):
    share, percent = fit_of(table).band(GRID), fit_of(100 * table).band(GRID)
    for name in ("mean", "low", "high", "shift", "shift_low", "shift_high"):
        np.testing.assert_allclose(
            100 * np.array(getattr(share, name)), getattr(percent, name), rtol=1e-5, atol=1e-6
        )


def test_a_band_is_on_the_grid_and_its_shift_begins_at_zero(table):
    band = fit_of(table).band(GRID)
    assert band.epsilon == GRID
    assert (band.shift[0], band.shift_low[0], band.shift_high[0]) == pytest.approx((0, 0, 0), abs=1e-6)
    assert all(low < mean < high for low, mean, high in zip(band.low, band.mean, band.high, strict=True))
    above = fit_of(table).band(GRID[5:])
    np.testing.assert_allclose(above.shift, band.shift[5:], atol=1e-12)


def test_far_from_trials_the_band_is_wider():
    band = fit_of(
        noisy(np.random.default_rng(0), rising, (0.0, 0.05, 0.1, 0.3, 0.35, 0.4)),
        (0.0, 0.05, 0.1, 0.3, 0.35, 0.4),
    ).band(GRID)
    width = np.subtract(band.high, band.low)
    assert width[20] > 1.2 * max(width[10], width[30])


@pytest.mark.parametrize(("seeds", "count"), [(8, 8), (4, 16)])
def test_bands_cover(seeds, count):
    """95 % bands of the shift and of the mean, where curves rise fast, fall, or do nothing; noise is larger
    at ε = 0.
    """
    generator = np.random.default_rng(1)
    epsilons = np.linspace(0, 0.4, count)
    covered, covered_mean = [], []
    for _ in range(40):
        gain, knee, fall = (
            generator.uniform(0, 0.01),
            math.exp(generator.uniform(math.log(0.01), math.log(0.1))),
            generator.uniform(0, 0.01),
        )

        def curve(epsilon, gain=gain, knee=knee, fall=fall):
            return rising(epsilon, gain, knee) - fall * epsilon / 0.4

        noise = 0.002 * (1 + np.exp(-epsilons / 0.02))[:, None]
        band = fit_of(noisy(generator, curve, epsilons, seeds, noise), epsilons).band(GRID)
        truth = curve(np.array(GRID))
        covered.append(
            (band.shift_low <= truth - truth[0] + 1e-12) & (truth - truth[0] - 1e-12 <= band.shift_high)
        )
        covered_mean.append((band.low <= truth) & (truth <= band.high))
    assert 0.92 <= np.mean(np.array(covered)[:, 1:]) <= 0.995
    assert np.mean(covered_mean) >= 0.92


def test_the_best_fitted_epsilon_loses_less_than_the_best_of_64_single_members():
    generator = np.random.default_rng(2)
    grid, many = np.array(GRID), np.linspace(0, 0.4, 64)
    ours, raw = [], []
    for _ in range(40):
        gain, knee, fall = (
            generator.uniform(0, 0.01),
            math.exp(generator.uniform(math.log(0.01), math.log(0.1))),
            generator.uniform(0, 0.01),
        )

        def curve(epsilon, gain=gain, knee=knee, fall=fall):
            return rising(epsilon, gain, knee) - fall * epsilon / 0.4

        fit = fit_of(noisy(generator, curve, seeds=8, noise=0.003))
        best = curve(grid).max()
        ours.append(best - curve(grid[fit.mean(at(*GRID)).argmax()]))
        single = curve(many) + math.hypot(0.003, 0.003) * generator.standard_normal(64)
        raw.append(best - curve(many[single.argmax()]))
    assert np.mean(ours) < 0.5 * np.mean(raw)


def test_one_seed_leaves_the_noise_to_the_fit():
    generator = np.random.default_rng(4)
    epsilons = np.linspace(0, 0.4, 32)
    covered = []
    for _ in range(10):
        fit = fit_of(noisy(generator, rising, epsilons, seeds=1, between=0.0), epsilons)
        assert fit.freedom == 31
        band = fit.band(GRID)
        covered.append((band.low <= rising(GRID)) & (rising(GRID) <= band.high))
    assert np.mean(covered) >= 0.85


def test_noise_is_learned_from_what_seeds_differ():
    generator = np.random.default_rng(5)
    epsilons = np.linspace(0, 0.4, 16)
    coordinates = fit_of(np.ones((16, 1)), epsilons).space.coordinates(at(*epsilons))
    even = generator.standard_normal((16, 40))
    shape, variance, freedom = noise_of(3 * even, coordinates)
    assert np.trace(shape) == pytest.approx(16)
    assert variance == pytest.approx(9, rel=0.1)
    assert 0.9 * 15 * 39 < freedom <= 15 * 39 + 1e-9
    swollen, _, fewer = noise_of(even * np.where(epsilons < 0.01, 4, 1)[:, None], coordinates)
    assert swollen[0, 0] > 6 * swollen[8, 8]
    assert fewer < 0.4 * freedom
    smooth = np.cos(epsilons[:, None] * 5 + 9 * generator.random(40))
    assert noise_of(smooth, coordinates)[0][8, 9] > 0.6 > 0.1 > abs(shape[8, 9])


def test_trials_with_other_seeds_are_left_out():
    table = noisy(np.random.default_rng(6), rising, seeds=4)
    balanced = trials(table)
    stray = outcome((0.5, 0.6), seeds=(70, 71), epsilon=0.4)
    broken = outcome((0.5, math.nan, 0.6, 0.6), epsilon=0.39)
    dropped = Outcome(
        "d",
        "a/b",
        "a/b@1",
        "screen",
        0,
        0.38,
        10,
        {"epsilon": 0.38},
        (0, 1, 2, 3),
        {},
        {},
        (),
        {},
        1.0,
        "now",
    )
    fit = Fit.of([stray, *balanced, broken, dropped], METRIC, 0.0, 0.4)
    assert fit.left_out == (stray.uid, broken.uid, "d")
    assert fit.seeds == (0, 1, 2, 3)
    np.testing.assert_array_equal(fit.mean(at(*GRID)), fit_of(table).mean(at(*GRID)))


def test_of_more_seeds_the_common_ones_are_taken_and_their_order_does_not_matter():
    table = noisy(np.random.default_rng(7), rising, seeds=4)
    others = trials(table)
    richer = outcome((0.1, *reversed(table[3]), 0.9), seeds=(9, 3, 2, 1, 0, 8), epsilon=EPSILONS[3])
    fit = Fit.of([*others[:3], richer, *others[4:]], METRIC, 0.0, 0.4)
    assert fit.left_out == ()
    np.testing.assert_allclose(fit.mean(at(*GRID)), fit_of(table).mean(at(*GRID)), rtol=1e-12)


def test_fewer_than_two_trials_are_refused():
    with pytest.raises(
        ValueError,
        match=r"1 trials with the same seeds have finite values of select/accuracy; wanted at least 2",
    ):
        Fit.of([outcome((0.9, 0.8), epsilon=0.0)], METRIC, 0.0, 0.4)


@pytest.mark.parametrize("seeds", [1, 2, 8])
@pytest.mark.parametrize("count", [2, 3])
def test_few_trials_say_little(seeds, count):
    epsilons = (0.0, 0.2, 0.4)[:count]
    table = noisy(np.random.default_rng(8), rising, epsilons, seeds=seeds)
    band = fit_of(table, epsilons).band(GRID)
    assert np.isfinite(list(vars(band).values())).all()
    assert band.high[10] - band.low[10] > 0.002


def test_values_which_never_differ_are_no_error():
    band = fit_of(np.full((8, 3), 0.75)).band(GRID)
    np.testing.assert_allclose(band.shift_high, 0, atol=1e-5)
    np.testing.assert_allclose([band.low, band.high], 0.75, atol=1e-5)
    lost = fit_of(np.zeros((8, 1))).band(GRID)
    np.testing.assert_allclose([lost.low, lost.high], 0, atol=1e-5)


def tuned(generator, value, count=24):
    """Trials whose accuracy is best at a learning rate that grows with ε, and with the second of three kinds
    of noise.
    """
    points = [
        {
            "epsilon": 0.4 * generator.random(),
            "learning_rate": 10 ** generator.uniform(-4, -2),
            value: generator.choice(["a", "b", "c"]),
        }
        for _ in range(count)
    ]

    def accuracy(point):
        away = math.log10(point["learning_rate"]) + 3 - 2 * (point["epsilon"] - 0.2)
        return 0.9 - 0.02 * away**2 + 0.01 * (point[value] == "b")

    return [outcome(accuracy(p) + 0.0005 * generator.standard_normal(4), **p) for p in points]


def test_a_profile_takes_the_best_of_what_else_is_tuned():
    fit = Fit.of(tuned(np.random.default_rng(9), "augment"), METRIC, 0.0, 0.4)
    for point in fit.profile((0.0, 0.1, 0.2, 0.3, 0.4)):
        assert point["augment"] == "b"
        assert math.log10(point["learning_rate"]) == pytest.approx(
            -3 + 2 * (point["epsilon"] - 0.2), abs=0.25
        )
    band = fit.band(GRID)
    assert band.mean == pytest.approx([0.91] * 41, abs=0.005)
    assert band.shift[0] == pytest.approx(0, abs=1e-9)


def test_a_profile_of_a_loss_takes_the_least():
    rows = tuned(np.random.default_rng(9), "augment")
    losses = [
        outcome([1 - value for value in one.metrics[METRIC]], metric="select/nll", **one.point)
        for one in rows
    ]
    kept = Fit.of(rows, METRIC, 0.0, 0.4).profile((0.0, 0.2))
    assert Fit.of(losses, "select/nll", 0.0, 0.4).profile((0.0, 0.2)) == kept


def test_without_epsilon_all_smoothings_are_the_same():
    """Two smoothings that gain differently with ε: the fit knows that they meet at ε = 0."""
    generator = np.random.default_rng(4)
    slopes = {"uniform": 0.1, "online": 0.4}
    rows = [
        outcome(
            0.8 + slopes[name] * epsilon + 0.0005 * generator.standard_normal(4),
            epsilon=epsilon,
            smoothing=name,
        )
        for epsilon, name in ((0.0, "uniform"), *((e, n) for e in (0.05, 0.1, 0.2, 0.4) for n in slopes))
    ]
    fit = Fit.of(rows, METRIC, 0.0, 0.4)
    points = [{"epsilon": epsilon, "smoothing": name} for epsilon in (0.0, 0.3) for name in slopes]
    mean, covariance = fit.posterior(points)
    assert mean[0] == mean[1] == pytest.approx(0.8, abs=0.003)
    assert covariance[0, 0] == covariance[1, 1] == pytest.approx(covariance[0, 1])
    assert mean[2:] == pytest.approx([0.83, 0.92], abs=0.01)
    assert [point["smoothing"] for point in fit.profile((0.1, 0.4))] == ["online", "online"]


def test_epsilon_below_zero_has_a_place():
    """A peak at ε = -0.1, and the mirror image of a task is fitted by the mirror image."""
    epsilons = (-0.3, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.3)
    curve = lambda epsilon: 0.9 - 0.5 * (epsilon + 0.1) ** 2  # noqa: E731
    generator = np.random.default_rng(6)
    table = [curve(epsilon) + 0.0005 * generator.standard_normal(4) for epsilon in epsilons]
    left, right = (
        Fit.of(
            [outcome(row, epsilon=sign * epsilon) for epsilon, row in zip(epsilons, table, strict=True)],
            METRIC,
            -0.3,
            0.3,
        )
        for sign in (1, -1)
    )
    grid = np.linspace(-0.3, 0.3, 25)
    band = left.band(tuple(grid))
    assert grid[int(np.argmax(band.mean))] == pytest.approx(-0.1, abs=0.05)
    np.testing.assert_allclose(band.mean, [curve(epsilon) for epsilon in grid], atol=0.002)
    np.testing.assert_allclose(band.mean, right.band(tuple(-grid)).mean, rtol=1e-9)


def test_a_tuned_value_of_zero_has_a_place():
    decays = (0.0, 1e-4, 1e-3, 1e-2)
    rows = [
        outcome((0.9 + 10 * decay, 0.9005 + 10 * decay), epsilon=e, weight_decay=decay)
        for e in (0.0, 0.2, 0.4)
        for decay in decays
    ]
    fit = Fit.of(rows, METRIC, 0.0, 0.4)
    assert fit.space.numbers == {"weight_decay": (1e-5, 1e-2)}
    best, worst = ({"epsilon": 0.1, "weight_decay": decay} for decay in (1e-2, 0.0))
    assert fit.shift([best], worst).value[0] == pytest.approx(0.1, rel=0.1)


def test_what_all_trials_share_is_carried_along(table):
    rows = [
        outcome(row, epsilon=epsilon, weight_decay=0.0) for epsilon, row in zip(EPSILONS, table, strict=True)
    ]
    fit = Fit.of(rows, METRIC, 0.0, 0.4)
    assert fit.profile((0.0, 0.3)) == [
        {"epsilon": 0.0, "weight_decay": 0.0},
        {"epsilon": 0.3, "weight_decay": 0.0},
    ]
    np.testing.assert_array_equal(fit.mean(at(*GRID)), fit_of(table).mean(at(*GRID)))


def test_a_band_is_a_students_t_interval_of_the_shift(table):
    fit = fit_of(table)
    shift, error = fit.shift(at(*GRID), {"epsilon": 0.0})
    band = fit.band(GRID)
    np.testing.assert_allclose(band.shift_high, shift + stdtrit(fit.freedom, 0.975) * error, atol=1e-12)
    assert 7 < fit.freedom <= 7 + 7 * 4
