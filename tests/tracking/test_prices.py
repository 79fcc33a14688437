from dataclasses import replace

import pytest
from made import evidence
from scipy.stats import binom

from tracking.decision.prices import Prices, promised
from tracking.decision.screening import priced

DEAR = Prices(wrong=1000.0, review=1.0, right=0.0)


def test_the_cheapest_coverage():
    prices = Prices(wrong=1.0, review=0.1, right=0.0)
    risks = [0.0, 0.02, 0.04, 0.2]
    assert prices.best_coverage(risks) == 0.75
    assert prices.cost_at(risks, 0.75) == pytest.approx(0.75 * 0.04 + 0.25 * 0.1)
    assert prices.cost_at(risks, 1.0) == pytest.approx(0.2)
    assert prices.cost_at(risks, 0.0) == 0.1
    hopeless = [0.5, 0.5, 0.5, 0.5]
    assert prices.best_coverage(hopeless) == 0.0
    assert Prices(wrong=1.0, review=0.1, right=-1.0).best_coverage(hopeless) == 1.0


@pytest.mark.parametrize(("examples", "errors"), [(270, 0), (270, 3), (2500, 17), (30, 29)])
def test_the_promise_is_the_error_rate_at_which_so_few_errors_have_five_per_cent(examples, errors):
    limit = promised([0.0, errors / examples], examples)[1]
    assert binom.cdf(errors, examples, limit) == pytest.approx(0.05, rel=1e-6)


def test_a_share_of_the_examples_promises_less_and_errors_alone_nothing():
    limits = promised([0.0, 0.0, 0.0, 1.0], 90)
    assert limits[:3] == tuple(pytest.approx(1 - 0.05 ** (1 / count)) for count in (23, 45, 68))
    assert limits[3] == 1.0


def test_only_what_is_promised_to_be_cheaper_than_a_review_is_decided():
    risks = [0.0] * 100
    assert DEAR.best_coverage(risks) == 1.0
    assert DEAR.best_coverage(risks, 2994) == 0.0
    assert DEAR.best_coverage(risks, 2995) == 1.0
    assert Prices(wrong=1000.0, review=1.0, right=-1.0).best_coverage(risks, 1600) == 1.0


def test_among_what_is_promised_the_cheapest_is_taken_not_the_surest():
    prices, risks = Prices(), [0.0] * 50 + [0.001 * step for step in range(1, 51)]
    plain = prices.best_coverage(risks)
    assert 0.5 < plain < 1
    assert prices.best_coverage(risks, 2500) == plain
    assert prices.best_coverage(risks, 40) == 0.0 < prices.best_coverage(risks, 60) <= plain
    limits = promised(risks, 60)
    assert limits[round(100 * prices.best_coverage(risks, 60)) - 1] < prices.break_even


def test_a_trial_is_priced_at_the_coverage_its_calibrate_examples_promise():
    trial = evidence().outcomes[0]
    unknown, few, many = (replace(trial, calibrate_examples=count) for count in (0, 10, 10**9))
    assert Prices().coverage_of(unknown) == Prices().coverage_of(many) > 0
    assert Prices().coverage_of(few) == 0
    assert set(priced(few, Prices()).metrics["select/cost"]) == {0.1}


def test_why_everything_is_reviewed():
    assert (
        DEAR.why_reviewed(0.0, 270)
        == "The 270 examples of calibrate cannot promise an error rate below 1.1 %, and deciding costs less"
        " than a review below 0.1 %, so everything is reviewed at these prices; it takes at least 2995"
        " examples."
    )
    assert (
        "No share of the 5000 examples of calibrate promises an error rate below 0.1 %"
        in DEAR.why_reviewed(0.0, 5000)
    )


@pytest.mark.parametrize(
    ("prices", "coverage", "examples"), [(DEAR, 0.5, 270), (DEAR, 0.0, 0), (Prices(1.0, 0.0, 0.0), 0.0, 270)]
)
def test_nothing_is_said_where_something_is_decided_or_examples_are_not_the_reason(
    prices, coverage, examples
):
    assert prices.why_reviewed(coverage, examples) == ""
