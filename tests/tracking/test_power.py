import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tracking.decision.power import (
    POWER,
    Design,
    Expected,
    Parts,
    count,
    examples_for,
    limit,
    pilot_of,
    rounded,
    seeds_for,
    seeds_planned,
    sentences,
)
from tracking.decision.sequential import looks
from tracking.records.outcome import Interval

ERROR = Interval(0.0, 0.0, 0.0, 0.001, 0.003)


def pairs(random, examples, discordance, common, beyond=0.0):
    """Two seeds' d: on an example discordant for both with the same sign, or for one of them; a seed's own
    shift turns some more to +1.
    """
    shared, own = (
        random.random(examples) < common * discordance,
        random.random((2, examples)) < (1 - common) * discordance,
    )
    signs = random.choice([-1.0, 1.0], (3, examples))
    d = np.where(shared, signs[0], np.where(own, signs[1:], 0.0))
    shifts = beyond * random.standard_normal(2)
    return np.where(
        (d == 0) & (random.random((2, examples)) < np.abs(shifts)[:, None]), np.sign(shifts)[:, None], d
    )


def right(examples=600, seed=0, discordance=0.03):
    """Two members at ε = 0 and two at ε > 0."""
    random = np.random.default_rng(seed)
    before = random.random((2, examples)) < 0.9
    return before, before ^ (random.random((2, examples)) < discordance)


def piloted(right0, right1, **changes):
    settings = {
        "epsilon": 0.1,
        "test_examples": 630,
        "member_seconds": 36.0,
        "effect": 0.003,
        "price_per_hour": None,
        "screening_members": 64,
        "finalists": 2,
        "confirm_seeds": None,
        "most_confirm_seeds": 24,
    }
    return pilot_of(right0, right1, **{**settings, **changes})


def test_with_many_examples_the_parts_are_what_they_are():
    found = Parts.of(pairs(np.random.default_rng(1), 2_000_000, 0.04, 0.25))
    assert found.shared == pytest.approx(0.25 * 0.04, rel=0.05)
    assert found.shared + found.own == pytest.approx(0.04, rel=0.02)


def test_what_seeds_do_everywhere_is_found_on_average_though_one_pilot_hardly_knows_it():
    def found(beyond):
        return np.mean(
            [
                Parts.of(pairs(np.random.default_rng(seed), 50_000, 0.03, 0.2, beyond)).beyond ** 0.5
                for seed in range(40)
            ]
        )

    assert 0.0005 < found(0.0) < 0.0015
    assert found(0.01) > 3 * found(0.0)


def test_a_handful_of_discordant_examples_is_drawn_towards_the_usual():
    nothing = Parts.of(np.zeros((2, 500)))
    assert 0 < nothing.shared < nothing.own < 0.002
    opposite = np.zeros((2, 500))
    opposite[:, 0] = 1, -1
    assert Parts.of(opposite).shared == 0
    alike = np.zeros((2, 500))
    alike[:, :12] = 1
    assert 0.8 * 12.5 / 500.5 < Parts.of(alike).shared < 12 / 500


def test_the_variance_on_a_test_set_of_another_size():
    parts = Parts(0.01, 0.02, 1e-6)
    error = parts.on(400).error(8)
    assert error**2 == pytest.approx(0.01 / 400 + (1e-6 + 0.02 / 400) / 8)


def test_the_power_of_one_look_is_that_of_the_noncentral_t():
    part = 0.003**2 / 4
    freedom = 3 * (1 + 0.001**2 / part) ** 2
    cautious = part * 3 / stats.chi2.ppf(0.1, 3)
    bound = stats.t.isf(0.025, 3 * (1 + 0.001**2 / cautious) ** 2)
    assert Design(ERROR, 4).power(0.005) == pytest.approx(
        stats.nct.sf(bound, freedom, 0.005 / ERROR.error(4)), abs=1e-4
    )


@pytest.mark.parametrize("ratio", [0.3, 1.0, 4.0])
def test_a_detectable_gain_is_found_in_eight_of_ten_simulated_confirmations(ratio):
    error = Interval(0.0, 0.0, 0.0, 0.001, 0.001 * ratio)
    design = Design(error, 16)
    gain = design.detectable()
    assert design.power(gain) == pytest.approx(POWER, abs=0.002)
    random, trials = np.random.default_rng(2), 40_000
    shared = gain + 0.001 * random.standard_normal(trials)
    seeds = error.seeds * random.standard_normal((trials, 16))
    found = np.zeros(trials, dtype=bool)
    for done, (bound, _) in zip(looks(16), design.bounds, strict=True):
        value, spread = shared + seeds[:, :done].mean(1), seeds[:, :done].var(1, ddof=1)
        found |= value / np.sqrt(0.001**2 + spread / done) > bound
    assert found.mean() == pytest.approx(POWER, abs=0.02)


def test_power_grows_with_the_gain_up_to_certainty():
    powers = [Design(ERROR, 8).power(gain) for gain in (0.0, 0.001, 0.003, 0.006, 0.03, 0.3)]
    assert powers == sorted(powers)
    assert 0.015 < powers[0] < 0.026
    assert powers[-1] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("deviations", np.linspace(30, 80, 12))
def test_a_gain_of_many_deviations_is_certain(deviations):
    assert Design(ERROR, 4).power(deviations * ERROR.error(4)) == pytest.approx(1, abs=1e-6)


def test_the_seeds_for_a_gain_are_the_fewest_in_batches():
    seeds = seeds_for(ERROR, 0.004)
    assert seeds % 4 == 0
    assert Design(ERROR, seeds).power(0.004) >= POWER > Design(ERROR, seeds - 4).power(0.004)
    assert seeds_for(ERROR, 0.99 * limit(ERROR)) is None
    assert limit(ERROR) == pytest.approx(0.001 * (stats.norm.isf(0.025) + stats.norm.isf(0.2)))


def test_the_examples_for_a_gain_are_the_fewest_to_two_percent():
    parts = Parts(0.01, 0.02, 1e-7)
    examples = examples_for(parts, 8, 0.003)
    assert (
        Design(parts.on(examples), 8).power(0.003)
        >= POWER
        > Design(parts.on(0.97 * examples), 8).power(0.003)
    )
    assert examples_for(replace(parts, beyond=0.01**2), 8, 0.003) is None


def test_seeds_are_added_up_to_where_they_help():
    right0, right1 = right()
    found = piloted(right0, right1, most_confirm_seeds=400)
    error = Interval(0.0, 0.0, 0.0, found.example_deviation / math.sqrt(630), found.seed_deviation)
    assert found.seeds_needed is None
    assert found.detectable <= 1.1 * limit(error) < Design(error, found.confirm_seeds - 4).detectable()
    assert found.detectable == pytest.approx(Design(error, found.confirm_seeds).detectable())
    assert piloted(right0, right1, most_confirm_seeds=8).confirm_seeds == 8
    assert piloted(right0, right1, confirm_seeds=6).confirm_seeds == 6
    easy = piloted(right0, right1, effect=0.1)
    assert (easy.confirm_seeds, easy.seeds_needed) == (4, 4)


def test_what_was_counted_and_what_it_costs():
    right0 = np.ones((2, 10), dtype=bool)
    right0[0, :3] = False
    right1 = np.ones((2, 10), dtype=bool)
    right1[1, 9] = False
    found = piloted(right0, right1, confirm_seeds=8, effect=0.9, price_per_hour=2.0)
    assert found.disagreement == pytest.approx(0.3)
    assert found.discordance == pytest.approx((3 + 1) / 20)
    assert (found.seeds, found.examples) == (2, 10)
    assert found.members == 4 + 64 + 3 * 8
    assert found.hours == pytest.approx(0.92)
    assert found.price == pytest.approx(1.84)
    assert found.seeds_needed == 4
    assert found.members_needed == 4 + 64 + 3 * 4
    assert found.price_needed == pytest.approx(1.6)
    assert piloted(right0, right1).price is None


@pytest.mark.parametrize("shape", [(3, 10), (2, 1), (10,)])
def test_another_number_of_seeds_is_refused(shape):
    with pytest.raises(ValueError, match="2 seeds"):
        piloted(np.ones(shape, dtype=bool), np.ones(shape, dtype=bool))


def test_what_can_be_decided_is_said_first_then_what_the_smallest_gain_of_interest_would_take():
    found = piloted(*right(), confirm_seeds=8, price_per_hour=2.0)
    first, second, third = sentences(found)
    assert (
        first
        == f"This sweep finds a gain in accuracy of {100 * found.detectable:.2f} pp or more four times in"
        " five (8 seeds, 630 test examples)."
    )
    examples = count(rounded(found.examples_needed))
    assert (
        second
        == f"The smallest gain of interest, 0.30 pp, would take about {examples} test examples, with 8 seeds."
    )
    assert third.startswith(
        "At most 92 members, 55 minutes, at a price of 1.84. Seen on 2 pairs: ε = 0.1 changes the verdict on "
    )
    assert third.endswith(f"{100 * found.discordance:.1f} % of 600 held-out examples.")


def test_where_seeds_are_the_limit_their_number_and_cost_are_told():
    found = piloted(*right(), confirm_seeds=8, test_examples=5000, effect=0.003)
    assert f"would take {found.seeds_needed} seeds ({found.members_needed} members, " in sentences(found)[1]
    assert f", or about {count(rounded(found.examples_needed))} test examples." in sentences(found)[1]
    assert sentences(replace(found, examples_needed=None))[1].endswith("hours).")


def test_a_sweep_which_resolves_its_question_says_that():
    assert (
        sentences(piloted(*right(), effect=0.05))[1] == "That covers the smallest gain of interest, 5.00 pp."
    )


def test_where_nothing_is_enough_it_is_said():
    found = replace(piloted(*right()), seeds_needed=None, examples_needed=None)
    assert sentences(found)[1].endswith("would take more than further seeds and test examples can give.")


def test_three_lines_are_enough_and_none_is_long_whatever_the_numbers():
    found = piloted(*right(), price_per_hour=9.0)
    large = {
        "seeds_needed": 4096,
        "members_needed": 12_356,
        "hours_needed": 1234.5,
        "price_needed": 12_345.67,
        "test_examples": 1_000_000,
    }
    for one in (
        found,
        replace(found, **large),
        replace(found, **large, members=12_345, hours=999.9, price=99_999.99),
    ):
        assert len(sentences(one)) == 3
        assert max(map(len, sentences(one))) <= 160


# ---- Before the pilot
# ------------------------------------------------------------------------------------------------

MEASURED = {  # docs/statistics.md: ψ, ρ, σ_b, held-out examples, test examples
    "digits/mlp": (0.0205, 0.53, 0.001, 541, 627),
    "fashion_mnist/mlp, 50 000": (0.0182, 0.09, 0.001, 10_000, 10_000),
    "fashion_mnist/mlp, 4000": (0.0269, 0.16, 0.0013, 10_000, 10_000),
    "digits/mlp, 5 epochs": (0.0114, 0.09, 0.001, 541, 627),
}


@pytest.mark.parametrize("task", MEASURED)
def test_what_is_said_before_the_pilot_holds_what_pilots_of_known_tasks_say(task):
    discordance, common, beyond, held_out, tested = MEASURED[task]
    low, high = Expected.of(tested, 0.003, None, 20).detectable
    assert high < 7 * low
    inside = 0
    for seed in range(40):
        error = Parts.of(pairs(np.random.default_rng(seed), held_out, discordance, common, beyond)).on(tested)
        inside += low <= Design(error, seeds_planned(error, 0.003, None, 20)).detectable() <= high
    assert inside >= 37


@pytest.mark.parametrize(
    ("tested", "effect", "confirm_seeds"), [(627, 0.003, None), (300, 0.01, 8), (10_000, 0.003, 20)]
)
def test_its_ends_are_what_the_pilot_would_say_of_such_noise(tested, effect, confirm_seeds):
    found = Expected.of(tested, effect, confirm_seeds, 20)
    for parts, seeds, detectable in zip(Parts.usual(), found.seeds, found.detectable, strict=True):
        assert seeds == (confirm_seeds or seeds_planned(parts.on(tested), effect, None, 20))
        assert detectable == pytest.approx(Design(parts.on(tested), seeds).detectable())
    if found.examples_needed is not None:
        error = Parts.usual()[0].on(found.examples_needed)
        assert Design(error, max(found.seeds)).power(effect) >= POWER


def test_it_names_what_it_assumes_and_the_seeds_that_are_planned():
    assert Expected.of(300, 0.003, 8, 20).sentence.endswith(
        "four times in five (8 seeds, 300 test examples), if ε changes the verdict on 0.7 to 8 % of examples,"
        " as is usual; the sweep's pilot narrows it"
    )
    assert "(up to 20 seeds, 10 000 test examples)" in Expected.of(10_000, 0.003, None, 20).sentence


def test_a_pilot_whose_seeds_have_nothing_in_common_comes_to_an_end():
    """σ_x is then 0: any gain could be resolved by seeds alone."""
    right0 = np.ones((2, 300), dtype=bool)
    right1 = right0.copy()
    right1[0, :12] = right1[1, 12:24] = False
    right0[0, 12:24] = right0[1, :12] = False  # what one seed loses, the other gains
    found = pilot_of(
        right0,
        right1,
        epsilon=0.1,
        test_examples=600,
        member_seconds=1.0,
        effect=0.003,
        price_per_hour=None,
        screening_members=64,
        finalists=2,
        confirm_seeds=8,
        most_confirm_seeds=20,
    )
    assert found.example_deviation == 0.0
    assert 0 < found.detectable < 0.2
    assert found.examples_needed is None or found.examples_needed > 600
