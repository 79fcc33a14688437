import math

import numpy as np
import pytest
from scipy import stats

from tracking.decision.holm import holm
from tracking.decision.sequential import (
    LEVEL,
    cautious_freedom,
    cautious_shares,
    claim,
    critical,
    crossing,
    examples_to_settle,
    least_level,
    looks,
    seeds_to_settle,
    state_of,
)
from tracking.records.comparison import Claim
from tracking.records.outcome import Interval


@pytest.mark.parametrize(
    ("looked", "expected"),
    # Jennison and Turnbull 2000, chapter 7; R package ldbounds, O'Brien-Fleming-type spending, one-sided
    # 0.025
    [
        (4, (4.3326, 2.9631, 2.3590, 2.0141)),
        (5, (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)),
    ],
)
def test_critical_values_are_those_of_the_tables(looked, expected):
    assert critical([look / looked for look in range(1, looked + 1)], 0.025) == pytest.approx(
        expected, abs=2e-4
    )


def test_critical_values_spend_what_they_should_on_simulated_paths():
    shares = np.array([0.3, 0.55, 0.9, 1.0])
    bounds = np.array(critical(shares, 0.1))
    paths = np.random.default_rng(1).standard_normal((400_000, 4)) * np.sqrt(np.diff(shares, prepend=0))
    above = paths.cumsum(1) / np.sqrt(shares) > bounds
    spent = np.maximum.accumulate(above, 1).mean(0)
    assert spent == pytest.approx(2 - 2 * stats.norm.cdf(stats.norm.isf(0.05) / np.sqrt(shares)), abs=0.0015)


def test_the_probability_of_crossing_agrees_with_simulated_paths_with_drift():
    shares = np.array([0.25, 0.7, 1.0])
    bounds = np.array([2.5, 2.4, 1.7])
    drift = 2.0
    steps = np.diff(shares, prepend=0)
    paths = np.random.default_rng(2).standard_normal((400_000, 3)) * np.sqrt(steps) + drift * steps
    crossed = (paths.cumsum(1) / np.sqrt(shares) > bounds).any(1).mean()
    assert crossing(shares, bounds, drift) == pytest.approx(crossed, abs=0.003)


def test_one_look_with_all_information_is_the_plain_test():
    assert critical([1.0], 0.025)[0] == pytest.approx(stats.norm.isf(0.025), abs=1e-9)
    found = claim({16: Interval(0.004, 0, 0, 0.001, 0.004, 1e9)}, 16, 1)
    seeds = 0.004**2 * 15 / stats.chi2.ppf(0.1, 15) / 16
    freedom = 15 * (1 + 0.001**2 / seeds) ** 2
    half = stats.t.ppf(0.975, freedom) * math.sqrt(0.001**2 + 0.004**2 / 16)
    assert (found.low, found.high) == pytest.approx((0.004 - half, 0.004 + half), rel=1e-6)
    assert found.p == pytest.approx(stats.t.sf(0.004 / math.sqrt(2e-6), freedom), rel=1e-3)


def test_a_look_with_next_to_no_information_is_never_crossed():
    bounds = critical([0.001, 0.002, 1.0], 0.025)
    assert min(bounds[:2]) > 35
    assert bounds[2] == pytest.approx(stats.norm.isf(0.025), abs=1e-6)


def test_looks_with_hardly_any_new_information_keep_a_finite_critical_value():
    nearly = critical([1.0, 1.0, 1.0, 1.0], 0.025)
    assert all(1.95 < bound < 2.1 for bound in nearly)


@pytest.mark.parametrize("shares", [[], [0.0, 1.0], [0.5, 0.4], [0.5, 1.1], [math.nan]])
def test_shares_which_do_not_ascend_are_refused(shares):
    with pytest.raises(ValueError, match="ascending"):
        critical(shares, 0.025)


@pytest.mark.parametrize("shares", [(0.3,), (0.25, 0.5), (0.8, 0.92, 0.97, 1.0)])
@pytest.mark.parametrize("deviate", [1.5, 2.2, 4.5])
def test_the_least_level_is_the_one_at_which_the_last_look_just_crosses(shares, deviate):
    level = least_level(shares, deviate)
    if level < 1:
        assert critical(shares, level)[-1] == pytest.approx(deviate, abs=1e-4)
    else:
        assert critical(shares, 0.5)[-1] > deviate


@pytest.mark.parametrize("better", [1, -1])
@pytest.mark.parametrize("value", [0.0015, 0.0034, 0.0036, 0.006, -0.004])
def test_the_interval_excludes_zero_exactly_where_p_is_at_most_its_level(better, value):
    looked = {
        4: Interval(0.002 * better, 0, 0, 0.0012, 0.002, 60.0),
        8: Interval(value * better, 0, 0, 0.0012, 0.0021, 70.0),
    }
    found = claim(looked, 16, better)
    assert (found.p <= LEVEL) == (state_of(found, better) == "proven")
    assert found.seeds == (4, 8)
    assert found.values == (0.002 * better, value * better)
    assert (found.low + found.high) / 2 == pytest.approx(value * better)


def test_the_same_estimate_counts_for_less_at_an_early_look():
    same = Interval(0.004, 0, 0, 0.001, 0.003, 200.0)
    early, last = claim({4: same}, 16, 1), claim({4: same}, 4, 1)
    assert early.p > last.p
    assert early.low < last.low


def test_a_claim_without_any_spread_is_certain_or_nothing():
    assert claim({4: Interval(0.01, 0.01, 0.01)}, 8, 1) == Claim(0.0, 0.01, 0.01, (4,), (0.01,))
    assert claim({4: Interval(0.0, 0.0, 0.0)}, 8, 1) == Claim(1.0, 0.0, 0.0, (4,), (0.0,))


@pytest.mark.parametrize("counts", [(), (8, 4), (4, 20)])
def test_looks_out_of_order_are_refused(counts):
    with pytest.raises(ValueError, match="ascending order, up to 16"):
        claim({seeds: Interval(0.0, 0.0, 0.0) for seeds in counts}, 16, 1)


def test_claims_are_proven_hopeless_or_open():
    def between(low, high):
        return Claim(0.1, low, high, (4,), (0.0,))

    assert state_of(between(0.001, 0.02), 1, 0.003) == "proven"
    assert state_of(between(-0.001, 0.002), 1, 0.003) == "hopeless"
    assert state_of(between(-0.001, 0.004), 1, 0.003) == "open"
    assert state_of(between(-0.02, -0.001), -1) == "proven"
    assert state_of(between(0.001, 0.02), -1) == "hopeless"
    assert state_of(between(-0.001, 0.02), -1) == "open"


@pytest.mark.parametrize("ratio", [0.05, 4.0])
def test_false_claims_stay_rare_and_the_interval_covers_at_whatever_look_seeds_stop(ratio):
    """Simulated confirmations of no gain: variances estimated, half of the seeds' variance known from the
    examples, as measured on tasks.
    """
    random, trials, planned = np.random.default_rng(3), 120, 16
    false, covered = 0, 0
    for _ in range(trials):
        shared, seeds = random.standard_normal(), ratio * random.standard_normal(planned)
        looked = {}
        for count in looks(planned):
            spread = max(seeds[:count].var(ddof=1), ratio**2 / 2)
            error = 1 + spread / count
            freedom = error**2 / (1 / 1023 + (spread / count) ** 2 / (count - 1))
            looked[count] = Interval(shared + seeds[:count].mean(), 0, 0, 1.0, spread**0.5, freedom)
            found = claim(looked, planned, 1)
            if state_of(found, 1) != "open":
                break
        false += state_of(found, 1) == "proven"
        covered += found.low <= 0 <= found.high
    assert false <= stats.binom.ppf(0.999, trials, LEVEL)
    assert covered >= stats.binom.ppf(0.001, trials, 0.95)


def test_few_seeds_that_agree_by_chance_do_not_make_a_look_complete():
    agree = Interval(0.004, 0, 0, 0.001, 0.0005, 500.0)
    assert cautious_shares(agree, (4,), 16)[0] < (agree.error(16) / agree.error(4)) ** 2
    assert cautious_freedom(agree, 4) < 500
    assert cautious_freedom(Interval(0.004, 0, 0, 0.001, 0.0, 500.0), 4) == 500


def test_holm_with_equal_weights_is_the_textbook_procedure():
    p = {"a": 0.010, "b": 0.013, "c": 0.024, "d": 0.2}
    assert holm(p, dict.fromkeys(p, 1.0)) == {"a": True, "b": True, "c": True, "d": False}
    assert holm(p | {"a": 0.0126}, dict.fromkeys(p, 1.0)) == dict.fromkeys(p, False)


def test_holm_with_weights_is_the_closed_test():
    """A claim is accepted where every set of claims with it has some p <= level·weight/(weights of the
    set).
    """
    random = np.random.default_rng(4)
    names = ("own", "b", "c")
    weights = {"own": 0.5, "b": 0.25, "c": 0.25}
    sets = [[name for place, name in enumerate(names) if bits >> place & 1] for bits in range(1, 8)]
    for _ in range(300):
        p = dict(zip(names, random.uniform(0, 0.06, 3), strict=True))
        refused = {
            key
            for key, members in enumerate(sets)
            if all(p[m] > 0.05 * weights[m] / sum(weights[o] for o in members) for m in members)
        }
        closed = {name: not any(name in sets[key] for key in refused) and p[name] <= 0.025 for name in names}
        assert holm(p, weights) == closed


def test_holm_accepts_nothing_which_its_own_interval_would_not():
    assert holm({"a": 0.03}, {"a": 1.0}) == {"a": False}
    assert holm({("ε", "accuracy"): 0.025}, {("ε", "accuracy"): 1.0}) == {("ε", "accuracy"): True}


@pytest.mark.parametrize(
    ("value", "threshold", "better"), [(0.0029, 0.0, 1), (-0.0029, 0.0, -1), (0.0529, 0.05, 1)]
)
def test_the_seeds_to_settle_are_the_fewest_which_do(value, threshold, better):
    found = Interval(value, 0, 0, 0.001, 0.003, 20.0)
    more = seeds_to_settle(found, 4, threshold, better)
    assert more > 0

    def proven(seeds):
        done = claim(
            {count: Interval(value - threshold, 0, 0, 0.001, 0.003) for count in looks(seeds)}, seeds, better
        )
        return state_of(done, better) == "proven"

    assert proven(4 + more)
    assert not proven(4 + more - 4)


def test_what_no_number_of_seeds_settles_needs_examples():
    found = Interval(0.0019, -0.001, 0.005, 0.001, 0.003, 20.0)
    assert seeds_to_settle(found, 16, 0.0, 1) is None
    examples = examples_to_settle(found, 16, 1000, 0.0, 1)
    scale = math.sqrt(1000 / examples)
    settled = claim(
        {count: Interval(0.0019, 0, 0, 0.001 * scale, 0.003 * scale) for count in looks(16)}, 16, 1
    )
    assert 0 <= settled.low < 1e-5


def test_an_estimate_on_the_wrong_side_is_settled_by_nothing():
    found = Interval(-0.001, -0.003, 0.001, 0.001, 0.003, 20.0)
    assert seeds_to_settle(found, 4, 0.0, 1) is None
    assert examples_to_settle(found, 4, 1000, 0.0, 1) is None


def test_looks_are_few_and_end_with_all_seeds():
    assert looks(16) == (4, 8, 12, 16)
    assert looks(6) == (4, 6)
    assert looks(3) == (3,)
    for seeds in (1, 4, 33, 40, 100, 999):
        assert looks(seeds)[-1] == seeds
        assert len(looks(seeds)) <= 8
